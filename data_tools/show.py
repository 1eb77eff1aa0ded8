"""Shows a data set: a contact sheet with its condition columns as a PNG, and its statistics as text.

The figures come from at most --sequences sequences of each split, evenly spread over it. Motion is the mean absolute difference
between neighbouring frames, in grey levels of 255.
"""

import argparse
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from . import layout
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
    """What was read of one split.

    Args:
        store: the split.
        rows: of the contact sheet: (name of the sequence, frame numbers, frames uint8 [N,H,W,C]); with poses a row of them follows.
        conditions: of the sequences read, float32 [R,A+P].
        brightness, motion: of each sequence read, in grey levels.
    """

    store: Store
    rows: list[tuple[str, np.ndarray, np.ndarray]]
    conditions: np.ndarray
    brightness: np.ndarray
    motion: np.ndarray


def sample_split(store: Store, sequences: int) -> SplitSample:
    """Reads so many sequences of a split, evenly spread."""
    total = len(store.index)
    numbers = np.unique(np.linspace(0, total - 1, min(sequences, total)).round().astype(int))
    shown = set(
        numbers[
            np.unique(np.linspace(0, len(numbers) - 1, min(ROWS, len(numbers))).round().astype(int))
        ].tolist()
    )
    rows, conditions, brightness, motion = [], [], [], []
    for number in tqdm(numbers.tolist(), desc=store.split, unit="sequence", disable=None):
        length = int(store.lengths[number])
        times = np.unique(np.linspace(0, length - 1, min(COLUMNS, length)).round().astype(int))
        first, light, change, last = 0, 0.0, 0.0, None
        pictures, poses, tables = [], [], []
        for frames, table in store.pieces(number, length):
            joined = frames if last is None else np.concatenate([last, frames])
            light += frames.sum(dtype=np.float64)
            change += np.abs(np.diff(joined.astype(np.int16), axis=0)).sum(dtype=np.float64)
            inside = times[(times >= first) & (times < first + len(frames))] - first
            pictures.append(frames[inside])
            tables.append(store.conditions.numbers(table))
            if store.conditions.is_image:
                poses.append(table[inside])
            first, last = first + len(frames), frames[-1:]
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


def describe(root: Path, samples: list[SplitSample]) -> str:
    """The statistics as text."""
    info, size = samples[0].store.info, samples[0].store.frame_size
    lines = [
        f"{info.name}: {info.source or 'source unknown'} ({root}, {info.store})",
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
    kind, number = ("action", column) if column < info.action_dim else ("position", column - info.action_dim)
    return f"{kind} {number + 1}"


def draw(samples: list[SplitSample], path: Path) -> None:
    """Writes the contact sheet, and below it how the values of each condition column are spread, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    info = samples[0].store.info
    sheet = [(sample.store.split, *row) for sample in samples for row in sample.rows]
    columns = max(len(times) for _, _, times, _ in sheet)
    histograms = min(info.condition_dim, MAX_HISTOGRAMS)
    below = -(-histograms // HISTOGRAMS_ACROSS)  # rows of them
    height, width, _ = samples[0].store.frame_size
    rows = len(sheet) * (0.45 + 0.75 * height / width)
    heights = [rows, below * 1.5] if below else [rows]
    figure = plt.figure(
        figsize=(max(columns, HISTOGRAMS_ACROSS) * 1.05, sum(heights) + 0.5), layout="constrained"
    )
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    title = clean(
        f"{info.name}: {info.source}" if info.source else info.name
    )  # matplotlib draws no names in no encoding
    parts[0].suptitle(title, fontsize=10, parse_math=False)
    axes = parts[0].subplots(len(sheet), columns, squeeze=False)
    for row, (split, name, times, frames) in zip(axes, sheet, strict=True):
        for place, axis in enumerate(row):
            axis.set_axis_off()
            if place < len(times):
                axis.imshow(frames[place], cmap="gray", vmin=0, vmax=255)
                axis.set_title(f"\nt = {times[place]}", fontsize=6, loc="left", pad=2)
        offset = {"xycoords": "axes fraction", "textcoords": "offset points"}
        above = row[0].annotate(
            clean(f"{split} {name}"), (0, 1), (0, 9), fontsize=6, parse_math=False, **offset
        )
        above.set_in_layout(False)  # as long as it is: nothing makes room for it
    if below:
        for column, axis in enumerate(parts[1].subplots(below, HISTOGRAMS_ACROSS, squeeze=False).flat):
            if column >= histograms:
                axis.set_axis_off()
                continue
            values = [sample.conditions[:, column].astype(np.float64) for sample in samples]
            edges = np.histogram_bin_edges(np.concatenate(values), 30)
            for sample, its in zip(samples, values, strict=True):
                axis.hist(its, edges, density=True, histtype="step", label=sample.store.split)
            axis.set_title(column_name(info, column), fontsize=7, pad=2)
            axis.tick_params(labelsize=6)
            axis.set_yticks([])
            if not column:
                axis.legend(fontsize=6, frameon=False)
    with warnings.catch_warnings(), whole_file(path) as file:
        warnings.filterwarnings("ignore", message="Glyph")  # of names in scripts that the font lacks
        figure.savefig(file, dpi=110, format="png")
    plt.close(figure)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, help="root of an indexed data set")
    parser.add_argument(
        "--out", type=Path, help="picture to write, the text beside it (default: ROOT/overview.png)"
    )
    parser.add_argument(
        "--sequences", type=int, default=200, help="of each split at most (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    if args.sequences < 1:
        raise InputError(f"--sequences: found {args.sequences}, expected 1 or more")
    path = args.out or args.root / "overview.png"
    if path.suffix.lower() != ".png":
        raise InputError(f"--out: found {path.name}, expected a name that ends in .png")
    check_file_writable(path)
    present = layout.read_index(args.root)["split"].unique()
    samples = [
        sample_split(open_store(args.root, split), args.sequences) for split in SPLITS if split in present
    ]
    text = describe(args.root, samples)
    draw(samples, path)
    write_text(path.with_suffix(".txt"), text)
    tell(f"{text}\n{path} and {path.with_suffix('.txt').name} written")
