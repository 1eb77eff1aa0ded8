"""Show a data set: a contact sheet with histograms of the conditions as a PNG, and statistics as text.

The figures come from at most --sequences sequences of each split, evenly spread over it. Motion is the mean
absolute difference between neighbouring frames, in grey levels of 255.
"""

import argparse
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from . import layout, remote
from .command import tell
from .errors import InputError, clean
from .files import check_file_writable, whole_file, write_text
from .layout import SPLITS
from .store import Store, open_store
from .truth import PALETTE, read_truth, truth_folder

ROWS, COLUMNS = 3, 10  # of the contact sheet: sequences of each split, frames of a sequence
HISTOGRAMS_ACROSS, MAX_HISTOGRAMS = 7, 28


@dataclass(frozen=True)
class SplitSample:
    """The part of a split that was read.

    Args:
        store: the split.
        rows: of the contact sheet: (name of the sequence, frame numbers, frames uint8 [N,H,W,C]), each
            followed by a row of poses if there are any.
        conditions: of the sequences read, float32 [R,A+P].
        brightness, motion: of each sequence read, in grey levels.
    """

    store: Store
    rows: list[tuple[str, np.ndarray, np.ndarray]]
    conditions: np.ndarray
    brightness: np.ndarray
    motion: np.ndarray


def sample_split(store: Store, sequences: int) -> SplitSample:
    """Read so many sequences of a split, evenly spread."""
    numbers = _spread(len(store.index), sequences)
    shown = {int(numbers[place]) for place in _spread(len(numbers), ROWS)}
    rows, conditions, brightness, motion = [], [], [], []
    for number in tqdm(numbers.tolist(), desc=store.split, unit="sequence", disable=None):
        length = int(store.lengths[number])
        times = _spread(length, COLUMNS)
        pictures, poses, tables = [], [], []
        last = None
        first, light, change = 0, 0.0, 0.0
        for frames, piece in store.pieces(number, length):
            joined = frames if last is None else np.concatenate([last, frames])
            light += frames.sum(dtype=np.float64)
            change += np.abs(np.diff(joined.astype(np.int16), axis=0)).sum(dtype=np.float64)
            inside = times[(times >= first) & (times < first + len(frames))] - first
            pictures.append(frames[inside])
            tables.append(store.conditions.numbers(piece))
            if store.conditions.is_image:
                poses.append(piece[inside])
            first += len(frames)
            last = frames[-1:]
        values = math.prod(store.frame_size)
        conditions.append(np.concatenate(tables))
        brightness.append(light / (length * values))
        motion.append(change / ((length - 1) * values) if length > 1 else 0.0)
        if number in shown:
            name = str(store.index["sequence"].iloc[number])
            rows.append((name, times, np.concatenate(pictures)))
            path = str(store.index["path"].iloc[number])
            if truth_folder(store.root, path).is_dir():
                rows.append((f"{name}, segmentation", times, _segmentation(store, path, times)))
            if store.conditions.is_image:
                rows.append((f"{name}, pose of the frame after", times, np.concatenate(poses)))
    return SplitSample(store, rows, np.concatenate(conditions), np.array(brightness), np.array(motion))


def _segmentation(store: Store, path: str, times: np.ndarray) -> np.ndarray:
    """Return the segmentation of some frames of a sequence in colours, uint8 [N,H,W,3]."""
    parts = [read_truth(store.root, path, store.frame_size[:2], time, time + 1) for time in times.tolist()]
    colours = np.full((256, 3), 255, np.uint8)
    colours[: len(PALETTE)] = PALETTE
    return colours[np.concatenate([part.segmentation for part in parts])]


def _spread(total: int, most: int) -> np.ndarray:
    """Return at most so many of the numbers from 0 to before `total`, evenly spread, ends included."""
    return np.unique(np.linspace(0, total - 1, min(most, total)).round().astype(int))


def describe(root: Path, samples: list[SplitSample]) -> str:
    """Return the statistics as text."""
    info, size = samples[0].store.info, samples[0].store.frame_size
    lines = [
        f"{info.name}: {info.source or 'source unknown'} ({remote.origin(root) or root}, {info.store})",
        f"frames {size[0]}x{size[1]}x{size[2]}, "
        + (
            "with poses"
            if samples[0].store.conditions.is_image
            else f"{info.action_dim} action and {info.position_dim} position columns"
        ),
        "",
        f"{'split':<10}{'sequences':>10}{'frames':>10}{'length':>12}{'read':>8}{'brightness':>12}{'motion':>8}",
    ]
    for sample in samples:
        lengths = sample.store.lengths
        span = f"{lengths.min()}" if lengths.min() == lengths.max() else f"{lengths.min()}-{lengths.max()}"
        lines.append(
            f"{sample.store.split:<10}{len(lengths):>10}{lengths.sum():>10}{span:>12}{len(sample.motion):>8}"
            f"{sample.brightness.mean():>12.1f}{sample.motion.mean():>8.2f}"
        )
    if info.condition_dim:
        lines += ["", f"{'column':<14}{'split':<10}{'min':>12}{'mean':>12}{'std':>12}{'max':>12}"]
        for column in range(info.condition_dim):
            for sample in samples:
                values = sample.conditions[:, column].astype(np.float64)
                figures = "".join(
                    f"{value:>12.5g}" for value in (values.min(), values.mean(), values.std(), values.max())
                )
                lines.append(f"{column_name(info, column):<14}{sample.store.split:<10}{figures}")
    return clean("\n".join(lines) + "\n")


