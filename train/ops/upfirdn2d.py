"""Upsample, FIR-filter, downsample (StyleGAN2's `upfirdn2d`): CUDA kernel and reference."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from train.ops import kernels
from train.ops.bias_act import ACTIVATIONS
from train.ops.kernels import Argument, Kernel, Launch

Padding = tuple[int, int, int, int]
MAX_UNROLLED = 4096  # multiplications of one thread
MANY_OUTPUTS = 1 << 21  # below this, more threads with less work each, to fill the GPU


def setup_filter(taps: Sequence[float] = (1, 3, 3, 1), gain: float = 1.0) -> Tensor:
    """2-D FIR from 1-D taps: their outer product, normalised to sum to `gain`. float32 (k, k)."""
    f = torch.tensor(list(taps), dtype=torch.float32)
    f = f[:, None] * f[None, :]
    return f / f.sum() * gain


def setup_separable_filter(taps: Sequence[float] = (1, 3, 3, 1), gain: float = 1.0) -> Tensor:
    """The 1-D FIR whose outer product with itself is `setup_filter`'s. float32 (k,)."""
    f = torch.tensor(list(taps), dtype=torch.float32)
    return f / f.sum() * sqrt(gain)


def upfirdn2d(
    x: Tensor,
    f: Tensor,
    up: int = 1,
    down: int = 1,
    padding: Padding = (0, 0, 0, 0),
    *,
    flip: bool = False,
    gain: float = 1.0,
    impl: str | None = None,
) -> Tensor:
    """Insert `up - 1` zeros after each pixel, pad, convolve with `f`, keep every `down`-th pixel.

    Args:
        x: (N, C, H, W), any float dtype and memory format.
        f: FIR of (kh, kw), or (k,) for the separable one that is its outer product; receives no gradient.
        up, down: integer factors.
        padding: (left, right, top, bottom) in upsampled pixels; negative values crop.
        flip: False is a true convolution (flipped correlation), True a correlation.
        gain: factor on the result.
        impl: "cuda" (kernel) or "ref" (plain torch); None takes the kernel for CUDA tensors.

    Returns:
        (N, C, (H * up + top + bottom - kh) // down + 1, likewise W), in the dtype and memory format of `x`.
        Any order of derivative works.

    Raises:
        ValueError: wrong dtype, device, shape or factor, or the filter does not fit into the padded input.

    Source: StyleGAN2 (Karras et al. 2020), `upfirdn_2d`.
    """
    check("upfirdn2d", x, f, up, down, padding)
    if kernels.chosen(impl, x):
        return torch.ops.gnr_video.upfirdn2d(x, f, up, down, padding, flip, gain)
    return reference(x, f, up, down, padding, flip, gain)


def check(name: str, x: Tensor, f: Tensor, up: int, down: int, padding: Sequence[int]) -> None:
    """Raises ValueError for arguments that mean nothing."""
    kernels.check_float(name, x)
    if x.ndim != 4:
        raise ValueError(f"{name}: x must be (N, C, H, W), got shape {tuple(x.shape)}")
    if f.ndim not in (1, 2) or f.numel() == 0 or not f.is_floating_point():
        raise ValueError(
            f"{name}: f must be a floating (kh, kw) or (k,), got shape {tuple(f.shape)} of {f.dtype}"
        )
    if f.device != x.device:
        raise ValueError(f"{name}: f is on {f.device}, x on {x.device}")
    if up < 1 or down < 1:
        raise ValueError(f"{name}: up and down must be at least 1, got {up} and {down}")
    if len(padding) != 4:
        raise ValueError(f"{name}: padding must be (left, right, top, bottom), got {tuple(padding)}")
    left, right, top, bottom = padding
    height = x.shape[2] * up + top + bottom - f.shape[0] + 1
    width = x.shape[3] * up + left + right - f.shape[-1] + 1
    if height < 0 or width < 0:
        raise ValueError(
            f"{name}: the output would be {height} x {width} before down-sampling: a filter of "
            f"{f.shape[0]} x {f.shape[-1]} does not fit into {x.shape[2]} x {x.shape[3]} pixels, "
            f"up={up}, padding={tuple(padding)}"
        )


