"""Expression: mouths and eyelids drawn from the face's landmarks, so that drawings smile, speak and blink.

The default weights know few open mouths, which they draw as a line above a blot, and no closed eye. So what the
network drew between nose and chin is taken off its skin, and a mouth as drawings have it is put there: narrower than
the face's, one stroke where lips are closed, and its inside where they are apart. Over eyes that close comes a lid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gnr_video.effects.base import Effect
from gnr_video.effects.steady import USUAL_SECONDS, share_followed
from gnr_video.frame import Alignment, FaceLayer, Image, Points
from gnr_video.tracking.face_mesh import (
    CHIN,
    FOREHEAD,
    LIPS,
    Mask,
    face_height,
    in_pixels,
    polygon,
    scaled,
    smoothstep,
)

SETTLE = 0.25
"""The share of a change of colours that is followed within a thirtieth of a second."""
CALM, AT_ONCE = 0.2, 0.02
"""The share of a motion of the lips that is followed within a thirtieth of a second: from `CALM` of the slowest evenly
up to all of one of `AT_ONCE` heights of the face in that time. Landmarks are never quite still."""
WIDTH = 0.78
"""Of a drawn mouth, in widths of the face's."""
OPEN, SHUT = 0.18, 0.07
"""Heights of an eye, in its widths, from which on it is open, and down to which it is closed."""

_CLOSED = 0.012
"""Lips so far apart (in heights of the face) touch: landmarks are not that sure."""
_LIP_LINE, _LASHES_LINE = 0.012, 0.022
"""Thickness of lines, in heights of the face."""
_LID_TOP, _LID_BOTTOM, _LID_REST = -0.155, 0.13, 0.055
"""Where a large drawn eye begins and ends, and where the lid of a closed one is, below the middle of the face's."""
_INSIDE = np.array([178.0, 76.0, 76.0], np.float32)
_TONGUE = np.array([222.0, 128.0, 122.0], np.float32)
_ALIKE = 90
"""Sum of the differences of colours up to which a pixel is skin."""

# MediaPipe's landmarks: of the inner edges of the lips, from corner to corner; of each eye its outer and inner
# corner, upper and lower lid.
_UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
_LOWER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
_EYES = ((33, 133, 159, 145), (263, 362, 386, 374))
_NOSE = 2
_CHEEKS = (50, 205, 187, 280, 425, 411)

_SUM = np.ones((1, 3), np.float32)
_FINE = 2
"""Pixels of what is drawn to one of the picture."""

Outline = NDArray[np.float64]
"""Float64 Nx2."""
Colors = NDArray[np.float32]
"""RGB of a drawing's skin and of its lines, float32 2x3."""
Layers = list[tuple[Outline, NDArray[np.float32]]]
"""Outlines and the colours that they are filled with. All lie within the first."""


