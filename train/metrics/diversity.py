"""Diversity: how much one face's translations differ between styles. LPIPS and MS-SSIM of pairs; DFID.

DFID (GANs N' Roses, arXiv 2106.06561) is the FID between one face in many styles and the real anime pictures,
averaged over faces: a translator that ignores the style code gives one picture, and a large distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike

from engines.errors import InputError
from train.metrics.distances import frechet_distance
from train.metrics.estimate import Estimate, mean_estimate

if TYPE_CHECKING:
    from train.lpips import Lpips

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first (Wang, Simoncelli and Bovik 2003)."""

_WINDOW, _SIGMA = 11, 1.5


def pairwise_lpips(net: Lpips, images: torch.Tensor) -> float:
    """Mean LPIPS of all pairs of a set; each picture passes through the trunk once.

    Args:
        images: (K, 3, H, W) in -1..1, K >= 2.
    """
    with torch.inference_mode():
        taps = [net.features(image[None].to(net.shift.device)) for image in images]
        return float(np.mean([net.distance(a, b).item() for a, b in combinations(taps, 2)]))


def pairwise_ms_ssim(images: torch.Tensor) -> float:
    """Mean MS-SSIM of all pairs of a set (K, 3, H, W) in -1..1, K >= 2. Lower is more diverse."""
    pyramids = [_pyramid(image[None]) for image in images]
    return float(np.mean([_compare(a, b).item() for a, b in combinations(pyramids, 2)]))


def ms_ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multi-scale structural similarity (Wang, Simoncelli and Bovik 2003), mean over the colour channels.

    Gaussian window of 11 pixels, sigma 1.5, K1 = 0.01, K2 = 0.03. Pictures too small for five scales (under
    176 pixels) use those that fit, with exponents of sum 1. Negative terms count as 0.

    Args:
        a, b: (N, C, H, W) in -1..1, sides >= 11.

    Returns:
        (N,), 1 for equal pictures.

    Raises:
        InputError: the shapes differ, or the pictures are smaller than the window.
    """
    if a.shape != b.shape or a.dim() != 4 or min(a.shape[-2:]) < _WINDOW:
        raise InputError(
            f"MS-SSIM compares pictures of one size, at least {_WINDOW} pixels wide, "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return _compare(_pyramid(a), _pyramid(b))


_Scale = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""A picture at one scale (values 0..1), its local mean and its local variance."""


def _pyramid(images: torch.Tensor) -> list[_Scale]:
    """What SSIM needs of one picture alone, finest scale first: computed once for many pairs."""
    x = (images.float() + 1) / 2
    scales: list[_Scale] = []
    while len(scales) < len(SCALE_WEIGHTS) and min(x.shape[-2:]) >= _WINDOW:
        mean = _smooth(x)
        scales.append((x, mean, _smooth(x * x) - mean * mean))
        x = F.avg_pool2d(x, 2)
    return scales


def _compare(a: Sequence[_Scale], b: Sequence[_Scale]) -> torch.Tensor:
    """(N,) MS-SSIM of two pyramids."""
    c1, c2 = 0.01**2, 0.03**2
    weights = np.array(SCALE_WEIGHTS[: len(a)]) / sum(SCALE_WEIGHTS[: len(a)])
    result = torch.ones(a[0][0].shape[:2], device=a[0][0].device)
    for number, ((x, mx, vx), (y, my, vy), weight) in enumerate(zip(a, b, weights), 1):
        terms = (2 * (_smooth(x * y) - mx * my) + c2) / (vx + vy + c2)
        if number == len(a):  # luminance counts at the coarsest scale only
            terms = terms * (2 * mx * my + c1) / (mx * mx + my * my + c1)
        result = result * terms.mean((2, 3)).clamp_min(0) ** float(weight)
    return result.mean(1)


def _smooth(x: torch.Tensor) -> torch.Tensor:
    at = torch.arange(_WINDOW, device=x.device, dtype=x.dtype) - _WINDOW // 2
    window = torch.exp(-at.square() / (2 * _SIGMA**2))
    window = (window / window.sum()).expand(x.shape[1], 1, -1)
    x = F.conv2d(x, window[:, :, :, None], groups=x.shape[1])
    return F.conv2d(x, window[:, :, None, :], groups=x.shape[1])


def dfid_estimate(faces: Sequence[ArrayLike], real: ArrayLike) -> Estimate:
    """DFID: the mean over faces of the FID between a face's translations and real pictures.

    Args:
        faces: for each face, features (K, D) of it in K styles, K >= 2.
        real: features (M, D) of real pictures.
    """
    return mean_estimate([frechet_distance(styles, real) for styles in faces])
