"""Scores of a trained predictor on a split under a protocol: every predicted frame of every sequence, by method.

Methods
    copy        the last observed frame, held
    rec         reconstruction: latents at the posterior's mean, which sees the true frames
    pred        prediction: latents at the prior's mean
    pred_best   best of N futures sampled from the prior, chosen as the protocol says
    pred_mean   mean over the scores of the N futures
    pred_other  as pred, but with the conditions of another sequence from the last observed frame on
    pred_swap   as pred, but with the actions of another sequence and its own end-effector positions
    pred_zero   as pred, but with actions of zero and the end effector where it was last observed
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from .. import runtime
from ..models.predictor import Predictor, as_images
from ..sequences import SequenceDataset, evaluated, evaluation_batches
from .metrics import psnr_of_errors, squared_errors, ssim
from .protocols import HIGHER_IS_BETTER, SET_METRICS, Protocol
from .results import METHODS, SAMPLE_COLUMNS, Evaluation, Setting
from .video_distances import frechet_distance, kernel_distance

BLOCKS = 8
"""The rank of the truth among futures is taken on so many blocks a side: where things are, not their texture."""

Scores = dict[str, Tensor]
"""By metric, [...,F]."""


@dataclass(frozen=True)
class Scorer:
    """Takes a protocol's metrics of frames [...,C,H,W] in [0,1] with the true ones, which may lack leading dimensions."""

    protocol: Protocol
    lpips: Callable[[Tensor, Tensor], Tensor] | None = None
    compile: bool = False

    def __call__(self, predicted: Tensor, target: Tensor) -> Scores:
        protocol, errors = self.protocol, squared_errors(predicted, target)
        mse = errors.mean(-1)
        scores = {
            "psnr": psnr_of_errors(errors, protocol.psnr, protocol.psnr_epsilon),
            "ssim": ssim(predicted, target, protocol.ssim_window, protocol.ssim_range, self.compile),
            "mse": mse if protocol.mse == "mean" else mse * predicted.shape[-3:].numel(),
        }
        return scores | ({"lpips": self.lpips(predicted, target)} if self.lpips is not None else {})


class SampledFutures:
    """Scores and statistics of the futures of a batch of sequences, which come a few at a time."""

    def __init__(self, protocol: Protocol, target: Tensor):
        self.protocol, self.target = protocol, target  # [B,F,C,H,W]
        self.total = torch.zeros_like(target)
        self.scores: list[Scores] = []
        self.blocks: list[Tensor] = []

    def add(self, futures: Tensor, scores: Scores) -> None:
        """`futures` [S,B,F,C,H,W] with their `scores` [S,B,F]."""
        self.total += futures.sum(0)
        self.scores.append(scores)
        self.blocks.append(_blocks(futures))

    def by_method(self) -> dict[str, Scores]:
        """Scores [B,F] of the mean future (``pred_mean``) and, where the protocol asks for it, of the best (``pred_best``)."""
        best, scores = self.protocol.best, self._all_scores()
        found = {"pred_mean": {name: values.mean(0) for name, values in scores.items()}}
        if best != "none" and self.protocol.n_sample > 1:
            chosen = {name: self._choose(name, values) for name, values in scores.items()}
            rows = torch.arange(len(self.target), device=self.target.device)
            choice = {name: chosen[name if best == "each" else best] for name in scores}
            found["pred_best"] = {name: values[choice[name], rows] for name, values in scores.items()}
        return found

    def _all_scores(self) -> Scores:
        return {name: torch.cat([some[name] for some in self.scores]) for name in self.scores[0]}

    @staticmethod
    def _choose(metric: str, values: Tensor) -> Tensor:
        """[S,B,F] -> the best future of each sequence [B]."""
        means = values.mean(2)
        return means.argmax(0) if HIGHER_IS_BETTER[metric] else means.argmin(0)

    def statistics(self) -> Scores:
        """`SAMPLE_COLUMNS`, [B,F] each."""
        errors = self._all_scores()["mse"] / (
            self.target.shape[-3:].numel() if self.protocol.mse == "sum" else 1
        )
        count, error = len(errors), errors.mean(0)
        # The mean squared distance of a future and the truth is that of the futures' mean and the truth, and their variance.
        variance = (error - squared_errors(self.total / count, self.target).mean(-1)).clamp(min=0)
        members = torch.cat([_blocks(self.target)[None], *self.blocks])
        # Who is nearer to all others, by the mean squared distance, is nearer to the middle.
        distances = ((members - members.mean(0)) ** 2).mean(-1)
        truth, futures = distances[0], distances[1:]
        nearer = (futures < truth).float().mean(0) + 0.5 * (futures == truth).float().mean(0)
        return dict(
            zip(SAMPLE_COLUMNS, (2 * count / max(1, count - 1) * variance, error, nearer), strict=True)
        )


