"""Add a bias, apply the leaky ReLU, scale (StyleGAN2's `fused_leaky_relu`), the reference in plain torch."""

from __future__ import annotations

from math import sqrt

import torch.nn.functional as F
from torch import Tensor


def bias_act(x: Tensor, b: Tensor | None = None, slope: float = 0.2, gain: float = sqrt(2.0)) -> Tensor:
    """``gain * leaky_relu(x + b, slope)``.

    Args:
        x: (N, C, ...), any float dtype.
        b: (C,), or None.
        slope: of the negative half.
        gain: the default keeps the variance of a unit normal input.

    Returns:
        Same shape and dtype as `x`. Any order of derivative works.
    """
    if b is not None:
        x = x + b.to(x.dtype).reshape(1, -1, *([1] * (x.ndim - 2)))
    return F.leaky_relu(x, slope) * gain
