"""Style folding: a weights file becomes plain convolutions (DESIGN: the generator, and why it is fast).

What training needs but a fixed network does not is multiplied into constant weights: the equalised learning
rate, the gain sqrt(2) after each activation (leaky ReLU is positively homogeneous), the residual 1/sqrt(2),
the normalisation of pixels, and, for a fixed style, modulation and demodulation (StyleGAN2, equation 3). A
blur followed by a strided 1x1 convolution becomes a strided blur and a plain 1x1. What is left is
convolution, depthwise FIR, leaky ReLU and addition, which every runtime knows how to fuse.

The graphs take and give uint8 NHWC pictures, so that only bytes cross a bus.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.architecture import Architecture
from engines.errors import WeightsError
from engines.weights import STYLE_ENCODER, Weights

GRAPH_VERSION = 1
"""Raised whenever the graphs change, so that compiled engines in caches are built again."""

SLOPE = 0.2
GAIN = math.sqrt(2.0)

Upsampling = Literal["transposed", "polyphase"]
Tensors = Mapping[str, Tensor]


def _fir() -> Tensor:
    """The 4x4 low-pass of the official code, float32, sum 1."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64


def _conv(
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


def _blur(
    channels: int, *, stride: int, padding: int, gain: float = 1.0, bias: Tensor | None = None
) -> nn.Conv2d:
    weight = (_fir() * gain).expand(channels, 1, 4, 4)
    return _conv(weight, bias, stride=stride, padding=padding, groups=channels)


def _activate(x: Tensor) -> Tensor:
    # In place: what comes in is always the fresh output of a convolution (4 % of a decoder in torch).
    return functional.leaky_relu_(x, SLOPE)


def _equalised(tensors: Tensors, name: str) -> Tensor:
    """A convolution's weight times its equalised-learning-rate scale 1/sqrt(fan in)."""
    weight = tensors[name]
    if weight.ndim == 5:
        weight = weight[0]
    return weight.float() / math.sqrt(weight[0].numel())


class _ConvAct(nn.Module):
    """Convolution, bias, leaky ReLU; blurred and halved first if `down`.

    Args:
        gain_in, gain_out: the input carries the factor `gain_in`; the output shall carry `gain_out`.
    """

    def __init__(
        self, tensors: Tensors, name: str, *, down: bool = False, gain_in: float = 1.0, gain_out: float = 1.0
    ) -> None:
        super().__init__()
        i = 1 if down else 0
        weight = _equalised(tensors, f"{name}.{i}.weight") * (GAIN * gain_out / gain_in)
        bias = tensors[f"{name}.{i + 1}.bias"].float() * (GAIN * gain_out)
        k = weight.shape[2]
        self.blur = _blur(weight.shape[1], stride=1, padding=(k + 1) // 2) if down else None
        self.conv = _conv(weight, bias, stride=2 if down else 1, padding=0 if down else k // 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.blur is not None:
            x = self.blur(x)
        return _activate(self.conv(x))


class _ResBlock(nn.Module):
    """Residual block of the encoder; the factor its input carries grows by sqrt(2) if there is no skip layer.

    (a + b) / sqrt(2): the branch has an activation gain of sqrt(2) that cancels it; the skip convolution
    takes it into its weights; an identity skip cannot, so its whole input is carried smaller by that factor.
    """

    def __init__(self, tensors: Tensors, name: str, *, down: bool, gain_in: float, gain_out: float) -> None:
        super().__init__()
        self.conv1 = _ConvAct(tensors, f"{name}.conv1", gain_in=gain_in)
        self.conv2 = _ConvAct(tensors, f"{name}.conv2", down=down, gain_out=gain_out / GAIN)
        self.skip_blur: nn.Conv2d | None = None
        if down:
            weight = _equalised(tensors, f"{name}.skip.1.weight") * (gain_out / GAIN / gain_in)
            self.skip_blur = _blur(weight.shape[1], stride=2, padding=1)
            self.skip = _conv(weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        if self.skip_blur is not None:
            x = self.skip(self.skip_blur(x))
        return y + x


def _stem(tensors: Tensors, a: Architecture, prefix: str) -> nn.Sequential:
    """Picture (uint8 values, NCHW) -> features at content resolution."""
    first = _ConvAct(tensors, f"{prefix}stem.0", gain_in=1.0)
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
        blocks.append(_ResBlock(tensors, f"{prefix}stem.{i}", down=down, gain_in=gain, gain_out=after))
        gain = after
    return nn.Sequential(*blocks)


def _to_features(images: Tensor, like: Tensor) -> Tensor:
    # The type first: TensorRT takes uint8 only straight into, and straight out of, a conversion.
    return images.to(like.dtype).permute(0, 3, 1, 2)


class ContentEncoder(nn.Module):
    """uint8 (N, S, S, 3) -> content code (N, C, s, s) in the module's floating-point type."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        tensors, a = weights.tensors, weights.architecture
        self.stem = _stem(tensors, a, "encoder.")
        self.content = nn.Sequential(*(_ConvAct(tensors, f"encoder.content.{i}") for i in range(2)))
        self.requires_grad_(False)

    def features(self, x: Tensor) -> Tensor:
        """Content code of pictures (N, 3, S, S) with values 0..255, in the module's type."""
        return self.content(self.stem(x))

    def forward(self, images: Tensor) -> Tensor:
        return self.features(_to_features(images, next(self.parameters())))


class StyleEncoder(nn.Module):
    """Anime picture, uint8 (N, S, S, 3) -> style code z, float32 (N, latent_dim).

    Raises:
        WeightsError: the weights hold no style encoder.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        if not weights.has_style_encoder:
            raise WeightsError(
                "these weights hold no style encoder: a style cannot be read off a picture",
                "use a seed, or import a full training checkpoint (a released one holds only G_A2B_ema)",
            )
        tensors, a = weights.tensors, weights.architecture
        self.stem = _stem(tensors, a, STYLE_ENCODER)
        head: list[nn.Module] = []
        r = a.content_size
        while r > 4:
            head.append(_ConvAct(tensors, f"{STYLE_ENCODER}style.{len(head)}", down=True))
            r //= 2
        self.head = nn.Sequential(*head)
        self.linear1 = _linear(tensors, f"{STYLE_ENCODER}style.{len(head) + 1}", act=True)
        self.linear2 = _linear(tensors, f"{STYLE_ENCODER}style.{len(head) + 2}")
        self.requires_grad_(False)

    def features(self, x: Tensor) -> Tensor:
        """Style code of pictures (N, 3, S, S) with values 0..255, in the module's type."""
        x = self.head(self.stem(x))
        return self.linear2(_activate(self.linear1(x.flatten(1))))

    def forward(self, images: Tensor) -> Tensor:
        return self.features(_to_features(images, self.linear1.weight)).float()


def _linear(tensors: Tensors, name: str, *, lr_mul: float = 1.0, act: bool = False) -> nn.Linear:
    gain = GAIN if act else 1.0
    weight = tensors[f"{name}.weight"].float()
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight = nn.Parameter(weight * (gain * lr_mul / math.sqrt(weight.shape[1])), requires_grad=False)
    linear.bias = nn.Parameter(tensors[f"{name}.bias"].float() * (gain * lr_mul), requires_grad=False)
    return linear


class MappingNetwork(nn.Module):
    """Mapping network: style code z, float32 (N, latent_dim) -> w, float32 (N, style_dim)."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        layers = weights.architecture.n_mlp
        self.layers = nn.ModuleList(
            _linear(weights.tensors, f"mapping.{i}", lr_mul=0.01, act=True) for i in range(layers)
        )
        self.requires_grad_(False)

    def forward(self, z: Tensor) -> Tensor:
        for layer in self.layers:
            z = _activate(layer(z))
        return z


@dataclass(frozen=True)
class StyledLayer:
    """A modulated layer of the decoder.

    Attributes:
        name: official name, without ".conv".
        up: whether it doubles the resolution.
        gain_in, gain_out: factors that its input carries and its output shall carry (residual blocks).
    """

    name: str
    up: bool = False
    gain_in: float = 1.0
    gain_out: float = 1.0

    @property
    def is_rgb(self) -> bool:
        return self.name.startswith("to_rgb")


def styled_layers(a: Architecture) -> list[StyledLayer]:
    """The decoder's modulated layers, in the order in which they run and their style vectors are stored."""
    layers = []
    for i in range(a.n_res):
        # (branch + x) / sqrt(2) with x carried smaller by `gain`: only the branch needs a factor.
        gain = GAIN ** (i - a.n_res)
        layers.append(StyledLayer(f"adain_bottleneck.{i}.conv1", gain_in=gain))
        layers.append(StyledLayer(f"adain_bottleneck.{i}.conv2", gain_out=gain))
    layers += [StyledLayer("conv1"), StyledLayer("to_rgb1")]
    for i in range(a.num_down):
        layers += [StyledLayer(f"convs.{2 * i}", up=True), StyledLayer(f"convs.{2 * i + 1}")]
        layers.append(StyledLayer(f"to_rgbs.{i}"))
    return layers


def _unit_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (c_out, c_in, k, k) with every output channel's norm 1, and those norms (c_out,).

    With styles divided by their largest value, no partial sum of a convolution is then larger than the
    features themselves by much: half precision does not overflow, whatever the training made of scales.
    """
    norms = weight.flatten(1).norm(dim=1).clamp_min(1e-12)
    return weight / norms.view(-1, 1, 1, 1), norms


class StyleVectors(nn.Module):
    """w, float32 (N, style_dim) -> all layers' per-channel vectors in one row, float32 (N, V).

    For each layer the modulation s (one per input channel, largest magnitude 1) and the demodulation d (one
    per output channel, with everything that was divided out of the weights and of s put back):
    ``y = d[o] * conv(W, s[i] * x)`` equals StyleGAN2's modulated convolution (equations 1 and 3), exactly.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.modulations = nn.ModuleList()
        self.squares: list[Tensor | None] = []
        self.scales: list[Tensor] = []
        for layer in styled_layers(weights.architecture):
            self.modulations.append(_linear(weights.tensors, f"{layer.name}.conv.modulation"))
            weight = _equalised(weights.tensors, f"{layer.name}.conv.weight")
            scale = _unit_rows(weight)[1] * (layer.gain_out / layer.gain_in)
            self.squares.append(None if layer.is_rgb else weight.square().sum((2, 3)))
            self.scales.append(scale if layer.is_rgb else scale * GAIN)
        self.requires_grad_(False)

    def forward(self, w: Tensor) -> Tensor:
        parts = []
        for modulation, square, scale in zip(self.modulations, self.squares, self.scales, strict=True):
            s = modulation(w)
            peak = s.abs().amax(1, keepdim=True).clamp_min(1e-12)
            d = (scale * peak).expand(w.shape[0], -1)
            if square is not None:
                d = d * torch.rsqrt(functional.linear(s.square(), square) + 1e-8)
            parts += [s / peak, d]
        return torch.cat(parts, 1)


def _transposed_kernel(weight: Tensor, up: Upsampling) -> Tensor:
    """Weight for doubling: of the 3x3 transposed convolution, or, with the blur multiplied in, of a 3x3
    convolution that makes the four pixels of each 2x2 as 4 x c_out channels (phase first)."""
    if up == "transposed":
        return weight.transpose(0, 1)
    c_out, c_in = weight.shape[:2]
    # The 6x6 kernel, transposed convolution and blur in one, of each of the nine taps of a 3x3 kernel.
    full = functional.conv2d(torch.eye(9).view(9, 1, 3, 3), _fir()[None, None] * 4, padding=3)[:, 0]
    # Output pixel 2m + p takes input pixel m + j, j = -1..1, with the tap p + 2 - 2j of the 6x6 kernel.
    taps = [[p + 2 - 2 * j for j in (-1, 0, 1)] for p in (0, 1)]
    phases = [full[:, taps[py]][:, :, taps[px]].reshape(9, 9) for py in (0, 1) for px in (0, 1)]
    return torch.cat([(weight.reshape(-1, 9) @ m).view(c_out, c_in, 3, 3) for m in phases])


def _shuffle(x: Tensor) -> Tensor:
    """(N, 4C, H, W), phase first -> (N, C, 2H, 2W); moves whole pixels in channels_last memory."""
    # torch's word on exports is the whole process's: an engine that runs meanwhile must not hear it.
    if torch.jit.is_tracing() and torch.onnx.is_in_onnx_export():
        return _DepthToSpace.apply(x)
    n, c4, h, w = x.shape
    x = x.permute(0, 2, 3, 1).reshape(n, h, w, 2, 2, c4 // 4)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, c4 // 4).permute(0, 3, 1, 2)


class _DepthToSpace(torch.autograd.Function):
    """`_shuffle` as the one ONNX operator that it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        n, c4, h, w = x.shape
        return x.new_zeros((n, c4 // 4, 2 * h, 2 * w))  # for the shape: an export looks at no values

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("DepthToSpace", x, blocksize_i=2, mode_s="DCR")


class _Styled(nn.Module):
    """A modulated convolution with its activation: constant if it is given its vectors, else dynamic."""

    bias: Tensor

    def __init__(
        self,
        weights: Weights,
        layer: StyledLayer,
        vectors: tuple[Tensor, Tensor] | None,
        up: Upsampling | None,
    ) -> None:
        super().__init__()
        self.dynamic = vectors is None
        self.up = up
        weight, _ = _unit_rows(_equalised(weights.tensors, f"{layer.name}.conv.weight"))
        bias = weights.tensors[f"{layer.name}.activate.bias"].float() * (GAIN * layer.gain_out)
        if vectors is not None:
            s, d = vectors
            weight = weight * s.view(1, -1, 1, 1) * d.view(-1, 1, 1, 1)
        constant_bias = None if self.dynamic else bias
        self.blur: nn.Conv2d | None = None
        self.conv: nn.Module
        if up == "transposed":
            kernel = _transposed_kernel(weight, up)
            conv = nn.ConvTranspose2d(kernel.shape[0], kernel.shape[1], 3, 2, bias=False, device="meta")
            conv.weight = nn.Parameter(kernel.contiguous(), requires_grad=False)
            self.conv = conv
            self.blur = _blur(weight.shape[0], stride=1, padding=1, gain=4.0, bias=constant_bias)
        elif up == "polyphase":
            if constant_bias is not None:
                constant_bias = constant_bias.repeat(4)
            self.conv = _conv(_transposed_kernel(weight, up), constant_bias, padding=1)
        else:
            self.conv = _conv(weight, constant_bias, padding=1)
        self.register_buffer("bias", bias.view(1, -1, 1, 1))

    def forward(self, x: Tensor, s: Tensor | None, d: Tensor | None) -> Tensor:
        if s is not None:
            x = x * s
        x = self.conv(x)
        if self.blur is not None:
            x = self.blur(x)
        bias = self.bias
        if d is not None:
            if self.up == "polyphase":
                d, bias = d.repeat(1, 4, 1, 1), bias.repeat(1, 4, 1, 1)
            x = x * d + bias
        x = _activate(x)
        return _shuffle(x) if self.up == "polyphase" else x


class _ToRgb(nn.Module):
    """A modulated 1x1 convolution to RGB, plus the doubled RGB of the stage before."""

    bias: Tensor

    def __init__(self, weights: Weights, name: str, vectors: tuple[Tensor, Tensor] | None) -> None:
        super().__init__()
        weight, _ = _unit_rows(_equalised(weights.tensors, f"{name}.conv.weight"))
        bias = weights.tensors[f"{name}.bias"].float().flatten()
        if vectors is not None:
            s, d = vectors
            weight = weight * s.view(1, -1, 1, 1) * d.view(-1, 1, 1, 1)
        self.conv = _conv(weight, None if vectors is None else bias)
        self.register_buffer("bias", bias.view(1, 3, 1, 1))
        up = nn.ConvTranspose2d(3, 3, 4, 2, 1, groups=3, bias=False, device="meta")
        up.weight = nn.Parameter((_fir() * 4).repeat(3, 1, 1, 1), requires_grad=False)
        self.up = up

    def forward(self, x: Tensor, rgb: Tensor | None, s: Tensor | None, d: Tensor | None) -> Tensor:
        if s is not None:
            x = x * s
        x = self.conv(x)
        if d is not None:
            x = x * d + self.bias
        return x if rgb is None else x + self.up(rgb)


class Decoder(nn.Module):
    """Content code (N, C, s, s) -> pictures, uint8 (N, S, S, 3).

    Args:
        style: the vectors of one style, float32 (V,) or (1, V), from `StyleVectors`: they are multiplied into
            the weights ("baked"). None: "dynamic", every call brings its own (N, V), one style per picture.
        up: how resolution is doubled; both are exact.
    """

    def __init__(
        self, weights: Weights, style: Tensor | None = None, *, up: Upsampling = "transposed"
    ) -> None:
        super().__init__()
        a = weights.architecture
        self.n_res = a.n_res
        self.content_gain = GAIN**-a.n_res
        self.widths: list[int] = []
        self.layers = nn.ModuleList()
        start = 0
        for layer in styled_layers(a):
            c_out, c_in = weights.tensors[f"{layer.name}.conv.weight"].shape[1:3]
            vectors = None
            if style is not None:
                row = style.detach().float().flatten()
                vectors = row[start : start + c_in], row[start + c_in : start + c_in + c_out]
            start += c_in + c_out
            self.widths += [c_in, c_out]
            if layer.is_rgb:
                self.layers.append(_ToRgb(weights, layer.name, vectors))
            else:
                self.layers.append(_Styled(weights, layer, vectors, up if layer.up else None))
        self.dynamic = style is None
        self.requires_grad_(False)

    def features(self, content: Tensor, style: Tensor | None = None) -> Tensor:
        """The picture before it is clamped: (N, 3, S, S), about [-1, 1], in the module's type."""
        vectors: list[Tensor | None] = [None] * len(self.widths)
        if self.dynamic:
            if style is None:
                raise ValueError("a dynamic decoder needs style vectors")
            row = style.to(content.dtype)[:, :, None, None]
            vectors = list(torch.split(row, self.widths, 1))
        at = 0
        x = content * self.content_gain if self.n_res else content
        for _ in range(self.n_res):
            y = self.layers[at](x, *vectors[2 * at : 2 * at + 2])
            y = self.layers[at + 1](y, *vectors[2 * at + 2 : 2 * at + 4])
            x, at = x + y, at + 2
        rgb = None
        for layer, s, d in zip(self.layers[at:], vectors[2 * at :: 2], vectors[2 * at + 1 :: 2], strict=True):
            if isinstance(layer, _ToRgb):
                rgb = layer(x, rgb, s, d)
            else:
                x = layer(x, s, d)
        assert rgb is not None
        return rgb

    def pictures(self, content: Tensor, style: Tensor | None = None) -> Tensor:
        """What `forward` gives, before it becomes bytes: float32 (N, S, S, 3), whole numbers from 0 to 255."""
        rgb = self.features(content, style).float()
        return (rgb * 127.5 + 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)

    def forward(self, content: Tensor, style: Tensor | None = None) -> Tensor:
        return self.pictures(content, style).to(torch.uint8)
