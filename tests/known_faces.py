"""Clips with faces whose places are known: the portrait comes, turns away, is hidden.

Each frame comes with what of the face can be seen in it, so that a translation of it can be judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from gnr_video.frame import Image
from gnr_video.samples.portrait import portrait

SIZE = (480, 270)
SIDE = 240
"""Of the portrait in the frames, pixels."""
MIDDLE, CORE = (226, 128), (37, 46)
"""Middle of the portrait's face, and half its width and height without cheeks and forehead; pixels of the portrait."""
VISIBLE = 3.0
"""Standard deviation of a face, grey levels, from which on there is something to be recognised."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A frame.

    Attributes:
        image: uint8 HxWx3 RGB.
        face: bool HxW, where the face's own pixels are.
        is_person: whether anything of a person is in it.
    """

    image: Image
    face: np.ndarray
    is_person: bool = True

    def is_bare(self, result: Image) -> bool:
        """Whether the face can be seen in a translation of the frame: a third of it is as it was."""
        seen = int(self.face.sum())
        whole = np.pi * CORE[0] * CORE[1] * (SIDE / 512) ** 2
        if seen < 0.15 * whole:
            return False
        before, after = (image[self.face].astype(np.float32) for image in (self.image, result))
        contrast = float(before.mean(axis=1).std())
        alike = np.abs(before - after).max(axis=1) <= 0.35 * contrast
        return contrast >= VISIBLE and float(alike.mean()) > 0.3


@lru_cache(maxsize=1)
def _person() -> tuple[Image, np.ndarray]:
    """The portrait and its face, SIDE x SIDE."""
    picture = cv2.resize(portrait(), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    face = np.zeros((512, 512), np.uint8)
    cv2.ellipse(face, MIDDLE, CORE, 0, 0, 360, 255, -1)
    return picture, cv2.resize(face, (SIDE, SIDE)) > 127


@lru_cache(maxsize=2)
def room(level: int = 60) -> Image:
    """An empty room."""
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    planes = [level + 30 * np.sin(x / 50), level + 20 + 20 * np.cos(y / 40), level + 40 + 0 * x]
    return np.stack(planes, -1).astype(np.uint8)


HEAD = (226, 118), (72, 100)
"""Middle of the portrait's head, and half its width and height."""


def turned(angle: float) -> tuple[Image, np.ndarray]:
    """The portrait with its head turned to a side (radians), as if it were painted on a round body, and its face."""
    picture, face = _person()
    (x, y), (wide, high) = ((value * SIDE / 512 for value in pair) for pair in HEAD)
    columns, rows = np.meshgrid(np.arange(SIDE, dtype=np.float32), np.arange(SIDE, dtype=np.float32))
    half = wide * np.sqrt(np.clip(1 - ((rows - y) / high) ** 2, 0, 1))
    within = np.abs(columns - x) < half
    now = np.arcsin(np.where(within, (columns - x) / np.maximum(half, 1e-3), 0))
    source = np.where(within, x + half * np.sin(now - angle), columns).astype(np.float32)
    picture = np.asarray(cv2.remap(picture, source, rows, cv2.INTER_LINEAR), np.uint8)
    face = cv2.remap(face.astype(np.uint8), source, rows, cv2.INTER_NEAREST) > 0
    back = within & (np.abs(now - angle) > np.pi / 2)
    waves = 1 + 0.15 * np.sin(columns / 2) * np.sin(rows / 3)
    picture[back] = (np.array([120, 92, 58]) * waves[..., None]).astype(np.uint8)[back]  # hair
    return picture, face & ~back


def placed(
    x: float, y: float = 30, *, angle: float = 0.0, hand: float = 0.0, behind: Image | None = None
) -> Shown:
    """The room with the portrait, its left upper corner at (x, y).

    Args:
        angle: the head's turn, radians.
        hand: how far a hand covers the face from below, 0..1.
        behind: the room; None: the usual one.
    """
    picture, face = turned(angle) if angle else _person()
    image = (room() if behind is None else behind).copy()
    if hand:
        picture, face = picture.copy(), face.copy()
        top = round((MIDDLE[1] + 75 - 140 * hand) * SIDE / 512)
        low = round((MIDDLE[1] + 75) * SIDE / 512)
        left, right = (round((MIDDLE[0] + side * 62) * SIDE / 512) for side in (-1, 1))
        picture[top:low, left:right] = (176, 128, 104)
        face[top:low, left:right] = False
    seen = np.zeros(image.shape[:2], bool)
    left, up = round(x), round(y)
    x0, x1, y0, y1 = max(left, 0), min(left + SIDE, SIZE[0]), max(up, 0), min(up + SIDE, SIZE[1])
    if x0 < x1 and y0 < y1:
        image[y0:y1, x0:x1] = picture[y0 - up : y1 - up, x0 - left : x1 - left]
        seen[y0:y1, x0:x1] = face[y0 - up : y1 - up, x0 - left : x1 - left]
    return Shown(image, seen, x0 < x1)


def empty(image: Image | None = None) -> Shown:
    image = room() if image is None else image
    return Shown(image, np.zeros(image.shape[:2], bool), False)


def black() -> Shown:
    return empty(np.zeros((SIZE[1], SIZE[0], 3), np.uint8))


def dimmed(shown: Shown, share: float) -> Shown:
    """A frame of a fade from or to black."""
    return Shown((shown.image * share).astype(np.uint8), shown.face, shown.is_person and share > 0)


FPS = 15


def turns_away() -> Iterator[Shown]:
    for i in range(42):
        yield placed(120 + i, angle=np.pi * np.clip((i - 8) / 12, 0, 1))


def is_covered() -> Iterator[Shown]:
    for i in range(40):
        yield placed(120 + 20 * np.sin(i / 6), hand=float(np.clip(min(i - 6, 32 - i) / 4, 0, 1)))


def comes_and_leaves() -> Iterator[Shown]:
    for i in range(50):
        yield placed(-SIDE + 15 * i)
    for _ in range(4):
        yield empty()


def appears_after_cuts() -> Iterator[Shown]:
    for _ in range(5):
        yield empty(room(120)[::-1])
    for i in range(8):
        yield placed(40 + i)
    for i in range(8):
        yield placed(220 - i, behind=room(120)[::-1])
    for _ in range(5):
        yield empty(room(120)[:, ::-1])


def fades() -> Iterator[Shown]:
    for _ in range(3):
        yield black()
    for i in range(24):
        yield dimmed(placed(120 + i), float(np.clip(min(i, 23 - i) / 8, 0, 1)))
    for _ in range(4):
        yield black()


def crosses() -> Iterator[Shown]:
    """Two people; one passes before the other."""
    for i in range(27):
        behind = placed(10 + 9 * i, 30)
        front = placed(240 - 9 * i, 45, behind=behind.image)
        over = np.zeros_like(behind.face)
        left = max(round(240 - 9 * i), 0)
        over[45:, left : max(round(240 - 9 * i) + SIDE, 0)] = True
        yield Shown(front.image, front.face | (behind.face & ~over))


CLIPS: dict[str, Callable[[], Iterator[Shown]]] = {
    one.__name__: one
    for one in (turns_away, is_covered, comes_and_leaves, appears_after_cuts, fades, crosses)
}
