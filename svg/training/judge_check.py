"""How well a judge sees: on true frames, and on frames in which objects were changed by known amounts."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_tools.camera import Camera

from ..evaluation.judge import SIZE, Judge, correction, outlines
from ..evaluation.object_tables import LEAST_AREA, TRUTH, ObjectScores, joined
from ..evaluation.objects import FRAMES_AT_A_TIME, ObjectScorer
from ..evaluation.tables import Table
from ..models.predictor import as_images
from ..sequences import SequenceDataset, evaluation_batches
from .judge import Changes, Scenes, change_object, soft_masks

N_PAST = 2
SHIFT = (5.0, -3.0)
"""Pixels to the right and down by which an object is moved."""
CHANGES: dict[str, tuple[float, tuple[float, float], float]] = {
    "as it is": (1.0, (0, 0), 0.0),
    "moved by 5.8 pixels": (1.0, SHIFT, 0.0),
    "blurred, 1 pixel": (1.0, (0, 0), 1.0),
    "blurred, 2 pixels": (1.0, (0, 0), 2.0),
    "moved by 5.8 pixels and blurred, 2 pixels": (1.0, SHIFT, 2.0),
    "faded to 80 %": (0.8, (0, 0), 0.0),
    "faded to 60 %": (0.6, (0, 0), 0.0),
    "faded to 40 %": (0.4, (0, 0), 0.0),
    "faded to 20 %": (0.2, (0, 0), 0.0),
    "taken away": (0.0, (0, 0), 0.0),
}
"""By name: strength, shift in pixels to the right and down, standard deviation of the blur in pixels."""


@dataclass(frozen=True)
class Reading:
    """What the judge says of N objects: errors on the table in millimetres [N], and if it finds them [N]."""

    errors: np.ndarray
    is_found: np.ndarray


def score_true_frames(judge: Judge, dataset: SequenceDataset) -> ObjectScores:
    """Return the scores of the true frames themselves after the first `N_PAST` ones of all sequences."""
    scorer = ObjectScorer(dataset, N_PAST, judge)
    parts = []
    for numbers in evaluation_batches(len(dataset), 8):
        batch = dataset.batch([(number, 0) for number in numbers])
        parts.append(scorer.score(numbers, as_images(batch["frames"]), {}))
    return joined(parts)


def read_changed(judge: Judge, scenes: Scenes, changes: tuple[float, tuple[float, float], float]) -> Reading:
    """Return what the judge says of one object of each scene after a change of it.

    It is the one that the frame in the middle shows most of, among those that can be seen in the last
    observed frame.
    """
    strength, shift, blur = changes
    count, length = scenes.labels.shape[:2]
    everywhere = torch.arange(count)
    observed, later = (torch.full((count,), time) for time in (N_PAST - 1, length // 2))
    area = scenes.masks(everywhere, later).sum((-2, -1)) * (
        scenes.masks(everywhere, observed).sum((-2, -1)) >= LEAST_AREA
    )
    most, chosen = area.max(1)
    rows = (most >= LEAST_AREA).nonzero()[:, 0]
    number, first, then = chosen[rows], observed[rows], later[rows]
    mask = scenes.masks(rows, then)[torch.arange(len(rows)), number][:, None]
    change = Changes(*(torch.tensor(value).expand(len(rows), *size) for value, size in (
        (strength, ()), (tuple(map(float, shift)), (2,)), ((blur, blur), (2,)),
    )))  # fmt: skip
    frames, _ = change_object(
        scenes.frames[rows, then] / 255,
        scenes.backgrounds[rows] / 255,
        soft_masks(mask, scenes.labels[rows, then]),
        change,
    )
    return _read(judge, scenes, (rows, number, first, then), frames, change.shift)


@torch.no_grad()
def _read(
    judge: Judge, scenes: Scenes, index: tuple[Tensor, Tensor, Tensor, Tensor], frames: Tensor, shift: Tensor
) -> Reading:
    rows, number, first, then = index
    seen = scenes.masks(rows, first)[torch.arange(len(rows)), number][:, None]
    outline = outlines(
        seen, scenes.centres[rows, first, number][:, None], scenes.heights[rows, first, number][:, None]
    )
    found, is_found = [], []
    for part in torch.arange(len(rows)).split(FRAMES_AT_A_TIME):
        features = judge.look(scenes.frames[rows[part], first[part]] / 255)
        look = judge.remember(features, seen[part], outline[part])
        before = judge.find(features, look).centres[:, 0]
        answer = judge.find(judge.look(frames[part]), look)
        corrected = correction(before, scenes.centres[rows[part], first[part], number[part]])
        found.append(answer.centres[:, 0] + corrected)
        is_found.append(answer.presence[:, 0] > 0)
    height = scenes.heights[rows, then, number].numpy()[:, None]
    right = scenes.centres[rows, then, number] + shift
    places, true_places = (
        Camera().unproject(pixels.numpy(), SIZE, SIZE, height) for pixels in (torch.cat(found), right)
    )
    errors = 1000 * np.linalg.norm((places - true_places)[:, :2], axis=1)
    return Reading(errors, torch.cat(is_found).numpy())


def true_frames_table(scores: ObjectScores) -> Table:
    """Return the judge's errors on true frames by how much of an object is seen."""
    rows = scores.objects
    kinds = {
        "all": rows["seen"] >= 0,
        "pushed": rows["pushed"] == 1,
        "still": rows["pushed"] == 0,
        "at least 80 % of it seen": rows["seen"] >= 0.8,
        "50 to 80 % seen": (rows["seen"] < 0.8) & (rows["seen"] >= 0.5),
        "less than 50 % seen": rows["seen"] < 0.5,
    }
    cells = []
    for title, chosen in kinds.items():
        part = rows[chosen]
        if len(part):
            errors = part["mm"].dropna()
            quantiles = [f"{errors.quantile(q):.1f}" for q in (0.5, 0.9)]
            missed = f"{1 - part['found'].mean():.1%}"
            cells.append([title, str(len(part)), *quantiles, f"{part['iou'].mean():.3f}", missed])
    return Table(["objects in true frames", "number", "median mm", "90 % mm", "IoU", "missed"], cells)


def changed_table(judge: Judge, scenes: Scenes) -> Table:
    """Return what the judge says of changed objects, a row for each of `CHANGES`."""
    cells = []
    for title, changes in CHANGES.items():
        reading = read_changed(judge, scenes, changes)
        errors = reading.errors[reading.is_found]
        place = f"{np.median(errors):.1f}" if len(errors) else ""
        cells.append([title, place, f"{1 - reading.is_found.mean():.1%}"])
    return Table(["an object", "median mm", "called vanished"], cells)


def hand_in_words(scores: ObjectScores) -> str:
    """Return how well the hand's motion is read on true frames."""
    rows = scores.frames[scores.frames["method"] == TRUTH]
    errors = rows["hand_mm"]
    return f"hand: median error {errors.median():.1f} mm, 90 % within {errors.quantile(0.9):.1f} mm"
