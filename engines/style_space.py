"""The space that styles are mixed in: w, the mapping network's output; its mean, spread and main directions.

All of it is float32 torch code on the CPU, so that every engine gives the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from engines.graph import MappingNetwork
    from engines.weights import Weights

SAMPLES = 4096


@dataclass(frozen=True, eq=False)
class StyleSpace:
    """What mixing, truncating and editing styles need to know of the weights.

    Attributes:
        mean: float32 (style_dim,), the mean of w over z ~ N(0, 1): the look that truncation goes towards.
        spread: root mean square distance of w from it.
        directions: float32 (style_dim, style_dim), one unit vector a row, the strongest first.
    """

    mean: NDArray[np.float32]
    spread: float
    directions: NDArray[np.float32]


def measure_style_space(weights: Weights, mapping: MappingNetwork) -> StyleSpace:
    """Mean and spread from `SAMPLES` fixed draws; directions by closed-form factorisation (`sefa_directions`)."""
    generator = torch.Generator("cpu").manual_seed(0)
    with torch.inference_mode():
        w = mapping(torch.randn(SAMPLES, weights.architecture.latent_dim, generator=generator)).numpy()
    mean = w.mean(0)
    spread = float(np.sqrt(np.square(w - mean, dtype=np.float64).sum(1).mean()))
    return StyleSpace(mean, spread, sefa_directions(weights))


def sefa_directions(weights: Weights) -> NDArray[np.float32]:
    """Directions of w that change the modulation of the decoder most (SeFa, Shen and Zhou 2021, equation 5).

    The eigenvectors of the sum of W^T W over the modulation matrices W (channels x style_dim) of all layers,
    by falling eigenvalue. An eigenvector's sign is arbitrary: here its largest component is positive.

    Returns:
        float32 (style_dim, style_dim), one unit vector a row.
    """
    from engines.graph import styled_layers

    total = np.zeros((weights.architecture.style_dim,) * 2)
    for layer in styled_layers(weights.architecture):
        matrix = weights.tensors[f"{layer.name}.conv.modulation.weight"].double().numpy()
        total += matrix.T @ matrix
    _, vectors = np.linalg.eigh(total)
    rows = vectors.T[::-1]
    peaks = np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1)
    return np.ascontiguousarray(rows * np.sign(peaks), dtype=np.float32)
