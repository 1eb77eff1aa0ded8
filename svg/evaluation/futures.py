"""Predictions for an evaluation: noise of sampled futures, changed conditions, the videos of one sequence."""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import runtime
from ..models.predictor import Predictor, as_images
from ..sequences import SequenceDataset
from .protocols import Protocol

DRAWN = 16
"""Numbers that PyTorch draws at a time: noise can be drawn in pieces that are multiples of it."""


def latent_noise(
    model: Predictor, sequences: range, n_sample: int, n_future: int, seed: int, group: int
) -> Iterator[Tensor]:
    """Yield noise for `group` futures of each sequence at a time, on the CPU.

    [B,<=group,n_future,*latent_shape]. A sequence's noise depends on (seed, its number) alone, whatever its
    batch and the size of groups.
    """
    shape = (n_future, *model.latent_shape)
    generators = [runtime.generator(torch.device("cpu"), seed, number) for number in sequences]
    drawn = group if math.prod(shape) % DRAWN == 0 else n_sample
    for first in range(0, n_sample, max(1, drawn)):
        futures = min(drawn, n_sample - first)
        noise = torch.stack([torch.randn(futures, *shape, generator=own) for own in generators])
        yield from noise.split(group, dim=1)


def futures_at_a_time(model: Predictor, batch: int, n_future: int, memory: float = 0.0) -> int:
    """Return how many futures of each of `batch` sequences fit into `memory` GB, a power of two.

    0: 1 GB on a CPU, half of the free memory of a GPU. As a power of two it is the same every time.
    """
    device = model.device
    available = 1e9 * memory
    if not available:
        available = runtime.free_memory(device) / 2 if device.type == "cuda" else 1e9
    futures = max(1, int(available / model.future_bytes(n_future) / batch))
    return 1 << (futures.bit_length() - 1)


def imagine_in_groups(
    model: Predictor, start: Any, conditions: Tensor, noise: Iterable[Tensor]
) -> Iterator[Tensor]:
    """Yield the futures [S,B,F,C,H,W] of `Predictor.imagine` for each of several tensors of noise."""
    for group in noise:
        yield model.imagine(start, conditions, group.to(model.device))


def changed_conditions(
    dataset: SequenceDataset, numbers: range, total: int, future: Tensor
) -> dict[str, Tensor]:
    """Return the conditions of action tests by method, in place of `future` [B,F,D].

    All begin at the last observed frame. Those of another sequence are those of the next among the `total`
    that are scored. Left out is what would change nothing: all without conditions or with a single sequence,
    swapped actions without actions or without positions.
    """
    actions = dataset.action_columns
    if not future.shape[2] or total < 2:
        return {}
    stop = dataset.clip_length - 1
    start = stop - future.shape[1]
    rows = [dataset.read_conditions((number + 1) % total, start, stop) for number in numbers]
    other = torch.stack(rows).to(future)
    changed = {"pred_other": other}
    if 0 < actions < future.shape[2]:
        changed["pred_swap"] = torch.cat([other[..., :actions], future[..., actions:]], 2)
    if actions:
        none = torch.zeros_like(future[..., :actions])
        held = future[:, :1, actions:].expand_as(future[..., actions:])
        changed["pred_zero"] = torch.cat([none, held], 2)
    return changed


@dataclass(frozen=True)
class SequenceFutures:
    """A sequence and its predictions: float frames in [0,1], `past` [n_past,C,H,W], the others [F,C,H,W]."""

    past: Tensor
    truth: Tensor
    rec: Tensor
    pred: Tensor
    samples: list[Tensor]


@torch.no_grad()
def predict_sequence(
    model: Predictor, dataset: SequenceDataset, protocol: Protocol, number: int, n_sample: int, seed: int
) -> SequenceFutures:
    """Return the sequence `number` of `dataset` with its predictions and `n_sample` sampled futures.

    The samples are those that `evaluate` scores with the same seed.
    """
    n_past = protocol.n_past
    n_future = protocol.n_future
    batch = dataset.batch([(number, 0)])
    frames = as_images(batch["frames"].to(model.device))
    conditions = batch["conditions"].to(model.device)
    future = conditions[:, n_past - 1 : -1]
    rec = model.reconstruct(frames, conditions, n_past)[0, n_past - 1 :].float()
    start = model.observe(frames[:, :n_past], conditions)
    pred = model.imagine(start, future)[0, 0].float()
    group = futures_at_a_time(model, 1, n_future)
    noise = latent_noise(model, range(number, number + 1), n_sample, n_future, seed, group)
    groups = imagine_in_groups(model, start, future, noise)
    samples = list(itertools.chain.from_iterable(futures[:, 0].float() for futures in groups))
    return SequenceFutures(frames[0, :n_past], frames[0, n_past:], rec, pred, samples)
