"""The trainable GNR networks, under the official parameter names: generator, discriminator, latent discriminator.

Equations and structure follow GANs N' Roses (Chong and Forsyth 2021) and StyleGAN2 (Karras et al. 2020).
Modulated convolutions are computed in their activation form, ``y = d * conv(W, s * x)``, which is exact and
needs no grouped convolution; the run-time folds the same weights into plain ones (`engines.graph`).
"""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.architecture import PLACE_GAIN, Architecture
from engines.errors import WeightsError
from engines.graph_layers import shown_places
from engines.weights import STYLE_ENCODER, Weights
from train.distributed import gather
from train.ops import kernels
from train.ops.bias_act import bias_act
from train.ops.fir_bias_act import fir_bias_act
from train.ops.upfirdn2d import setup_filter, setup_separable_filter, upfirdn2d

SLOPE = 0.2
ACT_GAIN = sqrt(2.0)


class EqualConv2d(nn.Module):
    """Convolution with the equalised learning rate: weights ~ N(0, 1), scaled by 1/sqrt(fan in) when used."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = True
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None
        self.scale = 1 / sqrt(c_in * kernel**2)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, stride=self.stride, padding=self.padding)


class EqualLinear(nn.Module):
    """Fully connected layer with the equalised learning rate and, optionally, the scaled leaky ReLU."""

    def __init__(
        self, n_in: int, n_out: int, *, bias_init: float = 0.0, lr_mul: float = 1.0, act: bool = False
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / lr_mul)
        self.bias = nn.Parameter(torch.full((n_out,), float(bias_init)))
        self.scale, self.lr_mul, self.act = lr_mul / sqrt(n_in), lr_mul, act

    def forward(self, x: Tensor) -> Tensor:
        if self.act:
            return bias_act(F.linear(x, self.weight * self.scale), self.bias * self.lr_mul)
        return F.linear(x, self.weight * self.scale, self.bias * self.lr_mul)


class Fir(nn.Module):
    """StyleGAN2's [1, 3, 3, 1] filter. `kernel` is in checkpoints, `taps` is the same filter, separable."""

    kernel: Tensor
    taps: Tensor

    def __init__(self, gain: float = 1.0):
        super().__init__()
        self.register_buffer("kernel", setup_filter(gain=gain))
        self.register_buffer("taps", setup_separable_filter(gain=gain), persistent=False)

    def filter_for(self, x: Tensor) -> Tensor:
        """The form that is faster where `x` is: separable in the CUDA kernels, 2-D in plain torch."""
        return self.taps if kernels.chosen(None, x) else self.kernel


class Blur(Fir):
    """FIR low-pass."""

    def __init__(self, pad: tuple[int, int], gain: float = 1.0):
        super().__init__(gain)
        self.pad = (*pad, *pad)

    def forward(self, x: Tensor) -> Tensor:
        return upfirdn2d(x, self.filter_for(x), padding=self.pad)


