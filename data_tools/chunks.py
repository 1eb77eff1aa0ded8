"""Sequences in chunks, the files of LitData (https://github.com/Lightning-AI/litData), for object storage.

A packed split is a folder with ``chunk-0-0.bin``, ``chunk-0-1.bin`` ... of some 64 MB and ``index.json``,
which lists them: ``litdata.StreamingDataset`` reads such a folder, too. A sample is one sequence, in the
order of the index: the bytes of its PNG files one after the other, as they lay on disk, with the place where
each ends, and its conditions, float32 [T,A+P] or again PNG files. So a clip decodes no more than its own
frames.

Beside what LitData writes the list holds the SHA-256 of each chunk. LitData is imported when the first sample
is read: it imports torch, which takes seconds.
"""

import hashlib
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from . import remote
from .errors import InputError
from .files import open_regular
from .json_files import read_dataclass, read_json
from .remote import CHUNKS_FILE, NEEDS

FRAMES, FRAME_ENDS, CONDITIONS, POSES, POSE_ENDS = "frames", "ends", "conditions", "poses", "pose_ends"
"""The parts of a sample."""
DATA_FORMATS = {
    False: ["bytes", "no_header_numpy:3", "numpy"],
    True: ["bytes", "no_header_numpy:3", "bytes", "no_header_numpy:3"],
}
"""LitData's names of the types of these parts, without poses and with them. Others might hold code."""
MOST_CHUNK = 2**32 - 1  # bytes: LitData's offsets have 32 bits
LANES = 8
"""How many chunks the clips of a training batch come from."""
MAPPED = 2 * LANES  # chunks that a process keeps mapped into its memory
PREFETCHERS = 2  # threads that download chunks before they are read
ATTEMPTS = 5  # at reading a chunk that other processes remove from the cache meanwhile
PACK_HINT = "pack the data set again"

Sample = dict[str, Any]


@dataclass(frozen=True)
class Chunk:
    """An entry of the list of chunks.

    Args:
        filename: in the folder of the split.
        chunk_bytes: size of the file.
        chunk_size: number of samples.
        sha256: digest of the file, in hexadecimal digits.
    """

    filename: str
    chunk_bytes: int = field(metadata={"least": 1, "most": MOST_CHUNK})
    chunk_size: int = field(metadata={"least": 1, "most": MOST_CHUNK})
    sha256: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"chunk-\d+-\d+\.bin", self.filename):
            raise ValueError(f"found the file name {self.filename!r}, expected one such as chunk-0-0.bin")


