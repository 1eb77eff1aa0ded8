"""Results in words: the verdict on samples, ideal values, losses."""

import numpy as np
import pytest

from svg.evaluation.intervals import Interval
from svg.evaluation.wording import describe_action_test, describe_samples


def statistics(ratio: Interval) -> dict[str, Interval]:
    return {
        "spread": Interval(0.0177, 0.0163, 0.0192),
        "calibration": ratio,
        "rank": Interval(0.991, 0.988, 0.995),
        "outermost": Interval(0.83, 0.76, 0.89),
    }


def test_each_line_names_its_ideal():
    assert describe_samples(statistics(Interval(0.11, 0.09, 0.13)), 100) == [
        "samples too alike (spread / error 0.11 [0.09, 0.13], ideal 1)",
        "truth outside all samples in 83 [76, 89] % of frames (ideal 1 %)",
        "truth less typical than 99 [99, 100] % of the samples (ideal 50 %)",
        "two samples differ by 0.0177 [0.0163, 0.0192] (root mean square, values in [0,1])",
    ]
    assert describe_samples({}, 100) == []


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (Interval(0.9, 0.8, 0.99), "samples too alike (spread / error 0.90 [0.80, 0.99], ideal 1)"),
        (
            Interval(1.0, 0.9, 1.1),
            "samples differ as they should (spread / error 1.00 [0.90, 1.10], ideal 1)",
        ),
        (Interval(1.5, 1.2, 1.8), "samples too different (spread / error 1.50 [1.20, 1.80], ideal 1)"),
        (Interval(0.1, -np.inf, np.inf), "variety of samples (spread / error 0.10, ideal 1)"),  # one sequence
    ],
)
def test_verdict(ratio, verdict):
    assert describe_samples(statistics(ratio), 4)[0] == verdict
    assert describe_samples(statistics(ratio), 4)[1].endswith("(ideal 20 %)")


def test_action_tests():
    line = describe_action_test("pred_other", Interval(9.5, 9, 10))
    assert line.startswith("with another sequence's conditions PSNR falls by 9.50 [9.00, 10.00] dB")
    assert line.endswith("(0 dB: the model ignores them)")
    assert "another sequence's actions alone" in describe_action_test("pred_swap", Interval(9.5, 9, 10))
