"""The layout of a data set on disk: file names, columns of the index, order in time.

A **sequence** is a folder of ``0.png, 1.png, ...`` (or from ``1.png``) with, optionally, ``actions.csv`` (T
rows x A) and ``endeffector_positions.csv`` (T rows x P), comma-separated, without a header.

**Time**: ``frames[t]`` and ``positions[t]`` are at time t; ``actions[t]`` is carried out between t and t+1.
The condition for predicting frame t+1 is therefore ``conditions[t] = [actions[t], positions[t]]``.

Instead of tables a sequence may have a skeleton image for each frame, in a layout of its own (see `poses`).
``poses[t]`` is the posture in ``frames[t]``, and the condition for predicting frame t+1 is
``conditions[t] = poses[t+1]``.

A **data set** is a root folder with ``index.csv`` (one row for each sequence) and ``dataset.json`` beside it.
Its sequences are folders (see `folders`), packed into two files for each split (see `store`) or packed into
chunks for object storage (see `chunks`); the columns of the index are the same.
"""

import io
import json
import posixpath
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .files import read_bytes, write_texts
from .json_files import read_dataclass, read_json

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
SPLITS = ("train", "validate", "test")
STORES = ("folders", "poses", "packed", "litdata")
ACTIONS_FILE = "actions.csv"
POSITIONS_FILE = "endeffector_positions.csv"
INDEX_FILE = "index.csv"
INFO_FILE = "dataset.json"
SIMULATED_PUSHING = "simulated robot pushing"
"""The source in ``dataset.json`` of data from `svg-data simulate`."""
INDEX_TYPES = {
    "split": "category", "sequence": str, "path": str, "frames": "int32", "height": "int32", "width": "int32",
    "channels": "int32", "action_dim": "int32", "position_dim": "int32",
}  # fmt: skip
POSES_COLUMN = "poses"
"""Column of the index of data with poses: number of frames after the first one that have a pose."""
MODEL_WIDTHS = (64, 128)  # of square frames that the predictors take
MAX_FRAMES = 10_000_000  # of a sequence
MAX_WIDTH = 16_384  # of a frame, and its height
MAX_PIXELS = 2**24  # of a frame
MAX_COLUMNS = 4_096  # of a table
MAX_INDEX = 2**28  # bytes
MAX_TABLE_COLUMNS = 64  # of an index or a table of scores
INDEX_RANGES = {  # least and largest value of each column of an index
    "frames": (1, MAX_FRAMES), "height": (1, MAX_WIDTH), "width": (1, MAX_WIDTH), "channels": (1, 3),
    "action_dim": (0, MAX_COLUMNS), "position_dim": (0, MAX_COLUMNS), POSES_COLUMN: (1, MAX_FRAMES),
}  # fmt: skip


REINDEX_HINT = "write it again with `svg-data index` (or, if it is packed, `svg-data pack`)"


@dataclass(frozen=True)
class DatasetInfo:
    """The contents of ``dataset.json``.

    Args:
        name, source: for people.
        action_dim, position_dim: number of columns of actions and positions.
        mean, std: of each column of ``[actions, positions]`` over the training split.
        store: the form of the sequences on disk, one of `STORES`.
        pose_channels: channels of the skeleton images that replace actions and positions; 0 if there are
            none.
        digest: of the index and of all chunks, if the sequences are packed into chunks; otherwise "".
    """

    name: str
    source: str
    action_dim: int = field(metadata={"least": 0, "most": MAX_COLUMNS})
    position_dim: int = field(metadata={"least": 0, "most": MAX_COLUMNS})
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    store: str = field(default="folders", metadata={"choices": STORES})
    pose_channels: int = field(default=0, metadata={"least": 0, "most": 3})
    digest: str = ""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == self.condition_dim:
            found = f"{len(self.mean)} means and {len(self.std)} standard deviations"
            raise ValueError(f"found {found}, expected {self.condition_dim} of each, one for each column")
        if self.pose_channels and self.condition_dim:
            raise ValueError(f"found both poses and {self.condition_dim} columns, expected one of them")
        if self.in_folders and (self.store == "poses") != bool(self.pose_channels):
            raise ValueError(f"found {self.pose_channels} pose_channels in the store {self.store!r}")

    @property
    def in_folders(self) -> bool:
        """Return whether each sequence is a folder of files; otherwise they are packed."""
        return self.store in ("folders", "poses")

    @property
    def condition_dim(self) -> int:
        """Return the number of columns of ``[actions, positions]``."""
        return self.action_dim + self.position_dim


