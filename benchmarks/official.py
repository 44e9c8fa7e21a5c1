"""The official GANs N' Roses generator as its eager code runs it: the baseline for every speed claim.

Same operations in the same order as the official PyTorch code (rosinality's StyleGAN2 layers): equalised
learning rates and modulation applied at every call, grouped convolutions per sample, blurs by padding and a
single-channel convolution. Nothing here is fast, on purpose. It is also the reference for the folded graphs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from engines.architecture import PLACE, PLACE_GAIN
from engines.weights import STYLE_ENCODER

if TYPE_CHECKING:
    import torch

    from engines.weights import Weights


def upfirdn2d(
    x: torch.Tensor, kernel: torch.Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)
) -> torch.Tensor:
    """Zero-insert by `up`, pad both sides of both axes, filter with `kernel`, keep every `down`-th pixel.

    Args:
        x: (N, C, H, W).
        kernel: (kh, kw); convolved (flipped), as in StyleGAN2's native CPU path.
    """
    import torch
    from torch.nn import functional

    n, c, h, w = x.shape
    x = x.reshape(n * c, 1, h, 1, w, 1)
    x = functional.pad(x, [0, up - 1, 0, 0, 0, up - 1]).reshape(n * c, 1, h * up, w * up)
    x = functional.pad(x, [pad[0], pad[1], pad[0], pad[1]])
    x = functional.conv2d(x, torch.flip(kernel, [0, 1])[None, None])
    x = x[:, :, ::down, ::down]
    return x.reshape(n, c, x.shape[2], x.shape[3])


class OfficialGenerator:
    """Encoder, mapping network and decoder in the official order of operations.

    Args:
        weights: tensors under the official names; with `style_encoder.*`, `encode_style` works.
        device: that it runs on, of torch's names.
    """

    def __init__(self, weights: Weights, device: str = "cpu") -> None:
        import torch

        self.architecture = weights.architecture
        self.tensors = {name: tensor.to(device) for name, tensor in weights.tensors.items()}
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.blur_kernel = (torch.outer(taps, taps) / 64).to(device)

    def _activate(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional

        shape = [1, -1] + [1] * (x.ndim - 2)
        return functional.leaky_relu(x + bias.view(shape), 0.2) * 2**0.5

    def _conv(self, x: torch.Tensor, name: str, *, down: bool = False, act: bool = True) -> torch.Tensor:
        from torch.nn import functional

        i = 1 if down else 0
        weight = self.tensors[f"{name}.{i}.weight"]
        k = weight.shape[2]
        if down:
            p = (4 - 2) + (k - 1)
            x = upfirdn2d(x, self.blur_kernel, pad=((p + 1) // 2, p // 2))
        scale = 1 / math.sqrt(weight.shape[1] * k * k)
        x = functional.conv2d(x, weight * scale, stride=2 if down else 1, padding=0 if down else k // 2)
        return self._activate(x, self.tensors[f"{name}.{i + 1}.bias"]) if act else x

    def _linear(self, x: torch.Tensor, name: str, *, lr_mul: float = 1.0, act: bool = False) -> torch.Tensor:
        from torch.nn import functional

        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        scale = lr_mul / math.sqrt(weight.shape[1])
        if act:
            return self._activate(functional.linear(x, weight * scale), bias * lr_mul)
        return functional.linear(x, weight * scale, bias * lr_mul)

    def _stem(self, x: torch.Tensor, prefix: str) -> torch.Tensor:
        a = self.architecture
        x = self._conv(x, f"{prefix}stem.0")
        for i in range(1, a.num_down + a.n_res + 1):
            down = i <= a.num_down
            y = self._conv(self._conv(x, f"{prefix}stem.{i}.conv1"), f"{prefix}stem.{i}.conv2", down=down)
            x = (y + (self._conv(x, f"{prefix}stem.{i}.skip", down=True, act=False) if down else x)) / 2**0.5
        return x

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Content code (N, C, s, s) of pictures (N, 3, S, S) in [-1, 1]."""
        x = self._stem(x, "encoder.")
        return self._conv(self._conv(x, "encoder.content.0"), "encoder.content.1")

    def encode_style(self, x: torch.Tensor) -> torch.Tensor:
        """Style codes z (N, latent_dim) of anime pictures (N, 3, S, S) in [-1, 1]."""
        a = self.architecture
        x = self._stem(x, STYLE_ENCODER)
        i, r = 0, a.content_size
        while r > 4:
            x = self._conv(x, f"{STYLE_ENCODER}style.{i}", down=True)
            i, r = i + 1, r // 2
        x = self._linear(x.flatten(1), f"{STYLE_ENCODER}style.{i + 1}", act=True)
        return self._linear(x, f"{STYLE_ENCODER}style.{i + 2}")

    def mapping(self, z: torch.Tensor) -> torch.Tensor:
        """w (N, style_dim) of style codes z (N, latent_dim)."""
        for i in range(self.architecture.n_mlp):
            z = self._linear(z, f"mapping.{i}", lr_mul=0.01, act=True)
        return z

    def _modulated(
        self, x: torch.Tensor, w: torch.Tensor, name: str, *, up: bool = False, demodulate: bool = True
    ) -> torch.Tensor:
        import torch
        from torch.nn import functional

        weight = self.tensors[f"{name}.weight"]
        _, c_out, c_in, k, _ = weight.shape
        n, _, h, wd = x.shape
        style = self._linear(w, f"{name}.modulation").view(n, 1, c_in, 1, 1)
        weight = weight * style / math.sqrt(c_in * k * k)
        if demodulate:
            weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + 1e-8).view(n, c_out, 1, 1, 1)
        x = x.reshape(1, n * c_in, h, wd)
        if up:
            weight = weight.transpose(1, 2).reshape(n * c_in, c_out, k, k)
            x = functional.conv_transpose2d(x, weight, stride=2, groups=n)
            x = x.view(n, c_out, x.shape[2], x.shape[3])
            return upfirdn2d(x, self.blur_kernel * 4, pad=(1, 1))
        weight = weight.view(n * c_out, c_in, k, k)
        return functional.conv2d(x, weight, padding=k // 2, groups=n).view(n, c_out, h, wd)

    def _styled(self, x: torch.Tensor, w: torch.Tensor, name: str, *, up: bool = False) -> torch.Tensor:
        return self._activate(
            self._modulated(x, w, f"{name}.conv", up=up), self.tensors[f"{name}.activate.bias"]
        )

    def _to_rgb(
        self, x: torch.Tensor, w: torch.Tensor, name: str, skip: torch.Tensor | None = None
    ) -> torch.Tensor:
        x = self._modulated(x, w, f"{name}.conv", demodulate=False) + self.tensors[f"{name}.bias"]
        return x if skip is None else x + upfirdn2d(skip, self.blur_kernel * 4, up=2, pad=(2, 1))

    def _styled_block(self, x: torch.Tensor, w: torch.Tensor, name: str) -> torch.Tensor:
        return (self._styled(self._styled(x, w, f"{name}.conv1"), w, f"{name}.conv2") + x) / 2**0.5

    def _redrawn(self, x: torch.Tensor, w: torch.Tensor, level: int = 0) -> torch.Tensor:
        """Features with what the coarse branch adds to them, from that level down; official networks have none."""
        from torch.nn import functional

        if level == self.architecture.coarse:
            return self._placed(x)
        name = f"coarse.{level}"
        h = self._redrawn(self._conv(x, f"{name}.down", down=True), w, level + 1)
        weight = self.tensors[f"{name}.back.weight"]
        h = functional.conv2d(self._styled_block(h, w, f"{name}.block"), weight / math.sqrt(weight.shape[1]))
        return x + upfirdn2d(h, self.blur_kernel * 4, up=2, pad=(2, 1))

    def _placed(self, x: torch.Tensor) -> torch.Tensor:
        """Features with what is known of their places; official networks have no map of these."""
        from torch.nn import functional

        if PLACE not in self.tensors:
            return x
        cells, places = x.shape[-1], self.tensors[PLACE] * PLACE_GAIN
        wide = functional.pad(places[None], [cells] * 4, mode="replicate")
        top, left = (start + cells for start in self.architecture.place_start(cells))
        return x + wide[:, :, top : top + cells, left : left + cells]

    def decode(self, content: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Pictures (N, 3, S, S), about [-1, 1] and not clamped, from content codes and w (N, style_dim)."""
        a = self.architecture
        x = self._redrawn(content, w)
        for i in range(a.n_res):
            x = self._styled_block(x, w, f"adain_bottleneck.{i}")
        x = self._styled(x, w, "conv1")
        rgb = self._to_rgb(x, w, "to_rgb1")
        for i in range(a.num_down):
            x = self._styled(x, w, f"convs.{2 * i}", up=True)
            x = self._styled(x, w, f"convs.{2 * i + 1}")
            rgb = self._to_rgb(x, w, f"to_rgbs.{i}", rgb)
        return rgb


def normalise(images: torch.Tensor) -> torch.Tensor:
    """uint8 (N, S, S, 3) -> float32 (N, 3, S, S) in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def quantise(images: torch.Tensor) -> torch.Tensor:
    """float (N, 3, S, S) -> uint8 (N, S, S, 3), clamped and rounded."""
    import torch

    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
