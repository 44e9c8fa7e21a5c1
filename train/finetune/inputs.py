"""What the programs that go over trained weights once more have in common (`train.finetune.colors`)."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from engines.devices import native_bf16
from engines.weights import Weights, load_weights
from gnr_video.checkpoints import resolve_weights
from train.data import Domains, Framing, load_dataset
from train.trunk import Trunk


def arguments_for(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", help="NAME or FILE")
    parser.add_argument("prepared", type=Path, help="folder from `gnr-video prepare`")
    parser.add_argument("-o", "--output", type=Path, required=True, help="weights file to write")
    parser.add_argument("--faces", type=Path, action="append", default=[], help="more prepared faces")
    parser.add_argument("--hold-out", type=int, default=0, help="of --faces, kept from training")
    parser.add_argument("--trunk", type=Path, help="EfficientNet-Lite1's weights; default: fetched once")
    parser.add_argument("--cache", type=Path, help="folder for the decoded pictures")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: %(default)d)")
    return parser


def read_inputs(arguments: argparse.Namespace, heads: Sequence[Path] = ()) -> tuple[Weights, Domains, Trunk]:
    """The weights, pictures of their size, and the trunk.

    Raises:
        WeightsError, InputError: one of them cannot be read.
    """
    weights = load_weights(resolve_weights(arguments.weights))
    data = load_dataset(
        arguments.prepared,
        weights.architecture.size,
        extra_a=[(folder, Framing()) for folder in arguments.faces],
        heads=heads,
        hold_out=arguments.hold_out,
        cache=arguments.cache,
    )
    dtype = torch.bfloat16 if native_bf16() else torch.float32
    return weights, data, Trunk.load(arguments.trunk, dtype)


def timed_log() -> Callable[[str], None]:
    """Prints lines, each with the seconds since now."""
    started = time.monotonic()

    def log(line: str) -> None:
        print(f"{time.monotonic() - started:4.0f} s  {line}", flush=True)

    return log
