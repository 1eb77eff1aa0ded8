"""Convert BAIR robot-pushing TFRecords (softmotion30_44k) into sequences and their index, without TensorFlow.

SOURCE holds train/ and test/, and perhaps val/, with traj_<a>_to_<b>.tfrecords. Without val/ the last
training shard is for validation. Pixels are unchanged; actions and end-effector positions keep every bit of
their float32. Record n of a shard becomes <split>/<shard>/<n>/.

The checksums of every record are compared. A damaged one ends the conversion with a line that names shard,
record and byte; with --skip_damaged it is left out, and named on the terminal and in left_out.txt. Started
again, an interrupted conversion continues.
"""

import argparse
import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from ..conversion import WHOLE, DataRoot, Report, WorkShard, add_shard_argument, fill_root, print_report
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
MOST_RECORDS = 100_000  # a larger number in the name of a shard is not believed


def find_shards(source: Path, validate_shards: int | None) -> tuple[dict[str, list[Path]], list[str]]:
    """Return the shards of each split in natural order, and lines about choices and files that are not read.

    Splits are folders called train, val, test or the like, at any depth. The last `validate_shards` of the
    training shards are for validation; if that is None, the last one, unless there is a split for it or no
    other training shard.

    Raises `InputError` if there are no shards, two of a split have the same name, or there are too few to
    validate.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; name the folder softmotion30_44k")
    paths = sorted(_list_shards(source), key=lambda path: natural_key(path.relative_to(source).as_posix()))
    by_name: dict[str, dict[str, Path]] = {split: {} for split in SPLITS}
    places = find_splits([path.relative_to(source).as_posix() for path in paths])
    for path, place in zip(paths, places, strict=True):
        if place:
            other = by_name[place[0]].setdefault(path.name, path)
            if other is not path:
                same = f"has the same name as {other}, of the same split"
                raise InputError(f"{path}: {same}; rename one or move it away")
    shards = {split: list(named.values()) for split, named in by_name.items()}
    read = [path for listed in shards.values() for path in listed]
    if not read:
        missing = "found no train/*.tfrecords or test/*.tfrecords"
        raise InputError(f"{source}: {missing}; name the folder softmotion30_44k")
    # Only the folder of the splits is looked at: OUT may lie beside it.
    folder = Path(os.path.commonpath([path.parent.parent for path in read]))
    unread = itertools.chain(*list_unread(folder, among(read)))
    count, note = _count_validating(source, shards, validate_shards)
    if count:
        shards["validate"] = shards["train"][-count:]
        shards["train"] = shards["train"][:-count]
    return shards, [*note, *unread]


def _list_shards(source: Path) -> Iterator[Path]:
    """Yield the TFRecord files at and below a folder."""
    for folder, files in walk(source):
        yield from (
            Path(folder, name)
            for name in files
            if name[0] != "." and name.endswith((".tfrecord", ".tfrecords"))
        )


def _count_validating(
    source: Path, shards: dict[str, list[Path]], asked: int | None
) -> tuple[int, list[str]]:
    """Return the number of training shards that validate, and a line if there is no validation split."""
    available = len(shards["train"])
    if shards["validate"]:
        if asked:
            folder = shards["validate"][0].parent
            raise InputError(
                f"--validate_shards: found {asked}, but {folder} is there to validate; expected 0"
            )
        return 0, []
    if asked is None:
        asked = 1 if available > 1 else 0
        note = f"{source}: found one training shard and none to validate with; there is no validation split"
        return asked, [note] if available == 1 else []
    if not 0 <= asked <= max(0, available - 1):
        expected = f"expected 0 to {max(0, available - 1)} as there are {available} training shards"
        raise InputError(f"--validate_shards: found {asked}, {expected}")
    return asked, []


def read_recording(
    features: Mapping[str, Feature], camera: str
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Return frames uint8 [T,H,W,3], actions float32 [T,A] and positions float32 [T,P] of one Example.

    A table that no frame has is None. Raises `ValueError` with the fault.
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


def _table(features: Mapping[str, Feature], name: str, count: int) -> np.ndarray | None:
    """Return a table float32 [count,columns], or None if no frame has a row.

    Raises `ValueError` with the fault.
    """
    values = [features.get(f"{time}/{name}") for time in range(count)]
    if all(value is None for value in values):
        return None
    rows = [value for value in values if isinstance(value, np.ndarray) and value.dtype == np.float32]
    if len(rows) < count or any(len(row) != len(rows[0]) or not len(row) for row in rows):
        raise ValueError(f"{name} is not {count} rows of floats of one length")
    table = np.stack(rows)
    if name == "action":
        table = hold_last(table)
    if not np.isfinite(table).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    return table


def data_roots(out: Path, camera: str) -> dict[str, Path]:
    """Return the data root of each camera."""
    return {name: out / name if camera == "both" else out for name in CAMERAS[camera]}


def convert(
    source: Path,
    out: Path,
    camera: str = "aux1",
    validate_shards: int | None = None,
    workers: int | None = None,
    skip_damaged: bool = False,
    shard: WorkShard = WHOLE,
) -> Report:
    """Convert the shards under `source` into the data root `out`, index included.

    Args:
        source: folder with ``train/``, ``test/`` and perhaps ``val/``.
        out: data root; with both cameras, the folder of the two data roots ``image_aux1`` and ``image_main``.
        camera: "aux1" (which papers on prediction use), "main" or "both".
        validate_shards: number of the last training shards that are for validation; see `find_shards`.
        workers: number of processes; as many as there are processors if None.
        shard: the part of the work that is done.
        skip_damaged: leave damaged records out instead of raising.

    Raises `InputError` naming shard, record and byte offset for a record that is damaged or not of BAIR's
    form.
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
    return fill_root(roots, jobs, work, workers, report=Report(notes=notes), out=out, shard=shard)


def _convert_shard(job: tuple[str, Path], roots: dict[str, Path], skip_damaged: bool) -> Report:
    """Write the sequences of a shard."""
    split, path = job
    targets = {camera: root / split / path.name for camera, root in roots.items()}
    name = re.match(r"traj_(\d+)_to_(\d+)\.", path.name)
    promised = int(name[2]) - int(name[1]) + 1 if name else 0
    if promised > MOST_RECORDS:
        promised = 0
    return convert_records(
        path,
        lambda number: {camera: folder / str(number) for camera, folder in targets.items()},
        read_recording,
        skip_damaged,
        promised,
        certain=False,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
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
        help="default: aux1, which papers on prediction use",
    )
    parser.add_argument(
        "--validate_shards",
        type=int,
        help="training shards, from the end, that validate (default: 1, or 0 if there is val/)",
    )
    parser.add_argument("--skip_damaged", action="store_true", help="leave damaged records out and name them")
    add_workers_argument(parser)
    add_shard_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Convert a data set and print what was done."""
    report = convert(
        args.source,
        args.out,
        args.camera,
        args.validate_shards,
        args.workers,
        args.skip_damaged,
        shard=args.shard,
    )
    print_report(args.out, data_roots(args.out, args.camera).values(), report)
