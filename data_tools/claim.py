"""A data root that belongs to one recipe, and to one process and its workers at a time.

A writer takes its root with `claimed`, makes each sequence whole under its final name or not at all, and passes over what is
there: so an interrupted one continues, and ends with what an uninterrupted one would have written.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from . import layout
from .folders import remove_leftovers
from .layout import SPLITS, InputError
from .poses import SPLIT_FOLDERS

FOLDERS = {*SPLITS, *SPLIT_FOLDERS.values()}  # that hold sequences
LOCK_PATIENCE = 5.0  # seconds: what a killed run's last worker may need to notice


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
    with _locked(root):
        _compare_recipes(root, recipe_file, recipe)
        remove_leftovers(root)
        for name in FOLDERS:
            for folder, subfolders, _ in os.walk(root / name):
                remove_leftovers(Path(folder))
                subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        yield


def _compare_recipes(root: Path, recipe_file: str, recipe: dict) -> None:
    path = root / recipe_file
    text = json.dumps(recipe, indent=2) + "\n"
    recipe = json.loads(text)
    if path.exists():
        found = layout.read_json(path, "restore it or write into another root")
        different = [name for name in recipe | found if found.get(name) != recipe.get(name)]
        if different and any((root / name).exists() for name in FOLDERS):
            name = different[0]
            raise InputError(
                f"{path}: found {name} {_short(found.get(name))}, expected {_short(recipe.get(name))} as now asked for; nothing "
                "was changed: use the same settings, or another root"
            )
        if not different:
            return
    elif any((root / name).exists() for name in FOLDERS):
        raise InputError(f"{root}: holds sequences of another origin (no {recipe_file}); write into another root")
    layout.write_text(path, text)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Holds the root for this process and, through `share_claim`, for its workers, even if this process is killed."""
    if fcntl is None:
        yield
        return
    handle, deadline = os.open(root, os.O_RDONLY), time.monotonic() + LOCK_PATIENCE
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise InputError(f"{root}: another process is writing there; wait for it or name another root") from None
                time.sleep(0.05)
            except OSError:  # a file system without locks
                break
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)  # which the workers share
        yield
    finally:
        os.close(handle)


def share_claim(root: Path) -> None:
    """Makes the claim on `root` last until this worker process ends, even if the one that claimed it is killed before."""
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(os.open(root, os.O_RDONLY), fcntl.LOCK_SH)