# ---------------------------------------------------------------------------------------------------- reading


def read_index(root: Path, split: str | None = None) -> "pd.DataFrame":
    """Return the rows of ``index.csv``, all or those of one split. No image is opened.

    Raises `InputError` if there are none or the file is damaged.
    """
    path = Path(root) / INDEX_FILE
    if not path.exists():
        raise _no_data_set(Path(root), path)
    try:
        index = parse_csv(read_bytes(path, MAX_INDEX, root), INDEX_TYPES | {POSES_COLUMN: "int32"})
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {REINDEX_HINT}") from None
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: damaged ({error}); {REINDEX_HINT}") from None
    missing = [name for name in INDEX_TYPES if name not in index.columns]
    if missing:
        raise InputError(f"{path}: found no column {', '.join(missing)}; {REINDEX_HINT}")
    _check_index(path, index)
    if split is None:
        return index
    rows = index[index["split"] == split].reset_index(drop=True)
    if rows.empty:
        found = ", ".join(str(name) for name in index["split"].unique()) or "none"
        raise InputError(f"{path}: found no sequence of split {split!r}; splits here: {found}")
    return rows


def parse_csv(data: bytes, types: dict[str, Any]) -> "pd.DataFrame":
    """Return a table with a header. Its columns have the given types; texts are kept as they are.

    Raises `ValueError` if it is damaged.
    """
    import pandas as pd

    columns = data[: data.find(b"\n") + 1 or None].count(b",") + 1
    if columns > MAX_TABLE_COLUMNS:  # pandas would work for minutes on them
        raise ValueError(f"{columns} columns, expected at most {MAX_TABLE_COLUMNS}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # raised for numbers that are no integers
        try:
            return pd.read_csv(io.BytesIO(data), dtype=types, keep_default_na=False)
        except RuntimeWarning as warning:
            raise ValueError(str(warning)) from None


def _check_index(path: Path, index: "pd.DataFrame") -> None:
    """Reject unknown splits, impossible sizes and paths outside the root, before anything is opened."""
    unknown = _rows(~index["split"].isin(SPLITS))
    if len(unknown):
        found = f"found split {index['split'].iloc[unknown[0]]!r}, expected {', '.join(SPLITS)}"
        raise _fault(path, unknown[0], found)
    for column, (least, most) in INDEX_RANGES.items():
        if column not in index.columns:  # data without poses lack that column
            continue
        wrong = _rows((index[column] < least) | (index[column] > most))
        if len(wrong):
            found = f"found {column} {index[column].iloc[wrong[0]]}, expected {least} to {most}"
            raise _fault(path, wrong[0], found)
    large = _rows(index["height"].astype("int64") * index["width"] > MAX_PIXELS)
    if len(large):
        size = "x".join(str(index[name].iloc[large[0]]) for name in ("height", "width"))
        raise _fault(path, large[0], f"found frames of {size}, expected at most {MAX_PIXELS} pixels")
    _check_paths(path, index)
    _check_twins(path, index)


def _rows(selected: "pd.Series") -> list[int]:
    """Return the numbers of the rows that are selected, counted from 0."""
    return selected.to_numpy().nonzero()[0].tolist()


def _fault(path: Path, row: int, fault: str) -> InputError:
    """Return the error for a row of the index, counted from 0; in the file the header comes before."""
    return InputError(f"{path} row {row + 2}: {fault}; {REINDEX_HINT}")


def _check_paths(path: Path, index: "pd.DataFrame") -> None:
    """Raise `InputError` for a path that does not lie within the data root on every system."""
    names = index["path"].str
    suspects = names.startswith("/") | (index["path"] == "")
    for part in ("..", "\\", ":", "\0"):
        suspects |= names.contains(part, regex=False)
    for row in _rows(suspects):
        name = index["path"].iloc[row]
        windows_path = PureWindowsPath(name)  # knows both separators and drive letters
        if not name or "\0" in name or windows_path.anchor or ".." in windows_path.parts:
            raise _fault(path, row, f"found path {name!r}, expected one inside {path.parent}")


def _check_twins(path: Path, index: "pd.DataFrame") -> None:
    """Raise `InputError` if two rows have the same path, in any spelling, or in one split the same name."""
    paths, splits = index["path"], index["split"]
    joined = "\n".join(["", *paths.tolist(), ""])
    if any(part in joined for part in ("//", "/./", "\n./", "/\n")):  # parts that say nothing
        paths = paths.map(posixpath.normpath)
    for column, keys in (
        ("path", [paths]),
        ("sequence", [index["sequence"][splits == split] for split in SPLITS]),
    ):
        for key in keys:
            if len(set(key.tolist())) == len(key):
                continue
            last = key.index[key.duplicated()][0]
            first = key.index[key == key[last]][0]
            name = repr(index[column][last]) + (f" of {splits[last]}" if column == "sequence" else "")
            rows = f"rows {first + 2} and {last + 2}"
            raise InputError(f"{path} {rows}: found the {column} {name} twice; remove one, or {REINDEX_HINT}")


def read_info(root: Path) -> DatasetInfo:
    """Return ``dataset.json`` of a data root. Raises `InputError` if it is missing or damaged."""
    path = Path(root) / INFO_FILE
    if not path.exists():
        raise _no_data_set(Path(root), path)
    values = read_json(path, REINDEX_HINT, root)
    version = values.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path}: found schema version {version!r}, expected {SCHEMA_VERSION}; {REINDEX_HINT}"
        )
    return read_dataclass(DatasetInfo, values, path, REINDEX_HINT)


