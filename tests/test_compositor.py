"""Paste-back: masks, blending inside the region only, every mode and edge case. Device: CPU."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnr_video.compositing.compositor import MODES, Compositor
from gnr_video.compositing.grid import GridCompositor
from gnr_video.compositing.masks import face_mask, head_mask, square_mask, whole_head_mask
from gnr_video.frame import Alignment, Bust, FaceLayer
from gnr_video.tracking.alignment import bust, bust_head, crop_face, nearest_part
from tests.layers import layers


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plain(size: int, color: tuple[int, int, int]) -> np.ndarray:
    return np.full((size, size, 3), color, np.uint8)


def gradient(size: int) -> np.ndarray:
    """The same smooth picture at any size."""
    axis = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(axis, axis)
    return np.round(np.stack([40 + 170 * x, 200 - 150 * y, 60 + 90 * x * y], axis=2)).astype(np.uint8)


def bust_of(head: Alignment, value: int) -> Bust:
    """The bust around a head, all of it person (255) or nobody (0)."""
    return Bust(bust(head), plain(256, (9, 9, 9)), np.full((256, 256), value, np.uint8), 0.0)


def crop_coordinates(alignment: Alignment, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where every frame pixel lies in the 256 crop, by the formula in Alignment's docstring."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    dx, dy = (x - alignment.center_x) / alignment.scale, (y - alignment.center_y) / alignment.scale
    c, s = math.cos(alignment.angle), math.sin(alignment.angle)
    return c * dx + s * dy + 128, -s * dx + c * dy + 128


def reference(image: np.ndarray, alignment: Alignment, crop: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The blend written out in floating point over the whole frame."""
    x, y = (a.astype(np.float32) for a in crop_coordinates(alignment, *image.shape[:2]))
    zoom = crop.shape[0] / 256

    def at(source: np.ndarray) -> np.ndarray:
        u, v = (x + 0.5) * zoom - 0.5, (y + 0.5) * zoom - 0.5
        return cv2.remap(source.astype(np.float32), u, v, cv2.INTER_LINEAR)

    alpha = at(mask)[..., None] / 255 * alignment.opacity
    return image + alpha * (at(crop) - image)


alignments = st.builds(
    Alignment,
    st.just(0),
    st.floats(-80, 400),
    st.floats(-80, 320),
    st.floats(0.05, 3.0),
    st.floats(-math.pi, math.pi),
    st.floats(0, 1),
)


@pytest.mark.parametrize("mode", ["head", "face"])
def test_a_matte_counts_where_heads_are_pasted(mode):
    image, white = picture(300, 300, 0), plain(160, (255, 255, 255))
    alignment = Alignment(0, 150, 150, 1.0, 0.0)
    made = [
        Compositor(mode).compose(image, layers([(alignment, white)], busts=[bust_of(alignment, value)]))
        for value in (0, 255)
    ]
    assert np.array_equal(*made) == (mode == "face")
    assert np.array_equal(made[0], image) == (mode == "head")


def test_the_head_is_cut_from_the_busts_matte():
    """Left of the head's middle somebody, right of it nobody."""
    alignment = Alignment(0, 150, 150, 0.8, 0.2)
    half = bust_of(alignment, 0)
    half.matte[:, :128] = 255
    rows, columns = bust_head(256)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (160, 160)
    made = Compositor().compose(
        np.zeros((300, 300, 3), np.uint8), layers([(alignment, plain(160, (255, 255, 255)))], busts=[half])
    )
    x, y = crop_coordinates(alignment, 300, 300)
    inside = (np.abs(x - 128) < 60) & (np.abs(y - 128) < 60)
    assert made[inside & (x < 125)].min() == 255
    assert made[inside & (x > 131)].max() == 0


def test_two_heads_side_by_side_share_what_is_between_them():
    matte = np.full((160, 160), 255, np.uint8)
    whole = whole_head_mask(matte)
    left, right = Alignment(0, 100, 150, 0.5, 0.0), Alignment(1, 200, 150, 0.5, 0.0)
    assert nearest_part(whole, left, [replace(right, center_x=900)]) is whole
    assert nearest_part(whole, left, []) is whole
    mine, less = (nearest_part(whole, left, [replace(right, scale=scale)]) for scale in (0.5, 1.0))
    assert (less <= mine).all()
    assert (less < mine).any(), "a larger head reaches further"
    red, blue = (plain(160, color) for color in ((255, 0, 0), (0, 0, 255)))
    out = Compositor().compose(
        np.zeros((300, 300, 3), np.uint8),
        layers([(left, red), (right, blue)], busts=[bust_of(left, 255), bust_of(right, 255)]),
    )
    line = out[150, 60:241].astype(int)
    assert (line.sum(axis=1) >= 253).all(), "no gap"
    np.testing.assert_array_equal(line[80], [255, 0, 0])
    np.testing.assert_array_equal(line[100], [0, 0, 255])


