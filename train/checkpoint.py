"""What a run writes and goes on from: the checkpoint with everything, and the weights file of the run-time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engines.errors import GnrVideoError, WeightsError
from engines.weights import STYLE_ENCODER, save_weights

if TYPE_CHECKING:
    from train.trainer import Trainer

LICENCE = (
    "research and personal use: trained on selfie2anime, which holds photographs of real people and frames "
    "of copyrighted works published for research"
)
STATE = "state.pt"
"""The checkpoint's name in the output folder."""


class TrainingDiverged(GnrVideoError):
    """A loss is no longer a finite number; the last good checkpoint is kept."""

    exit_code = 8


def save(trainer: Trainer[Any]) -> None:
    """Checkpoint (everything needed to go on) and weights file, each written beside and renamed.

    Raises:
        TrainingDiverged: a network holds numbers that are not finite. What was saved before stays.
    """
    # A gradient can be NaN where the loss is finite, and the next loss is not known yet.
    for name, net in trainer.networks.all().items():
        if not all(bool(torch.isfinite(p).all()) for p in net.parameters()):
            raise TrainingDiverged(
                f"the update of {name} at step {trainer.step} was not finite",
                f"the checkpoint in {trainer.out} is from before: resume with a lower --lr or a higher --r1",
            )
    state = {
        "networks": {name: net.state_dict() for name, net in trainer.networks.all().items()},
        "optimisers": [trainer.g_optimiser.state_dict(), trainer.d_optimiser.state_dict()],
        "step": trainer.step,
        "size": trainer.size,
        "recipe": trainer.recipe.name,
        "architecture": trainer.recipe.architecture.to_json(),
        "path_means": trainer.path_means,
        "painted": trainer.painted,
        "textures": trainer.textures,
        "codes": trainer.codes,
        "ada": {name: ada.state_dict() for name, ada in trainer.ada.items()},
        "rng": trainer.generator.get_state(),
        "torch_rng": torch.get_rng_state(),
        "seed": trainer.seed,
    }
    target = trainer.out / STATE
    partial = target.with_name(".state.pt.part")
    torch.save(state, partial)
    os.replace(partial, target)
    export(trainer, trainer.out / "weights.safetensors")


def export(trainer: Trainer[Any], path: Path, **metadata: str) -> None:
    """Weights file of the averaged generators, as the run-time reads it."""
    tensors: dict[str, Any] = dict(trainer.networks.ema_ab.state_dict())
    for name, tensor in trainer.networks.ema_ba.encoder.state_dict().items():
        tensors[STYLE_ENCODER + name] = tensor
    tensors = {
        name: tensor
        for name, tensor in tensors.items()
        if ".fade." not in name and not name.startswith("encoder.style.")
    }
    meta = {
        "name": f"{trainer.recipe.name} {trainer.size}px, step {trainer.step}",
        "provenance": f"gnr-video train, recipe {trainer.recipe.name}, {trainer.step} steps",
        "licence": LICENCE,
        "step": str(trainer.step),
        "recipe": trainer.recipe.name,
    }
    save_weights(path, trainer.networks.g_ab.architecture, tensors, {**meta, **metadata})


def resume(trainer: Trainer[Any]) -> bool:
    """Go on from the checkpoint in the output folder; false when there is none.

    Raises:
        WeightsError: the checkpoint is damaged, or of another recipe or architecture.
    """
    path = trainer.out / STATE
    if not path.is_file():
        return False
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        made_with = state["recipe"]
    except Exception as error:
        raise WeightsError(
            f"cannot read the checkpoint {path}: it is damaged, or another program's",
            "choose another --out, or --fresh to start over",
        ) from error
    mend = f"resume with --recipe {made_with}, choose another --out, or --fresh to start over"
    if made_with != trainer.recipe.name:
        raise WeightsError(f"{path} is of the recipe {made_with!r}, not {trainer.recipe.name!r}", mend)
    if state["architecture"] != trainer.recipe.architecture.to_json():
        raise WeightsError(f"{path} is of another architecture than the recipe's", mend)
    try:
        trainer._grow_to(state["size"])
        for name, net in trainer.networks.all().items():
            net.load_state_dict(state["networks"][name])
        trainer.g_optimiser.load_state_dict(state["optimisers"][0])
        trainer.d_optimiser.load_state_dict(state["optimisers"][1])
    except (KeyError, RuntimeError, ValueError) as error:
        # The generators fit: it is the discriminators' sizes, or a stage's.
        raise WeightsError(
            f"{path} was made with other settings of {made_with!r} ({str(error).splitlines()[0]})", mend
        ) from error
    # Options may be switched on and off on the way.
    for name, average in state.get("path_means", {}).items():
        trainer.path_means[name].copy_(average)
    trainer.painted = [colors.to(trainer.device) for colors in state.get("painted", [])]
    trainer.textures = {
        part: [[cells.to(trainer.device) for cells in kind] for kind in kinds]
        for part, kinds in state.get("textures", {}).items()
    }
    trainer.codes = state.get("codes", trainer.codes).to(trainer.device)
    for name in trainer.ada.keys() & state.get("ada", {}).keys():
        trainer.ada[name].load_state_dict(state["ada"][name])
    trainer.step = state["step"]
    trainer.generator.set_state(state["rng"])
    torch.set_rng_state(state["torch_rng"])
    return True
