"""Converts RLDS episodes, as TensorFlow Datasets writes them, into sequences and their index, without TensorFlow.

SOURCE is the folder of one version of a data set: features.json, dataset_info.json and NAME-SPLIT.tfrecord-NNNNN-of-NNNNN.
Each episode becomes one sequence, as long as it is: frames from one camera, actions and states (as the end-effector positions)
as float32 tables. Step t of an episode holds what was observed at time t and the action carried out then, which is the order
that training expects. Started again, an interrupted conversion continues.
"""

import argparse
import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from .claim import claimed
from .conversion import (
    DEFAULT_SHARES,
    RECIPE_FILE,
    Report,
    add_splits_argument,
    assign_splits,
    check_shares,
    convert_records,
    gather,
    print_report,
)
from .images import add_fit_arguments, check_image_width, decode_picture, fit_picture
from .index import build_index
from .layout import InputError, read_json
from .pool import add_workers_argument, check_workers, in_order
from .tfrecord import FRAMING_BYTES, Feature

SPLIT_NAMES = {"train": "train", "test": "test"} | dict.fromkeys(("val", "valid", "validate", "validation"), "validate")
ON_THE_ROBOT = ("wrist", "hand", "gripper")  # in names of cameras that move along
EPISODES_A_JOB = 32


@dataclass(frozen=True)
class StepFeature:
    """One feature of a step: "image", or "numbers" of `size` values, or "other"."""

    kind: str
    size: int = 0


@dataclass(frozen=True)
class Shard:
    path: Path
    split: str  # as the source names it
    episodes: int


@dataclass(frozen=True)
class Selection:
    """What to take from each step, and at what size."""

    camera: str
    actions: tuple[str, ...]
    states: tuple[str, ...]
    image_width: int
    fit: str


def find_version(source: Path) -> Path:
    """The folder with features.json: `source` itself or the only one below it."""
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; name the folder of one version of a data set")
    found = [source] if (source / "features.json").exists() else [path.parent for path in sorted(source.rglob("features.json"))]
    if len(found) != 1:
        names = ", ".join(str(path) for path in found[:5]) or "none"
        raise InputError(f"{source}: expected one folder with features.json, found {names}; name the folder of one version")
    return found[0]


def read_step_features(path: Path) -> dict[str, StepFeature]:
    """The features of a step by their path, such as ``observation/image``, from features.json."""
    tree = read_json(path, "restore it")
    try:
        return dict(_leaves(tree["featuresDict"]["features"]["steps"]["sequence"]["feature"], ""))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        found = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: no RLDS features, steps within an episode ({found}); restore it") from None


def _leaves(node: dict, path: str) -> Iterator[tuple[str, StepFeature]]:
    if not isinstance(node, dict) or not node:
        raise TypeError(f"{path or 'steps'} is no feature")
    if "featuresDict" in node:
        for name, child in node["featuresDict"]["features"].items():
            yield from _leaves(child, f"{path}/{name}" if path else name)
    elif "image" in node:
        yield path, StepFeature("image" if _dimensions(node["image"], ["3"])[-1] == 3 else "other")
    elif "tensor" in node:
        tensor = node["tensor"]
        sizes = _dimensions(tensor, [])
        encoding = tensor.get("encoding", "none")
        if not isinstance(encoding, str):
            raise TypeError(f"{path} has the encoding {encoding!r}")
        plain = encoding == "none" and re.fullmatch(r"(b?float|u?int|bool)\d*", tensor.get("dtype", ""))
        yield path, StepFeature("numbers", math.prod(sizes)) if plain and all(n > 0 for n in sizes) else StepFeature("other")
    else:
        yield path, StepFeature("other")


def _dimensions(feature: dict, usual: list[str]) -> list[int]:
    found = feature.get("shape", {}).get("dimensions", usual)
    if not isinstance(found, list):
        raise TypeError(f"found dimensions {found!r}")
    return [_count(dimension) for dimension in found]


def _count(value: object) -> int:
    """A whole number as the JSON of protocol buffers has it, in quotes; -1: not known. Raises `ValueError` for anything else."""
    if type(value) is not int and not (isinstance(value, str) and re.fullmatch("-1|[0-9]{1,18}", value)):
        raise ValueError(f"found {value!r}")
    return int(value)


