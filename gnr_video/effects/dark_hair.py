"""Light hair is darkened in the crops that the network is given: it draws dark hair in one piece, light hair in blots.

What colour hair is drawn in is the style's, so nothing is lost. Hair is told from skin by colour and place, both
measured on the person in the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from gnr_video.compositing.masks import guided
from gnr_video.effects.base import Effect
from gnr_video.effects.skin_and_hair import (
    LEAST_HAIR,
    Colors,
    Floats,
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

HAIR_SIDE = 80
"""Of the crop that is worked on, pixels."""
DARK = 55.0
"""Brightness that hair is brought to; hair that is darker stays as it is."""
EVENNESS = 0.4
"""How much of its contrast hair loses, from 0 to 1: highlights are drawn as holes in it."""
LEAST = 0.2
"""What pixels are multiplied by at least."""
HAIR_SECONDS = 0.5
"""Time constant of a person's colours."""
BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
"""MediaPipe's landmarks of their upper edges."""

# Least and greatest standard deviations of opponent colours.
_SKIN = np.array([[30.0, 6.0, 6.0], [50.0, 12.0, 12.0]], np.float32)
_HAIR = np.array([[25.0, 6.0, 6.0], [50.0, 14.0, 14.0]], np.float32)
_NEITHER = np.float32(0.05)
_AT_LEAST = np.float32(0.4)
"""Likelihood of hair's colours at least: highlights and shadows are far from its middle."""


@dataclass(frozen=True)
class HairColors(Colors):
    """Of skin and hair.

    Attributes:
        skin, hair: float32 3, medians of opponent colours.
        skin_spread, hair_spread: float32 3, standard deviations.
        is_there: float32 1, whether there is hair that can be told from skin, 0..1.
    """

    skin: Floats
    skin_spread: Floats
    hair: Floats
    hair_spread: Floats
    is_there: Floats


class DarkHair(Effect):
    """Darkens hair in the crops of one video."""

    stage = "cut"

    def __init__(self) -> None:
        self._before: dict[int, HairColors] = {}

    def reset(self) -> None:
        """Forget the frames before."""
        self._before = {}

    def state(self) -> dict[int, HairColors]:
        return dict(self._before)

    def restore(self, state: dict[int, HairColors]) -> None:
        self._before = state

    def before(self, faces: Sequence[FaceLayer]) -> None:
        layers = [(face, face.shown, face.bust) for face in faces]
        heads = [
            (face, shown, bust) for face, shown, bust in layers if shown is not None and bust is not None
        ]
        shown = self.apply([s for _, s, _ in heads], [f.alignment for f, *_ in heads], [b for *_, b in heads])
        for (face, *_), crop in zip(heads, shown, strict=True):
            face.shown = crop

    def apply(self, crops: Sequence[Image], heads: Sequence[Alignment], busts: Sequence[Bust]) -> list[Image]:
        """The crops of the heads in one frame, with dark hair.

        Args:
            crops: uint8 SxSx3 RGB, of whole heads.
            heads: where they lie, in the same order. One without landmarks stays as it is.
            busts: likewise.

        Returns:
            uint8 SxSx3; the crop itself where there is nothing to darken.
        """
        before, self._before = self._before, {}
        made = []
        for crop, place, bust in zip(crops, heads, busts, strict=True):
            if place.landmarks is None:
                made.append(crop)
                continue
            matte = nearest_part(bust.matte, bust.alignment, [b.alignment for b in busts if b is not bust])
            head = _Head(crop, matte[bust_head(matte.shape[0])], place.landmarks)
            colors = before.get(place.track_id)
            if colors is None or bust.seconds != colors.seconds:
                measured = head.colors(bust.seconds)
                if measured and colors and measured.seconds > colors.seconds:
                    measured = colors.towards(measured, HAIR_SECONDS)
                colors = measured or colors
            if colors is not None:
                self._before[place.track_id] = colors
                crop = head.darkened(colors)
            made.append(crop)
        return made


