"""A generator so small that tests can run the whole pipeline: random weights, 64x64, far from any face."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch

from engines.architecture import Architecture
from engines.style_colors import StyleColors
from engines.weights import COLORS, Weights, inference_tensors, save_weights

TINY = Architecture(
    size=64, num_down=2, n_res=1, style_dim=32, n_mlp=2, channels={4: 16, 8: 16, 16: 16, 32: 12, 64: 8}
)


@lru_cache(maxsize=4)
def _tensors(seed: int, style_encoder: bool) -> dict[str, object]:
    """Values as the official code initialises them: weights N(0, 1) (they are scaled when run), biases 0."""
    random = torch.Generator().manual_seed(seed)
    tensors: dict[str, object] = {}
    for name, shape in inference_tensors(TINY, style_encoder=style_encoder).items():
        value = torch.randn(shape, generator=random)
        if name.startswith("mapping.") and name.endswith(".weight"):
            value /= 0.01  # the mapping network's learning-rate multiplier
        elif name.endswith("modulation.bias"):
            value = torch.ones(shape)
        elif name == "to_rgb1.bias":
            value = torch.tensor([0.4, -0.7, 0.6]).reshape(shape)  # violet, unlike any skin
        elif name.endswith("bias"):
            value *= 0.05
        tensors[name] = value
    return tensors


def make_tiny_weights(path: Path, *, seed: int = 0, style_encoder: bool = True) -> Path:
    """Write a weights file of the architecture `TINY`; the same arguments give the same numbers."""
    tensors = _tensors(seed, style_encoder)
    metadata = {"name": "tiny", "provenance": "random numbers, for tests", "licence": "none needed"}
    save_weights(path, TINY, tensors, metadata)  # type: ignore[arg-type]
    return path


def with_colors(weights: Weights) -> Weights:
    """The weights with random colours of styles, of all brightnesses and hues."""
    torch.manual_seed(0)
    model = StyleColors(weights.architecture.latent_dim)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    tensors = {f"{COLORS}{name}": t.detach() for name, t in model.state_dict().items()}
    return replace(weights, tensors={**weights.tensors, **tensors}, sha256="")
