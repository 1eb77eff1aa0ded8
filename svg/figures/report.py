"""One self-contained HTML page about a run: videos with play, pause and a slider, curves, tables."""

import base64
import html
import io
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from ..evaluation.results import Evaluation
from ..evaluation.tables import Table, one_line
from .drawing import Drawing, save

ACROSS = 16
HEAT_LIMIT = 0.5
"""Error of a pixel, mean over its colours, at which the heat maps are at their brightest."""


@dataclass(frozen=True)
class Panel:
    """One video: uint8 `frames` [T,H,W,3], and its score at every frame in words, or nothing."""

    label: str
    frames: np.ndarray
    scores: list[str]


@dataclass(frozen=True)
class ShownSequence:
    """The videos of a sequence: the `main` ones in a row, its sampled futures from best to worst below."""

    title: str
    main: list[Panel]
    samples: list[Panel]


def error_map(video: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Absolute difference of two videos uint8 [T,H,W,3], mean over colours, in colours from black to light yellow."""
    from matplotlib import colormaps

    error = np.abs(video.astype(np.float32) - truth).mean(-1) / 255
    return colormaps["inferno"](np.clip(error / HEAT_LIMIT, 0, 1), bytes=True)[..., :3]


def figure_svg(name: str, wide: Drawing, narrow: Drawing) -> str:
    """Return a figure as SVG elements, of which the page shows the `wide` one or, on narrow screens, the `narrow` one."""
    elements = []
    for kind, drawing in {"wide": wide, "narrow": narrow}.items():
        file = io.BytesIO()
        save([drawing], file, "svg", salt=f"{name} {kind}")
        text = file.getvalue().decode()
        elements.append(f'<div class="{kind}">{text[text.index("<svg") :]}</div>')
    return "".join(elements)


def build_report(
    title: str,
    evaluation: Evaluation,
    sequences: list[ShownSequence],
    figures: dict[str, str],
    tables: dict[str, Table],
    fps: float,
    times: list[int],
) -> str:
    """Return the page.

    Args:
        figures: SVG elements, such as those of `figure_svg`, by their headings.
        tables: details, by their headings.
        fps: frames a second at normal speed.
        times: of the videos' frames.
    """
    protocol = Table(["protocol", ""], [[name, line] for name, line in evaluation.in_words().items()])
    data = {
        "fps": fps,
        "given": evaluation.protocol.n_past,
        "times": times,
        "sequences": [
            {
                "title": one_line(shown.title),
                "main": [_panel(p) for p in shown.main],
                "samples": [_panel(p) for p in shown.samples],
            }
            for shown in sequences
        ],
    }
    setting, thinned = evaluation.setting, times != list(range(len(times)))
    parts = {
        "TITLE": _escaped(title),
        "LEAD": _escaped(
            f"{setting.scored}, {evaluation.protocol.n_past} frames given, "
            f"{evaluation.protocol.n_future} predicted{f', {len(times)} frames of each are shown' * thinned}. {setting.weights}."
        ),
        "HEAT_LIMIT": f"{HEAT_LIMIT:g}",
        "SHORT": _escaped(
            f"Protocol {evaluation.protocol.name}: {evaluation.protocol.n_sample} futures a sequence; how each score is taken "
            "stands below. In brackets 95 % bootstrap intervals over sequences; gain: PSNR beyond copying the last frame."
        ),
        "SCORES": evaluation.table().html(),
        "FINDINGS": "".join(f"<li>{_escaped(line)}</li>" for line in evaluation.findings()),
        "PROTOCOL": protocol.html(),
        "FIGURES": "".join(
            f"<figure><figcaption>{_escaped(name)}</figcaption>{svg}</figure>"
            for name, svg in figures.items()
        ),
        "DETAILS": "".join(
            f"<details><summary>{_escaped(name)}</summary>{table.html()}</details>"
            for name, table in tables.items()
        ),
        "DATA": json.dumps(data).replace("<", "\\u003c"),
    }
    page = files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    for name, value in parts.items():
        page = page.replace(f"<!--{name}-->", value)
    return page


def _escaped(text: str) -> str:
    return html.escape(one_line(text))


def _panel(panel: Panel) -> dict[str, Any]:
    """For the page: the frames in one PNG, `ACROSS` of them in a row."""
    frames, height, width, _ = panel.frames.shape
    rows = -(-frames // ACROSS)
    sheet = np.zeros((rows * ACROSS, height, width, 3), np.uint8)
    sheet[:frames] = panel.frames
    sheet = (
        sheet.reshape(rows, ACROSS, height, width, 3)
        .transpose(0, 2, 1, 3, 4)
        .reshape(rows * height, ACROSS * width, 3)
    )
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "PNG", optimize=True)
    return {
        "label": panel.label, "scores": panel.scores, "frames": frames, "across": ACROSS, "width": width, "height": height,
        "sprite": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode(),
    }  # fmt: skip
