"""FIR, demodulation scale, bias and activation in one pass over memory (the tail of StyleGAN2's upsampling layer)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from train.ops import bias_act as _bias_act
from train.ops import kernels
from train.ops import upfirdn2d as _upfirdn2d
from train.ops.upfirdn2d import Padding


def fir_bias_act(
    x: Tensor,
    f: Tensor | None = None,
    scale: Tensor | None = None,
    b: Tensor | None = None,
    padding: Padding = (0, 0, 0, 0),
    *,
    up: int = 1,
    down: int = 1,
    act: str = "lrelu",
    slope: float = 0.2,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str | None = None,
) -> Tensor:
    """``clamp(gain * act(scale * upfirdn2d(x, f) + b))``.

    Args:
        x: (N, C, H, W), any float dtype and memory format.
        f: FIR of (kh, kw) or (k,), as `upfirdn2d` takes it; None leaves the pixels as they are (then no
            padding, up or down). Receives no gradient.
        scale: (N, C), per picture and channel (StyleGAN2's demodulation), or None.
        b: (C,), or None.
        padding, up, down: as for `upfirdn2d`.
        act, slope, gain, clamp: as for `bias_act`.
        impl: "cuda" (kernel) or "ref" (plain torch); None takes the kernel for CUDA tensors.

    Returns:
        The shape of `upfirdn2d`'s result, dtype and memory format of `x`. First and second derivatives in
        x, scale and b.

    Raises:
        ValueError: as `upfirdn2d` and `bias_act`.
    """
    name = "fir_bias_act"
    if f is None:
        kernels.check_float(name, x)
        if x.ndim != 4 or up != 1 or down != 1 or any(padding):
            raise ValueError(
                f"{name}: without a filter x must be (N, C, H, W) and up, down, padding unset, got shape "
                f"{tuple(x.shape)}, up={up}, down={down}, padding={tuple(padding)}"
            )
    else:
        _upfirdn2d.check(name, x, f, up, down, padding)
    kernels.check_vector(name, "scale", scale, tuple(x.shape[:2]), x)
    kernels.check_vector(name, "b", b, (x.shape[1],), x)
    gain, clamp = _bias_act.check_activation(name, act, gain, clamp)
    if not kernels.chosen(impl, x):
        return _reference(x, f, scale, b, padding, up, down, act, slope, gain, clamp)
    dtype = kernels.sum_dtype(x.dtype)
    scale, b = (None if t is None else t.to(dtype) for t in (scale, b))
    if _bias_act.ACTIVATIONS[act].piecewise_linear:
        return torch.ops.gnr_video.fir_bias_act(x, f, scale, b, padding, up, down, act, slope, gain, clamp)
    # The others' derivatives need what comes before the activation, so it has to be stored: two passes.
    y = torch.ops.gnr_video.fir_bias_act(x, f, scale, b, padding, up, down, "linear", 0.0, 1.0, None)
    return torch.ops.gnr_video.bias_act(y, None, act, slope, gain, clamp)


def _reference(
    x: Tensor,
    f: Tensor | None,
    scale: Tensor | None,
    b: Tensor | None,
    padding: Sequence[int],
    up: int,
    down: int,
    act: str,
    slope: float,
    gain: float,
    clamp: float | None,
) -> Tensor:
    if scale is not None:
        x = x * scale.to(x.dtype)[:, :, None, None]
    if f is not None:
        x = _upfirdn2d.reference(x, f, up, down, padding, False, 1.0)
    return _bias_act.reference(x, b, act, slope, gain, clamp)


# --- the operator: linear, relu and lrelu only, whose output tells their derivative

torch.library.define(
    "gnr_video::fir_bias_act",
    "(Tensor x, Tensor? f, Tensor? scale, Tensor? b, SymInt[] padding, int up, int down, str act, float slope, "
    "float gain, float? clamp) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


@torch.library.impl("gnr_video::fir_bias_act", ("cpu", "cuda"))
def _fir_bias_act(
    x: Tensor,
    f: Tensor | None,
    scale: Tensor | None,
    b: Tensor | None,
    padding: Sequence[int],
    up: int,
    down: int,
    act: str,
    slope: float,
    gain: float,
    clamp: float | None,
) -> Tensor:
    y = _upfirdn2d.run(
        x,
        f,
        up,
        down,
        padding,
        False,
        1.0,
        scale=scale,
        b=b,
        act=act,
        slope=slope,
        act_gain=gain,
        clamp=clamp,
    )
    if y is None:
        found = _reference(x, f, scale, b, padding, up, down, act, slope, gain, clamp)
        y = _upfirdn2d.empty(x, f, up, down, padding).copy_(found)
    return y


@torch.library.register_fake("gnr_video::fir_bias_act")
def _fake(
    x: Tensor,
    f: Tensor | None,
    scale: Tensor | None,
    b: Tensor | None,
    padding: Sequence[int],
    up: int,
    down: int,
    *_: Any,
) -> Tensor:
    return _upfirdn2d.empty(x, f, up, down, padding)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, f, scale, _, padding, up, down, *options = inputs
    ctx.options = options
    ctx.fir = None
    if f is not None:
        back = _upfirdn2d.adjoint_padding(x.shape[2:], output.shape[2:], f.shape, up, down, padding)
        ctx.fir = (down, up, back, True, 1.0)
    ctx.save_for_backward(x if scale is not None and ctx.needs_input_grad[2] else None, f, scale, output)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, f, scale, y = ctx.saved_tensors
    du = torch.ops.gnr_video.bias_act_grad(dy, y, None, *ctx.options)
    db = _bias_act.bias_gradient(du) if ctx.needs_input_grad[3] else None
    dx, d_scale = du, None
    if ctx.fir is not None:
        dx = torch.ops.gnr_video.upfirdn2d(du, f, *ctx.fir)
    if x is not None:  # the scale commutes with the FIR: its gradient needs no filtered x
        d_scale = (dx.to(scale.dtype) * x).sum((2, 3))
    if scale is not None:
        dx = dx * scale[:, :, None, None].to(dx.dtype)
    return dx, None, d_scale, db, *[None] * 7


torch.library.register_autograd("gnr_video::fir_bias_act", _backward, setup_context=_setup)
