"""Curves of training and of scores over predicted frames, several runs overlaid."""

from itertools import cycle
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .evaluation import method_names

# Okabe & Ito's colours: told apart by the colour-blind too
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = {"rec": "--", "pred": "-", "copy": ":", "pred_best": "-.", "pred_mean": (0, (1, 1))}
PANELS = {
    "loss": ["loss"],
    "MSE": ["mse"],
    "KL (nats)": ["kl"],
    "validation PSNR (dB)": ["val_rec_psnr", "val_pred_psnr"],
    "KL weight beta": ["beta"],
    "teacher-forcing ratio": ["tfr"],
}
OVERLAID = ("copy", "pred", "pred_best")  # methods shown of each of several runs
FROM_ZERO = ("KL weight beta", "teacher-forcing ratio")


def plot_training(runs: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Loss, MSE, KL, PSNR, beta and teacher-forcing ratio over epochs; `runs` gives the metrics of each run by its label."""
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(2, 3).flat, PANELS.items(), strict=True):
        for colour, (label, lines) in zip(cycle(COLOURS), runs.items(), strict=False):
            for name in names:
                points = [(line["epoch"], line[name]) for line in lines if name in line]
                if not points:
                    continue
                kind = name.split("_")[1] if name.startswith("val_") else ""
                legend = " ".join(part for part in (label if len(runs) > 1 else "", kind) if part)
                marker = "" if len(points) >= 12 else "x" if kind == "rec" else "o"
                look = {"linestyle": STYLES.get(kind, "-"), "color": colour, "marker": marker, "ms": 4}
                axes.plot(*zip(*points, strict=True), label=legend, clip_on=False, **look)
        if title in ("loss", "MSE"):
            axes.set_yscale("log")
        elif title in FROM_ZERO:
            axes.set_ylim(bottom=0)
        _finish(axes, title, "epoch")
    figure.savefig(path, dpi=130)


def plot_frames(runs: dict[str, pd.DataFrame], path: Path) -> None:
    """PSNR and SSIM at each predicted frame; `runs` gives (method, frame) -> psnr, ssim of each run by its label."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, 2), {"psnr": "PSNR (dB)", "ssim": "SSIM"}.items(), strict=True):
        for number, (label, scores) in enumerate(runs.items()):
            methods = [method for method in scores.index.unique(0) if len(runs) == 1 or method in OVERLAID]
            for order, method in enumerate(methods):
                # Several runs: a colour each. One run: a colour for each method.
                colour = COLOURS[(number if len(runs) > 1 else order) % len(COLOURS)]
                name_shown = method_names().get(method, method)
                legend = f"{label}: {name_shown}" if len(runs) > 1 else name_shown
                line = scores.loc[method][name]
                axes.plot(line.index, line, linestyle=STYLES.get(method, "-"), color=colour, label=legend, marker="o", ms=3)
        _finish(axes, title, "predicted frame", legend=False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)


def _finish(axes: Any, title: str, x: str, legend: bool = True) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if legend and any(label for label in axes.get_legend_handles_labels()[1]):
        axes.legend(frameon=False, fontsize=8)
