"""Tint: what stays human around a drawing, neck and long hair, takes on the drawing's colours before it is pasted.

Photographed skin and hair are told apart by colour and place; each is moved to what its colours became inside of the
drawing (a colour transfer as in Reinhard et al. 2001, for two classes): skin as a whole, hair from place to place, so
that there is no seam where the drawing ends. Shading and strands stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from gnr_video.compositing.masks import above_jaw, guided
from gnr_video.effects.base import Effect
from gnr_video.effects.skin_and_hair import (
    LEAST_HAIR,
    Colors,
    Floats,
    coordinates,
    likelihood,
    opponent,
    planes,
    small,
    spread,
)
from gnr_video.frame import Alignment, Bust, FaceLayer, Image, Points
from gnr_video.tracking.alignment import bust_head, nearest_part
from gnr_video.tracking.face_mesh import (
    CHIN,
    EYES,
    FACE_OVAL,
    Mask,
    face_height,
    in_pixels,
    polygon,
    scaled,
    smoothstep,
)

TINT_SIDE = 128
"""Of the bust that is worked on, pixels: colours are smooth enough for so few."""
TINT_SECONDS = 0.25
"""Time constant of the colours: slow enough for noise, quick enough for a change of style."""

_CELL = 4
"""Hair's colours are means over cells of so many pixels, then over their surroundings."""
_BLACK = 16
"""The brightest that black bars are."""
_JAW_CORNERS = (397, 172)
"""MediaPipe's landmarks of them, right and left in the picture."""
# Least and greatest standard deviations of these. A neck lies in the shadow of its chin.
_SKIN = np.array([[40.0, 8.0, 8.0], [60.0, 14.0, 14.0]], np.float32)
_HAIR = np.array([[24.0, 6.0, 6.0], [50.0, 14.0, 14.0]], np.float32)
_NEITHER = np.float32(0.12)
"""Likelihood that a pixel is something else; that of skin or hair is 1 in the middle of its colours."""


@dataclass(frozen=True)
class TintColors(Colors):
    """Of skin and hair.

    Attributes:
        skin: float32 2x3, RGB in the photograph and in the drawing.
        skin_spread: float32 3, standard deviations in the photograph, of opponent colours.
        hair: float32 7xCxC by cells of the bust: a weight, times RGB in the photograph and in the drawing; the weight.
        hair_spread: as for skin.
    """

    skin: Floats
    skin_spread: Floats
    hair: Floats
    hair_spread: Floats


@dataclass(frozen=True)
class _Tinted:
    """What was done to a person's bust: good for as long as the same picture of it comes."""

    picture: Image | None
    colors: TintColors
    correction: Floats


def black_bars(image: Image) -> list[Image]:
    """The black rows and columns at a picture's edges (uint8 HxWx3), as views; none of a picture all black."""
    found = []
    for turned in (image, image[::-1], image.swapaxes(0, 1), image.swapaxes(0, 1)[::-1]):
        if turned[0].max() <= _BLACK:
            lit = turned.max(axis=(1, 2)) > _BLACK
            if lit.any():
                found.append(turned[: int(lit.argmax())])
    return found


