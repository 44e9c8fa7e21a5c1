"""Upsample, FIR-filter, downsample (StyleGAN2's `upfirdn2d`), the reference in plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Padding = tuple[int, int, int, int]


def setup_filter(taps: Sequence[float] = (1, 3, 3, 1), gain: float = 1.0) -> Tensor:
    """2-D FIR from 1-D taps: their outer product, normalised to sum to `gain`. float32 (k, k)."""
    f = torch.tensor(list(taps), dtype=torch.float32)
    f = f[:, None] * f[None, :]
    return f / f.sum() * gain


def upfirdn2d(x: Tensor, f: Tensor, up: int = 1, down: int = 1, padding: Padding = (0, 0, 0, 0)) -> Tensor:
    """Insert `up - 1` zeros after each pixel, pad, convolve with `f`, keep every `down`-th pixel.

    Args:
        x: (N, C, H, W), any float dtype and memory format.
        f: (kh, kw) FIR, applied as a true convolution (flipped correlation); receives no gradient.
        up, down: integer factors.
        padding: (left, right, top, bottom) in upsampled pixels; negative values crop.

    Returns:
        (N, C, (H * up + top + bottom - kh) // down + 1, likewise W). Any order of derivative works.

    Source: StyleGAN2 (Karras et al. 2020), `upfirdn_2d`.
    """
    return _Upfirdn2d.apply(x, f, up, down, padding)


class _Upfirdn2d(torch.autograd.Function):
    """The operation's gradient is the same operation with `up` and `down` exchanged and `f` flipped.

    Saying so keeps the backward pass in stride-1 depthwise convolutions: the gradient that a strided
    depthwise convolution has by itself is ten times slower on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Tensor, up: int, down: int, padding: Padding) -> Tensor:
        y = _forward(x, f, up, down, padding)
        ctx.save_for_backward(f)
        left, _, top, _ = padding
        (h, w), (oh, ow), (kh, kw) = x.shape[2:], y.shape[2:], f.shape
        back_padding = (
            kw - left - 1,
            w * up - ow * down + left - up + 1,
            kh - top - 1,
            h * up - oh * down + top - up + 1,
        )
        ctx.options = (down, up, back_padding)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (f,) = ctx.saved_tensors
        return _Upfirdn2d.apply(grads[0], f.flip(0, 1), *ctx.options), None, None, None, None


def _forward(x: Tensor, f: Tensor, up: int, down: int, padding: Padding) -> Tensor:
    n, c, h, w = x.shape
    left, right, top, bottom = padding
    weight = f.to(device=x.device, dtype=x.dtype).flip(0, 1)[None, None].expand(c, 1, -1, -1)
    if up == 1 and left == right == top == bottom >= 0:
        return F.conv2d(x, weight, stride=down, padding=left, groups=c)
    layout = (
        torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    )
    room = [max(p, 0) for p in padding]
    size = (n, c, h * up + room[2] + room[3], w * up + room[0] + room[1])
    padded = torch.zeros(size, dtype=x.dtype, device=x.device).contiguous(memory_format=layout)
    padded[:, :, room[2] : room[2] + h * up : up, room[0] : room[0] + w * up : up] = x
    padded = padded[:, :, max(-top, 0) : size[2] - max(-bottom, 0), max(-left, 0) : size[3] - max(-right, 0)]
    return F.conv2d(padded, weight, stride=down, groups=c)