class Expression(Effect):
    """Draws the mouths and eyelids of one video."""

    def __init__(self) -> None:
        self._before: dict[tuple[int, int], tuple[Points, Colors]] = {}
        self._seconds = 0.0

    def reset(self) -> None:
        """Forget the frames before."""
        self._before = {}

    def state(self) -> tuple[Any, ...]:
        return dict(self._before), self._seconds

    def restore(self, state: tuple[Any, ...]) -> None:
        self._before, self._seconds = state

    def face(self, faces: Sequence[FaceLayer]) -> None:
        drawn = [face for face in faces if face.drawing is not None]
        if not drawn:
            return
        since, self._seconds = drawn[0].seconds - self._seconds, drawn[0].seconds
        pictures = [(face.alignment, face.drawing) for face in drawn if face.drawing is not None]
        for face, (_, drawing) in zip(drawn, self.apply(pictures, since), strict=True):
            face.drawing = drawing

    def apply(
        self, faces: Sequence[tuple[Alignment, Image]], since: float = USUAL_SECONDS
    ) -> list[tuple[Alignment, Image]]:
        """The faces of a frame with their expressions.

        Args:
            faces: an alignment and its drawing (uint8 SxSx3), of a face or a whole head. One without landmarks stays
                as it is.
            since: seconds since the frame before.

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
            landmarks = place.landmarks if last is None else _calmed(place.landmarks, last[0], since)
            face = _Face(picture, landmarks)
            colors = face.colors()
            if last is not None:
                colors = last[1] + np.float32(share_followed(SETTLE, since)) * (colors - last[1])
            self._before[key] = landmarks, colors
            result = picture.copy()
            eyes = (_Eye(face, *eye[:2], shut) for eye, shut in zip(_EYES, face.shut()) if shut > 0)
            for part in (_Mouth(face), *eyes):
                part.draw(result, colors)
            made.append((place, result))
        return made


def _calmed(now: Points, before: Points, since: float) -> Points:
    """Landmarks whose lips follow those of the frame before, `since` seconds ago."""
    lips = [*LIPS, *_UPPER, *_LOWER]
    change = now[lips] - before[lips]
    moved = float(np.linalg.norm(change[:, :2], axis=1).max()) / face_height(now)
    speed = moved * USUAL_SECONDS / max(since, 1e-3)
    share = share_followed(min(CALM + (1 - CALM) * speed / AT_ONCE, 1), since)
    calm = now.copy()
    calm[lips] = before[lips] + np.float32(share) * change
    return calm


def lips_apart(place: Alignment) -> float:
    """How far the lips of a face are apart, in heights of the face."""
    assert place.landmarks is not None
    points, middle = place.landmarks, len(_UPPER) // 2
    gap = np.linalg.norm(points[_UPPER[middle], :2] - points[_LOWER[middle], :2])
    return float(gap) / face_height(points)


def unlike_skin(place: Alignment, picture: Image) -> tuple[float, tuple[int, int, int, int]]:
    """The share of a drawing's mouth that is not skin, and the part that it is of (left, top, right, bottom)."""
    assert place.landmarks is not None
    face = _Face(picture, place.landmarks)
    x0, y0, x1, y1 = part = _Mouth(face).window(0.0)
    return 1 - float(_is_skin(picture[y0:y1, x0:x1], face.colors()[0]).mean()), part


