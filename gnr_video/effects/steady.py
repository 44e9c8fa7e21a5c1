"""Temporal denoising: a drawing follows the one before it at once where much changes, and slowly where little
does, which is mostly noise.
"""

from __future__ import annotations

import cv2
import numpy as np

from gnr_video.frame import Image

CALM, AT_ONCE = 0.2, 24
"""The share of a change that is followed: from `CALM` of the smallest evenly up to all from `AT_ONCE` levels on."""

_change = np.arange(256)
_FOLLOWED = np.round(_change * np.minimum(CALM + (1 - CALM) * _change / AT_ONCE, 1)).astype(np.uint8)


def settled(before: Image, now: Image) -> Image:
    """A drawing without the noise in which it differs from the one before; 5 levels off at most.

    Args:
        before, now: uint8 SxSx3 of the same face. One of another size is given back as it is.
    """
    if before.shape != now.shape:
        return now
    rise = cv2.LUT(cv2.subtract(now, before), _FOLLOWED)
    fall = cv2.LUT(cv2.subtract(before, now), _FOLLOWED)
    return np.asarray(cv2.subtract(cv2.add(before, rise), fall), np.uint8)
