"""Structural similarity of images in [0,1] as batched torch operations, with the conventions of scikit-image.

scikit-image takes one image at a time on the CPU; here a hundred futures share the moments of their truth.
``svg-evaluate --scorer skimage`` takes scikit-image's as a second opinion.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

K1, K2 = 0.01, 0.03
"""SSIM's constants (Wang et al. 2004)."""

WINDOWS = {
    # weights of one side, from the centre out, before they are normalised; whether covariances are those of a
    # sample
    "uniform": (torch.ones(4), True),
    "gaussian": (torch.exp(-0.5 * (torch.arange(6) / 1.5) ** 2), False),
}
"""7x7 uniform with sample covariance (scikit-image's default), 11x11 Gaussian of sigma 1.5 (Wang et al.)."""

CACHE = 100_000
"""Pixels that are worked on at a time on a CPU: intermediate results then stay in its cache."""


def ssim(
    predicted: Tensor, target: Tensor, window: str = "uniform", data_range: float = 1.0, compile: bool = False
) -> Tensor:
    """Return the structural similarity (Wang et al. 2004) of each image: [...,C,H,W] -> [...].

    The mean over pixels and channels, in float32, with K1 = 0.01, K2 = 0.03 and windows wholly inside the
    image, as ``skimage.metrics.structural_similarity`` computes it with ``channel_axis=0`` and, for
    ``window="gaussian"``, ``gaussian_weights=True, use_sample_covariance=False``.

    Args:
        target: may lack leading dimensions of `predicted`, such as one of samples: its moments are then
            computed once.
        window: one of `WINDOWS`.
        data_range: 1 is right for images in [0,1]; other values reproduce published scores.
        compile: use torch.compile, which takes some seconds at first and then a third of the time.

    Raises `ValueError` for images smaller than the window.
    """
    shape = predicted.shape
    # dimensions that only `predicted` has must be the leading ones
    if target.shape != shape[-target.dim() :]:
        predicted, target = torch.broadcast_tensors(predicted, target)
        shape = predicted.shape
    targets = target.reshape(-1, *shape[-2:]).float()
    samples = predicted.reshape(-1, *targets.shape).float()  # [S,N,H,W]: S images for each target
    size = len(targets) if samples.is_cuda else max(1, CACHE // targets[0].numel())
    similarity = _compiled_similarity() if compile else _similarity
    values = [
        _ssim_of_planes(part, truth, window, data_range, similarity)
        for part, truth in zip(samples.split(size, 1), targets.split(size), strict=True)
    ]
    return torch.cat(values, 1).reshape(shape[:-2]).mean(-1)


@cache
def _compiled_similarity() -> Callable[..., Tensor]:
    return torch.compile(_similarity)


def _ssim_of_planes(
    predicted: Tensor, target: Tensor, window: str, data_range: float, similarity: Callable[..., Tensor]
) -> Tensor:
    """Return the SSIM [S,N] of planes [S,N,H,W] with their targets [N,H,W].

    Planes lie one after the other as a single row of pixels; a window's sum is then a sum of shifted rows.
    Places whose window would reach beyond their own plane are computed with the rest and left out of the
    mean.
    """
    height, width = target.shape[1:]
    side, sample = WINDOWS[window]
    c1 = (K1 * data_range) ** 2
    c2 = (K2 * data_range) ** 2
    side = (side / (2 * side.sum() - side[0])).tolist()
    reach = 2 * (len(side) - 1)
    if min(height, width) <= reach:
        raise ValueError(
            f"images of {height}x{width}, expected more than {reach} pixels a side "
            f"for the {window} window of SSIM"
        )
    unbiased = (reach + 1) ** 2 / ((reach + 1) ** 2 - 1) if sample else 1.0
    inside = target.new_zeros(height, width)
    inside[: height - reach, : width - reach] = 1 / ((height - reach) * (width - reach))
    y = target.flatten()
    mean_y, mean_yy = _window_means(torch.stack([y, y * y]), side, width)
    means_term = mean_y**2 + c1
    # with c1, which is subtracted again with `means_term`
    variances_term = unbiased * mean_yy + (unbiased * c1 + c2)
    target_terms = (y, mean_y, means_term, variances_term)
    return torch.stack(
        [similarity(plane.flatten(), *target_terms, inside, side, unbiased, c1, c2) for plane in predicted]
    )


def _similarity(
    x: Tensor, y: Tensor, mean_y: Tensor, means_term: Tensor, variances_term: Tensor,
    inside: Tensor, side: list[float], unbiased: float, c1: float, c2: float,
) -> Tensor:  # fmt: skip
    """Return the SSIM [N] of N planes `x` with `y`, both in a row [N*H*W].

    `inside` [H,W] are the weights of the places in a plane's mean.
    """
    moments = x.repeat(3, 1)
    moments[1].mul_(x)
    moments[2].mul_(y)
    mean_x, mean_xx, mean_xy = _window_means(moments, side, inside.shape[1])
    product = mean_x * mean_y
    covariance = mean_xy.sub_(product).mul_(2 * unbiased).add_(c2)
    means = torch.addcmul(means_term, mean_x, mean_x)
    variances = torch.add(variances_term, mean_xx, alpha=unbiased).sub_(means, alpha=unbiased)
    similarity = product.mul_(2).add_(c1).mul_(covariance).div_(means.mul_(variances))
    similarity = F.pad(similarity, (0, len(x) - len(similarity)))
    return (similarity.unflatten(0, (-1, *inside.shape)) * inside).sum((1, 2))


def _window_means(x: Tensor, side: list[float], width: int) -> Tensor:
    """Return weighted means of rows of pixels `x` [K,L] over the window that begins at each pixel.

    `side` are the weights from the window's centre out, `width` is that of a plane.
    """
    for stride in (1, width):
        x = _weighted_sum(x, side, stride)
    return x


def _weighted_sum(x: Tensor, side: list[float], stride: int) -> Tensor:
    """Return the symmetric weighted sum of `x` [K,L] and itself shifted by multiples of `stride`."""
    steps = len(side) - 1
    length = x.shape[1] - 2 * steps * stride
    shifted = [x[:, by * stride : by * stride + length] for by in range(2 * steps + 1)]
    total = shifted[steps] * side[0]
    for distance in range(1, steps + 1):
        total.add_(shifted[steps - distance] + shifted[steps + distance], alpha=side[distance])
    return total
