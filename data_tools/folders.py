"""A sequence as a folder of PNG frames and CSV tables: read and written."""

import os
from pathlib import Path

import numpy as np

from . import png
from .errors import InputError
from .files import natural_key, open_regular, walk, whole_folder
from .layout import ACTIONS_FILE, POSITIONS_FILE


def png_folders(base: Path, root: Path) -> list[Path]:
    """Return the folders with PNG files at or below `base`, of the data root `root`, in natural order (2 before 10).

    Hidden folders are left out. Raises `InputError` as `walk` does.
    """
    found = [Path(folder) for folder, files in walk(base, root) if any(name.lower().endswith(".png") for name in files)]
    return sorted(found, key=lambda folder: natural_key(folder.relative_to(base).as_posix()))


def frame_paths(folder: Path) -> list[Path]:
    """The frames of a sequence folder in numeric order (0, 1, 2, ..., 10), numbered without a gap from 0 or from 1."""
    numbers = []
    for name in os.listdir(folder):
        stem, extension = os.path.splitext(name)
        if extension.lower() != ".png" or name.startswith("."):
            continue
        if not (extension == ".png" and stem.isascii() and stem.isdigit() and stem == str(int(stem))):
            raise InputError(
                f"{folder / name}: frames are named 0.png, 1.png, ...; rename or move this file (`svg-data frames` takes any names)"
            )
        numbers.append(int(stem))
    numbers.sort()
    if not numbers:
        raise InputError(f"{folder}: found no frames, expected 0.png, 1.png, ...")
    first = numbers[0]
    if first not in (0, 1):
        raise InputError(f"{folder / '0.png'}: missing frame; the first one found is {first}.png, expected 0.png or 1.png")
    for expected, number in enumerate(numbers, start=first):
        if number != expected:
            raise InputError(
                f"{folder / f'{expected}.png'}: missing frame; found {len(numbers)} frames up to {numbers[-1]}.png; "
                "restore it or move the sequence out of the data root"
            )
    return [folder / f"{number}.png" for number in numbers]


def read_table(path: Path, rows: int, exact: bool = False, root: Path | None = None) -> np.ndarray:
    """The first `rows` rows of a CSV of numbers without header, float32 [rows, columns]; rows are numbered from 1 in errors.

    If `exact`, more of them are an error, too, and so is a link out of the data root `root`.
    """
    try:
        with open_regular(path, root) as file:
            text = file.read().decode("utf-8-sig")  # a spreadsheet's mark at the beginning is no content
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore this file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file, expected comma-separated numbers; restore this file") from None
    cells = [line.split(",") for line in text.splitlines() if line.strip()]
    try:
        if not text.isascii() or "_" in text:  # float() takes 1_000 and digits of other scripts for numbers
            raise ValueError
        with np.errstate(over="ignore"):  # becomes infinite, which is refused below
            table = np.array([list(map(float, row)) for row in cells], np.float64)[:rows].astype(np.float32)
    except ValueError:
        raise _bad_cell(path, cells) from None
    if not np.isfinite(table).all():
        raise _bad_cell(path, cells)
    if len(table) < rows:
        advice = "repeat the last row: nothing follows the last frame" if len(table) == rows - 1 else "complete this file"
        raise InputError(f"{path}: found {len(table)} rows, expected {rows}, one for each frame; {advice}")
    if exact and len(cells) > rows:
        raise InputError(f"{path}: found {len(cells)} rows, expected {rows}, one for each frame; is one of the frames lost?")
    return table


def _bad_cell(path: Path, rows: list[list[str]]) -> InputError:
    """Names the first row of another width or with a cell that is no finite number."""
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            return InputError(f"{path} row {number}: found {len(row)} columns, expected {len(rows[0])} as in row 1; mend this row")
        for column, cell in enumerate(row, start=1):
            advice = "mend this cell"
            try:
                finite = cell.isascii() and "_" not in cell and abs(float(cell)) <= float(np.finfo(np.float32).max)
            except ValueError:
                finite = False
                if number == 1 and any(character.isalpha() for character in cell):
                    advice = "remove the header"
            if not finite:
                found = cell.strip()[:40]
                return InputError(f"{path} row {number} column {column}: found {found!r}, expected a finite number; {advice}")
    return InputError(f"{path}: not comma-separated numbers; restore this file")


def condition_files(folder: Path) -> dict[str, Path]:
    """Those of ``actions`` and ``positions`` that the sequence has."""
    files = {"actions": folder / ACTIONS_FILE, "positions": folder / POSITIONS_FILE}
    return {name: path for name, path in files.items() if path.exists()}


def read_conditions(folder: Path, rows: int, exact: bool = False, root: Path | None = None) -> dict[str, np.ndarray]:
    """``{"actions": float32 [T,A], "positions": float32 [T,P]}``, as far as the sequence has them."""
    return {name: read_table(path, rows, exact, root) for name, path in condition_files(folder).items()}


def write_sequence(folder: Path, frames: np.ndarray, actions: np.ndarray | None, positions: np.ndarray | None) -> None:
    """Writes frames and tables as a sequence folder that is not there yet.

    All of it is written to a temporary folder beside `folder`, which is renamed at the end: a folder under its final name
    is complete. Numbers are written with 9 significant digits, which give back every float32 exactly.

    Args:
        folder: such as ``ROOT/train/0``.
        frames: uint8 [T,H,W,C], C = 3 (RGB) or 1 (grey).
        actions, positions: finite numbers [T,A] and [T,P], or None.

    Raises `InputError` for anything else or if the folder is there, and `OSError` naming the folder if it cannot be written;
    nothing is left then.
    """
    folder = Path(folder)
    tables = {ACTIONS_FILE: actions, POSITIONS_FILE: positions}
    _check_arrays(folder, frames, tables)
    if folder.exists():
        raise InputError(f"{folder}: is there already; remove it or take another number")
    with whole_folder(folder) as temporary:
        for number, image in enumerate(png.encode_frames(frames)):
            with open(f"{temporary}/{number}.png", "wb") as file:
                file.write(image)
        for name, table in tables.items():
            if table is not None:
                lines = (",".join(f"{value:.9g}" for value in row) for row in np.asarray(table).tolist())
                (temporary / name).write_text("".join(f"{line}\n" for line in lines))


def _check_arrays(folder: Path, frames: np.ndarray, tables: dict[str, np.ndarray | None]) -> None:
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] not in (1, 3) or 0 in frames.shape:
        found = f"{frames.dtype} {list(frames.shape)}"
        raise InputError(f"{folder}: found frames {found}, expected uint8 [T,H,W,3] or [T,H,W,1], 0 to 255")
    for name, table in tables.items():
        if table is None:
            continue
        table = np.asarray(table)
        if table.dtype.kind not in "fiub" or table.ndim != 2 or len(table) != len(frames) or not table.shape[1]:
            raise InputError(
                f"{folder / name}: found {table.dtype} {list(table.shape)}, expected numbers [{len(frames)},columns], a row for "
                "each frame (nothing follows the last frame: repeat the last action)"
            )
        with np.errstate(over="ignore"):
            finite = np.isfinite(table.astype(np.float32)).all()
        if not finite:
            raise InputError(f"{folder / name}: found numbers that are no finite float32; mend them")
