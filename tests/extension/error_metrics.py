"""Two metrics from outside the package: an error of frames and one of whole videos."""

from svg.evaluation.metrics import METRICS, VIDEO, FramePair, Metric


def mean_absolute_error(pair: FramePair):
    """Return the mean absolute error of each frame: [...,F,C,H,W] -> [...,F]."""
    return (pair.predicted - pair.target).abs().mean((-3, -2, -1))


def largest_error(pair: FramePair):
    """Return the largest error of a pixel in each video: [...,F,C,H,W] -> [...]."""
    return (pair.predicted - pair.target).abs().amax((-4, -3, -2, -1))


METRICS["mae"] = Metric(
    "MAE",
    ".4f",
    False,
    lambda protocol: "mean absolute error over the values of a frame",
    mean_absolute_error,
)
METRICS["worst"] = Metric(
    "worst pixel", ".3f", False, lambda protocol: "largest error of a pixel in a video", largest_error, VIDEO
)
