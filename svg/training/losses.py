"""Training losses, means over batch and predicted frames.

Those of the published SVG are the same times the number of predicted frames.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.predictor import Rollout, as_images
from ..models.recurrent import Gaussian
from .object_losses import hand_error

CARRIED = 0.5
"""Weight of the squared error of frames before anything is drawn over them: drawing must not hide that things
are carried to where they are not."""
HAND = 0.02
"""Weight of the error of the hand's places, in pixels of 64x64, beside the squared error of all pixels."""


def video_loss(rollout: Rollout, target: Tensor, beta: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss of predicted clips, and its mean squared error and KL divergence.

    `target` [B,T-1,C,H,W] are the true frames, all but the first of each clip, uint8 or in [0,1]. The loss is
    ``mse + beta * kl``; models that carry pixels or integrate the hand add an error of these. What the
    simulator's truth teaches is not in it.
    """
    target = as_images(target)
    mse = mean_squared_error(rollout.frames, target)
    kl = kl_divergence(rollout.posterior, rollout.prior)
    loss = mse + beta * kl
    if rollout.carried is not None:
        loss = loss + CARRIED * mean_squared_error(rollout.carried, target)
    if rollout.tracks is not None:
        loss = loss + HAND * hand_error(rollout.tracks)
    return loss, mse, kl


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
