"""Augmentation of a training batch: one random affine map per image, applied in a single resampling.

The official training transform (rotation, zoom, shift, resize to 286 and random 256 crop, horizontal flip) is
a chain of affine maps, so their product needs one bilinear read per pixel and no intermediate image. It runs
where the images are; only the random numbers come from the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

LIGHTS, LIGHT = 5, 0.35
"""Of `relight`: places of light along a side, and the deviation of their strength."""


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 to float32 -1..1; floating-point images pass unchanged."""
    return images if images.is_floating_point() else images.to(torch.float32).div_(127.5).sub_(1.0)


def compose_affine(
    angle: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    crop_scale: float,
    crop_shift: torch.Tensor,
    flip: torch.Tensor,
) -> torch.Tensor:
    """The sampling matrices of: rotate and zoom, shift, enlarge by `crop_scale`, crop back, flip.

    Coordinates are normalised: the image spans -1..1 in both directions, edge to edge (y downwards).

    Args:
        angle: (N,) radians; positive turns the content clockwise on the screen.
        scale: (N,) enlargement of the content about the centre.
        shift: (N, 2) movement of the content, normalised units (2 is the image's side).
        crop_scale: enlargement before the crop, 286/256 officially.
        crop_shift: (N, 2) centre of the crop window in units of half the window's side; within
            +-(crop_scale - 1) the window stays inside the image.
        flip: (N,) +1, or -1 to mirror horizontally.

    Returns:
        (N, 2, 3), maps output to input coordinates (`torch.nn.functional.affine_grid`).
    """
    # Forward: y = D (crop_scale (scale R x + shift) - crop_shift), D = diag(flip, 1). Solved for x:
    # x = R^T / scale ((D y + crop_shift) / crop_scale - shift).
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    unrotate = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    mirror = torch.stack([flip, torch.ones_like(flip)], -1)
    linear = unrotate * mirror[:, None, :] / crop_scale
    with torch.autocast(angle.device.type, enabled=False):  # bfloat16 would be a pixel off
        offset = unrotate @ (crop_shift / crop_scale - shift)[:, :, None]
    return torch.cat([linear, offset], -1)


def random_affine(
    count: int,
    generator: torch.Generator | None,
    *,
    degrees: float = 20.0,
    scale: tuple[float, float] = (0.8, 1.2),
    translate: float = 0.1,
    jitter_crop: float = 286 / 256,
    flip: bool = True,
) -> torch.Tensor:
    """Draw `count` sampling matrices, float32 (count, 2, 3) on the CPU.

    Args:
        generator: a CPU generator: one seed gives the same maps on every device.
        degrees: rotation in +-degrees.
        scale: range of the zoom.
        translate: shift in +-(this fraction of the side).
        jitter_crop: enlargement before the random crop; 1 for none.
        flip: mirror half of the images.
    """
    if not (0 < scale[0] <= scale[1] and jitter_crop >= 1 and translate >= 0 and degrees >= 0):
        raise ValueError(
            f"bad augmentation: {degrees=}, {scale=}, {translate=}, {jitter_crop=} (crop must be >= 1)"
        )
    # One draw of a fixed shape: switching a part off does not change what the others draw.
    draw = torch.rand(count, 7, generator=generator)
    signed = draw * 2 - 1
    return compose_affine(
        angle=signed[:, 0] * math.radians(degrees),
        scale=scale[0] + draw[:, 1] * (scale[1] - scale[0]),
        shift=signed[:, 2:4] * (2 * translate),
        crop_scale=jitter_crop,
        crop_shift=signed[:, 4:6] * (jitter_crop - 1),
        flip=torch.where((draw[:, 6] < 0.5) & flip, -1.0, 1.0),
    )


def apply_affine(images: torch.Tensor, theta: torch.Tensor, *, mode: str = "bilinear") -> torch.Tensor:
    """Resample images (N, C, S, S) by `theta` (N, 2, 3); outside, the image is continued by reflection.

    Images may be uint8 (then the result is float32 in -1..1) or floating point. Differentiable.
    """
    if images.dim() != 4 or images.shape[2] != images.shape[3]:
        raise ValueError(f"images must be (N, C, S, S), got {tuple(images.shape)}")
    images = to_float(images)
    theta = theta.to(images.device, torch.float32, non_blocking=True)
    return resample(images, affine_grid(theta, images.shape), mode=mode)


