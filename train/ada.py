"""Adaptive discriminator augmentation (Karras et al. 2020, "Training GANs with limited data"), for small data sets.

Every picture that a discriminator sees, real or translated, is augmented with probability p, differentiably, so
that it cannot learn the few real ones by heart and the generator does not learn the augmentations. p follows a
sign of overfitting: r_t = E[sign(D(real))].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from train.augment import apply_affine, hue_and_saturation
from train.distributed import mean, mine, world

EVERY = 4
"""Steps between adjustments of p."""
P_MOST = 0.8
"""Below, augmentations are unlikely to leak into the translations (section 2.2)."""


class AdaptiveAugment:
    """The augmentation before one discriminator.

    Args:
        target: of r_t; the paper's is 0.6.
        images: real images in which p can go from 0 to 1; the paper's are 500,000.
        p: probability of each transformation to begin with.
    """

    def __init__(self, target: float = 0.6, images: int = 500_000, p: float = 0.0) -> None:
        self.target, self.images, self.p = target, images, p
        self._signs: list[Tensor] = []

    def __call__(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """This process's pictures (N, 3, S, S), each under its own transformations."""
        if self.p == 0:
            return pictures
        every = len(pictures) * world()
        theta = mine(random_placement(every, pictures.shape[-1], self.p, generator))
        matrix, offset = (mine(x).to(pictures.device) for x in random_colors(every, self.p, generator))
        with torch.autocast(pictures.device.type, enabled=False):
            moved = apply_affine(pictures.float(), theta)
            colored = torch.einsum("nij,njhw->nihw", matrix, moved) + offset[:, :, None, None]
        return colored.to(pictures.dtype)

    def observe(self, real_logits: Sequence[Tensor]) -> None:
        """Take note of what the discriminator says of a batch of real pictures, head by head (N, ...)."""
        sign = torch.stack([head.detach().sign().float().mean() for head in real_logits]).mean()
        # Those of a checkpoint are on the CPU, wherever the training goes on.
        self._signs = [*(before.to(sign.device) for before in self._signs), sign]
        if len(self._signs) == EVERY:
            (overfitting,) = mean([torch.stack(self._signs).mean()])
            seen = EVERY * len(real_logits[0]) * world()
            self.p += math.copysign(seen / self.images, overfitting - self.target)
            self.p = min(max(self.p, 0.0), P_MOST)
            self._signs = []

    def state_dict(self) -> dict[str, Any]:
        return {"p": self.p, "signs": [float(sign) for sign in self._signs]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.p = state["p"]
        self._signs = [torch.tensor(sign) for sign in state["signs"]]


def random_placement(count: int, size: int, p: float, generator: torch.Generator) -> Tensor:
    """Draw sampling matrices (count, 2, 3): mirror, quarter turns, shifts by whole pixels, zoom, rotation.

    The first three move pixels without resampling them. Ranges are the paper's (appendix B).
    """
    draw, on = torch.rand(6, count, generator=generator), torch.rand(5, count, generator=generator) < p
    size_of_zoom = torch.randn(count, generator=generator)
    mirror = torch.where(on[0] & (draw[0] < 0.5), -1.0, 1.0)
    quarters = torch.where(on[1], (draw[1] * 4).floor(), 0.0)
    pixels = torch.where(on[2], ((draw[2:4] * 2 - 1) * size / 8).round(), 0.0)
    zoom = torch.where(on[3], torch.exp2(0.2 * size_of_zoom), 1.0)
    angle = torch.where(on[4], (draw[4] * 2 - 1) * math.pi, 0.0)
    # Input position = quarter turn (mirror (rotation / zoom (output position))) + shift.
    linear = _turn(angle) / zoom[:, None, None]
    linear = torch.stack([linear[:, 0] * mirror[:, None], linear[:, 1]], 1)
    linear = _turn(quarters * (math.pi / 2)) @ linear
    return torch.cat([linear, (pixels * 2 / size).t()[:, :, None]], -1)


def _turn(angle: Tensor) -> Tensor:
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)


def random_colors(count: int, p: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw colour matrices (count, 3, 3) and offsets (count, 3) for values in -1..1.

    Brightness, contrast, turned-over lightness, hue and saturation, in the paper's ranges (appendix B).
    """
    normal, on = torch.randn(3, count, generator=generator), torch.rand(5, count, generator=generator) < p
    draw = torch.rand(2, count, generator=generator)
    brightness = torch.where(on[0], 0.2 * normal[0], 0.0)
    contrast = torch.where(on[1], torch.exp2(0.5 * normal[1]), 1.0)
    turned = torch.where(on[2] & (draw[0] < 0.5), 2.0, 0.0)
    hue = torch.where(on[3], (draw[1] * 2 - 1) * math.pi, 0.0)
    saturation = torch.where(on[4], torch.exp2(normal[2]), 1.0)
    over = torch.eye(3) - turned[:, None, None] * torch.full((3, 3), 1 / 3)
    matrix = contrast[:, None, None] * (hue_and_saturation(hue, saturation) @ over)
    return matrix, matrix.sum(2) * brightness[:, None]
