"""A VGG16 trunk with random weights, for tests that the real ones, a download, would change nothing in."""

from __future__ import annotations

from pathlib import Path

import torch

from train.lpips import _build_trunk


def random_trunk(folder: Path) -> Path:
    """Writes `vgg_random.pth` there, the same each time."""
    torch.manual_seed(0)
    state = {}
    for name, parameter in _build_trunk("vgg").named_parameters():
        fan_in = parameter[0].numel()
        tensor = torch.randn(parameter.shape) * (2 / fan_in) ** 0.5 * (parameter.ndim == 4)
        state["features." + name.split(".", 1)[1]] = tensor.detach().half()
    path = folder / "vgg_random.pth"
    torch.save(state, path)
    return path
