"""The recipe behind tests/data/golden_seed7.npz: how the official networks were filled, and what they gave.

Every tensor is drawn from a generator seeded by its own name, so an implementation under the official
parameter names can be compared to rounding without the official code.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from engines.architecture import PLACE, PLACE_GAIN, Architecture, Shape, generator_tensors
from engines.weights import STYLE_ENCODER, Weights, inference_tensors

GOLDEN_FILE = Path(__file__).parent / "data" / "golden_seed7.npz"


def fill_tensor(name: str, shape: Shape, seed: int = 7) -> torch.Tensor:
    """The recipe's float32 values for one tensor (not for FIR kernels, which are constants)."""
    rng = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    a = rng.standard_normal(tuple(shape)).astype(np.float32)
    if name.endswith("modulation.bias"):
        a = 1 + np.float32(0.2) * a
    elif name.endswith("bias"):
        a = np.float32(0.1) * a
    elif name.startswith("mapping"):
        a = 100 * a  # lr_mul 0.01: weights are drawn from N(0, 1/lr_mul)
    elif name == PLACE:
        a = a / np.float32(PLACE_GAIN)
    return torch.from_numpy(a)


def fill_(state_dict: Mapping[str, torch.Tensor], seed: int = 7) -> None:
    """Fill a network's state dict in place (generator seed 7, discriminator 8, latent discriminator 9)."""
    with torch.no_grad():
        for name, tensor in state_dict.items():
            if not name.endswith("kernel"):
                tensor.copy_(fill_tensor(name, tuple(tensor.shape), seed))


def fir_kernel(*, up: bool = False) -> torch.Tensor:
    """The official FIR buffer: outer product of [1, 3, 3, 1], sum 1 (4 for upsampling)."""
    k = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(k, k) / (16.0 if up else 64.0)


def generator_state(architecture: Architecture, seed: int = 7) -> dict[str, torch.Tensor]:
    """A complete official generator state dict, FIR buffers included."""
    state = {}
    for name, shape in generator_tensors(architecture).items():
        if name.endswith("kernel"):
            state[name] = fir_kernel(up="blur" in name or "upsample" in name)
        else:
            state[name] = fill_tensor(name, shape, seed)
    return state


@lru_cache(maxsize=4)
def _weights(architecture_json: str, style_encoder: bool, seed: int) -> Weights:
    architecture = Architecture.from_json(architecture_json)
    tensors = {}
    for name, shape in inference_tensors(architecture, style_encoder=style_encoder).items():
        # The style encoder gets the values of the generator's own encoder: so golden `style` can check it.
        source = "encoder." + name.removeprefix(STYLE_ENCODER) if name.startswith(STYLE_ENCODER) else name
        tensors[name] = fill_tensor(source, shape, seed)
    return Weights(architecture, tensors, {"name": f"recipe, seed {seed}"}, "")


def golden_weights(
    architecture: Architecture | None = None, *, style_encoder: bool = False, seed: int = 7
) -> Weights:
    """Weights filled by the recipe; the official architecture and seed 7 give the golden outputs."""
    return _weights((architecture or Architecture()).to_json(), style_encoder, seed)


def golden_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """x (4, 3, 256, 256) in [-1, 1] and z (4, 8), float32."""
    rng = np.random.RandomState(10)
    x = rng.uniform(-1, 1, (4, 3, 256, 256)).astype(np.float32)
    z = rng.standard_normal((4, 8)).astype(np.float32)
    return torch.from_numpy(x), torch.from_numpy(z)


def golden_outputs() -> dict[str, torch.Tensor]:
    """The official networks' outputs by name (see the table in the data's README)."""
    with np.load(GOLDEN_FILE) as data:
        return {name: torch.from_numpy(data[name]) for name in data.files}


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference over the largest absolute value."""
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


def narrow(
    size: int = 64,
    num_down: int = 3,
    n_res: int = 1,
    content_kernel: int = 1,
    width: int = 24,
    latent_dim: int = 8,
    style_dim: int = 32,
    n_mlp: int = 3,
    coarse: int = 0,
    place: int = 0,
) -> Architecture:
    """A small architecture with a different width at each resolution."""
    resolutions = [2**i for i in range(2, size.bit_length())]
    channels = {r: width - 2 * i for i, r in enumerate(resolutions)}
    return Architecture(
        size, num_down, n_res, latent_dim, style_dim, n_mlp, content_kernel, channels, coarse, place
    )
