"""Lines, legends and files of the plots.

Lines that lie under others stay visible, and texts are shown as they are written.

A figure is a `Drawing`; `save` writes one, or several below one another, as PNG, SVG or PDF: the same
drawings, the same bytes.
"""

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from data_tools.errors import InputError
from data_tools.files import whole_file

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe & Ito's colours, which the colour-blind tell apart, too."""
GREY = "#777777"
RUN_STYLES = ("-", (0, (7, 1.5)), (0, (7, 1.5, 1.5, 1.5)), (0, (1.5, 1.5)))
FORMS = ("pdf", "svg", "png")
THIN, STEP, THICK = 1.5, 1.6, 14.0
"""Widths of lines in points: where no other line covers them, more for each one that does, and at most."""
NEAR = 0.01
"""Share of a panel's height: lines that are nearer cover one another."""

Entry = tuple[Line2D, str]
"""Entry of a legend: its line and its words."""


@dataclass(frozen=True)
class Drawing:
    """A figure that is not yet drawn: its size in inches, and the function that draws it."""

    width: float
    height: float
    draw: Callable[[FigureBase], None]


@dataclass(frozen=True)
class Curve:
    """A line of a panel: its points [N], and its look as arguments of matplotlib's ``plot``."""

    x: np.ndarray
    y: np.ndarray
    look: dict[str, Any]

    def entry(self, words: str) -> Entry:
        """Return the legend's entry of this line."""
        return Line2D([], [], markersize=3.5, **self.look), words


