"""Palette distance: whether two sets of aligned pictures have the same colours in the same places, equally often.

The energy distance (Székely and Rizzo 2013) between the colours of a cell in either set, averaged over the cells of
a 16x16 grid. It sees what networks trained to name things hardly do: skins too dark, eyes without colour, one tint
over everything. Training can ask for it, see `train.projected.energy_distance`.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from train.metrics.estimate import Estimate, Indices, distance_estimate
from train.metrics.pictures import Picture

CELLS = 16

Palettes = NDArray[np.float32]
"""float32 (N, 256, 3): pictures, cells row by row, RGB in [-1, 1]."""


class PaletteSpace:
    """Pictures as the mean colours of their cells; stands beside the networks' feature spaces."""

    name = "palette"

    def __call__(self, pictures: Sequence[Picture]) -> Palettes:
        small = [cv2.resize(picture, (CELLS, CELLS), interpolation=cv2.INTER_AREA) for picture in pictures]
        return np.stack(small).reshape(len(small), CELLS**2, 3).astype(np.float32) / 127.5 - 1


def mean_distances(a: Palettes, b: Palettes) -> NDArray[np.float64]:
    """(N, M): mean over the cells of the distance of two pictures' colours."""
    total = torch.zeros(len(a), len(b), dtype=torch.float64)
    for x, y in zip(np.swapaxes(a, 0, 1), np.swapaxes(b, 0, 1), strict=True):
        total += torch.cdist(
            torch.from_numpy(x), torch.from_numpy(y), compute_mode="donot_use_mm_for_euclid_dist"
        )
    return (total / a.shape[1]).numpy()


def palette_estimate(a: Palettes, b: Palettes, groups: ArrayLike | None = None) -> Estimate:
    """The distance of pictures `a` from real ones `b`, with its interval. Unbiased: about zero, perhaps below, for two
    samples of one kind.

    Args:
        groups: see `train.metrics.distances.fid_estimate`.
    """
    between, within_a, within_b = mean_distances(a, b), mean_distances(a, a), mean_distances(b, b)

    def within(distances: NDArray[np.float64], i: Indices) -> float:
        return float(distances[np.ix_(i, i)].sum()) / (len(i) * (len(i) - 1))

    def statistic(i: Indices, j: Indices) -> float:
        return 2 * float(between[np.ix_(i, j)].mean()) - within(within_a, i) - within(within_b, j)

    return distance_estimate(statistic, np.arange(len(a)) if groups is None else groups, np.arange(len(b)))
