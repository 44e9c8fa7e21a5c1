"""Mouths, drawn from the face's landmarks: a line that opens as the lips do.

The default weights know few open mouths: they draw speech and laughter as a line above a blot. So what the network
drew between nose and chin is taken off its skin, and a mouth as drawings have it is put there: narrower than the
face's, one stroke where lips are closed, and its inside where they are apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from gnr_video.frame import Alignment, Image, Points
from gnr_video.masks import CHIN, FOREHEAD, LIPS, Mask, scaled, smoothstep

WIDTH = 0.78
"""Of a drawn mouth, in widths of the face's."""
STROKE = 0.012
"""Thickness of its line, in heights of the face."""
SETTLE = 0.25
"""The share of a change of colours that each drawing follows."""
CALM, AT_ONCE = 0.2, 0.02
"""The share of a motion of the lips that is followed: from `CALM` of the smallest evenly up to all of one of `AT_ONCE`
heights of the face. Landmarks are never quite still."""

# MediaPipe's landmarks of the inner edges of the lips, from corner to corner.
_UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
_LOWER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
_NOSE = 2
_CHEEKS = (50, 205, 187, 280, 425, 411)
_LASHES = (33, 159, 133, 263, 386, 362)
_CLOSED = 0.012
"""Lips so far apart (in heights of the face) touch: landmarks are not that sure."""
_INSIDE = np.array([178.0, 76.0, 76.0], np.float32)
_TONGUE = np.array([222.0, 128.0, 122.0], np.float32)
_SUM = np.ones((1, 3), np.float32)
_ALIKE = 90
"""Sum of the differences of colours up to which a pixel is skin."""
_DRAWN = (*LIPS, *_UPPER, *_LOWER)
_FINE = 2
"""Pixels of what is drawn to one of the picture."""


