"""Temporal denoising: a drawing follows the one before it at once where much changes, and slowly where little
does, which is mostly noise.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from gnr_video.effects.base import Effect
from gnr_video.frame import Image

CALM, AT_ONCE = 0.2, 24
"""The share of a change that is followed within a thirtieth of a second: from `CALM` of the smallest evenly up to all
from `AT_ONCE` levels on."""
USUAL_SECONDS = 1 / 30


class Steady(Effect):
    """Takes noise out of a drawing by the one before it."""

    def drawing(self, picture: Image, before: Image | None, seconds: float) -> Image:
        return picture if before is None else settled(before, picture, seconds)


def settled(before: Image, now: Image, seconds: float = USUAL_SECONDS) -> Image:
    """A drawing without the noise in which it differs from the one before; at 30 a second it is 5 levels off at most.

    Args:
        before, now: uint8 SxSx3 of the same face. One of another size is given back as it is.
        seconds: between the two.
    """
    if before.shape != now.shape:
        return now
    followed = _followed(round(seconds, 4))
    rise = cv2.LUT(cv2.subtract(now, before), followed)
    fall = cv2.LUT(cv2.subtract(before, now), followed)
    return np.asarray(cv2.subtract(cv2.add(before, rise), fall), np.uint8)


def share_followed(share: float, seconds: float) -> float:
    """What is followed in `seconds` where `share` of a change is within a thirtieth of a second."""
    return 1 - (1 - share) ** (max(seconds, 0.0) / USUAL_SECONDS)


@lru_cache(maxsize=256)
def _followed(seconds: float) -> NDArray[np.uint8]:
    """Of changes of 0 to 255 levels, how many are followed."""
    changes = np.arange(256)
    shares = [share_followed(min(CALM + (1 - CALM) * c / AT_ONCE, 1), seconds) for c in changes]
    return np.asarray(np.round(changes * np.array(shares)), np.uint8)
