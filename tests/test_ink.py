"""Ink: lines become even along themselves, stay where they are, and get no halos. Device: CPU."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnr_video import Translator
from gnr_video.effects.ink import inked as with_ink
from gnr_video.options import EngineOptions, LookOptions

SIDE = 128
PAPER, LINE = 225, 60


def line_picture(degrees: float, beads: float = 0.0) -> np.ndarray:
    """A soft dark line through the middle; its darkness swells `beads` up and down every four pixels."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    turn = np.radians(degrees)
    along, across = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
    depth = (PAPER - LINE) * (1 - beads * (1 + np.cos(np.pi * along / 2)) / 2)
    grey = PAPER - depth * np.exp(-0.5 * (across / 1.5) ** 2)
    return np.repeat(np.round(grey).astype(np.uint8)[..., None], 3, 2)


def along_the_line(picture: np.ndarray, degrees: float) -> np.ndarray:
    turn = np.radians(degrees)
    t = np.arange(-40, 40, 0.5)
    x, y = ((SIDE - 1) / 2 + t * f(turn) for f in (np.cos, np.sin))
    values = cv2.remap(
        picture.astype(np.float32), x[None].astype(np.float32), y[None].astype(np.float32), cv2.INTER_LINEAR
    )
    return np.asarray(values[0, :, 0])


@pytest.mark.parametrize("degrees", [0, 17, 45, 70, 90, 135, 160])
def test_beads_become_a_line(degrees):
    beaded = line_picture(degrees, 0.4)
    inked = with_ink(beaded)
    before, after = (along_the_line(picture, degrees) for picture in (beaded, inked))
    assert after.std() < 0.4 * before.std()
    assert after.mean() < before.mean() + 8, "as dark as it was"


@pytest.mark.parametrize("degrees", [0, 30, 90])
def test_a_line_stays_where_it_is_and_is_not_softer(degrees):
    picture = line_picture(degrees)
    inked = with_ink(picture)
    for made in (picture, inked):
        y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
        turn = np.radians(degrees)
        across = -x * np.sin(turn) + y * np.cos(turn)
        dark = np.where(np.hypot(x, y) < 40, PAPER - made[..., 0].astype(float), 0).clip(0)
        assert abs((dark * across).sum() / dark.sum()) < 0.05
    slope = [np.abs(np.diff(made[..., 0].astype(int), axis=0)).max() for made in (picture, inked)]
    slope_x = [np.abs(np.diff(made[..., 0].astype(int), axis=1)).max() for made in (picture, inked)]
    assert max(slope[1], slope_x[1]) >= max(slope[0], slope_x[0])


def test_flat_colors_stay_as_they_are():
    flat = np.full((2, 96, 96, 3), (250, 120, 7), np.uint8)
    flat[1] = 255
    for picture in flat:
        np.testing.assert_array_equal(with_ink(picture), picture)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), shape=st.sampled_from([(64, 64), (61, 47), (3, 2), (1, 1)]))
def test_nothing_is_brighter_or_darker_than_its_surroundings(seed, shape):
    picture = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    around = np.ones((9, 9), np.uint8)  # two pixels along, one between pixels, one for the sharpening
    inked = with_ink(picture)
    assert inked.shape == picture.shape
    assert (inked <= cv2.dilate(picture, around)).all()
    assert (inked >= cv2.erode(picture, around)).all()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_drawing_is_inked_alike(turns):
    rng = np.random.default_rng(3)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8), (0, 0), 3)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)
    turned = np.ascontiguousarray(np.rot90(picture, turns))
    unlike = np.abs(with_ink(turned).astype(int) - np.rot90(with_ink(picture), turns))
    assert unlike.mean() < 0.3


def test_the_translator_inks_where_told_to(tiny):
    face = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), (0, 0), 2)
    made = {}
    for wanted in (True, False):
        with Translator(
            tiny, engine=EngineOptions("torch", precision="fp32"), look=LookOptions(effects={"ink": wanted})
        ) as translator:
            made[wanted] = translator.translate_face(cv2.resize(face, (translator.engine.size,) * 2))
    np.testing.assert_array_equal(made[True], with_ink(made[False]))
    assert (made[True] != made[False]).any()
