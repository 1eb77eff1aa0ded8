"""Metrics written out with scikit-image, SciPy and NumPy, as the published codes take them: nothing of svg is
used here.

Images are float64 [C,H,W] in [0,1].
"""

import warnings

import numpy as np
import torch
from scipy import linalg, signal
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


def skimage_ssim(truth, image, data_range=1.0):
    """7x7 uniform windows, channel by channel: scikit-image's defaults."""
    return np.mean(
        [structural_similarity(t, i, data_range=data_range) for t, i in zip(truth, image, strict=True)]
    )


def scipy_ssim(truth, image):
    """11x11 Gaussian windows by convolution with SciPy: finn_ssim, tf.image.ssim, SRVP, PIQA."""
    axis = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(axis, axis) / axis.sum() ** 2

    def mean(x):
        return signal.fftconvolve(x, window, mode="valid")

    values = []
    for a, b in zip(truth, image, strict=True):
        variance_a, variance_b = mean(a * a) - mean(a) ** 2, mean(b * b) - mean(b) ** 2
        covariance = mean(a * b) - mean(a) * mean(b)
        numerator = (2 * mean(a) * mean(b) + 0.01**2) * (2 * covariance + 0.03**2)
        values.append(
            (
                numerator / ((mean(a) ** 2 + mean(b) ** 2 + 0.01**2) * (variance_a + variance_b + 0.03**2))
            ).mean()
        )
    return np.mean(values)


def psnr(truth, image, epsilon=0.0):
    """Over all channels."""
    with np.errstate(divide="ignore"):
        return 10 * np.log10(1 / (np.mean((truth - image) ** 2) + epsilon))


def psnr_apart(truth, image):
    """scikit-image's of each channel, then their mean.

    Utils.eval_seq of edenton/svg, finn_eval_seq, test.py of SRVP.
    """
    with np.errstate(divide="ignore"):
        return np.mean(
            [peak_signal_noise_ratio(t, i, data_range=1) for t, i in zip(truth, image, strict=True)]
        )


def mse(truth, image):
    return np.mean((truth - image) ** 2)


def mse_sum(truth, image):
    """OpenSTL's: the mean over frames of the sum over values."""
    return np.sum((truth - image) ** 2)


PROTOCOLS = {
    "own": {"psnr": lambda a, b: psnr(a, b, 1e-10), "ssim": skimage_ssim, "mse": mse},
    "svg": {"psnr": psnr_apart, "ssim": lambda a, b: skimage_ssim(a, b, 2.0), "mse": mse},
    "lab": {"psnr": psnr_apart, "ssim": scipy_ssim, "mse": mse},
    "srvp": {"psnr": psnr_apart, "ssim": scipy_ssim, "mse": mse},
    "savp": {"psnr": psnr, "ssim": scipy_ssim, "mse": mse},
    "fitvid": {"psnr": psnr, "ssim": scipy_ssim, "mse": mse},
    "ivideogpt": {"psnr": lambda a, b: psnr(a, b, 1e-8), "ssim": scipy_ssim, "mse": mse},
    "openstl": {"psnr": psnr, "ssim": lambda a, b: skimage_ssim(a, b, 2.0), "mse": mse_sum},
}


def frechet(a, b):
    """By the matrix root, as most FVD codes take it.

    Good where there are many more vectors than dimensions.
    """
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(covariances[0] @ covariances[1])
    return np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(
        covariances[0] + covariances[1] - 2 * np.real(root)
    )


def kernel(a, b):
    """Unbiased MMD^2 by its definition, pair after pair."""

    def k(x, y):
        return (np.dot(x, y) / len(x) + 1) ** 3

    def within(v):
        return np.mean([k(x, y) for i, x in enumerate(v) for j, y in enumerate(v) if i != j])

    return within(a) + within(b) - 2 * np.mean([k(x, y) for x in a for y in b])


def pairwise_mse(samples):
    """Mean squared distance of two different samples [S,...], pair after pair."""
    pairs = [(i, j) for i in range(len(samples)) for j in range(i)]
    return np.mean([np.mean((samples[i] - samples[j]) ** 2) for i, j in pairs])


def rank_of_truth(samples, truth, blocks=8):
    """Share of samples [S,C,H,W] whose mean squared distance to all others is smaller than the truth's.

    Ties count half.
    """

    def coarse(image):
        c, h, w = image.shape
        return image.reshape(c, blocks, h // blocks, blocks, w // blocks).mean((2, 4))

    members = [coarse(image) for image in (truth, *samples)]
    distances = [sum(np.mean((a - b) ** 2) for b in members) for a in members]
    own, others = distances[0], np.array(distances[1:])
    return np.mean((others < own) + 0.5 * (others == own))


def random_lpips(net):
    """The package ``lpips`` with its heads and a random trunk.

    The network, and the weights of both by their published names.
    """
    import lpips

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    state = network.state_dict()
    trunk = {
        "features." + name.split(".", 2)[2]: value
        for name, value in state.items()
        if name.startswith("net.slice")
    }
    return network, trunk, {name: value for name, value in state.items() if name.startswith("lin")}
