"""Style codes, and what a code can come from: a seed, a reference picture, a saved file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.errors import StyleError

REFERENCE = "ref:"
SAVED = ".style.json"

DEFAULT_SEED = 42


@dataclass(frozen=True)
class StyleCode:
    """One look.

    Attributes:
        z: the style code, float32 values: `latent_dim` of them (or `style_dim`, for a code in w space).
        label: the style text that gives it ("42", "ref:girl.png", "42*0.7+7*0.3").
        warnings: what its owner should know of it, one line each.
    """

    z: tuple[float, ...]
    label: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        values = np.asarray(self.z, dtype=np.float32)
        if values.ndim != 1 or not values.size or not np.isfinite(values).all():
            raise StyleError(f"a style code is a row of finite numbers, got {self.z!r}"[:200])
        object.__setattr__(self, "z", tuple(values.tolist()))

    def array(self) -> NDArray[np.float32]:
        """float32 (len(z),), what an engine's `set_style` takes."""
        return np.array(self.z, dtype=np.float32)

    def __repr__(self) -> str:
        head = ", ".join(f"{value:.3f}" for value in self.z[:8])
        return f"StyleCode({self.label!r}, z=({head}{', ...' if len(self.z) > 8 else ''}))"


def style_from_seed(seed: int, latent_dim: int = 8, draw: int = 0) -> StyleCode:
    """The style code a seed stands for: z ~ N(0, 1), as the official notebook draws it.

    `torch.manual_seed(seed); torch.randn(1, latent_dim)`, with a CPU generator of its own: the same code on
    every machine and engine. Further draws have generators of their own, seeded by both numbers.

    Raises:
        StyleError: the seed does not fit in 64 bits.
    """
    import torch

    generator = torch.Generator("cpu")
    try:
        generator.manual_seed(seed)
    except (RuntimeError, OverflowError, ValueError) as error:
        raise StyleError(f"seed {seed} does not fit in 64 bits") from error
    if draw:
        mixed = np.random.SeedSequence((seed % 2**64, draw)).generate_state(1, np.uint64)
        generator.manual_seed(int(mixed[0] >> np.uint64(1)))
    z = torch.randn(1, latent_dim, generator=generator)
    return StyleCode(tuple(z[0].tolist()), str(Seed(seed, draw)))


@dataclass(frozen=True)
class Seed:
    """A look by number, and which draw of that number."""

    number: int
    draw: int = 0

    def __str__(self) -> str:
        return f"{self.number}#{self.draw}" if self.draw else str(self.number)


@dataclass(frozen=True)
class Reference:
    """A look read off an anime picture."""

    path: Path

    def __str__(self) -> str:
        return f"{REFERENCE}{self.path.name}"


@dataclass(frozen=True)
class Saved:
    """A look from a file."""

    path: Path

    def __str__(self) -> str:
        return self.path.name


Atom = Seed | Reference | Saved
