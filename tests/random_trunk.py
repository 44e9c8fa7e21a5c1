"""A trunk with random weights, for tests that the real ones, a download, would change nothing in."""

from __future__ import annotations

import torch

from train.trunk import Trunk


def random_trunk() -> Trunk:
    """EfficientNet-Lite1, the same each time."""
    torch.manual_seed(0)
    return Trunk()
