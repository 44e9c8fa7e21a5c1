"""Style folding: a weights file becomes plain convolutions (DESIGN: the generator, and why it is fast).

What training needs but a fixed network does not is multiplied into constant weights: the equalised learning
rate, the gain sqrt(2) after each activation (leaky ReLU is positively homogeneous), the residual 1/sqrt(2),
the normalisation of pixels, and, for a fixed style, modulation and demodulation (StyleGAN2, equation 3). A
blur followed by a strided 1x1 convolution becomes a strided blur and a plain 1x1. What is left is
convolution, depthwise FIR, leaky ReLU and addition, which every runtime knows how to fuse.

The graphs take and give uint8 NHWC pictures, so that only bytes cross a bus.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.architecture import PLACE, PLACE_GAIN, Architecture
from engines.errors import WeightsError
from engines.graph_layers import (
    GAIN,
    ConvAct,
    Upsampling,
    activate,
    blur,
    conv,
    equalised,
    linear,
    shown_places,
    shuffle,
    stem,
    to_features,
    transposed_kernel,
    unit_rows,
    upsampling,
)
from engines.weights import STYLE_ENCODER, Weights

GRAPH_VERSION = 1
"""Raised whenever the graphs change, so that compiled engines in caches are built again."""


class ContentEncoder(nn.Module):
    """uint8 (N, S, S, 3) -> content code (N, C, s, s) in the module's floating-point type."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        tensors, a = weights.tensors, weights.architecture
        self.stem = stem(tensors, a, "encoder.")
        self.content = nn.Sequential(*(ConvAct(tensors, f"encoder.content.{i}") for i in range(2)))
        self.requires_grad_(False)

    def features(self, x: Tensor) -> Tensor:
        """Content code of pictures (N, 3, S, S) with values 0..255, in the module's type."""
        return self.content(self.stem(x))

    def forward(self, images: Tensor) -> Tensor:
        return self.features(to_features(images, next(self.parameters())))


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
        self.stem = stem(tensors, a, STYLE_ENCODER)
        head: list[nn.Module] = []
        r = a.content_size
        while r > 4:
            head.append(ConvAct(tensors, f"{STYLE_ENCODER}style.{len(head)}", down=True))
            r //= 2
        self.head = nn.Sequential(*head)
        self.linear1 = linear(tensors, f"{STYLE_ENCODER}style.{len(head) + 1}", act=True)
        self.linear2 = linear(tensors, f"{STYLE_ENCODER}style.{len(head) + 2}")
        self.requires_grad_(False)

    def features(self, x: Tensor) -> Tensor:
        """Style code of pictures (N, 3, S, S) with values 0..255, in the module's type."""
        x = self.head(self.stem(x))
        return self.linear2(activate(self.linear1(x.flatten(1))))

    def forward(self, images: Tensor) -> Tensor:
        return self.features(to_features(images, self.linear1.weight)).float()


