"""The splits of a data set under their usual names, at any depth of a folder."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from .errors import InputError

USUAL_NAMES = {
    "train": ("train", "training"),
    "validate": ("validate", "val", "valid", "validation", "eval", "evaluation"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {name: split for split, names in USUAL_NAMES.items() for name in names}


def split_of(name: str) -> str | None:
    """Return the split that a folder of this name holds, or None; case does not matter."""
    return _SPLIT_OF.get(name.lower())


def split_folder(root: Path, split: str) -> Path | None:
    """Return the folder of a split right below a data root, under any of its usual names, or None.

    Raises `InputError` if there are two of them.
    """
    if not root.is_dir():
        return None
    folders = [entry for entry in sorted(root.iterdir()) if split_of(entry.name) == split and entry.is_dir()]
    if len(folders) > 1:
        first, second = folders[:2]
        found = f"found a second folder of the split {split} beside {first.name}"
        raise InputError(f"{second}: {found}; join them")
    return folders[0] if folders else None


def find_splits(names: Sequence[str]) -> list[tuple[str, str] | None]:
    """Return the split of each path and the path without the folder of that split, or None.

    The folder of a split is the outermost one with a usual name that not all paths lie in, or else the
    innermost one that all lie in: in ``test/{train,val}/0`` these are ``train`` and ``val``. If the last part
    of a path is such a name it stays.

    Args:
        names: relative paths, with slashes.
    """
    paths = [name.split("/") for name in names]
    shared = _shared_length(paths)
    splits: list[tuple[str, str] | None] = []
    for path in paths:
        named = [(place, split) for place, name in enumerate(path) if (split := split_of(name))]
        if not named:
            splits.append(None)
            continue
        place, split = next((entry for entry in named if entry[0] >= shared), named[-1])
        rest = path[:place] + path[place + 1 :] if place < len(path) - 1 else path
        splits.append((split, "/".join(rest)))
    return splits


def _shared_length(paths: Iterable[list[str]]) -> int:
    """Return the number of folders at the beginning that all paths share."""
    length = 0
    for level in zip(*paths, strict=False):
        if len(set(level)) > 1:
            break
        length += 1
    return length
