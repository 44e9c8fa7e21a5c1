"""How a coded picture becomes upright: FFmpeg's display matrix, or an angle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_NAMES_PROFILES = ("png", "apng")


class Orientation(NamedTuple):
    """How a coded picture becomes upright: transpose first, then mirror left-right and top-bottom."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @classmethod
    def from_display_matrix(cls, matrix: Sequence[int]) -> Orientation:
        """From FFmpeg's 3x3 display matrix (nine fixed-point numbers, libavutil/display.h).

        A pixel (x, y) is shown at (a x + c y, b x + d y); the nearest multiple of 90 degrees is taken.
        """
        a, b, _, c, d, *_ = matrix
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, a < 0, d < 0)
        return cls(True, c < 0, b < 0)

    @classmethod
    def from_rotation(cls, clockwise: int) -> Orientation:
        """From a turn of 0, 90, 180 or 270 degrees."""
        return {
            0: cls(),
            90: cls(True, True, False),
            180: cls(False, True, True),
            270: cls(True, False, True),
        }[round(clockwise / 90) * 90 % 360]

    @property
    def rotation(self) -> int:
        """Clockwise degrees: 0, 90, 180 or 270 (of a mirrored picture: before a left-right mirroring)."""
        return {
            (False, False, False): 0,
            (False, True, False): 0,
            (True, True, False): 90,
            (True, False, False): 90,
            (False, True, True): 180,
            (False, False, True): 180,
            (True, False, True): 270,
            (True, True, True): 270,
        }[self.transpose, self.mirror_x, self.mirror_y]

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The upright picture (HxW or HxWx3), C-contiguous."""
        if self == Orientation():
            return image
        if self.transpose:
            image = image.swapaxes(0, 1)
        if self.mirror_x:
            image = image[:, ::-1]
        if self.mirror_y:
            image = image[::-1]
        return np.ascontiguousarray(image)


def read_orientation(picture: Any, decoder: str = "") -> Orientation:
    """From the display matrix of a picture (PyAV's).

    Args:
        picture: decoded.
        decoder: FFmpeg's name of what decoded it.
    """
    try:
        # PyAV frees the name of a colour profile, which PNG's decoder gives, twice: only the angle is looked at there.
        for data in () if decoder in _NAMES_PROFILES else picture.side_data:
            if data.type.name == "DISPLAYMATRIX":
                return Orientation.from_display_matrix(np.frombuffer(data, np.int32).tolist())
    except (ValueError, KeyError):
        pass  # side data newer than this PyAV knows hides the rest; the angle alone is read elsewhere
    return Orientation.from_rotation(-int(getattr(picture, "rotation", 0) or 0))