class Tint(Effect):
    """Tints the surroundings of the drawings in one video."""

    def __init__(self) -> None:
        self._before: dict[int, _Tinted] = {}

    def reset(self) -> None:
        """Forget the frames before."""
        self._before = {}

    def state(self) -> dict[int, TintColors]:
        return {number: known.colors for number, known in self._before.items()}

    def restore(self, state: dict[int, TintColors]) -> None:
        nothing = np.zeros((TINT_SIDE, TINT_SIDE, 3), np.float32)
        self._before = {number: _Tinted(None, colors, nothing) for number, colors in state.items()}

    def frame(self, image: Image, faces: Sequence[FaceLayer]) -> None:
        people: list[tuple[Bust, Image, Mask]] = []
        for face in faces:
            assert face.bust is not None and face.drawing is not None and face.mask is not None
            if face.alignment.landmarks is not None:
                jaw = above_jaw(face.alignment.landmarks, face.drawing)
                face.mask = np.asarray(cv2.multiply(face.mask, jaw, scale=1 / 255), np.uint8)
            people.append((face.bust, face.drawing, face.mask))
        # Black bars have the colour of black hair, but are no part of the scene.
        bars = [(bar, bar.copy()) for bar in black_bars(image)]
        self.apply(image, *zip(*people))
        for bar, black in bars:
            bar[...] = black

    def apply(
        self, image: Image, busts: Sequence[Bust], drawings: Sequence[Image], masks: Sequence[Mask]
    ) -> None:
        """Tint the people in a frame, in place.

        Args:
            image: uint8 HxWx3 RGB; may be a view.
            busts: head and shoulders of each person. One without landmarks stays as it is.
            drawings: uint8 SxSx3, of their heads.
            masks: uint8 SxS, what of the drawings will be pasted.
        """
        before, self._before = self._before, {}
        for bust, drawing, mask in zip(busts, drawings, masks, strict=True):
            place = bust.alignment
            if place.landmarks is None:
                continue
            last = before.get(place.track_id)
            if last is None or last.picture is not bust.picture:
                matte = nearest_part(bust.matte, place, [b.alignment for b in busts if b is not bust])
                person = _Person(bust.picture, matte, place.landmarks, drawing, mask)
                colors = person.colors(bust.seconds)
                if last is not None and bust.seconds > last.colors.seconds:
                    colors = last.colors.towards(colors, TINT_SECONDS)
                elif last is not None and last.picture is None:
                    colors = last.colors  # of the same picture
                last = _Tinted(bust.picture, colors, person.correction(colors))
            self._before[place.track_id] = last
            _add(image, place, last.correction)


