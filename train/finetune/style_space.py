"""Other axes for the styles of trained weights, in which everything is drawn as before."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from engines.weights import COLORS, STYLE_ENCODER, Weights


def move_styles(weights: Weights, onto: Tensor, origin: Tensor) -> Weights:
    """The weights with each style z said as another, z', with z = `onto` z' + `origin`: what takes style codes takes
    z', what says them says z'.

    Args:
        onto: (D, D), float64, has an inverse.
        origin: (D,), float64.
    """
    tensors = dict(weights.tensors)
    # The mapping network's first layer scales its weight by 1 / sqrt(D) more than its bias (`EqualLinear`).
    for first, scale in (("mapping.0.", len(origin) ** -0.5), (f"{COLORS}0.", 1.0)):
        if f"{first}weight" in tensors:
            matrix = tensors[f"{first}weight"].double()
            bias = tensors[f"{first}bias"].double() + scale * matrix @ origin
            tensors |= {f"{first}weight": (matrix @ onto).float(), f"{first}bias": bias.float()}
    head = f"{STYLE_ENCODER}style."
    layers = [int(name.removeprefix(head).split(".")[0]) for name in tensors if name.startswith(head)]
    if layers:
        last, back = f"{head}{max(layers)}.", torch.linalg.inv(onto)
        tensors[f"{last}weight"] = (back @ tensors[f"{last}weight"].double()).float()
        tensors[f"{last}bias"] = (back @ (tensors[f"{last}bias"].double() - origin)).float()
    return replace(weights, tensors=tensors, sha256="")
