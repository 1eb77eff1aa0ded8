"""Tables of numbers beside the frames of a sequence: ``actions.csv`` and ``endeffector_positions.csv``.

They are read a piece at a time, into four bytes for each number. A fault is named by row and column, with its
likely cause.
"""

import codecs
import contextlib
import difflib
import itertools
import re
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .errors import InputError
from .files import open_regular
from .layout import ACTIONS_FILE, MAX_COLUMNS, POSITIONS_FILE
from .signatures import HEAD_BYTES, kind_of

TABLES = {"actions": ACTIONS_FILE, "positions": POSITIONS_FILE}
MAX_LINE = 64 * MAX_COLUMNS  # letters of a row
BLOCK = 2**16  # bytes that are read at a time
WITHOUT_INDEX = "to_csv(path, header=False, index=False)"  # the call that has pandas write such a table
LARGEST = float(np.finfo(np.float32).max)


def condition_files(folder: Path) -> dict[str, Path]:
    """Return the paths of ``actions`` and ``positions``, as far as the sequence has them."""
    files = {name: folder / file for name, file in TABLES.items()}
    return {name: path for name, path in files.items() if path.exists()}


def read_conditions(
    folder: Path, rows: int, exact: bool = False, root: Path | None = None, beyond: bool = False
) -> dict[str, np.ndarray]:
    """Return ``{"actions": float32 [T,A], "positions": float32 [T,P]}``, as far as the sequence has them.

    The arguments are those of `read_table`; the last action is never used.
    """
    tables = {}
    for name, path in condition_files(folder).items():
        tables[name] = read_table(path, rows, exact, root, beyond, last_unused=name == "actions")
    return tables


def read_table(
    path: Path,
    rows: int,
    exact: bool = False,
    root: Path | None = None,
    beyond: bool = False,
    last_unused: bool = False,
) -> np.ndarray:
    """Return the rows of a CSV of numbers without header, float32 [rows, columns].

    Args:
        path: the file; a link out of the data root `root` is refused.
        rows: number of rows that are needed, one for each frame.
        exact: raise for more rows as well.
        beyond: return further rows as well, finite or not.
        last_unused: the last of `rows` may hold NaN or empty cells. It is then filled in as by `hold_last`,
            and nothing beyond it is returned. A last row beyond it that is not finite is left out.

    Raises `InputError` that names the first row, counted from 1, that is of another width or has a cell that
    is no finite number.
    """
    numbers = array("f")
    count = 0
    columns = 0
    for lines in _blocks(path, root):
        columns = columns or lines[0].count(",") + 1
        values = _numbers(lines, columns, last_unused)
        if values is None:
            sound = [_numbers([line], columns, last_unused) is not None for line in lines]
            first = sound.index(False)
            raise _fault(path, root, count + first + 1, lines[first], columns)
        numbers.extend(values if beyond else values[: max(0, rows - count) * columns])
        count += len(lines)
    if count < rows or (exact and count > rows):
        raise _wrong_length(path, count, rows)
    table = np.frombuffer(numbers, np.float32).reshape(-1, columns)
    if np.isfinite(table).all():
        return table
    row = int(np.argmin(np.isfinite(table).all(axis=1)))
    if row < (rows - 1 if last_unused else rows):
        lines = itertools.chain.from_iterable(_blocks(path, root))
        raise _fault(path, root, row + 1, next(itertools.islice(lines, row, None)), columns)
    if last_unused and row == rows - 1:
        return hold_last(table[:rows])
    return table[:-1] if last_unused and not np.isfinite(table[-1]).all() else table


def hold_last(actions: np.ndarray) -> np.ndarray:
    """Return actions [T,A] with the last row, if it is not finite, replaced by the row before, or by zeros.

    Nothing follows the last frame, so its action is never used, and many recorders write NaN there. All
    readers, converters and writers of sequences call this.
    """
    if len(actions) and not finite_float32(actions[-1]).all():
        actions = actions.copy()
        actions[-1] = actions[-2] if len(actions) > 1 else 0
    return actions


def finite_float32(values: np.ndarray) -> np.ndarray:
    """Return a mask of the numbers that are finite as float32."""
    with np.errstate(over="ignore"):
        return np.isfinite(values.astype(np.float32))


def row_numbers(folder: Path, rows: int) -> Iterator[str]:
    """Yield a line for each table whose first column is 0, 1, 2, ..., like an index of pandas."""
    for name, path in condition_files(folder).items():
        table = read_table(path, rows, last_unused=name == "actions")[:-1]  # the last action may be filled in
        if table.shape[1] > 1 and len(table) > 1 and np.array_equal(table[:, 0], np.arange(len(table))):
            advice = f"if that is the index of pandas, write the tables with {WITHOUT_INDEX}"
            yield f"{path}: the first column counts 0, 1, 2, ...; {advice}"


def name_hint(name: str) -> str:
    """Return advice about a CSV of another name, with the name of the table that it was probably meant as."""
    letters = {re.sub("[^a-z]", "", file.removesuffix(".csv")): file for file in TABLES.values()}
    letters["positions"] = POSITIONS_FILE
    name = re.sub("[^a-z]", "", name.lower().removesuffix(".csv"))
    near = difflib.get_close_matches(name, letters, n=1, cutoff=0.82)
    meant = f" to {letters[near[0]]}" if near else ""
    return f"the tables are called {' and '.join(TABLES.values())}: rename it{meant} or move it away"


# --------------------------------------------------------------------------------------------------- reading


