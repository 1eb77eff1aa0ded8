"""Walk a data root, check every sequence and write the index: ``index.csv`` and ``dataset.json``."""

import argparse
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from . import layout, poses
from .command import tell
from .errors import InputError
from .files import check_writable
from .folders import frame_paths, png_folders
from .layout import SPLITS
from .png import read_image_size
from .remote import is_remote
from .splits import split_folder, split_of
from .tables import TABLES, read_conditions, row_numbers
from .unread import list_unread

OWN_FILES = (
    layout.INDEX_FILE, layout.INFO_FILE, "conversion.json", "simulation.json", "left_out.txt", "overview.png",
    "overview.txt",
)  # fmt: skip
"""Files that commands leave in a data root beside its sequences."""


@dataclass(frozen=True)
class Kind:
    """A layout of sequences in folders.

    Args:
        store: its name in ``dataset.json``.
        find: (data root, split) -> the folders of the sequences.
        name: (data root, split, folder) -> the name of a sequence.
        check: (data root, path) -> the columns of a sequence in the index, and its tables float32 [T,A+P].
        files_read: (data root, folder below it, names of its files) -> the names of the files that are read.
    """

    store: str
    find: Callable[[Path, str], list[Path]]
    name: Callable[[Path, str, Path], str]
    check: Callable[[Path, str], tuple[dict, np.ndarray]]
    files_read: Callable[[Path, str, list[str]], Collection[str]]


def kind_of(root: Path) -> Kind:
    """Return the layout of the sequences below a data root."""
    return WITH_POSES if poses.has_poses(root) else WITH_TABLES


def find_sequences(root: Path, split: str) -> list[Path]:
    """Return the folders with PNG frames at any depth below that of the split, in natural order.

    Hidden folders are left out. Raises `InputError` if there are two folders of the split.
    """
    folder = split_folder(root, split)
    return [] if folder is None else png_folders(folder, root)


def overlooked(root: Path) -> tuple[list[str], list[str]]:
    """Return a line for each file or folder whose name looks like a slip, and a line that counts the others.

    Files that are read are in neither.
    """
    kind = kind_of(root)
    folders = [entry for entry in sorted(root.iterdir()) if split_of(entry.name) and entry.is_dir()]
    slips = list(_slips_of_poses(root, folders) if kind is WITH_POSES else _slips_of_tables(root))
    tables, others = list_unread(root, partial(kind.files_read, root), folders)
    return slips + tables, others


def _slips_of_poses(root: Path, folders: list[Path]) -> Iterator[str]:
    names = poses.SPLIT_FOLDERS.values()
    for folder in folders:
        if folder.name not in names:
            expected = f"the splits of data with poses are called {', '.join(names)}"
            yield f"{folder}: not read; {expected}: rename it"
    for split, name in poses.SPLIT_FOLDERS.items():
        if (root / name).is_dir() and not poses.frames_root(root, split).is_dir():
            expected = f"expected {name}{poses.FRAMES} and {name}{poses.POSES} in it as in other splits"
            yield f"{root / name}: not read; {expected}"


def _slips_of_tables(root: Path) -> Iterator[str]:
    for entry in sorted(root.iterdir()):
        if split_of(entry.name) and not entry.is_dir():
            yield f"{entry}: is a file, expected a folder of sequences; remove it"


def _files_with_tables(root: Path, folder: str, files: list[str]) -> Collection[str]:
    if folder == str(root):
        return {*OWN_FILES, *filter(split_of, files)}  # a file in the place of a split has its own line
    frames = {name for name in files if name.lower().endswith(".png")}
    return frames.union(TABLES.values()) if frames else frames


def _files_with_poses(root: Path, folder: str, files: list[str]) -> Collection[str]:
    """Return the pictures among the files; none of poses that belong to no folder of frames."""
    if folder == str(root):
        return OWN_FILES
    path = Path(folder).relative_to(root).as_posix()
    pictures = {name for name in files if name.lower().endswith(".png")}
    for split in poses.SPLIT_FOLDERS:
        base = poses.frames_root(root, split).relative_to(root).as_posix()
        pose_base = poses.poses_path(base)
        if f"{path}/".startswith(f"{base}/"):
            return pictures
        if (
            f"{path}/".startswith(f"{pose_base}/")
            and (root / f"{base}{path.removeprefix(pose_base)}").is_dir()
        ):
            return pictures
    return ()