class Chunks:
    """The samples of one packed split, read by their numbers.

    Opening them reads the list of chunks. They can be sent to other processes. Raises `InputError` if the
    list is damaged or holds another number of samples than expected.
    """

    def __init__(self, root: Path, split: str, samples: int, with_poses: bool):
        self.root = root
        self.split = split
        self.list_file = root / split / CHUNKS_FILE
        self._chunks = self._read_list(with_poses)
        ends = np.cumsum([chunk.chunk_size for chunk in self._chunks])
        if not len(ends) or ends[-1] != samples:
            found = f"found {ends[-1] if len(ends) else 0} samples, expected {samples} as the index says"
            raise InputError(f"{self.list_file}: {found}; {PACK_HINT}")
        self._ends = ends
        self._reader: Any = None
        self._prefetcher: _Prefetcher | None = None
        self._used = -1  # number of the chunk that was read last

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_reader": None, "_prefetcher": None, "_used": -1}

    def _read_list(self, with_poses: bool) -> list[Chunk]:
        values = read_json(self.list_file, PACK_HINT, self.root)
        config, entries = values.get("config"), values.get("chunks")
        if not isinstance(config, dict) or not isinstance(entries, list):
            raise InputError(f"{self.list_file}: damaged (found no list of chunks); {PACK_HINT}")
        expected: dict[str, Any] = {"data_format": DATA_FORMATS[with_poses], "item_loader": "PyTreeLoader"}
        expected |= {"compression": None, "encryption": None}
        for name, value in expected.items():
            if config.get(name) != value:
                found = f"found {name} {config.get(name)!r}, expected {value!r}"
                raise InputError(f"{self.list_file}: {found}; {PACK_HINT}")
        chunks = []
        for entry in entries:
            if isinstance(entry, dict):
                entry.pop("dim", None)  # of LitData, for texts
            chunks.append(read_dataclass(Chunk, entry, self.list_file, PACK_HINT))
        return chunks

    @property
    def starts(self) -> np.ndarray:
        """Return the number of the first sample of each chunk, int64."""
        return self._ends - [chunk.chunk_size for chunk in self._chunks]

    def _chunk_of(self, number: int) -> int:
        """Return the number of the chunk that holds a sample."""
        return int(np.searchsorted(self._ends, number, side="right"))

    def sample(self, number: int) -> Sample:
        """Return a sample; its bytes are views into the chunk, which is mapped into memory.

        A chunk of a remote data set is downloaded if it is not in the cache. Raises `InputError` for a chunk
        that is missing or damaged.
        """
        chunk = self._chunk_of(number)
        name = f"{self.split}/{self._chunks[chunk].filename}"
        for _ in range(ATTEMPTS):
            path = remote.fetch(self.root, name, self._chunks[chunk].sha256)
            try:
                return self._read(path, chunk, number)
            except FileNotFoundError:  # another process has removed it from the cache in between
                continue
        found = f"removed {ATTEMPTS} times before it could be read"
        raise InputError(f"{self.root / name}: {found}; raise {remote.CACHE_GB}")

    def _read(self, path: Path, chunk: int, number: int) -> Sample:
        """Return a sample from its chunk. Raises `FileNotFoundError` if the chunk has been removed."""
        reader = self._open_reader()
        from litdata.exceptions import ChunkWaitTimeoutError
        from litdata.streaming.sampler import ChunkedIndex

        if chunk != self._used:
            remote.touch(path)
            self._check_size(path, self._chunks[chunk].chunk_bytes)
            self._used = chunk
        try:
            return reader.read(ChunkedIndex(index=number, chunk_index=chunk))
        except (FileNotFoundError, ChunkWaitTimeoutError):
            raise FileNotFoundError(str(path)) from None
        except Exception as error:  # LitData does not check what it reads: numbers, shapes, names
            reason = str(error) or type(error).__name__
            raise InputError(f"{path}: damaged ({reason}); {PACK_HINT}") from None

    def _check_size(self, path: Path, expected: int) -> None:
        """Raise `InputError` for a file that was cut short: reading it would end the process.

        Raises `FileNotFoundError` for one that is missing.
        """
        try:
            with open_regular(path, self.root) as file:
                found = file.seek(0, 2)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); {PACK_HINT}") from None
        if found != expected:
            raise InputError(f"{path}: found {found} bytes, expected {expected}; {PACK_HINT}")

    def _open_reader(self) -> Any:
        """Return LitData's reader of the local chunks. Raises `InputError` if it is not installed."""
        if self._reader is None:
            try:
                from litdata.streaming.item_loader import PyTreeLoader
                from litdata.streaming.reader import BinaryReader
            except ImportError:
                raise InputError(f"{self.root}: reading it {NEEDS}") from None
            loader = PyTreeLoader(batch_decode=0)
            loader.set_posix_fast(True, keep=MAPPED, willneed=False)
            loader.set_mmap_allowed_chunks(set(range(len(self._chunks))))
            folder = str(self.root / self.split)
            self._reader = BinaryReader(folder, max_cache_size=MOST_CHUNK, item_loader=loader)
        return self._reader

    def expect(self, numbers: Iterable[int]) -> None:
        """Download the chunks of these samples of a remote data set in the background.

        Errors are left to `sample`.
        """
        if self._prefetcher is None:
            self._prefetcher = _Prefetcher(self.root)
        for chunk in sorted(set(map(self._chunk_of, numbers))):
            self._prefetcher.add(f"{self.split}/{self._chunks[chunk].filename}", self._chunks[chunk].sha256)

    def damaged(self) -> Iterator[str]:
        """Read all chunks and yield a line for each that is missing or not the one that was packed."""
        for chunk in self._chunks:
            try:
                path = remote.fetch(self.root, f"{self.split}/{chunk.filename}", chunk.sha256)
                with open_regular(path, self.root) as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except InputError as error:
                yield str(error)
                continue
            except OSError as error:
                yield f"{error.filename}: cannot be read ({error.strerror}); {PACK_HINT}"
                continue
            if digest != chunk.sha256:
                yield f"{path}: the checksum does not match: changed or damaged; {PACK_HINT}"


class _Prefetcher:
    """Threads that download chunks; they end with the process."""

    def __init__(self, root: Path):
        self._root = root
        self._pending: set[str] = set()
        self._queue: SimpleQueue[tuple[str, str]] = SimpleQueue()
        for _ in range(PREFETCHERS):
            threading.Thread(target=self._work, daemon=True).start()

    def add(self, name: str, sha256: str) -> None:
        """Download a chunk unless it is there or on its way."""
        if name not in self._pending and not (self._root / name).exists():
            self._pending.add(name)
            self._queue.put((name, sha256))

    def _work(self) -> None:
        while True:
            name, sha256 = self._queue.get()
            try:
                remote.fetch(self._root, name, sha256)
            except (InputError, OSError):  # whoever reads the chunk tries again and says what is wrong
                pass
            finally:
                self._pending.discard(name)


def epoch_order(bounds: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Return the order of the clips of one pass over the data, int64 [N], a function of seed and epoch.

    LitData's canonical order, which does not depend on the number of processes, permutes the chunks, and
    the clips within each. It is cut into `LANES` parts, and places 0, 1, 2 ... of the pass take from them in
    turn: each part is read chunk by chunk, and a batch has clips of `LANES` chunks.

    Args:
        bounds: number of clips before each chunk, and in the end of all: increasing, int64 [chunks + 1].
        seed, epoch: which order.
    """
    from litdata.streaming.elastic import canonical_item_stream

    limits = bounds.tolist()
    intervals = [(start, start, end, end) for start, end in pairwise(limits)]
    stream = canonical_item_stream(intervals, seed=seed % 2**32, epoch=epoch, shuffle=True)
    clips = np.fromiter((clip for _, clip in stream), np.int64, len(stream))
    order = np.empty_like(clips)
    for lane, part in enumerate(np.array_split(clips, LANES)):
        order[lane::LANES] = part
    return order