def find_shards(folder: Path) -> tuple[list[Shard], list[str]]:
    """The shards in a folder, in order, with the number of episodes that dataset_info.json promises for each.

    And a line for each shard that is not there though others of its split are.
    """
    path = folder / "dataset_info.json"
    info = read_json(path, "restore it")
    try:
        lengths = {split["name"]: [_count(length) for length in split["shardLengths"]] for split in info["splits"]}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: no shard lengths of the splits ({type(error).__name__}: {error}); restore it") from None
    shards = []
    for file in sorted(folder.glob("*.tfrecord-*-of-*")):
        name = re.fullmatch(r".*-(?P<split>[^-]+)\.tfrecord-(?P<number>\d{5,})-of-(?P<total>\d{5,})", file.name)
        if not name:
            continue
        split, number, total = name["split"], int(name["number"]), int(name["total"])
        if len(lengths.get(split, ())) != total or number >= total:
            raise InputError(
                f"{file}: {path.name} lists {len(lengths.get(split, ()))} shards of split {split}, not {total}; restore it"
            )
        episodes = lengths[split][number]
        if not 0 <= episodes * FRAMING_BYTES <= file.stat().st_size:  # before anything is made for each of them
            raise InputError(
                f"{file}: {file.stat().st_size} bytes cannot hold {episodes} episodes, as {path.name} says; restore it"
            )
        shards.append(Shard(file, split, episodes))
    if not shards:
        kind = info.get("fileFormat", "tfrecord")
        also = "" if kind == "tfrecord" else f"; its file format is {kind}, expected tfrecord"
        raise InputError(f"{folder}: found no NAME-SPLIT.tfrecord-NNNNN-of-NNNNN beside {path.name}{also}")
    present = {shard.path.name for shard in shards}
    prefix = shards[0].path.name.rsplit("-", 4)[0]
    absent = []
    for split in {shard.split for shard in shards}:
        total = len(lengths[split])
        names = [f"{prefix}-{split}.tfrecord-{number:05d}-of-{total:05d}" for number in range(total)]
        absent += [f"{folder / name}: missing shard of split {split}" for name in names if name not in present]
    return shards, sorted(absent)


def select(features: dict[str, StepFeature], camera: str | None, action_keys: list[str] | None, state_keys: list[str] | None):
    """(camera, action keys, state keys), each as asked for or, if None, the usual one; a lone "none" selects no key.

    Raises `InputError` that lists what there is for a key that is not there.
    """
    cameras = [name for name, feature in features.items() if feature.kind == "image"]
    numbers = [name for name, feature in features.items() if feature.kind == "numbers"]
    if camera is None:
        camera = min(cameras, default=None, key=lambda name: (any(word in name for word in ON_THE_ROBOT), name))
    if camera not in cameras:
        there = ", ".join(sorted(cameras)) or "no camera, as this data set has none"
        raise InputError(f"--camera: found {camera}, expected one of {there}")
    chosen = []
    for flag, keys, usual in (("--action_key", action_keys, "action"), ("--state_key", state_keys, "observation/state")):
        if keys is None:
            keys = sorted(name for name in numbers if name == usual or name.startswith(f"{usual}/"))
        elif keys == ["none"]:
            keys = []
        for key in keys:
            if key not in numbers:
                raise InputError(f"{flag}: found {key}, expected none or some of {', '.join(sorted(numbers))}")
        chosen.append(tuple(keys))
    return camera, *chosen