def run_looks(count: int) -> list[tuple[str, Any]]:
    """Return a colour and a line style for each of several runs; the first 28 differ."""
    return [
        (COLOURS[n % len(COLOURS)], RUN_STYLES[n // len(COLOURS) % len(RUN_STYLES)]) for n in range(count)
    ]


def shade(colour: str) -> tuple[float, ...]:
    """Return a darker shade of a colour, of a dark one a lighter one."""
    red, green, blue = to_rgb(colour)
    towards = 0.0 if 0.3 * red + 0.6 * green + 0.1 * blue > 0.15 else 1.0
    return tuple(0.5 * (part + towards) for part in (red, green, blue))


def draw_curves(axes: Axes, curves: list[Curve], scale: Callable | None = None) -> None:
    """Draw lines so that each stays visible: where later ones cover it, it is wider than they are.

    `scale`, such as the logarithm, is applied to the values before they are compared.
    """
    covers = count_covers(curves, scale)
    most = max((int(counts.max(initial=0)) for counts in covers), default=0)
    step = min(STEP, (THICK - THIN) / max(1, most))
    for order, (curve, counts) in enumerate(zip(curves, covers, strict=True)):
        place = {"clip_on": False, "zorder": 3 + order / len(curves)}
        _draw_line(axes, curve, counts, step, place)
        if curve.look["marker"]:
            _draw_markers(axes, curve, counts, step, place)


def _draw_line(axes: Axes, curve: Curve, counts: np.ndarray, step: float, place: dict[str, Any]) -> None:
    """Draw a line without its markers, in stretches of one width."""
    look: dict[str, Any] = {**curve.look, **place, "marker": ""}
    ends = [*np.flatnonzero(np.diff(counts)) + 1, len(counts)]
    for begin, end in zip([0, *ends], ends, strict=False):
        stretch = slice(begin, end + 1)
        axes.plot(curve.x[stretch], curve.y[stretch], lw=THIN + step * counts[begin], **look)


def _draw_markers(axes: Axes, curve: Curve, counts: np.ndarray, step: float, place: dict[str, Any]) -> None:
    """Draw the markers of a line, each as wide as the wider of its two neighbouring stretches needs."""
    look: dict[str, Any] = {**curve.look, **place, "linestyle": ""}
    beside = np.pad(counts, 1, mode="edge")[: len(curve.x) + 1]
    at_points = np.maximum(beside[:-1], beside[1:])
    for covered in np.unique(at_points):
        points = at_points == covered
        axes.plot(curve.x[points], curve.y[points], ms=3.5 + step * covered, **look)


def count_covers(curves: list[Curve], scale: Callable | None = None) -> list[np.ndarray]:
    """Return for each line how many later ones cover it from each of its points to the next."""
    xs = sorted({x for curve in curves for x in curve.x.tolist()})
    table = np.full((len(curves), len(xs)), np.nan)
    for row, curve in zip(table, curves, strict=True):
        row[np.searchsorted(xs, curve.x)] = curve.y
    if scale is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            table = scale(table)
    table[~np.isfinite(table)] = np.nan
    reach = NEAR * np.ptp(table[np.isfinite(table)]) if np.isfinite(table).any() else 0.0
    counts = []
    for number, curve in enumerate(curves):
        places = np.searchsorted(xs, curve.x)
        near = np.abs(table[number + 1 :, places] - table[number, places]) <= reach  # NaN is near to nothing
        counts.append((near[:, 1:] & near[:, :-1] if len(places) > 1 else near).sum(0))
    return counts


def finish(axes: Axes, title: str, x: str) -> None:
    """Give a panel its title and the look of all panels; `x` says what its integers across are."""
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def draw_legend(owner: Axes | FigureBase, entries: list[Entry], **place: Any) -> None:
    """Draw a legend whose words are shown as they are written.

    matplotlib would read formulas, and pass over names with a leading _.
    """
    if entries:
        numbers = [str(number) for number in range(len(entries))]
        legend = owner.legend([handle for handle, _ in entries], numbers, frameon=False, **place)
        for text, (_, words) in zip(legend.get_texts(), entries, strict=True):
            text.set_parse_math(False)
            text.set_text(words)


def legend_columns(entries: list[Entry], width: float) -> int:
    """Return how many entries fit side by side into so many inches."""
    longest = max((len(words) for _, words in entries), default=0)
    return max(1, min(len(entries), int(width / (0.6 + 0.07 * longest))))


def picture_form(path: Path) -> str:
    """Return the one of `FORMS` that a picture's ending says. Raises `InputError` for another ending."""
    form = path.suffix[1:].lower()
    if form not in FORMS:
        expected = ", ".join(f".{name}" for name in FORMS)
        ending = f"the ending {path.suffix}" if form else "no ending"
        raise InputError(f"{path}: found {ending}, expected one of {expected}")
    return form


def save(drawings: list[Drawing], file: Path | BinaryIO, form: str = "", salt: str = "svg") -> None:
    """Write drawings below one another into one picture.

    Args:
        form: one of `FORMS`; by default `picture_form` of a path, and png.
        salt: distinguishes the identifiers of several SVGs on one page.
    """
    form = form or (picture_form(file) if isinstance(file, Path) else "png")
    width = max(drawing.width for drawing in drawings)
    height = sum(drawing.height for drawing in drawings)
    figure = Figure(figsize=(width, height), layout="constrained")
    parts: list[FigureBase] = [figure]
    if len(drawings) > 1:
        heights = [drawing.height for drawing in drawings]
        parts = figure.subfigures(len(drawings), 1, squeeze=False, height_ratios=heights).ravel().tolist()
    for part, drawing in zip(parts, drawings, strict=True):
        drawing.draw(part)
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form)
    # Type 42: text in a PDF stays text, as publishers ask for
    settings: dict[Any, Any] = {"svg.hashsalt": salt, "pdf.fonttype": 42}
    with (
        warnings.catch_warnings(),
        matplotlib.rc_context(settings),
        whole_file(file) if isinstance(file, Path) else contextlib.nullcontext(file) as opened,
    ):
        warnings.filterwarnings("ignore", message="Glyph")  # of names in scripts that the font lacks
        figure.savefig(opened, dpi=130, format=form, metadata=metadata)
