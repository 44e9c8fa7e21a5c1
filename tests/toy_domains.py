"""Two domains of toy pictures to train on."""

from __future__ import annotations

from pathlib import Path

import torch

from train.data import Domains, ImagePool
from train.sheets import save_png, to_image


def toy_domains(side: int = 32) -> Domains:
    """Faces: dark discs on light ground; anime: light discs on dark ground, in random colours."""
    generator = torch.Generator().manual_seed(3)

    def pool(count: int, inside: float, outside: float) -> ImagePool:
        y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
        centre = torch.rand(count, 2, 1, 1, generator=generator) - 0.5
        disc = ((x - centre[:, :1]) ** 2 + (y - centre[:, 1:]) ** 2 < 0.2).float()
        tint = torch.rand(count, 3, 1, 1, generator=generator) * 60
        return ImagePool((disc * inside + (1 - disc) * outside + tint).clamp(0, 255).to(torch.uint8))

    return Domains(pool(24, 40, 160), pool(24, 190, 30), pool(4, 40, 160), pool(4, 190, 30))


def write_domains(domains: Domains, folder: Path) -> None:
    """The training pictures as trainA and trainB there, for commands that read them."""
    for name, pool in (("trainA", domains.train_a), ("trainB", domains.train_b)):
        (folder / name).mkdir()
        for number, image in enumerate(pool.images):
            save_png(to_image(image), folder / name / f"{number:02}.png")
