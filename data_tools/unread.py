"""A few lines about the files that a reader has not read, however many they are."""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from .files import walk
from .layout import ACTIONS_FILE, POSITIONS_FILE
from .tables import name_hint

MOST_KINDS = 5  # kinds of files that are listed one by one
FilesRead = Callable[[str, list[str]], Collection[str]]
"""(folder, names of its files) -> the names of the files that are read."""


@dataclass
class _Group:
    first: Path
    count: int = 0


def among(paths: Iterable[Path]) -> FilesRead:
    """Return the function that says that exactly these files are read."""
    names: dict[str, set[str]] = {}
    for path in paths:
        names.setdefault(str(path.parent), set()).add(path.name)
    return lambda folder, files: names.get(folder, ())


def list_unread(
    root: Path,
    files_read: FilesRead,
    folders: Collection[Path] | None = None,
    table_hint: Callable[[str], str] = name_hint,
) -> tuple[list[str], list[str]]:
    """List the files at and below a folder that are not read. Hidden files and folders are left out.

    Args:
        root: the folder. If it is a file, nothing is listed.
        files_read: see `FilesRead`.
        folders: folders in `root` that are listed in detail; others are counted as folders. All if None.
        table_hint: returns advice about a table of this name that is not read.

    Returns a line for each name of CSV files that are not read where other files are (names that differ in
    numbers only are one), and at most one line that counts all other files by their kind and names the first
    of each. Raises `InputError` as `walk` does.
    """
    tables: dict[str, _Group] = {}
    others: dict[str, _Group] = {}
    if not root.is_dir():
        return [], []
    if folders is not None:
        for path in _unread_beside(root, files_read, folders):
            _count(others, "folder" if path.is_dir() else _kind(path), path)
    for start in [root] if folders is None else folders:
        for folder, files in walk(start, root):
            read = files_read(folder, files)
            for name in files:
                if name in read or name.startswith("."):
                    continue
                path = Path(folder, name)
                if read and path.suffix.lower() == ".csv" and name not in (ACTIONS_FILE, POSITIONS_FILE):
                    _count(tables, re.sub(r"[0-9]+", "#", name), path)
                else:
                    _count(others, _kind(path), path)
    lines = [_describe_tables(group, table_hint(group.first.name)) for _, group in sorted(tables.items())]
    if len(lines) > MOST_KINDS:
        lines[MOST_KINDS:] = [f"{root}: not read: tables of {len(lines) - MOST_KINDS} other names"]
    return lines, [_describe_others(root, others)] if others else []


def _unread_beside(root: Path, files_read: FilesRead, folders: Collection[Path]) -> list[Path]:
    """Return the unread files in `root` itself and the folders in it that are not among `folders`."""
    entries = [
        entry for entry in sorted(root.iterdir()) if not entry.name.startswith(".") and entry not in folders
    ]
    read = files_read(str(root), [entry.name for entry in entries])
    return [entry for entry in entries if entry.name not in read]


def _count(groups: dict[str, _Group], name: str, path: Path) -> None:
    groups.setdefault(name, _Group(path)).count += 1


def _kind(path: Path) -> str:
    return path.suffix.lower() or "without a suffix"


def _describe_tables(group: _Group, hint: str) -> str:
    more = f" (and {group.count - 1} more of that name)" if group.count > 1 else ""
    return f"{group.first}: not read{more}; {hint}"


def _describe_others(root: Path, groups: dict[str, _Group]) -> str:
    """Return a line like ``ROOT: not read: 3 .npy (first: a.npy), 1 .pkl (b.pkl)``, frequent kinds first."""
    kinds = sorted(groups.items(), key=lambda entry: (-entry[1].count, entry[0]))
    parts = []
    for kind, group in kinds[:MOST_KINDS]:
        first = "first: " if group.count > 1 else ""
        parts.append(f"{group.count} {kind} ({first}{group.first.relative_to(root).as_posix()})")
    if len(kinds) > MOST_KINDS:
        rest = sum(group.count for _, group in kinds[MOST_KINDS:])
        parts.append(f"{rest} of {len(kinds) - MOST_KINDS} other kinds")
    return f"{root}: not read: {', '.join(parts)}"
