"""Walks a data root, checks every sequence and writes its index: ``index.csv`` and ``dataset.json``."""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from . import layout, poses
from .command import tell
from .files import walk
from .folders import frame_paths, png_folders, read_conditions
from .layout import ACTIONS_FILE, POSITIONS_FILE, SPLITS, InputError
from .png import read_image_size
from .tables import name_hint, row_numbers

SPLIT_ALIASES = ("val", "valid", "validation", "training", "testing", "eval", "evaluation")
TABLES = (ACTIONS_FILE, POSITIONS_FILE)


@dataclass(frozen=True)
class Kind:
    """How sequences lie in folders: where those of a split are, what one is called, and what the index says of it.

    `check` takes the data root and a path and gives the index columns and the tables, float32 [T,A+P].
    """

    store: str
    find: Callable[[Path, str], list[Path]]
    name: Callable[[Path, str, Path], str]
    check: Callable[[Path, str], tuple[dict, np.ndarray]]


def kind_of(root: Path) -> Kind:
    """How the sequences below a data root lie."""
    return WITH_POSES if poses.has_poses(root) else WITH_TABLES


def find_sequences(root: Path, split: str) -> list[Path]:
    """Folders with PNG frames at any depth under ``root/split``, in natural order (2 before 10). Hidden folders are left out."""
    return png_folders(root / split, root)


def overlooked(root: Path) -> Iterator[str]:
    """A line for each thing that looks as if it was meant to be read, but has another name."""
    if poses.has_poses(root):
        names = poses.SPLIT_FOLDERS.values()
        for entry in sorted(root.iterdir()):
            if entry.is_dir() and entry.name not in names and entry.name.lower() in (*SPLITS, *SPLIT_ALIASES):
                yield f"{entry}: not read; the splits of data with poses are called {', '.join(names)}: rename it"
        for split, name in poses.SPLIT_FOLDERS.items():
            if (root / name).is_dir() and not poses.frames_root(root, split).is_dir():
                yield f"{root / name}: not read; expected {name}{poses.FRAMES} and {name}{poses.POSES} in it as in other splits"
        return
    for entry in sorted(root.iterdir()):
        if entry.name not in SPLITS and entry.name.lower() in (*SPLITS, *SPLIT_ALIASES):
            yield f"{entry}: not read; the splits are called {', '.join(SPLITS)}: rename it"
        elif entry.name in SPLITS and not entry.is_dir():
            yield f"{entry}: is a file, expected a folder of sequences; remove it"
    for split in SPLITS:
        for folder, files in walk(root / split, root):
            if "0.png" in files or "1.png" in files:
                strange = [name for name in files if name.lower().endswith(".csv") and name not in TABLES and name[0] != "."]
                for name in sorted(strange):
                    yield f"{Path(folder, name)}: not read; {name_hint(name)}"


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
            raise InputError(f"{folder}: found {column} {row[column]}, expected at most {most}; divide or convert this sequence")
    conditions = np.concatenate([np.empty((len(paths), 0), np.float32), *tables.values()], axis=1)
    return row, conditions


def _check_sequence_with_poses(root: Path, path: str) -> tuple[dict, np.ndarray]:
    row = poses.check_sequence(root, path)
    return row, np.empty((row["frames"], 0), np.float32)


WITH_TABLES = Kind(
    "folders",
    find_sequences,
    lambda root, split, folder: folder.relative_to(root / split).as_posix(),
    lambda root, path: check_sequence(root / path),
)
WITH_POSES = Kind("poses", poses.find_sequences, poses.sequence_name, _check_sequence_with_poses)


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
    rows, moments = [], None
    for split, folder in tqdm(found, desc="index", unit="sequence", disable=None):
        path = folder.relative_to(root).as_posix()
        if not path.isprintable():
            raise InputError(f"{str(folder)!r}: a name with characters that cannot be written; rename it")
        row, conditions = kind.check(root, path)
        row |= {"split": split, "sequence": kind.name(root, split, folder), "path": path}
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
    if root.name in SPLITS:
        return InputError(f"{root}: is a split itself; name the folder above, {root.parent}")
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
    parser.add_argument("--source", help="where the data come from, kept in dataset.json (default: as before)")


def run(args: argparse.Namespace) -> None:
    index = build_index(args.root, args.name, args.source)
    for line in (*overlooked(args.root), *row_numbers(args.root / index["path"][0], index["frames"][0])):
        tell(f"note: {line}")
    tell(describe_index(args.root, index))
