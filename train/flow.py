"""Made motion, for the temporal loss: a random affine map and, over it, a smooth random flow.

vid2vid (Wang et al. 2018, section 3) asks that a translation moves as its video does, along a flow that is
estimated. The data here are stills, so the motion is made, and known exactly: the translation of a moved face
has to be its translation, moved.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from train.augment import affine_grid, random_affine
from train.distributed import mine, world

CONTROL_POINTS = 4
"""Of the flow, along each side: slow enough to be what a head does, and to fold nothing over."""
MOST = 0.05
"""Largest flow that certainly folds nothing over, as a fraction of the side."""


def random_motion(
    count: int,
    size: int,
    generator: torch.Generator,
    *,
    flow: float = 0.0,
    device: torch.device | str = "cpu",
    affine: bool = True,
) -> Tensor:
    """Draw motions for this process's pictures.

    Args:
        count: pictures of this process; those of all are drawn, so that processes stay in step.
        size: side of the pictures.
        generator: on the CPU.
        flow: how far a control point of the smooth flow is shifted at most along each axis, as a fraction of
            the side, 0 to `MOST`.
        affine: turn by +-8 degrees, zoom by 0.92 to 1.08, shift by 4 %. Not mirrored: no head
            in a video is, and a drawing whose hair falls to one side has no mirrored one.

    Returns:
        Where each pixel is read, (count, size, size, 2) as `torch.nn.functional.grid_sample` takes it.
    """
    if not 0 <= flow <= MOST:
        raise ValueError(f"flow must be 0 to {MOST}, got {flow}")
    every = count * world()
    if affine:
        theta = random_affine(
            every, generator, degrees=8, scale=(0.92, 1.08), translate=0.04, jitter_crop=1, flip=False
        )
    else:
        theta = torch.eye(2, 3).repeat(every, 1, 1)
    grid = affine_grid(mine(theta).to(device), [count, 3, size, size])
    if flow:
        points = torch.rand(every, 2, CONTROL_POINTS, CONTROL_POINTS, generator=generator) * 2 - 1
        shift = mine(points).to(device) * (2 * flow)
        shift = F.interpolate(shift, size=(size, size), mode="bicubic", align_corners=True)
        grid = grid + shift.permute(0, 2, 3, 1)
    return grid


def inside(grid: Tensor) -> Tensor:
    """Where a motion reads from inside the picture: bool (N, 1, S, S). Elsewhere it makes the picture up."""
    return (grid.abs() <= 1).all(-1)[:, None]


def motion_difference(translated: Tensor, expected: Tensor, grid: Tensor) -> Tensor:
    """Mean absolute difference of pictures (N, 3, S, S) where the motion is valid; elsewhere 0 is counted."""
    return ((translated - expected).abs() * inside(grid)).mean()
