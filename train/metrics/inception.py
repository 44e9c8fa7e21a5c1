"""Inception-v3 as FID needs it: TensorFlow's network of 2015, pooled features (2048), weights from a file.

The file is the one that torch-fidelity and pytorch-fid publish (ported from TensorFlow's
inception-2015-12-05), and tensors carry its names. The network differs from torchvision's in three places:
average pooling leaves the padding out of the mean, the last block pools by maximum, and BatchNorm's epsilon
is 0.001.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from engines.errors import WeightsError
from train.lpips import download_state, read_state

INCEPTION_VARIABLE = "GNR_VIDEO_INCEPTION"
URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
INCEPTION_SIDE = 299
FEATURES = 2048

# Kernel, stride and padding of the two halves of a 7x7 convolution.
_WIDE = ((1, 7), 1, (0, 3))
_TALL = ((7, 1), 1, (3, 0))

_HINT = f"the file of torch-fidelity or pytorch-fid: {URL}"


class _Conv(nn.Module):
    """Convolution without bias, BatchNorm, ReLU."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(cout, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


def _mean_pool(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class _MixedA(nn.Module):
    """35x35: 1x1, 5x5, double 3x3, pool."""

    def __init__(self, cin: int, pool: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(cin, 64, 1)
        self.branch5x5_1 = _Conv(cin, 48, 1)
        self.branch5x5_2 = _Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = _Conv(cin, 64, 1)
        self.branch3x3dbl_2 = _Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, padding=1)
        self.branch_pool = _Conv(cin, pool, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(_mean_pool(x))], 1)


class _MixedB(nn.Module):
    """35x35 to 17x17."""

    def __init__(self, cin: int) -> None:
        super().__init__()
        self.branch3x3 = _Conv(cin, 384, 3, stride=2)
        self.branch3x3dbl_1 = _Conv(cin, 64, 1)
        self.branch3x3dbl_2 = _Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)], 1)


class _MixedC(nn.Module):
    """17x17: 1x1, 7x7, double 7x7, pool; sevens as 1x7 and 7x1."""

    def __init__(self, cin: int, width: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(cin, 192, 1)
        self.branch7x7_1 = _Conv(cin, width, 1)
        self.branch7x7_2 = _Conv(width, width, *_WIDE)
        self.branch7x7_3 = _Conv(width, 192, *_TALL)
        self.branch7x7dbl_1 = _Conv(cin, width, 1)
        self.branch7x7dbl_2 = _Conv(width, width, *_TALL)
        self.branch7x7dbl_3 = _Conv(width, width, *_WIDE)
        self.branch7x7dbl_4 = _Conv(width, width, *_TALL)
        self.branch7x7dbl_5 = _Conv(width, 192, *_WIDE)
        self.branch_pool = _Conv(cin, 192, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_mean_pool(x))], 1)


class _MixedD(nn.Module):
    """17x17 to 8x8."""

    def __init__(self, cin: int) -> None:
        super().__init__()
        self.branch3x3_1 = _Conv(cin, 192, 1)
        self.branch3x3_2 = _Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = _Conv(cin, 192, 1)
        self.branch7x7x3_2 = _Conv(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = _Conv(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = _Conv(192, 192, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([three, self.branch7x7x3_4(seven), F.max_pool2d(x, 3, stride=2)], 1)


class _MixedE(nn.Module):
    """8x8: 1x1, split 3x3, double split 3x3, pool (by mean, or in the last block by maximum)."""

    def __init__(self, cin: int, *, max_pool: bool) -> None:
        super().__init__()
        self.max_pool = max_pool
        self.branch1x1 = _Conv(cin, 320, 1)
        self.branch3x3_1 = _Conv(cin, 384, 1)
        self.branch3x3_2a = _Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = _Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = _Conv(cin, 448, 1)
        self.branch3x3dbl_2 = _Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = _Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = _Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = _Conv(cin, 192, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if self.max_pool else _mean_pool(x)
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(three),
                self.branch3x3_2b(three),
                self.branch3x3dbl_3a(double),
                self.branch3x3dbl_3b(double),
                self.branch_pool(pooled),
            ],
            1,
        )


class Inception(nn.Module):
    """(N, 3, 299, 299) in -1..1 -> features, float32 (N, 2048). Frozen, in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3)
        self.Mixed_5b = _MixedA(192, 32)
        self.Mixed_5c = _MixedA(256, 64)
        self.Mixed_5d = _MixedA(288, 64)
        self.Mixed_6a = _MixedB(288)
        self.Mixed_6b = _MixedC(768, 128)
        self.Mixed_6c = _MixedC(768, 160)
        self.Mixed_6d = _MixedC(768, 160)
        self.Mixed_6e = _MixedC(768, 192)
        self.Mixed_7a = _MixedD(768)
        self.Mixed_7b = _MixedE(1280, max_pool=False)
        self.Mixed_7c = _MixedE(2048, max_pool=True)
        self.eval().requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name, part in self.named_children():
            if name in ("Conv2d_3b_1x1", "Mixed_5b"):
                x = F.max_pool2d(x, 3, stride=2)
            x = part(x)
        return x.float().mean((2, 3))


def inception_file(named: Path | None = None) -> Path | None:
    """The weights that are at hand: the named file, ``$GNR_VIDEO_INCEPTION``, or an earlier download."""
    if named is not None:
        return named
    if chosen := os.environ.get(INCEPTION_VARIABLE):
        return Path(chosen)
    for name in (Path(URL).name, "pt_inception-2015-12-05-6726825d.pth"):
        kept = Path(torch.hub.get_dir()) / "checkpoints" / name
        if kept.is_file():
            return kept
    return None


def load_inception(path: Path | None, *, download: bool = False) -> Inception:
    """The network with weights from a file, or from torch-fidelity's release if `download`.

    Raises:
        WeightsError: no file and no download, or tensors that do not fit.
    """
    found = inception_file(path)
    if found is not None:
        state = read_state(found, _HINT)
    elif download:
        state = download_state(URL, "Inception", INCEPTION_VARIABLE)
    else:
        raise WeightsError(
            "no Inception weights are at hand", f"--inception FILE or --inception download; {_HINT}"
        )
    return fill_inception(state)


def fill_inception(state: Mapping[str, torch.Tensor]) -> Inception:
    """The network with these tensors; those of the classifier are left out.

    Raises:
        WeightsError: tensors missing or of another shape.
    """
    with torch.device("meta"):
        net = Inception()
    own = net.state_dict()
    optional = {name for name in own if name.endswith("num_batches_tracked")}
    for name, tensor in own.items():
        if name in state and state[name].shape != tensor.shape:
            raise WeightsError(
                f"{name} of the Inception weights is {tuple(state[name].shape)}, not {tuple(tensor.shape)}",
                _HINT,
            )
        if name not in state and name not in optional:
            raise WeightsError(f"the Inception weights lack {name}", _HINT)
    values = {name: state.get(name, torch.tensor(0)) for name in own}
    net.load_state_dict(
        {n: v.float() if v.is_floating_point() else v for n, v in values.items()}, assign=True
    )
    return net.eval().requires_grad_(False)
