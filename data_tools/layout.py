"""What a data set on disk is: file names, index columns, time order, and the errors that name what is wrong.

A **sequence** is a folder of ``0.png, 1.png, ...`` (or from ``1.png``) with, optionally, ``actions.csv`` (T rows x A) and
``endeffector_positions.csv`` (T rows x P), comma-separated, without a header.

**Time**: ``frames[t]`` and ``positions[t]`` are at time t; ``actions[t]`` is carried out between t and t+1. The condition
for predicting frame t+1 is therefore ``conditions[t] = [actions[t], positions[t]]``.

A **data set** is a root folder with ``index.csv`` (one row a sequence) and ``dataset.json`` beside it.
"""

import json
import os
import shutil
import struct
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

SCHEMA_VERSION = 1
SPLITS = ("train", "validate", "test")
ACTIONS_FILE = "actions.csv"
POSITIONS_FILE = "endeffector_positions.csv"
INDEX_FILE = "index.csv"
INFO_FILE = "dataset.json"
INDEX_TYPES = {
    "split": "category", "sequence": str, "path": str, "frames": "int32", "height": "int32", "width": "int32",
    "channels": "int32", "action_dim": "int32", "position_dim": "int32",
}  # fmt: skip

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}  # colour type -> channels after `read_frame`


class InputError(ValueError):
    """A mistake in what the user gave: one line with the file, row or flag; what was found, what was expected, what to do.

    Command-line front ends print it without a stack trace and exit with code 2.
    """


@dataclass(frozen=True)
class DatasetInfo:
    """The contents of ``dataset.json``; ``mean`` and ``std`` are those of ``[actions, positions]`` over the training split."""

    name: str
    source: str
    action_dim: int
    position_dim: int
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    @property
    def condition_dim(self) -> int:
        return self.action_dim + self.position_dim


# ---------------------------------------------------------------------------------------------------------- reading


def frame_paths(folder: Path) -> list[Path]:
    """The frames of a sequence folder in numeric order (0, 1, 2, ..., 10), numbered without a gap from 0 or from 1."""
    numbers = []
    for name in os.listdir(folder):
        stem, extension = os.path.splitext(name)
        if extension.lower() != ".png":
            continue
        if not (stem.isascii() and stem.isdigit() and stem == str(int(stem))):
            raise InputError(f"{folder / name}: frames are named 0.png, 1.png, ...; rename or move this file")
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


def read_image_size(path: Path) -> tuple[int, int, int]:
    """(height, width, channels) of a PNG from its first 26 bytes, without decoding it."""
    try:
        with open(path, "rb") as file:
            head = file.read(26)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore this frame") from None
    if len(head) < 26 or head[:8] != _PNG_SIGNATURE or head[12:16] != b"IHDR":
        raise InputError(f"{path}: not a PNG image ({os.path.getsize(path)} bytes); convert or restore this frame")
    width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
    if depth > 8 or colour not in _PNG_CHANNELS:
        raise InputError(f"{path}: found a PNG of {depth} bits a channel, expected 8-bit grey or RGB; convert this frame")
    return height, width, _PNG_CHANNELS[colour]


