"""Growth of reading with the number of sequences: time and memory of each store, each measured in a process.

A large data set has the names of a million sequences and the contents of a few: folders and chunks are links,
and the files of a packed split are reserved but never written. Its frames are small, so that they fit a disk
and decoding hides nothing.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_tools.command import tell
from data_tools.errors import InputError
from data_tools.files import write_text
from data_tools.folders import write_sequence
from data_tools.remote import CHUNKS_FILE, NEEDS
from svg.evaluation.tables import Table

from .data import CONDITIONS, FRAMES, make_sequence, write_hollow_arrays, write_linked_index, write_links

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZES = (1_000, 40_000, 1_000_000)
INDEXED = (1_000, 40_000)
"""Sizes at which ``svg-data index`` is measured."""
CHUNK = 500
"""Sequences of a chunk of the store ``litdata``."""
INDEXING = "svg-data index"
WIDTH = 16
COLUMNS = {
    "opening": ("opening or indexing, s", ".3g"),
    "first": ("first batch, s", ".3g"),
    "rate": ("clips/s", ",.0f"),
    "held": ("held, MB", ".0f"),
    "growth": ("growth, MB", ".1f"),
    "peak": ("peak, MB", ",.0f"),
}
"""Heading and format of each measurement of `reading`."""
MARKERS = "os^D"
PANELS = {
    "opening": "opening, or svg-data index (s)",
    "first": "first batch (s)",
    "rate": "clips a second",
    "held": "memory held (MB)",
}


def make_folders(root: Path, sequences: int) -> None:
    """Make a data set of folders."""
    write_linked_index(root, sequences, "folders", WIDTH)
    write_links(root, WIDTH)


def make_packed(root: Path, sequences: int) -> None:
    """Make a packed data set, whose files take their room on the disk but are never written."""
    write_linked_index(root, sequences, "packed", WIDTH)
    write_hollow_arrays(root, sequences, WIDTH)


def make_chunks(root: Path, sequences: int) -> None:
    """Make a data set in chunks, all of which are the same file under many names."""
    from data_tools.index import build_index
    from data_tools.pack import pack

    each = min(sequences, CHUNK)
    source = root.with_name("source")
    packed = root.with_name("source_packed")
    make_unindexed(source, each)
    build_index(source)
    pack(source, packed, workers=1, form="litdata", chunk_mb=1000)
    write_linked_index(root, sequences, "litdata", WIDTH)
    (root / "train").mkdir()
    values = json.loads((packed / "train" / CHUNKS_FILE).read_text())
    (chunk,) = values["chunks"]
    values["chunks"] = []
    for number in range(sequences // each):
        name = f"chunk-0-{number}.bin"
        os.link(packed / "train" / chunk["filename"], root / "train" / name)
        values["chunks"].append(chunk | {"filename": name})
    write_text(root / "train" / CHUNKS_FILE, json.dumps(values))
    for folder in (source, packed):
        shutil.rmtree(folder)


def make_unindexed(root: Path, sequences: int) -> None:
    """Make folders of sequences without an index; their files are links to a few, each in its own folder."""
    real = [root / "real" / str(number) for number in range(8)]
    for number, folder in enumerate(real):
        write_sequence(folder, *make_sequence(number, WIDTH))
    for number in range(sequences):
        folder = root / "train" / str(number // 256) / str(number % 256)
        folder.mkdir(parents=True)
        for file in real[number % len(real)].iterdir():
            os.link(file, folder / file.name)


STORES: dict[str, Callable[[Path, int], None]] = {
    "folders": make_folders,
    "packed": make_packed,
    "litdata": make_chunks,
}


@dataclass(frozen=True)
class Point:
    """Measurements of a data set in a store, by the names of `COLUMNS`, one for each repetition."""

    store: str
    sequences: int
    measured: dict[str, list[float]]

    def median(self, name: str) -> float:
        """Return the median of a measurement."""
        return statistics.median(self.measured[name])


def measure(folder: Path, repeats: int) -> list[Point]:
    """Return the points of all stores and sizes; data sets are made in `folder`, one at a time.

    Raises `InputError` if there is no room for them.
    """
    folder.mkdir(parents=True)
    check_room(folder)
    points = []
    for store, make in STORES.items():
        if store == "litdata" and find_spec("litdata") is None:
            tell(f"the store litdata is left out: it {NEEDS}", error=True)
            continue
        for sequences in SIZES:
            root = folder / f"{store}_{sequences}"
            make(root, sequences)
            points.append(Point(store, sequences, repeat("read", root, repeats)))
            shutil.rmtree(root)
    for sequences in INDEXED:
        root = folder / f"index_{sequences}"
        make_unindexed(root, sequences)
        points.append(Point(INDEXING, sequences, repeat("index", root, repeats)))
        shutil.rmtree(root)
    return points


def check_room(folder: Path) -> None:
    """Raise `InputError` if the disk has no room for the largest packed data set."""
    needed = 1.1 * max(SIZES) * FRAMES * (WIDTH * WIDTH * 3 + 4 * CONDITIONS)
    free = shutil.disk_usage(folder).free
    if free < needed:
        found = f"found {free / 1e9:.0f} GB free, expected {needed / 1e9:.0f}, which are reserved for a while"
        raise InputError(f"--folder: {found}; name another place")


def repeat(work: str, root: Path, repeats: int) -> dict[str, list[float]]:
    """Return the results of a work of `reading`, each time in a new process."""
    command = [sys.executable, "-m", "experiments.benchmarks.reading", work, str(root)]
    results = []
    for _ in range(repeats):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.splitlines() or ["without a word"])[-1]
            raise InputError(f"a measurement ended early: {last}")
        results.append(json.loads(done.stdout))
    return {name: [result[name] for result in results] for name in results[0]}


def table(points: list[Point]) -> str:
    """Return the medians as rows of Markdown."""
    rows = []
    for point in points:
        cells = [
            format(point.median(name), form) if name in point.measured else ""
            for name, (_, form) in COLUMNS.items()
        ]
        rows.append([f"{point.store}, {point.sequences:,}", *cells])
    return Table(["", *(title for title, _ in COLUMNS.values())], rows).markdown()


def as_json(points: list[Point]) -> list[dict[str, Any]]:
    """Return the points as values of JSON."""
    return [asdict(point) for point in points]


def plot(points: list[Point], path: Path) -> None:
    """Draw the medians over the number of sequences, on logarithmic axes, as PDF, SVG or PNG."""
    from svg.figures.drawing import Drawing, save

    save([Drawing(4.6, 8.4, lambda figure: _draw(figure, points))], path)


def _draw(figure: Any, points: list[Point]) -> None:
    from matplotlib.lines import Line2D

    from svg.figures.drawing import COLOURS, draw_legend

    axes = figure.subplots(len(PANELS), 1, sharex=True)
    stores = list(dict.fromkeys(point.store for point in points))
    entries = []
    for store, colour, marker in zip(stores, COLOURS, MARKERS, strict=False):
        look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "-"}
        for axis, name in zip(axes, PANELS, strict=True):
            own = [point for point in points if point.store == store and name in point.measured]
            axis.plot([point.sequences for point in own], [point.median(name) for point in own], **look)
        entries.append((Line2D([], [], **look), store))
    for axis, label in zip(axes, PANELS.values(), strict=True):
        _finish(axis, label)
    axes[-1].set_xticks(sorted({point.sequences for point in points}))
    axes[-1].set_xlabel("sequences of the data set")
    draw_legend(figure, entries, loc="outside upper center", ncols=2)


def _finish(axis: "Axes", label: str) -> None:
    """Give a panel logarithmic axes with plain numbers, and up and down whole powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_title(label, loc="left", fontsize=11)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    values = np.log10(np.concatenate([line.get_ydata() for line in axis.get_lines()]))
    axis.set_ylim(10 ** np.floor(values.min()), 10 ** np.ceil(values.max()))
    axis.yaxis.set_major_locator(LogLocator(subs=(1,)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
