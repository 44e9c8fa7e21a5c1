"""Single pictures: resized, put beside each other, as JPEG and back."""

from __future__ import annotations

import cv2
import numpy as np

from gnr_video.frame import Image

JPEG_QUALITY = 85


def resized(crop: Image, size: int) -> Image:
    if crop.shape[0] == size:
        return crop
    how = cv2.INTER_AREA if crop.shape[0] > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(crop, (size, size), interpolation=how), np.uint8)


def fitted(image: Image, size: tuple[int, int]) -> Image:
    """A picture (uint8 HxWx3) scaled into (width, height) `size`, black at the sides where shapes differ."""
    width, height = size
    if (image.shape[1], image.shape[0]) == size:
        return image
    zoom = min(width / image.shape[1], height / image.shape[0])
    w, h = max(1, round(image.shape[1] * zoom)), max(1, round(image.shape[0] * zoom))
    small = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
    if (w, h) == size:
        return np.asarray(small, np.uint8)
    out = np.zeros((height, width, 3), np.uint8)
    x, y = (width - w) // 2, (height - h) // 2
    out[y : y + h, x : x + w] = small
    return out


def before_after(before: Image, after: Image) -> Image:
    """The middle half of one picture beside the middle half of the other, at their full scale."""
    width = before.shape[1]
    left, half = width // 4, width // 2
    out = np.empty_like(before)
    out[:, :half] = before[:, left : left + half]
    out[:, half:] = after[:, left : left + width - half]
    return out


def even(image: Image) -> Image:
    """Without the last row or column where there is an odd number of them; WebRTC's codecs want even sizes."""
    height, width = image.shape[:2]
    return np.ascontiguousarray(image[: height - height % 2, : width - width % 2])


def wiped(before: Image, after: Image, share: float) -> Image:
    """One picture over another of the same size: `share` of it from the left is `after`, and a line divides the two."""
    width = before.shape[1]
    edge = round(share * width)
    out = before.copy()
    out[:, :edge] = after[:, :edge]
    line = max(1, round(width / 200))
    out[:, max(0, edge - line) : edge + line if 0 < edge < width else 0] = 255
    return out


def encode_jpeg(image: Image, quality: int = JPEG_QUALITY) -> bytes:
    """uint8 HxWx3 RGB as JPEG."""
    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    return data.tobytes()


def decode_jpeg(data: bytes) -> Image | None:
    """uint8 HxWx3 RGB, None where it is no picture."""
    if not data:
        return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