class _Face:
    """A drawing and the landmarks that it should follow, in its pixels."""

    def __init__(self, picture: Image, landmarks: Points) -> None:
        self.picture = picture
        self.side = picture.shape[0]
        self.points = in_pixels(landmarks, self.side)
        self.height = face_height(self.points)

    def colors(self) -> Colors:
        """Those of cheeks and lashes."""
        last = self.side - 1
        cheeks = np.clip(np.rint(self.points[list(_CHEEKS)]), 0, last).astype(int)
        skin = np.median(self.picture[cheeks[:, 1], cheeks[:, 0]], axis=0)
        reach = max(round(0.04 * self.height), 1)
        dark = []
        lashes = [number for eye in _EYES for number in eye[:3]]
        for x, y in np.clip(np.rint(self.points[lashes]), 0, last).astype(int):
            around = self.picture[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
            colors = around.reshape(-1, 3)
            dark.append(colors[np.argsort(colors.sum(axis=1))[: max(len(colors) // 16, 1)]])
        return np.stack([skin, np.median(np.concatenate(dark), axis=0)]).astype(np.float32)

    def shut(self) -> NDArray[np.float64]:
        """How far each eye is closed, 0..1: alike, unless one winks."""
        ends = self.points[np.array(_EYES)]
        widths, heights = (np.linalg.norm(ends[:, i] - ends[:, i + 1], axis=1) for i in (0, 2))
        shut = np.clip((OPEN - heights / np.maximum(widths, 1e-6)) / (OPEN - SHUT), 0, 1)
        winks = np.clip((np.ptp(shut) - 0.6) / 0.3, 0, 1)
        return np.asarray(winks * shut + (1 - winks) * shut.mean())


class _Part(ABC):
    """A part of a face that is drawn anew, between two corners.

    Outlines are along it, from left to right, and across it, downwards, from the middle of its corners.

    Attributes:
        keeps_lines: whether lines that lead out of it stay.
        strength: how much of what was there is covered, 0..1.
    """

    keeps_lines = True
    strength = 1.0

    def __init__(self, face: _Face, left: int, right: int) -> None:
        self.face, self.height = face, face.height
        corners = face.points[[left, right]]
        self.middle = corners.mean(axis=0)
        self.width = float(np.linalg.norm(corners[1] - corners[0]))
        along = (corners[1] - corners[0]) / max(self.width, 1e-6)
        axes = np.array([along, [-along[1], along[0]]])
        is_turned = axes[1] @ (face.points[CHIN] - face.points[FOREHEAD]) < 0
        self._axes = -axes if is_turned else axes

    def own(self, points: Sequence[int]) -> Outline:
        """An outline through landmarks."""
        return np.asarray((self.face.points[list(points)] - self.middle) @ self._axes.T)

    def placed(self, outline: Outline) -> Outline:
        """An outline in the picture."""
        return np.asarray(outline @ self._axes + self.middle)

    @abstractmethod
    def around(self) -> Outline:
        """What is drawn anew."""

    @abstractmethod
    def layers(self, colors: Colors) -> tuple[Outline | None, Layers]:
        """What of it is bared (None: all), and what is drawn there."""

    def window(self, margin: float) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what is drawn anew with so many pixels around it, within the picture."""
        around = self.placed(self.around())
        x0, y0 = np.maximum(np.floor(around.min(axis=0) - margin).astype(int), 0)
        x1, y1 = np.minimum(np.ceil(around.max(axis=0) + margin).astype(int) + 1, self.face.side)
        return int(x0), int(y0), int(x1), int(y1)

    def draw(self, result: Image, colors: Colors) -> None:
        """Draw it into a copy of the picture."""
        soft = 0.02 * self.height + 0.1
        x0, y0, x1, y1 = self.window(3 * soft)
        if x1 - x0 < 4 or y1 - y0 < 4:
            return
        window = result[y0:y1, x0:x1]

        def filled(outline: Outline) -> Mask:
            return _filled(self.placed(outline) - (x0, y0), window.shape[:2])

        region = np.asarray(cv2.GaussianBlur(filled(self.around()), (0, 0), soft), np.uint8)
        skin, sure = _bare(window, region, colors[0], self.height, keep_lines=self.keeps_lines)
        cover, layers = self.layers(colors)
        shown = region if cover is None else cv2.multiply(region, filled(cover), scale=1 / 255)
        shown = shown.astype(np.float32)
        inner = self.placed(layers[0][0]) - (x0, y0)
        left, top = np.maximum(inner.min(axis=0).astype(int) - 1, 0)
        right, bottom = np.maximum(inner.max(axis=0).astype(int) + 3, 0)
        drawn = slice(top, bottom), slice(left, right)
        shape = skin[drawn].shape[:2]
        for outline, color in layers if all(shape) else []:
            share = _filled(self.placed(outline) - (x0 + left, y0 + top), shape).astype(np.float32)
            shown[drawn] = np.maximum(shown[drawn], share)
            skin[drawn] += (share / np.float32(255))[..., None] * (color - skin[drawn])
        shown *= np.float32(sure * self.strength / 255)
        window[...] = np.rint(window + shown[..., None] * (skin - window))


class _Mouth(_Part):
    def __init__(self, face: _Face) -> None:
        super().__init__(face, _UPPER[0], _UPPER[-1])

    def around(self) -> Outline:
        """The lips and what is near them, but neither the nose nor the chin."""
        lips = self.own(LIPS)
        wide = scaled(lips, np.array([1.4, 1.7]))
        nose, chin = self.own((_NOSE, CHIN))[:, 1]
        wide[:, 1] = np.clip(
            wide[:, 1], min(0.5 * nose, lips[:, 1].min()), max(0.72 * chin, lips[:, 1].max())
        )
        return wide

    def layers(self, colors: Colors) -> tuple[Outline | None, Layers]:
        skin, ink = colors
        upper, lower = self.own(_UPPER), self.own(_LOWER)
        x = np.linspace(-1.0, 1.0, 33)
        edges = []
        for edge in (upper, lower):
            order = np.argsort(edge[:, 0])
            reach = max(float(edge[order[-1], 0]), 1e-6)
            edges.append(np.interp(x * reach, edge[order, 0], edge[order, 1]))
        line, gap = (edges[0] + edges[1]) / 2, np.maximum(edges[1] - edges[0] - _CLOSED * self.height, 0)
        kernel = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        line, gap = (np.convolve(np.pad(v, 2, mode="edge"), kernel, "valid") for v in (line, gap))
        along, half = WIDTH * self.width / 2 * x, _LIP_LINE * self.height / 2 * (1 - 0.8 * x**4)

        layers = [(_between(along, line - gap / 2 - half, line + gap / 2 + half), ink)]
        # Inside of the lines, of which the lower is the thinner one.
        top = line - gap / 2 + 0.4 * half
        opening = np.maximum(gap - 0.1 * half, 0)
        if opening.any():
            inside, tongue = 0.15 * (ink + skin) + 0.7 * _INSIDE, 0.15 * skin + 0.85 * _TONGUE
            layers += [
                (_between(along, top, top + opening), inside),
                (_between(along, top + 0.6 * opening, top + opening), tongue),
            ]
        return None, layers


class _Eye(_Part):
    keeps_lines = False

    def __init__(self, face: _Face, outer: int, inner: int, shut: float) -> None:
        super().__init__(face, outer, inner)
        self.shut = shut
        self.strength = min(shut / 0.1, 1.0)

    def around(self) -> Outline:
        """The drawn eye, which is higher than the face's."""
        turn = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        top, bottom = _LID_TOP * self.height, _LID_BOTTOM * self.height
        return np.stack(
            [0.85 * self.width * np.cos(turn), (top + bottom) / 2 + (bottom - top) / 2 * np.sin(turn)], axis=1
        )

    def layers(self, colors: Colors) -> tuple[Outline | None, Layers]:
        x = np.linspace(-1.0, 1.0, 33)
        along = 0.72 * self.width * x
        top = _LID_TOP + (_LID_REST - _LID_TOP) * self.shut
        # From an arch to a bow as it closes.
        lid = self.height * (top + (0.07 * self.shut - 0.03) * (1 - x**2))
        half = _LASHES_LINE * self.height / 2 * (1 - 0.7 * x**4)
        # All of the eye goes as the lid comes down to where it rests.
        below = self.height * (1.0 if self.shut > 0.9 else 0.0)
        ends = np.array([[2.0 * self.width, below + lid[-1]], [2.0 * self.width, -self.height]])
        cover = np.vstack([np.stack([along, lid + below], axis=1), ends, ends[::-1] * (-1, 1)])
        return cover, [(_between(along, lid - half, lid + half), colors[1])]


def _between(along: NDArray[np.float64], top: NDArray[np.float64], bottom: NDArray[np.float64]) -> Outline:
    """What lies between two lines."""
    return np.vstack([np.stack([along, top], axis=1), np.stack([along, bottom], axis=1)[::-1]])


def _filled(outline: Outline, shape: tuple[int, ...]) -> Mask:
    """A polygon in a picture of that shape (height, width), uint8, its edges exact to a part of a level."""
    fine = polygon((outline + 0.5) * _FINE - 0.5, (shape[0] * _FINE, shape[1] * _FINE))
    return np.asarray(cv2.resize(fine, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), np.uint8)


def _is_skin(part: Image, skin: NDArray[np.float32]) -> Mask:
    away = cv2.transform(cv2.absdiff(part, np.full_like(part, np.rint(skin))), _SUM)
    return np.asarray(away < _ALIKE, np.uint8)


def _bare(
    part: Image, region: Mask, skin: NDArray[np.float32], height: float, *, keep_lines: bool
) -> tuple[NDArray[np.float32], float]:
    """The skin of a part of a drawing without what is drawn on it in a region, and how surely it is skin (0..1).

    Args:
        keep_lines: lines that lead out of the region, jaws and strands, stay.
    """
    shape = part.shape[:2]
    is_skin = _is_skin(part, skin)
    # What is left of the skin says what colour the rest has; seen small, as there is nothing sharp in it.
    small = max(shape[1] // 4, 1), max(shape[0] // 4, 1)
    weight = cv2.resize(
        cv2.bitwise_and(is_skin * 255, cv2.bitwise_not(region)), small, interpolation=cv2.INTER_AREA
    )
    weight = weight[..., None].astype(np.float32)
    colors = cv2.resize(part, small, interpolation=cv2.INTER_AREA).astype(np.float32)
    known = np.dstack([colors * weight + skin, weight + np.float32(1)])
    sums = cv2.GaussianBlur(known, (0, 0), 0.015 * height + 0.1)
    fill = cv2.resize(np.asarray(sums[..., :3] / sums[..., 3:], np.float32), (shape[1], shape[0]))
    if keep_lines:
        count, labels = cv2.connectedComponents(1 - is_skin, connectivity=8)
        leads_out = np.zeros(count, np.uint8)
        leads_out[np.unique(labels[region < 64])] = 255
        leads_out[0] = 0
        stays = cv2.GaussianBlur(leads_out[labels], (0, 0), 0.01 * height + 0.1)
        keep = np.minimum(stays[..., None].astype(np.float32) * np.float32(2 / 255), 1)
        fill = fill + keep * (part - fill)
    ring = (region > 8) & (region < 96)
    share = float(is_skin[ring].mean()) if ring.any() else 0.0
    return np.asarray(fill, np.float32), float(smoothstep(np.array([(share - 0.1) / 0.2]))[0])
