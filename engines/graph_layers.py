"""The generator's layers as plain convolutions: equalised scales, gains and blurs folded into weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.architecture import Architecture

SLOPE = 0.2
GAIN = math.sqrt(2.0)

Tensors = Mapping[str, Tensor]

Upsampling = Literal["transposed", "polyphase"]


def fir() -> Tensor:
    """The 4x4 low-pass of the official code, float32, sum 1."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64


def conv(
    weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0, groups: int = 1
) -> nn.Conv2d:
    c_out, c_in, k, _ = weight.shape
    conv = nn.Conv2d(
        c_in * groups, c_out, k, stride, padding, groups=groups, bias=bias is not None, device="meta"
    )
    conv.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias.contiguous(), requires_grad=False)
    return conv


def blur(
    channels: int, *, stride: int, padding: int, gain: float = 1.0, bias: Tensor | None = None
) -> nn.Conv2d:
    weight = (fir() * gain).expand(channels, 1, 4, 4)
    return conv(weight, bias, stride=stride, padding=padding, groups=channels)


def upsampling(channels: int) -> nn.ConvTranspose2d:
    """Twice the side, filtered, each channel by itself."""
    up = nn.ConvTranspose2d(channels, channels, 4, 2, 1, groups=channels, bias=False, device="meta")
    up.weight = nn.Parameter((fir() * 4).repeat(channels, 1, 1, 1), requires_grad=False)
    return up


def activate(x: Tensor) -> Tensor:
    # In place: what comes in is always the fresh output of a convolution (4 % of a decoder in torch).
    return functional.leaky_relu_(x, SLOPE)


def equalised(tensors: Tensors, name: str) -> Tensor:
    """A convolution's weight times its equalised-learning-rate scale 1/sqrt(fan in)."""
    weight = tensors[name]
    if weight.ndim == 5:
        weight = weight[0]
    return weight.float() / math.sqrt(weight[0].numel())


