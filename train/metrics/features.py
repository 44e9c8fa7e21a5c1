"""Feature spaces in which FID and KID compare pictures: Inception-v3 as published; VGG16 and AlexNet as stand-ins.

Figures in their spaces order systems much as Inception's do, but are numbers of their own: every table says which
space they are from, and only figures of one space may be compared. A space that a system was trained on flatters it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from train.lpips import SCALE, SHIFT, Net, load_trunk
from train.metrics.inception import INCEPTION_SIDE, load_inception
from train.metrics.pictures import Picture, to_tensor

_BATCH = 4
_NAMES: dict[Net, str] = {"vgg": "vgg16", "alex": "alexnet"}


class FeatureSpace(ABC):
    """A frozen network that turns pictures into vectors.

    Attributes:
        name: "inception", "vgg16" or "alexnet", part of the metrics' names.
        side: of the pictures it sees; others are resized cleanly.
    """

    name: str
    side: int

    def __call__(self, pictures: Iterable[Picture]) -> NDArray[np.float32]:
        """Feature vectors, float32 (N, D), of uint8 SxSx3 pictures."""
        found: list[NDArray[np.float32]] = []
        waiting: list[Picture] = []
        for picture in pictures:
            waiting.append(picture)
            if len(waiting) == _BATCH:
                found.append(self._batch(waiting))
                waiting = []
        if waiting:
            found.append(self._batch(waiting))
        return np.concatenate(found)

    def _batch(self, pictures: list[Picture]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return self.embed(to_tensor(pictures, self.side)).float().cpu().numpy()

    @abstractmethod
    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """(N, D) of images (N, 3, side, side) in -1..1."""


class InceptionSpace(FeatureSpace):
    """The space of the published FID and KID: 2048 pooled features of TensorFlow's Inception-v3.

    Raises:
        WeightsError: see `train.metrics.inception.load_inception`.
    """

    name, side = "inception", INCEPTION_SIDE

    def __init__(self, weights: Path | None = None, *, download: bool = False, device: str = "cpu") -> None:
        self._device = device
        self._net = load_inception(weights, download=download).to(device)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        # TensorFlow's graph takes (x - 128) / 128 of 0..255, not the symmetric range.
        result: torch.Tensor = self._net((images.to(self._device) * 127.5 - 0.5) / 128)
        return result


class TrunkSpace(FeatureSpace):
    """The last convolution of a trunk of LPIPS (VGG16: 512 features, AlexNet: 256), averaged over the picture.

    Args:
        net: which.
        trunk: see `train.lpips.Lpips`.
        dtype: bfloat16 is some times quicker where the CPU has it; FID moves by less than 0.1 %.

    Raises:
        WeightsError: the trunk cannot be had.
    """

    side = 224

    def __init__(
        self, net: Net, trunk: Path | None = None, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self.name = _NAMES[net]
        self._dtype, self._device = dtype, device
        self._slices = load_trunk(net, trunk, dtype=dtype).to(device)
        self._shift = torch.tensor(SHIFT, device=device).view(1, 3, 1, 1)
        self._scale = torch.tensor(SCALE, device=device).view(1, 3, 1, 1)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        x = ((images.to(self._device) - self._shift) / self._scale).to(self._dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        for part in self._slices:
            x = part(x)
        return x.float().mean((2, 3))
