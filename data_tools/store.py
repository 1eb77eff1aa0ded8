"""The sequences of one split, however they lie on disk: `open_store` gives their index and reads any stretch of any of them.

``packed``: ``<root>/<split>/frames.npy``, uint8 [N,H,W,C], and ``conditions.npy``, float32 [N,A+P] or, of poses, uint8
[N,H,W,C]: the frames of all sequences of the split one after the other, in the order of the index and each as long as it is. They
are plain NumPy files that ``numpy.load(..., mmap_mode="r")`` maps as well; here they are read by position, which is as fast, does
not count as resident memory, and turns a file that was cut short into an error message instead of a bus error.
"""

import io
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from . import layout, png, poses
from .conditions import ConditionSpec
from .errors import InputError
from .files import is_inside, open_regular
from .layout import DatasetInfo
from .tables import read_conditions

ARRAYS = ("frames", "conditions")
PIECE = 2**26  # bytes of frames that are read at a time where a whole sequence is read


class Store(ABC):
    """One split: its `index` (a row a sequence), the data set's `info` and what its frames measure.

    Conditions are rows of tables, float32 [T,A+P], or poses, uint8 [T,H,W,C]; those of one frame have the form `conditions`. Opening a store reads no frame. Stores travel to worker processes.
    """

    def __init__(self, root: Path, split: str, info: DatasetInfo, index: pd.DataFrame):
        self.root, self.split, self.info, self.index = root, split, info, index
        self._inside: set[int] = set()  # sequences whose folders are known to lie below the root
        self.lengths = index["frames"].to_numpy()  # of the sequences, in frames
        self.frame_size = tuple(
            int(index[name].iloc[0]) for name in ("height", "width", "channels")
        )  # (H,W,C) of all
        if self.conditions.is_image and layout.POSES_COLUMN not in index:
            raise InputError(
                f"{root / layout.INDEX_FILE}: found no column {layout.POSES_COLUMN}; {layout.AGAIN}"
            )
        self.conditions = ConditionSpec.of(info, *self.frame_size[:2])
        expected = dict(zip(("height", "width", "channels"), self.frame_size, strict=True))
        expected |= {"action_dim": info.action_dim, "position_dim": info.position_dim}
        for column, value in expected.items():
            wrong = index["path"][index[column] != value]
            if len(wrong):
                raise InputError(
                    f"{root / layout.INDEX_FILE}: found another {column} for {wrong.iloc[0]} than {value}; "
                    f"sequences of one data set agree: run `svg-data index {root}` again"
                )

    def read(self, sequence: int, start: int, frames: np.ndarray, conditions: np.ndarray) -> None:
        """Fills uint8 `frames` [T,H,W,C] and `conditions` [T,...] from frame `start` of a sequence on.

        Raises `InputError` naming the file if one is missing, damaged or of another size than the index says, and `IndexError`
        for frames that the sequence does not have.
        """
        self.read_frames(sequence, start, frames)
        self._read_conditions(sequence, start, conditions)

    def read_clips(self, clips: Sequence[tuple[int, int, int]], length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return frames uint8 [B,T,H,W,C] and conditions [B,T,...] of clips (sequence, where it starts, first frame).

        The first frame is mostly that of the start; any other one of the sequence takes its place. Raises as `read`.
        """
        frames = np.empty((len(clips), length, *self.frame_size), np.uint8)
        conditions = self.conditions.empty(len(clips), length)
        for place, (sequence, start, first) in enumerate(clips):
            self.read(sequence, start, frames[place], conditions[place])
            if first != start:
                self.read_frames(sequence, first, frames[place, :1])
        return frames, conditions

    def read_frames(self, sequence: int, start: int, frames: np.ndarray) -> None:
        """As `read`, the frames alone."""
        if not 0 <= start <= self.lengths[sequence] - len(frames):
            raise IndexError(
                f"frames {start} to {start + len(frames) - 1} of a sequence of {self.lengths[sequence]}"
            )
        self._read_frames(sequence, start, frames)

    def pieces(self, sequence: int, length: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the first `length` frames of a sequence and their conditions, as `read` gives them, `PIECE` bytes at a time.

        A sequence may be longer than memory: a million names of one small file make one.
        """
        for start, count in self.stretches(length):
            frames = np.empty((count, *self.frame_size), np.uint8)
            conditions = self.conditions.empty(count)
            self.read(sequence, start, frames, conditions)
            yield frames, conditions

    def stretches(self, length: int) -> list[tuple[int, int]]:
        """Return (first frame, number of frames) of the `pieces` of so many frames."""
        step = max(1, PIECE // self.frame_bytes)
        return [(start, min(step, length - start)) for start in range(0, length, step)]

    @property
    def frame_bytes(self) -> int:
        """What one frame and its condition take in memory, and in a packed store."""
        return math.prod(self.frame_size) + self.conditions.nbytes

    def horizon(self, sequence: int, columns: slice = slice(None)) -> int | None:
        """Return how many frames after a sequence's first one have a condition, and so can be predicted.

        Rows of tables and poses may go on after the last frame; if they do not, nothing says what follows it.
        `columns` are those of ``[actions, positions]`` that are needed; None if these are none: nothing limits a
        prediction then.
        """
        if self.conditions.is_image:
            return int(self.index[layout.POSES_COLUMN].iat[sequence])
        if not range(self.info.condition_dim)[columns]:
            return None
        length, rows = int(self.lengths[sequence]), self._rows(sequence, columns)
        return rows if rows > length else length - 1

    def _rows(self, sequence: int, columns: slice) -> int:
        """The rows that all tables with one of these columns have."""
        return int(self.lengths[sequence])

    def read_conditions(self, sequence: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The conditions of the frames from `start` to before `stop` (the end of the sequence), without the frames.

        They may go on after the last frame: beyond the last pose it is held; where one table has ended before the
        other its columns are NaN. Raises `IndexError` for conditions that there are not.
        """
        length = int(self.lengths[sequence])
        stop = length if stop is None else stop
        last = length if stop <= length else self.count_conditions(sequence)
        if not 0 <= start <= stop <= last:
            raise IndexError(f"conditions {start} to {stop - 1} of {last}")
        conditions = self.conditions.empty(stop - start)
        self._read_conditions(sequence, start, conditions)
        return conditions

    def files(self, sequences: Iterable[int]) -> dict[str, list[str]]:
        """Return the paths of the files that are read for some sequences, in groups; a group is a folder below the data root.

        A table that a sequence lacks is named, too.
        """
        return {self.index["path"].iat[sequence]: self._files(sequence) for sequence in sequences}

    def _folder(self, sequence: int) -> str:
        """Return the folder of a sequence. Raises `InputError` if it is a link out of the data root."""
        path = self.index["path"].iat[sequence]
        if sequence not in self._inside:
            self._check_inside(path)
            self._inside.add(sequence)
        return f"{self.root}/{path}"

    def _check_inside(self, path: str) -> None:
        folder = f"{self.root}/{path}"
        if not is_inside(folder, self.root):
            raise InputError(
                f"{folder}: a link out of {self.root}, to {os.path.realpath(folder)}; copy what it points to"
            )

    def count_conditions(self, sequence: int) -> int:
        """Return how many conditions there are, those beyond the last frame included."""
        return int(self.lengths[sequence])

    @abstractmethod
    def _files(self, sequence: int) -> list[str]:
        """Return the paths of all files that are read for a sequence."""

    @abstractmethod
    def _read_frames(self, sequence: int, start: int, frames: np.ndarray) -> None:
        """`read_frames`, of frames that are there."""

    @abstractmethod
    def _read_conditions(self, sequence: int, start: int, conditions: np.ndarray) -> None:
        """Fills `conditions`, which are there."""


class FolderStore(Store):
    """Sequence folders: each frame's PNG and both tables are opened when they are asked for."""

    def __init__(self, root: Path, split: str, info: DatasetInfo, index: pd.DataFrame):
        super().__init__(root, split, info, index)
        self._tables: tuple[int, list[np.ndarray]] | None = (
            None  # the last ones read: a long sequence is read piece by piece
        )

    def _files(self, sequence: int) -> list[str]:
        tables = [f"{self._folder(sequence)}/{name}" for name in (layout.ACTIONS_FILE, layout.POSITIONS_FILE)]
        return self._frame_files(sequence, 0, int(self.lengths[sequence])) + tables

    def _frame_files(self, sequence: int, start: int, stop: int) -> list[str]:
        folder, length = self._folder(sequence), int(self.lengths[sequence])
        from_one = not os.path.exists(f"{folder}/0.png") and os.path.exists(
            f"{folder}/{length}.png"
        )  # or 0.png is lost
        return [f"{folder}/{time + from_one}.png" for time in range(start, stop)]

    def _read_frames(self, sequence: int, start: int, frames: np.ndarray) -> None:
        for frame, file in zip(frames, self._frame_files(sequence, start, start + len(frames)), strict=True):
            frame[:] = png.read_frame(file, self.frame_size, self.root)

    def _rows(self, sequence: int, columns: slice) -> int:
        selected, ends = (
            range(self.info.condition_dim)[columns],
            (self.info.action_dim, self.info.condition_dim),
        )
        needed = selected.start < ends[0], selected.stop > ends[0]
        tables = self._read_tables(sequence)
        return min(len(table) for table, is_needed in zip(tables, needed, strict=True) if is_needed)

    def count_conditions(self, sequence: int) -> int:
        return max(map(len, self._read_tables(sequence)))

    def _read_conditions(self, sequence: int, start: int, conditions: np.ndarray) -> None:
        stop, first = start + len(conditions), 0
        for table in self._read_tables(sequence):
            columns, rows = slice(first, first + table.shape[1]), table[start:stop]
            if stop > self.lengths[sequence] and not np.isfinite(rows).all():  # which reading has not checked
                raise InputError(
                    f"{self.root}/{self.index['path'].iat[sequence]}: found no finite numbers in rows {start + 1} to {stop} of its "
                    "tables, some of them beyond the last frame; complete them or remove those rows"
                )
            conditions[: len(rows), columns], conditions[len(rows) :, columns] = rows, np.nan
            first = columns.stop

    def _read_tables(self, sequence: int) -> list[np.ndarray]:
        """Actions and positions, float32 [T,A] and [T,P], each with a row a frame and those beyond."""
        if self._tables is None or self._tables[0] != sequence:
            self._tables = sequence, self._open_tables(sequence)
        return self._tables[1]

    def _open_tables(self, sequence: int) -> list[np.ndarray]:
        folder, length = Path(self._folder(sequence)), int(self.lengths[sequence])
        tables = read_conditions(folder, length, root=self.root, beyond=True)
        found = tuple(tables[name].shape[1] if name in tables else 0 for name in ("actions", "positions"))
        if found != (self.info.action_dim, self.info.position_dim):
            raise InputError(
                f"{folder}: found {found[0]} action and {found[1]} position columns, expected {self.info.action_dim} and "
                f"{self.info.position_dim}; restore its tables or run `svg-data index {self.root}` again"
            )
        nothing = np.empty((length, 0), np.float32)
        return [tables.get(name, nothing) for name in ("actions", "positions")]


class PoseStore(Store):
    """Folders of frames and of poses: each picture is opened when it is asked for. Nothing follows the last pose, which is held."""

    def __init__(self, root: Path, split: str, info: DatasetInfo, index: pd.DataFrame):
        super().__init__(root, split, info, index)
        self._listed: dict[int, tuple[list[str], list[str]]] = {}

    def _files(self, sequence: int) -> list[str]:
        frames, poses = self._list(sequence)
        return frames + poses

    def _read_frames(self, sequence: int, start: int, frames: np.ndarray) -> None:
        files, _ = self._list(sequence)
        for frame, file in zip(frames, files[start : start + len(frames)], strict=True):
            frame[:] = png.read_frame(file, self.frame_size, self.root)

    def count_conditions(self, sequence: int) -> int:
        return max(int(self.lengths[sequence]), self.horizon(sequence) + 1)

    def _read_conditions(self, sequence: int, start: int, conditions: np.ndarray) -> None:
        _, files = self._list(sequence)
        for time, condition in enumerate(conditions, start=start):
            condition[:] = png.read_frame(files[min(time, len(files) - 1)], self.conditions.shape, self.root)

    def _list(self, sequence: int) -> tuple[list[str], list[str]]:
        """The sequence's files of frames, and of poses from that of the second frame on."""
        if sequence not in self._listed:
            path = self.index["path"].iat[sequence]
            self._folder(sequence)
            self._check_inside(poses.poses_path(path))
            found = poses.list_sequence(self.root, path)
            expected = int(self.lengths[sequence]), self.horizon(sequence)
            if tuple(map(len, found)) != expected:
                raise InputError(
                    f"{self.root / path}: found {len(found[0])} frames and {len(found[1])} poses after the first, expected "
                    f"{expected[0]} and {expected[1]}; restore them or run `svg-data index {self.root}` again"
                )
            self._listed[sequence] = found
        return self._listed[sequence]


class PackedStore(Store):
    """Two files a split. Raises `InputError` on opening if they are not what the index says."""

    def __init__(self, root: Path, split: str, info: DatasetInfo, index: pd.DataFrame):
        super().__init__(root, split, info, index)
        self._check_inside(split)
        if self.conditions.is_image and (index[layout.POSES_COLUMN] > self.lengths - 1).any():
            raise InputError(
                f"{root / layout.INDEX_FILE}: found more poses than frames; pack the data set again"
            )
        ends = np.cumsum(self.lengths, dtype=np.int64)
        self._starts, total = ends - self.lengths, int(ends[-1])
        self._frames = PackedArray(
            root / split / f"{ARRAYS[0]}.npy", np.dtype(np.uint8), (total, *self.frame_size)
        )
        shape = (total, *self.conditions.shape)
        path = root / split / f"{ARRAYS[1]}.npy"
        self._conditions = PackedArray(path, np.dtype(self.conditions.dtype), shape)

    def files(self, sequences: Iterable[int]) -> dict[str, list[str]]:
        return {self.split: self._files(0)}

    def _files(self, sequence: int) -> list[str]:
        return [str(self._frames.path), str(self._conditions.path)]

    def _read_frames(self, sequence: int, start: int, frames: np.ndarray) -> None:
        self._frames.read(int(self._starts[sequence]) + start, frames)

    def _read_conditions(self, sequence: int, start: int, conditions: np.ndarray) -> None:
        self._conditions.read(int(self._starts[sequence]) + start, conditions)


class PackedArray:
    """A ``.npy`` file of known type and shape, read by rows. Opened at first use in each process, so that it can be sent."""

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, ...]):
        self.path = path
        self.dtype = dtype
        self.shape = shape
        self._row_bytes = math.prod(shape[1:]) * self.dtype.itemsize
        self._open()

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_file": None}

    def _open(self) -> None:
        self._offset = _check_header(self.path, self.dtype, self.shape)
        self._file = open_regular(self.path, self.path.parents[1])

    def read(self, row: int, out: np.ndarray) -> None:
        """Fills a contiguous `out` [T,...] with the rows from `row` on."""
        if not out.size:
            return
        if self._file is None:
            self._open()
        buffer, place = memoryview(out).cast("B"), self._offset + row * self._row_bytes
        while buffer:
            count = _read_at(self._file, buffer, place)
            if not count:
                raise InputError(f"{self.path}: ends {len(buffer)} bytes early; pack the data set again")
            buffer, place = buffer[count:], place + count


def _read_at(file: BinaryIO, buffer: memoryview, place: int) -> int:
    """Reads into the buffer from a place on; processes that share the file do not disturb each other."""
    if hasattr(os, "preadv"):
        return os.preadv(file.fileno(), [buffer], place)
    file.seek(place)  # Windows, where processes do not share files
    return file.readinto(buffer)


def _check_header(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> int:
    """Where the data of a ``.npy`` file begin, after comparing type, shape and size. Nothing is unpickled."""
    expected = npy_header(dtype, shape)
    try:
        with open_regular(path, path.parents[1]) as file:
            found, size = file.read(len(expected)), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); pack the data set again") from None
    if found != expected:
        raise InputError(
            f"{path}: found no array of {dtype} {list(shape)} as the index says; pack the data set again"
        )
    total = len(expected) + math.prod(shape) * dtype.itemsize
    if size != total:
        raise InputError(f"{path}: found {size} bytes, expected {total}; pack the data set again")
    return len(expected)


def npy_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """The first bytes of the ``.npy`` file, format 1.0, of an array in C order."""
    header = io.BytesIO()
    fields = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()


@lru_cache(maxsize=len(layout.SPLITS))
def opened_store(root: Path, split: str) -> Store:
    """`open_store` once for each process that works on the same data set for a while.

    The data set may change between two such pieces of work: begin with ``opened_store.cache_clear()``.
    """
    return open_store(root, split)


def read_clips(
    root: Path, split: str, length: int, clips: Sequence[tuple[int, int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """As `Store.read_clips`, in a worker process."""
    return opened_store(root, split).read_clips(clips, length)


def open_store(root: str | Path, split: str) -> Store:
    """The sequences of one split of a data set. Raises `InputError` if there are none or the index is damaged."""
    root = Path(root)
    info = layout.read_info(root)
    kinds = {"folders": FolderStore, "poses": PoseStore, "packed": PackedStore}
    return kinds[info.store](root, split, info, layout.read_index(root, split))
