"""People drawn with plain shapes, for tests of what is pasted where: a photograph of one, and a drawing of the head."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from gnr_video.frame import Alignment, Bust, Image
from gnr_video.tracking.alignment import bust, crop_face, head_side, widened
from gnr_video.tracking.face_mesh import CHIN, EYES, FACE_OVAL, FOREHEAD, LIPS

SKIN, HAIR, SHIRT, WALL = (205, 150, 120), (60, 40, 30), (40, 90, 160), (170, 175, 165)
NEW_SKIN, NEW_HAIR, COLLAR = (250, 225, 205), (130, 80, 190), (220, 40, 90)


def oval_landmarks(dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """478 points whose face oval is an ellipse around (128, 130) in the 256 crop, with eyes and lips within."""
    points = np.full((478, 2), 128.0, np.float32)
    turn = np.arange(len(FACE_OVAL)) * 2 * np.pi / len(FACE_OVAL)
    points[list(FACE_OVAL)] = np.stack([128 + 75 * np.sin(turn), 130 - 100 * np.cos(turn)], axis=1)
    points[list(EYES)] = (92, 92), (164, 92)
    turn = np.arange(len(LIPS)) * 2 * np.pi / len(LIPS)
    points[list(LIPS)] = np.stack([128 - 22 * np.cos(turn), 180 + 8 * np.sin(turn)], axis=1)
    assert (points[[FOREHEAD, CHIN], 1] == (30, 230)).all()
    return points + np.array([dx, dy], np.float32)


@dataclass(frozen=True)
class Person:
    """A frame with one person, the alignment of the head's crop, its drawing, and the bust."""

    frame: Image
    head: Alignment
    drawing: Image
    bust: Bust


def person(alignment: Alignment, shape: tuple[int, int] = (480, 640), *, long_hair: bool = True) -> Person:
    """Somebody whose face's crop lies at `alignment` (its landmarks are filled in).

    The drawing has another skin, other hair, and a collar from just above the chin downwards.
    """
    points = oval_landmarks()
    face = replace(alignment, landmarks=points)
    head = widened(face)
    frame = np.full((*shape, 3), WALL, np.uint8)
    body = np.zeros(shape, np.uint8)
    matrix = face.crop_to_frame()

    def fill(canvas: np.ndarray, color: object, *outline: tuple[float, float]) -> None:
        placed = np.array([(*point, 1) for point in outline]) @ matrix.T
        cv2.fillPoly(canvas, [np.round(placed * 16).astype(np.int32)], color, cv2.LINE_AA, 4)

    hair = [(128 + 105 * np.sin(t), 120 - 125 * np.cos(t)) for t in np.linspace(0, 2 * np.pi, 60)]
    locks = [(25, 110), (60, 110), (60, 320), (25, 320)], [(196, 110), (231, 110), (231, 320), (196, 320)]
    shoulders = [(-60, 330), (90, 270), (166, 270), (316, 330), (330, 600), (-80, 600)]
    neck = [(90, 200), (166, 200), (166, 290), (90, 290)]
    shapes = [(HAIR, hair), (SHIRT, shoulders), (SKIN, neck)]
    shapes += [(HAIR, lock) for lock in locks] if long_hair else []
    for color, outline in (*shapes, (SKIN, [tuple(p) for p in points[list(FACE_OVAL)]])):
        fill(frame, color, *outline)
        fill(body, 255, *outline)
    noise = np.random.default_rng(0).normal(0, 3, frame.shape)
    frame = np.clip(frame + noise, 0, 255).astype(np.uint8)
    place = bust(head)
    matte = crop_face(np.dstack([body] * 3), place)[..., 0]
    return Person(frame, head, _drawing(points), Bust(place, crop_face(frame, place), matte, 0.0))


def _drawing(points: np.ndarray) -> Image:
    size = head_side(256)
    drawing = np.full((size, size, 3), NEW_HAIR, np.uint8)
    # Pixels of the head's crop: 32 more on each side, 24 of them moved to the top.
    face = points[list(FACE_OVAL)] + (32, 32 + 24)
    drawing[int(face[:, 1].max()) - 12 :] = COLLAR
    narrow = (face - face.mean(0)) * (0.94, 0.96) + face.mean(0)
    cv2.fillPoly(drawing, [np.round(narrow).astype(np.int32)], NEW_SKIN, cv2.LINE_AA)
    cv2.polylines(drawing, [np.round(narrow).astype(np.int32)], True, (40, 30, 30), 3, cv2.LINE_AA)
    return drawing
