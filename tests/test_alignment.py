"""Fitting the crop to a face and cutting it out. Device: CPU."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnr_video.frame import Alignment, Face
from gnr_video.tracking.alignment import (
    CROP,
    HEAD_EXTENT,
    HEAD_RISE,
    RIGID,
    TEMPLATE,
    WEIGHTS,
    crop_face,
    face_part,
    fit_alignment,
    head_side,
    mirrored,
    widened,
    with_landmarks,
)

ALIGNMENTS = st.builds(
    Alignment,
    track_id=st.just(0),
    center_x=st.floats(-200, 2000),
    center_y=st.floats(-200, 2000),
    scale=st.floats(0.1, 8),
    angle=st.floats(-3, 3),
)


def face_at(alignment: Alignment) -> Face:
    """A face whose rigid landmarks lie exactly where the template has them."""
    landmarks = np.zeros((478, 3), np.float32)
    points = np.c_[TEMPLATE, np.ones(len(TEMPLATE))] @ alignment.crop_to_frame().T
    landmarks[RIGID, :2] = points
    return Face(7, landmarks)


def test_template_has_the_training_framing() -> None:
    place = dict(zip(RIGID.tolist(), TEMPLATE.astype(float)))
    assert 30 <= len(RIGID) <= 40
    assert pytest.approx(1.0) == WEIGHTS.sum()
    # The outer corners, 33 and 263, are level and as far from the middle of the eyes at (128, 92).
    assert place[33][1] == pytest.approx(place[263][1], abs=0.01)
    assert (place[33] + place[263])[0] / 2 == pytest.approx(128, abs=0.01)
    assert 88 < place[33][1] < 96
    assert 72 < place[263][0] - place[33][0] < 120


@settings(deadline=None, max_examples=60)
@given(ALIGNMENTS)
def test_fit_recovers_a_similarity_transform(truth: Alignment) -> None:
    found = fit_alignment(face_at(truth))
    assert found.track_id == 7
    assert found.scale == pytest.approx(truth.scale, rel=1e-3)
    assert math.remainder(found.angle - truth.angle, 2 * math.pi) == pytest.approx(0, abs=1e-3)
    assert (found.center_x, found.center_y) == pytest.approx((truth.center_x, truth.center_y), abs=0.02)


@settings(deadline=None, max_examples=30)
@given(ALIGNMENTS, st.integers(0, 2**31))
def test_fit_is_the_minimum_of_the_weighted_residual(truth: Alignment, seed: int) -> None:
    rng = np.random.default_rng(seed)
    noisy = face_at(truth).landmarks
    noisy[:, :2] += rng.normal(0, 2 * truth.scale, (478, 2))
    found = fit_alignment(Face(0, noisy))

    def residual(a: Alignment) -> float:
        mapped = with_landmarks(a, noisy).landmarks
        assert mapped is not None
        return float(WEIGHTS @ ((mapped[RIGID] - TEMPLATE) ** 2).sum(1))

    best = residual(found)
    for dx, zoom, turn in ((1, 1, 0), (-1, 1, 0), (0, 1.01, 0), (0, 0.99, 0), (0, 1, 0.01), (0, 1, -0.01)):
        other = Alignment(
            0,
            found.center_x + dx * found.scale,
            found.center_y,
            found.scale * zoom,
            found.angle + turn,
        )
        assert residual(other) > best - 1e-3


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_degenerate_landmarks_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="degenerate"):
        fit_alignment(Face(0, np.full((478, 3), bad, np.float32)))


@settings(deadline=None, max_examples=30)
@given(ALIGNMENTS)
def test_landmarks_are_mapped_by_the_inverse_of_crop_to_frame(alignment: Alignment) -> None:
    crop_points = np.array([[0, 0], [128, 92], [255, 10]], np.float64)
    frame_points = np.c_[crop_points, np.ones(3)] @ alignment.crop_to_frame().T
    mapped = with_landmarks(alignment, frame_points.astype(np.float32)).landmarks
    assert mapped is not None
    assert mapped.dtype == np.float32
    np.testing.assert_allclose(mapped, crop_points, atol=0.02)


def ramp(height: int, width: int) -> np.ndarray:
    """A picture in which red tells x and green tells y."""
    image = np.full((height, width, 3), 77, np.uint8)
    image[..., 0] = np.linspace(0, 255, width).round()
    image[..., 1] = np.linspace(0, 255, height).round()[:, None]
    return image


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7, 3.5, 6.3])
@pytest.mark.parametrize("size", [256, 128])
def test_crop_shows_what_the_alignment_says(scale: float, size: int) -> None:
    side = int(scale * 256 * 1.8)
    image = ramp(side, side)
    alignment = Alignment(0, side * 0.52, side * 0.49, scale, 0.2)
    crop = crop_face(image, alignment, size)
    assert crop.shape == (size, size, 3)
    assert crop.dtype == np.uint8
    grid = np.stack([*np.meshgrid(np.arange(size), np.arange(size)), np.ones((size, size))], -1)
    where = grid @ alignment.crop_to_frame(size).T
    expected = where * 255 / (side - 1)
    np.testing.assert_allclose(crop[..., :2], expected, atol=1.6)
    np.testing.assert_array_equal(crop[..., 2], 77)


@pytest.mark.parametrize("scale", [2.0, 3.0, 6.5])
def test_a_large_face_is_low_passed(scale: float) -> None:
    rng = np.random.default_rng(0)
    side = int(scale * 256 * 1.3)
    noise = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
    crops = [
        crop_face(noise, Alignment(0, side / 2 + 0.31 * scale * i, side / 2, scale, 0.0)).astype(float)
        for i in range(3)
    ]
    # Uniform noise has a deviation of 74; the mean of s x s independent pixels has 74 / s.
    assert max(crop.std() for crop in crops) < 1.7 * 74 / scale


@pytest.mark.parametrize("center", [(0, 0), (639, 100), (320, 479), (-90, 200), (2000, 2000)])
def test_crop_beyond_the_border_is_mirrored(center: tuple[int, int]) -> None:
    image = np.full((480, 640, 3), 90, np.uint8)
    crop = crop_face(image, Alignment(0, *center, 1.3, 0.4))
    np.testing.assert_array_equal(crop, 90)


def test_mirror_is_that_of_the_whole_frame() -> None:
    rng = np.random.default_rng(1)
    image = cv2.GaussianBlur(rng.integers(0, 256, (300, 400, 3)).astype(np.uint8), (0, 0), 3)
    alignment = Alignment(0, 60, 40, 1.0, 0.3)
    whole = cv2.warpAffine(
        image,
        alignment.crop_to_frame(),
        (256, 256),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    assert np.abs(crop_face(image, alignment).astype(int) - whole.astype(int)).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1), (2, 500), (16, 16), (37, 3)])
@pytest.mark.parametrize("scale", [0.02, 1.0, 40.0])
def test_tiny_frames(shape: tuple[int, int], scale: float) -> None:
    crop = crop_face(np.full((*shape, 3), 5, np.uint8), Alignment(0, 1, 1, scale, 1.0))
    np.testing.assert_array_equal(crop, 5)


def test_crop_leaves_the_frame_alone_and_takes_views() -> None:
    image = ramp(400, 800)
    before = image.copy()
    view = image[::2, ::2]
    assert crop_face(view, Alignment(0, 200, 100, 2.0, 0.0)).shape == (256, 256, 3)
    np.testing.assert_array_equal(image, before)


@settings(deadline=None)
@given(ALIGNMENTS)
def test_the_crop_of_the_whole_head_is_the_same_place_seen_wider(alignment: Alignment) -> None:
    landmarks = np.random.default_rng(0).uniform(0, 300, (9, 2)).astype(np.float32)
    face = with_landmarks(alignment, landmarks)
    head = widened(face)
    assert head.scale == pytest.approx(face.scale * HEAD_EXTENT)
    assert (head.angle, head.opacity, head.track_id) == (face.angle, face.opacity, face.track_id)
    middle = np.array([CROP / 2, CROP / 2, 1])
    higher = middle - [0, HEAD_RISE, 0]
    np.testing.assert_allclose(head.crop_to_frame() @ middle, face.crop_to_frame() @ higher, atol=1e-6)
    assert head.landmarks is not None
    np.testing.assert_allclose(
        head.landmarks, with_landmarks(head, landmarks).landmarks, atol=2e-3 * max(1, 1 / face.scale)
    )


@pytest.mark.parametrize("size", [32, 128, 256])
def test_the_face_is_cut_from_the_crop_of_its_head(size: int) -> None:
    rng = np.random.default_rng(1)
    image = cv2.GaussianBlur(rng.integers(0, 255, (400, 400, 3), np.uint8), (0, 0), 6)
    alignment = Alignment(0, 200, 220, 0.8 * size / CROP, 0.3)
    face, head = crop_face(image, alignment, size), crop_face(image, widened(alignment), head_side(size))
    assert head.shape == (head_side(size), head_side(size), 3)
    assert np.abs(face_part(head, size).astype(int) - face).max() <= 2
    assert face_part(face, size) is face


@pytest.mark.parametrize("angle", [0.0, 0.4, -1.2])
def test_a_mirrored_frame_has_the_mirrored_crop(angle: float) -> None:
    image = cv2.GaussianBlur(np.random.default_rng(2).integers(0, 255, (300, 500, 3), np.uint8), (0, 0), 4)
    alignment = Alignment(0, 190.3, 140.8, 0.6, angle)
    found = crop_face(*mirrored(image, alignment), 256)
    assert np.abs(found.astype(int) - crop_face(image, alignment, 256)[:, ::-1]).max() <= 2
