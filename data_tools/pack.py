"""Packs an indexed data set into two plain NumPy files a split, from which items are read some thirty times as fast.

The packed data set has the same index and gives the same items, bit for bit. --sequences and --frames bound its size: frames
take height x width x channels bytes each, and are not compressed. Started again, an interrupted packing continues.
"""

import argparse
import bisect
import contextlib
import hashlib
import math
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import pandas as pd
from tqdm import tqdm

from . import layout
from .claim import claimed
from .command import tell
from .errors import InputError
from .files import check_writable, folder_in, naming, remove
from .index import Moments
from .layout import SPLITS
from .pool import add_workers_argument, check_workers, in_order
from .store import ARRAYS, PackedArray, npy_header, opened_store

RECIPE_FILE = "packing.json"


def pack(
    root: Path, out: Path, sequences: int | None = None, frames: int | None = None, workers: int | None = None
) -> pd.DataFrame:
    """Packs the data set `root` into the data root `out`, and returns its index.

    Args:
        root: an indexed data set.
        out: another folder.
        sequences: of each split at most this many, the first ones; None for all.
        frames: of each sequence at most this many, the first ones; None for all.
        workers: processes that read; as many as there are processors if None.

    Raises `InputError` naming the file for a sequence that cannot be read; what is packed by then is kept for the next run.
    """
    workers = check_workers(workers)
    for flag, value in (("sequences", sequences), ("frames", frames)):
        if value is not None and value < 1:
            raise InputError(f"--{flag}: found {value}, expected 1 or more")
    if out.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{out}: lies within the data set that is packed; name another folder")
    info, index = layout.read_info(root), layout.read_index(root)
    index["number"] = index.groupby("split", observed=True).cumcount()  # in its split's store
    index = pd.concat(
        [_bounded(index[index["split"] == split], sequences, frames) for split in SPLITS], ignore_index=True
    )
    if info.pose_channels:
        index = _with_poses_of_frames(root, index, frames)
    opened_store.cache_clear()
    _check_room(root, out, index)
    check_writable(out, "make it writable, or name another folder")
    digest, mean, std = read_tables(root, index, info.condition_dim, name_lost=frames is None)
    source = f"{info.name}, {len(index)} sequences, {digest}"
    recipe = {"packer": 1, "sequences": sequences, "frames": frames, "data set": source}
    with (
        claimed(out, RECIPE_FILE, recipe),
        tqdm(total=len(index), desc="pack", unit="sequence", disable=None) as bar,
    ):
        for split in SPLITS:
            rows = index[index["split"] == split].reset_index(drop=True)
            if len(rows):
                _pack_split(root, out, split, rows, workers, bar)
        layout.write_index(out, index, replace(info, store="packed", mean=mean, std=std))
    return index


def read_tables(
    root: Path, index: pd.DataFrame, width: int, name_lost: bool = False
) -> tuple[str, list[float], list[float]]:
    """(digest, mean, std): another digest if an index or a table has changed; moments of the training rows that are packed.

    With `name_lost`, print which sequences lose rows of tables beyond their frames.
    """
    digest, moments = (
        hashlib.sha256(index[list(layout.INDEX_TYPES)].to_csv(index=False).encode()),
        Moments(width),
    )
    if not width:
        return digest.hexdigest()[:12], *moments.result()
    for split, rows in index.groupby("split", observed=True, sort=False):
        store = opened_store(root, split)
        for number, (path, length) in enumerate(zip(rows["path"], rows["frames"], strict=True)):
            beyond = store.count_conditions(number) - int(store.lengths[number])
            if beyond and name_lost:
                tell(
                    f"note: {root / path}: a packed data set has no place for the {beyond} rows of tables beyond its frames"
                )
            table = store.read_conditions(number)
            digest.update(table.tobytes())
            if split == "train":
                moments.add(table[:length])
    return digest.hexdigest()[:12], *moments.result()


def _with_poses_of_frames(root: Path, index: pd.DataFrame, frames: int | None) -> pd.DataFrame:
    """Those sequences that have a pose for one of their frames, and says what is lost of the poses beyond the frames."""
    beyond = index[layout.POSES_COLUMN] - (index["frames"] - 1)
    for row, path in index["path"][beyond > 0].items() if frames is None else ():
        left_out = "left out, " if index["frames"][row] < 2 else ""
        tell(
            f"note: {root / path}: {left_out}a packed data set has no place for the {beyond[row]} poses beyond its frames"
        )
    index = index[index["frames"] > 1]
    if index.empty:
        raise InputError(f"{root}: found no sequence with two frames or more (--frames); nothing to pack")
    return index.assign(**{layout.POSES_COLUMN: index["frames"] - 1}).reset_index(drop=True)


def _bounded(index: pd.DataFrame, sequences: int | None, frames: int | None) -> pd.DataFrame:
    index = index.iloc[:sequences]
    return index if frames is None else index.assign(frames=index["frames"].clip(upper=frames))