class ConvAct(nn.Module):
    """Convolution, bias, leaky ReLU; blurred and halved first if `down`.

    Args:
        gain_in, gain_out: the input carries the factor `gain_in`; the output shall carry `gain_out`.
    """

    def __init__(
        self, tensors: Tensors, name: str, *, down: bool = False, gain_in: float = 1.0, gain_out: float = 1.0
    ) -> None:
        super().__init__()
        i = 1 if down else 0
        weight = equalised(tensors, f"{name}.{i}.weight") * (GAIN * gain_out / gain_in)
        bias = tensors[f"{name}.{i + 1}.bias"].float() * (GAIN * gain_out)
        k = weight.shape[2]
        self.blur = blur(weight.shape[1], stride=1, padding=(k + 1) // 2) if down else None
        self.conv = conv(weight, bias, stride=2 if down else 1, padding=0 if down else k // 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.blur is not None:
            x = self.blur(x)
        return activate(self.conv(x))


class ResBlock(nn.Module):
    """Residual block of the encoder; the factor its input carries grows by sqrt(2) if there is no skip layer.

    (a + b) / sqrt(2): the branch has an activation gain of sqrt(2) that cancels it; the skip convolution
    takes it into its weights; an identity skip cannot, so its whole input is carried smaller by that factor.
    """

    def __init__(self, tensors: Tensors, name: str, *, down: bool, gain_in: float, gain_out: float) -> None:
        super().__init__()
        self.conv1 = ConvAct(tensors, f"{name}.conv1", gain_in=gain_in)
        self.conv2 = ConvAct(tensors, f"{name}.conv2", down=down, gain_out=gain_out / GAIN)
        self.skip_blur: nn.Conv2d | None = None
        if down:
            weight = equalised(tensors, f"{name}.skip.1.weight") * (gain_out / GAIN / gain_in)
            self.skip_blur = blur(weight.shape[1], stride=2, padding=1)
            self.skip = conv(weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        if self.skip_blur is not None:
            x = self.skip(self.skip_blur(x))
        return y + x


def stem(tensors: Tensors, a: Architecture, prefix: str) -> nn.Sequential:
    """Picture (uint8 values, NCHW) -> features at content resolution."""
    first = ConvAct(tensors, f"{prefix}stem.0", gain_in=1.0)
    # x / 127.5 - 1 moves into the first convolution: it is 1x1, so no padding gets in the way.
    weight, bias = first.conv.weight, first.conv.bias
    assert bias is not None
    bias -= weight.sum((1, 2, 3))
    weight /= 127.5
    blocks: list[nn.Module] = [first]
    gain = 1.0
    for i in range(1, a.num_down + a.n_res + 1):
        down = i <= a.num_down
        # After the last halving every block multiplies the carried factor by sqrt(2), up to 1 at the end.
        after = GAIN ** -float(a.n_res) if i == a.num_down else (1.0 if down else gain * GAIN)
        blocks.append(ResBlock(tensors, f"{prefix}stem.{i}", down=down, gain_in=gain, gain_out=after))
        gain = after
    return nn.Sequential(*blocks)


def to_features(images: Tensor, like: Tensor) -> Tensor:
    # The type first: TensorRT takes uint8 only straight into, and straight out of, a conversion.
    return images.to(like.dtype).permute(0, 3, 1, 2)


def linear(tensors: Tensors, name: str, *, lr_mul: float = 1.0, act: bool = False) -> nn.Linear:
    gain = GAIN if act else 1.0
    weight = tensors[f"{name}.weight"].float()
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight = nn.Parameter(weight * (gain * lr_mul / math.sqrt(weight.shape[1])), requires_grad=False)
    linear.bias = nn.Parameter(tensors[f"{name}.bias"].float() * (gain * lr_mul), requires_grad=False)
    return linear


def unit_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (c_out, c_in, k, k) with every output channel's norm 1, and those norms (c_out,).

    With styles divided by their largest value, no partial sum of a convolution is then larger than the
    features themselves by much: half precision does not overflow, whatever the training made of scales.
    """
    norms = weight.flatten(1).norm(dim=1).clamp_min(1e-12)
    return weight / norms.view(-1, 1, 1, 1), norms


def transposed_kernel(weight: Tensor, up: Upsampling) -> Tensor:
    """Weight for doubling: of the 3x3 transposed convolution, or, with the blur multiplied in, of a 3x3
    convolution that makes the four pixels of each 2x2 as 4 x c_out channels (phase first)."""
    if up == "transposed":
        return weight.transpose(0, 1)
    c_out, c_in = weight.shape[:2]
    # The 6x6 kernel, transposed convolution and blur in one, of each of the nine taps of a 3x3 kernel.
    full = functional.conv2d(torch.eye(9).view(9, 1, 3, 3), fir()[None, None] * 4, padding=3)[:, 0]
    # Output pixel 2m + p takes input pixel m + j, j = -1..1, with the tap p + 2 - 2j of the 6x6 kernel.
    taps = [[p + 2 - 2 * j for j in (-1, 0, 1)] for p in (0, 1)]
    phases = [full[:, taps[py]][:, :, taps[px]].reshape(9, 9) for py in (0, 1) for px in (0, 1)]
    return torch.cat([(weight.reshape(-1, 9) @ m).view(c_out, c_in, 3, 3) for m in phases])


def shown_places(places: Tensor, architecture: Architecture, cells: int) -> Tensor:
    """What `cells` x `cells` features show of the map of places (C, place, place), (C, cells, cells); see
    `Architecture.place_start`. `cells` may be a tensor, in a graph that is traced without a size."""
    count = torch.arange(cells, device=places.device)
    rows, columns = (
        (count + start).clamp(0, architecture.place - 1) for start in architecture.place_start(cells)
    )
    return places.index_select(1, rows).index_select(2, columns)


def shuffle(x: Tensor) -> Tensor:
    """(N, 4C, H, W), phase first -> (N, C, 2H, 2W); moves whole pixels in channels_last memory."""
    # torch's word on exports is the whole process's: an engine that runs meanwhile must not hear it.
    if torch.jit.is_tracing() and torch.onnx.is_in_onnx_export():
        return DepthToSpace.apply(x)
    n, c4, h, w = x.shape
    x = x.permute(0, 2, 3, 1).reshape(n, h, w, 2, 2, c4 // 4)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, c4 // 4).permute(0, 3, 1, 2)


class DepthToSpace(torch.autograd.Function):
    """`shuffle` as the one ONNX operator that it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        n, c4, h, w = x.shape
        return x.new_zeros((n, c4 // 4, 2 * h, 2 * w))  # for the shape: an export looks at no values

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("DepthToSpace", x, blocksize_i=2, mode_s="DCR")
