"""Uncertainty of averages over sequences: bootstrap intervals and paired tests."""

from collections.abc import Callable
from dataclasses import dataclass
from math import comb
from statistics import NormalDist

import numpy as np

from .tables import number

RESAMPLES = 2000
FLIPS = 10_000
BLOCK = 500
"""Sign flips tried at a time."""


@dataclass(frozen=True)
class Interval:
    """A mean over sequences and the bounds of its 95 % bootstrap interval, infinite for a single sequence."""

    mean: float
    low: float
    high: float

    @property
    def is_bounded(self) -> bool:
        """Tell whether the bounds say anything: those of a single sequence do not."""
        return self.low != -np.inf

    def text(self, form: str) -> str:
        """Return ``26.51 [25.98, 27.03]``, the mean alone without bounds, or "undefined" for NaN."""
        if np.isnan(self.mean):
            return "undefined"
        if not self.is_bounded:
            return number(self.mean, form)
        return f"{number(self.mean, form)} [{number(self.low, form)}, {number(self.high, form)}]"

    def times(self, factor: float) -> "Interval":
        """Return the interval in another unit."""
        return Interval(factor * self.mean, factor * self.low, factor * self.high)


def mean_interval(values: np.ndarray) -> Interval:
    """Return the mean of the values of single sequences [N] with its interval."""
    with np.errstate(invalid="ignore"):  # infinity less infinity
        mean = float(values.mean())
    low, high = bootstrap_interval(values)
    return Interval(mean, float(low), float(high))


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray] = lambda means: means,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile bootstrap interval of the mean over sequences (Efron & Tibshirani 1993, ch. 13).

    Args:
        values: [N,...] of N sequences, which are drawn with replacement, all columns of a sequence together.
            They may be infinite, and then a bound may be, too.
        statistic: computes from the means of R resamples [R,...] the quantity that the interval is for.
        level: probability that the interval covers.
        seed: of the resamples.

    Returns the lower and the upper bound [...]; for a single sequence minus and plus infinity.
    """
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        shape = statistic(values.mean(0)[None]).shape[1:]
        return np.full(shape, -np.inf), np.full(shape, np.inf)
    random = np.random.default_rng(seed)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        means = np.stack(
            [values[random.integers(len(values), size=len(values))].mean(0) for _ in range(RESAMPLES)]
        )
    levels = [(1 - level) / 2, (1 + level) / 2]
    # of the values that occurred: a mean of two of them would make NaN out of infinities
    low, high = np.quantile(statistic(means), levels, axis=0, method="inverted_cdf")
    return low, high


def paired_differences(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return `values` - `reference` of each sequence; 0 where both are the same, infinite or not."""
    same = values == reference
    return np.where(same, 0.0, np.where(same, 0.0, values) - np.where(same, 0.0, reference))


def sign_flip_p(differences: np.ndarray, seed: int = 0) -> float:
    """Return the two-sided p-value of paired differences [N] if their signs were chance (permutation test).

    Exact for up to 13 sequences, else from random flips, the observed one counted among them (Phipson & Smyth
    2010). An infinite difference counts as the largest finite one. With a difference that is no number the
    p-value is NaN.
    """
    if np.isnan(differences).any():
        return float("nan")
    finite = np.abs(differences[np.isfinite(differences)])
    largest = finite.max(initial=0.0) or 1.0
    differences = np.clip(differences, -largest, largest)
    n = len(differences)
    rounding = 1e-12 * np.abs(differences).sum()  # else equal sums might count as different
    observed = abs(differences.sum()) - rounding
    if 2**n <= FLIPS:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ differences) >= observed).mean())
    random = np.random.default_rng(seed)
    extreme = 0
    for _ in range(FLIPS // BLOCK):
        signs = random.choice([-1.0, 1.0], (BLOCK, n))
        extreme += int((np.abs(signs @ differences) >= observed).sum())
    return (1 + extreme) / (1 + FLIPS)


def holm(p_values: list[float]) -> list[float]:
    """Return the p-values corrected for their number (Holm 1979).

    The chance that any of them is below a level by chance alone is then at most that level.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(np.argsort(p_values)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Return the share of successes with Wilson's interval (1927), which holds for few trials, too."""
    if not trials:
        return Interval(float("nan"), 0.0, 1.0)
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * (share * (1 - share) / trials + z**2 / (4 * trials**2)) ** 0.5
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def mcnemar_p(first: np.ndarray, second: np.ndarray) -> float:
    """Return the two-sided p-value of two series of successes, bool [N], in the same trials.

    Exact (McNemar 1947, by the binomial distribution of the trials in which they differ).
    """
    wins = int((first & ~second).sum())
    losses = int((second & ~first).sum())
    count = wins + losses
    tail = sum(comb(count, k) for k in range(min(wins, losses) + 1)) / 2**count
    return min(1.0, 2 * tail)
