"""Add a bias, apply the activation, scale, clamp (StyleGAN2's `bias_act`): CUDA kernel and reference."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from train.ops import kernels
from train.ops.kernels import Argument, Kernel, Launch


@dataclass(frozen=True)
class Activation:
    """Its number in common.cuh, StyleGAN2's gain, and whether its sign tells its derivative."""

    number: int
    gain: float = 1.0
    piecewise_linear: bool = False


MANY_VECTORS = 1 << 19  # below this, one vector for each thread, to fill the GPU

ACTIVATIONS = {
    "linear": Activation(0, piecewise_linear=True),
    "relu": Activation(1, sqrt(2.0), piecewise_linear=True),
    "lrelu": Activation(2, sqrt(2.0), piecewise_linear=True),
    "tanh": Activation(3),
    "sigmoid": Activation(4),
    "elu": Activation(5),
    "selu": Activation(6),
    "softplus": Activation(7),
    "swish": Activation(8, sqrt(2.0)),
}


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    act: str = "lrelu",
    *,
    slope: float = 0.2,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str | None = None,
) -> Tensor:
    """``clamp(gain * act(x + b))``.

    Args:
        x: (N, C, ...), any float dtype and memory format.
        b: (C,), any float dtype, or None.
        act: linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus or swish.
        slope: of lrelu's negative half.
        gain: None is the activation's own, which keeps the variance of a unit normal input: sqrt(2) for
            relu, lrelu and swish, else 1.
        clamp: the result is kept in [-clamp, clamp]; None leaves it.
        impl: "cuda" (kernel) or "ref" (plain torch); None takes the kernel for CUDA tensors.

    Returns:
        Same shape and dtype as `x`. First and second derivatives in x and b; any order for linear, relu,
        lrelu and for the reference.

    Raises:
        ValueError: unknown activation or impl, wrong dtype, device or shape.

    Source: StyleGAN2-ADA (Karras et al. 2020), `bias_act`.
    """
    kernels.check_float("bias_act", x)
    kernels.check_vector("bias_act", "b", b, (x.shape[1],), x)
    gain, clamp = check_activation("bias_act", act, gain, clamp)
    if kernels.chosen(impl, x):
        b = None if b is None else b.to(kernels.sum_dtype(x.dtype))
        return torch.ops.gnr_video.bias_act(x, b, act, slope, gain, clamp)
    return reference(x, b, act, slope, gain, clamp)


def check_activation(
    name: str, act: str, gain: float | None, clamp: float | None
) -> tuple[float, float | None]:
    """(gain, clamp) with the activation's own gain filled in; raises ValueError for what does not exist."""
    if act not in ACTIVATIONS:
        raise ValueError(f"{name}: act must be one of {', '.join(ACTIVATIONS)}, got {act!r}")
    if clamp is not None and clamp < 0:
        raise ValueError(f"{name}: clamp must not be negative, got {clamp}")
    return ACTIVATIONS[act].gain if gain is None else gain, clamp


def reference(
    x: Tensor, b: Tensor | None, act: str, slope: float, gain: float, clamp: float | None
) -> Tensor:
    """`bias_act` in plain torch; every order of derivative comes from autograd."""
    if b is not None:
        x = x + b.to(x.dtype).reshape(1, -1, *([1] * (x.ndim - 2)))
    x = _activation(x, act, slope)
    if gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def _activation(v: Tensor, act: str, slope: float) -> Tensor:
    if act == "lrelu":
        return F.leaky_relu(v, slope)
    if act == "linear":
        return v
    if act == "swish":
        return F.silu(v)
    return getattr(F if act in ("elu", "selu", "softplus") else torch, act)(v)


def _derivative(v: Tensor, act: str, slope: float, order: int) -> Tensor:
    """The activation's first or second derivative, for where a kernel that cannot run has to be replaced."""
    s = torch.sigmoid(v)
    if ACTIVATIONS[act].piecewise_linear:
        low = {"linear": 1.0, "relu": 0.0, "lrelu": slope}[act]
        return torch.full_like(v, low).masked_fill(v > 0, 1.0)
    if act == "tanh":
        t = torch.tanh(v)
        return 1 - t * t if order == 1 else -2 * t * (1 - t * t)
    if act == "sigmoid":
        return s * (1 - s) if order == 1 else s * (1 - s) * (1 - 2 * s)
    if act == "softplus":
        return s if order == 1 else s * (1 - s)
    if act == "swish":
        return s * (1 + v * (1 - s)) if order == 1 else s * (1 - s) * (2 + v * (1 - 2 * s))
    scale, alpha = (1.0, 1.0) if act == "elu" else (1.0507009873554805, 1.6732632423543772)
    return scale * torch.where(v > 0, 2.0 - order, alpha * torch.exp(v))