def check_sequence(folder: Path) -> tuple[dict, np.ndarray]:
    """Return the columns of one sequence in the index, and its conditions, float32 [T,A+P].

    The header of every image and every table are read; pixels are not decoded. Raises `InputError` for a
    missing or foreign frame, frames of unequal size and a CSV that is short, ragged, not numeric or not
    finite.
    """
    paths = frame_paths(folder)
    size = read_image_size(paths[0])
    for path in paths[1:]:
        other = read_image_size(path)
        if other != size:
            found = f"found {other[0]}x{other[1]} with {other[2]} channels"
            expected = f"expected {size[0]}x{size[1]} with {size[2]} as in {paths[0].name}"
            raise InputError(f"{path}: {found}, {expected}; convert this frame")
    tables = read_conditions(folder, len(paths))
    row = dict(zip(("height", "width", "channels"), size, strict=True))
    row["frames"] = len(paths)
    row["action_dim"] = tables["actions"].shape[1] if "actions" in tables else 0
    row["position_dim"] = tables["positions"].shape[1] if "positions" in tables else 0
    for column, (_, most) in layout.INDEX_RANGES.items():
        if row.get(column, 0) > most:
            found = f"found {column} {row[column]}, expected at most {most}"
            raise InputError(f"{folder}: {found}; divide or convert this sequence")
    conditions = np.concatenate([np.empty((len(paths), 0), np.float32), *tables.values()], axis=1)
    return row, conditions


def _check_sequence_with_poses(root: Path, path: str) -> tuple[dict, np.ndarray]:
    row = poses.check_sequence(root, path)
    return row, np.empty((row["frames"], 0), np.float32)


WITH_TABLES = Kind(
    "folders",
    find_sequences,
    lambda root, split, folder: Path(*folder.relative_to(root).parts[1:]).as_posix(),
    lambda root, path: check_sequence(root / path),
    _files_with_tables,
)
WITH_POSES = Kind(
    "poses", poses.find_sequences, poses.sequence_name, _check_sequence_with_poses, _files_with_poses
)


def build_index(root: Path, name: str | None = None, source: str | None = None) -> pd.DataFrame:
    """Check all sequences of a data root, write the index and return it.

    They lie under ``root/{train,validate,test}`` or in the layout of `poses`. Mean and standard deviation of
    the conditions are taken over all rows of the training split.

    Args:
        root: the data root.
        name: of the data set; if None that of an earlier index, or else the name of the folder.
        source: of the data; if None that of an earlier index, or else none.

    Raises `InputError`, having written nothing, if there are no sequences, one is faulty, or they do not
    agree in size or in the widths of their tables.
    """
    root = Path(root)
    kind = kind_of(root)
    sequences = [(split, folder) for split in SPLITS for folder in kind.find(root, split)]
    if not sequences:
        raise no_sequences(root)
    check_writable(root, "make it writable")
    rows: list[dict[str, Any]] = []
    folders: dict[tuple[str, str], Path] = {}
    moments = None
    for split, folder in tqdm(sequences, desc="index", unit="sequence", disable=None):
        path = folder.relative_to(root).as_posix()
        if not path.isprintable():
            raise InputError(f"{str(folder)!r}: a name with characters that cannot be written; rename it")
        row, conditions = kind.check(root, path)
        row |= {"split": split, "sequence": kind.name(root, split, folder), "path": path}
        other = folders.setdefault((split, row["sequence"]), folder)
        if other is not folder:
            same = f"is called {row['sequence']} in the split {split}, as is {other}"
            raise InputError(f"{folder}: {same}; rename one of them")
        if rows:
            _check_agreement(folder, row, root / rows[0]["path"], rows[0])
        rows.append(row)
        if moments is None:
            moments = Moments(conditions.shape[1])
        if split == "train":
            moments.add(conditions)
    assert moments is not None  # there is a sequence
    mean, std = moments.result()
    old_name, old_source = _earlier_name_and_source(root)
    info = layout.DatasetInfo(
        name=name or old_name,
        source=old_source if source is None else source,
        action_dim=rows[0]["action_dim"],
        position_dim=rows[0]["position_dim"],
        mean=mean,
        std=std,
        store=kind.store,
        pose_channels=rows[0].get("pose_channels", 0),
    )
    index = pd.DataFrame(rows).drop(columns="pose_channels", errors="ignore")
    layout.write_index(root, index, info)
    return index


def _earlier_name_and_source(root: Path) -> tuple[str, str]:
    """Return name and source of an earlier index; by default the name of the folder and ""."""
    try:
        before = layout.read_info(root)
    except InputError:
        return root.resolve().name, ""
    return before.name, before.source


