"""Convert RLDS episodes of TensorFlow Datasets into sequences and their index, without TensorFlow.

SOURCE is the folder of one version of a data set: features.json, dataset_info.json and the TFRecords that
these describe, such as NAME-SPLIT.tfrecord-00000-of-00001. Each episode becomes one sequence of the same
length: frames of one camera, and actions and states (as the end-effector positions) as float32 tables. Step t
of an episode holds the observation at time t and the action that was carried out then, which is the order
that training expects. Data sets of sequences without the `steps` of RLDS, such as bair_robot_pushing_small of
TFDS, are converted as well. Started again, an interrupted conversion continues.
"""

import argparse
import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
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
from ..pool import add_workers_argument, check_workers
from ..splits import split_of
from ..tables import hold_last
from ..unread import among, list_unread
from .cameras import camera_order
from .images import add_fit_arguments, check_image_width, decode_picture, fit_picture
from .records import convert_records
from .tfds import FEATURES_FILE, INFO_FILE, Shard, StepFeature, find_shards, find_version, read_step_features
from .tfrecord import Feature, some_names

CAMERAS = ("picture", "pixels")  # kinds of features
ACTIONS = ("action", "actions")  # usual names
STATES = ("observation/state", "endeffector_pos", "state", "states")
EPISODES_A_JOB = 32
JOBS_A_SHARD = 16  # at most: each job passes over all records before its own


@dataclass(frozen=True)
class Selection:
    """The features that are taken from each step, and the size of the frames."""

    camera: str
    actions: tuple[str, ...]
    states: tuple[str, ...]
    image_width: int
    fit: str


def select(
    features: dict[str, StepFeature],
    camera: str | None,
    action_keys: list[str] | None,
    state_keys: list[str] | None,
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return (camera, action keys, state keys), each as asked for or, if None, the usual one.

    A single "none" selects no key. The usual camera is the first by name that is in colour and not on the
    robot. Raises `InputError` for an unknown key, which lists the known ones.
    """
    cameras = {name: feature for name, feature in features.items() if feature.kind in CAMERAS}
    numbers = [name for name, feature in features.items() if feature.kind == "numbers"]
    if camera is None:
        camera = min(cameras, default=None, key=lambda name: _order(name, cameras[name]))
    if camera not in cameras:
        there = ", ".join(sorted(cameras)) or "no camera, as this data set has none"
        raise InputError(f"--camera: found {camera}, expected one of {there}")
    actions = _select_numbers(numbers, "--action_key", action_keys, ACTIONS)
    states = _select_numbers(numbers, "--state_key", state_keys, STATES)
    return camera, actions, states


def _select_numbers(
    numbers: list[str], flag: str, keys: list[str] | None, usual: Sequence[str]
) -> tuple[str, ...]:
    """Return the keys as asked for; if None, all that are or begin with the first of the usual names."""
    if keys is None:
        groups = ([name for name in numbers if f"{name}/".startswith(f"{prefix}/")] for prefix in usual)
        return tuple(sorted(next(filter(None, groups), [])))
    if keys == ["none"]:
        return ()
    for key in keys:
        if key not in numbers:
            raise InputError(f"{flag}: found {key}, expected none or some of {', '.join(sorted(numbers))}")
    return tuple(keys)


def _order(name: str, camera: StepFeature) -> tuple[bool, bool, str]:
    """Return a key that sorts cameras: those in colour first, then as `camera_order`."""
    is_grey = camera.shape[-1] not in (3, 4)
    is_moving, name = camera_order(name)
    return is_grey, is_moving, name


def read_episode(
    features: Mapping[str, Feature], steps: dict[str, StepFeature], selection: Selection
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Return frames uint8 [T,W,W,3], actions float32 [T,A] and states float32 [T,P] of one Example.

    A table without keys is None. The last action may be NaN; see `tables.hold_last`. Raises `ValueError` with
    the fault.
    """
    camera = steps[selection.camera]
    images = features.get(camera.key, [])
    if camera.kind == "pixels":
        images = read_tensor(images, camera)
    if not len(images) or (camera.kind == "picture") != isinstance(images, list):
        raise ValueError(f"no images {camera.key}, found {some_names(features)}")
    actions = _read_table(features, steps, selection.actions, len(images))
    states = _read_table(features, steps, selection.states, len(images))
    if actions is not None:
        actions = hold_last(actions)
    for keys, table in ((selection.actions, actions), (selection.states, states)):
        if table is not None and not np.isfinite(table).all():
            raise ValueError(f"{', '.join(keys)}: numbers that are not finite")
    return np.stack(list(_frames(images, selection))), actions, states


def _read_table(
    features: Mapping[str, Feature], steps: dict[str, StepFeature], keys: tuple[str, ...], count: int
) -> np.ndarray | None:
    """Return the columns of features side by side, float32 [count,columns], or None without keys."""
    columns = []
    for feature in (steps[key] for key in keys):
        if feature.key not in features:
            raise ValueError(f"no feature {feature.key}, found {some_names(features)}")
        values = read_tensor(features[feature.key], feature)
        if len(values) != count:
            found = f"found {values.size} values, expected {feature.size} for each of {count} images"
            raise ValueError(f"{feature.key}: {found}")
        columns.append(values.reshape(count, -1).astype(np.float32))
    return np.concatenate(columns, axis=1) if columns else None


def _frames(images: list[bytes] | np.ndarray, selection: Selection) -> Iterator[np.ndarray]:
    """Yield the images as frames uint8 [W,W,3]."""
    for time, image in enumerate(images):
        try:
            if isinstance(image, bytes):
                picture = decode_picture(image, ("JPEG", "PNG"))
            else:
                picture = Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image).convert("RGB")
            yield fit_picture(picture, selection.image_width, selection.fit)
        except ValueError as error:
            raise ValueError(f"step {time} of {selection.camera}: {error}") from None


