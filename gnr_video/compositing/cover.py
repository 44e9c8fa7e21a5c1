"""Covers: what stands in a picture where a face must not be seen and there is no drawing of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from gnr_video.frame import Alignment, Alpha, Cover, FaceLayer, Image, Layered
from gnr_video.tracking.alignment import CROP, narrowed
from gnr_video.tracking.face_mesh import FACE_OVAL, Mask, in_pixels, polygon, scaled
from gnr_video.tracking.heads import DROP, HIGH, WIDE

HAIR, SKIN = (92, 98, 112), (214, 216, 222)
"""RGB of a cover of which nobody knows how the person was drawn."""
BLURRED_SIDE = 20
"""Longer side of the picture that a blurred one is made of, pixels."""
LEAST, LEAST_HELD = 0.88, 1.12
"""What of a drawing is pasted whatever the matte says, in face ovals: of a face that is seen, and of one that is
not."""

RGB = tuple[int, int, int]


def draw_covers(image: Image, covers: Sequence[Cover]) -> None:
    """Draw covers into a picture (uint8 HxWx3 RGB), in place: a whole head each, with closed eyes."""
    for cover in covers:
        hair, skin = cover.colors or (HAIR, SKIN)
        dark = tuple(value // 3 for value in hair)
        place, line = cover.alignment, max(round(3 * cover.alignment.scale), 1)
        whole = _ellipse(place, 128, 128 - DROP, WIDE, HIGH)
        face = _ellipse(place, 128, 142, 76, 88)
        for outline, fill in ((whole, hair), (face, skin)):
            cv2.fillPoly(image, [outline], fill, cv2.LINE_AA, _SHIFT)
            cv2.polylines(image, [outline], True, dark, line, cv2.LINE_AA, _SHIFT)
        for x in (92, 164):
            lid = _ellipse(place, x, 128, 20, 10)
            cv2.polylines(image, [lid[: len(lid) // 2]], False, dark, line, cv2.LINE_AA, _SHIFT)


def opaque_under(alpha: Alpha | None, covers: Sequence[Cover]) -> Alpha | None:
    """Transparency with nothing transparent where covers are."""
    if alpha is None or not covers:
        return alpha
    alpha = alpha.copy()
    for cover in covers:
        cv2.fillPoly(
            alpha, [_ellipse(cover.alignment, 128, 128 - DROP, WIDE, HIGH)], 255, cv2.LINE_AA, _SHIFT
        )
    return alpha


def blurred_whole(image: Image) -> Image:
    """A picture (uint8 HxWx3) out of which nobody can be told: some colours, another array."""
    height, width = image.shape[:2]
    zoom = min(BLURRED_SIDE / max(height, width), 1.0)
    size = max(round(width * zoom), 2), max(round(height * zoom), 2)
    small = cv2.GaussianBlur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (0, 0), 1.5)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def hidden(source: Image, item: Layered) -> Image:
    """The picture that a frame was before its faces were drawn, with a cover over each head: another array.

    Args:
        source: uint8 HxWx3 RGB.
        item: the frame, as it comes to be composed or later.
    """
    if item.blurred:
        return blurred_whole(source)
    source = source.copy()
    draw_covers(source, [*(cover_of(face) for face in item.faces), *item.covers])
    return source


def cover_of(face: FaceLayer, why: str = "") -> Cover:
    """A cover for the head of a face, which may have been cut out."""
    return Cover(face.alignment if face.bust is None else narrowed(face.alignment), why)


def finish(drawn: Image | None, before: Image | None, source: Image, item: Layered) -> None:
    """Cover, in place, what is left to cover of a frame that was composed.

    Args:
        drawn: where the whole frame is shown drawn, uint8 HxWx3 RGB; None where it is not shown.
        before: where it is shown as it was, likewise.
        source: as it was.
        item: the frame.
    """
    if drawn is not None:
        if item.blurred:
            drawn[...] = blurred_whole(drawn)
        draw_covers(drawn, item.covers)
    if before is not None:
        before[...] = hidden(source, item)


def least_mask(face: FaceLayer) -> Mask | None:
    """What of a face's drawing is pasted at least: where its features are; None without landmarks."""
    landmarks, drawing = face.alignment.landmarks, face.drawing
    if landmarks is None or drawing is None or len(landmarks) <= max(FACE_OVAL):
        return None
    side = drawing.shape[0]
    outline = scaled(in_pixels(landmarks, side)[list(FACE_OVAL)], LEAST_HELD if face.held else LEAST)
    mask = polygon(np.clip(outline, -side, 2 * side), side)
    soft = np.asarray(cv2.blur(mask, (5, 5)), np.uint8)
    soft[[0, -1]] = 0
    soft[:, [0, -1]] = 0
    return soft


def colors_of(drawing: Image) -> tuple[RGB, RGB]:
    """RGB of the hair and the skin of a drawing (uint8 SxSx3)."""
    side = drawing.shape[0]
    top = drawing[round(0.06 * side) : round(0.2 * side), round(0.35 * side) : round(0.65 * side)]
    cheek = drawing[round(0.5 * side) : round(0.65 * side), round(0.3 * side) : round(0.7 * side)]
    hair, skin = (np.median(part.reshape(-1, 3), axis=0).astype(int) for part in (top, cheek))
    return (int(hair[0]), int(hair[1]), int(hair[2])), (int(skin[0]), int(skin[1]), int(skin[2]))


@lru_cache(maxsize=4)
def covered_picture(size: tuple[int, int]) -> Image:
    """A picture that shows nothing of the camera's, uint8 HxWx3 RGB of (width, height) `size`; not to be changed."""
    width, height = size
    picture = np.full((height, width, 3), (40, 44, 52), np.uint8)
    draw_covers(picture, [Cover(Alignment(0, width / 2, height / 2, min(width, height) / 420, 0.0), "")])
    picture.setflags(write=False)
    return picture


_SHIFT = 4


def _ellipse(place: Alignment, x: float, y: float, wide: float, high: float) -> NDArray[np.int32]:
    """An ellipse of a face's 256 crop in the frame, in sixteenths of a pixel, from its right end downwards."""
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    points = np.stack([x + wide * np.cos(turn), y + high * np.sin(turn), np.ones(64)])
    placed = (place.crop_to_frame(CROP) @ points).T
    return np.asarray(np.round(np.clip(placed, -1e5, 1e5) * 2**_SHIFT), np.int32)[:, None]