def _blocks(frames: Tensor) -> Tensor:
    """Means over a grid of blocks: [...,C,H,W] -> [...,C*64]."""
    return F.adaptive_avg_pool2d(frames.flatten(0, -4), BLOCKS).reshape(*frames.shape[:-3], -1)


@dataclass
class VideoDistances:
    """Features of true and predicted videos, for FVD and KVD."""

    network: Callable[[Tensor], Tensor]
    features: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, method: str, past: Tensor, future: Tensor) -> None:
        """Videos by their given [B,n_past,C,H,W] and predicted [B,F,C,H,W] frames."""
        self.features.setdefault(method, []).append(self.network(torch.cat([past, future.to(past)], 1)).cpu())

    def table(self, metrics: tuple[str, ...]) -> pd.DataFrame:
        """`metrics` (fvd, kvd) by method, against those that were added as ``truth``."""
        functions = {"fvd": frechet_distance, "kvd": kernel_distance}
        features = {method: torch.cat(parts).numpy() for method, parts in self.features.items()}
        truth = features.pop("truth")
        return pd.DataFrame(
            {
                metric: {method: functions[metric](values, truth) for method, values in features.items()}
                for metric in metrics
            }
        )


def latent_noise(
    model: Predictor, sequences: range, n_sample: int, n_future: int, seed: int, group: int
) -> Iterator[Tensor]:
    """Noise of each sequence from (seed, its number), whatever the batch it stands in, for `group` futures at a time.

    [B,<=group,n_future,*latent_shape]; all groups together are what a single one would be.
    """
    shape = (n_future, *model.latent_shape)
    generators = [runtime.generator(torch.device("cpu"), seed, number) for number in sequences]
    # PyTorch draws 16 numbers at a time: only where futures end there do pieces make up the whole.
    drawn = group if math.prod(shape) % 16 == 0 else n_sample
    for first in range(0, n_sample, max(1, drawn)):
        futures = min(drawn, n_sample - first)
        yield from torch.stack([torch.randn(futures, *shape, generator=own) for own in generators]).split(
            group, dim=1
        )


def futures_at_a_time(
    model: Predictor, batch: int, n_future: int, device: torch.device, memory: float = 0.0
) -> int:
    """How many futures of each of `batch` sequences to imagine at a time, as fit into `memory` GB.

    0: 1 GB on a CPU, half of what is free on a GPU. A power of two, lest it differ a little each time.
    """
    room = 1e9 * memory or (runtime.free_memory(device) / 2 if device.type == "cuda" else 1e9)
    return 1 << (max(1, int(room / model.future_bytes(n_future) / batch)).bit_length() - 1)


def imagine_in_groups(
    model: Predictor,
    start: Any,
    conditions: Tensor,
    noise: Iterable[Tensor],
    device: torch.device,
    precision: str,
) -> Iterator[Tensor]:
    """`Predictor.imagine`, futures [S,B,F,C,H,W], of each of several tensors of noise."""
    for some in noise:
        with runtime.autocast(device, precision):
            futures = model.imagine(start, conditions, some.to(device))
        yield futures


