"""Sampled futures: scores of the best and on average, how they differ, where the truth lies among them."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .metrics import METRICS, squared_errors
from .protocols import Protocol
from .score_tables import SAMPLE_COLUMNS

BLOCKS = 8
"""Blocks a side on which the truth is ranked among futures: where things are, not their texture."""

Scores = dict[str, Tensor]
"""By metric, [...,F]."""


class SampledFutures:
    """Futures of a batch of sequences, of which a few at a time are added with their scores.

    Args:
        target: the true frames [B,F,C,H,W].
    """

    def __init__(self, protocol: Protocol, target: Tensor):
        self.protocol = protocol
        self.target = target
        self.total = torch.zeros_like(target)
        self.scores: list[Scores] = []
        self.blocks: list[Tensor] = []

    def add(self, futures: Tensor, scores: Scores) -> None:
        """Add `futures` [S,B,F,C,H,W] with their `scores` [S,B,F]."""
        self.total += futures.sum(0)
        self.scores.append(scores)
        self.blocks.append(_block_means(futures))

    def by_method(self) -> dict[str, Scores]:
        """Return scores [B,F]: means over futures (``pred_mean``), and the best if the protocol says so."""
        scores = self._all_scores()
        methods = {"pred_mean": {name: values.mean(0) for name, values in scores.items()}}
        best = self.protocol.best
        if best != "none" and self.protocol.n_sample > 1:
            chosen = {name: _best_future(name, values) for name, values in scores.items()}
            choice = {name: chosen[name if best == "each" else best] for name in scores}
            rows = torch.arange(len(self.target), device=self.target.device)
            methods["pred_best"] = {name: values[choice[name], rows] for name, values in scores.items()}
        return methods

    def statistics(self) -> Scores:
        """Return the `SAMPLE_COLUMNS`, [B,F] each."""
        errors = self._all_scores()["mse"]
        errors = errors / (math.prod(self.target.shape[-3:]) if self.protocol.mse == "sum" else 1)
        count = len(errors)
        error = errors.mean(0)
        # The mean squared distance to the truth is that of the futures' mean, plus their variance.
        variance = (error - squared_errors(self.total / count, self.target).mean(-1)).clamp(min=0)
        pairwise = 2 * count / max(1, count - 1) * variance
        return dict(zip(SAMPLE_COLUMNS, (pairwise, error, self._rank()), strict=True))

    def _rank(self) -> Tensor:
        """Return the share of futures nearer to the middle of all than the truth is [B,F]; ties count half.

        The nearer to the middle, the smaller the mean squared distance to all others.
        """
        members = torch.cat([_block_means(self.target)[None], *self.blocks])
        distances = ((members - members.mean(0)) ** 2).mean(-1)
        truth = distances[0]
        futures = distances[1:]
        return (futures < truth).float().mean(0) + 0.5 * (futures == truth).float().mean(0)

    def _all_scores(self) -> Scores:
        return {name: torch.cat([part[name] for part in self.scores]) for name in self.scores[0]}


def _best_future(metric: str, values: Tensor) -> Tensor:
    """Return the number of the best future of each sequence [B] by its mean over frames; `values` [S,B,F]."""
    means = values.mean(2)
    return means.argmax(0) if METRICS[metric].higher_is_better else means.argmin(0)


def _block_means(frames: Tensor) -> Tensor:
    """Return means over a grid of blocks: [...,C,H,W] -> [...,C*BLOCKS*BLOCKS]."""
    return F.adaptive_avg_pool2d(frames.flatten(0, -4), BLOCKS).reshape(*frames.shape[:-3], -1)
