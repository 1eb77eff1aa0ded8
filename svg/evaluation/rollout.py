"""Predictions of any length from the first frames of a sequence, in memory that does not grow with it."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from data_tools.errors import InputError
from data_tools.files import whole_file

from .. import runtime
from ..models.predictor import Predictor, as_images
from ..sequences import SequenceDataset
from .metrics import psnr

STRETCH = 32
"""Frames that are predicted and handed over at a time."""
ENDS = 100
"""Frames at the beginning and at the end of a long prediction whose means are told apart."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive frames of a prediction, float [F,C,H,W] in [0,1], from the time `first` on.

    truth       the true ones, fewer where the sequence ends before its conditions do
    poses       uint8 [F,C,H,W], or None for data without
    """

    first: int
    predicted: Tensor
    truth: Tensor
    poses: Tensor | None


def frames_to_come(dataset: SequenceDataset, number: int, n_past: int) -> int | None:
    """Return how many frames of a sequence can be predicted from its first `n_past`.

    As many as its conditions go on for; None without conditions: any number.
    """
    horizon = dataset.horizon(number)
    return None if horizon is None else horizon - (n_past - 1)


def plan_frames(
    dataset: SequenceDataset, name: str, number: int, n_past: int, n_future: int | None
) -> tuple[int, str]:
    """Return how many frames of a sequence to predict, and a note if these are fewer than `n_future` (or "").

    Without `n_future` a prediction goes as far as the conditions or, without any, to the end of the
    recording. Raises `InputError` for a sequence that has nothing to predict from.
    """
    most = frames_to_come(dataset, number, n_past)
    if most is None:
        total = n_future or int(dataset.lengths[number]) - n_past
        if total < 1:
            raise InputError(
                f"{dataset.place}: sequence {name} has no frames beyond its {n_past} given frames; "
                "say how far with --n_future"
            )
        return total, ""
    if most >= 1 and (n_future is None or n_future <= most):
        return n_future or most, ""
    advice = _positions_advice(dataset, number, most + n_past - 1)
    if most < 1:
        raise InputError(
            f"{dataset.place}: sequence {name} has no conditions beyond its {n_past} given frames; "
            f"{advice or 'choose others with --sequences'}"
        )
    note = f"--n_future asks for {n_future} frames, its conditions are enough for {most}"
    return most, f"{note}; {advice}" if advice else note


def _positions_advice(dataset: SequenceDataset, number: int, horizon: int) -> str:
    """Return advice for a sequence whose actions go on after its positions, "" for others."""
    actions = dataset.action_horizon(number)
    if actions is None or actions <= horizon:
        return ""
    return (
        f"its positions end before its actions: --positions integrated goes on for {actions - horizon} frames"
    )


def given_frames(dataset: SequenceDataset, number: int, n_past: int) -> Stretch:
    """Return the first frames of a sequence as their own prediction; their poses, not needed, are white."""
    frames = as_images(dataset.read_frames(number, 0, n_past))
    height, width = dataset.frame_size[:2]
    channels = dataset.info.pose_channels
    poses = torch.full((n_past, channels, height, width), 255, dtype=torch.uint8) if channels else None
    return Stretch(0, frames, frames, poses)


@torch.no_grad()
def roll_out(
    model: Predictor,
    dataset: SequenceDataset,
    number: int,
    n_past: int,
    n_future: int,
    seed: int | None = None,
) -> Iterator[Stretch]:
    """Predict `n_future` frames of a sequence from its first `n_past`, a stretch at a time.

    Latents are the prior's means or, with a `seed`, sampled: those of the first of the futures that
    `svg.evaluation.evaluate` samples with it, if a step's latent has a multiple of 16 numbers (which PyTorch
    draws at a time).
    """
    device = model.device
    past = given_frames(dataset, number, n_past).truth[None].to(device)
    conditions = dataset.read_conditions(number, 0, n_past)[None].to(device)
    generator = None if seed is None else runtime.generator(torch.device("cpu"), seed, number)
    state = model.observe(past, conditions)
    length = int(dataset.lengths[number])
    for first in range(n_past, n_past + n_future, STRETCH):
        stop = min(first + STRETCH, n_past + n_future)
        shape = (1, 1, stop - first, *model.latent_shape)
        noise = torch.zeros(shape) if generator is None else torch.randn(shape, generator=generator)
        conditions = dataset.read_conditions(number, first - 1, stop - 1)
        predicted, state = model.advance(state, conditions[None].to(device), noise.to(device))
        truth = torch.empty(0, *predicted.shape[3:])
        if first < length:
            truth = as_images(dataset.read_frames(number, first, min(stop, length)))
        poses = conditions if dataset.info.pose_channels else None
        yield Stretch(first, predicted[0, 0].float().cpu(), truth, poses)


@dataclass
class RolloutScores:
    """PSNR in dB of the predicted frames of a sequence, and of holding its last given frame.

    Frames without a truth have no score.

    last     the last given frame [C,H,W]
    epsilon  added to squared errors
    frames   predicted so far
    seconds  that the predictions took
    """

    last: Tensor
    epsilon: float
    frames: int = 0
    seconds: float = 0.0
    psnr: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)

    def add(self, stretch: Stretch) -> None:
        """Score the next frames."""
        truth = stretch.truth
        held = self.last.expand_as(truth)
        self.frames += len(stretch.predicted)
        self.psnr += psnr(stretch.predicted[: len(truth)], truth, epsilon=self.epsilon).tolist()
        self.held += psnr(held, truth, epsilon=self.epsilon).tolist()

    def summary(self, name: str) -> str:
        """Return one line: the means, those at both ends of a long prediction, and the speed."""
        speed = f"{self.frames} frames, {self.frames / self.seconds:.0f} a second"
        if not self.psnr:
            return f"{name}: {speed}; no true frames to compare with"
        scores = np.array(self.psnr)
        known = "" if len(scores) == self.frames else f" over the {len(scores)} frames with a truth"
        ends = ""
        if len(scores) >= 2 * ENDS:
            first = scores[:ENDS].mean()
            last = scores[-ENDS:].mean()
            ends = f"; first {ENDS} {first:.2f}, last {ENDS} {last:.2f} dB"
        means = f"PSNR {scores.mean():.2f} dB{known} (given frame held: {np.mean(self.held):.2f} dB)"
        return f"{name}: {means}{ends}; {speed}"


class Submission:
    """Table of frames as the course asked for it: ``id`` and the pixels, 0-255, channel by channel.

    One row a frame, given ones included, numbered through all sequences. Rows are written as they come; the
    file gets its name at the end of the ``with``, and nothing is left of it after an error.
    """

    def __init__(self, path: Path):
        self._path = path
        self._rows = 0
        self._open_files = contextlib.ExitStack()

    def __enter__(self) -> "Submission":
        self._file = self._open_files.enter_context(whole_file(self._path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open_files.__exit__(kind, error, trace)

    def add(self, frames: Tensor) -> None:
        """Write `frames` [F,C,H,W] in [0,1]."""
        values = np.rint(frames.flatten(1).clamp(0, 1).numpy() * 255).astype(np.uint8)
        if not self._rows:
            self._write("id", range(values.shape[1]))
        for number, row in enumerate(values.tolist(), start=self._rows):
            self._write(number, row)
        self._rows += len(values)

    def _write(self, number: int | str, values: Iterable[int]) -> None:
        self._file.write(f"{number},{','.join(map(str, values))}\n".encode())