@dataclass(frozen=True)
class SequenceFutures:
    """What was, and what a model makes of it: float frames in [0,1], `past` [n_past,C,H,W], the others [F,C,H,W]."""

    past: Tensor
    truth: Tensor
    rec: Tensor
    pred: Tensor
    samples: list[Tensor]


@torch.no_grad()
def predict_sequence(
    model: Predictor,
    dataset: SequenceDataset,
    protocol: Protocol,
    number: int,
    device: torch.device,
    precision: str,
    n_sample: int,
    seed: int,
) -> SequenceFutures:
    """The sequence `number` of `dataset` with `n_sample` of the futures that `evaluate` scores with the same seed."""
    n_past = protocol.n_past
    batch = dataset.batch([(number, 0)])
    frames, conditions = as_images(batch["frames"].to(device)), batch["conditions"].to(device)
    mean = torch.zeros(1, 1, protocol.n_future, *model.latent_shape)
    group = futures_at_a_time(model, 1, protocol.n_future, device)
    noise = latent_noise(model, range(number, number + 1), n_sample, protocol.n_future, seed, group)
    with runtime.autocast(device, precision):
        rec = model.reconstruct(frames, conditions, n_past)[0, n_past - 1 :].float()
        start = model.observe(frames[:, :n_past], conditions)
    future = conditions[:, n_past - 1 : -1]
    groups = imagine_in_groups(model, start, future, itertools.chain([mean], noise), device, precision)
    pred, *samples = (video for some in groups for video in some[:, 0].float())
    return SequenceFutures(frames[0, :n_past], frames[0, n_past:], rec, pred, samples)


def changed_conditions(
    dataset: SequenceDataset, numbers: range, total: int, future: Tensor
) -> dict[str, Tensor]:
    """The conditions `future` [B,F,D], which begin at the last observed frame, as an action test has them, by method.

    The other sequence is the one after it among the `total` that are scored. Left out is what would change nothing: without
    conditions or of a single sequence all, without actions or without positions what swaps one of them.
    """
    actions = dataset.action_columns
    if not future.shape[2] or total < 2:
        return {}
    steps = slice(dataset.clip_length - 1 - future.shape[1], dataset.clip_length - 1)
    others = torch.stack(
        [dataset.read_conditions((number + 1) % total, steps.start, steps.stop) for number in numbers]
    )
    changed = {"pred_other": others.to(future)}
    if 0 < actions < future.shape[2]:
        changed["pred_swap"] = torch.cat([changed["pred_other"][..., :actions], future[..., actions:]], 2)
    if actions:
        changed["pred_zero"] = torch.cat(
            [
                torch.zeros_like(future[..., :actions]),
                future[:, :1, actions:].expand_as(future[..., actions:]),
            ],
            2,
        )
    return changed


