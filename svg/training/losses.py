"""Training losses, means over batch and predicted frames.

Those of the published SVG are the same times the number of predicted frames.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.recurrent import Gaussian


def kl_divergence(q: Gaussian, p: Gaussian) -> Tensor:
    """Return KL(q || p) of diagonal normals, summed over the latent, averaged over batch and steps.

    log(sigma_p / sigma_q) + (sigma_q^2 + (mu_q - mu_p)^2) / (2 sigma_p^2) - 1/2 for each dimension.
    """
    difference = q.logvar - p.logvar
    terms = 0.5 * (difference.exp() + (q.mu - p.mu) ** 2 * (-p.logvar).exp() - 1 - difference)
    return terms.sum() / (terms.shape[0] * terms.shape[1])


def mean_squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of images in [0,1], over all dimensions."""
    return ((predicted - target) ** 2).mean()


def places_error(places: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the error of carried places where `mask` [B,K,H,W] is set, in pixels.

    Both are [B,K,2,H,W]. It is the square over 4 up to an error of 2 pixels in a coordinate, from there on
    the absolute value less 1 (Huber 1964): what is far off does not outweigh all else. 0 if nothing is set.
    """
    count = mask.sum().clamp(min=1)
    errors = F.smooth_l1_loss(places, target, reduction="none", beta=2.0).sum(2)
    return torch.where(mask, errors, 0.0).sum() / (2 * count)