class _Head:
    """A head in a frame, in pixels of a small crop. Colours are planes, CxHxW."""

    def __init__(self, crop: Image, matte: Mask, landmarks: Points) -> None:
        self.crop = crop
        self.points = in_pixels(landmarks, HAIR_SIDE)
        self.opponent = opponent(planes(small(crop, HAIR_SIDE)))
        self.matte = cv2.resize(matte, (HAIR_SIDE, HAIR_SIDE)).astype(np.float32) / np.float32(255)
        self.height = face_height(self.points)
        self.eyes = float(self.points[list(EYES), 1].mean())

    def _oval(self, factor: float) -> Mask:
        return polygon(scaled(self.points[list(FACE_OVAL)], factor), HAIR_SIDE)

    def colors(self, seconds: float) -> HairColors | None:
        """Colours of skin and hair; None where little of either is seen."""
        is_skin = self._oval(0.8) > 127
        is_skin[: max(int(self.eyes + 0.05 * self.height), 0)] = False
        is_hair = (self._oval(1.12) < 8) & (self.matte > 0.9)
        is_hair[max(int(self.eyes + 0.3 * self.height), 0) :] = False
        if not is_skin.any() or np.count_nonzero(is_hair) < LEAST_HAIR:
            return None
        on_skin, on_hair = self.opponent[:, is_skin], self.opponent[:, is_hair]
        skin, hair = np.median(on_skin, axis=1), np.median(on_hair, axis=1)
        skin_spread, hair_spread = spread(on_skin, skin, _SKIN), spread(on_hair, hair, _HAIR)
        # A bald head is skin above the face too.
        apart = np.linalg.norm((hair - skin) / skin_spread)
        is_there = smoothstep(np.array([(apart - 0.8) / 0.8], np.float32))
        return HairColors(seconds, skin, skin_spread, hair, hair_spread, is_there)

    def _place(self) -> Floats:
        """How likely hair rather than skin is by place alone; nothing from the brows down to the chin."""
        h = self.height
        x = np.arange(HAIR_SIDE, dtype=np.float32)
        face = self._oval(1.0).astype(np.float32) / np.float32(255)
        likely = np.float32(0.85) - np.float32(0.7) * cv2.GaussianBlur(face, (0, 0), 0.05 * h + 0.1)
        brows = self.points[list(BROWS), 1].min() - 0.02 * h
        below = smoothstep((x[:, None] - np.float32(brows - 0.06 * h)) / np.float32(0.06 * h))
        inner = self._oval(1.03).astype(np.float32) / np.float32(255)
        likely *= 1 - below * cv2.GaussianBlur(inner, (0, 0), 0.015 * h + 0.1)
        # Neck and shoulders are neither.
        chin = self.points[CHIN, 1]
        likely *= 1 - smoothstep((x[:, None] - np.float32(chin - 0.1 * h)) / np.float32(0.2 * h))
        return likely

    def _likelihood(self, middle: Floats, spread: Floats) -> Floats:
        """As of `likelihood`, but what is brighter may shine."""
        away = self.opponent - middle[:, None, None]
        away[0] = np.where(away[0] > 0, np.float32(0.5) * away[0], away[0])
        return likelihood(away, np.zeros((3, 1, 1), np.float32), spread)

    def darkened(self, colors: HairColors) -> Image:
        """The crop with hair of brightness `DARK`."""
        light = float(colors.hair[0])
        if colors.is_there[0] == 0 or light <= DARK:
            return self.crop
        skin, hair = (
            self._likelihood(colors.skin, colors.skin_spread),
            self._likelihood(colors.hair, colors.hair_spread),
        )
        hair = np.maximum(hair, _AT_LEAST * (1 - skin))
        place = self._place()
        hair = hair * place
        grey = self.opponent[0]
        weight = hair * self.matte * colors.is_there[0] / (hair + skin * (1 - place) + _NEITHER)
        weight = guided(weight, grey / np.float32(255))
        evenness = np.float32(EVENNESS * min(light / DARK - 1, 1))
        dark = np.float32(DARK / light) * np.power(np.maximum(grey, 1) / np.float32(light), -evenness)
        gain = 1 - weight * (1 - np.clip(dark, LEAST, 1))
        side = self.crop.shape[0]
        full = cv2.resize(np.rint(255 * gain).astype(np.uint8), (side, side))
        return np.asarray(cv2.multiply(self.crop, cv2.merge([full] * 3), scale=1 / 255), np.uint8)
