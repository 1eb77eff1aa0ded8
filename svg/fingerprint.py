"""Fingerprints of the files of a data set, to notice changes while a training was stopped.

Files come in groups, such as those of one sequence. The stamp of a group is made of sizes and times of
change: if it is as before nothing is opened. If it is not, as after a copy, an extraction or ``touch``,
contents are compared. They are represented by a CRC-32 of the size of each file and of

- the last bytes of a picture, where a PNG has checksums of all its pixels (its zlib stream ends with an
Adler-32, its
  chunk with a CRC-32);
- evenly spread blocks of a packed array that is larger than `MOST_BYTES`;
- all bytes of any other file.
"""

import errno
import hashlib
import json
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data_tools.errors import InputError
from data_tools.files import write_text
from data_tools.json_files import read_json

FILE = "data.json"
SCHEMA_VERSION = 1
TAIL = 512  # bytes at the end of a PNG, enough for text that some programs write after the pixels
BLOCK = 2**20  # bytes
MOST_BYTES = 2**30  # that are read of a file
THREADS = 8  # most of the time is waiting for files on a network
# Opening a pipe must not wait for its other end.
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
MISSING = "missing."  # as long as a CRC-32 in hexadecimal digits

Groups = dict[str, list[str]]
"""Paths of files by the name of their group."""
Fingerprints = dict[str, tuple[str, str]]
"""(stamp, contents: 8 characters for each file) by the name of the group."""


def take(groups: Groups) -> Fingerprints:
    """Return the fingerprints of all files."""
    return _of_each(groups, _fingerprint)


def changed_files(noted: Fingerprints, groups: Groups) -> tuple[list[str], Fingerprints]:
    """Return the files whose contents differ from the noted ones, and the fingerprints as they are now.

    New groups are no change.
    """
    stamps = _of_each(groups, _stamp)
    now = {name: noted[name] for name in groups if name in noted and noted[name][0] == stamps[name]}
    now |= take({name: files for name, files in groups.items() if name not in now})
    changed = []
    for name, files in groups.items():
        _, before = noted.get(name, now[name])
        _, after = now[name]
        for number, file in enumerate(files):
            if _of_file(before, number) != _of_file(after, number):
                changed.append(file)
    return changed, {name: now[name] for name in groups}


def _of_file(contents: str, number: int) -> str:
    """Return the part of the contents of a group that belongs to its file of this number."""
    return contents[8 * number : 8 * number + 8]


def _of_each(groups: Groups, work: Callable[[list[str]], Any]) -> dict[str, Any]:
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(groups, pool.map(work, groups.values()), strict=True))


def _fingerprint(files: list[str]) -> tuple[str, str]:
    times, checksums = zip(*map(_examine, files), strict=True)
    return _stamp_of(times), "".join(checksums)


def _stamp(files: list[str]) -> str:
    return _stamp_of(map(_size_and_time, files))


def _stamp_of(sizes_and_times: Iterable[str]) -> str:
    return hashlib.blake2b(" ".join(sizes_and_times).encode(), digest_size=8).hexdigest()


def _size_and_time(path: str) -> str:
    try:
        return _in_words(os.stat(path))
    except OSError:
        return "none"


def _in_words(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns}"


def _examine(path: str) -> tuple[str, str]:
    """Return (size and time, checksum) of a file, which is opened."""
    try:
        handle = os.open(path, _READ_FLAGS)
    except OSError:
        return _size_and_time(path), MISSING
    try:  # without a file object, which would take twice the time: there may be a million files
        status = os.fstat(handle)
        return _in_words(status), f"{_checksum(handle, path, status):08x}"
    except OSError:
        return _size_and_time(path), MISSING
    finally:
        os.close(handle)


def _checksum(handle: int, path: str, status: os.stat_result) -> int:
    """Return the CRC-32 of an open file. Raises `OSError`."""
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    checksum = zlib.crc32(b"%d" % status.st_size)
    for start, length in _parts(path, status.st_size):
        os.lseek(handle, start, os.SEEK_SET)
        checksum = zlib.crc32(os.read(handle, length), checksum)
    return checksum


def _parts(path: str, size: int) -> list[tuple[int, int]]:
    """Return (start, length) of each part of a file that is read."""
    if path.lower().endswith(".png"):
        return [(max(0, size - TAIL), TAIL)]
    blocks = -(-size // BLOCK)
    read = min(blocks, MOST_BYTES // BLOCK)
    return [(number * blocks // read * BLOCK, BLOCK) for number in range(read)]


def write(run: Path, fingerprints: Fingerprints) -> None:
    """Write the fingerprints of the files that a training reads into its run folder."""
    write_text(run / FILE, json.dumps({"schema_version": SCHEMA_VERSION, "files": fingerprints}) + "\n")


def read(run: Path) -> Fingerprints | None:
    """Return the fingerprints in a run folder; None in those of earlier releases.

    Raises `InputError` if the file is damaged.
    """
    path = run / FILE
    if not os.path.lexists(path):
        return None
    advice = "restore it, or remove it to go on without comparing the files of the data set"
    values = read_json(path, advice)
    if values.get("schema_version") != SCHEMA_VERSION:
        found = f"found schema version {values.get('schema_version')!r}, expected {SCHEMA_VERSION}"
        raise InputError(f"{path}: {found}; use a matching release, or {advice}")
    files = values.get("files")
    if not isinstance(files, dict) or not all(map(_is_fingerprint, files.values())):
        raise InputError(f"{path}: damaged (found no fingerprints of files); {advice}")
    return {name: (stamp, contents) for name, (stamp, contents) in files.items()}


def _is_fingerprint(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(text, str) for text in value):
        return False
    stamp, contents = value
    is_stamp = re.fullmatch("[0-9a-f]{16}", stamp) is not None
    return is_stamp and re.fullmatch(r"([0-9a-f]{8}|missing\.)*", contents) is not None
