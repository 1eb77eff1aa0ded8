"""Walks a data root, checks every sequence and writes its index: ``index.csv`` and ``dataset.json``."""

import argparse
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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
from .splits import split_folder, split_of
from .tables import TABLES, read_conditions, row_numbers
from .unread import list_unread

OWN_FILES = (
    layout.INDEX_FILE, layout.INFO_FILE, "conversion.json", "simulation.json", "left_out.txt", "overview.png", "overview.txt",
)  # fmt: skip
"""What commands leave in a data root beside its sequences."""


@dataclass(frozen=True)
class Kind:
    """How sequences lie in folders: where those of a split are, what one is called, and what the index says of it.

    `check` takes the data root and a path and gives the index columns and the tables, float32 [T,A+P]. `files_read` takes the
    data root, a folder below it and the names of its files and gives the names of those that are read.
    """

    store: str
    find: Callable[[Path, str], list[Path]]
    name: Callable[[Path, str, Path], str]
    check: Callable[[Path, str], tuple[dict, np.ndarray]]
    files_read: Callable[[Path, str, list[str]], Collection[str]]


def kind_of(root: Path) -> Kind:
    """Return how the sequences below a data root lie."""
    return WITH_POSES if poses.has_poses(root) else WITH_TABLES


def find_sequences(root: Path, split: str) -> list[Path]:
    """Return the folders with PNG frames at any depth below the split's folder, in natural order (2 before 10).

    Hidden folders are left out. Raises `InputError` if there are two folders of the split.
    """
    folder = split_folder(root, split)
    return [] if folder is None else png_folders(folder, root)


def overlooked(root: Path) -> tuple[list[str], list[str]]:
    """Return a line for each thing that was meant to be read, by its looks, and a line that counts the other files and folders."""
    kind = kind_of(root)
    folders = [entry for entry in sorted(root.iterdir()) if split_of(entry.name) and entry.is_dir()]
    slips = list(_slips_of_poses(root, folders) if kind is WITH_POSES else _slips_of_tables(root))
    tables, others = list_unread(root, partial(kind.files_read, root), folders)
    return slips + tables, others


def _slips_of_poses(root: Path, folders: list[Path]) -> Iterator[str]:
    names = poses.SPLIT_FOLDERS.values()
    for folder in folders:
        if folder.name not in names:
            yield f"{folder}: not read; the splits of data with poses are called {', '.join(names)}: rename it"
    for split, name in poses.SPLIT_FOLDERS.items():
        if (root / name).is_dir() and not poses.frames_root(root, split).is_dir():
            yield f"{root / name}: not read; expected {name}{poses.FRAMES} and {name}{poses.POSES} in it as in other splits"


def _slips_of_tables(root: Path) -> Iterator[str]:
    for entry in sorted(root.iterdir()):
        if split_of(entry.name) and not entry.is_dir():
            yield f"{entry}: is a file, expected a folder of sequences; remove it"


def _files_with_tables(root: Path, folder: str, files: list[str]) -> Collection[str]:
    if folder == str(root):
        return {*OWN_FILES, *filter(split_of, files)}  # a split that is a file is told by itself
    frames = {name for name in files if name.lower().endswith(".png")}
    return frames.union(TABLES.values()) if frames else frames


def _files_with_poses(root: Path, folder: str, files: list[str]) -> Collection[str]:
    """A pose that belongs to no folder of frames is not read."""
    if folder == str(root):
        return OWN_FILES
    path, frames = (
        Path(folder).relative_to(root).as_posix(),
        {name for name in files if name.lower().endswith(".png")},
    )
    for split in poses.SPLIT_FOLDERS:
        base = poses.frames_root(root, split).relative_to(root).as_posix()
        of_poses = poses.poses_path(base)
        if f"{path}/".startswith(f"{base}/"):
            return frames
        if f"{path}/".startswith(f"{of_poses}/") and (root / f"{base}{path.removeprefix(of_poses)}").is_dir():
            return frames
    return ()


def check_sequence(folder: Path) -> tuple[dict, np.ndarray]:
    """The index columns of one sequence and its conditions, float32 [T,A+P].

    Reads every image's header and every table; raises `InputError` for a missing or foreign frame, frames of unequal size and
    a CSV that is short, ragged, not numeric or not finite. Pixels are not decoded here.
    """
    paths = frame_paths(folder)
    size = read_image_size(paths[0])
    for path in paths[1:]:
        found = read_image_size(path)
        if found != size:
            raise InputError(
                f"{path}: found {found[0]}x{found[1]} with {found[2]} channels, expected {size[0]}x{size[1]} with {size[2]} "
                f"as in {paths[0].name}; convert this frame"
            )
    tables = read_conditions(folder, len(paths))
    row = dict(zip(("height", "width", "channels"), size, strict=True))
    row["frames"] = len(paths)
    row["action_dim"] = tables["actions"].shape[1] if "actions" in tables else 0
    row["position_dim"] = tables["positions"].shape[1] if "positions" in tables else 0
    for column, (_, most) in layout.INDEX_RANGES.items():
        if row.get(column, 0) > most:
            raise InputError(
                f"{folder}: found {column} {row[column]}, expected at most {most}; divide or convert this sequence"
            )
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
    """Checks all sequences under ``root/{train,validate,test}``, or laid out as in `poses`, and writes the index. Returns it.

    Name and source are those given, or those of an earlier index, or the folder's name and none. Mean and standard deviation of
    the conditions are taken over all rows of the training split. Raises `InputError`, having written nothing, if there are no
    sequences, one is faulty, or they do not agree in size or in the widths of their tables.
    """
    root = Path(root)
    kind = kind_of(root)
    found = [(split, folder) for split in SPLITS for folder in kind.find(root, split)]
    if not found:
        raise no_sequences(root)
    check_writable(root, "make it writable")
    rows, moments, folders = [], None, {}
    for split, folder in tqdm(found, desc="index", unit="sequence", disable=None):
        path = folder.relative_to(root).as_posix()
        if not path.isprintable():
            raise InputError(f"{str(folder)!r}: a name with characters that cannot be written; rename it")
        row, conditions = kind.check(root, path)
        row |= {"split": split, "sequence": kind.name(root, split, folder), "path": path}
        other = folders.setdefault((split, row["sequence"]), folder)
        if other is not folder:
            raise InputError(
                f"{folder}: is called {row['sequence']} in the split {split}, as is {other}; rename one of them"
            )
        if rows:
            _check_agreement(folder, row, root / rows[0]["path"], rows[0])
        rows.append(row)
        moments = moments or Moments(conditions.shape[1])
        if split == "train":
            moments.add(conditions)
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
    """Those of an earlier index; the folder's name and none if there is no sound one, which a new index is to replace."""
    try:
        before = layout.read_info(root)
    except InputError:
        return root.resolve().name, ""
    return before.name, before.source