@torch.no_grad()
def evaluate(
    model: Predictor,
    dataset: SequenceDataset,
    protocol: Protocol,
    device: torch.device,
    precision: str = "auto",
    batch_size: int = 16,
    memory: float = 0.0,
    compile: bool = False,
    seed: int = 1,
    limit: int = 0,
    weights: str = "",
    action_tests: bool = False,
    lpips: Callable[[Tensor, Tensor], Tensor] | None = None,
    video_features: Callable[[Tensor], Tensor] | None = None,
    distances: tuple[str, ...] = SET_METRICS,
) -> Evaluation:
    """Scores all sequences of `dataset` (or the first `limit`), whose clips hold the protocol's given and predicted frames.

    `model` is best one of `svg.models.freezing.freeze`; `weights` says in the result where it comes from. The past is observed once for
    all samples; `memory` is that of `futures_at_a_time`. `action_tests` adds ``pred_other``, ``pred_swap`` and ``pred_zero``.
    `compile` is for SSIM. `lpips` takes (predicted, target) as `svg.evaluation.perceptual.Lpips` does, `video_features` videos [B,T,C,H,W],
    for `distances`. A protocol that leaves numbers of frames open needs `Protocol.for_run` first. Predictions are given what the
    dataset's clips hold, the positions of the future among it, as `SequenceDataset.given` says in the result.
    """
    n_past, n_future, n_sample = protocol.n_past, protocol.n_future, protocol.n_sample
    if n_past < 1 or n_future < 1 or n_past + n_future != dataset.clip_length:
        raise ValueError(
            f"protocol {protocol.name} with {n_past} + {n_future} frames, expected those of the dataset's clips, "
            f"{dataset.clip_length}; see Protocol.for_run"
        )
    score = Scorer(protocol, lpips, compile)
    videos_seen = VideoDistances(video_features) if video_features is not None else None
    parts, sample_parts = [], []
    total = evaluated(dataset, limit)
    with tqdm(total=total, desc="evaluate", unit="sequence", disable=None, leave=False) as bar:
        for numbers, batch in evaluation_batches(dataset, batch_size, limit):
            frames, conditions = as_images(batch["frames"].to(device)), batch["conditions"].to(device)
            past, target, future = frames[:, :n_past], frames[:, n_past:], conditions[:, n_past - 1 : -1]
            tried = {"pred": future} | (
                changed_conditions(dataset, numbers, total, future) if action_tests else {}
            )
            group = futures_at_a_time(model, len(frames), n_future, device, memory)
            noise = latent_noise(model, numbers, n_sample, n_future, seed, group)
            videos = {"copy": past[:, -1:].expand_as(target)}
            with runtime.autocast(device, precision):  # the model alone: scores are taken in float32
                videos["rec"] = model.reconstruct(frames, conditions, n_past)[:, n_past - 1 :]
                start = model.observe(past, conditions)
                zeros = torch.zeros(len(frames), 1, n_future, *model.latent_shape, device=device)
                videos |= {method: model.imagine(start, some, zeros)[0] for method, some in tried.items()}
            scores = {method: score(video.float(), target) for method, video in videos.items()}
            sampled = SampledFutures(protocol, target)
            for futures in imagine_in_groups(model, start, future, noise, device, precision):
                futures = futures.float()
                videos.setdefault("pred_sample", futures[0])
                sampled.add(futures, score(futures, target))
            names = dataset.index["sequence"].iloc[numbers.start : numbers.stop]
            if n_sample:
                scores |= sampled.by_method()
            if n_sample > 1:
                sample_parts.append(_rows(names, sampled.statistics()))
            if videos_seen is not None:
                for method in ("copy", "rec", "pred", "pred_sample"):
                    if method in videos:
                        videos_seen.add(method, past, videos[method])
                videos_seen.add("truth", past, target)
            parts += [_rows(names, values).assign(method=method) for method, values in scores.items()]
            bar.update(len(numbers))
    computed = f"{'bfloat16' if runtime.uses_bfloat16(device, precision) else 'float32'} on {device.type}"
    return Evaluation(
        protocol,
        Setting(
            str(dataset.root),
            dataset.split,
            total,
            seed,
            computed,
            weights,
            runtime.machine(device),
            dataset.digest(),
            dataset.given,
        ),
        _ordered(pd.concat(parts, ignore_index=True)),
        pd.concat(sample_parts, ignore_index=True) if sample_parts else None,
        videos_seen.table(distances) if videos_seen is not None else None,
    )


def _rows(sequences: pd.Series, values: Scores) -> pd.DataFrame:
    n_future = next(iter(values.values())).shape[1]
    return pd.DataFrame(
        {
            "sequence": np.repeat(sequences.to_numpy(), n_future),
            "frame": np.tile(np.arange(1, n_future + 1), len(sequences)),
            **{name: value.float().cpu().numpy().ravel() for name, value in values.items()},
        }
    )


def _ordered(scores: pd.DataFrame) -> pd.DataFrame:
    """Rows by method, in the order of `METHODS`, and columns from names to values."""
    names = ["sequence", "method", "frame"]
    scores = scores[[*names, *(column for column in scores if column not in names)]]
    return pd.concat([scores[scores["method"] == method] for method in METHODS], ignore_index=True)
