"""A data root belongs to one recipe, and to one process with its workers at a time.

A writer takes its root with `claimed`, gives each sequence its final name when it is complete, and passes
over sequences that are there. So an interrupted writer continues, and ends with the same files as without the
interrupt.
"""

import contextlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

from .command import tell
from .errors import InputError
from .files import remove_leftovers, walk, write_text
from .json_files import read_json
from .layout import SPLITS
from .lock import locked
from .poses import SPLIT_FOLDERS
from .splits import split_of

SPLIT_NAMES = {*SPLITS, *SPLIT_FOLDERS.values()}  # of folders that hold sequences


@contextlib.contextmanager
def claimed(root: Path, recipe_file: str, recipe: dict[str, Any], shared: bool = False) -> Generator[None]:
    """Take `root` for one run of one recipe.

    Meanwhile nobody else writes there, and all that is there was made by the same recipe. The recipe is kept
    in ``<root>/<recipe_file>``; leftovers of an interrupted run of it are removed. With `shared`, other runs
    of the recipe that share the root may write there at the same time, and leftovers stay: they may be
    theirs.

    Raises `InputError` if the root was made by another recipe, holds sequences of unknown origin, or is being
    written by another process; nothing is lost then.
    """
    if root.exists() and not root.is_dir():
        raise InputError(f"{root}: is a file, expected a folder; name another root")
    root.mkdir(parents=True, exist_ok=True)
    with locked(root, shared):
        _compare_recipes(root, recipe_file, recipe)
        if shared:
            yield
            return
        folders = [root, *(Path(folder) for name in SPLIT_NAMES for folder, _ in walk(root / name, root))]
        for folder in folders:
            for line in remove_leftovers(folder):
                tell(f"note: {line}", error=True)
        yield


def _compare_recipes(root: Path, recipe_file: str, recipe: dict[str, Any]) -> None:
    """Write the recipe. Raise `InputError` if there are sequences that were made by another one."""
    path = root / recipe_file
    text = json.dumps(recipe, indent=2) + "\n"
    recipe = json.loads(text)
    holds_splits = _holds_splits(root)  # first: another shard writes its recipe before its sequences
    if path.exists():
        earlier = read_json(path, "restore it or write into another root")
        different = [name for name in recipe | earlier if earlier.get(name) != recipe.get(name)]
        if different and holds_splits:
            name = different[0]
            found = f"found {name} {_short(earlier.get(name))}"
            expected = f"expected {_short(recipe.get(name))} as now asked for"
            advice = "nothing was changed: use the same settings, or another root"
            raise InputError(f"{path}: {found}, {expected}; {advice}")
        if not different:
            return
    elif holds_splits:
        raise InputError(
            f"{root}: holds sequences of another origin (no {recipe_file}); write into another root"
        )
    write_text(path, text)


def _holds_splits(root: Path) -> bool:
    """Return whether there is a file or folder that an index would take for a split."""
    return any(split_of(entry.name) for entry in root.iterdir())


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
