"""PSNR and SSIM of images in [0,1] as batched torch operations, with the conventions of scikit-image."""

import torch
from torch import Tensor
from torch.nn import functional as F

SSIM_WINDOW = 7


def psnr(predicted: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image: [...,C,H,W] -> [...]; at most 100, so that averages stay finite.

    10 log10(1 / MSE), the squared error averaged over channels and pixels of one image, and at least 1e-10.
    """
    return -10 * torch.log10(((predicted - target) ** 2).mean((-3, -2, -1)).clamp(min=1e-10))


def ssim(predicted: Tensor, target: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of each image: [...,C,H,W] -> [...], mean over pixels and channels.

    Uniform 7x7 window, data range 1, K1 = 0.01, K2 = 0.03, sample covariance, windows wholly inside the image: what
    ``skimage.metrics.structural_similarity(..., channel_axis=0, data_range=1)`` computes.
    """
    x, y = torch.broadcast_tensors(predicted, target)
    shape = x.shape
    x, y = x.reshape(-1, *shape[-3:]), y.reshape(-1, *shape[-3:])
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = (
        F.avg_pool2d(image, SSIM_WINDOW, stride=1) for image in (x, y, x * x, y * y, x * y)
    )
    pixels = SSIM_WINDOW**2
    sample = pixels / (pixels - 1)
    var_x, var_y = sample * (mean_xx - mean_x**2), sample * (mean_yy - mean_y**2)
    covariance = sample * (mean_xy - mean_x * mean_y)
    c1, c2 = 0.01**2, 0.03**2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return similarity.mean((-3, -2, -1)).reshape(shape[:-3])
