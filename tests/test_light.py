"""Light: drawings take on the scene's, steadily, and dark skin is no dark room. Device: CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gnr_video.effects.light import DARKEST, LIGHT_SECONDS, LightEffect, light_on, lit
from gnr_video.frame import Alignment, FaceLayer, Image
from gnr_video.tracking.face_mesh import FACE_OVAL, in_pixels, polygon
from tests.drawn_people import person

HERE = Alignment(0, 320.0, 200.0, 1.0, 0.0)
ROOM = person(HERE)
POINTS = ROOM.bust.alignment.landmarks
DRAWING = np.full((64, 64, 3), 200, np.uint8)


def crop() -> Image:
    """A face of even light before an even wall, 128x128."""
    image = np.full((128, 128, 3), 190, np.uint8)
    assert POINTS is not None
    oval = polygon(in_pixels(POINTS, 128)[list(FACE_OVAL)], 128) > 127
    image[oval] = (190, 150, 130)
    return image


def under(image: Image, gain: np.ndarray | float) -> Image:
    return np.clip(image * np.asarray(gain), 0, 255).astype(np.uint8)


def drawn(image: Image) -> np.ndarray:
    assert POINTS is not None
    return lit(DRAWING, light_on(image, POINTS, 0.0)).astype(float)


def test_usual_light_leaves_drawings_as_they_are() -> None:
    np.testing.assert_allclose(drawn(crop()), 200, atol=8)


def test_in_the_dark_drawings_are_dark() -> None:
    levels = [drawn(under(crop(), gain)).mean() for gain in (1.0, 0.8, 0.6, 0.2, 0.05)]
    assert levels == sorted(levels, reverse=True)
    assert levels[2] < 160
    assert levels[-1] == pytest.approx(200 * DARKEST, abs=6), "but never black"


def test_dark_skin_in_a_bright_room_is_no_dark_room() -> None:
    image = crop()
    assert POINTS is not None
    oval = polygon(in_pixels(POINTS, 128)[list(FACE_OVAL)], 128) > 127
    image[oval] = (90, 60, 45)
    assert drawn(image).mean() > 1.3 * drawn(under(crop(), 0.4)).mean()


@pytest.mark.parametrize(("color", "more", "less"), [((1.0, 0.7, 0.4), 0, 2), ((0.6, 0.8, 1.0), 2, 0)])
def test_colored_light(color: tuple[float, ...], more: int, less: int) -> None:
    picture = drawn(under(crop(), np.array(color))).mean((0, 1))
    assert picture[more] > 1.1 * picture[less]


def test_light_from_one_side() -> None:
    ramp = np.linspace(1.3, 0.3, 128)[None, :, None]
    picture = drawn(under(crop(), ramp))
    left, right = picture[24:40, 20:26].mean(), picture[24:40, 38:44].mean()
    assert left > 1.1 * right


def layer(image: Image, seconds: float, drawing: Image = DRAWING) -> FaceLayer:
    return FaceLayer(replace(HERE, landmarks=POINTS), 0, seconds, crop=image, drawing=drawing)


@pytest.mark.parametrize("fps", [15, 60])
def test_it_settles_by_seconds(fps: int) -> None:
    effect = LightEffect()
    for i in range(fps):
        effect.face([layer(crop(), i / fps)])
    after = []
    for i in range(fps):
        face = layer(under(crop(), 0.4), 1 + i / fps)
        effect.face([face])
        assert face.drawing is not None
        after.append(face.drawing.mean())
    end, start = drawn(under(crop(), 0.4)).mean(), drawn(crop()).mean()
    share = (start - after[round(LIGHT_SECONDS * fps) - 1]) / (start - end)
    assert share == pytest.approx(1 - 1 / np.e, abs=0.03)
    assert np.abs(np.diff(after)).max() < 6 * 60 / fps


def test_a_drawing_that_is_held_is_not_lit_twice() -> None:
    effect, drawing = LightEffect(), DRAWING.copy()
    dark = under(crop(), 0.3)
    pictures = []
    for i in range(3):
        face = layer(dark, i / 30, drawing)
        effect.face([face])
        pictures.append(face.drawing)
    assert (drawing == 200).all()
    np.testing.assert_array_equal(pictures[0], pictures[2])


def test_a_face_that_is_not_seen_keeps_its_light() -> None:
    effect = LightEffect()
    effect.face([layer(under(crop(), 0.3), 0.0)])
    lost = replace_landmarks(layer(crop(), 0.1))
    effect.face([lost])
    assert lost.drawing is not None
    assert lost.drawing.mean() < 150
    effect.reset()
    new = replace_landmarks(layer(crop(), 0.2))
    effect.face([new])
    np.testing.assert_array_equal(new.drawing, DRAWING)


def replace_landmarks(face: FaceLayer) -> FaceLayer:
    face.alignment = replace(face.alignment, landmarks=None)
    return face
