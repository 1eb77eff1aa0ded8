"""A plot of models: how often each reaches its goal, over each of its scores."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..evaluation.intervals import Interval
from .drawing import GREY, Drawing, draw_legend, legend_columns, run_looks, save

MARKERS = "os^Dv<>Pp*"


def plot_success(
    success: Mapping[str, Interval],
    scores: Mapping[str, Mapping[str, Interval]],
    correlations: Mapping[str, float],
    words: str,
    file: Path,
) -> None:
    """Write a picture with a panel for each score: success, with intervals, over it.

    Args:
        success: of each model by its label, a share.
        scores: by their titles, of each model.
        correlations: the rank correlation of each score with success.
        words: what the plot is of.
    """
    across = min(3, len(scores))
    down = -(-len(scores) // across)
    looks: dict[str, dict[str, Any]] = {
        label: {"color": colour, "marker": MARKERS[number % len(MARKERS)], "linestyle": ""}
        for number, (label, (colour, _)) in enumerate(zip(success, run_looks(len(success)), strict=True))
    }

    def draw(figure: FigureBase) -> None:
        panels = list(figure.subplots(down, across, squeeze=False, sharey=True).flat)
        for axes, (title, values) in zip(panels, scores.items(), strict=False):
            _draw_panel(axes, values, success, looks)
            axes.set_title(f"rank correlation {correlations[title]:+.2f}", loc="left", fontsize=10)
            axes.set_xlabel(title, parse_math=False)
        for axes in panels[len(scores) :]:
            axes.set_visible(False)
        for axes in panels[::across]:
            axes.set_ylabel("success %")
        entries = [(Line2D([], [], **look), label) for label, look in looks.items()]
        columns = legend_columns(entries, 3.6 * across)
        draw_legend(figure, entries, loc="outside lower center", fontsize=9, ncols=columns)
        figure.suptitle(words, fontsize=8, color=GREY, parse_math=False)

    save([Drawing(3.6 * across, 3.0 * down + 0.3 * len(success) / 2, draw)], file)


def _draw_panel(
    axes: Axes,
    values: Mapping[str, Interval],
    success: Mapping[str, Interval],
    looks: Mapping[str, dict[str, Any]],
) -> None:
    """Draw success over one score: a mark for each model, with bars of both intervals."""
    for label, share in success.items():
        value = values[label]
        across = [[value.mean - value.low], [value.high - value.mean]] if value.is_bounded else None
        up = [[100 * (share.mean - share.low)], [100 * (share.high - share.mean)]]
        axes.errorbar(
            value.mean, 100 * share.mean, yerr=up, xerr=across, markersize=6, elinewidth=0.8, **looks[label]
        )
    axes.set_ylim(-3, 103)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
