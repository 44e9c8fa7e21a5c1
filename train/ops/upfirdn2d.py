"""Upsample, FIR-filter, downsample (StyleGAN2's `upfirdn2d`), the reference in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def setup_filter(taps: Sequence[float] = (1, 3, 3, 1), gain: float = 1.0) -> Tensor:
    """2-D FIR from 1-D taps: their outer product, normalised to sum to `gain`. float32 (k, k)."""
    f = torch.tensor(list(taps), dtype=torch.float32)
    f = f[:, None] * f[None, :] if f.ndim == 1 else f
    return f / f.sum() * gain


def upfirdn2d(
    x: Tensor, f: Tensor, up: int = 1, down: int = 1, padding: tuple[int, int, int, int] = (0, 0, 0, 0)
) -> Tensor:
    """Insert `up - 1` zeros between pixels, pad, convolve with `f`, keep every `down`-th pixel.

    Args:
        x: (N, C, H, W), any float dtype and memory format.
        f: (kh, kw) FIR, applied as a true convolution (flipped correlation).
        up, down: integer factors.
        padding: (left, right, top, bottom) in upsampled pixels; negative values crop.

    Returns:
        (N, C, (H * up + top + bottom - kh) // down + 1, likewise W). Any order of derivative works.

    Source: StyleGAN2 (Karras et al. 2020), `upfirdn_2d`.
    """
    n, c, h, w = x.shape
    f = f.to(device=x.device, dtype=x.dtype)
    left, right, top, bottom = padding
    if up == 1 and left == right == top == bottom >= 0:
        weight = f.flip(0, 1)[None, None].expand(c, 1, -1, -1)
        return F.conv2d(x, weight, stride=down, padding=left, groups=c)
    if up > 1:
        x = x.reshape(n, c, h, 1, w, 1)
        x = F.pad(x, (0, up - 1, 0, 0, 0, up - 1)).reshape(n, c, h * up, w * up)
    x = F.pad(x, (max(left, 0), max(right, 0), max(top, 0), max(bottom, 0)))
    x = x[:, :, max(-top, 0) : x.shape[2] - max(-bottom, 0), max(-left, 0) : x.shape[3] - max(-right, 0)]
    weight = f.flip(0, 1)[None, None].expand(c, 1, -1, -1)
    return F.conv2d(x, weight, stride=down, groups=c)