class MappingNetwork(nn.Module):
    """Mapping network: style code z, float32 (N, latent_dim) -> w, float32 (N, style_dim)."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        layers = weights.architecture.n_mlp
        self.layers = nn.ModuleList(
            linear(weights.tensors, f"mapping.{i}", lr_mul=0.01, act=True) for i in range(layers)
        )
        self.requires_grad_(False)

    def forward(self, z: Tensor) -> Tensor:
        for layer in self.layers:
            z = activate(layer(z))
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
    for i in reversed(range(a.coarse)):
        # As below; the halved features, and what comes back from further down, are carried smaller.
        layers.append(StyledLayer(f"coarse.{i}.block.conv1", gain_in=1 / GAIN))
        layers.append(StyledLayer(f"coarse.{i}.block.conv2", gain_out=1 / GAIN))
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
            self.modulations.append(linear(weights.tensors, f"{layer.name}.conv.modulation"))
            weight = equalised(weights.tensors, f"{layer.name}.conv.weight")
            scale = unit_rows(weight)[1] * (layer.gain_out / layer.gain_in)
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
        weight, _ = unit_rows(equalised(weights.tensors, f"{layer.name}.conv.weight"))
        bias = weights.tensors[f"{layer.name}.activate.bias"].float() * (GAIN * layer.gain_out)
        if vectors is not None:
            s, d = vectors
            weight = weight * s.view(1, -1, 1, 1) * d.view(-1, 1, 1, 1)
        constant_bias = None if self.dynamic else bias
        self.blur: nn.Conv2d | None = None
        self.conv: nn.Module
        if up == "transposed":
            kernel = transposed_kernel(weight, up)
            self.conv = nn.ConvTranspose2d(kernel.shape[0], kernel.shape[1], 3, 2, bias=False, device="meta")
            self.conv.weight = nn.Parameter(kernel.contiguous(), requires_grad=False)
            self.blur = blur(weight.shape[0], stride=1, padding=1, gain=4.0, bias=constant_bias)
        elif up == "polyphase":
            if constant_bias is not None:
                constant_bias = constant_bias.repeat(4)
            self.conv = conv(transposed_kernel(weight, up), constant_bias, padding=1)
        else:
            self.conv = conv(weight, constant_bias, padding=1)
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
        x = activate(x)
        return shuffle(x) if self.up == "polyphase" else x


class _ToRgb(nn.Module):
    """A modulated 1x1 convolution to RGB, plus the doubled RGB of the stage before."""

    bias: Tensor

    def __init__(self, weights: Weights, name: str, vectors: tuple[Tensor, Tensor] | None) -> None:
        super().__init__()
        weight, _ = unit_rows(equalised(weights.tensors, f"{name}.conv.weight"))
        bias = weights.tensors[f"{name}.bias"].float().flatten()
        if vectors is not None:
            s, d = vectors
            weight = weight * s.view(1, -1, 1, 1) * d.view(-1, 1, 1, 1)
        self.conv = conv(weight, None if vectors is None else bias)
        self.register_buffer("bias", bias.view(1, 3, 1, 1))
        self.up = upsampling(3)

    def forward(self, x: Tensor, rgb: Tensor | None, s: Tensor | None, d: Tensor | None) -> Tensor:
        if s is not None:
            x = x * s
        x = self.conv(x)
        if d is not None:
            x = x * d + self.bias
        return x if rgb is None else x + self.up(rgb)


class _CoarseBranch(nn.Module):
    """The halved features of the coarse branch, and their way back; its styled layers are the decoder's.

    Args:
        gain: factor that what is added to the content code shall carry.
    """

    places: Tensor | None

    def __init__(self, weights: Weights, gain: float) -> None:
        super().__init__()
        tensors, levels = weights.tensors, range(weights.architecture.coarse)
        smaller = 1 / GAIN
        gains = [gain] + [smaller] * (len(levels) - 1)
        self.downs = nn.ModuleList(
            ConvAct(tensors, f"coarse.{i}.down", down=True, gain_in=smaller if i else 1.0, gain_out=smaller)
            for i in levels
        )
        backs = [equalised(tensors, f"coarse.{i}.back.weight") * gains[i] for i in levels]
        self.backs = nn.ModuleList(nn.Sequential(conv(w), upsampling(len(w))) for w in backs)
        self._architecture = weights.architecture
        self.register_buffer("places", tensors[PLACE] * (PLACE_GAIN * smaller) if PLACE in tensors else None)

    def halved(self, x: Tensor) -> list[Tensor]:
        """Content code (N, C, s, s) -> features at s/2, s/4 ..."""
        found = []
        for down in self.downs:
            x = down(x)
            found.append(x)
        if self.places is not None:
            found[-1] = x + shown_places(self.places, self._architecture, x.shape[-1])
        return found

    def back(self, level: int, x: Tensor) -> Tensor:
        """Features of that level -> what is added to those of the level before, or to the content code."""
        added: Tensor = self.backs[level](x)
        return added


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
        self.coarse = _CoarseBranch(weights, self.content_gain) if a.coarse else None
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

        def block(x: Tensor) -> Tensor:
            """The next residual block."""
            nonlocal at
            y = self.layers[at](x, *vectors[2 * at : 2 * at + 2])
            y = self.layers[at + 1](y, *vectors[2 * at + 2 : 2 * at + 4])
            at += 2
            return x + y

        x = content * self.content_gain if self.n_res else content
        if self.coarse is not None:
            finer = [x, *self.coarse.halved(content)]
            x = finer.pop()
            while finer:
                x = finer.pop() + self.coarse.back(len(finer), block(x))
        for _ in range(self.n_res):
            x = block(x)
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
