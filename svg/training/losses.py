"""Training losses. Both are means over batch and predicted frames; SVG's are the same times the number of predicted frames."""

from torch import Tensor

from ..models.recurrent import Gaussian


def kl_divergence(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p) between diagonal normals: summed over the latent's dimensions, mean over batch and steps (dimensions 0, 1).

    log(sigma_p / sigma_q) + (sigma_q^2 + (mu_q - mu_p)^2) / (2 sigma_p^2) - 1/2 for each dimension.
    """
    difference = q.logvar - p.logvar
    each = 0.5 * (difference.exp() + (q.mu - p.mu) ** 2 * (-p.logvar).exp() - 1 - difference)
    return each.sum() / (each.shape[0] * each.shape[1])


def mean_squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean over everything of the squared error of images in [0,1]."""
    return ((predicted - target) ** 2).mean()
