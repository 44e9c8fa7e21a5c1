"""Masks: their shapes, and what of a drawing they let through. Device: CPU."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnr_video.compositing.masks import above_jaw, face_mask, head_mask, square_mask, whole_head_mask
from gnr_video.frame import Alignment
from gnr_video.tracking.alignment import HEAD_EXTENT, HEAD_RISE
from gnr_video.tracking.face_mesh import FACE_OVAL
from tests.drawn_people import COLLAR, NEW_HAIR, NEW_SKIN, oval_landmarks, person


def superellipse(size: int) -> np.ndarray:
    return head_mask(None, size)


@pytest.mark.parametrize("size", [16, 128, 256, 512])
@pytest.mark.parametrize(
    "make",
    [
        superellipse,
        lambda size: head_mask(oval_landmarks(), size),
        square_mask,
        lambda size: face_mask(oval_landmarks(), size),
        lambda size: whole_head_mask(np.full((size, size), 255, np.uint8)),
    ],
)
def test_masks_are_zero_on_the_border_and_whole_in_the_middle(make, size):
    mask = make(size)
    assert mask.shape == (size, size)
    assert mask.dtype == np.uint8
    assert not mask[[0, -1]].any()
    assert not mask[:, [0, -1]].any()
    assert mask[size // 2, size // 2] == 255


def test_head_mask_takes_in_hair_ears_and_chin_but_no_corner():
    mask = head_mask()
    for x, y in ((128, 92), (92, 92), (164, 92), (128, 200), (60, 110), (196, 110)):
        assert mask[y, x] == 255, "eyes, mouth and cheeks are all anime"
    assert mask[230, 128] > 0.8 * 255, "chin"
    assert mask[18, 128] > 0.5 * 255, "hair on top"
    assert min(mask[110, 32], mask[110, 223]) > 0.5 * 255, "ears"
    assert max(mask[10, 10], mask[10, 245], mask[240, 20], mask[240, 235]) == 0, "background and shoulders"
    np.testing.assert_array_equal(mask, mask[:, ::-1])


def test_whole_head_mask_takes_in_all_hair_of_the_person_and_no_shoulders():
    everything = np.full((256, 256), 255, np.uint8)

    def at(mask, x, y):  # pixels of the face's crop, which may lie outside of it
        x, y = ((c - 128 + rise) / HEAD_EXTENT + 128 for c, rise in ((x, 0.0), (y, HEAD_RISE)))
        return mask[round(y), round(x)] / 255

    mask = whole_head_mask(everything)
    for x, y in ((128, 92), (60, 110), (128, 200), (128, 0), (20, 60), (236, 60)):
        assert at(mask, x, y) == 1, "face and hair, also beyond the face's crop"
    assert at(mask, 128, 228) > 0.8, "chin"
    assert max(at(mask, 30, 225), at(mask, 226, 225)) == 0, "shoulders"
    left = everything.copy()
    left[:, 128:] = 0
    assert not whole_head_mask(left)[:, 128:].any(), "background"
    np.testing.assert_array_equal(whole_head_mask(left)[:, :128], mask[:, :128])


@pytest.mark.parametrize("make", [superellipse, square_mask])
def test_masks_have_the_same_shape_at_every_size_and_no_step(make):
    large = make(256).astype(int)
    small = cv2.resize(make(256), (128, 128), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(make(128).astype(int) - small).max() <= 12
    steps = max(np.abs(np.diff(large, axis=0)).max(), np.abs(np.diff(large, axis=1)).max())
    assert steps <= 32, "a step would be seen as an edge"


def test_head_mask_keeps_to_a_turned_head():
    straight, turned = head_mask(oval_landmarks()), head_mask(oval_landmarks(dx=30))
    whole = head_mask()
    for mask in (straight, turned):
        assert (mask <= whole).all()
        assert mask[60, 128] == 255, "forehead"
        assert mask[20, 128] > 0.4 * 255, "hair"
    assert straight[130, 52] > 200, "ears"
    assert turned[130, 45] < 10, "the far side is background"
    assert turned[130, 220] > 150
    jaw = oval_landmarks()[list(FACE_OVAL)].round().astype(int)
    assert all(straight[y, x] > 0.6 * 255 for x, y in jaw if 60 < y < 200), "the face is covered"


def test_face_mask_follows_the_landmarks():
    here, there = face_mask(oval_landmarks()), face_mask(oval_landmarks(dx=9.5, dy=-6.25))

    def centre(mask: np.ndarray) -> np.ndarray:
        m = cv2.moments(mask)
        return np.array([m["m10"] / m["m00"], m["m01"] / m["m00"]])

    np.testing.assert_allclose(centre(there) - centre(here), [9.5, -6.25], atol=0.3)
    jaw = oval_landmarks()[list(FACE_OVAL)].round().astype(int)
    assert all(here[y, x] < 128 for x, y in jaw), "the feather ends on the face"
    assert here[92, 100] == 255


def test_face_mask_survives_landmarks_outside_the_crop_and_their_absence():
    assert not face_mask(oval_landmarks(dx=5000)).any()
    leaning = face_mask(oval_landmarks(dx=90))
    assert leaning.any()
    assert not leaning[:, -1].any()
    assert face_mask(None)[128, 128] == 255
    broken = oval_landmarks()
    broken[FACE_OVAL[3]] = np.nan
    with pytest.raises(ValueError, match="finite"):
        face_mask(broken)


class TestAboveJaw:
    """What of a drawn head is kept: face and hair, not the collar."""

    one = person(Alignment(0, 320.0, 200.0, 1.0, 0.0))
    points = one.head.landmarks

    def colors(self, color: tuple[int, int, int]) -> np.ndarray:
        is_color = (self.one.drawing == color).all(axis=2).astype(np.uint8)
        return cv2.erode(is_color, np.ones((7, 7), np.uint8)) > 0

    def test_keeps_face_and_hair_and_drops_the_collar(self) -> None:
        kept = above_jaw(self.points, self.one.drawing)
        assert kept.shape == self.one.drawing.shape[:2]
        assert kept.dtype == np.uint8
        assert kept[self.colors(NEW_SKIN)].mean() > 250
        assert kept[self.colors(COLLAR)].mean() < 40
        above = self.colors(NEW_HAIR)
        above[150:] = False
        assert (kept[above] == 255).all()

    def test_keeps_the_outline_of_a_narrower_chin_but_not_what_is_beyond_it(self) -> None:
        """Chins are drawn narrower: between the drawn one and the face's there is collar."""
        drawing = np.full((320, 320, 3), COLLAR, np.uint8)
        oval = (self.points[list(FACE_OVAL)] + 0.5) * 1.25 - 0.5
        middle = oval.mean(axis=0)
        narrow = np.round((oval - middle) * (0.8, 0.93) + middle).astype(np.int32)
        cv2.fillPoly(drawing, [narrow], NEW_SKIN, cv2.LINE_AA)
        cv2.polylines(drawing, [narrow], True, (30, 20, 20), 3, cv2.LINE_AA)
        kept = above_jaw(self.points, drawing)
        side = narrow[10:16].mean(axis=0)  # on the outline, right of the mouth and below
        outside = (oval[10:16] * 0.75 + narrow[10:16] * 0.25).mean(axis=0)
        assert kept[round(side[1]), round(side[0])] > 150
        assert kept[round(outside[1]), round(outside[0])] < 90

    def test_the_mouth_is_kept_whatever_its_color(self) -> None:
        drawing = self.one.drawing.copy()
        lips = (oval_landmarks()[[61, 291]] + (32, 56)).astype(
            int
        )  # corners of the mouth, in the head's crop
        drawing[lips[0, 1] - 6 : lips[0, 1] + 7, lips[0, 0] : lips[1, 0]] = (120, 10, 20)
        kept = above_jaw(self.points, drawing)
        assert kept[lips[0, 1] - 6 : lips[0, 1] + 7, lips[0, 0] : lips[1, 0]].min() > 200

    @settings(deadline=None, max_examples=30)
    @given(
        size=st.sampled_from([64, 160, 320]),
        shift=st.tuples(st.floats(-300, 300), st.floats(-300, 300)),
        scale=st.floats(0.0, 3.0),
    )
    def test_any_landmarks_give_a_mask(self, size: int, shift: tuple[float, float], scale: float) -> None:
        points = (self.points - 128) * np.float32(scale) + 128 + np.array(shift, np.float32)
        kept = above_jaw(points, np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8))
        assert kept.shape == (size, size)
