"""Palette distance on pictures with known colours. Device: CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from train.metrics.palette import PaletteSpace, mean_distances, palette_estimate
from train.projected import energy_distance, palette_cells


def plain(*colors: tuple[int, int, int]) -> list[np.ndarray]:
    return [np.full((64, 64, 3), color, np.uint8) for color in colors]


def random_pictures(count: int, seed: int, low: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(low, 256, (16, 16, 3), dtype=np.uint8) for _ in range(count)]


def test_colors_are_those_of_the_cells():
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, 32:, 0] = 255
    palettes = PaletteSpace()([picture])
    assert palettes.shape == (1, 256, 3) and palettes.dtype == np.float32
    red = palettes.reshape(16, 16, 3)
    assert (red[:, 8:, 0] == 1).all() and (red[:, :8, 0] == -1).all() and (red[..., 1:] == -1).all()
    # Black to red is 2, in half of the cells.
    assert mean_distances(palettes, PaletteSpace()(plain((0, 0, 0)))) == pytest.approx(1)


def test_of_two_plain_sets_is_the_formula():
    black, white = plain((0, 0, 0), (0, 0, 0)), plain((255, 255, 255), (255, 255, 255))
    space = PaletteSpace()
    apart = 2 * 3**0.5
    assert palette_estimate(space(black), space(white)).value == pytest.approx(2 * apart)
    mixed = plain((0, 0, 0), (255, 255, 255))
    assert palette_estimate(space(mixed), space(black)).value == pytest.approx(apart - apart)


def test_one_kind_is_no_distance_apart_and_darker_pictures_are():
    space = PaletteSpace()
    real = space(random_pictures(60, 0))
    same = palette_estimate(space(random_pictures(60, 1)), real)
    lighter = palette_estimate(space(random_pictures(60, 2, low=100)), real)
    assert abs(same.value) < 0.003 and same.low < same.value < same.high
    assert lighter.low > 0.05
    # Styles of one face are left out together: the interval knows that they are no more faces.
    repeated = np.repeat(space(random_pictures(12, 3)), 5, 0)
    grouped = palette_estimate(repeated, real, np.repeat(np.arange(12), 5))
    alone = palette_estimate(repeated, real)
    assert grouped.value == alone.value and grouped.high - grouped.low > alone.high - alone.low


def test_it_is_what_training_asks_for():
    a, b = random_pictures(5, 0), random_pictures(7, 1, low=60)
    fake, real = (
        palette_cells(torch.from_numpy(np.stack(x)).permute(0, 3, 1, 2) / 127.5 - 1) for x in (a, b)
    )
    space = PaletteSpace()
    assert float(energy_distance(fake, real, fake)) == pytest.approx(
        palette_estimate(space(a), space(b)).value, abs=1e-5
    )
