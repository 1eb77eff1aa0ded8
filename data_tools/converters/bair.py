"""Converts BAIR robot-pushing TFRecords (softmotion30_44k) into sequences and their index, without TensorFlow.

SOURCE holds train/ and test/, and val/ if it has one, with traj_<a>_to_<b>.tfrecords. Without val/ the last training shard is for
validation. Pixels are unchanged; actions and end-effector positions are written at full float32 precision. Record n of a shard
becomes <split>/<shard>/<n>/. The checksums of every record are compared: a damaged one ends the conversion with a line that names
shard, record and byte, or, with --skip_damaged, is left out, named on the terminal and in left_out.txt. Started again, an
interrupted conversion continues.
"""

import argparse
import itertools
import math
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ..conversion import DataRoot, Report, fill_root, print_report
from ..errors import InputError
from ..files import natural_key, walk
from ..layout import SPLITS
from ..pool import add_workers_argument, check_workers
from ..splits import find_splits
from ..tables import hold_last
from ..unread import among, list_unread
from .records import convert_records
from .tfrecord import Feature, some_names

CAMERAS = {"aux1": ("image_aux1",), "main": ("image_main",), "both": ("image_aux1", "image_main")}
MOST_RECORDS = 100_000  # that the name of a shard is believed


def find_shards(source: Path, validate_shards: int | None) -> tuple[dict[str, list[Path]], list[str]]:
    """Return the shards of each split in natural order, and a line for each choice made and for what is not read.

    Splits are folders called train, val, test or the like, at any depth. Of the training shards the last `validate_shards` are
    for validation; if that is None, the last one unless there is a split for it or no other training shard.

    Raises `InputError` if there are no shards, two of a split have the same name, or so many cannot validate.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; name the folder softmotion30_44k")
    paths = sorted(_list_shards(source), key=lambda path: natural_key(path.relative_to(source).as_posix()))
    shards: dict[str, dict[str, Path]] = {split: {} for split in SPLITS}
    for path, place in zip(
        paths, find_splits([path.relative_to(source).as_posix() for path in paths]), strict=True
    ):
        if place:
            other = shards[place[0]].setdefault(path.name, path)
            if other is not path:
                raise InputError(
                    f"{path}: has the same name as {other}, of the same split; rename one or move it away"
                )
    shards = {split: list(by_name.values()) for split, by_name in shards.items()}
    read = [path for paths in shards.values() for path in paths]
    if not read:
        raise InputError(
            f"{source}: found no train/*.tfrecords or test/*.tfrecords; name the folder softmotion30_44k"
        )
    folder = Path(
        os.path.commonpath([path.parent.parent for path in read])
    )  # of the splits: OUT may lie beside it
    unread = itertools.chain(*list_unread(folder, among(read)))
    count, note = _count_validating(source, shards, validate_shards)
    if count:
        shards["validate"] = shards["train"][-count:]
        shards["train"] = shards["train"][:-count]
    return shards, [*note, *unread]


def _list_shards(source: Path) -> Iterator[Path]:
    for folder, files in walk(source):
        yield from (
            Path(folder, name)
            for name in files
            if name[0] != "." and name.endswith((".tfrecord", ".tfrecords"))
        )


def _count_validating(
    source: Path, shards: dict[str, list[Path]], asked: int | None
) -> tuple[int, list[str]]:
    """Return how many training shards validate, and a line if there is no validation split."""
    available = len(shards["train"])
    if shards["validate"]:
        if asked:
            raise InputError(
                f"--validate_shards: found {asked}, but {shards['validate'][0].parent} is there to validate; expected 0"
            )
        return 0, []
    if asked is None:
        asked = 1 if available > 1 else 0
        note = f"{source}: found one training shard and none to validate with; there is no validation split"
        return asked, [note] if available == 1 else []
    if not 0 <= asked <= max(0, available - 1):
        raise InputError(
            f"--validate_shards: found {asked}, expected 0 to {max(0, available - 1)} as there are {available} training shards"
        )
    return asked, []


def read_recording(
    features: dict[str, Feature], camera: str
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Frames uint8 [T,H,W,3], actions float32 [T,A] and end-effector positions float32 [T,P] of one Example.

    A table that no frame has is None. Raises `ValueError` with what is missing.
    """
    count = sum(name.endswith(f"/{camera}/encoded") for name in features)
    names = [f"{time}/{camera}/encoded" for time in range(max(count, 1))]
    missing = [name for name in names if name not in features]
    if missing:
        raise ValueError(f"no feature {missing[0]}, found {some_names(features)}")
    images = [features[name] for name in names]
    sizes = {len(image[0]) if isinstance(image, list) and len(image) == 1 else -1 for image in images}
    size = sizes.pop()
    width = math.isqrt(max(size, 0) // 3)
    if sizes or size <= 0 or width * width * 3 != size:
        raise ValueError(f"images of {camera} are not raw square RGB of one size")
    frames = np.frombuffer(b"".join(image[0] for image in images), np.uint8).reshape(count, width, width, 3)
    return frames, _table(features, "action", count), _table(features, "endeffector_pos", count)


def _table(features: dict[str, Feature], name: str, count: int) -> np.ndarray | None:
    rows = [features.get(f"{time}/{name}") for time in range(count)]
    if all(row is None for row in rows):
        return None
    if not all(
        isinstance(row, np.ndarray) and row.dtype == np.float32 and len(row) == len(rows[0]) > 0
        for row in rows
    ):
        raise ValueError(f"{name} is not {count} rows of floats of one length")
    table = hold_last(np.stack(rows)) if name == "action" else np.stack(rows)
    if not np.isfinite(table).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    return table


def data_roots(out: Path, camera: str) -> dict[str, Path]:
    """The data root of each camera."""
    return {name: out / name if camera == "both" else out for name in CAMERAS[camera]}


def convert(
    source: Path,
    out: Path,
    camera: str = "aux1",
    validate_shards: int | None = None,
    workers: int | None = None,
    skip_damaged: bool = False,
) -> Report:
    """Convert the shards under `source` into the data root `out`, index included.

    Args:
        source: folder with ``train/``, ``test/`` and perhaps ``val/``.
        out: data root; with both cameras, the folder of the two data roots ``image_aux1`` and ``image_main``.
        camera: "aux1" (which the predictor papers use), "main" or "both".
        validate_shards: how many of the training shards, the last ones, are for validation; see `find_shards`.
        workers: processes; as many as there are processors if None.
        skip_damaged: leave damaged records out instead of raising.

    Raises `InputError` naming shard, record and byte offset for a record that is damaged or not of BAIR's form.
    """
    workers = check_workers(workers)
    shards, notes = find_shards(source, validate_shards)
    jobs = [(split, path) for split, paths in shards.items() for path in paths]
    names = {split: [path.name for path in paths] for split, paths in shards.items()}
    folders = data_roots(out, camera)
    roots = []
    for image, folder in folders.items():
        recipe = {"converter": "bair", "version": 1, "camera": image, "shards": names}
        name = f"bair {folder.name}" if camera == "both" else "bair"
        roots.append(DataRoot(folder, recipe, name, "BAIR robot pushing, softmotion30_44k"))
    work = partial(_convert_shard, roots=folders, skip_damaged=skip_damaged)
    return fill_root(roots, jobs, work, workers, report=Report(notes=notes), out=out)


def _convert_shard(job: tuple[str, Path], roots: dict[str, Path], skip_damaged: bool) -> Report:
    split, path = job
    targets = {camera: root / split / path.name for camera, root in roots.items()}
    name = re.match(r"traj_(\d+)_to_(\d+)\.", path.name)
    promised = int(name[2]) - int(name[1]) + 1 if name else 0
    promised = promised if promised <= MOST_RECORDS else 0  # it is only a name
    return convert_records(
        path,
        lambda number: {camera: folder / str(number) for camera, folder in targets.items()},
        read_recording,
        skip_damaged,
        promised,
        certain=False,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=Path, help="folder softmotion30_44k with train/, test/ and perhaps val/"
    )
    parser.add_argument(
        "out", type=Path, help="data root to write; with --camera both, the folder of two data roots"
    )
    parser.add_argument(
        "--camera",
        choices=list(CAMERAS),
        default="aux1",
        help="default: aux1, which the predictor papers use",
    )
    parser.add_argument(
        "--validate_shards",
        type=int,
        help="training shards, from the end, that validate (default: 1, or 0 if there is val/)",
    )
    parser.add_argument("--skip_damaged", action="store_true", help="leave damaged records out and name them")
    add_workers_argument(parser)


def run(args: argparse.Namespace) -> None:
    report = convert(
        args.source, args.out, args.camera, args.validate_shards, args.workers, args.skip_damaged
    )
    print_report(args.out, data_roots(args.out, args.camera).values(), report)
