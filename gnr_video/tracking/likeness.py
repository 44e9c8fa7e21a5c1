"""Likeness: whether a part of a picture looks as a face did in another picture, and where.

It is coarse, and knows nothing of faces: it finds what a face tracker no longer takes for one, in the dark, out of
focus, in a fade.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gnr_video.frame import Image

LIKENESS_SIDE = 24
"""Of a face in the pictures that are compared, pixels."""
LIKE = 0.75
"""Correlation from which on two pictures show the same, usually."""
VISIBLE = 1.5
"""Standard deviation, grey levels, below which there is nothing to be seen."""


@dataclass(frozen=True)
class Match:
    """What was found of a face.

    Attributes:
        x, y: where its middle is, pixels of the frame; where it should be, if it is not there.
        is_like: whether it is there, and can be seen.
        contrast: standard deviation of what is there, grey levels.
        brightness: mean of what is there, grey levels.
    """

    x: float
    y: float
    is_like: bool
    contrast: float
    brightness: float


@dataclass(frozen=True, eq=False)
class Likeness:
    """A face as it was in one picture.

    Attributes:
        seen: a square of it, float32 LIKENESS_SIDE x LIKENESS_SIDE, grey.
        side: of the square, pixels of the picture.
        like: correlation from which on another picture shows the same.
    """

    seen: NDArray[np.float32]
    side: float
    like: float = LIKE

    @classmethod
    def of(cls, image: Image, x: float, y: float, side: float, like: float = LIKE) -> Likeness:
        """That of a picture (uint8 HxWx3 RGB), around (x, y), pixels."""
        return cls(_square(image, x, y, side, LIKENESS_SIDE), side, like)

    @property
    def brightness(self) -> float:
        """Its mean, grey levels."""
        return float(self.seen.mean())

    def find(self, image: Image, x: float, y: float, reach: float = 0.5) -> Match:
        """Where it is most likely in another picture.

        Args:
            x, y: where its middle should be, pixels.
            reach: how far from there it may be, in sides.
        """
        wide = LIKENESS_SIDE + 2 * max(round(reach * LIKENESS_SIDE), 1)
        around = _square(image, x, y, self.side * wide / LIKENESS_SIDE, wide)
        scores = cv2.matchTemplate(around, self.seen, cv2.TM_CCOEFF_NORMED)
        # Where nothing can be told apart the correlation is 0 / 0.
        scores = np.where(np.isfinite(scores) & (np.abs(scores) <= 1.0001), scores, 0.0)
        row, column = np.unravel_index(int(scores.argmax()), scores.shape)
        step, middle = self.side / LIKENESS_SIDE, (wide - LIKENESS_SIDE) // 2
        is_like = bool(scores[row, column] >= self.like)
        if not is_like:
            row = column = np.intp(middle)
        found = around[row : row + LIKENESS_SIDE, column : column + LIKENESS_SIDE]
        contrast = float(found.std())
        x, y = x + (float(column) - middle) * step, y + (float(row) - middle) * step
        return Match(x, y, is_like and contrast >= VISIBLE, contrast, float(found.mean()))


def _square(image: Image, x: float, y: float, side: float, size: int) -> NDArray[np.float32]:
    """A square of a picture, float32 size x size, grey; beyond the picture its outermost pixels go on."""
    # Four samples for each pixel, more where it covers many: OpenCV's area means want a whole part of the picture.
    fine = size * min(max(math.ceil(side / size / 2), 1), 8)
    step = side / fine
    matrix = np.array([[step, 0, x - side / 2 + (step - 1) / 2], [0, step, y - side / 2 + (step - 1) / 2]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    part = cv2.warpAffine(image, matrix, (fine, fine), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    grey = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA), np.float32)
