"""Distances between two sets of feature vectors: Frechet and kernel distance."""

import numpy as np

BLOCK = 1000
"""Vectors at a time whose kernel with all others is computed."""


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Frechet distance between Gaussians fitted to the features `a` [N,D] and `b` [M,D].

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) with the sample covariances A and B (Dowson & Landau 1982;
    Heusel et al. 2017, eq. 6). With centred features X, Y scaled so that A = X'X and B = Y'Y, tr (A B)^(1/2)
    is the sum of the singular values of X Y': no root of an ill-conditioned matrix is taken, and fewer
    vectors than dimensions do no harm to the arithmetic (the distance is then biased upwards, as it always
    is).
    """
    a = _features(a)
    b = _features(b)
    x = (a - a.mean(0)) / np.sqrt(len(a) - 1)
    y = (b - b.mean(0)) / np.sqrt(len(b) - 1)
    means = a.mean(0) - b.mean(0)
    # Of more vectors than dimensions their triangular factors have the same covariance and far fewer rows.
    x_factor, y_factor = (np.asarray(np.linalg.qr(v, mode="r")) if len(v) > v.shape[1] else v for v in (x, y))
    root = np.linalg.svd(x_factor @ y_factor.T, compute_uv=False).sum()
    return max(0.0, float(means @ means + (x * x).sum() + (y * y).sum() - 2 * root))


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the unbiased kernel distance of the features `a` [N,D] and `b` [M,D].

    The squared maximum mean discrepancy with the kernel (x.y/D + 1)^3. Binkowski et al. 2018, eq. 4, as KID
    has it; of video features it is KVD (Unterthiner et al. 2018). Around 0, also below it, for sets from one
    distribution.
    """
    a = _features(a)
    b = _features(b)
    dimensions = a.shape[1]

    def total(x: np.ndarray, y: np.ndarray) -> float:
        """Return the sum of the kernel over all pairs."""
        blocks = np.array_split(x, -(-len(x) // BLOCK))
        return sum(((block @ y.T / dimensions + 1) ** 3).sum() for block in blocks)

    def within(x: np.ndarray) -> float:
        """Return the mean over pairs of different vectors."""
        itself = (((x * x).sum(1) / dimensions + 1) ** 3).sum()
        return (total(x, x) - itself) / (len(x) * (len(x) - 1))

    return float(within(a) + within(b) - 2 * total(a, b) / (len(a) * len(b)))


def _features(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(f"features of shape {values.shape}, expected [N,D] with at least 2 vectors")
    return values
