"""Curves of training and of scores over predicted frames, several runs overlaid."""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D

from data_tools.errors import InputError

from ..evaluation.comparison import Comparison
from ..evaluation.methods import METHODS, Method
from ..evaluation.metrics import FRAME, METRICS, of_scope
from ..evaluation.object_tables import OBJECT_METRICS, ObjectScores
from ..evaluation.results import Evaluation
from .drawing import (
    COLOURS,
    GREY,
    Curve,
    Drawing,
    Entry,
    draw_curves,
    draw_legend,
    finish,
    legend_columns,
    run_looks,
    save,
    shade,
)
from .names import label

SCORE = "val_pred_psnr"
"""Value of ``metrics.jsonl`` by which the best epoch is chosen."""
REC_SCORE = "val_rec_psnr"
PANELS = {
    "loss": ["loss"],
    "MSE": ["mse"],
    "KL (nats)": ["kl"],
    "validation PSNR (dB)": [SCORE, REC_SCORE],
    "KL weight beta": ["beta"],
    "teacher-forcing ratio": ["tfr"],
}
LOGARITHMIC = ("loss", "MSE")
FROM_ZERO = ("KL weight beta", "teacher-forcing ratio")
MOST_MARKS = 60
"""Points of a line with a marker at each."""
MOST_EPOCHS = 12
"""Epochs of a line with a marker at each."""
MOST_CURVES = 6
"""Rollouts that are drawn one by one."""
LARGEST = 1e30
"""Larger values cannot be drawn: the limits of the axes would overflow."""

Runs = dict[str, list[dict[str, Any]]]
"""The lines of ``metrics.jsonl`` of each run by its label. A line need not have all values."""


def plot_training(runs: Runs, file: Path | BinaryIO, form: str = "") -> None:
    """Write `training_curves`; `svg.figures.drawing.save` says in which forms."""
    save([training_curves(runs)], file, form)


def plot_frames(runs: dict[str, Evaluation], file: Path | BinaryIO, form: str = "") -> None:
    """Write `frame_curves`; `svg.figures.drawing.save` says in which forms."""
    save([frame_curves(runs)], file, form)


def plot_rollouts(
    curves: dict[str, tuple[np.ndarray, np.ndarray]], n_past: int, file: Path | BinaryIO, form: str = ""
) -> None:
    """Write `rollout_curves`; `svg.figures.drawing.save` says in which forms."""
    save([rollout_curves(curves, n_past)], file, form)


# ---------------------------------------------------------------------------------- training


