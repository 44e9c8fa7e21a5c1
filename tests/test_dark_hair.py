"""Light hair is darkened for the network, and nothing else is. Device: CPU."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnr_video.effects.dark_hair import BROWS, DARK, HAIR_SECONDS, DarkHair
from gnr_video.frame import Alignment, Image
from gnr_video.options import EngineOptions
from gnr_video.samples.portrait import portrait
from gnr_video.tracking.alignment import crop_face, head_margins
from gnr_video.translator import Translator
from tests.drawn_people import HAIR, SKIN, WALL, Person, person

HERE = Alignment(0, 320.0, 200.0, 1.0, 0.0)
SIDE = 320
LIGHT = (190, 165, 115)
GREY = np.array([0.299, 0.587, 0.114])


def haired(color: object, place: Alignment = HERE, *, lit: float = 0.0) -> Person:
    """Somebody with brows, whose hair is of a colour and has stripes of light in it."""
    one = person(place)
    assert one.head.landmarks is not None
    points = one.head.landmarks.copy()
    points[list(BROWS), 1] = points[[33, 263], 1].mean() - 15 * 256 / SIDE
    head = replace(one.head, landmarks=points)
    is_hair = np.abs(one.frame.astype(int) - HAIR).max(axis=2) < 25
    frame = one.frame.astype(float)
    frame[is_hair] += np.subtract(color, HAIR)
    stripes = lit * (np.arange(frame.shape[0]) // 20 % 2)
    frame += (stripes[:, None] * is_hair)[..., None]
    frame = np.clip(frame, 0, 255).astype(np.uint8)
    return replace(
        one, frame=frame, head=head, bust=replace(one.bust, picture=crop_face(frame, one.bust.alignment))
    )


def darkened(one: Person, dark: DarkHair | None = None) -> tuple[Image, Image]:
    """The crop of the head as it is, and as the network gets it."""
    crop = crop_face(one.frame, one.head, SIDE)
    (shown,) = (dark or DarkHair()).apply([crop], [one.head], [one.bust])
    return crop, shown


def at(crop: Image, x: float, y: float, radius: int = 4) -> np.ndarray:
    """Mean colour around a point of the face's 256 crop."""
    left, _, top, _ = head_margins(256)
    u, v = round(x + left), round(y + top)
    return crop[v - radius : v + radius, u - radius : u + radius].reshape(-1, 3).mean(axis=0)


@pytest.mark.parametrize("place", [HERE, Alignment(0, 330, 210, 0.8, 0.3), Alignment(0, 300, 190, 0.5, -0.5)])
def test_light_hair_becomes_dark_and_the_rest_stays(place):
    crop, shown = darkened(haired(LIGHT, place))
    for x, y in ((40, 90), (214, 90), (43, 150)):
        np.testing.assert_allclose(at(crop, x, y), LIGHT, atol=6)
        assert 0.8 * DARK < at(shown, x, y) @ GREY < 1.45 * DARK
    assert at(shown, 128, 10) @ GREY < 1.7 * DARK, "near the face it fades"
    for x, y in ((128, 120), (90, 150), (166, 200), (128, 250)):
        np.testing.assert_allclose(at(shown, x, y), SKIN, atol=8)
    np.testing.assert_allclose(at(shown, -20, 20), WALL, atol=4)


def test_its_hue_stays():
    _, shown = darkened(haired(LIGHT))
    found = at(shown, 128, 10)
    np.testing.assert_allclose(found / found.sum(), np.divide(LIGHT, sum(LIGHT)), atol=0.03)


def test_highlights_lose_contrast():
    crop, shown = darkened(haired(LIGHT, lit=40))

    def contrast(picture: Image) -> float:
        grey = picture[120:200, 65:80] @ GREY  # beside the face
        return float(grey.std() / grey.mean())

    assert contrast(shown) < 0.9 * contrast(crop)


@pytest.mark.parametrize("color", [HAIR, SKIN], ids=["dark hair", "a bald head"])
def test_what_needs_no_darkening_is_handed_on(color):
    crop, shown = darkened(haired(color))
    assert shown is crop