def _pack_split(root: Path, out: Path, split: str, rows: pd.DataFrame, workers: int, bar: tqdm) -> None:
    """Appends the sequences to two files under temporary names, which get their final names when they are complete.

    What an interrupted run has appended is kept up to its last whole sequence.
    """
    store = opened_store(root, split)
    ends = [
        0,
        *np.cumsum(rows["frames"].to_numpy(), dtype=np.int64).tolist(),
    ]  # in frames, after so many sequences
    shapes = [(ends[-1], *store.frame_size), (ends[-1], *store.conditions.shape)]
    files = [out / split / f"{name}.npy" for name in ARRAYS]
    types = [np.dtype(np.uint8), np.dtype(store.conditions.dtype)]
    arrays = list(zip(files, types, shapes, strict=True))
    if all(_is_whole(*array) for array in arrays):
        bar.update(len(rows))
        return
    folder_in(out, split)
    with contextlib.ExitStack() as stack:
        growing = [stack.enter_context(_GrowingArray(*array)) for array in arrays]
        done = bisect.bisect_right(ends, min(array.rows for array in growing)) - 1
        for array in growing:
            array.cut(ends[done])
        bar.update(done)
        jobs = [
            (int(row.number), start, count)
            for row in rows.iloc[done:].itertuples()
            for start, count in store.stretches(int(row.frames))
        ]
        for (_, start, _), piece in zip(
            jobs, in_order(partial(_read_piece, root, split), jobs, workers, out), strict=True
        ):
            for array, values in zip(growing, piece, strict=True):
                array.append(values)
            bar.update(start == 0)
        for array in growing:
            array.finish()


def _is_whole(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> bool:
    try:
        PackedArray(path, dtype, shape)
    except InputError:
        return False
    return True


def _read_piece(root: Path, split: str, job: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    number, start, count = job
    store = opened_store(root, split)
    frames = np.empty((count, *store.frame_size), np.uint8)
    conditions = store.conditions.empty(count)
    store.read(number, start, frames, conditions)
    return frames, conditions


def _check_room(root: Path, out: Path, index: pd.DataFrame) -> None:
    """Raise `InputError` if the packed frames do not fit on the disk: a small folder can hold a million names of one file."""
    needed = sum(
        int(rows["frames"].sum()) * opened_store(root, split).frame_bytes
        for split, rows in index.groupby("split")
    )
    there = sum(path.stat().st_size for split in SPLITS for path in (out / split).glob("*.npy*"))
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if needed - there > free:
        raise InputError(
            f"{out}: found {free / 1e9:.1f} GB free, expected {(needed - there) / 1e9:.1f} GB for {index['frames'].sum()} frames; "
            "make room, or take fewer with --sequences or --frames"
        )


def _open_growing(path: Path) -> BinaryIO:
    """Open a file of ours to append to it; one that is a link, or has another name elsewhere, is begun anew."""
    if path.is_symlink() or (path.exists() and not (path.is_file() and path.stat().st_nlink == 1)):
        remove(path)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "a+b")


class _GrowingArray:
    """A ``.npy`` file of a known final shape that grows row by row beside its final name."""

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, ...]):
        self._path = path
        self._growing = path.with_name(f".{path.name}.part")
        self._header = npy_header(dtype, shape)
        self._row_bytes = math.prod(shape[1:]) * dtype.itemsize
        self._length = shape[0]
        if path.exists():  # finished before its twin was, or damaged since
            os.replace(path, self._growing)
        self._file = _open_growing(self._growing)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with naming(self._path):
            self._file.close()

    @property
    def rows(self) -> int:
        """Whole rows that are there."""
        self._file.seek(0)
        if self._file.read(len(self._header)) != self._header:
            return 0
        size = os.fstat(self._file.fileno()).st_size - len(self._header)
        return min(self._length, size // self._row_bytes) if self._row_bytes else self._length

    def cut(self, rows: int) -> None:
        """Keeps so many rows."""
        if rows == 0:
            self._file.truncate(0)
            self._file.write(self._header)
        else:
            self._file.truncate(len(self._header) + rows * self._row_bytes)

    def append(self, values: np.ndarray) -> None:
        with naming(self._path):
            self._file.write(values)

    def finish(self) -> None:
        with naming(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            os.replace(self._growing, self._path)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, help="root of an indexed data set")
    parser.add_argument("out", type=Path, help="data root to write")
    parser.add_argument("--sequences", type=int, help="of each split at most this many (default: all)")
    parser.add_argument("--frames", type=int, help="of each sequence at most this many (default: all)")
    add_workers_argument(parser)


def run(args: argparse.Namespace) -> None:
    index = pack(args.root, args.out, args.sequences, args.frames, args.workers)
    size = sum(path.stat().st_size for path in args.out.glob("*/*.npy"))
    tell(f"{args.out}: {len(index)} sequences, {index['frames'].sum()} frames, {size / 1e6:.1f} MB")