def output_size(
    size: Sequence[int], fir: Sequence[int], up: int, down: int, padding: Sequence[int]
) -> tuple[int, int]:
    """(height, width) of the result, from those of the input and of the filter ((k,) if separable)."""
    (h, w), kh, kw = size, fir[0], fir[-1]
    left, right, top, bottom = padding
    return (
        max((h * up + top + bottom - kh) // down + 1, 0),
        max((w * up + left + right - kw) // down + 1, 0),
    )


def adjoint_padding(
    size: Sequence[int], out: Sequence[int], fir: Sequence[int], up: int, down: int, padding: Sequence[int]
) -> Padding:
    """The padding with which the operation, `up` and `down` exchanged and `f` flipped, is the gradient.

    Args:
        size, out, fir: (height, width) of the input, the output and the filter ((k,) if separable).
    """
    (h, w), (oh, ow), kh, kw = size, out, fir[0], fir[-1]
    left, _, top, _ = padding
    return (
        kw - left - 1,
        w * up - ow * down + left - up + 1,
        kh - top - 1,
        h * up - oh * down + top - up + 1,
    )


# --- the reference


def reference(
    x: Tensor, f: Tensor, up: int, down: int, padding: Sequence[int], flip: bool, gain: float
) -> Tensor:
    """`upfirdn2d` in plain torch, any order of derivative."""
    return _Upfirdn2d.apply(x, _full(f, flip, gain), up, down, padding)


def _full(f: Tensor, flip: bool, gain: float) -> Tensor:
    """The (kh, kw) filter that, convolved with, is all of it."""
    if f.ndim == 1:
        f = f[:, None] * f[None, :]
    if flip:
        f = f.flip(0, 1)
    return f if gain == 1 else f * gain


class _Upfirdn2d(torch.autograd.Function):
    """The operation's gradient is the same operation with `up` and `down` exchanged and `f` flipped.

    Saying so keeps the backward pass in stride-1 depthwise convolutions: the gradient that a strided
    depthwise convolution has by itself is ten times slower on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Tensor, up: int, down: int, padding: Sequence[int]) -> Tensor:
        y = _forward(x, f, up, down, padding)
        ctx.save_for_backward(f)
        ctx.options = (down, up, adjoint_padding(x.shape[2:], y.shape[2:], f.shape, up, down, padding))
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (f,) = ctx.saved_tensors
        return _Upfirdn2d.apply(grads[0], f.flip(0, 1), *ctx.options), None, None, None, None


def _forward(x: Tensor, f: Tensor, up: int, down: int, padding: Sequence[int]) -> Tensor:
    n, c, h, w = x.shape
    left, right, top, bottom = padding
    oh, ow = output_size((h, w), f.shape, up, down, padding)
    if 0 in (n, c, h, w, oh, ow):
        return x.new_zeros(n, c, oh, ow)
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


# --- the kernel


@lru_cache(maxsize=4096)
def plan(
    dtype: torch.dtype,
    shape: tuple[int, int, int, int],
    size: tuple[int, int],
    channels_last: bool,
    aligned: int,
    fir: tuple[int, ...] | None,
    up: int,
    down: int,
    left: int,
    top: int,
    flip: bool,
    act: str,
    scale: bool,
    bias: bool,
    clamp: bool,
) -> tuple[Launch, int, int]:
    """The compiled case, its grid, and the grid's blocks along the two inner axes.

    Args:
        shape: (N, C, H, W) of the input.
        size: (height, width) of the output.
        aligned: elements that the tensors' addresses are a multiple of.
        fir: the filter's shape, None for no filter.
    """
    n, c, _, w = shape
    oh, ow = size
    kh, kw = (1, 1) if fir is None else (fir[0], fir[-1])
    separable = fir is not None and len(fir) == 1

    def tile(outputs: int) -> int:
        return up * -(-outputs // up)

    large = n * c * oh * ow >= MANY_OUTPUTS
    vc = kernels.common_width(min(aligned, 4), c) if channels_last else 1
    tx, ty = tile(2 if channels_last else max(16 // dtype.itemsize, 4)), tile(8 if large and kh > 1 else 2)

    def widths() -> tuple[int, int]:
        if channels_last:
            return 1, 1
        return kernels.common_width(aligned, tx * down // up, w), kernels.common_width(aligned, tx, ow)

    if not channels_last and (ow <= tx // 2 or 1 in widths()):
        tx = tile(max(4 // dtype.itemsize, 1))  # single elements: neighbours by neighbouring threads

    def work() -> int:
        rows, columns = (ty * down + kh) // up, (tx * down + kw) // up
        sums = tx * (rows * kw + ty * kh) // up if separable else tx * ty * kh * kw // up**2
        return max(sums, 2 * rows * columns) * vc

    if work() > MAX_UNROLLED:
        ty = tile(1)
    if work() > MAX_UNROLLED:
        tx = tile(1)
    vi, vo = widths()
    tiles_x, tiles_y = -(-ow // tx), -(-oh // ty)
    axes = (c // vc, tiles_x, n * tiles_y) if channels_last else (tiles_x, tiles_y, n * c)
    threads = _threads(axes)
    blocks = [-(-a // t) for a, t in zip(axes, threads)]
    macros = {
        "DTYPE": kernels.DTYPES[dtype],
        "UP": up,
        "DOWN": down,
        "LEFT": left,
        "TOP": top,
        "FIR": fir is not None,
        "KH": kh,
        "KW": kw,
        "SEPARABLE": separable,
        "FLIP": flip,
        "CHANNELS_LAST": channels_last,
        "TX": tx,
        "TY": ty,
        "VC": vc,
        "VI": vi,
        "VO": vo,
        "UNROLL": work() <= MAX_UNROLLED,
        "SCALE": scale,
        "BIAS": bias,
        "ACT": ACTIVATIONS[act].number,
        "CLAMP": clamp,
        "BLOCK": kernels.THREADS,
    }
    launch = Launch(Kernel.of("upfirdn2d", macros), blocks[0] * blocks[1] * blocks[2], threads)
    return launch, blocks[0], blocks[1]


def _threads(axes: tuple[int, int, int]) -> tuple[int, int, int]:
    """A block's shape: a warp along the fastest axis where it is long enough, then as square as it gets."""
    x, y, z = (1 << (a - 1).bit_length() for a in axes)
    x = min(x, 32)
    y = min(y, 8, kernels.THREADS // x)
    return x, y, min(z, kernels.THREADS // (x * y), 64)


def run(
    x: Tensor,
    f: Tensor | None,
    up: int,
    down: int,
    padding: Sequence[int],
    flip: bool,
    gain: float,
    *,
    scale: Tensor | None = None,
    b: Tensor | None = None,
    act: str = "linear",
    slope: float = 0.0,
    act_gain: float = 1.0,
    clamp: float | None = None,
) -> Tensor | None:
    """The kernel's result in the layout of `x`, or None where it cannot run."""
    out = empty(x, f, up, down, padding)
    if out.numel() == 0:
        return out
    layout, dtype = kernels.layout(x), kernels.sum_dtype(x.dtype)
    x = x.contiguous(memory_format=layout)
    f, scale, b = (None if t is None else t.to(dtype).contiguous() for t in (f, scale, b))
    n, c, h, w = x.shape
    oh, ow = out.shape[2:]
    launch, blocks0, blocks1 = plan(
        x.dtype,
        (n, c, h, w),
        (oh, ow),
        layout == torch.channels_last,
        kernels.alignment(x, out) if x.numel() else 1,
        None if f is None else tuple(f.shape),
        up,
        down,
        padding[0],
        padding[2],
        flip,
        act,
        scale is not None,
        b is not None,
        clamp is not None,
    )
    arguments: list[Argument] = [out, x, f, scale, b, *(ctypes.c_int(v) for v in (n, c, h, w, oh, ow))]
    arguments += [ctypes.c_uint(blocks0), ctypes.c_uint(blocks1)]
    arguments += [kernels.scalar(v, x.dtype) for v in (gain, slope, act_gain, clamp or 0.0)]
    return out if kernels.run(launch, arguments, x.device) else None


def empty(x: Tensor, f: Tensor | None, up: int, down: int, padding: Sequence[int]) -> Tensor:
    """The result's memory, not filled."""
    n, c, h, w = x.shape
    oh, ow = output_size((h, w), (1,) if f is None else f.shape, up, down, padding)
    return torch.empty(n, c, oh, ow, dtype=x.dtype, device=x.device, memory_format=kernels.layout(x))


# --- the operator

torch.library.define(
    "gnr_video::upfirdn2d",
    "(Tensor x, Tensor f, int up, int down, SymInt[] padding, bool flip, float gain) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


@torch.library.impl("gnr_video::upfirdn2d", ("cpu", "cuda"))
def _upfirdn2d(
    x: Tensor, f: Tensor, up: int, down: int, padding: Sequence[int], flip: bool, gain: float
) -> Tensor:
    y = run(x, f, up, down, padding, flip, gain)
    if y is None:
        y = empty(x, f, up, down, padding).copy_(_forward(x, _full(f, flip, gain), up, down, padding))
    return y


@torch.library.register_fake("gnr_video::upfirdn2d")
def _upfirdn2d_fake(
    x: Tensor, f: Tensor, up: int, down: int, padding: Sequence[int], flip: bool, gain: float
) -> Tensor:
    return empty(x, f, up, down, padding)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, f, up, down, padding, flip, gain = inputs
    ctx.save_for_backward(f)
    back = adjoint_padding(x.shape[2:], output.shape[2:], f.shape, up, down, padding)
    ctx.options = (down, up, back, not flip, gain)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    (f,) = ctx.saved_tensors
    return torch.ops.gnr_video.upfirdn2d(dy, f, *ctx.options), None, None, None, None, None, None


torch.library.register_autograd("gnr_video::upfirdn2d", _backward, setup_context=_setup)
