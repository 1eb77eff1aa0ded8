"""Fingerprints of a data set's files, to notice which of them were changed while a training was stopped.

Files come in groups, such as those of one sequence. The stamp of a group is made of sizes and times of change: where it is as noted
nothing is opened. Where it is not, as after a copy, an extraction or ``touch``, contents decide: of each file a CRC-32

- of a picture of its size and its last bytes, where a PNG has checksums of all its pixels (its zlib stream ends with an Adler-32,
  its chunk with a CRC-32);
- of a packed array larger than `MOST_BYTES` of evenly spread blocks;
- of any other file of all its bytes.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_tools.files import open_regular, write_text
from data_tools.layout import InputError, read_json

FILE = "data.json"
SCHEMA_VERSION = 1
TAIL = 512  # bytes at the end of a PNG; text that some programs write after the pixels fits in, too
BLOCK, MOST_BYTES = 2**20, 2**30
THREADS = 16  # files on a network are waited for, not computed on
MISSING = "missing."  # as long as a CRC-32 in hexadecimal digits

Groups = dict[str, list[str]]
"""Paths of files by the name of their group."""
Fingerprints = dict[str, tuple[str, str]]
"""(stamp, contents: 8 characters a file) by the name of the group."""


def take(groups: Groups) -> Fingerprints:
    """Return the fingerprints of all files."""
    with ThreadPoolExecutor(THREADS) as pool:
        taken = pool.map(lambda files: (_stamp(files), _contents(files)), groups.values())
        return dict(zip(groups, taken, strict=True))


def changed_files(noted: Fingerprints, groups: Groups) -> tuple[list[str], Fingerprints]:
    """Return the files whose contents are not as noted, and the fingerprints as they are now. New groups are no change."""
    now = {name: noted[name] for name, stamp in _stamps(groups).items() if name in noted and noted[name][0] == stamp}
    now |= take({name: files for name, files in groups.items() if name not in now})
    changed = []
    for name, files in groups.items():
        before, after = noted.get(name, now[name])[1], now[name][1]
        changed += [file for number, file in enumerate(files) if _of_file(before, number) != _of_file(after, number)]
    return changed, {name: now[name] for name in groups}


def _of_file(contents: str, number: int) -> str:
    return contents[8 * number : 8 * number + 8]


def _stamps(groups: Groups) -> dict[str, str]:
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(groups, pool.map(_stamp, groups.values()), strict=True))


def _stamp(files: Iterable[str]) -> str:
    stamp = hashlib.blake2b(digest_size=8)
    for file in files:
        try:
            status = os.stat(file)
            stamp.update(b"%d %d " % (status.st_size, status.st_mtime_ns))
        except OSError:
            stamp.update(b"none ")
    return stamp.hexdigest()


def _contents(files: Iterable[str]) -> str:
    return "".join(map(_checksum, files))


def _checksum(path: str) -> str:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            checksum = zlib.crc32(b"%d" % size)
            for start, length in _parts(path, size):
                file.seek(start)
                checksum = zlib.crc32(file.read(length), checksum)
    except OSError:
        return MISSING
    return f"{checksum:08x}"


def _parts(path: str, size: int) -> Iterator[tuple[int, int]]:
    """(where it begins, how long it is) of each part of a file that is read."""
    if path.lower().endswith(".png"):
        yield max(0, size - TAIL), TAIL
        return
    blocks = -(-size // BLOCK)
    read = min(blocks, MOST_BYTES // BLOCK)
    for number in range(read):
        yield number * blocks // read * BLOCK, BLOCK


def write(run: Path, fingerprints: Fingerprints) -> None:
    """Notes in a run folder what its training reads."""
    write_text(run / FILE, json.dumps({"schema_version": SCHEMA_VERSION, "files": fingerprints}) + "\n")


def read(run: Path) -> Fingerprints | None:
    """Return what a run has noted; None of runs of earlier releases. Raises `InputError`."""
    path = run / FILE
    if not path.exists():
        return None
    advice = "restore it, or remove it to go on without comparing the files of the data set"
    files = read_json(path, advice).get("files")
    if not isinstance(files, dict) or not all(map(_is_fingerprint, files.values())):
        raise InputError(f"{path}: damaged (found no fingerprints of files); {advice}")
    return {name: tuple(pair) for name, pair in files.items()}


def _is_fingerprint(found: object) -> bool:
    return isinstance(found, list) and len(found) == 2 and all(isinstance(text, str) for text in found)
