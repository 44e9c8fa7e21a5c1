"""Growing a network outwards: a generator or discriminator for twice the resolution, from a trained one.

The content code keeps its place. Downsampling branches get a new input layer and a new first block, faded in;
the decoder gets a new last stage whose RGB contribution starts at zero, so that the picture starts as the
trained network's, upsampled.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from train.networks import FadeIn, Generator, GrownStem

_STEMS = ("encoder.stem", "l_branch", "g_branch")


def old_name(name: str) -> str | None:
    """Where a grown network's tensor was before growing by one doubling; None for a new one."""
    for stem in _STEMS:
        match = re.fullmatch(rf"{re.escape(stem)}\.(\d+)\.(.*)", name)
        if match:
            block = int(match[1])
            return None if block < 2 else f"{stem}.{block - 1}.{match[2]}"
    return name


@torch.no_grad()
def grow(old: nn.Module, new: nn.Module) -> dict[str, str]:
    """Fill `new`, a generator or discriminator of twice the size, from the trained `old`.

    Returns:
        new parameter name -> old parameter name, for carrying optimiser state over.
    """
    before = {n: t for n, t in old.state_dict().items() if ".fade." not in n}
    carried: dict[str, str] = {}
    for name, tensor in new.state_dict().items():
        source = old_name(name)
        if source is not None and source in before and before[source].shape == tensor.shape:
            tensor.copy_(before[source])
            carried[name] = source
    for name, module in new.named_modules():
        if isinstance(module, GrownStem):
            trained = old.get_submodule(name)[0]  # type: ignore[index]
            module.fade_from(trained)
    if isinstance(new, Generator):
        new.to_rgbs[-1].conv.weight.zero_()  # type: ignore[union-attr, operator]
    return carried


def set_fade(network: nn.Module, alpha: float) -> None:
    """Blend of the grown input layers, 0 (old) to 1 (new)."""
    for module in network.modules():
        if isinstance(module, FadeIn):
            module.alpha.fill_(min(max(alpha, 0.0), 1.0))