def affine_grid(theta: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Where `theta` (N, 2, 3) has the pixels of pictures of `shape` (N, C, S, S) read: float32 (N, S, S, 2), within
    autocast too, whose bfloat16 would be half a pixel off."""
    with torch.autocast(theta.device.type, enabled=False):
        return F.affine_grid(theta, list(shape), align_corners=False)


def resample(images: torch.Tensor, grid: torch.Tensor, *, mode: str = "bilinear") -> torch.Tensor:
    """Floating-point images (N, C, S, S) read at `grid` (N, S, S, 2); outside, continued by reflection."""
    with torch.autocast(images.device.type, enabled=False):
        out = F.grid_sample(images.float(), grid, mode=mode, padding_mode="reflection", align_corners=False)
    return out.to(images.dtype)


def augment(
    images: torch.Tensor,
    generator: torch.Generator | None = None,
    *,
    degrees: float = 20.0,
    scale: tuple[float, float] = (0.8, 1.2),
    translate: float = 0.1,
    jitter_crop: float = 286 / 256,
    flip: bool = True,
    mode: str = "bilinear",
) -> torch.Tensor:
    """Each image of the batch under its own random affine map (defaults: the official training's).

    Args:
        images: (N, 3, S, S), floating point in -1..1 or uint8. One image augmented N times:
            ``augment(image.expand(n, -1, -1, -1), generator)``.
        generator, degrees, scale, translate, jitter_crop, flip: see `random_affine`.
        mode: "bilinear", or "bicubic" (sharper, several times the cost).

    Returns:
        The same shape, floating point, on the same device. Where the official transform fills black, the
        image is continued by reflection: black corners would be a feature for the discriminator to find.
    """
    theta = random_affine(
        images.shape[0],
        generator,
        degrees=degrees,
        scale=scale,
        translate=translate,
        jitter_crop=jitter_crop,
        flip=flip,
    )
    return apply_affine(images, theta, mode=mode)


def hue_and_saturation(angle: torch.Tensor, saturation: torch.Tensor) -> torch.Tensor:
    """Colour matrices (N, 3, 3) that turn the hue by `angle` (N,) radians and scale the saturation (N,)."""
    # Rotation about the grey axis (Rodrigues), scaled around it: grey stays grey.
    grey = torch.full((3, 3), 1 / 3)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    return grey + saturation[:, None, None] * (cos * (torch.eye(3) - grey) + sin * cross)


def recolor(
    images: torch.Tensor, generator: torch.Generator | None = None, *, evenness: float = 1.0
) -> torch.Tensor:
    """Random hue, saturation, contrast and brightness, one draw per image.

    What is computed from recoloured pictures cannot hold their palette: it has to come from the style code.

    Args:
        images: (N, 3, S, S) float32 in -1..1.
        evenness: 1: every turn of the hue is as likely as another; less: small ones are likelier, half of them below
            180 * 0.5 ** (1 / evenness) degrees.

    Returns:
        The same shape; values may leave -1..1 a little.
    """
    count = len(images)
    angle, saturation, contrast, brightness = torch.rand(4, count, generator=generator)
    turn = 2 * angle - 1
    angle = math.pi * turn.sign() * turn.abs() ** (1 / evenness)
    saturation = saturation * 1.4
    contrast = 0.6 + 0.8 * contrast
    brightness = (brightness - 0.5) * 0.6
    matrix = contrast[:, None, None] * hue_and_saturation(angle, saturation)
    matrix, brightness = matrix.to(images.device), brightness.to(images.device)
    with torch.autocast(images.device.type, enabled=False):
        mixed = torch.einsum("nij,njhw->nihw", matrix, images) + brightness[:, None, None, None]
    return mixed.contiguous(memory_format=torch.channels_last)


def relight(images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Smooth random light and shadow over each image: what is dark on one side may be light on the other.

    What is computed from relit pictures has to know hair by its texture and place, not by being dark.

    Args:
        images: (N, 3, S, S) float32 in -1..1.

    Returns:
        The same shape; values may leave -1..1.
    """
    fields = torch.randn(len(images), 2, LIGHTS, LIGHTS, generator=generator) * LIGHT
    fields = F.interpolate(fields, size=images.shape[-2:], mode="bicubic", align_corners=False)
    gain, offset = fields.to(images.device).split(1, 1)
    return (images * gain.exp() + offset).contiguous(memory_format=torch.channels_last)


def overshadow(images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """A shadow over a side of every second image or so, with an edge that is sharp or soft: sunlight, a lamp, a window.

    Args:
        images: (N, 3, S, S) float32 in -1..1.

    Returns:
        The same shape; nothing is brighter than it was.
    """
    count, side = len(images), images.shape[-1]
    has, angle, place, softness, light = torch.rand(5, count, 1, 1, generator=generator)
    angle, edge = angle * 2 * math.pi, 0.02 * 20**softness
    axis = torch.linspace(-1, 1, side)
    along = axis * torch.cos(angle) + axis[:, None] * torch.sin(angle) + (1.2 * place - 0.6)
    shade = 1 - (has < 0.5) * (0.8 - 0.5 * light) * torch.sigmoid(along / edge)
    shaded = (images + 1) * shade[:, None].to(images.device) - 1
    return shaded.contiguous(memory_format=torch.channels_last)


def blur(images: torch.Tensor, generator: torch.Generator | None = None, strongest: int = 2) -> torch.Tensor:
    """Images (N, C, S, S) as they are at 1, 1/2 ... or 1 / 2**strongest of their side, one draw for the batch."""
    factor = 2 ** int(torch.randint(strongest + 1, (), generator=generator))
    if factor == 1:
        return images
    small = F.avg_pool2d(images, factor)
    return F.interpolate(small, size=images.shape[-2:], mode="bilinear").contiguous(
        memory_format=torch.channels_last
    )