def read_episode(features: dict[str, Feature], steps: dict[str, StepFeature], selection: Selection):
    """Frames uint8 [T,W,W,3], actions float32 [T,A] and states float32 [T,P] of one Example; a table without keys is None.

    Raises `ValueError` with what is missing or damaged.
    """
    images = features.get(f"steps/{selection.camera}")
    if not isinstance(images, list) or not images:
        raise ValueError(f"no images steps/{selection.camera}")
    tables = []
    for keys in (selection.actions, selection.states):
        columns = []
        for key in keys:
            values = features.get(f"steps/{key}")
            if not isinstance(values, np.ndarray) or values.size != len(images) * steps[key].size:
                found = "none" if values is None else len(values)
                raise ValueError(f"steps/{key}: found {found} values, expected {steps[key].size} for each of {len(images)} images")
            columns.append(values.reshape(len(images), -1).astype(np.float32))
        table = np.concatenate(columns, axis=1) if columns else None
        if table is not None and not np.isfinite(table).all():
            raise ValueError(f"{', '.join(keys)}: numbers that are not finite")
        tables.append(table)
    frames = []
    for time, image in enumerate(images):
        try:
            frames.append(fit_picture(decode_picture(image, ("JPEG", "PNG")), selection.image_width, selection.fit))
        except ValueError as error:
            raise ValueError(f"step {time} of {selection.camera}: {error}") from None
    return np.stack(frames), *tables


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
) -> tuple[Selection, Report]:
    """Converts the episodes under `source` into the data root `out`, index included.

    Args:
        source: folder of one version of a TFDS data set.
        out: data root.
        camera, action_keys, state_keys: paths of features within a step; see `select`.
        image_width, fit: see `images.fit_picture`.
        shares: deal all episodes out to train, validate and test in these shares; if None, the source's own splits are kept,
            unless training is all it has, which is then dealt out 8 : 1 : 1.
        workers: processes; as many as there are processors if None.
        skip_damaged: leave damaged episodes out instead of raising.

    Raises `InputError` naming shard, record and byte offset for an episode that is damaged or lacks what was asked for.
    """
    workers = check_workers(workers)
    check_image_width(image_width)
    folder = find_version(source)
    steps, (shards, absent) = read_step_features(folder / "features.json"), find_shards(folder)
    if absent and not skip_damaged:
        raise InputError(f"{absent[0]} ({len(absent)} in all); fetch it, or take what is there with --skip_damaged")
    selection = Selection(*select(steps, camera, action_keys, state_keys), image_width, fit)
    recipe = {"converter": "rlds", "version": 1, **asdict(selection), "splits": shares}
    recipe |= {"shards": {shard.path.name: shard.episodes for shard in shards}}
    jobs = [
        (shard, range(start, min(start + EPISODES_A_JOB, shard.episodes)), splits)
        for shard, splits in zip(shards, _episode_splits(shards, shares), strict=True)
        for start in range(0, shard.episodes, EPISODES_A_JOB)
    ]
    work = partial(_convert_episodes, out=out, steps=steps, selection=selection, skip_damaged=skip_damaged)
    with claimed(out, RECIPE_FILE, recipe):
        parts = itertools.chain([Report(left_out=absent)], in_order(work, jobs, workers, out))
        report = gather(parts, out, "rlds", len(jobs) + 1)
        build_index(out, shards[0].path.name.rsplit("-", 4)[0], f"RLDS, {selection.camera}")
    return selection, report


def _episode_splits(shards: list[Shard], shares: tuple[float, float, float] | None) -> list[list[str]]:
    """For each shard the split of each of its episodes."""
    known = {SPLIT_NAMES.get(shard.split) for shard in shards}
    if shares is None and known & {"validate", "test"}:
        if None in known:
            names = sorted({shard.split for shard in shards})
            raise InputError(f"--splits: found splits {', '.join(names)}, which are not all known; give shares, like 0.8 0.1 0.1")
        return [[SPLIT_NAMES[shard.split]] * shard.episodes for shard in shards]
    shares = shares or DEFAULT_SHARES
    check_shares(shares)
    dealt = iter(assign_splits(sum(shard.episodes for shard in shards), shares))
    return [[next(dealt) for _ in range(shard.episodes)] for shard in shards]


def _convert_episodes(
    job: tuple[Shard, range, list[str]], out: Path, steps: dict[str, StepFeature], selection: Selection, skip_damaged: bool
) -> Report:
    shard, numbers, splits = job

    def folders(number: int) -> dict[str, Path]:
        return {"": out / splits[number] / shard.path.name / str(number)} if number in numbers else {}

    return convert_records(
        shard.path, folders, lambda features, _: read_episode(features, steps, selection), skip_damaged, shard.episodes
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="folder of one version, with features.json and dataset_info.json")
    parser.add_argument("out", type=Path, help="data root to write")
    parser.add_argument("--camera", help="path of the images within a step (default: the first by name that is not on the robot)")
    parser.add_argument("--action_key", nargs="+", metavar="KEY", help="path of the actions, or several, or none (default: action)")
    parser.add_argument(
        "--state_key", nargs="+", metavar="KEY", help="the same for states (default: observation/state, if it is there)"
    )
    add_fit_arguments(parser)
    add_splits_argument(parser, "the source's own, unless training is all it has")
    parser.add_argument("--skip_damaged", action="store_true", help="leave damaged episodes out and name them")
    add_workers_argument(parser)


def run(args: argparse.Namespace) -> None:
    shares = tuple(args.splits) if args.splits else None
    selection, report = convert(
        args.source, args.out, args.camera, args.action_key, args.state_key, args.image_width, args.fit, shares, args.workers,
        args.skip_damaged,
    )  # fmt: skip
    print(
        f"camera {selection.camera}, actions {' '.join(selection.actions) or 'none'}, "
        f"states {' '.join(selection.states) or 'none'} (choose with --camera, --action_key, --state_key)"
    )
    print_report(args.out, [args.out], report)
