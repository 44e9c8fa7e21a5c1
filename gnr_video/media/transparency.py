"""Transparent pictures: what they hide is never shown; where an output has no transparency they lie on white."""

from __future__ import annotations

import cv2
import numpy as np

from gnr_video.frame import Alpha, Frame, Image

ON_WHITE = "transparency is laid on white"


def hide(image: Image, alpha: Alpha | None) -> tuple[Image, Alpha | None]:
    """A picture without the colours that transparency hides, and the transparency, None where there is none."""
    if alpha is None or alpha.min() == 255:
        return image, None
    image = image.copy()
    image[alpha == 0] = 255
    return image, alpha


def on_white(image: Image, alpha: Alpha | None) -> Image:
    """A picture laid on white, uint8 HxWx3."""
    if alpha is None:
        return image
    weight = cv2.merge([alpha, alpha, alpha])
    covered = cv2.multiply(image, weight, scale=1 / 255)
    return np.asarray(cv2.add(covered, cv2.bitwise_not(weight)), np.uint8)


def opaque(frame: Frame) -> Frame:
    """A frame whose picture lies on white."""
    if frame.alpha is None:
        return frame
    return Frame(on_white(frame.image, frame.alpha), frame.pts, frame.time_base, frame.index, frame.props)
