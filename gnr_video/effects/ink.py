"""Ink: the generator's lines drawn once more, even along themselves and crisp across, as a pen would have left them.

The network's outlines come out in steps and beads of a few pixels, which a pasted face shows enlarged. Each line is
averaged along its direction, from the structure tensor (line integral convolution, as in Kang et al. 2007, "Coherent
Line Drawing"), then sharpened without overshoot.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from gnr_video.effects.base import Effect
from gnr_video.frame import Image

REACH = 2.0
"""How far along a line its two neighbours are taken from, pixels: half a period of the beads."""
SHARPNESS = 2.0
"""Of the unsharp mask."""

_SURE = (0.3, 0.6)
"""Coherence of the gradients (0..1) that is no line, and that is one; between them a mixture."""
_FAINT = 50.0
"""Squared gradients (of the half-sized picture) below which nothing is a line."""
_NEIGHBOURS = np.ones((3, 3), np.uint8)


class Ink(Effect):
    """Inks the lines of drawings."""

    def drawing(self, picture: Image, before: Image | None, seconds: float) -> Image:
        return inked(picture)


def inked(picture: Image) -> Image:
    """A drawing, uint8 SxSx3 RGB, with its lines inked: a new array."""
    height, width = picture.shape[:2]
    *step, coherence = _lines(picture)
    x, y = (cv2.resize(part, (width, height), interpolation=cv2.INTER_NEAREST) for part in step)
    share = cv2.resize(coherence, (width, height)) * np.float32(0.5)
    columns, rows = _grid(height, width)
    border = cv2.BORDER_REPLICATE
    # OpenCV takes less than half the time over four channels: they lie on words.
    plain = cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA)
    ahead = cv2.remap(plain, columns + x, rows + y, cv2.INTER_LINEAR, borderMode=border)
    behind = cv2.remap(plain, columns - x, rows - y, cv2.INTER_LINEAR, borderMode=border)
    along = cv2.addWeighted(ahead, 0.5, behind, 0.5, 0.0)
    even = cv2.cvtColor(cv2.blendLinear(along, plain, share, 1 - share), cv2.COLOR_RGBA2RGB)
    soft = cv2.GaussianBlur(even, (5, 5), 1.0)
    sharp = cv2.addWeighted(even, 1 + SHARPNESS, soft, -SHARPNESS, 0.0)
    # Not beyond what is next to it: no halos.
    sharp = cv2.min(sharp, cv2.dilate(even, _NEIGHBOURS))
    return np.asarray(cv2.max(sharp, cv2.erode(even, _NEIGHBOURS)), np.uint8)


def _lines(picture: Image) -> tuple[NDArray[np.float32], ...]:
    """Steps of `REACH` along the lines (x, y) and how surely there is one (0..1), at half the size.

    The structure tensor J = [[xx, xy], [xy, yy]], gradients smoothed over their surroundings, has its larger
    eigenvector across the line, at half the angle of (xx - yy, 2 xy); the difference of its eigenvalues over their sum
    is the coherence.
    """
    height, width = picture.shape[:2]
    half = (max(width // 2, 1), max(height // 2, 1))
    grey = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), half, interpolation=cv2.INTER_AREA)
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    xx, xy, yy = (cv2.GaussianBlur(product, (0, 0), 1.0) for product in (dx * dx, dx * dy, dy * dy))
    cosine, sine = xx - yy, 2 * xy
    difference = cv2.magnitude(cosine, sine)
    cosine /= difference + np.float32(1e-6)
    x = np.copysign(np.sqrt(np.maximum(1 - cosine, 0) / 2), -sine) * np.float32(REACH)
    y = np.sqrt(np.maximum(1 + cosine, 0) / 2) * np.float32(REACH)
    low, high = _SURE
    coherence = difference / (xx + yy + np.float32(_FAINT))
    sure = np.clip((coherence - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(x, np.float32), np.asarray(y, np.float32), np.asarray(sure, np.float32)


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return columns, rows
