"""Heads where no face is found: read off a person's outline, in a bust or in a whole frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gnr_video.frame import Alignment
from gnr_video.tracking.alignment import bust_head
from gnr_video.tracking.face_mesh import Mask

PERSON, CERTAIN = 153, 242
"""Of 255: what counts as a person in the matte of a whole frame, and what half of a person is at least."""
THIN = 0.55
"""What is thinner than so much of a known head is an arm or a hand."""
LEAST = 0.035
"""Half the width of a person at least, in sides of the matte."""
SHOULDERS = 3.2
"""Half the width of a body, in that of its head."""
SMALL = 0.2
"""Where no face is known: of what is a person at least, in the largest person."""
NARROW, BROAD = 0.72, 1.6
"""A head ends where a person is so much narrower, or so much wider, than it is."""
TALL = 1.6
"""The height of a head at most, in its widths."""
WIDE, HIGH, DROP = 105.0, 140.0, 23.0
"""Half the width and the height of a whole head in the face's crop, pixels of the 256 crop, and how much higher than
the crop's its middle is."""


@dataclass(frozen=True)
class HeadPlace:
    """Where a head's outline is in the matte of its bust, pixels: its middle, across, and its top."""

    x: float
    top: float


def head_place(matte: Mask) -> HeadPlace | None:
    """The outline of the head in the middle of a bust's matte (uint8 SxS); None where there is none."""
    rows, columns = bust_head(matte.shape[0])
    height, width = rows.stop - rows.start, columns.stop - columns.start
    left, right = max(columns.start - width // 4, 0), columns.stop + width // 4
    person = matte[:, left:right] > 127
    wide = np.count_nonzero(person, axis=1) >= width // 6
    if not wide[: rows.stop].any():
        return None
    top = int(wide.argmax())
    across = np.nonzero(person[top : top + height // 2])[1]
    return HeadPlace(left + float(across.mean()), float(top))


def presence(matte: Mask) -> float:
    """How much of where face or chest are in a bust's matte (uint8 SxS), whichever is more, is a person, 0..1."""
    rows, columns = bust_head(matte.shape[0])
    height, width = rows.stop - rows.start, columns.stop - columns.start
    across = slice(columns.start + round(0.3 * width), columns.stop - round(0.3 * width))
    face = matte[rows.start + round(0.4 * height) : rows.start + round(0.8 * height), across]
    return max(float(face.mean()), float(matte[rows.stop :, across].mean())) / 255


def bare_heads(matte: Mask, size: tuple[int, int], known: Sequence[Alignment]) -> list[Alignment]:
    """Heads of people in a frame besides those that are known.

    Args:
        matte: uint8 SxS, 255 = a person, of the whole frame.
        size: (width, height) of the frame, pixels.
        known: the alignments of faces in it.

    Returns:
        The alignment that a face in each of them would have.
    """
    side = matte.shape[0]
    across, down = size[0] / side, size[1] / side
    people = np.asarray((matte > PERSON) * 255, np.uint8)
    thin = LEAST * side
    bodies = cv2.connectedComponents(people)[1]
    chins: dict[int, float] = {}
    for face in known:
        x, y = face.center_x / across, (face.center_y - DROP * face.scale) / down
        wide, high = WIDE * face.scale / across, HIGH * face.scale / down
        body_of = bodies[min(max(round(y), 0), side - 1), min(max(round(x), 0), side - 1)]
        chins[int(body_of)] = max(chins.get(int(body_of), 0.0), y + high)
        middle = round(x), round(y)
        cv2.ellipse(people, middle, (round(1.7 * wide) + 1, round(1.4 * high) + 1), 0, 0, 360, 0, -1)
        chin, body = round(y + 0.9 * high), SHOULDERS * wide
        cv2.rectangle(people, (round(x - body), chin), (round(x + body), side), 0, -1)
    if known:
        thin = max(thin, THIN * WIDE * min(face.scale for face in known) / across)
    if not people.any():
        return []
    people = _without_thin(people, thin)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(people)
    found: list[_Outline] = []
    large = SMALL * max((int(area) for area in stats[1:, cv2.CC_STAT_AREA]), default=0)
    for part in sorted(range(1, count), key=lambda part: int(stats[part, cv2.CC_STAT_TOP])):
        left, top, width, height, area = (int(value) for value in stats[part])
        window = slice(top, top + height), slice(left, left + width)
        outline = labels[window] == part
        # What is below somebody's chin and hangs together with them is theirs.
        whose = int(bodies[window][outline].max())
        is_sure = np.mean(matte[window][outline] > CERTAIN) > 0.5
        head = _Outline(*_head(outline, left, top, side), whose)
        is_new = top < chins.get(whose, float(side)) and not any(one.is_above(head) for one in found)
        if is_sure and is_new and (known or area >= large):
            found.append(head)
    return [_alignment(head, across, down) for head in found]


def _without_thin(mask: Mask, radius: float) -> Mask:
    """A mask without what is thinner than a disc of that radius, pixels; it does not end at the picture's border."""
    reach = max(round(radius), 1)
    wide = np.pad(mask, reach, mode="edge")
    # By distances: a disc as a structuring element takes ten times as long.
    outside = np.asarray(_distances(wide) <= reach, np.uint8)
    if outside.all():
        return np.zeros_like(mask)
    opened = _distances(outside) <= reach
    return np.asarray(opened[reach:-reach, reach:-reach] * 255, np.uint8)


def _distances(mask: Mask) -> NDArray[np.float32]:
    """How far each pixel of a mask is from the nearest that is none."""
    return np.asarray(cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


@dataclass(frozen=True)
class _Outline:
    """A head in a matte, pixels, and which person's of those who hang together it is."""

    left: float
    top: float
    right: float
    bottom: float
    person: int

    def is_above(self, other: _Outline) -> bool:
        """Whether the other one is the body below it."""
        overlaps = self.left < other.right and other.left < self.right
        return self.person == other.person and overlaps and other.top > (self.top + self.bottom) / 2


def _head(part: NDArray[np.bool_], left: int, top: int, side: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the head in a person's outline, whose box begins at (left, top).

    At the side of a picture it goes on beyond, by half of what is seen of it at least.
    """
    is_cut = (left < 1) != (left + part.shape[1] > side - 1)
    tall = 2 * TALL if is_cut else TALL
    widths = np.count_nonzero(part, axis=1)
    widest, bottom = 0, len(widths)
    for row, width in enumerate(widths):
        is_neck = row > 0.5 * widest and width < NARROW * widest
        is_shoulder = row > 0.9 * widest and width > BROAD * float(np.median(widths[: row + 1]))
        # The crown is round.
        if widest > 1.5 * LEAST * side and (row > tall * widest or is_neck or is_shoulder):
            bottom = row
            break
        widest = max(widest, int(width))
    columns = np.flatnonzero(part[:bottom].any(axis=0))
    start, stop = float(left + columns[0]), float(left + columns[-1] + 1)
    beyond = (stop - start) / 2
    if is_cut:
        start, stop = (start - beyond, stop) if start < 1 else (start, stop + beyond)
    return start, float(top), stop, float(top + bottom)


def _alignment(head: _Outline, across: float, down: float) -> Alignment:
    left, top, right, bottom = head.left * across, head.top * down, head.right * across, head.bottom * down
    scale = 1.15 * max((right - left) / 2 / WIDE, (bottom - top) / 2 / HIGH, 0.05)
    return Alignment(-1, (left + right) / 2, (top + bottom) / 2 + DROP * scale, scale, 0.0)


def apart(one: Alignment, other: Alignment) -> float:
    """How far two faces are apart, in half widths of the first one's head."""
    return math.hypot(one.center_x - other.center_x, one.center_y - other.center_y) / (WIDE * one.scale)


def is_behind(face: Alignment, other: Alignment) -> bool:
    """Whether a face is where another, larger one hides it: by its head, or by the body below."""
    if face.scale > other.scale:
        return False
    x, y = face.center_x - other.center_x, face.center_y - other.center_y
    return inside(face, other) or (abs(x) < 2 * WIDE * other.scale and y > 0)


def inside(face: Alignment, other: Alignment) -> bool:
    """Whether the middle of a face is within another's head."""
    x, y = face.center_x - other.center_x, face.center_y - other.center_y + DROP * other.scale
    return math.hypot(x / WIDE, y / HIGH) < other.scale
