"""Read the sequences of one split, whatever their form on disk: `open_store` opens it, `Store` reads clips.

A packed split is two files, ``<root>/<split>/frames.npy``, uint8 [N,H,W,C], and ``conditions.npy``, float32
[N,A+P] or, of poses, uint8 [N,H,W,C]: the frames of all sequences one after the other, in the order of the
index. They are plain NumPy files, which ``numpy.load(..., mmap_mode="r")`` maps as well. Here they are read
by position, which is as fast, does not count as resident memory, and turns a file that was cut short into an
error instead of a crash.

The other form of packed splits is for object storage; `chunks` describes it.
"""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import layout, png, poses, remote
from .chunks import CONDITIONS, FRAME_ENDS, FRAMES, LANES, POSE_ENDS, POSES, Chunks, Sample, epoch_order
from .conditions import ConditionSpec
from .errors import InputError
from .files import is_inside, read_bytes
from .layout import DatasetInfo
from .npy import PackedArray
from .tables import read_conditions

ARRAYS = ("frames", "conditions")
PIECE = 2**26  # bytes of frames that are read at a time when a whole sequence is read


class Store(ABC):
    """The sequences of one split.

    Opening a store reads no frame. Stores can be sent to worker processes.

    Attributes:
        index: a row for each sequence.
        info: the contents of ``dataset.json``.
        lengths: number of frames of each sequence.
        frame_size: (H,W,C) of all frames.
        conditions: the form of the condition of one frame. Those of a sequence are rows of tables, float32
            [T,A+P], or poses, uint8 [T,H,W,C].
        lanes: the clips at every `lanes`-th place of a pass in `order` lie near each other on disk.
    """

    lanes = 1

    def __init__(self, root: Path, split: str, info: DatasetInfo, index: pd.DataFrame):
        self.root = root
        self.split = split
        self.info = info
        self.index = index
        self.lengths = index["frames"].to_numpy()
        height, width, channels = (int(index[name].iloc[0]) for name in ("height", "width", "channels"))
        self.frame_size = (height, width, channels)
        self.conditions = ConditionSpec.of(info, height, width)
        self._inside: set[int] = set()  # sequences whose folders are known to lie below the root
        if self.conditions.is_image and layout.POSES_COLUMN not in index:
            missing = f"found no column {layout.POSES_COLUMN}"
            raise InputError(f"{root / layout.INDEX_FILE}: {missing}; {layout.REINDEX_HINT}")
        expected = dict(zip(("height", "width", "channels"), self.frame_size, strict=True))
        expected |= {"action_dim": info.action_dim, "position_dim": info.position_dim}
        for column, value in expected.items():
            wrong = index["path"][index[column] != value]
            if len(wrong):
                found = f"found another {column} for {wrong.iloc[0]} than {value}"
                advice = f"sequences of one data set agree: run `svg-data index {root}` again"
                raise InputError(f"{root / layout.INDEX_FILE}: {found}; {advice}")

    def read(self, sequence: int, start: int, frames: np.ndarray, conditions: np.ndarray) -> None:
        """Fill uint8 `frames` [T,H,W,C] and `conditions` [T,...] from frame `start` of a sequence on.

        Raises `InputError` naming the file if one is missing, damaged or of another size than the index says,
        and `IndexError` for frames that the sequence does not have.
        """
        self.read_frames(sequence, start, frames)
        self._read_conditions(sequence, start, conditions)

    def read_clips(self, clips: Sequence[tuple[int, int, int]], length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return frames uint8 [B,T,H,W,C] and conditions [B,T,...] of clips (sequence, start, first frame).

        The first frame is mostly that of the start; any other one of the sequence takes its place. Raises as
        `read`.
        """
        frames = np.empty((len(clips), length, *self.frame_size), np.uint8)
        conditions = self.conditions.empty(len(clips), length)
        for place, (sequence, start, first) in enumerate(clips):
            self.read(sequence, start, frames[place], conditions[place])
            if first != start:
                self.read_frames(sequence, first, frames[place, :1])
        return frames, conditions

    def read_frames(self, sequence: int, start: int, frames: np.ndarray) -> None:
        """Fill uint8 `frames` [T,H,W,C] from frame `start` of a sequence on. Raises as `read`."""
        if not 0 <= start <= self.lengths[sequence] - len(frames):
            raise IndexError(
                f"frames {start} to {start + len(frames) - 1} of a sequence of {self.lengths[sequence]}"
            )
        self._read_frames(sequence, start, frames)

    def pieces(self, sequence: int, length: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the first `length` frames of a sequence and their conditions, `PIECE` bytes at a time.

        A sequence may be larger than memory: a million links to one small file are one.
        """
        for start, count in self.stretches(length):
            frames = np.empty((count, *self.frame_size), np.uint8)
            conditions = self.conditions.empty(count)
            self.read(sequence, start, frames, conditions)
            yield frames, conditions

    def stretches(self, length: int) -> list[tuple[int, int]]:
        """Return (first frame, number of frames) of each of the `pieces` of so many frames."""
        step = max(1, PIECE // self.frame_bytes)
        return [(start, min(step, length - start)) for start in range(0, length, step)]

    @property
    def frame_bytes(self) -> int:
        """Return the bytes that one frame and its condition take in memory, and in a packed store."""
        return math.prod(self.frame_size) + self.conditions.nbytes

    def horizon(self, sequence: int, columns: slice = slice(None)) -> int | None:
        """Return how many frames after a sequence's first one have a condition, and so can be predicted.

        Rows of tables and poses may go on after the last frame; if they do not, nothing says what follows it.
        `columns` are those of ``[actions, positions]`` that are needed; None if these are none: nothing
        limits a prediction then.
        """
        if self.conditions.is_image:
            return int(self._entry(sequence, layout.POSES_COLUMN))
        if not range(self.info.condition_dim)[columns]:
            return None
        length = int(self.lengths[sequence])
        rows = self._rows(sequence, columns)
        return rows if rows > length else length - 1

    def _rows(self, sequence: int, columns: slice) -> int:
        """Return the number of rows that all tables with one of these columns have."""
        return int(self.lengths[sequence])

    def read_conditions(self, sequence: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return the conditions of the frames from `start` to before `stop` (default: to the last frame).

        They may go on after the last frame: beyond the last pose it is held; where one table has ended before
            the
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
        """Return the paths of the files that are read for some sequences, grouped by folder.

        The name of a group is its path below the data root. The files that a sequence may lack are named,
        too.
        """
        return {self._path(sequence): self._files(sequence) for sequence in sequences}

    def order(self, numbers: np.ndarray, ends: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """Return the order of all clips in one pass over the data, int64, a function of seed and epoch.

        Args:
            numbers: sequences whose clips these are.
            ends: number of clips up to and including each of the sequences.
            seed, epoch: which order.
        """
        return np.random.default_rng((seed, epoch, 0)).permutation(int(ends[-1]))

    def expect(self, sequences: Iterable[int]) -> None:
        """Prepare for reading some sequences soon: a remote store begins to download them."""
        return

    @property
    def place(self) -> str:
        """Return the data root, or the address that it is downloaded from."""
        return remote.origin(self.root) or str(self.root)

    @property
    def is_remote(self) -> bool:
        """Return whether sequences are downloaded when they are read."""
        return False

    def images(self, sequence: int, length: int) -> tuple[list[bytes], list[bytes]]:
        """Return PNG files of the first `length` frames of a sequence, and of the poses after the first.

        Without poses the second list is empty. They are the files of the data set if it has any.
        """
        frames = np.empty((length, *self.frame_size), np.uint8)
        self.read_frames(sequence, 0, frames)
        if not self.conditions.is_image:
            return png.encode_frames(frames), []
        return png.encode_frames(frames), png.encode_frames(self.read_conditions(sequence, 0, length - 1))

    def _entry(self, sequence: int, column: str) -> Any:
        """Return the value in a column of the index."""
        return self.index[column].iat[sequence]

    def _path(self, sequence: int) -> str:
        """Return the path of a sequence below the data root."""
        return self._entry(sequence, "path")

    def _place(self, sequence: int) -> str:
        """Return the path of a sequence."""
        return f"{self.root}/{self._path(sequence)}"

    def _folder(self, sequence: int) -> str:
        """Return the folder of a sequence. Raises `InputError` if it is a link out of the data root."""
        path = self._path(sequence)
        if sequence not in self._inside:
            self._check_inside(path)
            self._inside.add(sequence)
        return f"{self.root}/{path}"

    def _check_inside(self, path: str) -> None:
        folder = f"{self.root}/{path}"
        if not is_inside(folder, self.root):
            target = os.path.realpath(folder)
            raise InputError(f"{folder}: a link out of {self.root}, to {target}; copy what it points to")

    def count_conditions(self, sequence: int) -> int:
        """Return the number of conditions of a sequence, including those beyond the last frame."""
        return int(self.lengths[sequence])

    def _read_file(self, path: str) -> bytes:
        """Return the contents of a picture. Raises `InputError`."""
        try:
            return read_bytes(path, png.most_bytes(self.frame_size), self.root)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); restore it") from None

    @abstractmethod
    def _files(self, sequence: int) -> list[str]:
        """Return the paths of all files that are read for a sequence."""

    @abstractmethod
    def _read_frames(self, sequence: int, start: int, frames: np.ndarray) -> None:
        """Fill `frames` as `read_frames` does; the sequence has them all."""

    @abstractmethod
    def _read_conditions(self, sequence: int, start: int, conditions: np.ndarray) -> None:
        """Fill `conditions` from that of frame `start` on; the sequence has them all."""


class FolderStore(Store):
    """Sequences in folders of PNG frames and tables, which are opened when they are needed."""

    def __init__(self, root: Path, split: str, info: DatasetInfo, index: pd.DataFrame):
        super().__init__(root, split, info, index)
        # The tables of the sequence that was read last: a long sequence is read piece by piece.
        self._tables: tuple[int, list[np.ndarray]] | None = None

    def _files(self, sequence: int) -> list[str]:
        tables = [f"{self._folder(sequence)}/{name}" for name in (layout.ACTIONS_FILE, layout.POSITIONS_FILE)]
        return self._frame_files(sequence, 0, int(self.lengths[sequence])) + tables

    def images(self, sequence: int, length: int) -> tuple[list[bytes], list[bytes]]:
        """Return the files of the frames, byte for byte, and no poses."""
        return [self._read_file(file) for file in self._frame_files(sequence, 0, length)], []

    def _frame_files(self, sequence: int, start: int, stop: int) -> list[str]:
        folder = self._folder(sequence)
        last = (
            f"{folder}/{self.lengths[sequence]}.png"  # if frames are counted from 1; otherwise 0.png is lost
        )
        from_one = not os.path.exists(f"{folder}/0.png") and os.path.exists(last)
        return [f"{folder}/{time + from_one}.png" for time in range(start, stop)]

    def _read_frames(self, sequence: int, start: int, frames: np.ndarray) -> None:
        for frame, file in zip(frames, self._frame_files(sequence, start, start + len(frames)), strict=True):
            frame[:] = png.read_frame(file, self.frame_size, self.root)

    def _rows(self, sequence: int, columns: slice) -> int:
        selected = range(self.info.condition_dim)[columns]
        actions, positions = self._read_tables(sequence)
        needed = []
        if selected.start < self.info.action_dim:
            needed.append(len(actions))
        if selected.stop > self.info.action_dim:
            needed.append(len(positions))
        return min(needed)

    def count_conditions(self, sequence: int) -> int:
        """Return the number of rows of the longer table of a sequence."""
        return max(map(len, self._read_tables(sequence)))

    def _read_conditions(self, sequence: int, start: int, conditions: np.ndarray) -> None:
        stop = start + len(conditions)
        first = 0
        for table in self._read_tables(sequence):
            columns = slice(first, first + table.shape[1])
            rows = table[start:stop]
            # Rows beyond the last frame were not checked on reading.
            if stop > self.lengths[sequence] and not np.isfinite(rows).all():
                place = self._place(sequence)
                found = f"found no finite numbers in rows {start + 1} to {stop} of its tables"
                advice = "complete them or remove those rows"
                raise InputError(f"{place}: {found}, some of them beyond the last frame; {advice}")
            conditions[: len(rows), columns] = rows
            conditions[len(rows) :, columns] = np.nan
            first = columns.stop

    def _read_tables(self, sequence: int) -> list[np.ndarray]:
        """Return actions and positions, float32 [T,A] and [T,P], including rows beyond the last frame."""
        if self._tables is None or self._tables[0] != sequence:
            self._tables = sequence, self._open_tables(sequence)
        return self._tables[1]

    def _open_tables(self, sequence: int) -> list[np.ndarray]:
        folder = Path(self._folder(sequence))
        length = int(self.lengths[sequence])
        by_name = read_conditions(folder, length, root=self.root, beyond=True)
        nothing = np.empty((length, 0), np.float32)
        tables = [by_name.get(name, nothing) for name in ("actions", "positions")]
        actions, positions = (table.shape[1] for table in tables)
        if (actions, positions) != (self.info.action_dim, self.info.position_dim):
            found = f"found {actions} action and {positions} position columns"
            expected = f"expected {self.info.action_dim} and {self.info.position_dim}"
            advice = f"restore its tables or run `svg-data index {self.root}` again"
            raise InputError(f"{folder}: {found}, {expected}; {advice}")
        return tables


class PoseStore(Store):
    """Sequences in folders of frames and of poses, which are opened when they are needed.

    After the last pose it is held.
    """

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

    def images(self, sequence: int, length: int) -> tuple[list[bytes], list[bytes]]:
        """Return the files of frames and poses, byte for byte."""
        frames, skeletons = self._list(sequence)
        pictures = [self._read_file(file) for file in frames[:length]]
        return pictures, [self._read_file(file) for file in skeletons[: length - 1]]

    def count_conditions(self, sequence: int) -> int:
        """Return the number of poses, or of frames if there are more."""
        return max(int(self.lengths[sequence]), self._pose_count(sequence) + 1)

    def _pose_count(self, sequence: int) -> int:
        """Return the number of poses after that of the first frame."""
        return int(self._entry(sequence, layout.POSES_COLUMN))

    def _read_conditions(self, sequence: int, start: int, conditions: np.ndarray) -> None:
        _, files = self._list(sequence)
        height, width, channels = self.conditions.shape
        for time, condition in enumerate(conditions, start=start):
            file = files[min(time, len(files) - 1)]
            condition[:] = png.read_frame(file, (height, width, channels), self.root)

    def _list(self, sequence: int) -> tuple[list[str], list[str]]:
        """Return the files of frames of a sequence, and those of poses from that of the second frame on."""
        if sequence not in self._listed:
            path = self._path(sequence)
            self._folder(sequence)
            self._check_inside(poses.poses_path(path))
            frames, skeletons = poses.list_sequence(self.root, path)
            expected = int(self.lengths[sequence]), self._pose_count(sequence)
            if (len(frames), len(skeletons)) != expected:
                found = f"found {len(frames)} frames and {len(skeletons)} poses after the first"
                advice = f"restore them or run `svg-data index {self.root}` again"
                raise InputError(
                    f"{self.root / path}: {found}, expected {expected[0]} and {expected[1]}; {advice}"
                )
            self._listed[sequence] = frames, skeletons
        return self._listed[sequence]


class PackedStore(Store):
    """Sequences in the two files of a packed split.

    Raises `InputError` on opening if the index contradicts them.
    """

    def __init__(self, root: Path, split: str, info: DatasetInfo, index: pd.DataFrame):
        super().__init__(root, split, info, index)
        self._check_inside(split)
        if self.conditions.is_image and (index[layout.POSES_COLUMN] > self.lengths - 1).any():
            raise InputError(
                f"{root / layout.INDEX_FILE}: found more poses than frames; pack the data set again"
            )
        ends = np.cumsum(self.lengths, dtype=np.int64)
        self._starts = ends - self.lengths
        total = int(ends[-1])
        self._frames = PackedArray(
            root / split / f"{ARRAYS[0]}.npy", np.dtype(np.uint8), (total, *self.frame_size)
        )
        shape = (total, *self.conditions.shape)
        path = root / split / f"{ARRAYS[1]}.npy"
        self._conditions = PackedArray(path, np.dtype(self.conditions.dtype), shape)

    def files(self, sequences: Iterable[int]) -> dict[str, list[str]]:
        """Return the paths of the two files as the only group."""
        return {self.split: self._files(0)}

    def _files(self, sequence: int) -> list[str]:
        return [str(self._frames.path), str(self._conditions.path)]

    def _read_frames(self, sequence: int, start: int, frames: np.ndarray) -> None:
        self._frames.read(int(self._starts[sequence]) + start, frames)

    def _read_conditions(self, sequence: int, start: int, conditions: np.ndarray) -> None:
        self._conditions.read(int(self._starts[sequence]) + start, conditions)


class ChunkStore(Store):
    """Sequences in the chunks of a packed split, which may come from object storage.

    Raises `InputError` on opening if the index contradicts the list of chunks.
    """

    lanes = LANES

    def __init__(self, root: Path, split: str, info: DatasetInfo, index: pd.DataFrame):
        super().__init__(root, split, info, index)
        self._check_inside(split)
        self._chunks = Chunks(root, split, len(index), self.conditions.is_image)
        self._last: tuple[int, Sample] | None = None  # a long sequence is read piece by piece

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_last": None}

    def order(self, numbers: np.ndarray, ends: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """Return an order that reads `lanes` chunks at a time, each from its first clip to its last."""
        if (np.diff(numbers) <= 0).any():  # a selection in an order of its own
            return super().order(numbers, ends, seed, epoch)
        before = np.concatenate([[0], ends])
        bounds = before[np.searchsorted(numbers, self._chunks.starts)]
        return epoch_order(np.unique(np.append(bounds, ends[-1])), seed, epoch)

    def expect(self, sequences: Iterable[int]) -> None:
        """Begin to download the chunks of some sequences."""
        if self.is_remote:
            self._chunks.expect(sequences)

    @property
    def is_remote(self) -> bool:
        """Return whether the data set is a cached one, whose chunks are downloaded when they are read."""
        return remote.origin(self.root) is not None

    def damaged(self) -> Iterator[str]:
        """Read all chunks, and yield a line for each that is not the one that was packed."""
        return self._chunks.damaged()

    def files(self, sequences: Iterable[int]) -> dict[str, list[str]]:
        """Return the list of chunks as the only file: it holds the digests of all chunks."""
        return {self.split: self._files(0)}

    def _files(self, sequence: int) -> list[str]:
        return [str(self._chunks.list_file)]

    def images(self, sequence: int, length: int) -> tuple[list[bytes], list[bytes]]:
        """Return the PNG files of frames and poses as they were packed."""
        frames = [self._picture(sequence, FRAMES, FRAME_ENDS, time) for time in range(length)]
        skeletons = range(length - 1 if self.conditions.is_image else 0)
        return frames, [self._picture(sequence, POSES, POSE_ENDS, time) for time in skeletons]

    def _sample(self, sequence: int) -> Sample:
        if self._last is None or self._last[0] != sequence:
            self._last = None  # it holds a chunk in memory
            sample = self._chunks.sample(sequence)
            length = int(self.lengths[sequence])
            expected = {FRAME_ENDS: (length,), CONDITIONS: (length, *self.conditions.shape)}
            if self.conditions.is_image:
                expected = {FRAME_ENDS: (length,), POSE_ENDS: (length - 1,)}
            for name, shape in expected.items():
                found = getattr(sample.get(name), "shape", ())
                if found != shape:
                    found = f"found {name} {list(found)}, expected {list(shape)}"
                    raise InputError(f"{self._place(sequence)}: {found}; pack the data set again")
            self._last = sequence, sample
        return self._last[1]

    def _picture(self, sequence: int, pictures: str, ends: str, time: int) -> bytes:
        sample = self._sample(sequence)
        start = int(sample[ends][time - 1]) if time else 0
        return bytes(sample[pictures][start : int(sample[ends][time])])

    def _read_frames(self, sequence: int, start: int, frames: np.ndarray) -> None:
        for time, frame in enumerate(frames, start=start):
            place = f"{self._place(sequence)}/{time}.png"
            picture = self._picture(sequence, FRAMES, FRAME_ENDS, time)
            frame[:] = png.decode_frame(picture, self.frame_size, place)

    def _read_conditions(self, sequence: int, start: int, conditions: np.ndarray) -> None:
        if not self.conditions.is_image:
            conditions[:] = self._sample(sequence)[CONDITIONS][start : start + len(conditions)]
            return
        height, width, channels = self.conditions.shape
        last = len(self._sample(sequence)[POSE_ENDS]) - 1
        for time, condition in enumerate(conditions, start=start):
            pose = min(time, last)
            place = f"{self._place(sequence)}: pose {pose + 1}"
            picture = self._picture(sequence, POSES, POSE_ENDS, pose)
            condition[:] = png.decode_frame(picture, (height, width, channels), place)


@lru_cache(maxsize=len(layout.SPLITS))
def opened_store(root: Path, split: str) -> Store:
    """Return `open_store` of a split, which each process opens once.

    The data set may change between two pieces of work: begin each with ``opened_store.cache_clear()``.
    """
    return open_store(root, split)


def read_clips(
    root: Path, split: str, length: int, clips: Sequence[tuple[int, int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return `Store.read_clips` of a split; for worker processes."""
    return opened_store(root, split).read_clips(clips, length)


def open_store(root: str | Path, split: str) -> Store:
    """Open one split of a data set, which may be a remote one (see `remote`).

    Raises `InputError` if it has no sequences or the index is damaged.
    """
    root = remote.local_root(root)
    info = layout.read_info(root)
    kinds = {"folders": FolderStore, "poses": PoseStore, "packed": PackedStore, "litdata": ChunkStore}
    return kinds[info.store](root, split, info, layout.read_index(root, split))
