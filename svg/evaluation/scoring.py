"""Evaluation of a trained predictor: scores of every predicted frame of every sequence, by method.

`svg.evaluation.methods.METHODS` explains the methods, `svg.evaluation.metrics.METRICS` the metrics.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from .. import runtime
from ..models.predictor import Predictor, as_images
from ..processes import World
from ..sequences import SequenceDataset, evaluated, evaluation_batches
from .futures import changed_conditions, futures_at_a_time, imagine_in_groups, latent_noise
from .judge import load_judge
from .methods import METHODS
from .metrics import FRAME, METRICS, SET, VIDEO, FramePair, Metric, always_taken, of_scope
from .object_tables import ObjectScores, joined
from .objects import ObjectScorer
from .options import EvaluationOptions
from .protocols import Protocol
from .results import Evaluation, Setting
from .samples import SampledFutures, Scores

Network = Callable[..., Tensor]


@dataclass(frozen=True)
class Scorer:
    """Metrics of frames [...,F,C,H,W] in [0,1] with the true ones, which may lack leading dimensions.

    metrics   names of metrics of frames and videos; those of videos give all frames of a video the same score
    networks  that the metrics need, by the names of `svg.evaluation.perceptual.NETWORKS`
    scorer    one of `svg.evaluation.options.SCORERS`
    compile   compile SSIM with torch.compile
    """

    protocol: Protocol
    metrics: tuple[str, ...] = field(default_factory=always_taken)
    networks: Mapping[str, Network] = field(default_factory=dict)
    scorer: str = "torch"
    compile: bool = False

    def __call__(self, predicted: Tensor, target: Tensor) -> Scores:
        pair = FramePair(predicted, target, self.protocol, self.networks, self.compile)
        scores = {}
        for name in of_scope(self.metrics, FRAME, VIDEO):
            values = self._compute(name)(pair)
            if METRICS[name].scope == VIDEO:
                values = values[..., None].expand(predicted.shape[:-3])
            scores[name] = values
        return scores

    def _compute(self, metric: str) -> Callable[[FramePair], Tensor]:
        if self.scorer == "skimage":
            from .skimage_scorer import SKIMAGE

            return SKIMAGE.get(metric, METRICS[metric].compute)
        return METRICS[metric].compute


@dataclass
class VideoFeatures:
    """Features of true and predicted videos for metrics of scope ``set``, by network and method."""

    networks: Mapping[str, Network]
    features: dict[tuple[str, str], list[np.ndarray]] = field(default_factory=dict)

    def take(self, past: Tensor, futures: dict[str, Tensor]) -> dict[tuple[str, str], np.ndarray]:
        """Return features [B,D] of videos, given [B,n_past,C,H,W] and later [B,F,C,H,W] frames by method."""
        return {
            (name, method): network(torch.cat([past, future.to(past)], 1)).cpu().numpy()
            for method, future in futures.items()
            for name, network in self.networks.items()
        }

    def add(self, features: dict[tuple[str, str], np.ndarray]) -> None:
        """Add features of some more videos; those of the true ones are under the method ``truth``."""
        for key, values in features.items():
            self.features.setdefault(key, []).append(values)

    def distances(self, metrics: tuple[str, ...]) -> pd.DataFrame:
        """Return `metrics` of scope ``set`` by method, against the true videos."""
        features = {key: np.concatenate(parts) for key, parts in self.features.items()}
        return pd.DataFrame({metric: self._distances(METRICS[metric], features) for metric in metrics})

    @staticmethod
    def _distances(metric: Metric, features: dict[tuple[str, str], np.ndarray]) -> dict[str, float]:
        truth = features[metric.network, "truth"]
        return {
            method: metric.compute(values, truth)
            for (network, method), values in features.items()
            if network == metric.network and method != "truth"
        }


@torch.no_grad()
def evaluate(
    model: Predictor,
    dataset: SequenceDataset,
    protocol: Protocol,
    options: EvaluationOptions | None = None,
    networks: Mapping[str, Network] | None = None,
    weights: str = "",
    world: World | None = None,
) -> Evaluation:
    """Score the sequences of `dataset`, whose clips hold the protocol's given and predicted frames.

    Predictions are given what the dataset's clips hold, the positions of the future among it;
    `SequenceDataset.given` says so in the result.

    Args:
        model: as `svg.load` and `svg.models.freezing.freeze` return it; it knows its device and its
            precision.
        protocol: one that leaves numbers of frames open needs `Protocol.for_run` first.
        options: other choices; by default all sequences and the usual metrics.
        networks: those that ``options.metrics`` need, as `svg.evaluation.perceptual.load_networks` returns
            them.
        weights: text for the result that says where the model comes from.
        world: processes that share the work, see `svg.processes.together`. They take turns at the batches
            that one process would form, and each returns the result of all.

    Raises `ValueError` if the protocol does not fit the dataset's clips, and `InputError` if objects are to
    be scored of data without truth.
    """
    run = _Run(model, dataset, protocol, options or EvaluationOptions(), networks or {})
    run.check()
    total = evaluated(dataset, run.options.limit)
    batches = evaluation_batches(total, run.options.batch_size)
    world = world or World()
    quiet = None if world.is_main else True  # None: where there is no terminal
    with tqdm(total=total, desc="evaluate", unit="sequence", disable=quiet, leave=False) as bar:
        for first in range(0, len(batches), world.size):
            shared = batches[first : first + world.size]
            own = shared[world.rank] if world.rank < len(shared) else None
            scores = None if own is None else run.score_batch(own, total)
            for batch_scores in world.gather(scores):
                if batch_scores is not None:
                    run.add(batch_scores)
            bar.update(sum(map(len, shared)))
    setting = Setting(
        dataset.place, dataset.split, total, run.options.seed, run.computed, weights,
        runtime.machine(model.device), dataset.digest(), dataset.given,
    )  # fmt: skip
    return run.result(setting)


@dataclass(frozen=True)
class _BatchScores:
    """Scores of a batch: rows of the tables of an `Evaluation`, features for metrics of scope ``set``.

    `objects` holds the scores of objects if they were asked for.
    """

    rows: list[pd.DataFrame]
    sample_rows: list[pd.DataFrame]
    features: dict[tuple[str, str], np.ndarray]
    objects: list[ObjectScores]


class _Run:
    """An evaluation under way: scores of the sequences so far."""

    def __init__(
        self,
        model: Predictor,
        dataset: SequenceDataset,
        protocol: Protocol,
        options: EvaluationOptions,
        networks: Mapping[str, Network],
    ):
        self.model = model
        self.dataset = dataset
        self.protocol = protocol
        self.options = options
        metrics = (*always_taken(), *options.metrics)
        self.score = Scorer(protocol, metrics, networks, options.scorer, options.compile)
        self.set_metrics = of_scope(metrics, SET)
        names = {METRICS[metric].network for metric in self.set_metrics}
        self.videos = VideoFeatures({name: networks[name] for name in sorted(names)})
        self.rows: list[pd.DataFrame] = []
        self.sample_rows: list[pd.DataFrame] = []
        self.objects: ObjectScorer | None = None
        if self.options.objects:
            self.objects = ObjectScorer(dataset, protocol.n_past, load_judge(model.device))
        self.object_scores: list[ObjectScores] = []

    def check(self) -> None:
        """Raise `ValueError` if the protocol does not fit the clips or chooses by an unknown metric."""
        protocol = self.protocol
        clip = self.dataset.clip_length
        if protocol.n_past < 1 or protocol.n_future < 1 or protocol.n_past + protocol.n_future != clip:
            raise ValueError(
                f"protocol {protocol.name} with {protocol.n_past} + {protocol.n_future} frames, "
                f"expected those of the dataset's clips, {clip}; see Protocol.for_run"
            )
        choices = ("each", "none", *of_scope(self.score.metrics, FRAME, VIDEO))
        if protocol.best not in choices:
            raise ValueError(
                f"protocol {protocol.name}: found best {protocol.best!r}, expected {', '.join(choices)}"
            )

    def score_batch(self, numbers: range, total: int) -> _BatchScores:
        """Predict and score the sequences `numbers` among `total`."""
        n_past = self.protocol.n_past
        batch = self.dataset.batch([(number, 0) for number in numbers])
        frames = as_images(batch["frames"].to(self.model.device))
        conditions = batch["conditions"].to(self.model.device)
        past = frames[:, :n_past]
        target = frames[:, n_past:]
        future = conditions[:, n_past - 1 : -1]
        tried = {"pred": future}
        if self.options.action_tests:
            tried |= changed_conditions(self.dataset, numbers, total, future)
        videos = {"copy": past[:, -1:].expand_as(target)}
        videos["rec"] = self.model.reconstruct(frames, conditions, n_past)[:, n_past - 1 :]
        start = self.model.observe(past, conditions)
        videos |= {method: self.model.imagine(start, given)[0] for method, given in tried.items()}
        scores = {method: self.score(video.float(), target) for method, video in videos.items()}
        sampled = SampledFutures(self.protocol, target)
        for futures in self._sample(start, future, numbers):
            sampled.add(futures, self.score(futures, target))
            videos.setdefault("pred_sample", futures[0])
        names = self.dataset.index["sequence"].iloc[numbers.start : numbers.stop]
        if self.protocol.n_sample:
            scores |= sampled.by_method()
        sample_rows = [_rows(names, sampled.statistics())] if self.protocol.n_sample > 1 else []
        rows = [_rows(names, values).assign(method=method) for method, values in scores.items()]
        features = {}
        if self.set_metrics:
            compared = ("copy", "rec", "pred", "pred_sample")
            chosen = {method: videos[method] for method in compared if method in videos}
            features = self.videos.take(past, chosen | {"truth": target})
        objects = [self.objects.score(numbers, frames, videos)] if self.objects else []
        return _BatchScores(rows, sample_rows, features, objects)

    def add(self, scores: _BatchScores) -> None:
        """Add the scores of the next batch."""
        self.rows += scores.rows
        self.sample_rows += scores.sample_rows
        self.videos.add(scores.features)
        self.object_scores += scores.objects

    def _sample(self, start: object, future: Tensor, numbers: range) -> Iterator[Tensor]:
        """Yield sampled futures [S,B,F,C,H,W] of the sequences, as many at a time as fit into memory."""
        n_sample = self.protocol.n_sample
        n_future = self.protocol.n_future
        group = futures_at_a_time(self.model, len(numbers), n_future, self.options.memory)
        noise = latent_noise(self.model, numbers, n_sample, n_future, self.options.seed, group)
        for futures in imagine_in_groups(self.model, start, future, noise):
            yield futures.float()

    @property
    def computed(self) -> str:
        """The device, precision and code that computed the scores, in words."""
        words = f"{self.model.precision} on {self.model.device.type}"
        if self.options.scorer == "skimage":
            words += f"; PSNR and SSIM by scikit-image {version('scikit-image')}"
        return words

    def result(self, setting: Setting) -> Evaluation:
        """Return the scores so far."""
        samples = pd.concat(self.sample_rows, ignore_index=True) if self.sample_rows else None
        distances = self.videos.distances(self.set_metrics) if self.set_metrics else None
        scores = _ordered(pd.concat(self.rows, ignore_index=True))
        objects = joined(self.object_scores) if self.objects else None
        return Evaluation(self.protocol, setting, scores, samples, distances, objects)


def _rows(sequences: pd.Series, values: Scores) -> pd.DataFrame:
    """Return a row for each sequence and frame with its `values` [B,F]."""
    n_future = next(iter(values.values())).shape[1]
    return pd.DataFrame(
        {
            "sequence": np.repeat(sequences.to_numpy(), n_future),
            "frame": np.tile(np.arange(1, n_future + 1), len(sequences)),
            **{name: value.float().cpu().numpy().ravel() for name, value in values.items()},
        }
    )


def _ordered(scores: pd.DataFrame) -> pd.DataFrame:
    """Return rows by method, in the order of `METHODS`, and columns from names to values."""
    names = ["sequence", "method", "frame"]
    scores = scores[[*names, *(column for column in scores if column not in names)]]
    return pd.concat([scores[scores["method"] == method] for method in METHODS], ignore_index=True)
