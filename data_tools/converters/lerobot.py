"""Convert LeRobot data sets (versions 3.0 and 2.1) to sequences, index included.

SOURCE is the folder of a data set, with meta/info.json. One camera is taken, whether its frames are stored as
pictures or as videos, and each episode becomes one sequence: OUT/<split>/<episode>. The source's own splits
are kept if there is more than training; otherwise episodes are dealt out. With --fps frames are left out: the
source's rate must be a multiple of it. Started again, an interrupted conversion continues.
"""

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..conversion import (
    DEFAULT_SHARES,
    WHOLE,
    DataRoot,
    Report,
    WorkShard,
    add_shard_argument,
    add_splits_argument,
    assign_splits,
    check_shares,
    fill_root,
    print_report,
    print_selection,
)
from ..errors import InputError
from ..files import natural_key
from ..folders import write_sequence
from ..pool import add_workers_argument, check_workers
from ..splits import split_of
from ..tables import hold_last
from .cameras import camera_order
from .images import add_fit_arguments, check_image_width, fit_picture
from .lerobot_files import Episode, Info, columns_of, read_info, read_table, stored_pictures, video_pictures

ACTION, STATE = "action", "observation.state"
MIN_FRAMES = 2


@dataclass(frozen=True)
class Selection:
    """The part of each episode that is taken.

    Args:
        camera: its feature.
        actions, states: features whose columns are put side by side.
        every: each so many-th frame.
        sum_actions: add up the actions between two frames that are taken.
        image_width, fit: see `images.fit_picture`.
    """

    camera: str
    actions: tuple[str, ...]
    states: tuple[str, ...]
    every: int
    sum_actions: bool
    image_width: int
    fit: str


def select(info: Info, camera: str | None, action_keys: list[str] | None, state_keys: list[str] | None):
    """Return the camera, the action features and the state features to take, by name or by what is usual.

    Raises `InputError` naming the flag for what the data set does not have.
    """
    cameras = sorted(info.cameras, key=camera_order)
    if not cameras:
        raise InputError(f"{info.root}: found no camera among the features {', '.join(info.features)}")
    if camera is None:
        camera = cameras[0]
    matching = [name for name in cameras if name == camera or name.rpartition(".")[2] == camera]
    if len(matching) != 1:
        raise InputError(f"--camera: found {camera}, expected one of {', '.join(cameras)}")
    chosen = []
    for flag, keys, usual in (("--action_key", action_keys, ACTION), ("--state_key", state_keys, STATE)):
        if keys is None:
            keys = [usual] if usual in info.vectors else []
        keys = [] if keys == ["none"] else keys
        for key in keys:
            if key not in info.vectors:
                raise InputError(f"{flag}: found {key}, expected none or some of {', '.join(info.vectors)}")
        chosen.append(tuple(keys))
    return matching[0], *chosen