def _no_data_set(root: Path, path: Path) -> InputError:
    """Return the error for a data root without this file, with the likely reason."""
    if not root.is_dir():
        return InputError(f"{root}: no such folder, expected the root of a data set")
    if root.name in SPLITS and (root.parent / INDEX_FILE).exists():
        return InputError(f"{path}: not found; name the data root, {root.parent}")
    below = sorted(folder.parent for folder in root.glob(f"*/{INFO_FILE}"))
    if below:
        return InputError(f"{path}: not found; name one of the data roots {', '.join(map(str, below[:5]))}")
    return InputError(f"{path}: not found; run `svg-data index {root}` to write it")


# ---------------------------------------------------------------------------------------------------- writing


def write_index(root: Path, index: "pd.DataFrame", info: DatasetInfo) -> None:
    """Write ``index.csv`` and ``dataset.json``, both completely or not at all."""
    values = asdict(info)
    for name in ("pose_channels", "digest"):
        if not values[name]:
            del values[name]
    table = index_text(index, info)
    write_texts({root / INDEX_FILE: table, root / INFO_FILE: json.dumps(values, indent=2) + "\n"})


def index_text(index: "pd.DataFrame", info: DatasetInfo) -> str:
    """Return the contents of ``index.csv``."""
    return index[index_columns(info)].to_csv(index=False)


def index_columns(info: DatasetInfo) -> list[str]:
    """Return the columns of the index of a data set."""
    return [*INDEX_TYPES, *([POSES_COLUMN] if info.pose_channels else [])]
