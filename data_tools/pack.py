"""Pack an indexed data set into few files: for fast reading, or for object storage.

The packed data set has the same index and gives the same items, bit for bit. --sequences and --frames limit
its size. Started again, an interrupted packing continues.

--format npy: two NumPy files for each split, which are read some thirty times as fast; frames take height x
width x channels bytes each and are not compressed. --format litdata: chunks of PNG frames, which can be
uploaded to an S3 bucket and are read from there as --data_root s3://BUCKET/PREFIX.
"""

import argparse
import bisect
import contextlib
import hashlib
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from . import layout, pack_chunks, remote
from .claim import claimed
from .command import tell
from .errors import InputError
from .files import check_writable, folder_in
from .index import Moments
from .layout import SPLITS
from .npy import GrowingArray, PackedArray
from .pool import add_workers_argument, check_workers, in_order
from .store import ARRAYS, opened_store

RECIPE_FILE = "packing.json"
FORMATS = ("npy", "litdata")
CHUNK_MB = 64  # a chunk is downloaded as a whole: object storages like files of this size


def pack(
    root: Path,
    out: Path,
    sequences: int | None = None,
    frames: int | None = None,
    workers: int | None = None,
    form: str = FORMATS[0],
    chunk_mb: float = CHUNK_MB,
) -> pd.DataFrame:
    """Pack the data set `root` into the data root `out`, and return its index.

    Args:
        root: an indexed data set.
        out: another folder.
        sequences: of each split at most this many, the first ones; None for all.
        frames: of each sequence at most this many, the first ones; None for all.
        workers: number of processes that read; as many as there are processors if None.
        form: one of `FORMATS`.
        chunk_mb: size of the chunks of the form litdata, in megabytes (10^6 bytes).

    Raises `InputError` naming the file for a sequence that cannot be read; what is packed by then is kept for
    the next run.
    """
    workers = check_workers(workers)
    for flag, value in (("sequences", sequences), ("frames", frames)):
        if value is not None and value < 1:
            raise InputError(f"--{flag}: found {value}, expected 1 or more")
    if not 0 < chunk_mb <= 4000:
        raise InputError(f"--chunk_mb: found {chunk_mb:g}, expected more than 0 and at most 4000")
    if remote.is_remote(out):
        advice = "name a folder, and upload it as a whole (docs/data.md)"
        raise InputError(f"{out}: nothing is packed straight into object storage; {advice}")
    root = remote.local_root(root)
    if form == "litdata":
        pack_chunks.import_writer()
    if out.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{out}: lies within the data set that is packed; name another folder")
    info = layout.read_info(root)
    index = layout.read_index(root)
    index["number"] = index.groupby("split", observed=True).cumcount()  # in the store of its split
    index = pd.concat(
        [_bounded(index[index["split"] == split], sequences, frames) for split in SPLITS], ignore_index=True
    )
    if layout.POSES_COLUMN in index:
        index = _with_poses_of_frames(root, index, frames)
    opened_store.cache_clear()
    if form == "npy":
        _check_room(root, out, index)
    check_writable(out, "make it writable, or name another folder")
    digest, mean, std = read_tables(root, index, info.condition_dim, name_lost=frames is None)
    source = f"{info.name}, {len(index)} sequences, {digest}"
    recipe: dict[str, Any] = {"packer": 1, "sequences": sequences, "frames": frames, "data set": source}
    if form == "litdata":
        recipe |= {"format": form, "chunk_mb": chunk_mb}
    with (
        claimed(out, RECIPE_FILE, recipe),
        tqdm(total=len(index), desc="pack", unit="sequence", disable=None) as bar,
    ):
        for split in SPLITS:
            rows = index[index["split"] == split].reset_index(drop=True)
            if len(rows) and form == "litdata":
                pack_chunks.pack_split(root, out, split, rows, workers, bar, int(chunk_mb * 1e6))
            elif len(rows):
                _pack_split(root, out, split, rows, workers, bar)
        info = replace(info, store="packed", mean=mean, std=std, digest="")
        if form == "litdata":
            digest = pack_chunks.digest(out, layout.index_text(index, info))
            info = replace(info, store=remote.STORE, digest=digest)
        layout.write_index(out, index, info)
    return index


def read_tables(
    root: Path, index: pd.DataFrame, width: int, name_lost: bool = False
) -> tuple[str, list[float], list[float]]:
    """Return (digest, mean, std) of the tables of a data set.

    The digest is another one if the index or a table has changed. Mean and standard deviation are those of
    the training rows that are packed. With `name_lost`, the sequences that lose rows of tables beyond their
    frames are printed.
    """
    digest = hashlib.sha256(index[list(layout.INDEX_TYPES)].to_csv(index=False).encode())
    moments = Moments(width)
    if not width:
        return digest.hexdigest()[:12], *moments.result()
    for split, rows in index.groupby("split", observed=True, sort=False):
        store = opened_store(root, split)
        for number, (path, length) in enumerate(zip(rows["path"], rows["frames"], strict=True)):
            beyond = store.count_conditions(number) - int(store.lengths[number])
            if beyond and name_lost:
                lost = f"the {beyond} rows of tables beyond its frames"
                tell(f"note: {root / path}: a packed data set has no place for {lost}")
            table = store.read_conditions(number)
            digest.update(table.tobytes())
            if split == "train":
                moments.add(table[:length])
    return digest.hexdigest()[:12], *moments.result()


