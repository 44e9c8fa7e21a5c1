"""Tint: neck and long hair take on the drawing's colours, nothing else does, and nothing flickers. Device: CPU."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnr_video.compositing.compositor import Compositor
from gnr_video.effects.tint import TINT_SECONDS, Tint, black_bars
from gnr_video.frame import Alignment, Bust
from gnr_video.tracking.alignment import bust, crop_face
from gnr_video.tracking.face_mesh import Mask
from tests.drawn_people import HAIR, NEW_HAIR, NEW_SKIN, SHIRT, SKIN, WALL, Person, person
from tests.layers import layers

HERE = Alignment(0, 320.0, 200.0, 1.0, 0.0)


def whole(one: Person) -> Mask:
    return np.full(one.drawing.shape[:2], 255, np.uint8)


def tinted(one: Person, tint: Tint | None = None) -> np.ndarray:
    out = one.frame.copy()
    (tint or Tint()).apply(out, [one.bust], [one.drawing], [whole(one)])
    return out


def at(frame: np.ndarray, place: Alignment, x: float, y: float, radius: int = 3) -> np.ndarray:
    """Mean colour around a point of the face's 256 crop."""
    u, v = place.crop_to_frame() @ (x, y, 1)
    part = frame[round(v) - radius : round(v) + radius + 1, round(u) - radius : round(u) + radius + 1]
    return np.asarray(part.reshape(-1, 3).mean(axis=0))


@pytest.mark.parametrize(
    "place", [HERE, Alignment(0, 330.0, 210.0, 0.8, 0.3), Alignment(0, 300.0, 180.0, 0.5, -0.5)]
)
def test_neck_and_hair_take_on_the_drawings_colors(place):
    one = person(place)
    out = tinted(one)
    np.testing.assert_allclose(at(one.frame, place, 128, 255), SKIN, atol=4)
    np.testing.assert_allclose(at(out, place, 128, 255), NEW_SKIN, atol=8)
    for x in (43, 213):
        np.testing.assert_allclose(at(one.frame, place, x, 240), HAIR, atol=4)
        np.testing.assert_allclose(at(out, place, x, 240), NEW_HAIR, atol=14)
    for x, y, color in ((60, 345, SHIRT), (-20, 60, WALL), (280, 200, WALL)):
        np.testing.assert_allclose(at(out, place, x, y), at(one.frame, place, x, y), atol=1.5)
        np.testing.assert_allclose(at(out, place, x, y), color, atol=4)


def test_shading_stays():
    one = person(HERE)
    shade = np.zeros(one.frame.shape[:2], np.float32)
    shade[325:335] = 25  # under the chin
    frame = np.clip(one.frame - shade[..., None], 0, 255).astype(np.uint8)
    out = frame.copy()
    Tint().apply(out, [one.bust], [one.drawing], [whole(one)])
    step = out[340, 300:340].mean() - out[330, 300:340].mean()
    assert step == pytest.approx(25, abs=3)


def test_hair_is_seamless_where_its_color_changes_from_side_to_side():
    """Lit from the left: the drawing's hair is one colour, so the tinted hair is nearly one."""
    one = person(HERE)
    lit = np.array([30.0, 18.0, 8.0]) * np.linspace(1, 0, 640)[None, :, None]
    is_hair = (np.abs(one.frame.astype(int) - HAIR).max(axis=2) < 25)[..., None]
    frame = np.clip(one.frame + lit * is_hair * 2, 0, 255).astype(np.uint8)
    lit_one = replace(one, frame=frame, bust=replace(one.bust, picture=crop_face(frame, one.bust.alignment)))
    before = at(frame, HERE, 43, 235) - at(frame, HERE, 213, 235)
    out = tinted(lit_one)
    after = at(out, HERE, 43, 235) - at(out, HERE, 213, 235)
    assert np.abs(after).max() < 0.5 * np.abs(before).max()


def test_a_dark_shirt_is_not_hair_unless_hair_hangs_on_it():
    one = person(HERE, long_hair=False)
    dark = one.frame.copy()
    is_shirt = np.abs(dark.astype(int) - SHIRT).max(axis=2) < 25
    dark[is_shirt] = HAIR
    dressed = replace(one, frame=dark, bust=replace(one.bust, picture=crop_face(dark, one.bust.alignment)))
    change = np.abs(tinted(dressed).astype(int) - dark).max(axis=2)
    assert change[is_shirt].mean() < 2.0


