"""Scores that see objects: where a judge finds them in predicted frames, and in which parts the error lies.

Image scores hardly see where pushed objects go. The simulator knows it (``svg-data simulate --truth``), and
the judge of `svg.evaluation.judge` says where each object is in a predicted frame. What the judge itself gets
wrong is measured on the true frames of the same sequences, the method ``truth``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from data_tools.camera import Camera
from data_tools.errors import InputError
from data_tools.truth import ARM, FIRST_OBJECT, SHADOW

from ..sequences import SequenceDataset
from .judge import SIZE, Judge, correction, outlines
from .object_tables import LEAST_AREA, OBJECT_COLUMNS, PARTS, TRUTH, ObjectScores

PUSHED = 0.01
"""Metres from its place in the last observed frame beyond which an object counts as pushed."""
SCORED = ("copy", "pred", "pred_sample")
"""Predictions in which objects are looked for, beside the true frames."""
FRAMES_AT_A_TIME = 64
POSITION_COLUMNS = 3
"""Positions of the hand that ``svg-data simulate`` records: x, y, z in metres."""


@dataclass(frozen=True)
class ObjectTruth:
    """What is true of up to N objects of B sequences in F predicted frames.

    labels    uint8 [B,F,H,W], see `data_tools.truth`
    observed  bool [B,N,H,W]: their masks in the last observed frame
    observed_centres  [B,N,2] there, pixels to the right and down
    outline   [B,N,6] there, see `svg.evaluation.judge.outlines`
    exists    bool [B,N]
    centres   [B,F,N,2], pixels to the right and down
    poses     float64 [B,F,N,3], metres
    is_pushed bool [B,F,N]
    motion    [B,F,3], millimetres: how the hand moves from the frame before
    """

    labels: Tensor
    observed: Tensor
    observed_centres: Tensor
    outline: Tensor
    exists: Tensor
    centres: Tensor
    poses: np.ndarray
    is_pushed: Tensor
    motion: Tensor

    @property
    def masks(self) -> Tensor:
        """Masks of what is seen of the objects, bool [B,F,N,H,W]."""
        numbers = torch.arange(self.exists.shape[1], device=self.labels.device) + FIRST_OBJECT
        return self.labels[:, :, None] == numbers[:, None, None]


def check_truth(dataset: SequenceDataset) -> None:
    """Raise `InputError` if objects of a data set cannot be scored: without truth, or of another size."""
    if dataset.frame_size != (SIZE, SIZE, 3):
        found = "x".join(map(str, dataset.frame_size))
        raise InputError(f"found frames {found}, expected {SIZE}x{SIZE}x3, which the judge knows", "objects")
    positions = dataset.info.condition_dim - dataset.info.action_dim
    try:
        dataset.truth(0, 0, 1)
    except InputError as error:
        raise InputError(f"--objects: {error}") from None
    if positions != POSITION_COLUMNS:
        raise InputError(
            f"found {positions} columns of positions in {dataset.root}, expected x, y, z of the hand",
            "objects",
        )


def read_object_truth(
    dataset: SequenceDataset, numbers: range, n_past: int, device: torch.device
) -> ObjectTruth:
    """Return the truth of the frames after the first `n_past` of some sequences. Raises `InputError`."""
    first = n_past - 1
    truths = [dataset.truth(number, first, dataset.clip_length) for number in numbers]
    most = max(truth.poses.shape[1] for truth in truths)
    poses = np.zeros((len(truths), dataset.clip_length - first, most, 3))
    exists = np.zeros((len(truths), most), bool)
    for row, truth in enumerate(truths):
        count = truth.poses.shape[1]
        poses[row, :, :count] = truth.poses[..., :3]
        exists[row, :count] = True
    hands = np.stack([dataset.recorded_positions(number, first, dataset.clip_length) for number in numbers])
    labels = torch.from_numpy(np.stack([truth.segmentation for truth in truths])).to(device)
    centres = torch.from_numpy(Camera().project(poses, SIZE, SIZE)).float().to(device)
    objects = torch.arange(most, device=device) + FIRST_OBJECT
    observed = labels[:, :1] == objects[:, None, None]
    heights = torch.from_numpy(poses[:, 0, :, 2]).float().to(device)
    distance = np.linalg.norm(poses[:, 1:, :, :2] - poses[:, :1, :, :2], axis=-1)
    return ObjectTruth(
        labels[:, 1:],
        observed,
        centres[:, 0],
        outlines(observed, centres[:, 0], heights),
        torch.from_numpy(exists).to(device),
        centres[:, 1:],
        poses[:, 1:],
        torch.from_numpy(distance > PUSHED).to(device),
        torch.from_numpy(1000 * np.diff(hands, axis=1)).float().to(device),
    )


class ObjectScorer:
    """Scores objects in predictions of a data set with truth. Raises `InputError` for one without."""

    def __init__(self, dataset: SequenceDataset, n_past: int, judge: Judge):
        check_truth(dataset)
        self.dataset, self.n_past, self.judge = dataset, n_past, judge

    def score(self, numbers: range, frames: Tensor, videos: Mapping[str, Tensor]) -> ObjectScores:
        """Return the scores of predictions [B,F,3,H,W] of the sequences `numbers`, by method.

        Those of `SCORED` are scored, and the true `frames` [B,T,3,H,W] themselves. All are in [0,1].
        """
        truth = read_object_truth(self.dataset, numbers, self.n_past, frames.device)
        names = self.dataset.index["sequence"].iloc[numbers.start : numbers.stop].to_numpy()
        last = frames[:, self.n_past - 1]
        target = frames[:, self.n_past :]
        videos = {name: videos[name].float() for name in SCORED if name in videos}
        objects, frame_rows = [], []
        for method, video in {TRUTH: target, **videos}.items():
            visible = video.clamp(0, 1)
            found = find_objects(self.judge, last, visible, truth)
            objects.append(_object_rows(truth, found, names).assign(method=method))
            motion = read_motion(self.judge, last, visible)
            frame_rows.append(_frame_rows(truth, video, target, motion, names).assign(method=method))
        return ObjectScores(*(pd.concat(rows, ignore_index=True) for rows in (objects, frame_rows)))


@dataclass(frozen=True)
class FoundObjects:
    """What the judge finds in B sequences of F frames with N objects.

    centres  [B,F,N,2], pixels to the right and down
    is_there bool [B,F,N]
    masks    bool [B,F,N,H,W], empty of objects that are not there
    """

    centres: Tensor
    is_there: Tensor
    masks: Tensor


@torch.no_grad()
def find_objects(judge: Judge, last: Tensor, video: Tensor, truth: ObjectTruth) -> FoundObjects:
    """Look for the objects of the last observed frames [B,3,H,W] in those of `video` [B,F,3,H,W]."""
    batch, count = video.shape[:2]
    features = judge.look(last)
    look = judge.remember(features, truth.observed, truth.outline)
    corrected = correction(judge.find(features, look).centres, truth.observed_centres)
    looks = look.repeat_interleave(count, 0)
    centres, is_there, masks = [], [], []
    frames = video.flatten(0, 1).split(FRAMES_AT_A_TIME)
    for part, look_of_part in zip(frames, looks.split(FRAMES_AT_A_TIME), strict=True):
        found = judge.find(judge.look(part), look_of_part)
        centres.append(found.centres)
        is_there.append(found.presence > 0)
        masks.append((found.masks > 0) & (found.presence > 0)[..., None, None])
    parts = (torch.cat(values).unflatten(0, (batch, count)) for values in (centres, is_there, masks))
    found = FoundObjects(*parts)
    return replace(found, centres=found.centres + corrected[:, None])


@torch.no_grad()
def read_motion(judge: Judge, last: Tensor, video: Tensor) -> Tensor:
    """Return how the hand moves up to each frame of `video` [B,F,3,H,W], millimetres [B,F,3]."""
    before = torch.cat([last[:, None], video[:, :-1]], 1)
    pairs = zip(
        before.flatten(0, 1).split(FRAMES_AT_A_TIME), video.flatten(0, 1).split(FRAMES_AT_A_TIME), strict=True
    )
    return torch.cat([judge.hand_motion(*pair) for pair in pairs]).unflatten(0, video.shape[:2])


def judged_objects(truth: ObjectTruth) -> Tensor:
    """Return which objects are judged in which frames, bool [B,F,N]: those that are seen well enough."""
    is_seen = truth.masks.sum((-2, -1)) >= LEAST_AREA
    return is_seen & ((truth.observed.sum((-2, -1)) >= LEAST_AREA) & truth.exists)[:, None]


def _object_rows(truth: ObjectTruth, found: FoundObjects, names: np.ndarray) -> pd.DataFrame:
    """Return a row for each judged object of each frame."""
    masks = truth.masks
    area = masks.sum((-2, -1))
    area_observed = truth.observed.sum((-2, -1))[:, None]
    overlap = (masks & found.masks).sum((-2, -1)) / (masks | found.masks).sum((-2, -1)).clamp(min=1)
    pixels = (found.centres - truth.centres).norm(dim=-1)
    places = Camera().unproject(found.centres.cpu().numpy(), SIZE, SIZE, truth.poses[..., 2:])
    millimetres = 1000 * np.linalg.norm((places - truth.poses)[..., :2], axis=-1)
    rows, times, numbers = judged_objects(truth).nonzero(as_tuple=True)
    is_there = found.is_there.cpu().numpy()
    chosen = tuple(index.cpu().numpy() for index in (rows, times, numbers))
    values = {
        "pushed": truth.is_pushed.int(),
        "area": area,
        "seen": area / area_observed.clamp(min=1),
        "found": found.is_there.int(),
        "iou": overlap,
    }
    columns = {name: value.cpu().numpy()[chosen] for name, value in values.items()}
    # of an object that has vanished there is no place
    columns["mm"] = np.where(is_there, millimetres, np.nan)[chosen]
    columns["pixels"] = np.where(is_there, pixels.cpu().numpy(), np.nan)[chosen]
    keys = {"sequence": names[chosen[0]], "frame": chosen[1] + 1, "object": chosen[2]}
    return pd.DataFrame(keys | {name: columns[name] for name in OBJECT_COLUMNS})


def _frame_rows(
    truth: ObjectTruth, video: Tensor, target: Tensor, motion: Tensor, names: np.ndarray
) -> pd.DataFrame:
    """Return a row for each frame: squared errors and areas by parts, the hand's motion, hidden objects."""
    squares = ((video - target) ** 2).mean(2)
    parts = frame_parts(truth)
    objects = truth.exists.sum(1)[:, None].expand(motion.shape[:2])
    values = {"objects": objects, "hidden": objects - judged_objects(truth).sum(2)}
    values |= {f"error_{name}": (squares * part).mean((-2, -1)) for name, part in parts.items()}
    values |= {f"area_{name}": part.float().mean((-2, -1)) for name, part in parts.items()}
    values["hand_mm"] = (motion - truth.motion).norm(dim=-1)
    count = video.shape[1]
    keys = {"sequence": np.repeat(names, count), "frame": np.tile(np.arange(1, count + 1), len(names))}
    return pd.DataFrame(keys | {name: value.cpu().numpy().ravel() for name, value in values.items()})


def frame_parts(truth: ObjectTruth) -> dict[str, Tensor]:
    """Return which pixels belong to each of the `PARTS`, bool [B,F,H,W]: each pixel to one of them.

    The edge of the arm is a band of a pixel to each side of its outline, as far as it shows no object.
    """
    labels = truth.labels
    is_arm = (labels == ARM).float()
    inside = -F.max_pool2d(-is_arm, 3, 1, 1) > 0
    near = F.max_pool2d(is_arm, 3, 1, 1) > 0
    objects = labels >= FIRST_OBJECT
    pushed = (truth.masks & truth.is_pushed[..., None, None]).any(2)
    edge = near & ~inside & ~objects
    shadow = (labels == SHADOW) & ~edge
    named = (edge, inside, pushed, objects & ~pushed, shadow)
    rest = ~torch.stack(named).any(0)
    return dict(zip(PARTS, (*named, rest), strict=True))
