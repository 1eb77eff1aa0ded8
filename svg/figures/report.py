"""One self-contained HTML page about a run: videos with play, pause and a slider, curves, tables.

The page is the template ``report.html``.
"""

import io
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from ..evaluation.methods import METHODS
from ..evaluation.metrics import psnr
from ..evaluation.results import Evaluation
from ..evaluation.tables import Table
from .drawing import Drawing, save
from .page import Group, Panel, Row, render_page

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluation.futures import SequenceFutures

HEAT_LIMIT = 0.5
"""Error of a pixel, mean over its colours, at which the heat maps are at their brightest."""
SHOWN = 7
"""Sampled futures that are shown of each sequence, from the best to the worst in equal steps."""
MOST_FRAMES = 100
"""Frames that are shown of a longer video, evenly spread: the page would become too large."""


# ---------------------------------------------------------------------------------------------- contents


def choose_sequences(evaluation: Evaluation) -> dict[str, int]:
    """Return the numbers of the best, median and worst sequence by the PSNR of pred, by their titles."""
    order = np.argsort(evaluation.per_sequence("pred", "psnr"))
    chosen = {"best": order[-1], "median": order[len(order) // 2], "worst": order[0]}
    kinds: dict[int, list[str]] = {}
    for kind, number in chosen.items():
        kinds.setdefault(int(number), []).append(kind)
    names = evaluation.sequences
    return {f"{' and '.join(words)}: sequence {names[number]}": number for number, words in kinds.items()}


def shown_times(frames: int) -> list[int]:
    """Return the times of the shown frames of a video."""
    return sorted({round(time) for time in np.linspace(0, frames - 1, min(frames, MOST_FRAMES))})


def shown_sequence(
    title: str,
    futures: "SequenceFutures",
    evaluation: Evaluation,
    times: list[int],
    poses: np.ndarray | None = None,
    objects: dict[str, np.ndarray] | None = None,
) -> Group:
    """Return the videos of a sequence with their scores, at `times`; `poses` [T,H,W,3] among them.

    The main ones stand in a row, its sampled futures from best to worst below.

    `objects` are the videos of `svg.figures.objects.object_videos`.
    """
    from .rendering import to_video

    protocol = evaluation.protocol
    given = sum(time < protocol.n_past for time in times)

    def score(future: "Tensor") -> "Tensor":
        return psnr(future, futures.truth, protocol.psnr, protocol.psnr_epsilon)

    def panel(label: str, future: "Tensor") -> Panel:
        values = score(future)
        words = [""] * protocol.n_past + [f"{value:.1f} dB here" for value in values.tolist()]
        video = to_video(futures.past, future)[times]
        return Panel(f"{label}, {values.mean():.2f} dB", video, [words[time] for time in times], given)

    truth = Panel("truth", to_video(futures.past, futures.truth)[times], given=given)
    pred = panel("pred", futures.pred)
    error = Panel("error of pred", error_map(pred.frames, truth.frames), given=given)
    pose = [] if poses is None else [Panel("pose", poses[times], given=given)]
    copied = panel("copy", futures.past[-1:].expand_as(futures.truth))
    named = {"found_ref": "objects found in the truth", "found_pred": "objects found in pred"}
    found = [Panel(named[name], video[times], given=given) for name, video in (objects or {}).items()]
    main = [truth, pred, error, *found, *pose, panel("rec", futures.rec), copied]
    order = np.argsort([-score(future).mean().item() for future in futures.samples])
    ranks = sorted({round(rank) for rank in np.linspace(0, len(order) - 1, SHOWN)}) if len(order) else []
    samples = [panel(_rank_name(rank, len(order)), futures.samples[order[rank]]) for rank in ranks]
    rows = [Row(main)]
    if samples:
        words = "Sampled futures, best to worst:" if len(samples) > 1 else "A sampled future:"
        rows.append(Row(samples, words, is_small=True))
    return Group(title, rows)


def _rank_name(rank: int, count: int) -> str:
    """Return what stands above the sample of this rank among `count`."""
    if count == 1:
        return "sample"
    return {0: "best", count - 1: "worst"}.get(rank, f"{rank + 1} of {count}")


def error_map(video: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the absolute difference of two videos uint8 [T,H,W,3], mean over channels, in colours."""
    from matplotlib import colormaps

    error = np.abs(video.astype(np.float32) - truth).mean(-1) / 255
    return colormaps["inferno"](np.clip(error / HEAT_LIMIT, 0, 1), bytes=True)[..., :3]


def figure_svg(name: str, wide: Drawing, narrow: Drawing) -> str:
    """Return a figure as SVG elements: a `wide` one and, for narrow screens, a `narrow` one."""
    elements = []
    for kind, drawing in {"wide": wide, "narrow": narrow}.items():
        file = io.BytesIO()
        save([drawing], file, "svg", salt=f"{name} {kind}")
        text = file.getvalue().decode()
        elements.append(f'<div class="{kind}">{text[text.index("<svg") :]}</div>')
    return "".join(elements)


# ---------------------------------------------------------------------------------------------- the page


def build_report(
    title: str,
    evaluation: Evaluation,
    sequences: list[Group],
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
    words = _word_table("protocol", evaluation.in_words())
    n_past = evaluation.protocol.n_past
    predicted = f"{times[-1] - n_past + 1}"
    now = [
        f"frame {time}, given"
        if time < n_past
        else f"frame {time}, predicted {time - n_past + 1} of {predicted}"
        for time in times
    ]
    return render_page(
        "report.html",
        title,
        sequences,
        now,
        next(place for place, time in enumerate(times) if time >= n_past),
        fps,
        protocol=evaluation.protocol,
        setting=evaluation.setting,
        times=times,
        is_thinned=times != list(range(len(times))),
        scores=Markup(evaluation.table().html()),
        object_tables=[Markup(table.html()) for table in evaluation.object_tables()],
        object_words=Markup(_word_table("object scores", evaluation.object_words()).html()),
        methods=Markup(_method_table(evaluation).html()),
        findings=evaluation.findings(),
        heat_limit=f"{HEAT_LIMIT:g}",
        figures={heading: Markup(svg) for heading, svg in figures.items()},
        description=Markup(words.html()),
        tables={heading: Markup(table.html()) for heading, table in tables.items()},
    )


def _word_table(title: str, words: dict[str, str]) -> Table:
    return Table([title, ""], [[name, line] for name, line in words.items()])


def _method_table(evaluation: Evaluation) -> Table:
    """Return the meaning of each row of the scores."""
    tables = [evaluation.table(), *evaluation.object_tables()]
    titles = {row[0] for table in tables for row in table.rows}
    methods = {method.name(evaluation.protocol.n_sample): method.meaning for method in METHODS.values()}
    return Table(
        ["row", "meaning"], [[title, meaning] for title, meaning in methods.items() if title in titles]
    )