def _blocks(path: Path, root: Path | None) -> Iterator[list[str]]:
    """Yield the lines of a text file that are not blank, some at a time.

    Raises `InputError` if it cannot be read, is no text or has an endless line.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()  # drops the byte order mark of spreadsheets
    count = 0
    rest = ""
    more = True
    try:
        with open_regular(path, root) as file:
            while more:
                data = file.read(BLOCK)
                more = bool(data)
                text = rest + decoder.decode(data, final=not more)
                lines = f"{text}.".splitlines()  # the dot marks a line whose end has not been read yet
                rest = lines.pop()[:-1]
                if not more:
                    lines.append(rest)
                lines = [line for line in lines if line and not line.isspace()]
                count += len(lines)
                if len(rest) > MAX_LINE:
                    raise _fault(path, root, count + 1, rest, 0)
                if lines:
                    yield lines
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore this file") from None
    except UnicodeDecodeError:
        raise _no_text(path, root) from None


def _numbers(lines: list[str], columns: int, empty_cells: bool) -> list[float] | None:
    """Return the numbers of rows, one row after the other, or None if a cell is no number.

    With `empty_cells`, empty cells are NaN.
    """
    text = ",".join(lines)
    if not text.isascii() or "_" in text:  # float() accepts 1_000 and digits of other scripts
        return None
    if columns > MAX_COLUMNS or {line.count(",") for line in lines} != {columns - 1}:
        return None
    cells = text.split(",")
    with contextlib.suppress(ValueError):
        return [*map(float, cells)]
    with contextlib.suppress(ValueError):
        return [float(cell) if cell.strip() or not empty_cells else np.nan for cell in cells]
    return None


# ---------------------------------------------------------------------------------------------------- faults


def _no_text(path: Path, root: Path | None) -> InputError:
    """Return the error for a file that is no text."""
    with open_regular(path, root) as file:
        kind = kind_of(file.read(HEAD_BYTES))
    found = f"found {kind}" if kind else "not a text file"
    return InputError(f"{path}: {found}, expected comma-separated numbers; restore it or save it as CSV")


def _wrong_length(path: Path, found: int, rows: int) -> InputError:
    """Return the error for another number of rows than of frames."""
    if found > rows:
        advice = "is one of the frames lost?"
    elif found == rows - 1:
        advice = "repeat the last row: nothing follows the last frame"
    else:
        advice = "complete this file"
    return InputError(f"{path}: found {found} rows, expected {rows}, one for each frame; {advice}")


def _fault(path: Path, root: Path | None, number: int, line: str, columns: int) -> InputError:
    """Return the error for a faulty row, with the likely cause; `columns` is the width of the rows before."""
    place = f"{path} row {number}"
    cells = line.split(",")
    if not line.strip().replace("\t", "").isprintable():
        return _no_text(path, root)
    if len(line) > MAX_LINE:
        found = f"found more than {MAX_LINE} letters, expected {MAX_COLUMNS} columns or fewer"
        return InputError(f"{place}: {found}; keep those that move the robot")
    if len(cells) > MAX_COLUMNS:
        found = f"found {len(cells)} columns, expected {MAX_COLUMNS} or fewer"
        return InputError(f"{place}: {found}; keep those that move the robot")
    if separator := _separator(line):
        advice = f"write it again with commas between numbers and points in them (pandas: {WITHOUT_INDEX})"
        return InputError(f"{place}: found {separator}, expected commas; {advice}")
    if columns and len(cells) != columns:
        found = f"found {len(cells)} columns, expected {columns} as in row 1"
        return InputError(f"{place}: {found}; fix this row")
    for column, cell in enumerate(cells, start=1):
        if not _is_number(cell):
            found = f"found {cell.strip()[:40]!r}, expected a finite number"
            return InputError(f"{place} column {column}: {found}; {_advice(cells, column, number)}")
    return InputError(f"{path}: not comma-separated numbers; restore this file")


def _separator(line: str) -> str | None:
    """Return the name of the characters that stand in the place of commas, or None."""
    for letter, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if letter in line.strip():
            return f"{name} between numbers" + (" and commas in them" if re.search(r"\d,\d", line) else "")
    blanks = re.fullmatch(r"\s*[-+.\de]+( +[-+.\de]+)+\s*", line)  # from numpy.savetxt
    return "blanks between numbers" if blanks else None


def _is_number(cell: str) -> bool:
    try:
        return cell.isascii() and "_" not in cell and abs(float(cell)) <= LARGEST
    except ValueError:
        return False


def _advice(cells: list[str], column: int, number: int) -> str:
    """Return advice about a cell that is no number."""
    cell = cells[column - 1].strip()
    first = cells[0].strip()
    others = "".join(cells[1:])
    if cell.lower() in ("true", "false"):
        return "write 1 for True and 0 for False"
    if number == 1 and (not first or first.startswith("Unnamed")) and any(map(str.isalpha, others)):
        return f"remove the header and the first column, the index that pandas wrote ({WITHOUT_INDEX})"
    if cell.startswith(("[", "(")) or cell.endswith(("]", ")")):
        return "remove the brackets"
    if cell.startswith(('"', "'")):
        return "remove the quotes, and write points for decimal commas"
    if number == 1 and not cell and column == len(cells) > 1:
        return "remove the comma at the end of each row"
    not_finite = cell.lower().lstrip("+-") in ("nan", "inf", "infinity")
    if number == 1 and any(map(str.isalpha, cell)) and not not_finite:
        return "remove the header"
    return "fix this cell"
