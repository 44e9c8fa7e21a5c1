"""What colours a style gives, and styles of wanted colours.

Skin, hair and irises of a translation are nearly a function of its style code alone. `train.finetune.colors` learns
that function, a small network, and puts it into the weights file, so that colours can be asked for: a style is found
by gradient descent through it, without a picture being made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.errors import WeightsError
from engines.weights import COLORS, COLORS_WIDTH, PLACES

if TYPE_CHECKING:
    from engines.weights import Weights

STARTS = 64
"""Styles that a search begins from: the one given, and some around it."""
STEPS = 150
KEPT_WEIGHT = {"skin": 0.6, "hair": 0.15, "eyes": 0.15, "sides": 0.1}
"""How much the colours count that are not asked for, which should stay: of skin, one sees it at once."""
ASKED_WEIGHT = {"skin": 1.0, "hair": 1.0, "eyes": 1.0, "sides": 0.5}
"""How much those count that are."""
NEAR = 0.01
"""What it costs to move a style by 1."""
OUTERMOST = 3.5
"""Length of a style beyond which hardly a seed lies, so that pictures get worse."""


class StyleColors(nn.Sequential):
    """Style codes z (N, D) -> RGB of `PLACES` in [-1, 1], (N, 12), as translations have it on average over faces."""

    def __init__(self, latent_dim: int) -> None:
        self.latent_dim = latent_dim
        super().__init__(
            nn.Linear(latent_dim, COLORS_WIDTH),
            nn.SiLU(),
            nn.Linear(COLORS_WIDTH, COLORS_WIDTH),
            nn.SiLU(),
            nn.Linear(COLORS_WIDTH, 3 * len(PLACES)),
        )

    @classmethod
    def load(cls, weights: Weights) -> StyleColors:
        """That of a weights file.

        Raises:
            WeightsError: it has none.
        """
        if not weights.has_colors:
            raise WeightsError(
                "these weights do not say which colours a style gives",
                "python -m train.finetune.colors teaches them",
            )
        model = cls(weights.architecture.latent_dim)
        model.load_state_dict(
            {name.removeprefix(COLORS): t for name, t in weights.tensors.items() if name.startswith(COLORS)}
        )
        return model.requires_grad_(False)

    def find(self, start: NDArray[np.float32], wanted: Mapping[str, Sequence[float]]) -> NDArray[np.float32]:
        """The style nearest to one that has the wanted colours; what else that one has stays where it can.

        The same for the same arguments. Colours that no style has are come near to.

        Args:
            start: z (D,).
            wanted: RGB in [-1, 1] by place. That of hair is asked of the sides too, unless they have their own.

        Returns:
            z, float32 (D,).
        """
        model = StyleColors(self.latent_dim).double()
        model.load_state_dict(self.state_dict())
        model.requires_grad_(False)
        first = torch.from_numpy(np.asarray(start, np.float64))
        target = model(first[None])[0].unflatten(0, (len(PLACES), 3))
        weight = torch.tensor([KEPT_WEIGHT[place] for place in PLACES], dtype=torch.float64)
        if "hair" in wanted:
            wanted = {"sides": wanted["hair"], **wanted}
        for place, color in wanted.items():
            target[PLACES.index(place)] = torch.tensor(color, dtype=torch.float64)
            weight[PLACES.index(place)] = ASKED_WEIGHT[place]
        weight = weight.repeat_interleave(3)
        around = torch.randn(
            STARTS - 1, self.latent_dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        styles = torch.cat([first[None], first + around]).requires_grad_()

        def losses() -> Tensor:
            apart = (weight * (model(styles) - target.flatten()).square()).sum(1)
            beyond = F.relu(styles.norm(dim=1) - OUTERMOST).square()
            return apart + NEAR * (styles - first).square().sum(1) + beyond

        # Adam by hand: importing torch.optim takes two seconds.
        mean, square = torch.zeros_like(styles), torch.zeros_like(styles)
        for step in range(STEPS):
            (gradient,) = torch.autograd.grad(losses().sum(), styles)
            mean.lerp_(gradient, 0.1)
            square.lerp_(gradient.square(), 0.001)
            move = mean / (1 - 0.9 ** (step + 1)) / ((square / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
            styles.data -= 0.1 * (1 - step / STEPS) * move
        with torch.no_grad():
            best = styles[losses().argmin()]
        return np.asarray(best.detach().numpy(), np.float32)