def no_sequences(root: Path) -> InputError:
    """Return the error for a data root without sequences, with the likely reason."""
    if not root.is_dir():
        return InputError(f"{root}: no such folder, expected the root of a data set")
    if split_of(root.name):
        return InputError(f"{root}: is a split itself; name the folder above, {root.parent}")
    below = next(
        (entry.parent for entry in sorted(root.glob("*/*")) if split_of(entry.name) and entry.is_dir()), None
    )
    if below:
        missing = f"found no sequences in {', '.join(SPLITS)}"
        return InputError(f"{root}: {missing}; name the folder with the splits, {below}")
    advice = "`svg-data frames` takes videos and pictures of other names and kinds"
    expected = f"expected e.g. {root / 'train' / '0' / '0.png'}"
    return InputError(f"{root}: found no sequences in {', '.join(SPLITS)}; {expected}; {advice}")


def describe_index(root: Path, index: pd.DataFrame) -> str:
    """Return a line about the contents: sequences of each split, size of frames, form of conditions."""
    counts = {split: int((index["split"] == split).sum()) for split in SPLITS}
    first = index.iloc[0]
    present = ", ".join(f"{count} {split}" for split, count in counts.items() if count)
    absent = ", ".join(f"no {split}" for split, count in counts.items() if not count)
    splits = f"{present}; {absent}" if absent else present
    size = f"{first.height}x{first.width}x{first.channels}"
    conditions = f"{first.action_dim} action and {first.position_dim} position columns"
    if first.get(layout.POSES_COLUMN, 0):
        conditions = "with poses"
    return f"{root / layout.INDEX_FILE}: {len(index)} sequences ({splits}), frames {size}, {conditions}"


def _check_agreement(folder: Path, row: dict, first_folder: Path, first: dict) -> None:
    """Raise `InputError` for a sequence of another size or with other columns than the first one."""
    for column in ("height", "width", "channels", "action_dim", "position_dim", "pose_channels"):
        if row.get(column) != first.get(column):
            found = f"found {column} {row[column]}, expected {first[column]} as in {first_folder}"
            advice = "sequences of one data set agree: convert this one or move it out of the data root"
            raise InputError(f"{folder}: {found}; {advice}")


class Moments:
    """Running mean and standard deviation of each of `width` columns; 0 and 1 before there are any rows."""

    def __init__(self, width: int):
        self._sum = np.zeros(width)
        self._squares = np.zeros(width)
        self._count = 0

    def add(self, table: np.ndarray) -> None:
        """Add the rows of a table [T,width]."""
        values = table.astype(np.float64)
        self._sum = self._sum + values.sum(0)
        self._squares = self._squares + (values**2).sum(0)
        self._count += len(values)

    def result(self) -> tuple[list[float], list[float]]:
        """Return the mean and the standard deviation of each column."""
        if not self._count:
            return self._sum.tolist(), np.ones_like(self._sum).tolist()
        mean = self._sum / self._count
        variance = np.maximum(self._squares / self._count - mean**2, 0)
        return mean.tolist(), np.sqrt(variance).tolist()


def index_if_new(root: Path) -> None:
    """Index a local data root that has no index yet, if it holds sequences as ``svg-data index`` takes them.

    Raises `InputError` for faulty sequences and if no index can be written.
    """
    if is_remote(root) or any((root / name).exists() for name in (layout.INDEX_FILE, layout.INFO_FILE)):
        return
    if not any(kind_of(root).find(root, split) for split in SPLITS):
        return
    if not os.access(root, os.W_OK):
        advice = "change its rights or index a copy of it"
        raise InputError(f"{root}: has no index, and none can be written there; {advice}")
    tell(f"{root}: has no index yet; `svg-data index {root}` does it now, once")
    run(argparse.Namespace(root=root, name=None, source=None))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("root", type=Path, help="data root with train/, validate/ and test/")
    parser.add_argument("--name", help="name of the data set (default: as before, or the folder's)")
    parser.add_argument(
        "--source", help="where the data come from, kept in dataset.json (default: as before)"
    )


def run(args: argparse.Namespace) -> None:
    """Index a data set and print notes and what it holds."""
    index = build_index(args.root, args.name, args.source)
    slips, others = overlooked(args.root)
    has_tables = layout.POSES_COLUMN not in index
    numbered = row_numbers(args.root / index["path"][0], index["frames"][0]) if has_tables else ()
    for line in (*slips, *others, *numbered, *size_hint(args.root, index)):
        tell(f"note: {line}")
    tell(describe_index(args.root, index))


def size_hint(root: Path, index: pd.DataFrame) -> list[str]:
    """Return a line with advice if the models do not take frames of this size; models from poses take any."""
    height, width = index[["height", "width"]].iloc[0]
    if layout.POSES_COLUMN in index or (height == width and width in layout.MODEL_WIDTHS):
        return []
    sizes = " and ".join(f"{side}x{side}" for side in layout.MODEL_WIDTHS)
    advice = f"`svg-data resize {root} OUT` makes a copy that fits"
    return [f"{root}: the frames are {height}x{width}, the models take {sizes}; {advice}"]
