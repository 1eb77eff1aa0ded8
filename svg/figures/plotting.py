"""Curves of training and of scores over predicted frames, several runs overlaid."""

import textwrap
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D

from data_tools.errors import InputError

from ..evaluation.comparison import Comparison
from ..evaluation.results import TITLES, Evaluation, method_names
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

STYLES = {
    "rec": "--",
    "copy": ":",
    "pred_best": "-.",
    "pred_mean": (0, (1, 1)),
    "pred_other": (0, (4, 2)),
    "pred_swap": (0, (4, 1, 1, 1)),
    "pred_zero": (0, (2, 2)),
}
SCORE, REC_SCORE = "val_pred_psnr", "val_rec_psnr"
"""The best epoch is chosen by the first one."""
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
OVERLAID = ("copy", "pred", "pred_best")
"""Methods shown of each of several runs."""
MOST_MARKS, MOST_CURVES = 60, 6
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


# ------------------------------------------------------------------------------------------------------------ training


def training_curves(runs: Runs, across: int = 3) -> Drawing:
    """Return loss, MSE, KL, validation PSNR, beta and teacher-forcing ratio over epochs, `across` panels side by side.

    The best epoch of each run is marked. Raises `InputError` for values that are too large to be drawn.
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
    """Return the line of the first epoch with the highest validation PSNR of the prediction, None where none has any."""
    return max((line for line in lines if SCORE in line), key=lambda line: line[SCORE], default=None)


def _check_sizes(name: str, lines: list[dict[str, Any]]) -> None:
    for line in lines:
        for key, value in line.items():
            if abs(value) > LARGEST:
                raise InputError(
                    f"{name}: found {key} {value:g} in epoch {line['epoch']} of metrics.jsonl, expected at most {LARGEST:g}, "
                    "which can be drawn; remove this line"
                )


def _draw_training_panel(axes: Axes, runs: Runs, title: str, names: list[str]) -> None:
    several = len(runs) > 1
    curves: dict[str, list[Curve]] = {name: [] for name in names}
    for (colour, style), lines in zip(run_looks(len(runs)), runs.values(), strict=True):
        for name in names:
            points = np.array(
                [(line["epoch"], line[name]) for line in lines if name in line], np.float64
            ).reshape(-1, 2)
            marker = "" if len(points) >= 12 else "x" if name == REC_SCORE else "o"
            look = {
                "linestyle": STYLES["rec"] if name == REC_SCORE else style,
                "color": _colour(name, colour, several),
            }
            if len(points):
                curves[name].append(Curve(*points.T, look | {"marker": marker}))
    drawn = [curve for found in curves.values() for curve in found]
    lowest = min((curve.y.min() for curve in drawn), default=1.0)
    highest = max((curve.y.max() for curve in drawn), default=1.0)
    is_logarithmic, is_score = title in LOGARITHMIC and lowest > 0, SCORE in names
    if is_logarithmic:
        axes.set_yscale("log")
    draw_curves(axes, drawn, np.log if is_logarithmic else None)
    _mark_best(axes, runs, is_score)
    if title in FROM_ZERO and lowest >= 0:
        axes.set_ylim(bottom=0, top=1.05 if names == ["tfr"] and highest <= 1 else None)
    if not is_logarithmic:
        axes.ticklabel_format(axis="y", scilimits=(-2, 3), useOffset=False)
    finish(axes, f"{title}: pred, rec dashed" if several and is_score else title, "epoch")
    if is_score and not several:
        entries = [found[0].entry(name.split("_")[1]) for name, found in curves.items() if found]
        draw_legend(axes, entries + _best_entry(next(iter(runs.values()))), fontsize=8)


def _colour(name: str, run_colour: str, several: bool) -> Any:
    """Return the colour of a value: that of its run; where two are in one panel, they differ."""
    if name == REC_SCORE:
        return shade(run_colour) if several else COLOURS[0]
    return COLOURS[1] if name == SCORE and not several else run_colour


def _mark_best(axes: Axes, runs: Runs, is_score: bool) -> None:
    """Mark the best epoch of each run by a star on its score, and of a single run by a vertical line in every panel."""
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
        "color": colour, "marker": "*", "linestyle": "", "markersize": size, "markeredgecolor": "white", "markeredgewidth": 0.8,
    }  # fmt: skip


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


# -------------------------------------------------------------------------------------------------------------- frames


def frame_curves(runs: dict[str, Evaluation], across: int = 0) -> Drawing:
    """Return each metric at each predicted frame with its 95 % interval over sequences.

    Args:
        runs: the scores of each run by its label.
        across: panels side by side; 0: all of them.

    Raises `InputError` for runs that `Comparison` would not compare.
    """
    comparison = Comparison(runs)
    metrics = [name for name in comparison.metrics if name != "mse"]  # of which PSNR says the same
    across = across or len(metrics)
    is_wide = across == len(metrics)
    shown = _shown_methods(runs)
    protocol, sequences = comparison.first.protocol, comparison.first.setting.sequences
    words = f"protocol {label(protocol.name)}, {protocol.n_past} frames given, {sequences} sequences, bands: 95 % intervals"
    width = 2.4 + 4.8 * across if is_wide else 4.0 * across
    height = (
        max(4.2, 0.8 + 0.2 * len(shown)) if is_wide else 2.7 * len(metrics) / across + 0.2 * len(shown) + 0.4
    )

    def draw(figure: FigureBase) -> None:
        panels = figure.subplots(len(metrics) // across, across, squeeze=False).flat
        for axes, name in zip(panels, metrics, strict=True):
            curves = []
            for scores, method, look, _ in shown:
                mean, low, high = (
                    np.where(np.isfinite(line), line, np.nan) for line in scores.curve(method, name)
                )
                frames = np.arange(1, len(mean) + 1)
                curves.append(
                    Curve(frames, mean, look if len(frames) <= MOST_MARKS else look | {"marker": ""})
                )
                axes.fill_between(frames, low, high, color=look["color"], alpha=0.13, linewidth=0, zorder=1)
            draw_curves(axes, curves)
            axes.set_xlim(0.6, protocol.n_future + 0.4)
            finish(axes, TITLES[name], "predicted frame")
        entries = [curve.entry(legend) for curve, (*_, legend) in zip(curves, shown, strict=True)]
        draw_legend(
            figure, entries, loc="outside right center" if is_wide else "outside lower center", fontsize=9
        )
        if is_wide:
            figure.supxlabel(words, fontsize=8, color=GREY, parse_math=False)
        else:
            figure.suptitle(textwrap.fill(words, 64 * across), fontsize=8, color=GREY, parse_math=False)

    return Drawing(width, height, draw)


def _shown_methods(runs: dict[str, Evaluation]) -> list[tuple[Evaluation, str, dict[str, Any], str]]:
    """Return the lines of each panel in the order in which they are drawn: scores, method, look, words of the legend."""
    several = len(runs) > 1
    shown = []
    for number, ((run_colour, run_style), (name, scores)) in enumerate(
        zip(run_looks(len(runs)), runs.items(), strict=True)
    ):
        # Copying is the same for all runs.
        overlaid = OVERLAID if number == 0 else OVERLAID[1:]
        names = method_names(scores.protocol.n_sample)
        for order, method in enumerate(
            method for method in scores.methods if not several or method in overlaid
        ):
            # Several runs: a colour each. One run: a colour for each method.
            colour = run_colour if several else COLOURS[(order - 1) % len(COLOURS)]
            if method == "copy":
                colour = GREY
            elif several and method == "pred_best":
                colour = shade(colour)
            style = STYLES.get(method, run_style)
            look = {"linestyle": style, "color": colour, "marker": "^" if method == "pred_best" else "o"}
            legend = f"{label(name)}: {names[method]}" if several and method != "copy" else names[method]
            shown.append((scores, method, look, legend))
    return shown


# ------------------------------------------------------------------------------------------------------------ rollouts


def rollout_curves(curves: dict[str, tuple[np.ndarray, np.ndarray]], n_past: int) -> Drawing:
    """Return the PSNR at each frame of long predictions. Of many sequences the mean is drawn, and the range of nine in ten.

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
