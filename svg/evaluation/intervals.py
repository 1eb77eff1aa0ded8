"""What averages over sequences are worth: bootstrap intervals, paired tests."""

from collections.abc import Callable

import numpy as np

RESAMPLES = 2000
FLIPS = 10_000
BLOCK = 500
"""Sign flips tried at a time."""


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray] = lambda means: means,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval of the mean over sequences (Efron & Tibshirani 1993, ch. 13): [N,...] -> two of [...].

    Sequences are drawn with replacement, all columns of one together; `statistic` makes of their means [R,...] in R resamples
    what the interval is for. Values may be infinite: so may then be a bound. Of a single sequence nothing is known: minus and
    plus infinity.
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
    # of the values that occurred: a mean of two of them would make NaN out of infinities
    low, high = np.quantile(
        statistic(means), [(1 - level) / 2, (1 + level) / 2], axis=0, method="inverted_cdf"
    )
    return low, high


def paired_differences(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """`values` - `reference` of each sequence; 0 where both are the same, also where both are infinite."""
    same = values == reference
    return np.where(same, 0.0, np.where(same, 0.0, values) - np.where(same, 0.0, reference))


def sign_flip_p(differences: np.ndarray, seed: int = 0) -> float:
    """Two-sided p-value of paired differences [N] under the hypothesis that their signs are chance (permutation test).

    Exact for up to 13 sequences, else from random flips, the observed one counted among them (Phipson & Smyth 2010). An infinite
    difference counts as the largest finite one; differences that are no numbers give none.
    """
    if np.isnan(differences).any():
        return float("nan")
    finite = np.abs(differences[np.isfinite(differences)])
    largest = finite.max(initial=0.0) or 1.0
    differences = np.clip(differences, -largest, largest)
    n = len(differences)
    observed = (
        abs(differences.sum()) - 1e-12 * np.abs(differences).sum()
    )  # lest rounding tells equal sums apart
    if 2**n <= FLIPS:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ differences) >= observed).mean())
    random = np.random.default_rng(seed)
    extreme = sum(
        int((np.abs(random.choice([-1.0, 1.0], (BLOCK, n)) @ differences) >= observed).sum())
        for _ in range(FLIPS // BLOCK)
    )
    return (1 + extreme) / (1 + FLIPS)


def holm(p_values: list[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979): each keeps below its level the chance that any is wrongly small."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, number in enumerate(np.argsort(p_values)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[number]))
        corrected[number] = largest
    return corrected
