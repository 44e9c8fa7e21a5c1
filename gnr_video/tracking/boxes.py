"""Boxes of faces in a picture: where they are, how much two are alike, where one is heading."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gnr_video.frame import Image, Points

Box = tuple[float, float, float, float]
"""(left, top, right, bottom), pixels."""

Tile = tuple[int, int, int, int]
"""(left, top, right, bottom) of a part of the picture, whole pixels."""

Appearance = NDArray[np.float32]
"""float32 6x6x3, 0..1."""

COAST_SECONDS = 1.0
"""How long a face that is gone is taken to move on as it did."""
VELOCITY_SECONDS = 0.1
"""Time constant of a face's velocity."""


@dataclass
class Track:
    """Where a face was last, and how it moved."""

    box: Box
    seen_at: float
    velocity: tuple[float, float] = (0.0, 0.0)
    """Of its middle, pixels a second."""
    appearance: Appearance | None = None

    def expected(self, time_seconds: float) -> Box:
        """Where it is by now, if it has moved on as it did."""
        dt = min(max(time_seconds - self.seen_at, 0.0), COAST_SECONDS)
        return moved(self.box, self.velocity[0] * dt, self.velocity[1] * dt)

    def see(self, box: Box, time_seconds: float) -> None:
        """Take in where it is now."""
        dt = time_seconds - self.seen_at
        if dt > 0:
            share = 1 - math.exp(-dt / VELOCITY_SECONDS)
            speeds = [(box[i] + box[i + 2] - self.box[i] - self.box[i + 2]) / 2 / dt for i in (0, 1)]
            vx, vy = (v + share * (m - v) for v, m in zip(self.velocity, speeds))
            self.velocity = vx, vy
        self.box, self.seen_at = box, time_seconds


NO_MATCH = 1e6
"""`match_cost` of boxes that cannot be the same face's."""


def match_cost(a: Box, b: Box) -> float:
    """How unlike two boxes of the same face in neighbouring frames are: 1 - IoU + distance / size.

    `NO_MATCH` when they are further apart than their own size, or one is twice the other's size.
    """
    size_a, size_b = max(a[2] - a[0], a[3] - a[1]), max(b[2] - b[0], b[3] - b[1])
    size = max(size_a, size_b, 1e-6)
    distance = math.hypot(a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3]) / 2 / size
    if distance > 1.0 or min(size_a, size_b) < 0.5 * size:
        return NO_MATCH
    return 1.0 - iou(a, b) + distance


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def box_of(points: Points) -> Box:
    """The box of a face's landmarks."""
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def moved(box: Box, dx: float, dy: float) -> Box:
    """The box, elsewhere."""
    return box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy


def shifted(points: Points, dx: float, dy: float) -> Points:
    """Landmarks (Nx3) moved within the picture."""
    return points + np.array([dx, dy, 0], np.float32)


def around(box: Box, width: int, height: int, sides: float) -> Tile:
    """A square about a box, cut off at the picture's border; `sides`: half its side, in sides of the box."""
    half = sides * max(box[2] - box[0], box[3] - box[1])
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    left, top = min(max(int(x - half), 0), width - 1), min(max(int(y - half), 0), height - 1)
    return left, top, max(min(int(x + half), width), left + 1), max(min(int(y + half), height), top + 1)


def size_of(image: Image) -> tuple[int, int]:
    """(width, height)."""
    return image.shape[1], image.shape[0]
