"""Read and write a sequence as a folder of PNG frames and CSV tables."""

import os
from pathlib import Path

import numpy as np

from . import png
from .errors import InputError
from .files import natural_key, walk, whole_folder
from .layout import ACTIONS_FILE, POSITIONS_FILE
from .tables import finite_float32, hold_last


def png_folders(base: Path, root: Path) -> list[Path]:
    """Return the folders with PNG files at or below `base` in the data root, in natural order (2 before 10).

    Hidden folders are left out. Raises `InputError` as `walk` does.
    """
    folders = [
        Path(folder)
        for folder, files in walk(base, root)
        if any(name.lower().endswith(".png") for name in files)
    ]
    return sorted(folders, key=lambda folder: natural_key(folder.relative_to(base).as_posix()))


def frame_paths(folder: Path) -> list[Path]:
    """Return the frames of a sequence folder in numeric order (0, 1, 2, ..., 10).

    Raises `InputError` unless they are numbered without a gap from 0 or from 1.
    """
    numbers = []
    for name in os.listdir(folder):
        stem, extension = os.path.splitext(name)
        if extension.lower() != ".png" or name.startswith("."):
            continue
        if not (extension == ".png" and stem.isascii() and stem.isdigit() and stem == str(int(stem))):
            advice = "rename or move this file (`svg-data frames` takes any names)"
            raise InputError(f"{folder / name}: frames are named 0.png, 1.png, ...; {advice}")
        numbers.append(int(stem))
    numbers.sort()
    if not numbers:
        raise InputError(f"{folder}: found no frames, expected 0.png, 1.png, ...")
    first = numbers[0]
    if first not in (0, 1):
        found = f"the first one found is {first}.png, expected 0.png or 1.png"
        raise InputError(f"{folder / '0.png'}: missing frame; {found}")
    for expected, number in enumerate(numbers, start=first):
        if number != expected:
            found = f"found {len(numbers)} frames up to {numbers[-1]}.png"
            advice = "restore it or move the sequence out of the data root"
            raise InputError(f"{folder / f'{expected}.png'}: missing frame; {found}; {advice}")
    return [folder / f"{number}.png" for number in numbers]


def write_sequence(
    folder: Path, frames: np.ndarray, actions: np.ndarray | None, positions: np.ndarray | None
) -> None:
    """Write frames and tables as a new sequence folder.

    They are written to a temporary folder beside `folder`, which is renamed at the end: a folder under its
    final name is complete. Numbers are written with 9 significant digits, which give back every float32
    exactly.

    Args:
        folder: such as ``ROOT/train/0``.
        frames: uint8 [T,H,W,C], C = 3 (RGB) or 1 (grey).
        actions, positions: finite numbers [T,A] and [T,P], or None. The last action, which is never used, may
            be NaN; the one before is then written in its place.

    Raises `InputError` for anything else and if the folder is there, and `OSError` naming the folder if it
    cannot be written; nothing is left then.
    """
    folder = Path(folder)
    given = {ACTIONS_FILE: actions, POSITIONS_FILE: positions}
    tables = {name: np.asarray(table) for name, table in given.items() if table is not None}
    _check_arrays(folder, frames, tables)
    if folder.exists():
        raise InputError(f"{folder}: is there already; remove it or take another number")
    with whole_folder(folder) as temporary:
        write_frames(temporary, frames)
        for name, table in tables.items():
            write_table(temporary / name, hold_last(table) if name == ACTIONS_FILE else table)


def write_frames(folder: Path, frames: np.ndarray) -> None:
    """Write uint8 frames [T,H,W,C] as ``0.png, 1.png, ...`` into an existing folder."""
    for number, image in enumerate(png.encode_frames(frames)):
        with open(f"{folder}/{number}.png", "wb") as file:
            file.write(image)


def write_table(path: Path, table: np.ndarray) -> None:
    """Write numbers [T,columns] as a CSV with 9 significant digits, which give back every float32 exactly."""
    lines = (",".join(f"{value:.9g}" for value in row) for row in table.tolist())
    path.write_text("".join(f"{line}\n" for line in lines))


def _check_arrays(folder: Path, frames: np.ndarray, tables: dict[str, np.ndarray]) -> None:
    """Raise `InputError` for arrays that are not as `write_sequence` wants them."""
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] not in (1, 3) or 0 in frames.shape:
        found = f"{frames.dtype} {list(frames.shape)}"
        raise InputError(f"{folder}: found frames {found}, expected uint8 [T,H,W,3] or [T,H,W,1], 0 to 255")
    for name, table in tables.items():
        is_table = table.dtype.kind in "fiub" and table.ndim == 2 and table.shape[1] > 0
        if not is_table or len(table) != len(frames):
            found = f"found {table.dtype} {list(table.shape)}, expected numbers [{len(frames)},columns]"
            advice = "a row for each frame (nothing follows the last frame: repeat the last action)"
            raise InputError(f"{folder / name}: {found}, {advice}")
        if not finite_float32(hold_last(table) if name == ACTIONS_FILE else table).all():
            raise InputError(f"{folder / name}: found numbers that are no finite float32; fix them")
