"""Squared error, PSNR and SSIM of images in [0,1] as batched torch operations, with the conventions of scikit-image."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

K1, K2 = 0.01, 0.03
"""SSIM's constants (Wang et al. 2004)."""

WINDOWS = {
    # weights of one side, from the centre out, before they are normalised; and whether covariances are those of a sample
    "uniform": (torch.ones(4), True),
    "gaussian": (torch.exp(-0.5 * (torch.arange(6) / 1.5) ** 2), False),
}
"""7x7 uniform with sample covariance (scikit-image's default), and 11x11 Gaussian of sigma 1.5 (Wang et al.)."""

CACHE = 100_000
"""Pixels that are worked on at a time on a CPU: intermediate results then stay in its cache."""


def squared_errors(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each channel of each image: [...,C,H,W] -> [...,C]."""
    return ((predicted - target) ** 2).mean((-2, -1))


def psnr_of_errors(errors: Tensor, channels: str = "together", epsilon: float = 0.0) -> Tensor:
    """PSNR in dB of images in [0,1] from their `squared_errors`: [...,C] -> [...].

    10 log10(1 / (MSE + epsilon)). ``channels="together"`` takes the MSE over all channels, ``"apart"`` the mean of the channels'
    PSNRs. Identical images get infinity, or 10 log10(1 / epsilon).
    """
    if channels == "together":
        errors = errors.mean(-1, keepdim=True)
    return (-10 * torch.log10(errors + epsilon)).mean(-1)


def psnr(predicted: Tensor, target: Tensor, channels: str = "together", epsilon: float = 0.0) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image, [...,C,H,W] -> [...], as in `psnr_of_errors`."""
    return psnr_of_errors(squared_errors(predicted, target), channels, epsilon)


def ssim(
    predicted: Tensor, target: Tensor, window: str = "uniform", data_range: float = 1.0, compile: bool = False
) -> Tensor:
    """Structural similarity (Wang et al. 2004) of each image: [...,C,H,W] -> [...], mean over pixels and channels.

    K1 = 0.01, K2 = 0.03, windows wholly inside the image: what ``skimage.metrics.structural_similarity`` computes with
    ``channel_axis=0``, `data_range` and, for ``window="gaussian"``, ``gaussian_weights=True, use_sample_covariance=False``. The
    right data range for images in [0,1] is 1; others are for comparing with who took them. In float32. `target` may lack leading
    dimensions of `predicted`, such as one of samples: its own moments are then computed once for all. `compile` takes some
    seconds at first and then a third of the time.
    """
    shape = predicted.shape
    if (
        target.shape != shape[-target.dim() :]
    ):  # dimensions that only `predicted` has must be the leading ones
        predicted, target = torch.broadcast_tensors(predicted, target)
        shape = predicted.shape
    planes = target.reshape(-1, *shape[-2:]).float()
    each = predicted.reshape(-1, *planes.shape).float()  # [S,N,H,W]: S images for each target
    size = len(planes) if each.is_cuda else max(1, CACHE // planes[0].numel())
    similarity = _compiled_similarity() if compile else _similarity
    values = [
        _ssim_of_planes(some, of, window, data_range, similarity)
        for some, of in zip(each.split(size, 1), planes.split(size), strict=True)
    ]
    return torch.cat(values, 1).reshape(shape[:-2]).mean(-1)


@cache
def _compiled_similarity() -> Callable[..., Tensor]:
    return torch.compile(_similarity)


def _ssim_of_planes(
    predicted: Tensor, target: Tensor, window: str, data_range: float, similarity: Callable[..., Tensor]
) -> Tensor:
    """[S,N,H,W] and [N,H,W] -> [S,N].

    Planes lie one after the other as a single row of pixels; a window's sum is then a sum of shifted rows, in which the places
    whose window would reach beyond its own plane are computed with the rest and left out of the mean.
    """
    height, width = target.shape[1:]
    side, sample = WINDOWS[window]
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    side = (side / (2 * side.sum() - side[0])).tolist()
    reach = 2 * (len(side) - 1)
    if min(height, width) <= reach:
        raise ValueError(
            f"images of {height}x{width}, expected more than {reach} pixels a side for the {window} window of SSIM"
        )
    unbiased = (reach + 1) ** 2 / ((reach + 1) ** 2 - 1) if sample else 1.0
    inside = target.new_zeros(height, width)
    inside[: height - reach, : width - reach] = 1 / ((height - reach) * (width - reach))
    y = target.flatten()
    mean_y, mean_yy = _window_means(torch.stack([y, y * y]), side, width)
    of_means = mean_y**2 + c1
    of_variances = unbiased * mean_yy + (
        unbiased * c1 + c2
    )  # c1 undoes that of `of_means`, which is subtracted from it
    of_target = (y, mean_y, of_means, of_variances)
    return torch.stack(
        [similarity(plane.flatten(), *of_target, inside, side, unbiased, c1, c2) for plane in predicted]
    )


def _similarity(
    x: Tensor, y: Tensor, mean_y: Tensor, of_means: Tensor, of_variances: Tensor,
    inside: Tensor, side: list[float], unbiased: float, c1: float, c2: float,
) -> Tensor:  # fmt: skip
    """SSIM [N] of N planes `x` with `y`, both in a row [N*H*W]; `inside` [H,W] are the weights of the places in a plane's mean."""
    moments = x.repeat(3, 1)
    moments[1].mul_(x)
    moments[2].mul_(y)
    mean_x, mean_xx, mean_xy = _window_means(moments, side, inside.shape[1])
    product = mean_x * mean_y
    covariance = mean_xy.sub_(product).mul_(2 * unbiased).add_(c2)
    means = torch.addcmul(of_means, mean_x, mean_x)
    variances = torch.add(of_variances, mean_xx, alpha=unbiased).sub_(means, alpha=unbiased)
    similarity = product.mul_(2).add_(c1).mul_(covariance).div_(means.mul_(variances))
    similarity = F.pad(similarity, (0, len(x) - len(similarity)))
    return (similarity.unflatten(0, (-1, *inside.shape)) * inside).sum((1, 2))


def _window_means(x: Tensor, side: list[float], width: int) -> Tensor:
    """Weighted means of rows of pixels `x` [K,L] over the window that begins at each pixel, in a plane of `width`."""
    for stride in (1, width):
        steps = len(side) - 1
        length = x.shape[1] - 2 * steps * stride

        def shifted(by: int, x: Tensor = x, stride: int = stride, length: int = length) -> Tensor:
            return x[:, by * stride : by * stride + length]

        total = shifted(steps) * side[0]
        for distance in range(1, steps + 1):
            total.add_(shifted(steps - distance) + shifted(steps + distance), alpha=side[distance])
        x = total
    return x
