"""How steady and how crisp drawings are: as the network makes them, inked, and following each other as in a video.

    python -m benchmarks.steadiness CLIP [CLIP ...] [--frames 60] [--json FILE]

Jitter is the mean second difference in time of the aligned drawings, crispness the mean difference of neighbouring
pixels, both in levels of 255. What moves evenly has no jitter.
"""

from __future__ import annotations

import engines  # before torch, for how its OpenMP threads wait

# isort: split

import argparse
import json
from pathlib import Path

import numpy as np

from engines.errors import exit_with
from engines.files import write_atomically
from engines.weights import load_weights
from gnr_video.checkpoints import resolve_weights
from gnr_video.effects.ink import inked as with_ink
from gnr_video.effects.steady import settled
from gnr_video.frame import Image
from gnr_video.machine import hardware
from gnr_video.samples.face_clip import face_run
from gnr_video.styles.looks import parse_style


def measure(drawings: list[Image]) -> dict[str, float]:
    """Jitter and crispness of the drawings of consecutive frames, uint8 HxWx3."""
    stack = np.stack(drawings).astype(np.int16)
    return {
        "jitter": float(np.abs(stack[2:] - 2 * stack[1:-1] + stack[:-2]).mean()),
        "crispness": float(np.mean([np.abs(np.diff(stack, axis=axis)).mean() for axis in (1, 2)])),
    }


def in_turn(drawings: list[Image]) -> list[Image]:
    """Each following the one before it."""
    shown = drawings[:1]
    for drawing in drawings[1:]:
        shown.append(settled(shown[-1], drawing))
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    rows: dict[str, dict[str, dict[str, float]]] = {}
    print(f"{'clip':<28}{'':<26}{'jitter':>8}{'crispness':>11}")
    with engines.create(load_weights(resolve_weights(options.weights))) as engine:
        engine.set_style(parse_style(str(options.seed), engine).array())
        for clip in options.clips:
            crops = face_run(clip, frames=options.frames)
            drawn = [engine.translate(crop[None])[0] for crop in crops]
            inked = [with_ink(picture) for picture in drawn]
            variants = {"network": drawn, "inked": inked, "inked, settled": in_turn(inked)}
            rows[clip.name] = {name: measure(drawings) for name, drawings in variants.items()}
            for name, row in rows[clip.name].items():
                print(f"{clip.name:<28}{name:<26}{row['jitter']:>8.3f}{row['crispness']:>11.3f}")
    if options.json:
        write_atomically(options.json, json.dumps({"hardware": hardware(), "clips": rows}, indent=2).encode())
    return 0


if __name__ == "__main__":
    exit_with(main)