def column_name(info: layout.DatasetInfo, column: int) -> str:
    """Return the name of a column of the conditions, such as ``action 1``."""
    if column < info.action_dim:
        return f"action {column + 1}"
    return f"position {column - info.action_dim + 1}"


def draw(samples: list[SplitSample], path: Path) -> None:
    """Write the contact sheet, and below it a histogram of each column of the conditions, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    info = samples[0].store.info
    height, width, _ = samples[0].store.frame_size
    sheet_rows = sum(len(sample.rows) for sample in samples)
    columns = max(len(times) for sample in samples for _, times, _ in sample.rows)
    histogram_rows = -(-min(info.condition_dim, MAX_HISTOGRAMS) // HISTOGRAMS_ACROSS)
    heights = [sheet_rows * (0.45 + 0.75 * height / width)]
    if histogram_rows:
        heights.append(histogram_rows * 1.5)
    size = (max(columns, HISTOGRAMS_ACROSS) * 1.05, sum(heights) + 0.5)
    figure = plt.figure(figsize=size, layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    # matplotlib cannot draw names that are in no encoding.
    title = clean(f"{info.name}: {info.source}" if info.source else info.name)
    parts[0].suptitle(title, fontsize=10, parse_math=False)
    _draw_sheet(parts[0].subplots(sheet_rows, columns, squeeze=False), samples)
    if histogram_rows:
        _draw_histograms(parts[1].subplots(histogram_rows, HISTOGRAMS_ACROSS, squeeze=False).flat, samples)
    with warnings.catch_warnings(), whole_file(path) as file:
        warnings.filterwarnings("ignore", message="Glyph")  # of names in scripts that the font lacks
        figure.savefig(file, dpi=110, format="png")
    plt.close(figure)


def _draw_sheet(axes: np.ndarray, samples: list[SplitSample]) -> None:
    """Draw the frames of the shown sequences, a row for each."""
    sheet = [(sample.store.split, *row) for sample in samples for row in sample.rows]
    offset = {"xycoords": "axes fraction", "textcoords": "offset points"}
    for row, (split, name, times, frames) in zip(axes, sheet, strict=True):
        for place, axis in enumerate(row):
            axis.set_axis_off()
            if place < len(times):
                axis.imshow(frames[place], cmap="gray", vmin=0, vmax=255)
                axis.set_title(f"\nt = {times[place]}", fontsize=6, loc="left", pad=2)
        label = clean(f"{split} {name}")
        above = row[0].annotate(label, (0, 1), (0, 9), fontsize=6, parse_math=False, **offset)
        above.set_in_layout(False)  # a long name must not squeeze the pictures


def _draw_histograms(axes: Iterable[Any], samples: list[SplitSample]) -> None:
    """Draw the histogram of each column of the conditions, with a line for each split."""
    info = samples[0].store.info
    for column, axis in enumerate(axes):
        if column >= min(info.condition_dim, MAX_HISTOGRAMS):
            axis.set_axis_off()
            continue
        values = [sample.conditions[:, column].astype(np.float64) for sample in samples]
        edges = np.histogram_bin_edges(np.concatenate(values), 30)
        for sample, numbers in zip(samples, values, strict=True):
            axis.hist(numbers, edges, density=True, histtype="step", label=sample.store.split)
        axis.set_title(column_name(info, column), fontsize=7, pad=2)
        axis.tick_params(labelsize=6)
        axis.set_yticks([])
        if column == 0:
            axis.legend(fontsize=6, frameon=False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("root", type=Path, help="root of an indexed data set")
    parser.add_argument(
        "--out", type=Path, help="picture to write, the text beside it (default: ROOT/overview.png)"
    )
    parser.add_argument(
        "--sequences", type=int, default=200, help="of each split at most (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Write the contact sheet and the statistics, and print the latter."""
    if args.sequences < 1:
        raise InputError(f"--sequences: found {args.sequences}, expected 1 or more")
    if args.out is None and remote.is_remote(args.root):
        raise InputError(
            f"--out: not given; {remote.address(args.root)} is no folder, name the picture to write"
        )
    root = remote.local_root(args.root)
    path = args.out or root / "overview.png"
    if path.suffix.lower() != ".png":
        raise InputError(f"--out: found {path.name}, expected a name that ends in .png")
    check_file_writable(path)
    present = layout.read_index(root)["split"].unique()
    samples = [sample_split(open_store(root, split), args.sequences) for split in SPLITS if split in present]
    text = describe(root, samples)
    draw(samples, path)
    write_text(path.with_suffix(".txt"), text)
    tell(f"{text}\n{path} and {path.with_suffix('.txt').name} written")