@settings(deadline=None, max_examples=40)
@given(
    alignment=alignments,
    size=st.sampled_from([64, 128, 256]),
    mode=st.sampled_from(["head", "face", "square"]),
)
def test_pixels_outside_the_mask_keep_every_bit(alignment, size, mode):
    image, crop = picture(240, 320), picture(size, size, 1)
    before = image.copy()
    out = Compositor(mode).compose(image, layers([(alignment, crop)]))
    assert out.shape == image.shape
    assert out.dtype == np.uint8
    assert not np.shares_memory(out, image)
    np.testing.assert_array_equal(image, before)
    # A frame pixel sees a little around itself: two pixels of the coarser of frame and crop.
    reach = math.ceil(2 * max(256 / size, 1 / alignment.scale))
    mask = {"head": head_mask, "square": square_mask, "face": lambda: face_mask(None)}[mode]()
    near = cv2.dilate(mask, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    x, y = (np.round(a).astype(int) for a in crop_coordinates(alignment, 240, 320))
    inside = (x >= -reach) & (y >= -reach) & (x <= 255 + reach) & (y <= 255 + reach)
    outside = ~inside | (near[y.clip(0, 255), x.clip(0, 255)] == 0)
    np.testing.assert_array_equal(out[outside], image[outside])


@settings(deadline=None, max_examples=30)
@given(alignment=alignments, size=st.sampled_from([128, 256]))
def test_blend_equals_the_formula(alignment, size):
    alignment = replace(alignment, scale=max(alignment.scale, 0.4))
    image = cv2.resize(gradient(256), (320, 240))[::-1].copy()
    out = Compositor().compose(image, layers([(alignment, gradient(size))]))
    expected = reference(image, alignment, gradient(size), head_mask(None, size))
    # Two roundings to 8 bits, and a mask resampled once more.
    assert np.abs(out - expected).max() <= 4


def test_the_middle_of_the_mask_shows_the_crop_alone():
    crop = cv2.GaussianBlur(picture(256, 256, 3), (0, 0), 2)
    out = Compositor().compose(
        np.zeros((300, 300, 3), np.uint8), layers([(Alignment(0, 150, 150, 1.0, 0.0), crop)])
    )
    inside = head_mask() == 255
    difference = np.abs(out[22:278, 22:278].astype(int) - crop)[inside]
    assert difference.max() <= 2


@pytest.mark.parametrize("size", [128, 256])
@pytest.mark.parametrize("scale", [0.3, 0.9, 1.0, 2.2])
def test_the_face_moves_by_fractions_of_a_pixel(size, scale):
    """A white crop's centre of gravity follows the alignment: the paste adds no jitter of its own."""

    def centre(x: float, y: float, angle: float) -> np.ndarray:
        black = np.zeros((720, 720, 3), np.uint8)
        out = Compositor().compose(
            black, layers([(Alignment(0, x, y, scale, angle), plain(size, (255, 255, 255)))])
        )
        m = cv2.moments(out[..., 0])
        return np.array([m["m10"] / m["m00"], m["m01"] / m["m00"]]) - (x, y)

    still = centre(360, 360, 0.0)
    for dx, dy in ((0.25, 0.0), (0.5, 0.5), (0.13, 0.77)):
        assert np.abs(centre(360 + dx, 360 + dy, 0.0) - still).max() < 0.06


def test_opacity_fades_to_the_untouched_frame():
    image, crop = picture(300, 300), plain(256, (255, 255, 255))
    alignment = Alignment(0, 150, 150, 1.0, 0.2)
    gone = Compositor().compose(image, layers([(replace(alignment, opacity=0.0), crop)]))
    np.testing.assert_array_equal(gone, image)
    assert not np.shares_memory(gone, image)
    full = Compositor().compose(image, layers([(alignment, crop)])).astype(float)
    half = Compositor().compose(image, layers([(replace(alignment, opacity=0.5), crop)]))
    assert np.abs(half - (full + image) / 2).max() <= 2


@pytest.mark.parametrize(
    "alignment",
    [
        Alignment(0, -500, -500, 1.0, 0.3),
        Alignment(0, 0, 0, 1.0, 0.3),
        Alignment(0, 319, 120, 0.001, 0.0),
        Alignment(0, 160, 120, 60.0, 3.0),
        Alignment(0, 1e7, -1e7, 5.0, -1.0),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_faces_partly_or_wholly_outside(alignment, mode):
    image = picture(240, 320)
    compositor = Compositor(mode)
    out = compositor.compose(image, layers([(alignment, picture(128, 128, 1))]))
    width, height = compositor.output_size((320, 240))
    assert out.shape == (height, width, 3)


def test_a_face_far_outside_changes_nothing():
    image = picture(240, 320)
    out = Compositor().compose(image, layers([(Alignment(0, -500, 100, 1.0, 0.0), plain(256, (0, 0, 0)))]))
    np.testing.assert_array_equal(out, image)


def test_larger_faces_cover_smaller_ones_in_any_order():
    image = np.zeros((300, 300, 3), np.uint8)
    near = (Alignment(0, 150, 150, 0.8, 0.0), plain(256, (255, 0, 0)))
    far = (Alignment(1, 150, 150, 0.5, 0.0), plain(256, (0, 255, 0)))
    one, other = (Compositor().compose(image, layers(faces)) for faces in ([near, far], [far, near]))
    np.testing.assert_array_equal(one, other)
    assert tuple(one[150, 150]) == (255, 0, 0)


def test_two_overlapping_faces_are_both_there():
    image = np.zeros((300, 600, 3), np.uint8)
    faces = [
        (Alignment(0, 230, 150, 1.0, 0.2), plain(256, (255, 0, 0))),
        (Alignment(1, 360, 150, 1.0, -0.2), plain(128, (0, 255, 0))),
    ]
    out = Compositor().compose(image, layers(faces))
    assert tuple(out[150, 160]) == (255, 0, 0)
    assert tuple(out[150, 430]) == (0, 255, 0)


@pytest.mark.parametrize("size", [128, 256])
def test_a_small_face_is_averaged_not_sampled(size):
    """Stripes finer than the frame's pixels become grey, wherever the face lies between the pixels."""
    crop = plain(size, (0, 0, 0))
    crop[:, ::2] = 255
    image = np.full((100, 100, 3), 128, np.uint8)
    for shift in (0.0, 0.3, 0.5):
        alignment = Alignment(0, 50 + shift, 50, 30 / 256, 0.0)
        out = Compositor().compose(image, layers([(alignment, crop)]))
        assert np.abs(out.astype(int) - 128).max() <= 24


def test_side_by_side_is_the_source_and_the_head_result():
    image, face = picture(120, 161), (Alignment(0, 80, 60, 0.4, 0.1), picture(256, 256, 1))
    compositor = Compositor("side-by-side")
    out = compositor.compose(image, layers([face]))
    assert compositor.output_size((161, 120)) == (322, 120)
    np.testing.assert_array_equal(out[:, :161], image)
    np.testing.assert_array_equal(out[:, 161:], Compositor("head").compose(image, layers([face])))


def test_crop_mode_shows_the_translation_and_holds_it():
    compositor = Compositor("crop", size=256)
    image, alignment = picture(90, 90), Alignment(3, 45, 45, 0.3, 0.0)
    assert (compositor.compose(image, layers([])) == 127).all(), "grey before the first face"
    crop = picture(256, 256, 1)
    np.testing.assert_array_equal(compositor.compose(image, layers([(alignment, crop)])), crop)
    held = compositor.compose(image, layers([]))
    np.testing.assert_array_equal(held, crop)
    held[:] = 0
    np.testing.assert_array_equal(
        compositor.compose(image, layers([])), crop, "the held picture is nobody else's"
    )
    small = compositor.compose(image, layers([(alignment, gradient(128))]))
    assert np.abs(small.astype(int) - gradient(256)).max() <= 2
    first = replace(alignment, track_id=0)
    np.testing.assert_array_equal(
        compositor.compose(image, layers([(alignment, gradient(256)), (first, crop)])), crop
    )
    compositor.reset()
    assert (compositor.compose(image, layers([])) == 127).all()


def test_crop_mode_dissolves_a_lost_face_to_its_source():
    fading = Alignment(0, 45, 45, 0.3, 0.0, opacity=0.25)
    faces, image = [(fading, plain(128, (200, 200, 200)))], picture(90, 90)
    out = Compositor("crop", size=128).compose(image, layers(faces, [plain(256, (100, 100, 100))]))
    assert np.abs(out.astype(int) - 125).max() <= 1
    out = Compositor("crop", size=128).compose(image, layers(faces))
    assert (out == 200).all()


def test_views_and_read_only_arrays_are_accepted():
    image, crop = picture(240, 320), picture(256, 256, 1)
    alignment = Alignment(0, 160, 120, 0.8, 0.4)
    expected = Compositor().compose(image, layers([(alignment, crop)]))
    locked = image.copy()
    locked.setflags(write=False)
    mirrored = crop[:, ::-1].copy()[:, ::-1]
    np.testing.assert_array_equal(Compositor().compose(locked, layers([(alignment, mirrored)])), expected)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="oval"):
        Compositor("oval")
    with pytest.raises(ValueError, match="size"):
        Compositor("crop", size=0)
    alignment, image = Alignment(0, 10, 10, 1.0, 0.0), picture(20, 20)
    for crop in (np.zeros((256, 128, 3), np.uint8), np.zeros((256, 256, 3)), np.zeros((256, 256), np.uint8)):
        with pytest.raises(ValueError, match="SxSx3"):
            Compositor().compose(image, layers([(alignment, crop)]))
    with pytest.raises(ValueError, match="without a drawing"):
        Compositor().compose(image, [FaceLayer(alignment)])


def in_colors(count: int, alignment: Alignment) -> list[tuple[Alignment, np.ndarray]]:
    return [(alignment, plain(64, (10 * i + 5, 0, 200))) for i in range(count)]


@pytest.mark.parametrize(("rows", "columns", "middle"), [(3, 3, 4), (3, 5, 7), (1, 3, 1), (5, 5, 12)])
def test_a_grid_with_a_middle_has_the_face_there(rows: int, columns: int, middle: int) -> None:
    image, alignment = picture(200, 300, 1), Alignment(0, 150, 100, 0.6, 0.1)
    grid = GridCompositor(rows, columns, cell=32)
    assert grid.styles == rows * columns - 1
    assert grid.output_size((300, 200)) == (32 * columns, 32 * rows)
    out = grid.compose(image, layers(in_colors(grid.styles, alignment)))
    assert out.shape == (32 * rows, 32 * columns, 3)
    cells = [out[32 * r : 32 * r + 32, 32 * c : 32 * c + 32] for r in range(rows) for c in range(columns)]
    np.testing.assert_array_equal(cells.pop(middle), crop_face(image, alignment, 32))
    for i, cell in enumerate(cells):
        np.testing.assert_array_equal(cell, plain(32, (10 * i + 5, 0, 200)))


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (2, 3), (3, 2), (1, 1), (1, 2)])
def test_a_grid_without_a_middle_has_the_face_beside_it(rows: int, columns: int) -> None:
    image, alignment = picture(200, 300, 1), Alignment(0, 150, 100, 0.6, 0.1)
    grid = GridCompositor(rows, columns, cell=32)
    assert grid.styles == rows * columns
    out = grid.compose(image, layers(in_colors(grid.styles, alignment)))
    side = 32 * rows
    assert out.shape == (side, side + 32 * columns, 3) == (*grid.output_size((300, 200))[::-1], 3)
    np.testing.assert_array_equal(out[:, :side], crop_face(image, alignment, side))
    for i in range(grid.styles):
        top, left = 32 * (i // columns), side + 32 * (i % columns)
        np.testing.assert_array_equal(out[top : top + 32, left : left + 32], plain(32, (10 * i + 5, 0, 200)))


def test_a_grid_stays_while_there_is_no_face_and_fades_to_the_face() -> None:
    image, alignment = picture(200, 300, 1), Alignment(0, 150, 100, 0.6, 0.0)
    grid = GridCompositor(3, 3, cell=32)
    empty = grid.compose(image, layers([]))
    assert empty.shape == (96, 96, 3)
    assert empty.std() == 0
    shown = grid.compose(image, layers(in_colors(8, alignment)))
    np.testing.assert_array_equal(grid.compose(picture(200, 300, 2), layers([])), shown)
    gone = grid.compose(image, layers(in_colors(8, replace(alignment, opacity=0.0))))
    np.testing.assert_array_equal(gone, np.tile(crop_face(image, alignment, 32), (3, 3, 1)))
    grid.reset()
    np.testing.assert_array_equal(grid.compose(image, layers([])), empty)


def test_captions_are_those_of_the_styles() -> None:
    image, alignment = picture(200, 300, 1), Alignment(0, 150, 100, 0.6, 0.0)
    bare, named = GridCompositor(3, 3, cell=64), GridCompositor(3, 3, cell=64, captions=["42", "7"])
    faces = in_colors(8, alignment)
    changed = (bare.compose(image, layers(faces)) != named.compose(image, layers(faces))).any(-1)
    cells = [changed[64 * r : 64 * r + 64, 64 * c : 64 * c + 64].any() for r in range(3) for c in range(3)]
    assert cells == [True, True] + [False] * 7
