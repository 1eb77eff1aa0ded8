"""Curves of training and of scores over predicted frames, several runs overlaid."""

import contextlib
from itertools import cycle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from data_tools.files import whole_file

from .comparison import Comparison
from .results import TITLES, Evaluation, method_names

# Okabe & Ito's colours: told apart by the colour-blind too
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#777777"
STYLES = {
    "rec": "--",
    "copy": ":",
    "pred_best": "-.",
    "pred_mean": (0, (1, 1)),
    "pred_other": (0, (4, 2)),
    "pred_swap": (0, (4, 1, 1, 1)),
    "pred_zero": (0, (2, 2)),
}
PANELS = {
    "loss": ["loss"],
    "MSE": ["mse"],
    "KL (nats)": ["kl"],
    "validation PSNR (dB)": ["val_rec_psnr", "val_pred_psnr"],
    "KL weight beta": ["beta"],
    "teacher-forcing ratio": ["tfr"],
}
OVERLAID = ("copy", "pred", "pred_best")  # methods shown of each of several runs
MOST_MARKS, MOST_CURVES = 60, 6
FROM_ZERO = ("KL weight beta", "teacher-forcing ratio")


def plot_training(runs: dict[str, list[dict[str, Any]]], file: Path | BinaryIO, form: str = "png") -> None:
    """Loss, MSE, KL, PSNR, beta and teacher-forcing ratio over epochs; `runs` gives the metrics of each run by its label."""
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    several = len(runs) > 1
    for axes, (title, names) in zip(figure.subplots(2, 3).flat, PANELS.items(), strict=True):
        for number, (colour, (label, lines)) in enumerate(zip(cycle(COLOURS), runs.items(), strict=False)):
            for name in names:
                points = [(line["epoch"], line[name]) for line in lines if name in line]
                if not points:
                    continue
                kind = name.split("_")[1] if name.startswith("val_") else ""
                legend = label if several else kind
                marker = "" if len(points) >= 12 else "x" if kind == "rec" else "o"
                width = 1.2 + 0.8 * (len(runs) - 1 - number) if several and not kind else 1.5  # lines that coincide stay visible
                look = {"linestyle": STYLES.get(kind, "-"), "color": colour, "marker": marker, "ms": 4, "lw": width}
                axes.plot(*zip(*points, strict=True), label=legend, clip_on=False, **look)
        if title in ("loss", "MSE"):
            axes.set_yscale("log")
        elif title in FROM_ZERO:
            axes.set_ylim(bottom=0, top=1.05 if names == ["tfr"] else None)
        if title not in ("loss", "MSE"):
            axes.ticklabel_format(axis="y", scilimits=(-2, 3), useOffset=False)
        if several and any(name.startswith("val_") for name in names):
            title += ": pred, rec dashed"
        _finish(axes, title, "epoch", legend=not several)
    if several:
        handles, labels = figure.axes[0].get_legend_handles_labels()  # of the loss, which every run has
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False, fontsize=9)
    _save(figure, file, form)


def plot_frames(runs: dict[str, Evaluation], file: Path | BinaryIO, form: str = "png") -> None:
    """Each metric at each predicted frame with its 95 % interval over sequences; `runs` gives a run's scores by its label.

    Raises `InputError` for runs that `Comparison` would not compare.
    """
    first, *others = Comparison(runs).evaluations.values()
    # those that all have; of MSE PSNR says the same
    metrics = [name for name in first.metrics if name != "mse" and all(name in other.metrics for other in others)]
    figure = Figure(figsize=(2.4 + 4.8 * len(metrics), 4.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(metrics)), metrics, strict=True):
        for number, (label, scores) in enumerate(runs.items()):
            # Copying is the same for all runs.
            overlaid = OVERLAID if number == 0 else OVERLAID[1:]
            methods = [method for method in scores.methods if len(runs) == 1 or method in overlaid]
            for order, method in enumerate(methods):
                # Several runs: a colour each. One run: a colour for each method.
                colour = GREY if method == "copy" else COLOURS[(number if len(runs) > 1 else order - 1) % len(COLOURS)]
                shown = method_names(scores.protocol.n_sample)[method]
                legend = f"{label}: {shown}" if len(runs) > 1 and method != "copy" else shown
                mean, low, high = (np.where(np.isfinite(line), line, np.nan) for line in scores.curve(method, name))
                frames = np.arange(1, len(mean) + 1)
                marker = "" if len(frames) > MOST_MARKS else "^" if method == "pred_best" else "o"
                axes.plot(frames, mean, linestyle=STYLES.get(method, "-"), color=colour, label=legend, marker=marker, ms=3.5)
                axes.fill_between(frames, low, high, color=colour, alpha=0.13, linewidth=0)
        axes.set_xlim(0.6, len(mean) + 0.4)
        _finish(axes, TITLES[name], "predicted frame", legend=False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)
    protocol, setting = first.protocol, first.setting
    words = f"protocol {protocol.name}, {protocol.n_past} frames given, {setting.sequences} sequences, bands: 95 % intervals"
    figure.supxlabel(words, fontsize=8, color=GREY)
    _save(figure, file, form)


def _save(figure: Figure, file: Path | BinaryIO, form: str = "png") -> None:
    with whole_file(file) if isinstance(file, Path) else contextlib.nullcontext(file) as opened:
        figure.savefig(opened, dpi=130, format=form)


def _finish(axes: Any, title: str, x: str, legend: bool = True) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if legend and any(label for label in axes.get_legend_handles_labels()[1]):
        axes.legend(frameon=False, fontsize=8)


def plot_rollouts(curves: dict[str, tuple[np.ndarray, np.ndarray]], n_past: int, file: Path | BinaryIO, form: str = "png") -> None:
    """PSNR at each frame of long predictions; `curves` gives by label that of prediction and of the held given frame, [F].

    Of many sequences the mean is drawn, and the range that nine of ten lie in.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes = figure.subplots()
    if len(curves) > MOST_CURVES:
        for column, (name, colour, style) in enumerate((("prediction", COLOURS[0], "-"), ("given frame held", GREY, ":"))):
            lines = [curve[column] for curve in curves.values()]
            table = np.full((len(lines), max(map(len, lines))), np.nan)
            for row, line in zip(table, lines, strict=True):
                row[: len(line)] = line
            times = np.arange(n_past, n_past + table.shape[1])
            mean = np.mean([line.mean() for line in lines])
            label = f"{name}: {mean:.2f} dB, mean of {len(lines)};\nband: nine of ten"
            axes.plot(times, np.nanmean(table, 0), style, color=colour, label=label)
            axes.fill_between(times, *np.nanquantile(table, (0.05, 0.95), 0), color=colour, alpha=0.13, linewidth=0)
    else:
        for colour, (label, (predicted, held)) in zip(COLOURS, curves.items(), strict=False):
            times = np.arange(n_past, n_past + len(predicted))
            name = "sequence " + label.replace("$", r"\$")
            marker = "o" if len(times) <= MOST_MARKS else ""
            axes.plot(times, predicted, marker=marker, ms=3.5, color=colour, lw=1.2, label=f"{name}: {predicted.mean():.2f} dB")
            held_colour = colour if len(curves) > 1 else GREY
            axes.plot(times, held, color=held_colour, lw=1, ls=":", label=f"given frame held: {held.mean():.2f} dB")
    axes.set_xlim(0, None)
    _finish(axes, "PSNR of each frame (dB)", "frame", legend=False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=9)
    _save(figure, file, form)
