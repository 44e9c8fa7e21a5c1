"""Letters on pictures: white with a dark rim, so that they can be read on anything. ASCII only, else "?"."""

from __future__ import annotations

import cv2
import numpy as np

from gnr_video.frame import Image

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_THICKNESS = 1
_RIM = 2
"""Width of the rim, pixels."""


def write(image: Image, text: str, place: tuple[int, int], scale: float = 0.5) -> None:
    """Write a line into a picture (uint8 HxWx3), in place; what does not fit is cut off.

    Args:
        place: (x, y) of the left end of the base line, pixels.
        scale: 0.5: capitals about 11 pixels high.
    """
    text = text.encode("ascii", "replace").decode()
    (width, height), below = cv2.getTextSize(text, _FONT, scale, _THICKNESS)
    x, y = place
    # The rim comes from the letters themselves: OpenCV's letters are wider the thicker they are.
    margin = _RIM + 2
    top, left = y - height - margin, x - margin
    letters = np.zeros((height + below + 2 * margin, width + 2 * margin), np.uint8)
    cv2.putText(letters, text, (margin, height + margin), _FONT, scale, 255, _THICKNESS, cv2.LINE_AA)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _RIM + 1, 2 * _RIM + 1))
    rim = cv2.dilate(letters, kernel)
    y0, y1 = max(top, 0), min(top + letters.shape[0], image.shape[0])
    x0, x1 = max(left, 0), min(left + letters.shape[1], image.shape[1])
    if y0 >= y1 or x0 >= x1:
        return
    cut = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    part = image[y0:y1, x0:x1]
    dark = part * (1 - rim[cut][..., None] / np.float32(255))
    white = letters[cut][..., None] / np.float32(255)
    part[:] = np.round(dark + white * (255 - dark))


def captioned(picture: Image, text: str) -> Image:
    """A copy of a picture (uint8 HxWx3) with a text in its lower left corner."""
    picture = picture.copy()
    write(picture, text, (8, picture.shape[0] - 10), 0.6)
    return picture
