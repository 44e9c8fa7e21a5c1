"""Seeds where drawings' styles lie: fits the style space of trained weights.

    python -m train.seeds WEIGHTS DRAWINGS -o FITTED [--least 0.9] [--look SEED]

Seeds are drawn from N(0, I). If the codes that are read off drawings reach further in some direction, no seed shows
what lies there, and what seeds show elsewhere may be no drawing's. The space is stretched along the drawings'
principal axes: the mapping network takes the stretched code, the style head gives the shrunken one, so that a style
taken from a picture stays what it was, while seeds become other looks. And the space can be turned, so that the
default seed has a look that suits most people.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import engines
from engines.errors import GnrVideoError, InputError
from engines.weights import STYLE_ENCODER, Weights, load_weights, save_weights
from gnr_video.style import style_from_seed
from gnr_video.translator import DEFAULT_STYLE
from gnr_video.weights import resolve_weights
from train.metrics.pictures import Folder
from train.metrics.style_tools import encode_styles

LEAST = 1.0
MINIMUM = 32
"""Fewer drawings say too little of how their codes are spread."""


def principal_axes(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Deviations (D,), largest first, and directions (D, D), in columns, of codes (N, D)."""
    variances, axes = torch.linalg.eigh(codes.T.cov())
    return variances.clamp(min=0).sqrt().flip(0), axes.flip(1)


def fit_seeds(weights: Weights, codes: Tensor, least: float = LEAST) -> Weights:
    """The weights with seeds that reach as far as `codes` do along each of their principal axes.

    Args:
        weights: with a style head.
        codes: of drawings, float64 (N, latent_dim), read off by these weights.
        least: how far seeds reach at least, as a share of before. Where drawings differ little, seeds that differ as
            little look too much alike. From 1 on nothing is gained by fitting twice.

    Raises:
        InputError: there are too few codes.
    """
    if len(codes) < MINIMUM:
        raise InputError(f"{len(codes)} drawings are too few to fit seeds to", f"give {MINIMUM} or more")
    deviations, axes = principal_axes(codes)
    stretch = deviations.clamp(min=least)
    wider = axes @ torch.diag(stretch) @ axes.T
    narrower = axes @ torch.diag(1 / stretch) @ axes.T
    metadata = {**weights.metadata, "seeds": "fitted to drawings"}
    return replace(_changed(weights, wider, narrower), metadata=metadata)


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
    return _changed(weights, mirror, mirror)


def _changed(weights: Weights, to_mapping: Tensor, from_head: Tensor) -> Weights:
    """The weights with a matrix before the mapping network and one after the style head, float64 (D, D)."""
    head = f"{STYLE_ENCODER}style."
    last = max(
        int(name.removeprefix(head).split(".")[0]) for name in weights.tensors if name.startswith(head)
    )
    tensors = dict(weights.tensors)
    tensors["mapping.0.weight"] = (tensors["mapping.0.weight"].double() @ to_mapping).float()
    for name in (f"{head}{last}.weight", f"{head}{last}.bias"):
        tensors[name] = (from_head @ tensors[name].double()).float()
    return replace(weights, tensors=tensors, sha256="")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", help="NAME or FILE")
    parser.add_argument("drawings", type=Path, help="folder, such as prepared/trainB")
    parser.add_argument("-o", "--output", type=Path, required=True, help="weights file to write")
    parser.add_argument("--least", type=float, default=LEAST, help="see fit_seeds (default: %(default)g)")
    parser.add_argument("--look", type=int, metavar="SEED", help=f"seed {DEFAULT_STYLE} gets its look")
    parser.add_argument("--limit", type=int, default=400, help="drawings to look at (default: %(default)d)")
    arguments = parser.parse_args(argv)
    if not 0 < arguments.least <= 1:
        parser.error("--least is a share, over 0 and up to 1")
    weights = load_weights(resolve_weights(arguments.weights))
    with engines.create(weights, engine="torch", device="cpu") as engine:
        codes = torch.from_numpy(
            encode_styles(engine, Folder.open(arguments.drawings, arguments.limit))
        ).double()
    fitted = fit_seeds(weights, codes, arguments.least)
    if arguments.look is not None:
        fitted = turn_seeds(fitted, DEFAULT_STYLE, arguments.look)
    deviations, _ = principal_axes(codes)
    print(
        f"deviations of {len(codes)} drawings: " + " ".join(f"{value:.2f}" for value in deviations.tolist())
    )
    save_weights(arguments.output, fitted.architecture, fitted.tensors, fitted.metadata)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except GnrVideoError as error:
        sys.exit(f"error: {error}")