def test_hair_that_is_hardly_lighter_is_hardly_darkened():
    """Or it would flicker where it is about as dark as that."""
    crop, shown = darkened(haired(np.add(HAIR, 13), lit=20))
    assert 0 < np.abs(shown.astype(int) - crop).max() < 12


def test_while_no_hair_is_seen_what_is_known_holds():
    one, dark = haired(LIGHT), DarkHair()
    _, first = darkened(one, dark)
    hidden = replace(one, bust=replace(one.bust, matte=np.zeros_like(one.bust.matte), seconds=0.1))
    assert (darkened(hidden, dark)[1] == crop_face(one.frame, one.head, SIDE)).all()
    again = replace(one, bust=replace(one.bust, seconds=0.2))
    np.testing.assert_array_equal(darkened(again, dark)[1], first)


def test_without_landmarks_nothing_is_known():
    one = haired(LIGHT)
    crop = crop_face(one.frame, one.head, SIDE)
    assert DarkHair().apply([crop], [replace(one.head, landmarks=None)], [one.bust])[0] is crop


@settings(deadline=None, max_examples=25)
@given(
    color=st.tuples(*[st.integers(0, 255)] * 3),
    x=st.floats(0, 640),
    y=st.floats(0, 480),
    scale=st.floats(0.2, 1.5),
    angle=st.floats(-0.6, 0.6),
)
def test_nothing_becomes_lighter_and_the_face_stays(color, x, y, scale, angle):
    crop, shown = darkened(haired(color, Alignment(0, x, y, scale, angle)))
    assert (shown <= crop).all()
    left, _, top, _ = head_margins(256)
    inner = np.zeros(crop.shape[:2], np.uint8)
    cv2.ellipse(inner, (128 + left, 135 + top), (60, 55), 0, 0, 360, 255, -1)
    inner[: 92 + top] = 0
    np.testing.assert_allclose(shown[inner > 0].astype(int), crop[inner > 0], atol=6)


def test_colors_settle_and_begin_anew_for_others():
    dark, lighter = DarkHair(), np.add(LIGHT, 40)
    light_one, lighter_one = haired(LIGHT), haired(lighter)

    def seen(one: Person, seconds: float, track_id: int = 0) -> float:
        head, bust = replace(one.head, track_id=track_id), replace(one.bust, seconds=seconds)
        return float(at(darkened(replace(one, head=head, bust=bust), dark)[1], 128, 10) @ GREY)

    first = seen(light_one, 0.0)
    step = seen(lighter_one, 1 / 30)
    assert step > first + 5, "what is known of the hair is of before"
    for frame in range(2, int(8 * 30 * HAIR_SECONDS)):
        last = seen(lighter_one, frame / 30)
    alone = float(at(darkened(lighter_one)[1], 128, 10) @ GREY)
    assert last == pytest.approx(alone, abs=2)
    seen(light_one, 20.0)
    assert seen(lighter_one, 20.1, track_id=1) == pytest.approx(alone, abs=0.5)


@pytest.mark.usefixtures("face_model", "person_model")
def test_the_network_sees_it_and_what_is_pasted_around_it_does_not(tiny, monkeypatch):
    picture = np.ascontiguousarray(portrait())
    crops = {}
    with Translator(tiny, engine=EngineOptions("torch", precision="fp32")) as translator:
        for name in ("as it is", "darkened"):
            real = translator.engine.translate

            def spy(batch, *args, name=name, real=real):
                crops[name] = batch[0]
                return real(batch, *args)

            with monkeypatch.context() as patch:
                patch.setattr(translator.engine, "translate", spy)
                if name == "as it is":
                    patch.setattr(DarkHair, "apply", lambda self, crops, heads, busts: list(crops))
                result = translator.translate_frame(picture)
        np.testing.assert_array_equal(result[-100:], picture[-100:])
    side = crops["darkened"].shape[0]
    hair = (slice(side // 9, side // 6), slice(2 * side // 5, 3 * side // 5))
    assert crops["darkened"][hair].mean() < 0.7 * crops["as it is"][hair].mean()
    mouth = (slice(7 * side // 10, 8 * side // 10), slice(2 * side // 5, 3 * side // 5))
    np.testing.assert_allclose(crops["darkened"][mouth].astype(int), crops["as it is"][mouth], atol=2)
