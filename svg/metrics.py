"""PSNR and SSIM of images in [0,1] as batched torch operations, with the conventions of scikit-image."""

import torch
from torch import Tensor

WINDOWS = {
    # weights of one side, from the centre out, before they are normalised; and whether covariances are those of a sample
    "uniform": (torch.ones(4), True),
    "gaussian": (torch.exp(-0.5 * (torch.arange(6) / 1.5) ** 2), False),
}
"""7x7 uniform with sample covariance (scikit-image's default), and 11x11 Gaussian of sigma 1.5 (Wang et al.)."""

CACHE = 150_000
"""Pixels that are worked on at a time on a CPU: intermediate results then stay in its cache."""


def psnr(predicted: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image: [...,C,H,W] -> [...]; at most 100, so that averages stay finite.

    10 log10(1 / MSE), the squared error averaged over channels and pixels of one image, and at least 1e-10.
    """
    return -10 * torch.log10(((predicted - target) ** 2).mean((-3, -2, -1)).clamp(min=1e-10))


def ssim(predicted: Tensor, target: Tensor, window: str = "uniform") -> Tensor:
    """Structural similarity (Wang et al. 2004) of each image: [...,C,H,W] -> [...], mean over pixels and channels.

    Data range 1, K1 = 0.01, K2 = 0.03, windows wholly inside the image: what ``skimage.metrics.structural_similarity`` computes
    with ``channel_axis=0, data_range=1`` and, for ``window="gaussian"``, ``gaussian_weights=True, use_sample_covariance=False``.
    In float32; not differentiable. `target` may lack leading dimensions of `predicted`, such as one of samples: its own moments
    are then computed once for all.
    """
    shape = predicted.shape
    if target.shape != shape[-target.dim() :]:  # dimensions that only `predicted` has must be the leading ones
        predicted, target = torch.broadcast_tensors(predicted, target)
        shape = predicted.shape
    planes = target.reshape(-1, *shape[-2:]).float()
    each = predicted.reshape(-1, *planes.shape).float()  # [S,N,H,W]: S images for each target
    size = len(planes) if each.is_cuda else max(1, CACHE // planes[0].numel())
    values = [_ssim_of_planes(some, of, window) for some, of in zip(each.split(size, 1), planes.split(size), strict=True)]
    return torch.cat(values, 1).reshape(shape[:-2]).mean(-1)


def _ssim_of_planes(predicted: Tensor, target: Tensor, window: str) -> Tensor:
    """[S,N,H,W] and [N,H,W] -> [S,N].

    Planes lie one after the other as a single row of pixels; a window's sum is then a sum of shifted rows, in which the places
    whose window would reach beyond its own plane are computed with the rest and left out of the mean.
    """
    height, width = target.shape[1:]
    side, sample = WINDOWS[window]
    side = (side / (2 * side.sum() - side[0])).tolist()
    reach = 2 * (len(side) - 1)
    if min(height, width) <= reach:
        raise ValueError(f"images of {height}x{width}, expected more than {reach} pixels a side for the {window} window of SSIM")
    unbiased = (reach + 1) ** 2 / ((reach + 1) ** 2 - 1) if sample else 1.0
    c1, c2 = 0.01**2, 0.03**2
    inside = target.new_zeros(height, width)
    inside[: height - reach, : width - reach] = 1 / ((height - reach) * (width - reach))
    y = target.flatten()
    mean_y, mean_yy = _window_means(torch.stack([y, y * y]), side, width)
    of_means = mean_y**2 + c1
    of_variances = unbiased * mean_yy + (unbiased * c1 + c2)  # c1 undoes that of `of_means`, which is subtracted below
    moments, similarity = y.new_empty(3, len(y)), torch.zeros_like(y)
    found = []
    for plane in predicted:
        x = plane.flatten()
        moments[0] = x
        torch.mul(x, x, out=moments[1])
        torch.mul(x, y, out=moments[2])
        mean_x, mean_xx, mean_xy = _window_means(moments, side, width)
        product = mean_x * mean_y
        covariance = mean_xy.sub_(product).mul_(2 * unbiased).add_(c2)
        means = torch.addcmul(of_means, mean_x, mean_x)
        variances = torch.add(of_variances, mean_xx, alpha=unbiased).sub_(means, alpha=unbiased)
        torch.div(product.mul_(2).add_(c1).mul_(covariance), means.mul_(variances), out=similarity[: len(product)])
        found.append((similarity.unflatten(0, plane.shape) * inside).sum((1, 2)))
    return torch.stack(found)


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
