"""Light: a drawing takes on the exposure, the colour temperature and the large-scale shade of the face that it covers.

Exposure is read off the face and off what is brightest around it, so that dark skin in a bright room is no dark room.
The light's colour is estimated over what is around the face (shades of grey, Finlayson and Trezzi 2004). Shade falls
in soft steps, as on painted cels, never as the photograph's gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from gnr_video.effects.base import Effect
from gnr_video.effects.skin_and_hair import Colors, Floats, coordinates, planes, small
from gnr_video.frame import FaceLayer, Image, Points
from gnr_video.tracking.face_mesh import FACE_OVAL, in_pixels, polygon, scaled, smoothstep

LIGHT_SIDE = 64
"""Of the crop that light is read off, pixels: it changes slowly from place to place."""
LIGHT_SECONDS = 0.4
"""Time constant of the light: slow enough for noise and gestures, quick enough for a lamp."""

USUAL = 0.6
"""Brightness, 0..1, of a well-lit face and what is around it; drawings are painted for that."""
DARKEST = 0.5
"""The network draws dark pictures darker by itself."""
CAST_POWER, CAST_SHARE = 6, 0.6
"""Minkowski's norm of the estimate; drawings keep much of their own colours."""
CAST_BOUNDS = (0.8, 1.2)
SHADOW, LIT = 0.85, 1.15
"""Brightness, in that of the whole face, at which a step is half-way."""
SHADOW_TONE, LIT_TONE = 0.78, 1.05
STEP = 0.16
"""Width of a step, likewise."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Light(Colors):
    """The light on a face.

    Attributes:
        level: float32 3, what a drawing's RGB is multiplied by.
        shade: float32 (LIGHT_SIDE, LIGHT_SIDE), brightness from place to place in that of the whole face.
    """

    level: Floats
    shade: Floats


class LightEffect(Effect):
    """Lights the drawings in one video."""

    def __init__(self) -> None:
        self._lights: dict[int, Light] = {}

    def reset(self) -> None:
        self._lights = {}

    def state(self) -> dict[int, Light]:
        return dict(self._lights)

    def restore(self, state: dict[int, Light]) -> None:
        self._lights = state

    def face(self, faces: Sequence[FaceLayer]) -> None:
        before, self._lights = self._lights, {}
        for face in faces:
            track = face.alignment.track_id
            last = self._lights.get(track, before.get(track))  # a grid has many drawings of one face
            if face.crop is not None and face.alignment.landmarks is not None:
                found = light_on(face.crop, face.alignment.landmarks, face.seconds)
                is_later = last is not None and found.seconds > last.seconds
                last = last.towards(found, LIGHT_SECONDS) if last is not None and is_later else last or found
            if last is None or face.drawing is None:
                continue
            self._lights[track] = last
            face.drawing = lit(face.drawing, last)


def light_on(crop: Image, landmarks: Points, seconds: float) -> Light:
    """The light on a face.

    Args:
        crop: uint8 SxSx3 RGB, the face or its whole head.
        landmarks: float32 Nx2, as `Alignment.landmarks` of that crop.
        seconds: the time.
    """
    rgb = planes(small(crop, LIGHT_SIDE)) / np.float32(255)
    luma = np.tensordot(_LUMA, rgb, 1).astype(np.float32)
    oval = in_pixels(landmarks, LIGHT_SIDE)[list(FACE_OVAL)]
    skin = polygon(scaled(oval, 0.9), LIGHT_SIDE).astype(np.float32) / np.float32(255)
    area = max(float(skin.sum()), 1.0)
    face = max(float((luma * skin).sum()) / area, 0.02)
    exposure = min(max((face + float(np.percentile(luma, 95))) / 2 / USUAL, DARKEST), 1.0)
    around = 1 - np.float32(0.9) * skin  # skin is warm in any light
    mean = (np.power(rgb, CAST_POWER) * around).sum(axis=(1, 2)) / around.sum()
    cast = np.power(mean + 1e-6, 1 / CAST_POWER)
    cast = np.clip(1 + CAST_SHARE * (cast / float(_LUMA @ cast) - 1), *CAST_BOUNDS)
    # Of a face's own features a plane knows nothing, beards and brows included.
    x, y = coordinates(LIGHT_SIDE, -1, 1)
    terms = np.stack([np.ones_like(x), x, y]).reshape(3, -1)
    weighted = terms * skin.reshape(-1)
    plane = np.linalg.solve(weighted @ terms.T + np.eye(3), weighted @ (luma / face).reshape(-1))
    shade = (plane @ terms).reshape(LIGHT_SIDE, LIGHT_SIDE)
    return Light(seconds, (exposure * cast).astype(np.float32), np.asarray(shade, np.float32))


def lit(drawing: Image, light: Light) -> Image:
    """A drawing under a light: uint8 SxSx3, another array."""
    shade = cv2.resize(light.shade, drawing.shape[:2][::-1], interpolation=cv2.INTER_CUBIC)
    tone = 1 - np.float32(1 - SHADOW_TONE) * smoothstep((SHADOW - shade) / STEP + 0.5)
    tone += np.float32(LIT_TONE - 1) * smoothstep((shade - LIT) / STEP + 0.5)
    factor = cv2.merge([tone * level for level in light.level])
    return np.asarray(cv2.multiply(drawing, factor, dtype=cv2.CV_8U), np.uint8)
