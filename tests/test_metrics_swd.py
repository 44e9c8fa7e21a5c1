"""Sliced Wasserstein distance on sets with known distances. Device: CPU."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.data import astronaut

from engines.errors import InputError
from train.metrics.pictures import to_tensor
from train.metrics.swd import (
    TextureSpace,
    _enlarge,
    laplacian_pyramid,
    patches,
    sliced_distance,
    swd_estimate,
    wasserstein,
)


def test_of_a_set_with_itself_is_nothing():
    x = np.random.default_rng(0).standard_normal((200, 20))
    assert sliced_distance(x, np.random.default_rng(1).permutation(x)) == pytest.approx(0, abs=1e-6)


def test_of_a_shift_is_the_formula():
    # Along a direction u, points shifted by d move by |d.u|; the mean of |u_1| on the sphere is a ratio of gammas.
    x = np.random.default_rng(0).standard_normal((300, 9))
    shift = np.zeros(9)
    shift[4] = 5.0
    expected = 5 * math.gamma(4.5) / (math.sqrt(math.pi) * math.gamma(5))
    assert sliced_distance(x, x + shift, directions=4000) == pytest.approx(expected, rel=0.03)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(-3, 3))
def test_in_one_dimension_sets_of_any_size(n, m, shift):
    # Points at the middles of n (or m) equal parts of 0..1: both are the uniform distribution to within 1/n.
    a, b = ((np.arange(k, dtype=np.float32)[:, None] + 0.5) / k for k in (n, m))
    assert wasserstein(a, b + np.float32(shift)) == pytest.approx(abs(shift), abs=0.5 / min(n, m) + 1e-5)


def test_unequal_sets_keep_their_mass():
    # {0, 0, 0, 4} against {0, 4}: a quarter of the mass moves by 4.
    a, b = np.array([[0.0], [0], [0], [4]]), np.array([[0.0], [4]])
    assert wasserstein(a, b) == pytest.approx(1)
    with pytest.raises(InputError, match="two sets"):
        sliced_distance(a, np.zeros((3, 2)))


def test_the_pyramid_adds_up_to_the_picture():
    picture = to_tensor([np.ascontiguousarray(astronaut()[:256, 100:356])], 64)
    levels = laplacian_pyramid(picture)
    assert [level.shape[-1] for level in levels] == [64, 32, 16]
    whole = levels[-1]
    for level in reversed(levels[:-1]):
        whole = _enlarge(whole, level.shape[-1]) + level
    assert torch.allclose(whole, picture, atol=1e-5)
    # A flat picture has nothing but its coarsest level.
    flat = laplacian_pyramid(torch.full((1, 3, 64, 64), 0.5))
    assert max(level.abs().max().item() for level in flat[:-1]) < 1e-6
    assert torch.allclose(flat[-1], torch.tensor(0.5))


def test_patches_are_cut_out_of_the_levels():
    picture = to_tensor([np.ascontiguousarray(astronaut()[:256, 100:356])], 16)
    found = patches(picture, 300, torch.Generator().manual_seed(0))
    assert found.shape == (1, 1, 300, 147)
    windows = picture[0].unfold(1, 7, 1).unfold(2, 7, 1).permute(1, 2, 0, 3, 4).reshape(-1, 147).numpy()
    assert {row.tobytes() for row in found[0, 0]} <= {row.tobytes() for row in windows}
    assert len({row.tobytes() for row in found[0, 0]}) > 50


def test_blur_is_farther_than_another_picture_of_the_same_kind():
    rng = np.random.default_rng(0)

    def noise(blur: int) -> list[np.ndarray]:
        pictures = rng.integers(0, 256, (12, 64, 64, 3)).astype(np.float32)
        for _ in range(blur):
            pictures = (pictures + np.roll(pictures, 1, 1) + np.roll(pictures, 1, 2)) / 3
        return list(pictures.astype(np.uint8))

    space = TextureSpace(patches=32, side=64)
    sharp, again, soft = space(noise(0)), space(noise(0)), space(noise(4))
    same, worse = swd_estimate(again, sharp), swd_estimate(soft, sharp)
    assert worse.value > 2.5 * same.value
    assert worse.low < worse.value < worse.high
    assert worse.count == 12