class _Person:
    """A person in a frame, in pixels of a small bust. Colours are planes, CxHxW."""

    def __init__(self, picture: Image, matte: Mask, landmarks: Points, drawing: Image, mask: Mask) -> None:
        self.points = in_pixels(landmarks, TINT_SIDE)
        self.height = face_height(self.points)
        self.rgb = planes(small(picture, TINT_SIDE))
        self.opponent = opponent(self.rgb)
        self.matte = small(matte, TINT_SIDE).astype(np.float32) / np.float32(255)
        self.head = bust_head(TINT_SIDE)
        side = self.head[0].stop - self.head[0].start
        self.drawing = planes(small(drawing, side))
        self.mask = small(mask, side)
        self._face = polygon(self._oval(0.97), TINT_SIDE)
        self.skin_place = self._skin_place()

    def _oval(self, factor: float) -> NDArray[np.float64]:
        return scaled(self.points[list(FACE_OVAL)], factor)

    def _skin_place(self) -> Floats:
        """How likely skin rather than hair is by place alone: face, neck, and the chest below it."""
        right, left = self.points[list(_JAW_CORNERS)]
        chin, h = self.points[CHIN, 1], self.height
        half = [
            [right[0], chin + 0.15 * h],
            [right[0] + 0.8 * h, chin + 0.6 * h],
            [right[0] + 0.8 * h, TINT_SIDE],
        ]
        other = [
            [left[0] - 0.8 * h, TINT_SIDE],
            [left[0] - 0.8 * h, chin + 0.6 * h],
            [left[0], chin + 0.15 * h],
        ]
        neck = np.array([right, *half, *other, left])
        place = cv2.bitwise_or(self._face, polygon(neck, TINT_SIDE))
        soft = cv2.GaussianBlur(place, (0, 0), 0.05 * h + 0.1).astype(np.float32)
        return np.float32(0.06) + np.float32(0.88 / 255) * soft

    def colors(self, seconds: float) -> TintColors:
        """Colours of skin and hair, in the photograph and in the drawing."""
        rgb, seen = (color[:, self.head[0], self.head[1]] for color in (self.rgb, self.opponent))
        eyes = self.points[list(EYES), 1].mean() - self.head[0].start
        is_skin = polygon(self._oval(0.8), TINT_SIDE)[self.head] > 127
        is_skin[: max(int(eyes + 0.05 * self.height), 0)] = False
        if not is_skin.any():
            is_skin[...] = True
        skin = np.stack([np.median(rgb[:, is_skin], axis=1), np.median(self.drawing[:, is_skin], axis=1)])
        skin_spread = np.clip(1.5 * seen[:, is_skin].std(axis=1), *_SKIN)
        # Around the face, down to the cheeks.
        is_hair = (polygon(self._oval(1.12), TINT_SIDE)[self.head] < 8) & (self.mask > 240)
        is_hair &= self.matte[self.head] > 0.9
        is_hair[max(int(eyes + 0.3 * self.height), 0) :] = False
        hair, hair_spread = np.zeros((7, TINT_SIDE // _CELL, TINT_SIDE // _CELL), np.float32), _HAIR[0]
        if np.count_nonzero(is_hair) >= LEAST_HAIR:
            # Once more without what is far from most of it: ears, background.
            middle = np.median(seen[:, is_hair], axis=1)
            hair_spread = spread(seen[:, is_hair], middle, _HAIR)
            weight = is_hair * likelihood(seen, middle[:, None, None], hair_spread)
            # A high forehead reaches beyond the oval, and hair may have been drawn as skin.
            like_skin = likelihood(seen, opponent(skin[0][:, None, None]), skin_spread)
            weight *= (1 - np.float32(0.9) * like_skin) * (1 - np.float32(0.9) * _bare(self.drawing, skin[1]))
            window = tuple(slice(pixels.start // _CELL, pixels.stop // _CELL) for pixels in self.head)
            values = np.concatenate([weight * rgb, weight * self.drawing, weight[None]])
            hair[:, window[0], window[1]] = [_by_cells(plane) for plane in values]
        return TintColors(seconds, skin, skin_spread, hair, hair_spread)

    def correction(self, colors: TintColors) -> Floats:
        """What to add to the photograph, float32 (TINT_SIDE, TINT_SIDE, 3)."""
        grey = self.opponent[0] / np.float32(255)
        near_skin, near_hair = self._near()
        photo, drawn = (color[:, None, None] for color in colors.skin)
        skin = likelihood(self.opponent, opponent(photo), colors.skin_spread) * self.skin_place
        hair, fields = np.zeros_like(skin), self._hair(colors.hair)
        if fields is not None:
            hair = likelihood(self.opponent, opponent(fields[0]), colors.hair_spread) * (1 - self.skin_place)
        neither = np.where(self._face > 127, _NEITHER / 8, _NEITHER)  # a beard is hair
        share = (1 + neither) * self.matte / (skin + hair + neither)
        skin = np.minimum(guided(skin * share * near_skin, grey), self.matte)
        added = skin * self._change(photo, drawn)
        if fields is not None:
            hair = guided(self._hanging(hair * share) * near_hair, grey)
            hair = np.minimum(np.minimum(hair, self.matte), 1 - skin)
            added += hair * self._change(*fields)
        return np.asarray(cv2.merge(list(added)), np.float32)

    def _hair(self, cells: Floats) -> tuple[Floats, Floats] | None:
        """RGB of the hair around each pixel (3xHxW), in the photograph and in the drawing; None: there is none."""
        if cells[6].sum() * _CELL**2 < LEAST_HAIR / 2:
            return None
        sigma = 0.2 * self.height / _CELL + 0.1
        sums = np.stack([cv2.GaussianBlur(plane, (0, 0), sigma) for plane in cells])
        # Where there is no hair near, that of the whole head.
        sums += np.float32(0.02) * cells.mean(axis=(1, 2), keepdims=True)
        mean = sums[:6] / np.maximum(sums[6], np.float32(1e-6))
        full = np.stack([cv2.resize(plane, (TINT_SIDE, TINT_SIDE)) for plane in mean])
        return full[:3], full[3:]

    def _change(self, photo: Floats, drawn: Floats) -> Floats:
        """What takes the photograph's mean to the drawing's (3xHxW or 3x1x1). Contrast grows with brightness, within
        bounds; of differences in colour half is left, as drawings are flat.
        """
        before, after = opponent(photo)[0], opponent(drawn)[0]
        contrast: Floats = np.clip(
            after / np.maximum(before, np.float32(1)), np.float32(0.8), np.float32(1.2)
        )
        half = np.float32(0.5)
        return drawn - half * (photo + self.rgb) + (contrast - half) * (self.opponent[0] - before)

    def _near(self) -> tuple[Floats, Floats]:
        """How far from the head skin and hair are tinted, fading."""
        x, y = coordinates(TINT_SIDE, 0, TINT_SIDE - 1)
        middle = self._oval(1.0).mean(axis=0).astype(np.float32)
        across, down = ((x - middle[0]) / np.float32(self.height), (y - middle[1]) / np.float32(self.height))
        down *= np.float32(0.85)
        skin = smoothstep((np.float32(1.35) - np.hypot(across, down)) / 0.5)
        # Hair hangs further down than it stands out; beside the face, what is far is somebody else's.
        hair = smoothstep((np.float32(2.0) - np.hypot(np.float32(1.5) * across, down)) / 0.6)
        beside = self.points[list(_JAW_CORNERS), 1].mean()
        hair[: max(int(beside), 0)] *= smoothstep((1.1 - np.abs(across[0])) / 0.3)
        return skin * _border(), hair * _border()

    def _hanging(self, hair: Floats) -> Floats:
        """Hair below the jaw hangs from hair above it; else a dark shirt would be taken for some."""
        rows = _by_cells(hair)
        jaw = self.points[list(_JAW_CORNERS), 1].mean() / _CELL
        for row in range(max(int(jaw), 1), len(rows)):
            above = rows[row - 1]
            reach = above.copy()
            np.maximum(reach[1:], above[:-1], out=reach[1:])
            np.maximum(reach[:-1], above[1:], out=reach[:-1])
            np.minimum(rows[row], reach, out=rows[row])
        return np.minimum(
            hair, cv2.resize(cv2.dilate(rows, np.ones((3, 3), np.uint8)), (TINT_SIDE, TINT_SIDE))
        )


def _by_cells(plane: Floats) -> Floats:
    cells = plane.shape[0] // _CELL
    return np.asarray(cv2.resize(plane, (cells, cells), interpolation=cv2.INTER_AREA), np.float32)


def _bare(drawing: Floats, skin: Floats) -> Floats:
    """How much a drawing (3xHxW) is like its skin (RGB), 0..1."""
    spread = np.array([45.0, 14.0, 14.0], np.float32)
    return likelihood(opponent(drawing), opponent(skin[:, None, None]), spread)


def _add(image: Image, place: Alignment, correction: Floats) -> None:
    """Add a correction (SxSx3) to a frame, in place, where its bust lies."""
    side = correction.shape[0]
    matrix = place.crop_to_frame(side)
    strength = cv2.transform(np.abs(correction), np.ones((1, 3), np.float32))
    x, y, width, height = cv2.boundingRect((strength >= 1).astype(np.uint8))
    corners = np.array(
        [[x - 1, x + width, x + width, x - 1], [y - 1, y - 1, y + height, y + height], [1] * 4]
    )
    points = matrix @ corners
    low, high = np.floor(points.min(axis=1)), np.ceil(points.max(axis=1)) + 1
    left, top = max(int(low[0]), 0), max(int(low[1]), 0)
    right, bottom = min(int(high[0]), image.shape[1]), min(int(high[1]), image.shape[0])
    if width == 0 or left >= right or top >= bottom:
        return
    # Turned at its own resolution, then enlarged: many times faster than both at once.
    coarse = max(int(256 * place.scale / side), 1)
    shape = math.ceil((right - left) / coarse), math.ceil((bottom - top) / coarse)
    matrix[:, 2] -= (left, top)
    matrix /= coarse
    matrix[:, 2] += 0.5 / coarse - 0.5
    turned = cv2.warpAffine(correction * np.float32(min(max(place.opacity, 0.0), 1.0)), matrix, shape)
    change = cv2.resize(np.rint(turned).astype(np.int16), (shape[0] * coarse, shape[1] * coarse))
    part = image[top:bottom, left:right]
    cv2.add(part, change[: bottom - top, : right - left], dst=part, dtype=cv2.CV_8U)


@lru_cache(maxsize=1)
def _border() -> Floats:
    """0 at the border of the bust, 1 within."""
    x, y = coordinates(TINT_SIDE, 0, TINT_SIDE - 1)
    # Much hair reaches up there.
    edge: Floats = np.minimum(
        np.minimum(x, TINT_SIDE - 1 - x), np.minimum(np.float32(2.5) * y, TINT_SIDE - 1 - y)
    )
    return smoothstep(edge * np.float32(10 / TINT_SIDE))
