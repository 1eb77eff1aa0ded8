"""PSNR and SSIM by scikit-image, image after image in float64: a second opinion, and slower."""

from collections.abc import Callable

import numpy as np
import torch
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from .metrics import FramePair
from .protocols import Protocol


def compute_psnr(pair: FramePair) -> Tensor:
    """Return the PSNR of each frame [...,F] as the protocol takes it."""
    return _for_each_image(_psnr, pair)


def compute_ssim(pair: FramePair) -> Tensor:
    """Return the SSIM of each frame [...,F] as the protocol takes it."""
    return _for_each_image(_ssim, pair)


SKIMAGE = {"psnr": compute_psnr, "ssim": compute_ssim}
"""Metrics that scikit-image computes."""


def _for_each_image(score: Callable[[np.ndarray, np.ndarray, Protocol], float], pair: FramePair) -> Tensor:
    """Return `score` (truth, image, protocol) of each image [C,H,W]: [...,C,H,W] -> [...]."""
    predicted, target = torch.broadcast_tensors(pair.predicted, pair.target)
    shape = predicted.shape
    images = predicted.reshape(-1, *shape[-3:]).double().cpu().numpy()
    truths = target.reshape(-1, *shape[-3:]).double().cpu().numpy()
    values = [score(truth, image, pair.protocol) for truth, image in zip(truths, images, strict=True)]
    return torch.tensor(values, dtype=torch.float32, device=predicted.device).reshape(shape[:-3])


def _psnr(truth: np.ndarray, image: np.ndarray, protocol: Protocol) -> float:
    if protocol.psnr == "apart":
        channels = zip(truth, image, strict=True)
        return float(np.mean([_psnr_of_array(t, i, protocol.psnr_epsilon) for t, i in channels]))
    return _psnr_of_array(truth, image, protocol.psnr_epsilon)


def _psnr_of_array(truth: np.ndarray, image: np.ndarray, epsilon: float) -> float:
    if epsilon:  # which scikit-image does not know
        return -10 * float(np.log10(mean_squared_error(truth, image) + epsilon))
    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(truth, image, data_range=1.0))


def _ssim(truth: np.ndarray, image: np.ndarray, protocol: Protocol) -> float:
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    settings = window if protocol.ssim_window == "gaussian" else {}
    return float(
        structural_similarity(truth, image, data_range=protocol.ssim_range, channel_axis=0, **settings)
    )