def _with_poses_of_frames(root: Path, index: pd.DataFrame, frames: int | None) -> pd.DataFrame:
    """Return the rows of sequences that have a pose for one of their frames, which are two frames or more.

    Unless `frames` bounds them, the sequences that lose poses beyond their frames are printed.
    """
    beyond = index[layout.POSES_COLUMN] - (index["frames"] - 1)
    losing = zip(index["path"], index["frames"], beyond, strict=True)
    for path, length, lost in losing if frames is None else ():
        if lost > 0:
            left_out = "left out, " if length < 2 else ""
            place = f"{root / path}: {left_out}a packed data set has no place"
            tell(f"note: {place} for the {lost} poses beyond its frames")
    index = index[index["frames"] > 1]
    if index.empty:
        raise InputError(f"{root}: found no sequence with two frames or more (--frames); nothing to pack")
    return index.assign(**{layout.POSES_COLUMN: index["frames"] - 1}).reset_index(drop=True)


def _bounded(index: pd.DataFrame, sequences: int | None, frames: int | None) -> pd.DataFrame:
    """Return at most so many rows, each with at most so many frames."""
    index = index.iloc[:sequences]
    return index if frames is None else index.assign(frames=index["frames"].clip(upper=frames))


def _pack_split(root: Path, out: Path, split: str, rows: pd.DataFrame, workers: int, bar: tqdm) -> None:
    """Append the sequences to two files under temporary names, and rename these when they are complete.

    Frames of an interrupted run are kept up to its last whole sequence.
    """
    store = opened_store(root, split)
    lengths = rows["frames"].tolist()
    ends = [0, *np.cumsum(lengths, dtype=np.int64).tolist()]  # number of frames after so many sequences
    shapes = [(ends[-1], *store.frame_size), (ends[-1], *store.conditions.shape)]
    files = [out / split / f"{name}.npy" for name in ARRAYS]
    types = [np.dtype(np.uint8), np.dtype(store.conditions.dtype)]
    arrays = list(zip(files, types, shapes, strict=True))
    if all(_is_whole(*array) for array in arrays):
        bar.update(len(rows))
        return
    folder_in(out, split)
    with contextlib.ExitStack() as stack:
        growing = [stack.enter_context(GrowingArray(*array)) for array in arrays]
        done = bisect.bisect_right(ends, min(array.rows for array in growing)) - 1
        for array in growing:
            array.cut(ends[done])
        bar.update(done)
        jobs = [
            (number, start, count)
            for number, length in zip(rows["number"].tolist()[done:], lengths[done:], strict=True)
            for start, count in store.stretches(length)
        ]
        pieces = in_order(partial(_read_piece, root, split), jobs, workers, out)
        for (_, start, _), piece in zip(jobs, pieces, strict=True):
            for array, values in zip(growing, piece, strict=True):
                array.append(values)
            bar.update(start == 0)
        for array in growing:
            array.finish()


def _is_whole(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> bool:
    """Return whether a finished file with this array is there."""
    try:
        PackedArray(path, dtype, shape)
    except InputError:
        return False
    return True


def _read_piece(root: Path, split: str, job: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames and conditions of a job (sequence, first frame, number of frames)."""
    number, start, count = job
    store = opened_store(root, split)
    frames = np.empty((count, *store.frame_size), np.uint8)
    conditions = store.conditions.empty(count)
    store.read(number, start, frames, conditions)
    return frames, conditions


def _check_room(root: Path, out: Path, index: pd.DataFrame) -> None:
    """Raise `InputError` if the packed frames do not fit on the disk.

    They may be much larger than the data set, in which a million names may be links to one file.
    """
    needed = 0
    for split in index["split"].unique():
        frames = int(index["frames"][index["split"] == split].sum())
        needed += frames * opened_store(root, split).frame_bytes
    there = sum(path.stat().st_size for split in SPLITS for path in (out / split).glob("*.npy*"))
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if needed - there > free:
        expected = f"{(needed - there) / 1e9:.1f} GB for {index['frames'].sum()} frames"
        advice = "make room, or take fewer with --sequences or --frames"
        raise InputError(f"{out}: found {free / 1e9:.1f} GB free, expected {expected}; {advice}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("root", type=Path, help="root of an indexed data set")
    parser.add_argument("out", type=Path, help="data root to write")
    parser.add_argument("--sequences", type=int, help="of each split at most this many (default: all)")
    parser.add_argument("--frames", type=int, help="of each sequence at most this many (default: all)")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="NumPy files for fast reading (default), or chunks for object storage",
    )
    parser.add_argument(
        "--chunk_mb",
        type=float,
        default=CHUNK_MB,
        help="with --format litdata: megabytes of a chunk (default: %(default)s)",
    )
    add_workers_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Pack a data set and print the size of the result."""
    index = pack(args.root, args.out, args.sequences, args.frames, args.workers, args.format, args.chunk_mb)
    files = "*/*.npy" if args.format == "npy" else f"*/{remote.CHUNKS}"
    size = sum(path.stat().st_size for path in args.out.glob(files))
    tell(f"{args.out}: {len(index)} sequences, {index['frames'].sum()} frames, {size / 1e6:.1f} MB")
