"""Predictions of any length from the first frames and all conditions of a sequence, in memory that does not grow with it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_tools.files import whole_file

from .. import runtime
from ..models.predictor import Predictor, as_images
from ..sequences import SequenceDataset

STRETCH = 32
"""Frames that are predicted and handed over at a time."""


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
    """Return how many frames of a sequence can be predicted from its first `n_past`: as far as its conditions go.

    None without conditions: as many as wanted.
    """
    horizon = dataset.horizon(number)
    return None if horizon is None else horizon - (n_past - 1)


def given_frames(dataset: SequenceDataset, number: int, n_past: int) -> Stretch:
    """The first frames of a sequence, their own prediction. Poses, which nobody needs of them, are empty paper."""
    frames = as_images(dataset.read_frames(number, 0, n_past))
    height, width, channels = *dataset.frame_size[:2], dataset.info.pose_channels
    return Stretch(
        0,
        frames,
        frames,
        torch.full((n_past, channels, height, width), 255, dtype=torch.uint8) if channels else None,
    )


@torch.no_grad()
def roll_out(
    model: Predictor,
    dataset: SequenceDataset,
    number: int,
    n_past: int,
    n_future: int,
    device: torch.device,
    precision: str,
    seed: int | None = None,
) -> Iterator[Stretch]:
    """Predicts `n_future` frames of a sequence from its first `n_past`, a stretch at a time.

    Latents are the prior's means or, with a `seed`, sampled: those of the first of the futures that `svg.evaluation.evaluate`
    samples with it, if a step's latent has a multiple of 16 numbers (which PyTorch draws at a time).
    """
    past = given_frames(dataset, number, n_past).truth[None].to(device)
    conditions = dataset.read_conditions(number, 0, n_past)[None].to(device)
    generator = None if seed is None else runtime.generator(torch.device("cpu"), seed, number)
    with runtime.autocast(device, precision):
        state = model.observe(past, conditions)
    length = int(dataset.lengths[number])
    for first in range(n_past, n_past + n_future, STRETCH):
        stop = min(first + STRETCH, n_past + n_future)
        shape = (1, 1, stop - first, *model.latent_shape)
        noise = torch.zeros(shape) if generator is None else torch.randn(shape, generator=generator)
        conditions = dataset.read_conditions(number, first - 1, stop - 1)
        with runtime.autocast(device, precision):
            predicted, state = model.advance(state, conditions[None].to(device), noise.to(device))
        truth = torch.empty(0, *predicted.shape[3:])
        if first < length:
            truth = as_images(dataset.read_frames(number, first, min(stop, length)))
        poses = conditions if dataset.info.pose_channels else None
        yield Stretch(first, predicted[0, 0].float().cpu(), truth, poses)


class Submission:
    """Frames as rows of a table: ``id`` and the pixels, integers 0-255, channel by channel, in the form that the course asked for.

    One row a frame, given ones included, numbered through all sequences. Rows are written as they come; the file gets its name at
    the end of the ``with``, and nothing is left of it after an error.
    """

    def __init__(self, path: Path):
        self._path, self._rows = path, 0

    def __enter__(self) -> "Submission":
        self._growing = whole_file(self._path)
        self._file = self._growing.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._growing.__exit__(*error)

    def add(self, frames: Tensor) -> None:
        """`frames` [F,C,H,W] in [0,1]."""
        values = np.rint(frames.flatten(1).clamp(0, 1).numpy() * 255).astype(np.uint8)
        if not self._rows:
            self._write("id", range(values.shape[1]))
        for number, row in enumerate(values.tolist(), start=self._rows):
            self._write(number, row)
        self._rows += len(values)

    def _write(self, number: int | str, values: Iterable[int]) -> None:
        self._file.write(f"{number},{','.join(map(str, values))}\n".encode())
