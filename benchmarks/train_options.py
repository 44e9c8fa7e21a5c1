"""Which of the trainer's options help: short trainings that differ in one of them, measured side by side.

    python -m benchmarks.train_options DATA --json runs/options.json [--only NAME ...] [--seeds 2] [--steps 600]
        [--with NAME SETTING ...]

DATA is what `gnr-video prepare` wrote. Each variant is recipe `cpu` at one size, from noise, with some settings changed
(`gnr-video train --set`), once per seed. Seeds differ in the initial weights and in every draw, so what two seeds of
one variant differ by is what an option has to beat. Finished runs are read from the JSON file and not repeated: a
comparison can be made in pieces. Translations are compared with drawings of their own size.
"""

from __future__ import annotations

import engines  # before torch, for how its OpenMP threads wait

# isort: split

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from PIL import Image

from engines.devices import best_device
from engines.errors import exit_with
from engines.files import write_atomically
from engines.weights import load_weights
from gnr_video.machine import hardware
from train import loop
from train.data import Domains, Framing, fit, load_dataset
from train.metrics.evaluate import METRICS, QUICK, Evaluator, Networks
from train.metrics.pictures import Folder
from train.one_sided import OneSidedTrainer
from train.recipes import Recipe, Stage, get_recipe, with_settings

VARIANTS: Mapping[str, Sequence[str]] = {
    "recipe cpu": (),
    "ADA": ("ada=0.6", "ada_images=5000"),
    "path length": ("loss.path_length=2",),
    "style mixing": ("style_mixing=0.9",),
    "smooth flow": ("motion_flow=0.03",),
    "without palette": ("loss.palette=0",),
    "without motion": ("loss.motion=0",),
    "without spread": ("loss.spread=0",),
    "without parts": ("loss.parts=0",),
}
SHOWN = (
    "fid",
    "kid",
    "fid_vgg16",
    "kid_vgg16",
    "fid_alexnet",
    "kid_alexnet",
    "palette",
    "lpips_diversity",
    "ms_ssim_diversity",
    "equivariance_db",
)


def shortened(settings: Sequence[str], size: int, steps: int, batch: int) -> Recipe:
    """Recipe `cpu` with these settings, at one size, a quarter of its steps as an autoencoder."""
    recipe = with_settings(get_recipe("cpu"), settings)
    return replace(
        recipe,
        architecture=recipe.architecture_at(size),
        stages=(Stage(size, steps, batch),),
        warmup_steps=steps // 4,
    )


def train(recipe: Recipe, data: Domains, out: Path, seed: int, trunk: Path | None) -> float:
    """Train into `out`; seconds per step."""
    trainer = OneSidedTrainer(data, recipe, out, seed=seed, device=best_device(), lpips_trunk=trunk)
    started = time.monotonic()
    loop.run(
        trainer, log_every=100, sample_every=recipe.steps, progress=lambda text: print(text, file=sys.stderr)
    )
    return (time.monotonic() - started) / recipe.steps


def shrunken(drawings: Folder, size: int, folder: Path) -> Folder:
    """The drawings at that size, in `folder`: translations are not to be judged by how small they are."""
    for number, (_, picture) in enumerate(drawings):
        Image.fromarray(fit(picture, size)).save(folder / f"{number:05}.png")
    return Folder.open(folder)


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a row per variant; means over its seeds, and what the seeds differ by."""
    shown = [name for name in SHOWN if any(name in run["metrics"] for run in runs)]
    lines = [
        "| variant | seeds | s/step | " + " | ".join(METRICS[name].title for name in shown) + " |",
        "|---" * (3 + len(shown)) + "|",
    ]
    for variant in dict.fromkeys(run["variant"] for run in runs):
        own = [run for run in runs if run["variant"] == variant]
        cells = [variant, str(len(own)), f"{mean(run['seconds_per_step'] for run in own):.2f}"]
        for name in shown:
            values = [run["metrics"][name] * METRICS[name].factor for run in own if name in run["metrics"]]
            if not values:
                cells.append("")
                continue
            spread = f" ± {(max(values) - min(values)) / 2:.3g}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.3g}{spread}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--faces", nargs="*", type=Path, default=[], help="more prepared faces")
    parser.add_argument(
        "--only", nargs="*", choices=list(VARIANTS), help="of the variants; none: those of --with"
    )
    parser.add_argument(
        "--with",
        dest="own",
        nargs="+",
        action="append",
        default=[],
        metavar="NAME",
        help="a variant of yours",
    )
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--lpips-trunk", type=Path, help="folder with VGG16 and AlexNet trunk weights")
    parser.add_argument("--cache", type=Path, help="folder for decoded images")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()

    setup = {name: getattr(options, name) for name in ("size", "steps", "batch")}
    runs: list[dict[str, Any]] = json.loads(options.json.read_text())["runs"] if options.json.exists() else []
    variants = {name: VARIANTS[name] for name in (VARIANTS if options.only is None else options.only)}
    variants |= {name: settings for name, *settings in options.own}
    recipes = {name: shortened(settings, **setup) for name, settings in variants.items()}
    key = ("variant", "settings", "seed", *setup)
    done = {json.dumps([run[name] for name in key]) for run in runs}
    data = load_dataset(
        options.data,
        options.size,
        extra_a=[(folder, Framing()) for folder in options.faces],
        cache=options.cache,
    )
    networks = Networks.load(trunk=options.lpips_trunk, path_length=False, device=best_device())
    small = tempfile.TemporaryDirectory()
    drawings = shrunken(Folder.open(options.data / "testB", QUICK.limit), options.size, Path(small.name))
    evaluator = Evaluator(drawings, networks, QUICK)
    faces = Folder.open(options.data / "testA", QUICK.limit)
    for seed in range(options.seeds):
        for name, recipe in recipes.items():
            run = {"variant": name, "settings": list(variants[name]), "seed": seed, **setup}
            if json.dumps([run[part] for part in key]) in done:
                continue
            print(f"{name}, seed {seed}", file=sys.stderr)
            with tempfile.TemporaryDirectory() as folder:
                seconds = train(recipe, data, Path(folder), seed, options.lpips_trunk)
                weights = load_weights(Path(folder) / "weights.safetensors")
            with engines.create(weights) as engine:
                result = evaluator.generator(name, engine, faces, weights=weights)
            metrics = {metric: estimate.value for metric, estimate in result.metrics.items()}
            runs.append({**run, "seconds_per_step": round(seconds, 3), "metrics": metrics})
            report = {"hardware": hardware(), "runs": runs}
            write_atomically(options.json, json.dumps(report, indent=2).encode())
    print(table(runs))
    return 0


if __name__ == "__main__":
    exit_with(main)
