"""Plain ``.npy`` files: rows are read from them by position, and appended to them one by one."""

import io
import math
import os
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from .errors import InputError
from .files import naming, open_regular, remove


class PackedArray:
    """A ``.npy`` file of known type and shape, of which rows are read.

    It is opened at first use in each process, so that it can be sent to another one. Raises `InputError` on
    opening if the file is not what is expected.
    """

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
        """Fill a contiguous `out` [T,...] with the rows from `row` on.

        Raises `InputError` if the file is too short.
        """
        if not out.size:
            return
        if self._file is None:
            self._open()
        buffer = out.data.cast("B")
        place = self._offset + row * self._row_bytes
        while buffer:
            count = _read_at(self._file, buffer, place)
            if not count:
                raise InputError(f"{self.path}: ends {len(buffer)} bytes early; pack the data set again")
            buffer = buffer[count:]
            place += count


def _read_at(file: io.BufferedReader, buffer: memoryview, place: int) -> int:
    """Read into the buffer from a place in the file on, and return the number of bytes that were read.

    The position of the file, which processes may share, is not moved.
    """
    if hasattr(os, "preadv"):
        return os.preadv(file.fileno(), [buffer], place)
    file.seek(place)  # on Windows, where processes do not share files
    return file.readinto(buffer)


def _check_header(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> int:
    """Compare type, shape and size of a ``.npy`` file, and return where its data begin.

    Nothing is unpickled.
    """
    expected = npy_header(dtype, shape)
    try:
        with open_regular(path, path.parents[1]) as file:
            found = file.read(len(expected))
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); pack the data set again") from None
    if found != expected:
        missing = f"found no array of {dtype} {list(shape)} as the index says"
        raise InputError(f"{path}: {missing}; pack the data set again")
    total = len(expected) + math.prod(shape) * dtype.itemsize
    if size != total:
        raise InputError(f"{path}: found {size} bytes, expected {total}; pack the data set again")
    return len(expected)


def npy_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Return the first bytes of a ``.npy`` file, format 1.0, for an array in C order."""
    header = io.BytesIO()
    fields = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()


def _open_growing(path: Path) -> BinaryIO:
    """Open a file to append to it. A link or a file with a second name is replaced by a new file."""
    if path.is_symlink() or (path.exists() and not (path.is_file() and path.stat().st_nlink == 1)):
        remove(path)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "a+b")


class GrowingArray:
    """A ``.npy`` file of a known final shape that grows row by row under a temporary name.

    Rows that an interrupted run has written are kept.
    """

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
        """Return the number of complete rows in the file."""
        self._file.seek(0)
        if self._file.read(len(self._header)) != self._header:
            return 0
        size = os.fstat(self._file.fileno()).st_size - len(self._header)
        return min(self._length, size // self._row_bytes) if self._row_bytes else self._length

    def cut(self, rows: int) -> None:
        """Keep so many rows, and remove those after them."""
        if rows == 0:
            self._file.truncate(0)
            self._file.write(self._header)
        else:
            self._file.truncate(len(self._header) + rows * self._row_bytes)

    def append(self, values: np.ndarray) -> None:
        """Write rows at the end. Raises `OSError` naming the file."""
        with naming(self._path):
            self._file.write(np.ascontiguousarray(values).data)

    def finish(self) -> None:
        """Flush the file to the disk and give it its final name. Raises `OSError` naming it."""
        with naming(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            os.replace(self._growing, self._path)
