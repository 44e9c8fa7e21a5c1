"""MediaPipe's face mesh: which landmarks are oval, jaw, lips and eyes, and outlines of them as masks."""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from gnr_video.frame import Points

F = TypeVar("F", bound=np.floating)

Mask = NDArray[np.uint8]
"""uint8 SxS, 0 = frame, 255 = translated crop."""

# MediaPipe's face oval, in order around the face.
# fmt: off
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)
# The part of it from ear to ear below, and the outline of the lips.
JAW = (
    361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132,
)
LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
)
# fmt: on
FOREHEAD, CHIN, EYES = 10, 152, (33, 263)


def in_pixels(landmarks: Points, side: int) -> NDArray[np.float64]:
    """Landmarks of the 256 crop (Nx2 or Nx3) in pixels of the same crop of another side, Nx2."""
    return np.asarray((np.asarray(landmarks[:, :2], np.float64) + 0.5) * (side / 256) - 0.5)


def face_height(points: NDArray[np.floating]) -> float:
    """From forehead to chin, in the landmarks' pixels, 1 at least."""
    return max(float(np.linalg.norm(points[CHIN, :2] - points[FOREHEAD, :2])), 1.0)


def scaled(outline: NDArray[np.float64], factor: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """An outline (Nx2), larger by a factor (or one for each axis) around its middle."""
    middle = outline.mean(axis=0)
    return np.asarray((outline - middle) * factor + middle)


def polygon(outline: NDArray[np.floating], size: int | tuple[int, int]) -> Mask:
    """A polygon (Nx2, in pixels) filled with 255, size x size or (height, width)."""
    mask = np.zeros(size if isinstance(size, tuple) else (size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 16.0).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)
    return mask


def smoothstep(t: NDArray[F]) -> NDArray[F]:
    """0 below 0, 1 above 1, and a cubic without corners between them; in the type of `t`."""
    t = np.clip(t, 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), t.dtype)
