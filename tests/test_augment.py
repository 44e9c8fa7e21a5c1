"""Augmentation: the composed affine map against a float64 chain, exact cases, reproducibility. CPU."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.augment import (
    apply_affine,
    augment,
    compose_affine,
    overshadow,
    random_affine,
    recolor,
    relight,
    to_float,
)


def picture(count: int = 1, size: int = 32, seed: int = 0) -> torch.Tensor:
    """Smooth random images in -1..1."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(-1, 1)


def single(
    angle: float = 0,
    scale: float = 1,
    shift: tuple[float, float] = (0, 0),
    crop_scale: float = 1,
    crop_shift: tuple[float, float] = (0, 0),
    flip: float = 1,
) -> torch.Tensor:
    def vector(*values: float) -> torch.Tensor:
        return torch.tensor([values], dtype=torch.float64)

    return compose_affine(
        vector(angle)[0],
        vector(scale)[0],
        vector(*shift),
        crop_scale,
        vector(*crop_shift),
        vector(flip)[0],
    )


def test_identity_reproduces_the_images() -> None:
    x = picture(3)
    torch.testing.assert_close(apply_affine(x, single().expand(3, -1, -1)), x, rtol=0, atol=1e-5)
    off = augment(x, degrees=0, scale=(1, 1), translate=0, jitter_crop=1, flip=False)
    torch.testing.assert_close(off, x, rtol=0, atol=1e-5)


def test_flip_mirrors_columns() -> None:
    x = picture()
    torch.testing.assert_close(apply_affine(x, single(flip=-1)), x.flip(3), rtol=0, atol=1e-5)


def test_quarter_turn_is_clockwise_on_the_screen() -> None:
    x = picture()
    turned = apply_affine(x, single(angle=math.pi / 2))
    torch.testing.assert_close(turned, torch.rot90(x, -1, dims=(2, 3)), rtol=0, atol=1e-4)


def test_shift_moves_content_right_and_down_and_reflects() -> None:
    x = picture(size=32)
    moved = apply_affine(x, single(shift=(2 * 4 / 32, 2 * 2 / 32)))
    torch.testing.assert_close(moved[:, :, 2:, 4:], x[:, :, :-2, :-4], rtol=0, atol=1e-5)
    torch.testing.assert_close(moved[:, :, 2:, :4], x[:, :, :-2, :4].flip(3), rtol=0, atol=1e-5)


def test_crop_takes_a_window_of_the_enlarged_image() -> None:
    # Twice as large, window at the top left: what was the top left quarter.
    x = picture(size=32)
    window = apply_affine(x, single(crop_scale=2, crop_shift=(-1, -1)))
    quarter = x[:, :, :16, :16]
    enlarged = torch.nn.functional.interpolate(quarter, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(window[:, :, 1:-1, 1:-1], enlarged[:, :, 1:-1, 1:-1], rtol=0, atol=1e-5)


reals = st.floats(-1, 1, allow_nan=False)


@settings(deadline=None, max_examples=60)
@given(
    angle=reals,
    scale=st.floats(0.5, 2),
    shift=st.tuples(reals, reals),
    crop_scale=st.floats(1, 1.5),
    crop_shift=st.tuples(reals, reals),
    flip=st.sampled_from([-1.0, 1.0]),
    point=st.tuples(reals, reals),
)
def test_composition_inverts_the_chain(
    angle: float,
    scale: float,
    shift: tuple[float, float],
    crop_scale: float,
    crop_shift: tuple[float, float],
    flip: float,
    point: tuple[float, float],
) -> None:
    """Sending a content point through the steps one by one, then through theta, gives the point back."""
    x, y = point
    turned_x = math.cos(angle) * x - math.sin(angle) * y
    turned_y = math.sin(angle) * x + math.cos(angle) * y
    placed = np.array([scale * turned_x, scale * turned_y]) + np.array(shift)
    windowed = crop_scale * placed - np.array(crop_shift)
    seen = np.array([flip * windowed[0], windowed[1], 1.0])
    theta = single(angle, scale, shift, crop_scale, crop_shift, flip)[0].numpy()
    np.testing.assert_allclose(theta @ seen, point, atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_drawn_maps_stay_in_range(seed: int) -> None:
    theta = random_affine(64, torch.Generator().manual_seed(seed)).double()
    linear = torch.linalg.inv(theta[:, :, :2])
    flip = torch.sign(torch.linalg.det(linear))
    zoom = torch.linalg.det(linear).abs().sqrt() * 256 / 286
    assert ((zoom > 0.8 - 1e-4) & (zoom < 1.2 + 1e-4)).all()
    # Forward: D R zoom; its second row is unaffected by the mirror.
    angle = torch.atan2(linear[:, 1, 0], linear[:, 1, 1])
    assert (angle.abs() <= math.radians(20) + 1e-4).all()
    assert {-1.0, 1.0} == set(flip.tolist())
    # Where the centre of the content lands: shift enlarged, less the window's offset.
    centre = (linear @ -theta[:, :, 2:])[:, :, 0].abs()
    assert (centre <= 0.2 * 286 / 256 + 30 / 256 + 1e-4).all()


def test_a_seed_gives_the_same_batch_and_images_differ() -> None:
    x = picture().expand(4, -1, -1, -1)
    one = augment(x, torch.Generator().manual_seed(3))
    assert torch.equal(one, augment(x, torch.Generator().manual_seed(3)))
    assert not torch.equal(one, augment(x, torch.Generator().manual_seed(4)))
    assert not torch.equal(one[0], one[1])
    assert one.shape == x.shape
    assert one.abs().max() <= 1


def test_switching_a_part_off_leaves_the_others_alone() -> None:
    def draw(**off: object) -> torch.Tensor:
        return random_affine(8, torch.Generator().manual_seed(0), **off)  # type: ignore[arg-type]

    unflipped = draw(flip=False)
    mirrored = torch.linalg.det(draw()[:, :, :2]) < 0
    assert mirrored.any()
    assert torch.equal(unflipped[~mirrored], draw()[~mirrored])


def test_uint8_comes_out_as_float_in_the_networks_range() -> None:
    levels = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 16, 16)
    torch.testing.assert_close(to_float(levels)[0, :, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))
    out = augment(levels, torch.Generator().manual_seed(0))
    assert out.dtype == torch.float32
    # A constant image stays constant under any map: nothing black comes in from outside.
    torch.testing.assert_close(out, to_float(levels), rtol=0, atol=1e-5)


def test_dtype_is_kept_and_gradient_flows() -> None:
    x = picture(2)
    generator = torch.Generator().manual_seed(0)
    assert augment(x.bfloat16(), generator).dtype == torch.bfloat16
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = augment(x, generator)
    assert out.dtype == torch.float32
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="jitter_crop"):
        random_affine(1, None, jitter_crop=0.9)
    with pytest.raises(ValueError, match="scale"):
        random_affine(1, None, scale=(0.0, 1.0))
    with pytest.raises(ValueError, match="got"):
        augment(torch.zeros(1, 3, 8, 9))