def read_frame(path: Path, size: tuple[int, int, int]) -> np.ndarray:
    """One frame, uint8 [H,W,C] with C = 1 (grey) or 3 (RGB); `size` is the (H,W,C) that the index promises."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if (image.height, image.width) != size[:2]:  # before decoding: a wrong header must not cost memory
                raise InputError(f"{path}: found {image.height}x{image.width}, expected {size[0]}x{size[1]}; index again")
            frame = np.asarray(image.convert("L" if size[2] == 1 else "RGB"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing frame, though the index lists it; restore it or run `svg-data index` again") from None
    except InputError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, zlib.error ... on damaged files
        raise InputError(f"{path}: unreadable PNG ({error}); restore this frame") from None
    return frame.reshape(size)


def read_table(path: Path, rows: int) -> np.ndarray:
    """The first `rows` rows of a CSV of numbers without header, float32 [rows, columns]; rows are numbered from 1 in errors."""
    try:
        cells = [line.split(",") for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore this file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file, expected comma-separated numbers; restore this file") from None
    try:
        with np.errstate(over="ignore"):  # becomes infinite, which is refused below
            table = np.array(cells, dtype=np.float64)[:rows].astype(np.float32)
    except ValueError:
        raise _bad_cell(path, cells) from None
    if not np.isfinite(table).all():
        raise _bad_cell(path, cells)
    if len(table) < rows:
        raise InputError(f"{path}: found {len(table)} rows, expected {rows}, one for each frame; complete this file")
    return table


def _bad_cell(path: Path, rows: list[list[str]]) -> InputError:
    """Names the first row of another width or with a cell that is no finite number."""
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            return InputError(f"{path} row {number}: found {len(row)} columns, expected {len(rows[0])} as in row 1; mend this row")
        for column, cell in enumerate(row, start=1):
            try:
                finite = abs(float(cell)) <= float(np.finfo(np.float32).max)
            except ValueError:
                finite = False
            if not finite:
                found = cell.strip()[:40]
                return InputError(f"{path} row {number} column {column}: found {found!r}, expected a finite number; mend this cell")
    return InputError(f"{path}: not comma-separated numbers; restore this file")


def condition_files(folder: Path) -> dict[str, Path]:
    """Those of ``actions`` and ``positions`` that the sequence has."""
    files = {"actions": folder / ACTIONS_FILE, "positions": folder / POSITIONS_FILE}
    return {name: path for name, path in files.items() if path.exists()}


def read_conditions(folder: Path, rows: int) -> dict[str, np.ndarray]:
    """``{"actions": float32 [T,A], "positions": float32 [T,P]}``, as far as the sequence has them."""
    return {name: read_table(path, rows) for name, path in condition_files(folder).items()}


def read_index(root: Path, split: str | None = None) -> pd.DataFrame:
    """The rows of ``index.csv`` of one split, or all; opens no image. Raises `InputError` if there is none or it is damaged."""
    path = Path(root) / INDEX_FILE
    if not path.exists():
        raise InputError(f"{path}: not found; run `svg-data index {root}` to write it")
    try:
        index = pd.read_csv(path, dtype=INDEX_TYPES, keep_default_na=False)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: damaged ({error}); run `svg-data index {root}` to write it again") from None
    missing = [name for name in INDEX_TYPES if name not in index.columns]
    if missing:
        raise InputError(f"{path}: found no column {', '.join(missing)}; run `svg-data index {root}` to write it again")
    if split is None:
        return index
    rows = index[index["split"] == split].reset_index(drop=True)
    if rows.empty:
        found = ", ".join(str(name) for name in index["split"].unique()) or "none"
        raise InputError(f"{path}: found no sequence of split {split!r}; splits here: {found}")
    return rows


def read_info(root: Path) -> DatasetInfo:
    """``dataset.json`` of a data root."""
    path = Path(root) / INFO_FILE
    try:
        values = json.loads(path.read_text())
        version = values.get("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError(f"{path}: found schema version {version}, expected {SCHEMA_VERSION}; run `svg-data index {root}`")
        info = DatasetInfo(**values)
        if not len(info.mean) == len(info.std) == info.condition_dim:
            raise TypeError(f"{len(info.mean)} means and {len(info.std)} deviations for {info.condition_dim} columns")
        return info
    except FileNotFoundError:
        if not Path(root).is_dir():
            raise InputError(f"{root}: no such folder; --data_root expects the root of a data set") from None
        raise InputError(f"{path}: not found; run `svg-data index {root}` to write it") from None
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({error}); run `svg-data index {root}` to write it again") from None


# ---------------------------------------------------------------------------------------------------------- writing


def write_sequence(folder: Path, frames: np.ndarray, actions: np.ndarray | None, positions: np.ndarray | None) -> None:
    """Writes uint8 frames [T,H,W,C] and float tables [T,A], [T,P] as a sequence folder.

    All of it is written to a temporary folder beside `folder`, which is renamed at the end: a folder under its final name
    is complete. Numbers are written with 9 significant digits, which give back every float32 exactly.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).save(temporary / f"{number}.png", compress_level=2)
    for name, table in ((ACTIONS_FILE, actions), (POSITIONS_FILE, positions)):
        if table is not None:
            np.savetxt(temporary / name, table, fmt="%.9g", delimiter=",")
    os.rename(temporary, folder)


def write_text(path: Path, text: str) -> None:
    """Writes a small file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)


def write_index(root: Path, index: pd.DataFrame, info: DatasetInfo) -> None:
    """Writes ``index.csv`` and ``dataset.json``, each whole or not at all."""
    write_text(root / INDEX_FILE, index[list(INDEX_TYPES)].to_csv(index=False))
    write_text(root / INFO_FILE, json.dumps(asdict(info), indent=2) + "\n")
