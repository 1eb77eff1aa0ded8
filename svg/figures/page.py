"""Self-contained HTML pages of videos that run together, with play, pause and a slider.

A page is a template, such as ``report.html``, that extends ``page.html``.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image

from ..evaluation.tables import one_line

ACROSS = 16
"""Frames in a row of the picture that holds a video."""


@dataclass(frozen=True)
class Panel:
    """One video.

    Args:
        label: what stands above it.
        frames: uint8 [T,H,W,3]; the last one stays where others are longer.
        scores: what stands below each frame, or nothing.
        given: how many of the first frames are observed rather than predicted.
        rings: places that have a ring in every frame, [N,2], pixels to the right and down.
        crosses: places that have a cross, for each frame [N,2].
    """

    label: str
    frames: np.ndarray
    scores: Sequence[str] = ()
    given: int = 0
    rings: Sequence[Sequence[float]] = ()
    crosses: Sequence[Sequence[Sequence[float]]] = ()


@dataclass(frozen=True)
class Row:
    """Videos side by side, below a line of words."""

    panels: list[Panel]
    words: str = ""
    is_small: bool = False


@dataclass(frozen=True)
class Group:
    """Rows of videos below a title."""

    title: str
    rows: list[Row]


def render_page(
    template: str,
    title: str,
    groups: Sequence[Group],
    now: Sequence[str],
    start: int,
    fps: float,
    **values: Any,
) -> str:
    """Return the page that `template` makes of `values`; it escapes every text that is no `Markup`.

    Args:
        now: what the page says of each frame.
        start: the frame that is shown first.
        fps: frames a second at normal speed.
    """
    environment = Environment(
        loader=PackageLoader("svg", "figures"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["line"] = one_line
    sequences = [
        {"title": one_line(group.title), "rows": list(map(_row_data, group.rows))} for group in groups
    ]
    data = {"fps": fps, "now": list(now), "start": start, "sequences": sequences}
    return environment.get_template(template).render(title=title, data=data, **values)


def _row_data(row: Row) -> dict[str, Any]:
    return {"words": row.words, "is_small": row.is_small, "panels": list(map(_panel_data, row.panels))}


def _panel_data(panel: Panel) -> dict[str, Any]:
    """Return a video as the page's script reads it."""
    frames, height, width, _ = panel.frames.shape
    return {
        "label": panel.label,
        "scores": list(panel.scores),
        "given": panel.given,
        "rings": np.asarray(panel.rings, float).round(2).tolist(),
        "crosses": [np.asarray(places, float).round(2).tolist() for places in panel.crosses],
        "frames": frames,
        "across": min(frames, ACROSS),
        "width": width,
        "height": height,
        "sprite": sprite(panel.frames),
    }


def sprite(video: np.ndarray) -> str:
    """Return the frames uint8 [T,H,W,3] as one PNG, `ACROSS` of them in a row, in a data URI."""
    frames, height, width, _ = video.shape
    across = min(frames, ACROSS)
    rows = -(-frames // across)
    sheet = np.zeros((rows * across, height, width, 3), np.uint8)
    sheet[:frames] = video
    sheet = sheet.reshape(rows, across, height, width, 3).transpose(0, 2, 1, 3, 4)
    file = io.BytesIO()
    Image.fromarray(sheet.reshape(rows * height, across * width, 3)).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
