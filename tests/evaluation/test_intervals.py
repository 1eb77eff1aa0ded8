"""Intervals and tests against SciPy, exact enumeration and values worked out by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from svg.evaluation.intervals import (
    bootstrap_interval,
    holm,
    mcnemar_p,
    paired_differences,
    sign_flip_p,
    wilson_interval,
)


def test_interval_against_scipy():
    values = np.random.default_rng(0).gamma(2, size=(80, 2))
    low, high = bootstrap_interval(values)
    for column in range(2):
        expected = stats.bootstrap(
            (values[:, column],), np.mean, n_resamples=5000, method="percentile", rng=0
        ).confidence_interval
        assert (low[column], high[column]) == pytest.approx((expected.low, expected.high), abs=0.05)


@pytest.mark.slow
def test_interval_covers_the_mean():
    random = np.random.default_rng(1)
    inside = 0
    for number in range(200):
        low, high = bootstrap_interval(random.normal(3, 1, 40), seed=number)
        inside += low <= 3 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_interval_of_a_statistic():
    values = np.stack([np.arange(1.0, 21), 2 * np.arange(1.0, 21)], 1)
    low, high = bootstrap_interval(values, statistic=lambda means: means[..., 0] / means[..., 1])
    assert low == pytest.approx(0.5) and high == pytest.approx(
        0.5
    )  # columns of a sequence are drawn together


def test_interval_with_infinities_and_few_sequences():
    low, high = bootstrap_interval(np.array([1.0, 2.0, np.inf, 3.0]))
    assert np.isfinite(low) and high == np.inf
    assert [bound.tolist() for bound in bootstrap_interval(np.full((3, 2), np.inf))] == [[np.inf] * 2] * 2
    assert [float(bound) for bound in bootstrap_interval(np.array([5.0]))] == [-np.inf, np.inf]


@given(arrays(np.float64, st.integers(1, 7), elements=st.sampled_from([-2.0, -1, 0, 0.5, 1, 3])))
@settings(max_examples=60, deadline=None)
def test_sign_flips_by_enumeration(differences):
    observed = abs(differences.mean())
    flips = [
        abs(np.mean(differences * signs)) for signs in itertools.product([1, -1], repeat=len(differences))
    ]
    assert sign_flip_p(differences) == pytest.approx(np.mean([flip >= observed - 1e-12 for flip in flips]))


def test_sign_flips_against_scipy():
    differences = np.random.default_rng(3).normal(0.3, 1, 60)
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20000
    ).pvalue
    assert sign_flip_p(differences) == pytest.approx(expected, abs=0.01)
    assert sign_flip_p(np.zeros(40)) == 1 and np.isnan(sign_flip_p(np.array([np.nan, 1, 2])))
    assert sign_flip_p(np.full(40, 0.5)) == pytest.approx(1 / 10001)
    assert sign_flip_p(np.array([np.inf] * 6)) == pytest.approx(2 / 64)


def test_paired_differences():
    found = paired_differences(np.array([1.0, np.inf, np.inf, 2.0]), np.array([0.5, np.inf, 3.0, np.inf]))
    assert found.tolist() == [0.5, 0, np.inf, -np.inf]


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.4: times 4, 3, 2, 1, never falling
    assert holm([0.03, 0.01, 0.4, 0.02]) == pytest.approx([0.06, 0.04, 0.4, 0.06])
    assert holm([0.9, 0.8]) == [1, 1] and holm([]) == []


@given(st.integers(1, 120), st.integers(0, 120))
def test_shares_against_scipy(trials, successes):
    successes = min(successes, trials)
    found = wilson_interval(successes, trials)
    expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert found.mean == successes / trials
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(arrays(bool, (2, 15)))
def test_paired_successes_against_scipy(both):
    first, second = both
    wins, differing = int((first & ~second).sum()), int((first != second).sum())
    expected = stats.binomtest(wins, differing).pvalue if differing else 1.0
    assert mcnemar_p(first, second) == pytest.approx(expected)
