"""Sliced Wasserstein distance: how like the small-scale texture of two sets of pictures is, scale by scale.

Karras et al. 2018 (arXiv 1710.10196, section 5): 7x7 patches of a Laplacian pyramid, normalised per colour
channel, compared along random directions. The finest level tells sharpness and noise, the coarsest layout.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray

from engines.errors import InputError
from train.metrics.estimate import Estimate, Indices, distance_estimate
from train.metrics.pictures import Picture, to_tensor

PATCH = 7
COARSEST = 16
DIRECTIONS = 128

Patches = NDArray[np.float32]
"""float32 (N, L, P, 3 * 7 * 7): pictures, levels, patches of a picture, values channel by channel."""


def laplacian_pyramid(images: torch.Tensor) -> list[torch.Tensor]:
    """Band-pass levels of images (N, 3, S, S), finest first, down to 16 pixels; their sum, enlarged, is the image."""
    levels = []
    while images.shape[-1] > COARSEST:
        smaller = _blur(images)[..., ::2, ::2]
        levels.append(images - _enlarge(smaller, images.shape[-1]))
        images = smaller
    return [*levels, images]


class TextureSpace:
    """Pictures as patches of their pyramids, at one size; stands beside the networks' feature spaces.

    Args:
        patches: of a picture and level.
        side: a power of two that pictures are brought to.
    """

    name = "texture"

    def __init__(self, patches: int, side: int = 256, seed: int = 0) -> None:
        self._count, self._side = patches, side
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, pictures: Sequence[Picture]) -> Patches:
        return patches(to_tensor(pictures, self._side), self._count, self._generator)


def patches(images: torch.Tensor, count: int, generator: torch.Generator) -> Patches:
    """Random patches of each pyramid level of images (N, 3, S, S), S a power of two >= 16."""
    found = []
    for level in laplacian_pyramid(images.float()):
        side = level.shape[-1] - PATCH + 1
        windows = level.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # (N, 3, side, side, 7, 7)
        at = torch.randint(side * side, (len(level), count), generator=generator)
        picture = torch.arange(len(level))[:, None]
        found.append(windows[picture, :, at // side, at % side].flatten(2).cpu().numpy())
    return np.stack(found, 1)


def sliced_distance(a: ArrayLike, b: ArrayLike, *, directions: int = DIRECTIONS, seed: int = 0) -> float:
    """Mean over random directions u of the 1-Wasserstein distance of a.u and b.u.

    Two sets that differ by a shift d have |d| times the mean length of a unit vector's component.

    Args:
        a, b: (N, D) and (M, D).
    """
    x, y = np.asarray(a, np.float32), np.asarray(b, np.float32)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not (len(x) and len(y)):
        raise InputError(f"two sets of vectors (N, D) are compared, got {x.shape} and {y.shape}")
    u = _directions(x.shape[1], directions, seed)
    return wasserstein(x @ u, y @ u)


def wasserstein(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Mean over columns of the 1-Wasserstein distance of the values in them; (N, K) and (M, K)."""
    a, b = np.sort(a, 0), np.sort(b, 0)
    if len(a) != len(b):
        count = min(len(a), len(b))
        a, b = _quantiles(a, count), _quantiles(b, count)
    return float(np.abs(a - b).mean(dtype=np.float64))


def swd_estimate(a: Patches, b: Patches, groups: ArrayLike | None = None, *, seed: int = 0) -> Estimate:
    """SWD of pictures `a` from real ones `b`, the mean over levels, with its interval.

    Colour channels of both are normalised by the real pictures' mean and deviation, level by level: with each
    set's own, as in the paper, a picture that is only too soft would be as good as a sharp one.

    Args:
        groups: see `train.metrics.distances.fid_estimate`.
    """
    real = b.reshape(*b.shape[:3], 3, -1)
    mean, deviation = (f(real, (0, 2, 4), keepdims=True) for f in (np.mean, np.std))
    u = _directions(b.shape[-1], DIRECTIONS, seed)
    sides = []
    for values in (a, b):
        x = (values.reshape(*values.shape[:3], 3, -1) - mean) / np.maximum(deviation, 1e-8)
        sides.append(x.reshape(values.shape) @ u)

    def statistic(i: Indices, j: Indices) -> float:
        x, y = sides[0][i], sides[1][j]
        levels = (
            wasserstein(x[:, k].reshape(-1, DIRECTIONS), y[:, k].reshape(-1, DIRECTIONS))
            for k in range(x.shape[1])
        )
        return float(np.mean(list(levels)))

    names = np.arange(len(a)) if groups is None else groups
    return distance_estimate(statistic, names, np.arange(len(b)), blocks=5)


def _directions(length: int, count: int, seed: int) -> NDArray[np.float32]:
    u = np.random.default_rng(seed).standard_normal((length, count))
    return (u / np.linalg.norm(u, axis=0)).astype(np.float32)


def _quantiles(x: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """`count` values of sorted columns: the means of as many equal shares of the distribution, by its integral."""
    total = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(x, 0, dtype=np.float64)])
    at = np.linspace(0, len(x), count + 1)
    low = np.minimum(at.astype(np.intp), len(x) - 1)
    integral = total[low] + (at - low)[:, None] * (total[low + 1] - total[low])
    return (np.diff(integral, axis=0) * (count / len(x))).astype(np.float32)


def _kernel(images: torch.Tensor) -> torch.Tensor:
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=images.device) / 16
    return torch.outer(taps, taps).expand(images.shape[1], 1, 5, 5)


def _blur(images: torch.Tensor) -> torch.Tensor:
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), _kernel(images), groups=images.shape[1])


def _enlarge(images: torch.Tensor, side: int) -> torch.Tensor:
    spread = images.new_zeros(*images.shape[:2], side, side)
    spread[..., ::2, ::2] = images
    return _blur(spread) * 4