# --- the kernel


@lru_cache(maxsize=4096)
def plan(
    dtype: torch.dtype,
    order: int,
    act: str,
    bias: bool,
    clamp: bool,
    count: int,
    inner: int,
    channels: int,
    aligned: int,
) -> Launch:
    """The compiled case and grid for `count` elements, of which `inner` neighbours share a channel.

    Args:
        aligned: elements that the tensors' addresses are a multiple of.
    """
    width = kernels.common_width(aligned, channels if inner == 1 else inner)
    items = 4 if count // width >= MANY_VECTORS else 1
    macros = {
        "DTYPE": kernels.DTYPES[dtype],
        "ORDER": order,
        "ACT": ACTIVATIONS[act].number,
        "BIAS": bias,
        "CLAMP": clamp,
        "CHANNELS_INNER": inner == 1,
        "V": width,
        "ITEMS": items,
        "WIDE": count >= 1 << 31,
        "BLOCK": kernels.THREADS,
    }
    per_block = kernels.THREADS * items * width
    return Launch(Kernel.of("bias_act", macros), -(-count // per_block), (kernels.THREADS, 1, 1))


def _run(
    order: int,
    p: Tensor,
    q: Tensor | None,
    ref: Tensor | None,
    b: Tensor | None,
    act: str,
    slope: float,
    gain: float,
    clamp: float | None,
) -> Tensor | None:
    """The kernel's result in the layout of `ref` (or `p`), or None where it cannot run."""
    like = p if ref is None else ref
    layout = kernels.layout(like)
    out = torch.empty(like.shape, dtype=like.dtype, device=like.device, memory_format=layout)
    if out.numel() == 0:
        return out
    inputs = [None if t is None else t.contiguous(memory_format=layout) for t in (p, q, ref)]
    b = None if b is None else b.contiguous()
    tensors = [t for t in (*inputs, out) if t is not None]
    inner = 1 if layout == torch.channels_last else out[0, 0].numel()
    aligned = kernels.alignment(*tensors)
    channels = out.shape[1]
    launch = plan(
        out.dtype, order, act, b is not None, clamp is not None, out.numel(), inner, channels, aligned
    )
    scalars = [kernels.scalar(v, out.dtype) for v in (slope, gain, clamp or 0.0)]
    arguments: list[Argument] = [out, *inputs, b, ctypes.c_longlong(out.numel()), ctypes.c_int(inner)]
    done = kernels.run(launch, [*arguments, ctypes.c_int(channels), *scalars], out.device)
    return out if done else None


# --- the operators
#
# Linear, relu and lrelu keep their output for the backward pass, which the next layer keeps anyway, and need no
# second derivative; the others keep their input.

_OPTIONS = "str act, float slope, float gain, float? clamp) -> Tensor"
_TAGS = (torch.Tag.pt2_compliant_tag,)
torch.library.define("gnr_video::bias_act", f"(Tensor x, Tensor? b, {_OPTIONS}", tags=_TAGS)
torch.library.define("gnr_video::bias_act_grad", f"(Tensor dy, Tensor ref, Tensor? b, {_OPTIONS}", tags=_TAGS)
torch.library.define(
    "gnr_video::bias_act_grad2", f"(Tensor ddx, Tensor dy, Tensor ref, Tensor? b, {_OPTIONS}", tags=_TAGS
)


@torch.library.impl("gnr_video::bias_act", ("cpu", "cuda"))
def _bias_act(
    x: Tensor, b: Tensor | None, act: str, slope: float, gain: float, clamp: float | None
) -> Tensor:
    y = _run(0, x, None, None, b, act, slope, gain, clamp)
    if y is None:
        y = _fresh(reference(x, b, act, slope, gain, clamp), x)
    return y


@torch.library.impl("gnr_video::bias_act_grad", ("cpu", "cuda"))
def _bias_act_grad(
    dy: Tensor, ref: Tensor, b: Tensor | None, act: str, slope: float, gain: float, clamp: float | None
) -> Tensor:
    dx = _run(1, dy, None, ref, b, act, slope, gain, clamp)
    return _replaced(1, dy, None, ref, b, act, slope, gain, clamp) if dx is None else dx


@torch.library.impl("gnr_video::bias_act_grad2", ("cpu", "cuda"))
def _bias_act_grad2(
    ddx: Tensor,
    dy: Tensor,
    ref: Tensor,
    b: Tensor | None,
    act: str,
    slope: float,
    gain: float,
    clamp: float | None,
) -> Tensor:
    d = _run(2, ddx, dy, ref, b, act, slope, gain, clamp)
    return _replaced(2, ddx, dy, ref, b, act, slope, gain, clamp) if d is None else d


def _replaced(
    order: int,
    p: Tensor,
    q: Tensor | None,
    ref: Tensor,
    b: Tensor | None,
    act: str,
    slope: float,
    gain: float,
    clamp: float | None,
) -> Tensor:
    """What the kernel computes for ORDER 1 and 2, in plain torch."""
    if ACTIVATIONS[act].piecewise_linear:
        y, v = ref, ref * (-1 if gain < 0 else 1)
    else:
        v = reference(ref, b, "linear", slope, 1.0, None)
        y = _activation(v, act, slope) * gain
    d = p * _derivative(v, act, slope, order) * gain
    if q is not None:
        d = d * q
    if clamp is not None:
        d = torch.where(y.abs() < clamp, d, 0.0)
    return _fresh(d, ref)


def _fresh(result: Tensor, like: Tensor) -> Tensor:
    """`result` in the operators' layout and in memory of its own, as the kernel would have written it."""
    layout = kernels.layout(like)
    out = torch.empty(result.shape, dtype=like.dtype, device=like.device, memory_format=layout)
    return out.copy_(result)


@torch.library.register_fake("gnr_video::bias_act")
def _bias_act_fake(x: Tensor, *_: Any) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=kernels.layout(x))


@torch.library.register_fake("gnr_video::bias_act_grad")
def _bias_act_grad_fake(dy: Tensor, ref: Tensor, *_: Any) -> Tensor:
    return _bias_act_fake(ref)


@torch.library.register_fake("gnr_video::bias_act_grad2")
def _bias_act_grad2_fake(ddx: Tensor, dy: Tensor, ref: Tensor, *_: Any) -> Tensor:
    return _bias_act_fake(ref)


def bias_gradient(dx: Tensor) -> Tensor:
    """Sum over all axes but the channels'; in the bias's dtype."""
    axes = [i for i in range(dx.ndim) if i != 1]
    return dx.sum(axes, dtype=kernels.sum_dtype(dx.dtype))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, b, act, *_ = inputs
    ctx.options = inputs[2:]
    if ACTIVATIONS[act].piecewise_linear:
        ctx.save_for_backward(output, None)
    else:
        ctx.save_for_backward(x, b)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    ref, b = ctx.saved_tensors
    dx = torch.ops.gnr_video.bias_act_grad(dy, ref, b, *ctx.options)
    return dx, bias_gradient(dx) if ctx.needs_input_grad[1] else None, None, None, None, None


def _setup_grad(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    dy, ref, b, act, *_ = inputs
    ctx.options = inputs[3:]
    ctx.save_for_backward(None if ACTIVATIONS[act].piecewise_linear else dy, ref, b)


def _backward_grad(ctx: Any, ddx: Tensor) -> tuple[Tensor | None, ...]:
    dy, ref, b = ctx.saved_tensors
    d_dy = torch.ops.gnr_video.bias_act_grad(ddx, ref, b, *ctx.options)
    if dy is None:
        return d_dy, None, None, None, None, None, None
    d_x = torch.ops.gnr_video.bias_act_grad2(ddx, dy, ref, b, *ctx.options)
    return d_dy, d_x, bias_gradient(d_x) if ctx.needs_input_grad[2] else None, None, None, None, None


def _setup_grad2(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.act = inputs[4]


def _backward_grad2(ctx: Any, *_: Tensor) -> None:
    raise NotImplementedError(
        f"bias_act has no third derivative for act={ctx.act!r} in its kernels; impl='ref' has it"
    )


torch.library.register_autograd("gnr_video::bias_act", _backward, setup_context=_setup)
torch.library.register_autograd("gnr_video::bias_act_grad", _backward_grad, setup_context=_setup_grad)
torch.library.register_autograd("gnr_video::bias_act_grad2", _backward_grad2, setup_context=_setup_grad2)
