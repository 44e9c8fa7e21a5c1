"""Made motion for the temporal loss: smooth, known, nowhere folded over. Device: CPU."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.augment import apply_affine, random_affine, resample
from train.flow import MOST, inside, motion_difference, random_motion


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def still(count: int, size: int) -> torch.Tensor:
    return random_motion(count, size, seeded(), affine=False)


def test_without_motion_nothing_moves():
    pictures = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(resample(pictures, still(2, 16)), pictures, rtol=1e-4, atol=1e-5)


def test_without_flow_it_is_the_affine_map():
    pictures = torch.rand(3, 3, 16, 16)
    grid = random_motion(3, 16, seeded(5))
    theta = random_affine(
        3, seeded(5), degrees=8, scale=(0.92, 1.08), translate=0.04, jitter_crop=1, flip=False
    )
    torch.testing.assert_close(resample(pictures, grid), apply_affine(pictures, theta))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 100_000), st.sampled_from([8, 33, 64]))
def test_the_flow_is_bounded_smooth_and_does_not_fold(seed, size):
    shift = random_motion(4, size, seeded(seed), flow=MOST, affine=False) - still(4, size)
    assert shift.abs().max() <= 2 * MOST * 1.6  # bicubic interpolation overshoots a little
    spacing = 2 / size
    dx = shift.diff(dim=2)[:, :-1] / spacing
    dy = shift.diff(dim=1)[:, :, :-1] / spacing
    determinant = (1 + dx[..., 0]) * (1 + dy[..., 1]) - dx[..., 1] * dy[..., 0]
    assert determinant.min() > 0


def test_where_pixels_are_read_is_not_rounded_to_bfloat16():
    with torch.autocast("cpu", torch.bfloat16):
        grid = random_motion(3, 64, seeded(2), flow=0.05)
    assert torch.equal(grid, random_motion(3, 64, seeded(2), flow=0.05))


def test_nothing_is_mirrored():
    grid = random_motion(64, 16, seeded(1), flow=MOST)
    across = grid[:, :, -1, 0] - grid[:, :, 0, 0]
    assert across.min() > 0


def test_flow_moves_pictures_differently():
    grid = random_motion(3, 16, seeded(), flow=0.05, affine=False)
    assert (grid[0] - grid[1]).abs().max() > 0.01
    assert (grid - still(3, 16)).abs().mean() > 0.01


def test_too_much_flow_is_refused():
    with pytest.raises(ValueError, match="flow must be"):
        random_motion(1, 8, seeded(), flow=0.2)


def test_a_translation_that_moves_along_differs_by_nothing():
    grid = random_motion(2, 32, seeded(3), flow=MOST)
    pictures = torch.rand(2, 3, 32, 32)

    def translate(x: torch.Tensor) -> torch.Tensor:
        return 0.5 - x  # pixel by pixel, so it does

    moved = translate(resample(pictures, grid))
    assert motion_difference(moved, resample(translate(pictures), grid), grid) < 1e-6
    assert motion_difference(moved, translate(pictures), grid) > 0.05


def test_only_where_the_motion_is_valid():
    grid = still(1, 4)
    grid[0, :, 2:, 0] += 2  # the right half reads from outside
    assert inside(grid)[0, 0].tolist() == [[True, True, False, False]] * 4
    a = torch.zeros(1, 3, 4, 4)
    b = torch.tensor([1.0, 1, 9, 9]).expand(1, 3, 4, 4)
    assert motion_difference(a, b, grid).item() == 0.5