def test_recoloring_keeps_grey_grey_and_moves_every_hue():
    generator = torch.Generator().manual_seed(0)
    grey = torch.full((16, 3, 4, 4), 0.25)
    out = recolor(grey, generator)
    torch.testing.assert_close(out[:, 0], out[:, 1])
    torch.testing.assert_close(out[:, 0], out[:, 2])
    red = torch.zeros(64, 3, 2, 2)
    red[:, 0] = 1.0
    brightest = recolor(red, generator)[:, :, 0, 0].argmax(1)
    assert set(brightest.tolist()) == {0, 1, 2}


def test_recoloring_is_one_map_per_image():
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, 8, 8) * 2 - 1
    flipped = recolor(image.flip(-1), torch.Generator().manual_seed(2)).flip(-1)
    torch.testing.assert_close(recolor(image, torch.Generator().manual_seed(2)), flipped)
    out = recolor(image[:1].expand(2, -1, -1, -1), generator)
    assert not torch.allclose(out[0], out[1])


def test_colors_are_not_rounded_to_bfloat16():
    image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        out = recolor(image, torch.Generator().manual_seed(2))
    assert torch.equal(out, recolor(image, torch.Generator().manual_seed(2)))


def test_uneven_recoloring_turns_half_of_the_hues_by_little():
    red = torch.zeros(512, 3, 1, 1)
    red[:, 0] = 1.0
    for evenness, least, most in ((1.0, 0.05, 0.2), (1 / 3, 0.45, 0.6)):
        out = recolor(red, torch.Generator().manual_seed(3), evenness=evenness)[:, :, 0, 0]
        hue = torch.atan2((out[:, 1] - out[:, 2]) * 3**0.5, 2 * out[:, 0] - out[:, 1] - out[:, 2])
        near = (hue.rad2deg().abs() < 180 / 8).float().mean()
        assert least < near < most
        assert hue.rad2deg().abs().max() > 150 and 0.4 < (hue > 0).float().mean() < 0.6


def test_a_shadow_lies_over_one_side_of_half_of_the_images():
    white = torch.ones(256, 3, 32, 32)
    out = overshadow(white, torch.Generator().manual_seed(0))
    assert out.max() <= 1 and out.min() > -1
    assert torch.equal(out[:, 0], out[:, 1]) and torch.equal(out[:, 0], out[:, 2])
    is_shaded = (out != white).flatten(1).any(1)
    assert 0.4 < is_shaded.float().mean() < 0.6
    corners = out[is_shaded][:, 0][:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert ((corners.amax(1) - corners.amin(1)) > 0.3).float().mean() > 0.9
    steepest = torch.stack([out.diff(dim=d).abs().flatten(1).amax(1)[is_shaded] for d in (2, 3)]).amax(0)
    assert steepest.min() < 0.1 and steepest.max() > 0.4  # soft edges and sharp ones
    assert torch.equal(overshadow(-white, torch.Generator().manual_seed(0)), -white)  # black stays black


def test_light_is_smooth_differs_from_place_to_place_and_keeps_what_is_brighter_brighter():
    grey = torch.zeros(4, 3, 128, 128)
    out = relight(grey, torch.Generator().manual_seed(5))
    assert out.std((2, 3)).min() > 0.1
    assert out.diff(dim=2).abs().max() < 0.15 and out.diff(dim=3).abs().max() < 0.15
    assert torch.equal(out[:, 0], out[:, 2])  # light has no colour
    assert not torch.equal(out[0], out[1])
    brighter = relight(grey + 0.2, torch.Generator().manual_seed(5))
    assert (brighter > out).all()
    ratio = (brighter - out) / 0.2  # the gain
    assert ratio.min() < 0.8 and ratio.max() > 1.25