def training_curves(runs: Runs, across: int = 3) -> Drawing:
    """Return the panels of training over epochs, `across` of them side by side.

    Loss, MSE, KL, validation PSNR, beta and teacher-forcing ratio. The best epoch of each run is marked.
    Raises `InputError` for values that are too large to be drawn.
    """
    for name, lines in runs.items():
        _check_sizes(name, lines)
    several = len(runs) > 1
    entries = _run_entries(runs) if several else []
    width = 4.0 * across
    columns = legend_columns(entries, width)
    height = len(PANELS) / across * (3.2 if across > 1 else 2.4) + 0.2 * (
        -(-len(entries) // columns) - several
    )

    def draw(figure: FigureBase) -> None:
        panels = figure.subplots(len(PANELS) // across, across, squeeze=False).flat
        for axes, (title, names) in zip(panels, PANELS.items(), strict=True):
            _draw_training_panel(axes, runs, title, names)
        if several:
            draw_legend(figure, entries, loc="outside lower center", ncols=columns, fontsize=9)

    return Drawing(width, height, draw)


def best_epoch(lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the line of the first epoch with the highest validation PSNR, None where none has any."""
    return max((line for line in lines if SCORE in line), key=lambda line: line[SCORE], default=None)


def _check_sizes(name: str, lines: list[dict[str, Any]]) -> None:
    for line in lines:
        for key, value in line.items():
            if abs(value) > LARGEST:
                raise InputError(
                    f"{name}: found {key} {value:g} in epoch {line['epoch']} of metrics.jsonl, "
                    f"expected at most {LARGEST:g}, which can be drawn; remove this line"
                )


def _draw_training_panel(axes: Axes, runs: Runs, title: str, names: list[str]) -> None:
    """Draw the values `names` of all runs into one panel."""
    several = len(runs) > 1
    is_score = SCORE in names
    curves = _training_curves(runs, names)
    lowest = min((curve.y.min() for _, curve in curves), default=1.0)
    highest = max((curve.y.max() for _, curve in curves), default=1.0)
    is_logarithmic = title in LOGARITHMIC and lowest > 0
    if is_logarithmic:
        axes.set_yscale("log")
    draw_curves(axes, [curve for _, curve in curves], np.log if is_logarithmic else None)
    _mark_best(axes, runs, is_score)
    if title in FROM_ZERO and lowest >= 0:
        axes.set_ylim(bottom=0, top=1.05 if names == ["tfr"] and highest <= 1 else None)
    if not is_logarithmic:
        axes.ticklabel_format(axis="y", scilimits=(-2, 3), useOffset=False)
    finish(axes, f"{title}: pred, rec dashed" if several and is_score else title, "epoch")
    if is_score and not several:
        entries = [curve.entry(name.split("_")[1]) for name, curve in curves]
        draw_legend(axes, entries + _best_entry(next(iter(runs.values()))), fontsize=8)


def _training_curves(runs: Runs, names: list[str]) -> list[tuple[str, Curve]]:
    """Return the lines of a panel with the names of their values, run after run for each value."""
    several = len(runs) > 1
    curves = []
    for name in names:
        for (colour, style), lines in zip(run_looks(len(runs)), runs.values(), strict=True):
            points = [(line["epoch"], line[name]) for line in lines if name in line]
            if not points:
                continue
            marker = "x" if name == REC_SCORE else "o"
            look = {
                "linestyle": METHODS["rec"].line if name == REC_SCORE else style,
                "color": _colour(name, colour, several),
                "marker": marker if len(points) < MOST_EPOCHS else "",
            }
            x, y = np.array(points, np.float64).T
            curves.append((name, Curve(x, y, look)))
    return curves


def _colour(name: str, run_colour: str, several: bool) -> Any:
    """Return the colour of a value: that of its run; where two are in one panel, they differ."""
    if name == REC_SCORE:
        return shade(run_colour) if several else COLOURS[0]
    return COLOURS[1] if name == SCORE and not several else run_colour


def _mark_best(axes: Axes, runs: Runs, is_score: bool) -> None:
    """Mark the best epoch of each run by a star, that of a single run by a vertical line in all panels."""
    for (colour, _), lines in zip(run_looks(len(runs)), runs.values(), strict=True):
        best = best_epoch(lines)
        if best is None:
            continue
        if len(runs) == 1:
            axes.axvline(best["epoch"], color=GREY, linestyle=":", linewidth=1, zorder=1)
        if is_score:
            star = _star(_colour(SCORE, colour, len(runs) > 1), 13)
            axes.plot([best["epoch"]], [best[SCORE]], clip_on=False, zorder=5, **star)


def _star(colour: Any, size: float) -> dict[str, Any]:
    return {
        "color": colour,
        "marker": "*",
        "linestyle": "",
        "markersize": size,
        "markeredgecolor": "white",
        "markeredgewidth": 0.8,
    }


def _best_entry(lines: list[dict[str, Any]]) -> list[Entry]:
    best = best_epoch(lines)
    return (
        []
        if best is None
        else [(Line2D([], [], **_star(COLOURS[1], 11)), f"best epoch {best['epoch']}: {best[SCORE]:.2f} dB")]
    )


def _run_entries(runs: Runs) -> list[Entry]:
    """Return the legend's entries of several runs, with their best epochs."""
    entries = []
    for (colour, style), (name, lines) in zip(run_looks(len(runs)), runs.items(), strict=True):
        best = best_epoch(lines)
        words = (
            label(name)
            if best is None
            else f"{label(name)}: best epoch {best['epoch']}, {best[SCORE]:.2f} dB (★)"
        )
        entries.append((Line2D([], [], color=colour, linestyle=style, linewidth=2), words))
    return entries


# ---------------------------------------------------------------------------------- frames


@dataclass(frozen=True)
class MethodLine:
    """Line of a method in the panels of all metrics: its scores, its look and the words of its legend."""

    scores: Evaluation | ObjectScores
    method: str
    look: dict[str, Any]
    words: str


def frame_curves(runs: dict[str, Evaluation], across: int = 0) -> Drawing:
    """Return each metric at each predicted frame with its 95 % interval over sequences.

    Args:
        runs: the scores of each run by its label.
        across: panels side by side; 0: all of them.

    Raises `InputError` for runs that `Comparison` would not compare.
    """
    comparison = Comparison(runs)
    titles = {
        name: METRICS[name].title for name in of_scope(comparison.metrics, FRAME) if METRICS[name].plotted
    }
    return _frame_panels(titles, _method_lines(runs), comparison.first, across)


def object_curves(evaluation: Evaluation, across: int = 0) -> Drawing:
    """Return scores of objects at each predicted frame, as `frame_curves`. Raises `ValueError` for none."""
    objects = evaluation.objects
    if objects is None:
        raise ValueError("an evaluation without scores of objects")
    titles = {name: metric.title for name, metric in OBJECT_METRICS.items() if metric.plotted}
    lines = []
    for order, key in enumerate(objects.methods):
        method = METHODS[key]
        colour = _method_colour(method, COLOURS[(order - 1) % len(COLOURS)], several=False)
        look = {"linestyle": method.line or "-", "color": colour, "marker": method.marker}
        lines.append(MethodLine(objects, key, look, method.name(evaluation.protocol.n_sample)))
    return _frame_panels(titles, lines, evaluation, across)


def _frame_panels(titles: dict[str, str], lines: list[MethodLine], first: Evaluation, across: int) -> Drawing:
    """Return panels of some metrics, by their names with their titles, at each predicted frame."""
    metrics = list(titles)
    across = across or len(metrics)
    is_wide = across == len(metrics)
    protocol = first.protocol
    sequences = first.setting.sequences
    given = f"protocol {label(protocol.name)}, {protocol.n_past} frames given"
    words = f"{given}, {sequences} sequences, bands: 95 % intervals"
    if is_wide:
        width = 2.4 + 4.8 * across
        height = max(4.2, 0.8 + 0.2 * len(lines))
    else:
        width = 4.0 * across
        height = 2.7 * len(metrics) / across + 0.2 * len(lines) + 0.4

    def draw(figure: FigureBase) -> None:
        panels = figure.subplots(len(metrics) // across, across, squeeze=False).flat
        for axes, metric in zip(panels, metrics, strict=True):
            _draw_frame_panel(axes, metric, lines, protocol.n_future)
            finish(axes, titles[metric], "predicted frame")
        entries = [_frame_curve(line, metrics[0]).entry(line.words) for line in lines]
        place = "outside right center" if is_wide else "outside lower center"
        draw_legend(figure, entries, loc=place, fontsize=9)
        if is_wide:
            figure.supxlabel(words, fontsize=8, color=GREY, parse_math=False)
        else:
            figure.suptitle(textwrap.fill(words, 64 * across), fontsize=8, color=GREY, parse_math=False)

    return Drawing(width, height, draw)


def _draw_frame_panel(axes: Axes, metric: str, lines: list[MethodLine], n_future: int) -> None:
    """Draw one metric of all methods, with bands of their intervals."""
    for line in lines:
        _, low, high = (_finite(values) for values in line.scores.curve(line.method, metric))
        frames = np.arange(1, len(low) + 1)
        axes.fill_between(frames, low, high, color=line.look["color"], alpha=0.13, linewidth=0, zorder=1)
    draw_curves(axes, [_frame_curve(line, metric) for line in lines])
    axes.set_xlim(0.6, n_future + 0.4)


def _frame_curve(line: MethodLine, metric: str) -> Curve:
    mean = _finite(line.scores.curve(line.method, metric)[0])
    look = line.look if len(mean) <= MOST_MARKS else line.look | {"marker": ""}
    return Curve(np.arange(1, len(mean) + 1), mean, look)


def _finite(values: np.ndarray) -> np.ndarray:
    """Return `values` with NaN for infinities, which cannot be drawn."""
    return np.where(np.isfinite(values), values, np.nan)


def _method_lines(runs: dict[str, Evaluation]) -> list[MethodLine]:
    """Return the lines of each panel in the order in which they are drawn.

    Several runs have a colour each, the methods of a single run one each.
    """
    several = len(runs) > 1
    first = next(iter(runs))
    lines = []
    for (run_colour, run_style), (name, scores) in zip(run_looks(len(runs)), runs.items(), strict=True):
        methods = [key for key in scores.methods if not several or METHODS[key].overlaid]
        for order, key in enumerate(methods):
            method = METHODS[key]
            if method.is_grey and name != first:  # the same for all runs
                continue
            colour = run_colour if several else COLOURS[(order - 1) % len(COLOURS)]
            look = {
                "linestyle": method.line or run_style,
                "color": _method_colour(method, colour, several),
                "marker": method.marker,
            }
            title = method.name(scores.protocol.n_sample)
            words = f"{label(name)}: {title}" if several and not method.is_grey else title
            lines.append(MethodLine(scores, key, look, words))
    return lines


def _method_colour(method: Method, colour: Any, several: bool) -> Any:
    """Return the colour of a method's line; `colour` is that of its run or one of its own."""
    if method.is_grey:
        return GREY
    return shade(colour) if several and method.is_shaded else colour


# ---------------------------------------------------------------------------------- rollouts


def rollout_curves(curves: dict[str, tuple[np.ndarray, np.ndarray]], n_past: int) -> Drawing:
    """Return the PSNR at each frame of long predictions.

    Of many sequences the mean is drawn, and the range of nine in ten.

    Args:
        curves: by sequence the PSNR of the prediction and of the held given frame, [F] each.
        n_past: the time of the first predicted frame.
    """

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        drawn = (
            _mean_rollouts(axes, curves, n_past)
            if len(curves) > MOST_CURVES
            else _single_rollouts(curves, n_past)
        )
        draw_curves(axes, [curve for curve, _ in drawn])
        axes.set_xlim(0, None)
        finish(axes, "PSNR of each frame (dB)", "frame")
        draw_legend(
            figure, [curve.entry(words) for curve, words in drawn], loc="outside right upper", fontsize=9
        )

    return Drawing(11, 4.6, draw)


def _mean_rollouts(
    axes: Axes, curves: dict[str, tuple[np.ndarray, np.ndarray]], n_past: int
) -> list[tuple[Curve, str]]:
    drawn = []
    for column, (name, colour, style) in enumerate(
        (("prediction", COLOURS[0], "-"), ("given frame held", GREY, ":"))
    ):
        lines = [curve[column] for curve in curves.values()]
        table = np.full((len(lines), max(map(len, lines))), np.nan)
        for row, line in zip(table, lines, strict=True):
            row[: len(line)] = line
        times = np.arange(n_past, n_past + table.shape[1])
        mean = np.mean([line.mean() for line in lines])
        words = f"{name}: {mean:.2f} dB, mean of {len(lines)};\nband: nine of ten"
        drawn.append(
            (Curve(times, np.nanmean(table, 0), {"linestyle": style, "color": colour, "marker": ""}), words)
        )
        axes.fill_between(
            times, *np.nanquantile(table, (0.05, 0.95), 0), color=colour, alpha=0.13, linewidth=0, zorder=1
        )
    return drawn


def _single_rollouts(
    curves: dict[str, tuple[np.ndarray, np.ndarray]], n_past: int
) -> list[tuple[Curve, str]]:
    drawn = []
    for colour, (name, (predicted, held)) in zip(COLOURS, curves.items(), strict=False):
        times = np.arange(n_past, n_past + len(predicted))
        look = {"linestyle": "-", "color": colour, "marker": "o" if len(times) <= MOST_MARKS else ""}
        drawn.append(
            (Curve(times, predicted, look), f"sequence {label(name, 30)}: {predicted.mean():.2f} dB")
        )
        held_look = {"linestyle": ":", "color": shade(colour) if len(curves) > 1 else GREY, "marker": ""}
        drawn.append((Curve(times, held, held_look), f"given frame held: {held.mean():.2f} dB"))
    return drawn