def no_sequences(root: Path) -> InputError:
    if not root.is_dir():
        return InputError(f"{root}: no such folder, expected the root of a data set")
    if split_of(root.name):
        return InputError(f"{root}: is a split itself; name the folder above, {root.parent}")
    below = next(
        (entry.parent for entry in sorted(root.glob("*/*")) if split_of(entry.name) and entry.is_dir()), None
    )
    if below:
        return InputError(
            f"{root}: found no sequences in {', '.join(SPLITS)}; name the folder with the splits, {below}"
        )
    advice = "`svg-data frames` takes videos and pictures of other names and kinds"
    return InputError(
        f"{root}: found no sequences in {', '.join(SPLITS)}; expected e.g. {root / 'train' / '0' / '0.png'}; {advice}"
    )


def describe_index(root: Path, index: pd.DataFrame) -> str:
    """One line: how many sequences of each split, how large, with how many columns; and which usual split is empty."""
    counts = {split: int((index["split"] == split).sum()) for split in SPLITS}
    first = index.iloc[0]
    present = ", ".join(f"{count} {split}" for split, count in counts.items() if count)
    absent = ", ".join(f"no {split}" for split, count in counts.items() if not count)
    told = (
        "with poses"
        if first.get(layout.POSES_COLUMN, 0)
        else f"{first.action_dim} action and {first.position_dim} position columns"
    )
    return (
        f"{root / layout.INDEX_FILE}: {len(index)} sequences ({present}{'; ' if absent else ''}{absent}), "
        f"frames {first.height}x{first.width}x{first.channels}, {told}"
    )


def _check_agreement(folder: Path, row: dict, first_folder: Path, first: dict) -> None:
    for column in ("height", "width", "channels", "action_dim", "position_dim", "pose_channels"):
        if row.get(column) != first.get(column):
            raise InputError(
                f"{folder}: found {column} {row[column]}, expected {first[column]} as in {first_folder}; "
                "sequences of one data set agree: convert this one or move it out of the data root"
            )


class Moments:
    """Mean and standard deviation of each of `width` columns, one table at a time; 0 and 1 before there is any."""

    def __init__(self, width: int):
        self._sum, self._squares, self._count = np.zeros(width), np.zeros(width), 0

    def add(self, table: np.ndarray) -> None:
        values = table.astype(np.float64)
        self._sum, self._squares, self._count = (
            self._sum + values.sum(0),
            self._squares + (values**2).sum(0),
            self._count + len(values),
        )

    def result(self) -> tuple[list[float], list[float]]:
        if not self._count:
            return self._sum.tolist(), np.ones_like(self._sum).tolist()
        mean = self._sum / self._count
        variance = np.maximum(self._squares / self._count - mean**2, 0)
        return mean.tolist(), np.sqrt(variance).tolist()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, help="data root with train/, validate/ and test/")
    parser.add_argument("--name", help="name of the data set (default: as before, or the folder's)")
    parser.add_argument(
        "--source", help="where the data come from, kept in dataset.json (default: as before)"
    )


def run(args: argparse.Namespace) -> None:
    index = build_index(args.root, args.name, args.source)
    slips, others = overlooked(args.root)
    has_tables = layout.POSES_COLUMN not in index
    numbered = row_numbers(args.root / index["path"][0], index["frames"][0]) if has_tables else ()
    for line in (*slips, *others, *numbered, *size_hint(args.root, index)):
        tell(f"note: {line}")
    tell(describe_index(args.root, index))


def size_hint(root: Path, index: pd.DataFrame) -> list[str]:
    """Return a line with a way out if the frames have no size that the models take; those from poses take any."""
    height, width = index[["height", "width"]].iloc[0]
    if layout.POSES_COLUMN in index or (height == width and width in layout.MODEL_WIDTHS):
        return []
    sizes = " and ".join(f"{width}x{width}" for width in layout.MODEL_WIDTHS)
    return [
        f"{root}: the frames are {height}x{width}, the models take {sizes}; `svg-data resize {root} OUT` makes a copy that fits"
    ]
