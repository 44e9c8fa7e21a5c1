"""Pictures a second of one-sided training (recipe `cpu`), here and in another checkout of this project.

    git worktree add ../before d818c10
    python -m benchmarks.one_sided_step --against ../before --lpips-trunk vgg16.pth

Each measurement is a process of its own, in turns: the recipe's step on noise at 128 and at 256 pixels, whole heads and
all its terms included, at equal batch. Versions before EfficientNet-Lite1 need VGG16's weights (`--lpips-trunk`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parents[1]


def measure(size: int, batch: int, steps: int, trunk: Path | None) -> float:
    """Seconds a step (mean over `steps`, which lazy terms are spread over) of the project that is imported."""
    import torch

    from train.data import Domains, ImagePool
    from train.recipes import Stage, get_recipe

    recipe = get_recipe("cpu")
    recipe = replace(
        recipe,
        architecture=recipe.architecture_at(size),
        stages=(Stage(size, 1_000, batch),),
        warmup_steps=0,
    )
    draw = torch.Generator().manual_seed(0)

    def noise(side: int) -> ImagePool:
        return ImagePool(torch.randint(0, 256, (64, 3, side, side), dtype=torch.uint8, generator=draw))

    faces, heads = noise(size), noise(size * 5 // 4)
    data = Domains(faces, faces, faces, faces, heads=heads, drawn_heads=heads)
    with tempfile.TemporaryDirectory() as out:
        trainer = _trainer()(data, recipe, Path(out), **({"lpips_trunk": trunk} if trunk else {}))
        trainer.train_step()
        started = time.perf_counter()
        for _ in range(steps):
            trainer.train_step()
        return (time.perf_counter() - started) / steps


def _trainer() -> Callable[..., Any]:
    # The older name first: an editable installation would lend the other checkout what that has not.
    for module, name in (("train.one_way", "OneWayTrainer"), ("train.one_sided", "OneSidedTrainer")):
        try:
            made: Callable[..., Any] = getattr(import_module(module), name)
        except ModuleNotFoundError:
            continue
        return made
    raise SystemExit("error: there is no one-sided training in this checkout")


def run(root: Path, size: int, options: argparse.Namespace) -> float:
    """Seconds a step of the checkout at `root`."""
    command = [sys.executable, __file__, "--one", str(size), "--batch", str(options.batch)]
    command += ["--steps", str(options.steps)]
    if options.lpips_trunk:
        command += ["--lpips-trunk", str(options.lpips_trunk.resolve())]
    done = subprocess.run(
        command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit(f"error: the step of {root} failed at {size} pixels, see above")
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8, help="timed steps in a process")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each, in turns")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--lpips-trunk", type=Path, help="VGG16's weights")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(measure(options.one, options.batch, options.steps, options.lpips_trunk))
        return
    from gnr_video.machine import hardware

    machine, rows = hardware(), []
    print(f"{machine['cpu']}, {machine['cores_usable']} cores; batch {options.batch}; pictures a second")
    roots = {"here": HERE} | ({"there": options.against.resolve()} if options.against else {})
    for size in options.sizes:
        seconds: dict[str, list[float]] = {name: [] for name in roots}
        for _ in range(options.rounds):
            for name, root in roots.items():
                seconds[name].append(run(root, size, options))
        rate = {name: options.batch / median(found) for name, found in seconds.items()}
        row: dict[str, Any] = {"size": size, "seconds": seconds, "pictures_per_second": rate}
        line = f"{size:>4} px  " + "  ".join(f"{name} {value:.2f}" for name, value in rate.items())
        if options.against:
            row["faster"] = median(b / a for a, b in zip(seconds["here"], seconds["there"], strict=True))
            line += f"  {row['faster']:.1f}x"
        print(line, flush=True)
        rows.append(row)
    if options.json:
        options.json.write_text(
            json.dumps({"hardware": machine, "batch": options.batch, "sizes": rows}, indent=1)
        )


if __name__ == "__main__":
    main()
