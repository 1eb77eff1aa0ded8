"""Names of sequences and runs, which may be any text, as file names and as labels in pictures."""

import hashlib
import unicodedata
from collections.abc import Iterable
from itertools import count

from data_tools.errors import clean

MOST_BYTES = 160
"""Bytes of a stem: leaves room for what commands write before and after it in the 255 of a file name."""
MARK_DIGITS = 8
RESERVED = frozenset('<>:"/\\|?*')
"""Signs that a file system somewhere forbids in names, besides those that cannot be printed."""
MOST_LETTERS = 48
"""Letters of a label."""


def file_stems(names: Iterable[str], endings: Iterable[str] = ("",)) -> dict[str, str]:
    """Return a file stem for each name, so that no two names share a file: ``{name: stem}``.

    A name is its own stem where it can be. Signs that file names cannot hold become underscores, and long
    names are cut. Where two names come to the same stem, one that is spelt like it keeps it, and another gets
    a hash of its name at its end.

    Args:
        names: of all sequences of a split, not only of those that are written: a sequence then keeps its
            stem.
        endings: of the files of each stem. All ``stem + ending`` differ, also where a file system does not
            tell upper from lower case or two spellings of a letter apart.
    """
    compared_endings = [_as_compared(ending) for ending in endings]
    usual = {name: _usual_stem(name) for name in names}
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(usual, key=lambda name: (usual[name] != name, name)):
        stem = usual[name]
        attempts = count()
        while not taken.isdisjoint(files := [_as_compared(stem) + ending for ending in compared_endings]):
            stem = _marked(usual[name], name, next(attempts))
        taken.update(files)
        stems[name] = stem
    return {name: stems[name] for name in usual}


def _usual_stem(name: str) -> str:
    signs = (sign if sign.isprintable() and sign not in RESERVED else "_" for sign in name)
    stem = "".join(signs) or "_"
    if stem[0] in ". ":  # hidden, or lost by some file systems
        stem = "_" + stem[1:]
    if stem[-1] in ". ":
        stem = stem[:-1] + "_"
    return stem if len(stem.encode()) <= MOST_BYTES else _marked(stem, name, 0)


def _marked(stem: str, name: str, attempt: int) -> str:
    """Return `stem` with a hash of `name` and `attempt` at its end, at most `MOST_BYTES` long."""
    mark = hashlib.sha256(f"{attempt} {name}".encode("utf-8", "surrogatepass")).hexdigest()[:MARK_DIGITS]
    kept = stem.encode()[: MOST_BYTES - MARK_DIGITS - 1].decode(errors="ignore")  # without half a letter
    return f"{kept}-{mark}"


def _as_compared(text: str) -> str:
    """Return `text` as file systems without case see it (Unicode's canonical caseless matching)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def label(name: str, most: int = MOST_LETTERS) -> str:
    """Return a name as one line of at most `most` letters.

    What cannot be printed is written out; of long names the middle is left out.
    """
    line = " ".join(clean(name).split())
    if len(line) <= most:
        return line
    kept = most - 1
    return f"{line[: kept - kept // 2]}…{line[len(line) - kept // 2 :]}"
