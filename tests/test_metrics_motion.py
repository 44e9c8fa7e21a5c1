"""Warp error, style drift and equivariance on motion that is known. Device: CPU."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from engines.errors import InputError
from train.metrics.motion import (
    Move,
    equivariance_error,
    optical_flow,
    psnr,
    random_moves,
    style_drift,
    style_spread,
    visible,
    warp_back,
    warp_errors,
)


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    return np.ascontiguousarray(astronaut()[:256, 100:356])


def shifted(count: int, step: int) -> list[np.ndarray]:
    """A window that moves to the left by `step` pixels a frame: its content moves to the right."""
    picture = astronaut()
    return [np.ascontiguousarray(picture[:192, 150 - step * i : 342 - step * i]) for i in range(count)]


def test_flow_of_a_known_shift():
    first, second = shifted(2, 5)
    flow = optical_flow(first, second)[24:-24, 24:-24]
    assert np.abs(np.median(flow, (0, 1)) - [5, 0]).max() < 0.2
    back = warp_back(second.astype(np.float32), np.full((192, 192, 2), (5, 0), np.float32))
    assert np.abs(back[:, :180] - first[:, :180]).max() < 1e-3


def test_visible_leaves_out_what_was_covered():
    forward = np.zeros((64, 64, 2), np.float32)
    backward = np.zeros((64, 64, 2), np.float32)
    backward[20:40, 20:40] = (6, 0)  # there and back again ends elsewhere
    mask = visible(forward, backward)
    assert not mask[20:40, 20:40].any()
    assert mask[45:60, 10:50].all()
    assert not mask[0].any()


def test_warp_error_of_what_moves_along_is_small_and_of_flicker_is_known():
    frames = shifted(4, 3)
    along = warp_errors(frames, [255 - f for f in frames])
    assert along.shape == (3,)
    assert along.max() < 1e-3
    # Results that do not move at all but change their brightness by 0.2 each frame: exactly 0.04.
    flicker = [np.full_like(f, 51 * (i % 2)) for i, f in enumerate(frames)]
    assert warp_errors(frames, flicker) == pytest.approx([0.04] * 3, rel=1e-5)
    # Results that stay while the source moves are worse than those that move along.
    still = warp_errors(frames, [frames[0]] * 4)
    assert still.min() > 5 * along.max()


def test_warp_error_wants_frames():
    with pytest.raises(InputError, match="got 1 and 1"):
        warp_errors(shifted(1, 0), shifted(1, 0))


def test_style_drift():
    rng = np.random.default_rng(0)
    looks = rng.standard_normal((4000, 8))
    spread = style_spread(looks)
    assert spread == pytest.approx(math.sqrt(8), rel=0.03)
    assert style_drift(np.ones((30, 8)), spread) == 0
    assert style_drift(rng.standard_normal((4000, 8)), spread) == pytest.approx(1, rel=0.05)
    # Half of the frames at +-a along one axis: distance a from the mean.
    codes = np.zeros((10, 8))
    codes[::2, 3] = 2.0
    assert style_drift(codes, spread) == pytest.approx(1.0 / spread)
    with pytest.raises(InputError, match="one code for all"):
        style_drift(looks, 0.0)
    with pytest.raises(InputError, match="two style codes"):
        style_spread(looks[:1])


def test_moves_are_what_they_say(face):
    assert np.array_equal(Move().apply(face), face)
    right = Move(dx=10 / 256).apply(face)
    assert np.array_equal(right[:, 10:], face[:, :-10])
    turned = Move(angle=math.pi / 2).apply(face)
    assert np.abs(turned.astype(int) - np.rot90(face, -1)).max() <= 1
    point = Move(scale=1.5).matrix(101) @ [50, 50, 1]
    assert point == pytest.approx([50, 50])
    assert random_moves(5, 1) == random_moves(5, 1) != random_moves(5, 2)


@pytest.mark.parametrize("move", random_moves(4, 3))
def test_equivariance_of_known_translators(face, move):
    assert equivariance_error(lambda x: x, face, move) == 0
    assert equivariance_error(lambda x: 255 - x, face, move) < 1e-5  # pointwise: rounding alone
    assert equivariance_error(lambda x: np.full_like(x, 90), face, move) < 1e-9
    # What is painted at a fixed place does not follow the face.
    ramp = np.linspace(0, 255, 256, dtype=np.uint8)[None, :, None].repeat(256, 0).repeat(3, 2)
    fixed = equivariance_error(lambda x: ramp, face, move)
    assert fixed > 1e-5


def test_equivariance_error_of_a_fixed_picture_is_the_formula(face):
    # A ramp of one level a pixel stays; moved by 8 pixels it differs by 8 levels everywhere.
    ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(256, 0).repeat(3, 2)
    error = equivariance_error(lambda x: ramp, face, Move(dx=8 / 256))
    assert error == pytest.approx((8 / 255) ** 2, rel=1e-6)
    assert psnr([error]).value == pytest.approx(20 * math.log10(255 / 8))


def test_equivariance_ranks_smooth_before_checkered(face):
    """Pooling on a grid, as strided networks do, loses to a filter that is the same everywhere."""

    def smooth(x):
        return cv2.GaussianBlur(x, (0, 0), 3)

    def on_a_grid(x):
        small = cv2.resize(x, (16, 16), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (256, 256), interpolation=cv2.INTER_NEAREST)

    moves = random_moves(4)
    better, worse = ([equivariance_error(f, face, m) for m in moves] for f in (smooth, on_a_grid))
    assert psnr(better).value > psnr(worse).value + 10


def test_psnr_interval_is_the_right_way_round():
    estimate = psnr([0.01, 0.02, 0.03, np.nan])
    assert estimate.low < estimate.value < estimate.high
    assert estimate.count == 3
    assert psnr([0.0, 0.0]).value == 99