def read_episode(
    info: Info, episode: Episode, selection: Selection
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Return frames uint8 [T,W,W,3], actions float32 [T,A] and states float32 [T,P]; a table without keys is
    None.

    Raises `InputError` naming the file that is damaged or of another length than the data set says.
    """
    path = info.root / episode.data
    place = f"{path}: episode {episode.number}"
    is_stored = info.features[selection.camera].dtype == "image"
    columns = [
        "frame_index",
        *selection.actions,
        *selection.states,
        *([selection.camera] if is_stored else []),
    ]
    table = read_table(path, info.root, columns, episode.number)
    order = np.array(table.column("frame_index").to_pylist())
    if not np.array_equal(np.sort(order), np.arange(episode.length)):
        raise InputError(
            f"{place}: found {len(order)} rows, expected frames 0 to {episode.length - 1}; restore it"
        )
    if not (np.diff(order) > 0).all():
        table = table.take(np.argsort(order))
    actions = columns_of(table, selection.actions, info, place)
    states = columns_of(table, selection.states, info, place)
    if actions is not None:
        actions = _thin_actions(hold_last(actions), selection)
    if states is not None:
        states = states[:: selection.every]
    if is_stored:
        pictures = stored_pictures(table, selection.camera, place)
    else:
        film, start = episode.videos[selection.camera]
        pictures = video_pictures(info.root / film, info.root, start, episode.length, info.fps)
    return np.stack(list(_frames(pictures, selection, place))), actions, states


def _thin_actions(actions: np.ndarray, selection: Selection) -> np.ndarray:
    """Return the actions of the frames that are taken, those up to the next one added up if asked for."""
    if not selection.sum_actions:
        return actions[:: selection.every]
    return np.add.reduceat(actions, range(0, len(actions), selection.every)).astype(np.float32)


def _frames(pictures: Iterator[Image.Image], selection: Selection, place: str) -> Iterator[np.ndarray]:
    for time, picture in enumerate(pictures):
        if time % selection.every:
            continue
        try:
            yield fit_picture(picture, selection.image_width, selection.fit)
        except ValueError as error:
            raise InputError(f"{place}: frame {time}: {error}") from None


def convert(
    source: Path,
    out: Path,
    camera: str | None = None,
    action_keys: list[str] | None = None,
    state_keys: list[str] | None = None,
    fps: float | None = None,
    sum_actions: bool = False,
    image_width: int = 64,
    fit: str = "crop",
    shares: tuple[float, float, float] | None = None,
    workers: int | None = None,
    skip_damaged: bool = False,
    shard: WorkShard = WHOLE,
) -> tuple[Selection, Report]:
    """Convert the episodes of a LeRobot data set into the data root `out`, index included.

    Args:
        source: folder of the data set.
        out: data root.
        camera: feature of the images, or its last part; the first by name that is not on the robot if None.
        action_keys, state_keys: features whose columns are put side by side; the usual ones if None.
        fps: frames a second to keep; all if None.
        sum_actions: with `fps`, add up the actions between two frames that are kept: for displacements.
        image_width, fit: see `images.fit_picture`.
        shares: deal all episodes out in these shares; if None, the source's own splits are kept, unless
            training is all it has.
        workers: processes; as many as there are processors if None.
        shard: the part of the work that is done.
        skip_damaged: leave damaged episodes out instead of raising.

    Raises `InputError` naming flag or file.
    """
    workers = check_workers(workers)
    check_image_width(image_width)
    info = read_info(Path(source))
    every = _every(info.fps, fps)
    selection = Selection(
        *select(info, camera, action_keys, state_keys), every, sum_actions, image_width, fit
    )
    splits = _splits(info, shares)
    recipe = {"converter": "lerobot", "version": 1, **asdict(selection), "splits": shares}
    recipe["episodes"] = {str(episode.number): episode.length for episode in info.episodes}
    report = Report()
    short = [episode for episode in info.episodes if -(-episode.length // every) < MIN_FRAMES]
    report.notes += [
        f"episode {episode.number}: found fewer than {MIN_FRAMES} frames: not used" for episode in short
    ]
    aside = sorted(set(info.cameras) - {selection.camera}, key=natural_key)
    if aside:
        report.notes.append(f"cameras that are not read: {', '.join(aside)}")
    jobs = [
        (episode, Path(out) / split / f"{episode.number:06d}")
        for episode, split in zip(info.episodes, splits, strict=True)
        if episode not in short
    ]
    work = partial(_convert_episode, info=info, selection=selection, skip_damaged=skip_damaged)
    root = DataRoot(
        Path(out), recipe, Path(source).resolve().name, f"LeRobot {info.version}, {selection.camera}"
    )
    fill_root(root, jobs, work, workers, target=lambda job: job[1], report=report, shard=shard)
    return selection, report


def _convert_episode(
    job: tuple[Episode, Path], info: Info, selection: Selection, skip_damaged: bool
) -> Report:
    episode, folder = job
    try:
        write_sequence(folder, *read_episode(info, episode, selection))
    except InputError as error:
        if not skip_damaged:
            raise InputError(f"{error} (or leave such episodes out with --skip_damaged)") from None
        return Report(left_out=[str(error)])
    return Report(written=1)


def _every(source: float, wanted: float | None) -> int:
    if wanted is None:
        return 1
    every = round(source / wanted) if wanted > 0 else 0
    if every < 1 or abs(every * wanted - source) > 1e-6 * source:
        raise InputError(
            f"--fps: found {wanted:g}, expected a rate of which the source's, {source:g}, is a multiple"
        )
    return every


def _splits(info: Info, shares: tuple[float, float, float] | None) -> list[str]:
    """Return the split of each episode."""
    known = {split_of(name) for name in info.splits}
    if shares is None and known & {"validate", "test"}:
        splits = []
        for episode in info.episodes:
            names = [name for name, numbers in info.splits.items() if episode.number in numbers]
            split = split_of(names[0]) if len(names) == 1 else None
            if split is None:
                found = " and ".join(names) or "none"
                raise InputError(
                    f"--splits: found {found} for episode {episode.number}; give shares, like 0.8 0.1 0.1"
                )
            splits.append(split)
        return splits
    shares = shares or DEFAULT_SHARES
    check_shares(shares)
    return assign_splits(len(info.episodes), shares)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``svg-data lerobot``."""
    parser.add_argument("source", type=Path, help="folder of the data set, with meta/info.json")
    parser.add_argument("out", type=Path, help="data root to write")
    parser.add_argument(
        "--camera", help="its feature, or the last part (default: the first not on the robot)"
    )
    for flag, usual in (("--action_key", ACTION), ("--state_key", STATE)):
        help = f"feature, or several side by side, or none (default: {usual}, if it is there)"
        parser.add_argument(flag, nargs="+", metavar="KEY", help=help)
    parser.add_argument("--fps", type=float, help="frames a second to keep (default: all)")
    parser.add_argument(
        "--sum_actions", action="store_true", help="with --fps: add up actions in between, for displacements"
    )
    add_fit_arguments(parser)
    add_splits_argument(parser, "the source's own, unless training is all it has")
    parser.add_argument(
        "--skip_damaged", action="store_true", help="leave damaged episodes out and name them"
    )
    add_workers_argument(parser)
    add_shard_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Convert a data set and print what was taken and done."""
    shares = tuple(args.splits) if args.splits else None
    selection, report = convert(
        args.source,
        args.out,
        args.camera,
        args.action_key,
        args.state_key,
        args.fps,
        args.sum_actions,
        args.image_width,
        args.fit,
        shares,
        args.workers,
        args.skip_damaged,
        shard=args.shard,
    )
    print_selection(selection.camera, selection.actions, selection.states)
    print_report(args.out, [args.out], report)
