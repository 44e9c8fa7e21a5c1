"""Clips of two people passing each other, made of one public-domain portrait."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import cv2
import numpy as np
from skimage.data import astronaut

from gnr_video.frame import Image

SIZE = (640, 400)
HEAD = 200
"""Side of the square with a head in it, pixels."""


@lru_cache(maxsize=2)
def head(other: bool) -> tuple[Image, np.ndarray]:
    """A head, uint8 HEAD x HEAD x 3, and its soft outline, float32 with values 0..1.

    The other one is mirrored, and darker and bluer: a twin that can be told apart.
    """
    picture = cv2.resize(astronaut()[5:245, 105:345], (HEAD, HEAD), interpolation=cv2.INTER_AREA)
    if other:
        picture = (picture[:, ::-1] * np.array([0.7, 0.8, 1.0])).astype(np.uint8)
    y, x = np.mgrid[0:HEAD, 0:HEAD] / (HEAD / 2) - 1
    outline = np.clip((1 - np.hypot(x / 0.8, y / 0.98)) / 0.08, 0, 1).astype(np.float32)
    return np.ascontiguousarray(picture, np.uint8), outline[..., None]


def two_heads(places: tuple[tuple[float, float] | None, tuple[float, float] | None], size=SIZE) -> Image:
    """A frame with a head at each place (the middle, pixels); the second one is in front."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    frame = np.stack([90 + 30 * np.sin(x / 50), 110 + 20 * np.cos(y / 40), 130 + 0 * x], -1).astype(np.uint8)
    for place, other in zip(places, (False, True)):
        if place is None:
            continue
        picture, outline = head(other)
        matrix = np.array([[1, 0, place[0] - HEAD / 2], [0, 1, place[1] - HEAD / 2]])
        layer = cv2.warpAffine(picture, matrix, size)
        alpha = cv2.warpAffine(outline, matrix, size)[..., None]
        frame = (frame + alpha * (layer.astype(np.float32) - frame)).astype(np.uint8)
    return frame


def passing(count: int = 75, size=SIZE) -> Iterator[tuple[Image, tuple[float, float], tuple[float, float]]]:
    """Frames of two heads that pass each other, and the middles of the one behind and the one in front."""
    rest = min(10, count // 4)
    for i in range(count):
        way = np.clip((i - rest) / (count - 2 * rest), 0, 1)
        way = way * way * (3 - 2 * way)
        far = size[0] - 240
        behind, front = (120 + far * way, size[1] / 2), (size[0] - 120 - far * way, size[1] / 2 + 8)
        yield two_heads((behind, front), size), behind, front
