"""Which look seed 42, the default, has: any other seed's, of trained weights.

python -m train.finetune.seeds WEIGHTS LOOK -o OUT
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from engines.errors import exit_with
from engines.weights import Weights, load_weights, save_weights
from gnr_video.checkpoints import resolve_weights
from gnr_video.styles.code import DEFAULT_SEED, style_from_seed
from train.finetune.style_space import move_styles


def turn_seeds(weights: Weights, seed: int, look: int) -> Weights:
    """The weights with the space of styles mirrored so that `seed` has the look that `look` had, as far from the mean
    as `seed` was. Seeds are drawn from a distribution that looks the same from all sides, so no look becomes more or
    less likely; styles taken from pictures stay what they were."""
    size = weights.architecture.latent_dim
    a, b = (
        F.normalize(torch.from_numpy(style_from_seed(one, size).array()).double(), dim=0)
        for one in (seed, look)
    )
    between = F.normalize(a - b, dim=0)
    mirror = torch.eye(size, dtype=torch.float64) - 2 * torch.outer(between, between)
    return move_styles(weights, mirror, torch.zeros(size, dtype=torch.float64))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", help="NAME or FILE")
    parser.add_argument("look", type=int, help=f"the seed whose look seed {DEFAULT_SEED} gets")
    parser.add_argument("-o", "--output", type=Path, required=True, help="weights file to write")
    arguments = parser.parse_args(argv)
    weights = load_weights(resolve_weights(arguments.weights))
    turned = turn_seeds(weights, DEFAULT_SEED, arguments.look)
    save_weights(arguments.output, turned.architecture, turned.tensors, turned.metadata)
    return 0


if __name__ == "__main__":
    exit_with(main)
