"""How like a colour pixels are, which tells hair, skin and the rest apart. Colours are planes, CxHxW."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from gnr_video.frame import Image
from gnr_video.tracking.face_mesh import Mask

if TYPE_CHECKING:
    from typing import Self

Floats: TypeAlias = NDArray[np.float32]

LEAST_HAIR = 60
"""Pixels of hair around a face that there must be, to know its colour."""

_OPPONENT = np.array([[0.299, 0.587, 0.114], [0.5, -0.419, -0.081], [-0.169, -0.331, 0.5]], np.float32)


@dataclass(frozen=True)
class Colors:
    """What is known of a person's colours: `seconds`, when, and arrays, which subclasses name."""

    seconds: float

    def towards(self, new: Self, settle: float) -> Self:
        """These colours on their way to newer ones; `settle` is the time constant, seconds."""
        share = np.float32(-math.expm1((self.seconds - new.seconds) / settle))
        pairs = ((getattr(self, f.name), getattr(new, f.name)) for f in fields(self) if f.name != "seconds")
        return type(self)(new.seconds, *(old + share * (now - old) for old, now in pairs))


def small(picture: Image | Mask, side: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def planes(picture: Image) -> Floats:
    return np.stack(cv2.split(picture)).astype(np.float32)


@lru_cache(maxsize=4)
def coordinates(side: int, first: float, last: float) -> tuple[Floats, Floats]:
    """x and y of a square's pixels, from `first` to `last`; not to be written to."""
    axis = np.linspace(first, last, side, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    return x, y


def opponent(rgb: Floats) -> Floats:
    """Brightness and two differences of colour, of planes."""
    # Not a matrix product: that of so many pixels would start BLAS's threads.
    return np.stack([r * rgb[0] + g * rgb[1] + b * rgb[2] for r, g, b in _OPPONENT])


def likelihood(opponent: Floats, middle: Floats, spread: Floats) -> Floats:
    """exp(-d^2 / 2) of opponent colours, d their distance from a middle (3xHxW or 3x1x1) in spreads (3)."""
    away = opponent - middle
    away *= np.float32(math.sqrt(0.5)) / spread[:, None, None].astype(np.float32)
    away *= away
    return np.asarray(np.exp(-(away[0] + away[1] + away[2])), np.float32)


def spread(opponent: Floats, middle: Floats, bounds: Floats) -> Floats:
    """Standard deviations (3) of opponent colours (3xN) around a middle (3), within bounds (2x3)."""
    return np.clip(1.5 * np.abs(opponent.T - middle).mean(axis=0), *bounds)