def test_the_background_is_not_tinted_even_where_it_has_the_color_of_skin():
    one = person(HERE)
    frame = one.frame.copy()
    is_wall = np.abs(frame.astype(int) - WALL).max(axis=2) < 20
    frame[is_wall] = SKIN
    out = tinted(
        replace(one, frame=frame, bust=replace(one.bust, picture=crop_face(frame, one.bust.alignment)))
    )
    change = np.abs(out.astype(int) - frame).max(axis=2)
    inner = cv2.erode(is_wall.astype(np.uint8), np.ones((13, 13))) > 0
    assert change[inner].max() <= 2
    assert change[is_wall].mean() < 1.0


@settings(deadline=None, max_examples=30)
@given(
    place=st.builds(
        Alignment,
        st.just(0),
        st.floats(-100, 740),
        st.floats(-100, 580),
        st.floats(0.05, 2.5),
        st.floats(-math.pi, math.pi),
        st.floats(0, 1),
    )
)
def test_outside_of_the_bust_every_bit_is_kept(place):
    one = person(place)
    out = tinted(one)
    side = one.bust.alignment
    corners = side.crop_to_frame() @ np.array([[0, 256, 256, 0], [0, 0, 256, 256], [1, 1, 1, 1]])
    covered = np.zeros(out.shape[:2], np.uint8)
    cv2.fillPoly(covered, [np.round(corners.T).astype(np.int32)], 255)
    covered = cv2.dilate(covered, np.ones((9, 9), np.uint8))
    np.testing.assert_array_equal(out[covered == 0], one.frame[covered == 0])
    if place.opacity == 0:
        np.testing.assert_array_equal(out, one.frame)


def test_a_fading_face_takes_its_tint_along():
    full, half, gone = (
        tinted(person(replace(HERE, opacity=opacity))).astype(float) for opacity in (1.0, 0.5, 0.0)
    )
    np.testing.assert_array_equal(gone, person(HERE).frame)
    unlike = np.abs(half - (full + gone) / 2).max(axis=2) > 2
    assert unlike.mean() < 0.003, "white is white"


def test_colors_settle_and_begin_anew_for_others():
    one = person(HERE)
    green = np.full_like(one.drawing, (60, 200, 60))

    def neck(tint: Tint, seconds: float, drawing: np.ndarray, track: int = 0) -> np.ndarray:
        out = one.frame.copy()
        place = replace(one.bust.alignment, track_id=track)
        new = replace(one.bust, alignment=place, seconds=seconds, picture=one.bust.picture.copy())
        tint.apply(out, [new], [drawing], [whole(one)])
        return at(out, HERE, 128, 255)

    tint = Tint()
    start = neck(tint, 0.0, one.drawing)
    end = neck(Tint(), 0.0, green)
    after = neck(tint, TINT_SECONDS, green)
    way = (after - start)[0] / (end - start)[0]
    assert way == pytest.approx(1 - math.exp(-1), abs=0.08)
    np.testing.assert_allclose(neck(tint, 20 * TINT_SECONDS, green), end, atol=1)
    np.testing.assert_allclose(neck(tint, 20 * TINT_SECONDS, one.drawing, track=1), start, atol=1)
    tint.reset()
    np.testing.assert_allclose(neck(tint, 30 * TINT_SECONDS, one.drawing), start, atol=1)


def test_noise_in_the_picture_does_not_flicker():
    one, tint = person(HERE), Tint()
    rng = np.random.default_rng(1)
    changes = []
    for i in range(12):
        noise = rng.normal(0, 4, one.bust.picture.shape)
        noisy = replace(
            one.bust, picture=np.clip(one.bust.picture + noise, 0, 255).astype(np.uint8), seconds=i / 30
        )
        out = one.frame.copy()
        tint.apply(out, [noisy], [one.drawing], [whole(one)])
        changes.append(out.astype(int) - one.frame)
    moved = np.std(changes[4:], axis=0)
    tinted_there = np.abs(changes[-1]).max(axis=2) > 20
    assert tinted_there.mean() > 0.02
    assert moved[tinted_there].mean() < 1.5