def read_tensor(values: Feature, feature: StepFeature) -> np.ndarray:
    """Return the values of each step, [T,*shape], in the type in which they are stored; pixels are uint8.

    Raises `ValueError` for values that do not make up whole steps, or that are no pixels.
    """
    if isinstance(values, list) != (feature.encoding != "none"):
        raise ValueError(f"{feature.key}: found {len(values)} values of another type than features.json says")
    if isinstance(values, list):
        dtype = np.dtype(feature.dtype).newbyteorder("<")
        size = feature.size * dtype.itemsize
        if feature.encoding == "zlib":
            values = [_inflate(value, size, feature.key) for value in values]
        wrong = next((len(value) for value in values if len(value) != size), None)
        if wrong is not None:
            raise ValueError(f"{feature.key}: found {wrong} bytes, expected {size} for each step")
        return np.frombuffer(b"".join(values), dtype).reshape(len(values), *feature.shape)
    if values.size % feature.size:
        raise ValueError(f"{feature.key}: found {values.size} values, expected {feature.size} for each image")
    if feature.kind == "pixels":
        if values.dtype != np.int64 or values.min(initial=0) < 0 or values.max(initial=0) > 255:
            raise ValueError(f"{feature.key}: found values other than 0 to 255, which are no pixels")
        values = values.astype(np.uint8)
    return values.reshape(-1, *feature.shape)


def _inflate(value: bytes, size: int, key: str) -> bytes:
    """Return decompressed bytes, at most one more than `size`."""
    try:
        return zlib.decompressobj().decompress(value, size + 1)
    except zlib.error as error:
        raise ValueError(f"{key}: {error}") from None


