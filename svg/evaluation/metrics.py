"""Metrics: how each is computed, written and explained. A new metric is one entry of `METRICS`.

Importing this module does not load PyTorch: ``svg-evaluate --help`` names the metrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .protocols import Protocol
from .video_distances import frechet_distance, kernel_distance

if TYPE_CHECKING:
    from torch import Tensor

FRAME = "frame"
VIDEO = "video"
SET = "set"
SCOPES = (FRAME, VIDEO, SET)


def squared_errors(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of each channel of each image: [...,C,H,W] -> [...,C]."""
    return ((predicted - target) ** 2).mean((-2, -1))


def psnr_of_errors(errors: Tensor, channels: str = "together", epsilon: float = 0.0) -> Tensor:
    """Return the PSNR in dB of images in [0,1] from their `squared_errors`: [...,C] -> [...].

    10 log10(1 / (MSE + epsilon)). ``channels="together"`` takes the MSE over all channels, ``"apart"`` the
    mean of the channels' PSNRs. Identical images get infinity, or 10 log10(1 / epsilon).
    """
    if channels == "together":
        errors = errors.mean(-1, keepdim=True)
    return (-10 * (errors + epsilon).log10()).mean(-1)


def psnr(predicted: Tensor, target: Tensor, channels: str = "together", epsilon: float = 0.0) -> Tensor:
    """Return the PSNR in dB of each image, as `psnr_of_errors`: [...,C,H,W] -> [...]."""
    return psnr_of_errors(squared_errors(predicted, target), channels, epsilon)


@dataclass(frozen=True)
class FramePair:
    """Predicted and true frames, as a metric of frames or videos takes them.

    predicted   [...,F,C,H,W] in [0,1]; F frames of a video, after dimensions of samples and sequences
    target      the true frames, which may lack leading dimensions of `predicted`, such as that of samples
    protocol    settings that published codes differ in
    networks    by the names of `svg.evaluation.perceptual.NETWORKS`, those that the metrics need
    compile     compile functions with torch.compile where that pays
    """

    predicted: Tensor
    target: Tensor
    protocol: Protocol
    networks: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)
    compile: bool = False

    @cached_property
    def squared_errors(self) -> Tensor:
        """Mean squared error of each channel of each frame [...,F,C], computed once for all metrics."""
        return squared_errors(self.predicted, self.target)


@dataclass(frozen=True)
class Metric:
    """A score of predictions: how it is computed, written and explained.

    title             heading of its column and of its plot, with the unit
    format            of its numbers, a format specification of Python
    higher_is_better  direction
    explain           says how a protocol takes it, in one line
    compute           of scope ``frame``: a `FramePair` -> a score of each frame [...,F]
                      of scope ``video``: a `FramePair` -> a score of each video [...]
                      of scope ``set``: features [N,D] of N predicted and of N true videos -> one number
    scope             ``frame``, ``video`` or ``set``
    network           name in `svg.evaluation.perceptual.NETWORKS` of the network that it needs
    always            taken in every evaluation; other metrics when ``--metrics`` names them
    plotted           gets a panel of the curves over predicted frames (scope ``frame`` alone)
    """

    title: str
    format: str
    higher_is_better: bool
    explain: Callable[[Protocol], str]
    compute: Callable[..., Any]
    scope: str = FRAME
    network: str = ""
    always: bool = False
    plotted: bool = True

    def __post_init__(self):
        if self.scope not in SCOPES:
            raise ValueError(f"scope {self.scope!r}, expected {', '.join(SCOPES)}")


def _compute_psnr(pair: FramePair) -> Tensor:
    return psnr_of_errors(pair.squared_errors, pair.protocol.psnr, pair.protocol.psnr_epsilon)


def _compute_ssim(pair: FramePair) -> Tensor:
    from .ssim import ssim

    protocol = pair.protocol
    return ssim(pair.predicted, pair.target, protocol.ssim_window, protocol.ssim_range, pair.compile)


def _compute_mse(pair: FramePair) -> Tensor:
    errors = pair.squared_errors.mean(-1)
    return errors if pair.protocol.mse == "mean" else errors * math.prod(pair.predicted.shape[-3:])


def _compute_lpips(pair: FramePair) -> Tensor:
    return pair.networks["lpips"](pair.predicted, pair.target)


def _explain_psnr(protocol: Protocol) -> str:
    of_frame = {
        "together": "dB of each frame from its squared error over all channels",
        "apart": "dB of each channel of each frame, then the mean over channels",
    }[protocol.psnr]
    epsilon = protocol.psnr_epsilon
    return f"{of_frame}, {f'{epsilon:g} added to it' if epsilon else 'infinite where it is 0'}"


def _explain_ssim(protocol: Protocol) -> str:
    window = {
        "uniform": "7x7 uniform window, sample covariance",
        "gaussian": "11x11 Gaussian window of sigma 1.5",
    }[protocol.ssim_window]
    return f"{window}, data range {protocol.ssim_range:g}, mean over channels"


METRICS = {
    "psnr": Metric("PSNR dB", ".2f", True, _explain_psnr, _compute_psnr, always=True),
    "ssim": Metric("SSIM", ".4f", True, _explain_ssim, _compute_ssim, always=True),
    "mse": Metric(
        "MSE", "#.3g", False,
        lambda protocol: f"{protocol.mse} over the values of a frame",
        _compute_mse, always=True, plotted=False,  # PSNR shows the same
    ),
    "lpips": Metric(
        "LPIPS", ".4f", False,
        lambda protocol: f"version 0.1, {protocol.lpips}",
        _compute_lpips, network="lpips",
    ),
    "fvd": Metric(
        "FVD", ".1f", False,
        lambda protocol: "Frechet distance of I3D logits (Kinetics 400); whole clips with their "
        "given frames, the first future of each",
        frechet_distance, SET, network="i3d",
    ),
    "kvd": Metric(
        "KVD", "#.3g", False,
        lambda protocol: "unbiased MMD with the kernel (x.y/d + 1)^3 of the same features",
        kernel_distance, SET, network="i3d",
    ),
}  # fmt: skip
"""All metrics by their names in flags and files, in the order of tables."""


def of_scope(names: Iterable[str], *scopes: str) -> tuple[str, ...]:
    """Return those of `names` that are metrics of these scopes, in the order of `METRICS`."""
    names = set(names)
    return tuple(name for name, metric in METRICS.items() if name in names and metric.scope in scopes)


def always_taken() -> tuple[str, ...]:
    """Return the metrics of every evaluation."""
    return tuple(name for name, metric in METRICS.items() if metric.always)


def optional() -> tuple[str, ...]:
    """Return the metrics that are taken when they are asked for."""
    return tuple(name for name, metric in METRICS.items() if not metric.always)