def test_two_people_have_their_own_colors():
    left, right = person(Alignment(0, 170, 200, 0.6, 0.0)), person(Alignment(1, 470, 200, 0.6, 0.0))
    frame = np.where(np.arange(640)[None, :, None] < 320, left.frame, right.frame)
    busts = [replace(one.bust, picture=crop_face(frame, one.bust.alignment)) for one in (left, right)]
    green = np.where(
        (left.drawing == NEW_SKIN).all(axis=2)[..., None], np.uint8((200, 250, 200)), left.drawing
    ).astype(np.uint8)
    out = frame.copy()
    Tint().apply(out, busts, [left.drawing, green], [whole(left)] * 2)
    np.testing.assert_allclose(at(out, left.bust.alignment, 128, 150), NEW_SKIN, atol=12)
    first, second = (
        at(out, one, 128, 255) for one in (Alignment(0, 170, 200, 0.6, 0), Alignment(1, 470, 200, 0.6, 0))
    )
    np.testing.assert_allclose(first, NEW_SKIN, atol=8)
    np.testing.assert_allclose(second, (200, 250, 200), atol=8)


def test_no_hair_no_landmarks_no_person():
    one = person(HERE)
    nobody = replace(one.bust, matte=np.zeros_like(one.bust.matte))
    out = one.frame.copy()
    Tint().apply(out, [nobody], [one.drawing], [whole(one)])
    np.testing.assert_array_equal(out, one.frame)
    blind = replace(one.bust, alignment=replace(one.bust.alignment, landmarks=None))
    Tint().apply(out, [blind], [one.drawing], [whole(one)])
    np.testing.assert_array_equal(out, one.frame)
    # Nothing of the drawing is pasted: what hair becomes is unknown, skin's is not.
    Tint().apply(out, [one.bust], [one.drawing], [np.zeros_like(whole(one))])
    np.testing.assert_allclose(at(out, HERE, 128, 255), NEW_SKIN, atol=8)
    np.testing.assert_allclose(at(out, HERE, 43, 240), HAIR, atol=5)


def test_around_pasted_heads_it_is_asked_and_keeps_what_is_pasted_above_the_jaw():
    one = person(HERE)

    def pasted(mode: str, *effects: Tint) -> np.ndarray:
        around = effects[0].frame if effects else lambda image, faces: None
        faces = layers([(one.head, one.drawing)], busts=[one.bust])
        return Compositor(mode).compose(one.frame, faces, around)

    with_tint, without = pasted("head", Tint()), pasted("head")
    np.testing.assert_allclose(at(with_tint, HERE, 128, 255), NEW_SKIN, atol=8)
    np.testing.assert_allclose(at(without, HERE, 128, 268), SKIN, atol=8)
    for out in (with_tint, without):
        np.testing.assert_allclose(at(out, HERE, 128, 140), NEW_SKIN, atol=2)
    both = pasted("side-by-side", Tint())
    np.testing.assert_array_equal(both[:, :640], one.frame)
    np.testing.assert_array_equal(both[:, 640:], with_tint)
    np.testing.assert_allclose(at(pasted("face", Tint()), HERE, 128, 262), SKIN, atol=4)


def test_bust_is_the_head_seen_wider():
    one = person(Alignment(0, 300, 220, 0.7, 0.4))
    place = bust(one.head)
    assert isinstance(one.bust, Bust)
    assert place.scale == pytest.approx(1.6 * one.head.scale)
    assert (place.angle, place.track_id) == (one.head.angle, one.head.track_id)


def test_black_bars_stay_black():
    """Also where the hair beside them is black."""
    one = person(HERE)
    out, plain = one.frame.copy(), one.frame.copy()
    out[:130] = out[-40:] = out[:, :20] = 3
    given = out.copy()
    tint, (face,) = Tint(), layers([(one.bust.alignment, one.drawing)], busts=[one.bust])
    face.mask = whole(one)
    tint.frame(out, [face])
    for part in (np.s_[:130], np.s_[-40:], np.s_[:, :20]):
        assert (out[part] == 3).all()
    assert (out != given).any()
    assert not black_bars(plain)
    assert not black_bars(np.zeros_like(plain))
