"""What a data set on disk is: file names, index columns, time order.

A **sequence** is a folder of ``0.png, 1.png, ...`` (or from ``1.png``) with, optionally, ``actions.csv`` (T rows x A) and
``endeffector_positions.csv`` (T rows x P), comma-separated, without a header.

**Time**: ``frames[t]`` and ``positions[t]`` are at time t; ``actions[t]`` is carried out between t and t+1. The condition
for predicting frame t+1 is therefore ``conditions[t] = [actions[t], positions[t]]``.

Instead of tables a sequence may have a skeleton image for each frame, in a layout of its own (see `poses`). ``poses[t]`` is the
posture in ``frames[t]``, and the condition for predicting frame t+1 is ``conditions[t] = poses[t+1]``.

A **data set** is a root folder with ``index.csv`` (one row a sequence) and ``dataset.json`` beside it. Its sequences are folders
(see `folders`) or packed into two files a split (see `store`); the columns of the index are the same.
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
STORES = ("folders", "poses", "packed")
ACTIONS_FILE = "actions.csv"
POSITIONS_FILE = "endeffector_positions.csv"
INDEX_FILE = "index.csv"
INFO_FILE = "dataset.json"
SIMULATED_PUSHING = "simulated robot pushing"
"""The source of data that `svg-data simulate` makes."""
INDEX_TYPES = {
    "split": "category", "sequence": str, "path": str, "frames": "int32", "height": "int32", "width": "int32",
    "channels": "int32", "action_dim": "int32", "position_dim": "int32",
}  # fmt: skip
POSES_COLUMN = "poses"
"""Index column of data with poses: how many frames after the first one have one."""
MODEL_WIDTHS = (64, 128)  # of square frames that the predictors take
MAX_FRAMES, MAX_WIDTH, MAX_PIXELS, MAX_COLUMNS = 10_000_000, 16_384, 2**24, 4_096
MAX_INDEX = 2**28  # bytes
MAX_TABLE_COLUMNS = 64  # of an index or a table of scores
INDEX_RANGES = {  # what a row of an index may say
    "frames": (1, MAX_FRAMES), "height": (1, MAX_WIDTH), "width": (1, MAX_WIDTH), "channels": (1, 3),
    "action_dim": (0, MAX_COLUMNS), "position_dim": (0, MAX_COLUMNS), POSES_COLUMN: (1, MAX_FRAMES),
}  # fmt: skip


AGAIN = "write it again with `svg-data index` (or, if it is packed, `svg-data pack`)"


@dataclass(frozen=True)
class DatasetInfo:
    """The contents of ``dataset.json``.

    Args:
        name, source: for people.
        action_dim, position_dim: columns of actions and positions.
        mean, std: of each column of ``[actions, positions]`` over the training split.
        store: how the sequences lie on disk, one of `STORES`.
        pose_channels: of the skeleton images that stand for actions and positions; 0 if there are none.
    """

    name: str
    source: str
    action_dim: int = field(metadata={"least": 0, "most": MAX_COLUMNS})
    position_dim: int = field(metadata={"least": 0, "most": MAX_COLUMNS})
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    store: str = field(default="folders", metadata={"choices": STORES})
    pose_channels: int = field(default=0, metadata={"least": 0, "most": 3})
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == self.condition_dim:
            found = f"{len(self.mean)} means and {len(self.std)} standard deviations"
            raise ValueError(f"found {found}, expected {self.condition_dim} of each, one for each column")
        if self.pose_channels and self.condition_dim:
            raise ValueError(f"found both poses and {self.condition_dim} columns, expected one of them")
        if self.store != "packed" and (self.store == "poses") != bool(self.pose_channels):
            raise ValueError(f"found {self.pose_channels} pose_channels in the store {self.store!r}")

    @property
    def condition_dim(self) -> int:
        return self.action_dim + self.position_dim


# ---------------------------------------------------------------------------------------------------------- reading


def read_index(root: Path, split: str | None = None) -> "pd.DataFrame":
    """The rows of ``index.csv`` of one split, or all; opens no image. Raises `InputError` if there is none or it is damaged."""
    path = Path(root) / INDEX_FILE
    if not path.exists():
        raise _no_data_set(Path(root), path)
    try:
        index = parse_csv(read_bytes(path, MAX_INDEX, root), INDEX_TYPES | {POSES_COLUMN: "int32"})
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {AGAIN}") from None
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: damaged ({error}); {AGAIN}") from None
    missing = [name for name in INDEX_TYPES if name not in index.columns]
    if missing:
        raise InputError(f"{path}: found no column {', '.join(missing)}; {AGAIN}")
    _check_index(path, index)
    if split is None:
        return index
    rows = index[index["split"] == split].reset_index(drop=True)
    if rows.empty:
        found = ", ".join(str(name) for name in index["split"].unique()) or "none"
        raise InputError(f"{path}: found no sequence of split {split!r}; splits here: {found}")
    return rows


def parse_csv(data: bytes, types: dict[str, Any]) -> "pd.DataFrame":
    """Return a table with a header, its columns of `types`, texts as they are. Raises `ValueError` if it is damaged."""
    import pandas as pd

    columns = data[: data.find(b"\n") + 1 or None].count(b",") + 1
    if columns > MAX_TABLE_COLUMNS:  # on which pandas works for minutes
        raise ValueError(f"{columns} columns, expected at most {MAX_TABLE_COLUMNS}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # of numbers that are no integers
        try:
            return pd.read_csv(io.BytesIO(data), dtype=types, keep_default_na=False)
        except RuntimeWarning as warning:
            raise ValueError(str(warning)) from None


def _check_index(path: Path, index: "pd.DataFrame") -> None:
    """Refuses splits and sizes that there are not and paths out of the root, before anything is opened or allocated for them."""
    unknown = index["split"][~index["split"].isin(SPLITS)]
    if len(unknown):
        row, found = unknown.index[0] + 2, unknown.iloc[0]
        raise InputError(f"{path} row {row}: found split {found!r}, expected {', '.join(SPLITS)}; {AGAIN}")
    for column, (least, most) in INDEX_RANGES.items():
        if column not in index.columns:  # poses, of data without
            continue
        wrong = index.index[(index[column] < least) | (index[column] > most)]
        if len(wrong):
            found = index[column].iloc[wrong[0]]
            raise InputError(
                f"{path} row {wrong[0] + 2}: found {column} {found}, expected {least} to {most}; {AGAIN}"
            )
    large = index.index[index["height"].astype("int64") * index["width"] > MAX_PIXELS]
    if len(large):
        row, size = large[0], "x".join(str(index[name].iloc[large[0]]) for name in ("height", "width"))
        raise InputError(
            f"{path} row {row + 2}: found frames of {size}, expected at most {MAX_PIXELS} pixels; {AGAIN}"
        )
    names = index["path"].str
    suspects = names.startswith("/") | (index["path"] == "")
    for part in ("..", "\\", ":", "\0"):
        suspects |= names.contains(part, regex=False)
    for row, found in index["path"][suspects].items():
        inside = PureWindowsPath(found)  # knows both separators and drive letters
        if not found or "\0" in found or inside.anchor or ".." in inside.parts:
            raise InputError(
                f"{path} row {row + 2}: found path {found!r}, expected one inside {path.parent}; {AGAIN}"
            )
    _check_twins(path, index)


def _check_twins(path: Path, index: "pd.DataFrame") -> None:
    """Raise `InputError` if two rows have one path, however it is written, or two of a split have one name."""
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
            found = repr(index[column][last]) + (f" of {splits[last]}" if column == "sequence" else "")
            raise InputError(
                f"{path} rows {first + 2} and {last + 2}: found the {column} {found} twice; remove one, or {AGAIN}"
            )


def read_info(root: Path) -> DatasetInfo:
    """``dataset.json`` of a data root."""
    path = Path(root) / INFO_FILE
    if not path.exists():
        raise _no_data_set(Path(root), path)
    values = read_json(path, AGAIN, root)
    version = values.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InputError(f"{path}: found schema version {version!r}, expected {SCHEMA_VERSION}; {AGAIN}")
    return read_dataclass(DatasetInfo, values, path, AGAIN)


def _no_data_set(root: Path, path: Path) -> InputError:
    if not root.is_dir():
        return InputError(f"{root}: no such folder, expected the root of a data set")
    if root.name in SPLITS and (root.parent / INDEX_FILE).exists():
        return InputError(f"{path}: not found; name the data root, {root.parent}")
    below = sorted(folder.parent for folder in root.glob(f"*/{INFO_FILE}"))
    if below:
        return InputError(f"{path}: not found; name one of the data roots {', '.join(map(str, below[:5]))}")
    return InputError(f"{path}: not found; run `svg-data index {root}` to write it")


# ---------------------------------------------------------------------------------------------------------- writing


def write_index(root: Path, index: "pd.DataFrame", info: DatasetInfo) -> None:
    """Writes ``index.csv`` and ``dataset.json``, each whole or not at all."""
    values = asdict(info)
    if not info.pose_channels:
        del values["pose_channels"]
    table = index[index_columns(info)].to_csv(index=False)
    write_texts({root / INDEX_FILE: table, root / INFO_FILE: json.dumps(values, indent=2) + "\n"})


def index_columns(info: DatasetInfo) -> list[str]:
    """The columns of a data set's index."""
    return [*INDEX_TYPES, *([POSES_COLUMN] if info.pose_channels else [])]
