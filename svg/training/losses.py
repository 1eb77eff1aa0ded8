"""Training losses, means over batch and predicted frames.

Those of the published SVG are the same times the number of predicted frames.
"""

from torch import Tensor

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