class Mouths:
    """Draws the mouths of one video. One thread at a time."""

    def __init__(self) -> None:
        self._before: dict[tuple[int, int], tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

    def reset(self) -> None:
        """Forget the frames before."""
        self._before = {}

    def apply(self, faces: Sequence[tuple[Alignment, Image]]) -> list[tuple[Alignment, Image]]:
        """The faces of a frame with mouths.

        Args:
            faces: an alignment and its drawing (uint8 SxSx3), of a face or a whole head. One without landmarks stays
                as it is.

        Returns:
            The same with new drawings.
        """
        before, self._before = self._before, {}
        made = []
        for i, (place, picture) in enumerate(faces):
            if place.landmarks is None:
                made.append((place, picture))
                continue
            key = i, place.track_id  # in a grid one face has several drawings
            last = before.get(key)
            landmarks = place.landmarks if last is None else _calmed(place.landmarks, last[0])
            mouth = _Mouth(picture, landmarks)
            colours = mouth.colours()
            if last is not None:
                colours = last[1] + np.float32(SETTLE) * (colours - last[1])
            self._before[key] = landmarks, colours
            made.append((place, mouth.drawn(*colours)))
        return made


def _calmed(now: Points, before: Points) -> Points:
    """Landmarks whose lips follow those of the frame before."""
    lips = list(_DRAWN)
    change = now[lips] - before[lips]
    height = max(float(np.linalg.norm(now[CHIN, :2] - now[FOREHEAD, :2])), 1.0)
    moved = float(np.linalg.norm(change[:, :2], axis=1).max()) / height
    calm = now.copy()
    calm[lips] = before[lips] + np.float32(min(CALM + (1 - CALM) * moved / AT_ONCE, 1)) * change
    return calm


def lips_apart(place: Alignment) -> float:
    """How far the lips of a face are apart, in heights of the face."""
    assert place.landmarks is not None
    points = place.landmarks
    height = np.linalg.norm(points[CHIN, :2] - points[FOREHEAD, :2])
    return float(np.linalg.norm(points[13, :2] - points[14, :2]) / height)


def unlike_skin(place: Alignment, picture: Image) -> tuple[float, tuple[int, int, int, int]]:
    """The share of a drawing's mouth that is not skin, and the part that it is of (left, top, right, bottom)."""
    assert place.landmarks is not None
    mouth = _Mouth(picture, place.landmarks)
    x0, y0, x1, y1 = part = mouth.part(0.0)
    return 1 - float(_is_skin(picture[y0:y1, x0:x1], mouth.colours()[0]).mean()), part


class _Mouth:
    """A drawing and the mouth that it should have. Coordinates are pixels of the drawing."""

    def __init__(self, picture: Image, landmarks: Points) -> None:
        self.picture = picture
        self.side = picture.shape[0]
        self.points = (np.asarray(landmarks[:, :2], np.float64) + 0.5) * (self.side / 256) - 0.5
        self.height = max(float(np.linalg.norm(self.points[CHIN] - self.points[FOREHEAD])), 1.0)
        left, right = self.points[_UPPER[0]], self.points[_UPPER[-1]]
        self.middle = (left + right) / 2
        along = (right - left) / max(float(np.linalg.norm(right - left)), 1e-6)
        axes = np.array([along, [-along[1], along[0]]])
        is_mirrored = axes[1] @ (self.points[CHIN] - self.middle) < 0
        self.axes = -axes if is_mirrored else axes  # from left to right, and down

    def _own(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points along the mouth and across it, from its middle."""
        return np.asarray((points - self.middle) @ self.axes.T)

    def colours(self) -> NDArray[np.float32]:
        """RGB of the drawing's skin and of its lines, float32 2x3."""
        last = self.side - 1
        cheeks = np.clip(np.rint(self.points[list(_CHEEKS)]), 0, last).astype(int)
        skin = np.median(self.picture[cheeks[:, 1], cheeks[:, 0]], axis=0)
        reach = max(round(0.04 * self.height), 1)
        dark = []
        for x, y in np.clip(np.rint(self.points[list(_LASHES)]), 0, last).astype(int):
            around = self.picture[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
            colours = around.reshape(-1, 3)
            dark.append(colours[np.argsort(colours.sum(axis=1))[: max(len(colours) // 16, 1)]])
        return np.stack([skin, np.median(np.concatenate(dark), axis=0)]).astype(np.float32)

    def _outline(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Upper and lower edges of the opening (Nx2, along and across), and the line's half thickness (N)."""
        upper, lower = self._own(self.points[list(_UPPER)]), self._own(self.points[list(_LOWER)])
        x = np.linspace(-1.0, 1.0, 33)
        sides = []
        for edge in (upper, lower):
            order = np.argsort(edge[:, 0])
            reach = max(float(edge[order[-1], 0]), 1e-6)
            sides.append(np.interp(x * reach, edge[order, 0], edge[order, 1]))
        line, gap = (sides[0] + sides[1]) / 2, np.maximum(sides[1] - sides[0] - _CLOSED * self.height, 0)
        kernel = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        line, gap = (np.convolve(np.pad(v, 2, mode="edge"), kernel, "valid") for v in (line, gap))
        wide = WIDTH * float(np.ptp(upper[:, 0])) / 2 * x
        half = STROKE * self.height / 2 * (1 - x**4 * 0.8)
        return np.stack([wide, line - gap / 2], axis=1), np.stack([wide, line + gap / 2], axis=1), half

    def part(self, margin: float) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what is drawn anew with so many pixels around it, within the picture."""
        around = self.around()
        x0, y0 = np.maximum(np.floor(around.min(axis=0) - margin).astype(int), 0)
        x1, y1 = np.minimum(np.ceil(around.max(axis=0) + margin).astype(int) + 1, self.side)
        return int(x0), int(y0), int(x1), int(y1)

    def drawn(self, skin: NDArray[np.float32], ink: NDArray[np.float32]) -> Image:
        """The drawing with its mouth."""
        soft = 0.02 * self.height + 0.1
        x0, y0, x1, y1 = self.part(3 * soft)
        if x1 - x0 < 4 or y1 - y0 < 4:
            return self.picture
        result = self.picture.copy()
        part = result[y0:y1, x0:x1]
        corner = np.array([x0, y0], np.float64)
        shape = part.shape[:2]
        region = np.asarray(cv2.GaussianBlur(_filled(self.around() - corner, shape), (0, 0), soft), np.uint8)
        bare, sure = _bare(part, region, skin, self.height)
        upper, lower, half = self._outline()
        stroke = np.vstack([upper - _down(half), (lower + _down(half))[::-1]])
        layers = [(stroke, ink)]
        # Inside of the lines, of which the lower is the thinner one.
        top, bottom = upper + _down(0.4 * half), lower + _down(0.3 * half)
        opening = np.maximum(bottom - top, 0)
        if opening.any():
            tongue = np.vstack([top + 0.6 * opening, (top + opening)[::-1]])
            inside = np.vstack([top, (top + opening)[::-1]])
            layers += [(inside, 0.15 * (ink + skin) + 0.7 * _INSIDE), (tongue, 0.15 * skin + 0.85 * _TONGUE)]
        for outline, colour in layers:
            share = _filled(outline @ self.axes + self.middle - corner, shape)[..., None] / np.float32(255)
            bare += share * (colour - bare)
        share = np.float32(sure / 255) * np.maximum(
            region, _filled(stroke @ self.axes + self.middle - corner, shape)
        )
        part[...] = np.rint(part + share[..., None] * (bare - part))
        return result

    def around(self) -> NDArray[np.float64]:
        """What is drawn anew: the lips and what is near them, but neither the nose nor the chin."""
        lips = self._own(self.points[list(LIPS)])
        wide = scaled(lips, np.array([1.4, 1.7]))
        nose, chin = self._own(self.points[[_NOSE, CHIN]])[:, 1]
        across = np.clip(wide[:, 1], min(0.5 * nose, lips[:, 1].min()), max(0.72 * chin, lips[:, 1].max()))
        return np.asarray(np.stack([wide[:, 0], across], axis=1) @ self.axes + self.middle)


def _down(lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([np.zeros_like(lengths), lengths], axis=1)


def _filled(outline: NDArray[np.float64], shape: tuple[int, ...]) -> Mask:
    """A polygon in a picture of that shape (height, width), uint8, its edges exact to a part of a level."""
    fine = np.zeros((shape[0] * _FINE, shape[1] * _FINE), np.uint8)
    points = np.round(((outline + 0.5) * _FINE - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(fine, [points], 255, lineType=cv2.LINE_AA, shift=4)
    return np.asarray(cv2.resize(fine, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), np.uint8)


def _is_skin(part: Image, skin: NDArray[np.float32]) -> Mask:
    away = cv2.transform(cv2.absdiff(part, np.full_like(part, np.rint(skin))), _SUM)
    return np.asarray(away < _ALIKE, np.uint8)


def _bare(
    part: Image, region: Mask, skin: NDArray[np.float32], height: float
) -> tuple[NDArray[np.float32], float]:
    """The skin of a part of a drawing without what is drawn on it in a region, and how surely it is skin (0..1).

    Lines that lead out of the region, jaws and strands, stay.
    """
    shape = part.shape[:2]
    is_skin = _is_skin(part, skin)
    count, labels = cv2.connectedComponents(1 - is_skin, connectivity=8)
    leads_out = np.zeros(count, np.uint8)
    leads_out[np.unique(labels[region < 64])] = 255
    leads_out[0] = 0
    stays = cv2.GaussianBlur(leads_out[labels], (0, 0), 0.01 * height + 0.1)
    # What is left of the skin says what colour the rest has; seen small, as there is nothing sharp in it.
    small = max(shape[1] // 4, 1), max(shape[0] // 4, 1)
    weight = cv2.resize(
        cv2.bitwise_and(is_skin * 255, cv2.bitwise_not(region)), small, interpolation=cv2.INTER_AREA
    )
    weight = weight[..., None].astype(np.float32) + np.float32(1)
    colours = cv2.resize(part, small, interpolation=cv2.INTER_AREA).astype(np.float32)
    sums = cv2.GaussianBlur(np.dstack([colours * weight, weight]), (0, 0), 0.015 * height + 0.1)
    fill = cv2.resize(np.asarray(sums[..., :3] / sums[..., 3:], np.float32), (shape[1], shape[0]))
    ring = (region > 8) & (region < 96)
    share = float(is_skin[ring].mean()) if ring.any() else 0.0
    sure = float(smoothstep(np.array([(share - 0.1) / 0.2]))[0])
    keep = np.minimum(stays[..., None].astype(np.float32) * np.float32(2 / 255), 1)
    return np.asarray(fill + keep * (part - fill), np.float32), sure
