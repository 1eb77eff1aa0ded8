"""Results in words: how a protocol takes scores, and what the samples and the actions show."""

from collections.abc import Iterable

from .intervals import Interval
from .metrics import METRICS, always_taken
from .protocols import Protocol

CHANGES = {"pred_other": "conditions", "pred_swap": "actions alone"}
"""Methods that take over something of another sequence, and what."""


def describe_protocol(protocol: Protocol, metrics: Iterable[str] | None = None) -> dict[str, str]:
    """Return a line for each part of a protocol and each of `metrics` (default: those always taken)."""
    names = set(always_taken() if metrics is None else metrics)
    best = {
        "each": "the sampled future with the best mean over frames, for each sequence and each metric anew",
        "none": "not taken",
    }.get(protocol.best, f"the sampled future with the best mean {protocol.best.upper()}, for all metrics")
    lines = {
        "protocol": f"{protocol.name} ({protocol.source})",
        "frames": f"{protocol.n_past} given, {protocol.n_future} predicted; the predicted ones count; "
        "first frames of each sequence",
        "samples": f"{protocol.n_sample} futures a sequence",
        "best": best if protocol.n_sample > 1 else "not taken",
        "averages": "over the frames of a sequence, then over sequences; colour as in the data, "
        "values in [0,1]",
    }
    return lines | {name: metric.explain(protocol) for name, metric in METRICS.items() if name in names}


def describe_samples(statistics: dict[str, Interval], n_sample: int) -> list[str]:
    """Return a line for each of the `Evaluation.sample_statistics`, each with its ideal value."""
    if not statistics:
        return []
    ratio = statistics["calibration"]
    if ratio.high < 1:
        verdict = "samples too alike"
    elif ratio.low > 1:
        verdict = "samples too different"
    elif ratio.is_bounded:
        verdict = "samples differ as they should"
    else:  # of one sequence
        verdict = "variety of samples"
    rank = statistics["rank"].times(100)
    outside = statistics["outermost"].times(100)
    by_chance = 100 / (n_sample + 1)
    return [
        f"{verdict} (spread / error {ratio.text('.2f')}, ideal 1)",
        f"truth outside all samples in {outside.text('.0f')} % of frames (ideal {by_chance:.0f} %)",
        f"truth less typical than {rank.text('.0f')} % of the samples (ideal 50 %)",
        f"two samples differ by {statistics['spread'].text('.4f')} (root mean square, values in [0,1])",
    ]


def describe_action_test(method: str, loss: Interval) -> str:
    """Return what it costs in dB to predict with the conditions of another sequence, as the `method` does."""
    change = f"with another sequence's {CHANGES[method]}"
    return f"{change} PSNR falls by {loss.text('.2f')} dB (0 dB: the model ignores them)"