def convert(
    source: Path,
    out: Path,
    camera: str | None = None,
    action_keys: list[str] | None = None,
    state_keys: list[str] | None = None,
    image_width: int = 64,
    fit: str = "crop",
    shares: tuple[float, float, float] | None = None,
    workers: int | None = None,
    skip_damaged: bool = False,
    shard: WorkShard = WHOLE,
) -> tuple[Selection, Report]:
    """Convert the episodes under `source` into the data root `out`, index included.

    Args:
        source: folder of one version of a TFDS data set.
        out: data root.
        camera, action_keys, state_keys: paths of features within a step; see `select`.
        image_width, fit: see `images.fit_picture`.
        shares: assign all episodes to train, validate and test in these shares. If None, the splits of the
            source are kept; if training is all it has, its episodes are assigned 8 : 1 : 1.
        workers: number of processes; as many as there are processors if None.
        shard: the part of the work that is done.
        skip_damaged: leave damaged episodes out instead of raising.

    Raises `InputError` naming shard, record and byte offset for an episode that is damaged or lacks what was
    asked for.
    """
    workers = check_workers(workers)
    check_image_width(image_width)
    folder = find_version(source)
    steps = read_step_features(folder / FEATURES_FILE)
    listed = find_shards(folder)
    shards = listed.present
    absent = listed.absent
    if absent and not skip_damaged:
        raise InputError(
            f"{absent[0]} ({len(absent)} in all); fetch it, or take what is there with --skip_damaged"
        )
    selection = Selection(*select(steps, camera, action_keys, state_keys), image_width, fit)
    recipe = {"converter": "rlds", "version": 1, **asdict(selection), "splits": shares}
    recipe |= {"shards": {shard.name: shard.episodes for shard in shards}}
    jobs = [
        (shard, episodes, splits)
        for shard, splits in zip(shards, _episode_splits(shards, shares), strict=True)
        for episodes in _divided(shard.episodes)
    ]
    work = partial(_convert_episodes, out=out, steps=steps, selection=selection, skip_damaged=skip_damaged)
    root = DataRoot(out, recipe, listed.dataset, f"RLDS, {selection.camera}")
    report = Report(left_out=absent, notes=listed.notes)
    fill_root(root, jobs, work, workers, report=report, shard=shard)
    files = [folder / FEATURES_FILE, folder / INFO_FILE, *(shard.path for shard in shards)]
    report.notes += itertools.chain(*list_unread(folder, among(files)))
    return selection, report


def _divided(episodes: int) -> list[range]:
    """Return the numbers of the episodes of a shard in pieces, each for one job."""
    size = max(EPISODES_A_JOB, -(-episodes // JOBS_A_SHARD))
    return [range(start, min(start + size, episodes)) for start in range(0, episodes, size)]


def _episode_splits(shards: list[Shard], shares: tuple[float, float, float] | None) -> list[list[str]]:
    """Return for each shard the split of each of its episodes."""
    splits = [split_of(shard.split) for shard in shards]
    if shares is None and ("validate" in splits or "test" in splits):
        known = [split for split in splits if split is not None]
        if len(known) < len(splits):
            names = ", ".join(sorted({shard.split for shard in shards}))
            advice = "give shares, like 0.8 0.1 0.1"
            raise InputError(f"--splits: found splits {names}, which are not all known; {advice}")
        return [[split] * shard.episodes for split, shard in zip(known, shards, strict=True)]
    shares = shares or DEFAULT_SHARES
    check_shares(shares)
    assigned = iter(assign_splits(sum(shard.episodes for shard in shards), shares))
    return [list(itertools.islice(assigned, shard.episodes)) for shard in shards]


def _convert_episodes(
    job: tuple[Shard, range, list[str]],
    out: Path,
    steps: dict[str, StepFeature],
    selection: Selection,
    skip_damaged: bool,
) -> Report:
    """Write some episodes of a shard."""
    shard, numbers, splits = job

    def folders(number: int) -> dict[str, Path]:
        return {"": out / splits[number] / shard.name / str(number)} if number in numbers else {}

    return convert_records(
        shard.path,
        folders,
        lambda features, _: read_episode(features, steps, selection),
        skip_damaged,
        shard.episodes,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument(
        "source", type=Path, help="folder of one version, with features.json and dataset_info.json"
    )
    parser.add_argument("out", type=Path, help="data root to write")
    parser.add_argument(
        "--camera",
        help="path of the images within a step (default: the first by name that is not on the robot)",
    )
    parser.add_argument(
        "--action_key",
        nargs="+",
        metavar="KEY",
        help="path of the actions, or several, or none (default: action)",
    )
    parser.add_argument(
        "--state_key",
        nargs="+",
        metavar="KEY",
        help="the same for states (default: observation/state, if it is there)",
    )
    add_fit_arguments(parser)
    add_splits_argument(parser, "those of the source, unless training is all it has")
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
        args.image_width,
        args.fit,
        shares,
        args.workers,
        args.skip_damaged,
        shard=args.shard,
    )
    print_selection(selection.camera, selection.actions, selection.states)
    print_report(args.out, [args.out], report)
