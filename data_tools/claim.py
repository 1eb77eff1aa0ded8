"""A data root that belongs to one recipe, and to one process and its workers at a time.

A writer takes its root with `claimed`, makes each sequence whole under its final name or not at all, and passes over what is
there: so an interrupted one continues, and ends with what an uninterrupted one would have written.
"""

import contextlib
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from .command import tell
from .errors import InputError
from .files import remove_leftovers, walk, write_text
from .json_files import read_json
from .layout import SPLITS
from .lock import locked
from .poses import SPLIT_FOLDERS
from .splits import split_of

FOLDERS = {*SPLITS, *SPLIT_FOLDERS.values()}  # that hold sequences


@contextlib.contextmanager
def claimed(root: Path, recipe_file: str, recipe: dict) -> Iterator[None]:
    """Takes `root` for one run of one recipe: nobody else writes there meanwhile, and what is there was made by the same recipe.

    The recipe is kept in ``<root>/<recipe_file>``; leftovers of an interrupted run of it are removed. Raises `InputError` if
    the root was made by another recipe, holds sequences of unknown origin, or is being written by another process; nothing is
    lost then.
    """
    if root.exists() and not root.is_dir():
        raise InputError(f"{root}: is a file, expected a folder; name another root")
    root.mkdir(parents=True, exist_ok=True)
    with locked(root):
        _compare_recipes(root, recipe_file, recipe)
        folders = [root, *(Path(folder) for name in FOLDERS for folder, _ in walk(root / name, root))]
        for line in chain.from_iterable(map(remove_leftovers, folders)):
            tell(f"note: {line}", error=True)
        yield


def _compare_recipes(root: Path, recipe_file: str, recipe: dict) -> None:
    path = root / recipe_file
    text = json.dumps(recipe, indent=2) + "\n"
    recipe = json.loads(text)
    if path.exists():
        found = read_json(path, "restore it or write into another root")
        different = [name for name in recipe | found if found.get(name) != recipe.get(name)]
        if different and _holds_splits(root):
            name = different[0]
            raise InputError(
                f"{path}: found {name} {_short(found.get(name))}, expected {_short(recipe.get(name))} as now asked for; nothing "
                "was changed: use the same settings, or another root"
            )
        if not different:
            return
    elif _holds_splits(root):
        raise InputError(
            f"{root}: holds sequences of another origin (no {recipe_file}); write into another root"
        )
    write_text(path, text)


def _holds_splits(root: Path) -> bool:
    """Return whether anything is there that an index would take for a split."""
    return any(split_of(entry.name) for entry in root.iterdir())


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
