"""FID and KID: distances of two sets of pictures, given as vectors in a network's feature space."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engines.errors import InputError
from train.metrics.estimate import Estimate, Indices, distance_estimate

Vectors = NDArray[np.float64]


def frechet_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Fréchet distance of two Gaussians fitted to samples (Heusel et al. 2017, equation 6).

    ``|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))`` with unbiased covariances S. With centred samples
    X, S_a = X^T X and S_b = Y^T Y, the trace of the root is the sum of the singular values of X Y^T: no matrix
    square root is taken, and sets smaller than the number of features lose nothing.

    Args:
        a, b: (N, D) and (M, D), N and M >= 2.

    Raises:
        InputError: fewer than two samples, different D, or values that are not finite.
    """
    x, y = _pair(a, b)
    gap = x.mean(0) - y.mean(0)
    x, y = _scaled(x), _scaled(y)
    root = np.linalg.norm(x @ y.T, "nuc")
    return max(0.0, float(gap @ gap + np.square(x).sum() + np.square(y).sum() - 2 * root))


def kernel_distance(a: ArrayLike, b: ArrayLike) -> float:
    """KID: squared maximum mean discrepancy, unbiased, kernel ``(x.y / D + 1)^3`` (Bińkowski et al. 2018).

    Unbiased, so that it is about zero, and may be below, for two samples of one distribution.

    Args:
        a, b: (N, D) and (M, D), N and M >= 2.

    Raises:
        InputError: as `frechet_distance`.
    """
    x, y = _pair(a, b)
    n, m, d = len(x), len(y), x.shape[1]
    xx, yy, xy = (x @ x.T / d + 1) ** 3, (y @ y.T / d + 1) ** 3, (x @ y.T / d + 1) ** 3
    within_x = (xx.sum() - np.trace(xx)) / (n * (n - 1))
    within_y = (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within_x + within_y - 2 * xy.mean())


def kernel_distance_subsets(
    a: ArrayLike, b: ArrayLike, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """KID as papers quote it: mean and standard deviation over random subsets without replacement.

    Args:
        size: samples of each set in a subset; where a set has not twice as many, half of the smaller set, or
            all subsets would be the same.
    """
    x, y = _pair(a, b)
    size = max(2, min(size, len(x) // 2, len(y) // 2))
    rng = np.random.default_rng(seed)
    found = [
        kernel_distance(
            x[rng.choice(len(x), min(size, len(x)), replace=False)],
            y[rng.choice(len(y), min(size, len(y)), replace=False)],
        )
        for _ in range(subsets)
    ]
    return float(np.mean(found)), float(np.std(found))


def fid_estimate(a: ArrayLike, b: ArrayLike, groups: ArrayLike | None = None) -> Estimate:
    """FID with its interval; `groups` (N,) names the samples of `a` that belong together (one face)."""
    x, y = _pair(a, b)

    def statistic(i: Indices, j: Indices) -> float:
        return frechet_distance(x[i], y[j])

    return distance_estimate(statistic, np.arange(len(x)) if groups is None else groups, np.arange(len(y)))


def kid_estimate(
    a: ArrayLike, b: ArrayLike, groups: ArrayLike | None = None, *, subset_size: int = 1000
) -> Estimate:
    """KID with its interval, as `fid_estimate`.

    Sets of at most `subset_size` are taken whole, which is the mean over all possible subsets; of larger ones
    100 random subsets are averaged.
    """
    x, y = _pair(a, b)

    def statistic(i: Indices, j: Indices) -> float:
        if min(len(i), len(j)) <= subset_size:
            return kernel_distance(x[i], y[j])
        return kernel_distance_subsets(x[i], y[j], size=subset_size)[0]

    return distance_estimate(statistic, np.arange(len(x)) if groups is None else groups, np.arange(len(y)))


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[Vectors, Vectors]:
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise InputError(f"two sets of feature vectors (N, D) are compared, got {x.shape} and {y.shape}")
    if min(len(x), len(y)) < 2:
        raise InputError(
            f"a distance between sets of pictures needs two of each, got {len(x)} and {len(y)}",
            "give folders with more pictures; a hundred and more for figures that mean something",
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("features are not finite")
    return x, y


def _scaled(x: Vectors) -> Vectors:
    """X with X^T X the covariance; never more rows than columns, for X = QR has the same product in R."""
    x = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    return np.asarray(np.linalg.qr(x, mode="r")) if len(x) > x.shape[1] else x
