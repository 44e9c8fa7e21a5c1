"""Adaptive discriminator augmentation: its transformations, their gradients, and how p is steered. Device: CPU."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.ada import EVERY, P_MOST, AdaptiveAugment, _turn, random_colors, random_placement
from train.augment import apply_affine


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_switched_off_it_does_nothing():
    pictures, generator = torch.rand(2, 3, 8, 8), seeded()
    before = generator.get_state()
    assert AdaptiveAugment()(pictures, generator) is pictures
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(random_placement(5, 16, 0.0, seeded()), torch.eye(2, 3).repeat(5, 1, 1))
    matrix, offset = random_colors(5, 0.0, seeded())
    torch.testing.assert_close(matrix, torch.eye(3).repeat(5, 1, 1))
    assert not offset.any()


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_mirror_quarter_turns_and_shifts_move_pixels_as_they_are(seed):
    theta = random_placement(32, 16, 1.0, seeded(seed))
    # Zoom and rotation taken out again: what is left is a signed permutation of the axes.
    linear = theta[:, :, :2]
    u, _, v = torch.linalg.svd(linear)
    zoom = torch.linalg.det(linear).abs().sqrt()
    torch.testing.assert_close(linear, zoom[:, None, None] * (u @ v), rtol=0, atol=1e-5)  # similarities only
    assert zoom.log2().abs().max() < 1.2
    pixels = theta[:, :, 2] * 8
    torch.testing.assert_close(pixels, pixels.round())
    assert pixels.abs().max() <= 2


@pytest.mark.parametrize("quarters", range(4))
def test_a_quarter_turn_reads_every_pixel_once(quarters):
    picture = torch.arange(3 * 8 * 8, dtype=torch.float32).view(1, 3, 8, 8)
    angle = torch.tensor([quarters * torch.pi / 2])
    theta = torch.cat([_turn(angle), torch.zeros(1, 2, 1)], -1)
    expected = torch.rot90(picture, quarters, (2, 3))
    torch.testing.assert_close(apply_affine(picture, theta), expected, rtol=1e-4, atol=1e-3)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_colors_keep_grey_grey(seed):
    matrix, offset = random_colors(16, 1.0, seeded(seed))
    for level in (-0.7, 0.3):
        out = (matrix @ torch.full((3, 1), level))[..., 0] + offset
        torch.testing.assert_close(out, out[:, :1].expand(-1, 3), rtol=1e-4, atol=1e-4)


def test_a_probability_is_that():
    changed = random_placement(4000, 64, 0.3, seeded())[:, :, 2].ne(0).any(1).float().mean()
    assert changed == pytest.approx(0.3, abs=0.03)  # the shift; 1 in 289 of those is by nothing


def test_gradients_go_through():
    ada = AdaptiveAugment(p=1.0)
    pictures = torch.rand(2, 3, 8, 8, dtype=torch.float64)

    def value(x: torch.Tensor) -> torch.Tensor:
        return (ada(x, seeded(4)) ** 2).sum()

    x = pictures.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(value(x), x)
    direction = torch.randn(x.shape, generator=seeded(1), dtype=torch.float64)
    step = 1e-2
    numeric = (value(pictures + step * direction) - value(pictures - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(numeric), rel=1e-2)


@pytest.mark.parametrize(("logit", "ends"), [(3.0, P_MOST), (-3.0, 0.0)])
def test_p_goes_up_when_reals_are_known_by_heart_and_down_when_not(logit, ends):
    ada = AdaptiveAugment(target=0.6, images=1000, p=0.2)
    heads = [torch.full((10, 1, 4, 4), logit), torch.full((10, 1), logit)]
    for _ in range(EVERY):
        assert ada.p == 0.2
        ada.observe(heads)
    assert ada.p == pytest.approx(0.2 + (0.04 if logit > 0 else -0.04))
    for _ in range(100):
        ada.observe(heads)
    assert ada.p == ends


def test_state_goes_on_in_the_middle():
    one = AdaptiveAugment(images=100)
    for step in range(EVERY + 2):
        one.observe([torch.full((4, 1), 1.0 + step)])
    two = AdaptiveAugment(images=100)
    two.load_state_dict(one.state_dict())
    for ada in (one, two):
        ada.observe([torch.ones(4, 1)])
        ada.observe([torch.ones(4, 1)])
    assert one.p == two.p > 0


def test_state_goes_on_on_another_device():
    """A checkpoint's signs are on the CPU; "meta" stands for the GPU here: it has no values, but a device."""
    one, two = AdaptiveAugment(), AdaptiveAugment()
    one.observe([torch.ones(4, 1)])
    two.load_state_dict(one.state_dict())
    two.observe([torch.ones(4, 1, device="meta")])
    assert torch.stack(two._signs).device.type == "meta"