class FusedLeakyReLU(nn.Module):
    """Bias and scaled leaky ReLU; a module of its own because the official names have it so."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return bias_act(x, self.bias)


class ConvLayer(nn.Sequential):
    """[blur] -> convolution -> [bias, leaky ReLU]."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int, *, down: bool = False, bias: bool = True, act: bool = True
    ):
        layers: list[nn.Module] = []
        if down:
            p = 4 - 2 + kernel - 1
            layers.append(Blur(((p + 1) // 2, p // 2)))
        layers.append(
            EqualConv2d(
                c_in, c_out, kernel, 2 if down else 1, 0 if down else kernel // 2, bias=bias and not act
            )
        )
        if act:
            layers.append(FusedLeakyReLU(c_out))
        super().__init__(*layers)
        self.down, self.act = down, act

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """x (N, c_in, H, W) -> `gain` times the layer's output.

        Leaky ReLU is positively homogeneous, so the gains go into the weights and the bias, and the picture
        is passed over fewer times.
        """
        conv: EqualConv2d = self[1 if self.down else 0]  # type: ignore[assignment]
        padding = conv.padding
        if self.down:
            blur: Blur = self[0]  # type: ignore[assignment]
            if conv.weight.shape[-1] == 1:  # a strided 1x1 needs only every second blurred pixel
                x = upfirdn2d(x, blur.filter_for(x), down=2, padding=blur.pad)
                stride = 1
            else:
                x, stride = blur(x), 2
        else:
            stride = 1
        if not self.act:
            bias = conv.bias if conv.bias is None else conv.bias * gain
            return F.conv2d(x, conv.weight * (conv.scale * gain), bias, stride=stride, padding=padding)
        gain *= ACT_GAIN
        activate: FusedLeakyReLU = self[-1]  # type: ignore[assignment]
        weight, bias = conv.weight * (conv.scale * gain), activate.bias * gain
        if kernels.chosen(None, x):
            return bias_act(F.conv2d(x, weight, stride=stride, padding=padding), bias, gain=1.0)
        return F.leaky_relu(F.conv2d(x, weight, bias, stride=stride, padding=padding), SLOPE)


class ResBlock(nn.Module):
    """Residual block; halves the resolution when `down`."""

    def __init__(self, c_in: int, c_out: int, *, down: bool):
        super().__init__()
        self.conv1 = ConvLayer(c_in, c_in, 3)
        self.conv2 = ConvLayer(c_in, c_out, 3, down=down)
        if down or c_in != c_out:
            self.skip: nn.Module = ConvLayer(c_in, c_out, 1, down=down, bias=False, act=False)
        else:
            self.skip = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x), sqrt(0.5))
        if isinstance(self.skip, ConvLayer):
            return y + self.skip(x, sqrt(0.5))
        return y + x * sqrt(0.5)


class ModulatedConv2d(nn.Module):
    """Convolution whose input channels are scaled by the style, with demodulation.

    StyleGAN2, equations 1 to 3, moved to the activations: ``y = d * conv(W, s * x)`` with
    ``d[o] = 1 / sqrt(sum_i,k (W[o,i,k] s[i])^2 + 1e-8)``.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int, style_dim: int, *, demodulate: bool = True, up: bool = False
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, c_out, c_in, kernel, kernel))
        self.modulation = EqualLinear(style_dim, c_in, bias_init=1.0)
        self.blur = Blur((1, 1), gain=4.0) if up else nn.Identity()
        self.scale = 1 / sqrt(c_in * kernel**2)
        self.kernel, self.up, self.demodulate = kernel, up, demodulate

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x (N, c_in, H, W), w (N, style_dim) -> (N, c_out, H, W), twice the side when `up`."""
        y, d = self.convolved(x, w)
        if d is not None:
            y = y * d.to(y.dtype)[:, :, None, None]
        return self.blur(y)

    def convolved(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor | None]:
        """What comes before demodulation and blur, and the demodulation d (N, c_out), float32."""
        s = self.modulation(w)
        weight = self.weight[0] * self.scale
        x = x * s.to(x.dtype)[:, :, None, None]
        if self.up:
            y = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        else:
            y = F.conv2d(x, weight, padding=self.kernel // 2)
        if not self.demodulate:
            return y, None
        with torch.autocast(x.device.type, enabled=False):
            return y, torch.rsqrt(s.float().square() @ weight.float().square().sum((2, 3)).t() + 1e-8)


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, bias, leaky ReLU (GNR adds no noise)."""

    def __init__(self, c_in: int, c_out: int, style_dim: int, *, up: bool = False):
        super().__init__()
        self.conv = ModulatedConv2d(c_in, c_out, 3, style_dim, up=up)
        self.activate = FusedLeakyReLU(c_out)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        y, d = self.conv.convolved(x, w)
        assert d is not None
        blur = self.conv.blur
        f, pad = (blur.filter_for(y), blur.pad) if isinstance(blur, Blur) else (None, (0, 0, 0, 0))
        # The activation's gain goes through it, into the vectors, and the picture is passed over once less.
        return fir_bias_act(y, f, d * ACT_GAIN, self.activate.bias * ACT_GAIN, pad, slope=SLOPE, gain=1.0)


class StyledResBlock(nn.Module):
    """Two styled convolutions with a residual connection (the AdaIN bottleneck)."""

    def __init__(self, channels: int, style_dim: int):
        super().__init__()
        self.conv1 = StyledConv(channels, channels, style_dim)
        self.conv2 = StyledConv(channels, channels, style_dim)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return (self.conv2(self.conv1(x, w), w) + x) / sqrt(2)


class Upsample(Fir):
    """Twice the side, filtered; carries RGB, and the coarse branch's features, to the next resolution."""

    def __init__(self) -> None:
        super().__init__(gain=4.0)

    def forward(self, x: Tensor) -> Tensor:
        return upfirdn2d(x, self.filter_for(x), up=2, padding=(2, 1, 2, 1))


class CoarseLevel(nn.Module):
    """One halving of the decoder's coarse branch: features at half the side, a styled block, and the way back.

    The way back begins as nothing, so that a trained decoder can be given the branch and draws as before.
    """

    def __init__(self, c_in: int, channels: int, style_dim: int):
        super().__init__()
        self.down = ConvLayer(c_in, channels, 3, down=True)
        self.block = StyledResBlock(channels, style_dim)
        self.back = EqualConv2d(channels, c_in, 1, bias=False)
        nn.init.zeros_(self.back.weight)
        self.upsample = Upsample()

    def forward(self, halved: Tensor, w: Tensor) -> Tensor:
        """`down`'s output, and what came back from further down, (N, channels, s/2, s/2) -> (N, c_in, s, s)."""
        added: Tensor = self.upsample(self.back(self.block(halved, w)))
        return added


class Place(nn.Module):
    """What the coarse branch knows of places (`Architecture.place`); it begins as nothing, as the branch does."""

    def __init__(self, architecture: Architecture, channels: int):
        super().__init__()
        self._architecture = architecture
        self.map = nn.Parameter(torch.zeros(channels, architecture.place, architecture.place))

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, s, s) -> what is added to them, (C, s, s)."""
        return shown_places(self.map, self._architecture, x.shape[-1]) * PLACE_GAIN


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to a picture, added to the one from below."""

    def __init__(self, c_in: int, style_dim: int, *, up: bool = True):
        super().__init__()
        self.conv = ModulatedConv2d(c_in, 3, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.upsample = Upsample() if up else nn.Identity()

    def forward(self, x: Tensor, w: Tensor, skip: Tensor | None = None) -> Tensor:
        y = self.conv(x, w).float() + self.bias
        return y if skip is None else y + self.upsample(skip)


class GrownStem(nn.Sequential):
    """Input layer and downsampling blocks of an encoder or discriminator branch, able to grow outwards.

    After growing, the old input layer works on a halved picture and is blended with the new outer block's
    output while `alpha` goes from 0 to 1 (Progressive GAN, Karras et al. 2018, section 2).
    """

    def fade_from(self, old_input: nn.Module) -> None:
        self.add_module("fade", FadeIn(old_input))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, 3, S, S) -> the last block's output."""
        return self.outputs(x)[-1]

    def outputs(self, x: Tensor) -> list[Tensor]:
        """x (N, 3, S, S) -> every block's output, the input layer's first."""
        fade = self._modules.get("fade")
        layers = [layer for layer in self.children() if layer is not fade]
        out = [layers[0](x)]
        for i, layer in enumerate(layers[1:]):
            h = layer(out[-1])
            if i == 0 and isinstance(fade, FadeIn):
                h = fade(x, h)
            out.append(h)
        return out


class FadeIn(nn.Module):
    """Blends a grown stem's first block in, over the old input layer on a halved picture."""

    alpha: Tensor

    def __init__(self, old_input: nn.Module):
        super().__init__()
        self.input = old_input
        self.register_buffer("alpha", torch.zeros(()))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """x (N, 3, S, S), h (N, C, S/2, S/2) -> the blend, like h."""
        if self.alpha >= 1:
            return h
        old = self.input(F.avg_pool2d(x, 2))
        return torch.lerp(old.to(h.dtype), h, self.alpha.to(h.dtype))


class Encoder(nn.Module):
    """Picture -> (content code, style code)."""

    def __init__(self, a: Architecture):
        super().__init__()
        c, r = a.channels[a.size], a.size
        stem: list[nn.Module] = [ConvLayer(3, c, 1)]
        for _ in range(a.num_down):
            out = a.channels[r // 2]
            stem.append(ResBlock(c, out, down=True))
            c, r = out, r // 2
        stem += [ResBlock(c, c, down=False) for _ in range(a.n_res)]
        self.stem = GrownStem(*stem)
        self.content = nn.Sequential(ConvLayer(c, c, a.content_kernel), ConvLayer(c, c, a.content_kernel))
        style: list[nn.Module] = []
        while r > 4:
            out = a.channels[r // 2]
            style.append(ConvLayer(c, out, 3, down=True))
            c, r = out, r // 2
        style += [nn.Flatten(), EqualLinear(c * 16, a.channels[4], act=True)]
        style.append(EqualLinear(a.channels[4], a.latent_dim))
        self.style = nn.Sequential(*style)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, 3, S, S) in [-1, 1] -> content (N, C, s, s), style (N, latent_dim) float32."""
        h = self.stem(x)
        return self.content(h), self.style(h.contiguous()).float()


class Generator(nn.Module):
    """Content encoder, style head, mapping network and styled decoder of one direction."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        a = self.architecture = architecture
        self.mapping = nn.Sequential(
            *[
                EqualLinear(a.latent_dim if i == 0 else a.style_dim, a.style_dim, lr_mul=0.01, act=True)
                for i in range(a.n_mlp)
            ]
        )
        self.encoder = Encoder(a)
        c, r = a.content_channels, a.content_size
        widths = [a.channels[r >> i] for i in range(a.coarse + 1)]
        self.coarse = nn.ModuleList(CoarseLevel(c_in, c_out, a.style_dim) for c_in, c_out in pairwise(widths))
        if a.place:
            self.place = Place(a, widths[-1])
        self.adain_bottleneck = nn.ModuleList(StyledResBlock(c, a.style_dim) for _ in range(a.n_res))
        self.conv1 = StyledConv(c, c, a.style_dim)
        self.to_rgb1 = ToRGB(c, a.style_dim, up=False)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for _ in range(a.num_down):
            r *= 2
            out = a.channels[r]
            self.convs.append(StyledConv(c, out, a.style_dim, up=True))
            self.convs.append(StyledConv(out, out, a.style_dim))
            self.to_rgbs.append(ToRGB(out, a.style_dim))
            c = out

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, 3, S, S) in [-1, 1] -> content (N, C, s, s), style (N, latent_dim)."""
        return self.encoder(x)

    def content(self, x: Tensor) -> Tensor:
        """Content code of pictures, which may be of any side that is whole cells of it."""
        code: Tensor = self.encoder.content(self.encoder.stem(x))
        return code

    def style(self, x: Tensor) -> Tensor:
        """Style code (N, latent_dim) of pictures (N, 3, S, S), float32."""
        return self.style_of(self.encoder.stem(x))

    def style_of(self, features: Tensor) -> Tensor:
        """Style code (N, latent_dim), float32, of what the encoder's stem says about pictures."""
        code: Tensor = self.encoder.style(features.contiguous())
        return code.float()

    def decode(self, content: Tensor, style: Tensor) -> Tensor:
        """content (N, C, s, s), style (N, latent_dim) -> picture (N, 3, S, S), about [-1, 1], float32."""
        return self.synthesise(content, self.mapping(style))

    @property
    def stages(self) -> int:
        """Parts of the decoder that can have a w of their own: residual blocks, convolution, each doubling."""
        return len(self.adain_bottleneck) + 1 + len(self.to_rgbs)

    def mixed(self, style: Tensor, other: Tensor, crossover: Tensor) -> Tensor:
        """Style mixing (StyleGAN, section 3.1): w of `style`, but of `other` from a stage on.

        Args:
            style, other: (N, latent_dim).
            crossover: (N,) integers; `stages` leaves a picture its own style.

        Returns:
            (N, stages, style_dim), for `synthesise`.
        """
        own = torch.arange(self.stages, device=style.device) < crossover[:, None]
        return torch.where(own[:, :, None], self.mapping(style)[:, None], self.mapping(other)[:, None])

    def synthesise(self, content: Tensor, w: Tensor) -> Tensor:
        """As `decode`, from w (N, style_dim), or (N, stages, style_dim) for one of each stage."""
        ws = list(w.unbind(1)) if w.ndim == 3 else [w] * self.stages
        h = self._redrawn(content, ws[0])
        for block, own in zip(self.adain_bottleneck, ws):
            h = block(h, own)
        first, *others = ws[len(self.adain_bottleneck) :]
        h = self.conv1(h, first)
        rgb = self.to_rgb1(h, first)
        for up, conv, to_rgb, own in zip(self.convs[::2], self.convs[1::2], self.to_rgbs, others):
            h = conv(up(h, own), own)
            rgb = to_rgb(h, own, rgb)
        return rgb

    def _redrawn(self, content: Tensor, w: Tensor) -> Tensor:
        """The content code with what its coarse branch adds to it."""
        finer = [content]
        for level in self.coarse:
            finer.append(level.get_submodule("down")(finer[-1]))
        h = finer.pop()
        if self.architecture.place:
            h = h + self.place(h)
        for level in reversed(self.coarse):
            h = finer.pop() + level(h, w)
        return h

    def forward(self, x: Tensor, style: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Translate x: (picture, content code, x's own style code); decodes with `style`, or its own."""
        content, own = self.encode(x)
        return self.decode(content, own if style is None else style), content, own


class Discriminator(nn.Module):
    """Three heads: local patches (s/8), global patches (s/32), and the batch's standard deviation.

    The third head sees only how much the batch's pictures differ, which is the paper's diversity term.

    Args:
        size: side of the pictures.
        channels: feature channels at each resolution.
        local_downs, global_downs: halvings before the patch heads.
        shared: one branch for all heads, at two thirds of the cost; the official network has two.
    """

    def __init__(
        self,
        size: int,
        channels: dict[int, int],
        *,
        local_downs: int = 3,
        global_downs: int = 5,
        shared: bool = False,
    ):
        super().__init__()
        self.local_downs = local_downs

        def branch(downs: int) -> tuple[list[nn.Module], int, int]:
            c, r = channels[size], size
            layers: list[nn.Module] = [ConvLayer(3, c, 1)]
            for _ in range(downs):
                out = channels[r // 2]
                layers.append(ResBlock(c, out, down=True))
                c, r = out, r // 2
            return layers, c, r

        if shared:
            self.l_adv = ConvLayer(channels[size >> local_downs], 1, 1, act=False)
        else:
            layers, c, _ = branch(local_downs)
            self.l_branch = GrownStem(*layers, ConvLayer(c, 1, 1, act=False))
        layers, c, r = branch(global_downs)
        self.g_branch = GrownStem(*layers)
        self.g_adv = ConvLayer(c, 1, 1, act=False)
        std: list[nn.Module] = []
        while r > 4:
            std.append(ConvLayer(c, channels[r // 2], 3, down=True))
            c, r = channels[r // 2], r // 2
        self.g_std = nn.Sequential(*std, nn.Flatten(), EqualLinear(c * 16, 128, act=True))
        self.g_final = EqualLinear(128, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (N, 3, S, S) -> logits (N, 1, S/8, S/8), (N, 1, S/32, S/32), (N, 1), float32."""
        outputs = self.g_branch.outputs(x)
        h = outputs[-1]
        local = self.l_adv(outputs[self.local_downs]) if hasattr(self, "l_adv") else self.l_branch(x)
        code = self.g_std(h.contiguous()).float()
        spread = torch.sqrt(gather(code).var(0, keepdim=True, unbiased=False) + 1e-8)
        std = self.g_final(spread).repeat(x.shape[0], 1)
        return local.float(), self.g_adv(h).float(), std.float()


class MinibatchStdLinear(nn.Module):
    """Fully connected layer that also sees the batch's mean standard deviation."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.fc = EqualLinear(n_in + 1, n_out, act=True)

    def forward(self, x: Tensor) -> Tensor:
        std = torch.sqrt(gather(x).var(0, unbiased=False) + 1e-8).mean().expand(x.shape[0], 1)
        return self.fc(torch.cat([x, std.to(x.dtype)], 1))


class LatentDiscriminator(nn.Module):
    """Tells encoded style codes from N(0, I), so that seeds and references share one space."""

    def __init__(self, latent_dim: int = 8, width: int = 256):
        super().__init__()
        self.fc = nn.Sequential(
            EqualLinear(latent_dim, width, act=True),
            *[EqualLinear(width, width, act=True) for _ in range(3)],
            MinibatchStdLinear(width, width),
            EqualLinear(width, 1),
        )

    def forward(self, z: Tensor) -> Tensor:
        """z (N, latent_dim) -> logits (N, 1)."""
        return self.fc(z)


def load_networks(weights: Weights) -> tuple[Generator, Encoder]:
    """A generator with these weights, and the encoder that reads styles off drawings.

    Raises:
        WeightsError: they hold no style encoder.
    """
    if not weights.has_style_encoder:
        raise WeightsError("these weights hold no style encoder, so drawings have no styles to learn from")
    own: dict[str, Tensor] = {}
    reading: dict[str, Tensor] = {}
    for name, tensor in weights.tensors.items():
        if name.startswith(STYLE_ENCODER):
            reading[name.removeprefix(STYLE_ENCODER)] = tensor
        else:
            own[name] = tensor
    generator, encoder = Generator(weights.architecture), Encoder(weights.architecture)
    generator.load_state_dict(own, strict=False)  # fixed kernels are not in the file
    encoder.load_state_dict(reading, strict=False)
    return generator, encoder
