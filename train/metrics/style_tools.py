"""Finding styles: the code that makes a picture, and the direction that makes an attribute.

The factorisation of the modulation weights (SeFa) needs no pictures and stands in `engines.style_space`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from engines.errors import InputError
from train.data import fit
from train.metrics.pictures import Folder, Picture
from train.metrics.style_space import FloatGenerator

if TYPE_CHECKING:
    from engines.base import Engine
    from engines.weights import Weights
    from train.lpips import Lpips

Code = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FittedStyle:
    """A style code and how well it makes the picture.

    Attributes:
        z: float32 (latent_dim,).
        before, after: the loss of the code that was started from, and of `z`.
    """

    z: Code
    before: float
    after: float


def fit_style(
    weights: Weights,
    picture: Picture,
    *,
    face: Picture | None = None,
    start: ArrayLike | None = None,
    lpips: Lpips | None = None,
    steps: int = 100,
    lr: float = 0.1,
    prior: float = 1e-3,
    advance: Callable[[], None] = lambda: None,
) -> FittedStyle:
    """The style code under which a content comes closest to a picture, by gradient descent (Adam).

    Least of LPIPS + mean squared difference + prior |z|^2. The best code on the way is returned, so that it is
    never worse than the start.

    Args:
        weights: the generator.
        picture: the look that is wanted, uint8 SxSx3, framed as the anime pictures of the training.
        face: whose content it shall be made from, uint8 SxSx3; None: the picture's own, which fits its pose.
        start: z (latent_dim,) to start from; None: what the style encoder reads off the picture, or zero
            where the weights have none.
        lpips: None leaves the perceptual term out.

    Raises:
        InputError: a start of a wrong length.
    """
    from engines.graph import StyleEncoder

    generator = FloatGenerator(weights)
    target = fit(picture, generator.size)
    content = generator.content(fit(face if face is not None else picture, generator.size)[None])
    if start is None and weights.has_style_encoder:
        with torch.no_grad():
            start = StyleEncoder(weights)(torch.from_numpy(target[None]))[0].numpy()
    first = np.zeros(generator.latent_dim, np.float32) if start is None else np.array(start, np.float32)
    if first.shape != (generator.latent_dim,):
        raise InputError(f"these weights have styles of {generator.latent_dim} numbers, got {first.shape}")
    wanted = torch.from_numpy(target).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        taps = None if lpips is None else lpips.features(wanted)
    z = torch.from_numpy(first[None].copy()).requires_grad_(True)
    optimiser = torch.optim.Adam([z], lr=lr)
    losses: list[float] = []
    best = first
    for _ in range(steps + 1):
        made = generator.decode(content, generator.mapping(z))
        loss = (made - wanted).square().mean() + prior * z.square().sum()
        if lpips is not None and taps is not None:
            loss = loss + lpips.distance(lpips.features(made), taps).sum()
        losses.append(float(loss.detach()))
        if losses[-1] <= min(losses):
            best = z.detach()[0].numpy().copy()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        advance()
    return FittedStyle(best, losses[0], min(losses))


def encode_styles(engine: Engine, folder: Folder) -> Code:
    """Style codes z, float32 (N, latent_dim), of the anime pictures of a folder.

    Raises:
        InputError: no picture decodes.
        WeightsError: these weights have no style encoder.
    """
    return np.stack([engine.encode_style(fit(picture, engine.size)) for _, picture in folder])


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction of style space along which an attribute grows.

    Attributes:
        vector: float32 (D,), from the mean code without the attribute to the mean code with it.
        accuracy: share of the codes that lie on their own side of the middle; 0.5 tells nothing.
        counts: codes with and without.
    """

    vector: Code
    accuracy: float
    counts: tuple[int, int]

    def apply(self, code: ArrayLike, amount: float = 1.0) -> Code:
        """A code moved along: 1 goes as far as the two means are apart."""
        return np.asarray(np.asarray(code, np.float32) + amount * self.vector, np.float32)


def attribute_direction(with_it: ArrayLike, without: ArrayLike) -> Direction:
    """The difference of two groups' mean style codes.

    Args:
        with_it, without: (N, D) and (M, D) codes of pictures with and without the attribute.

    Raises:
        InputError: a group is empty, or the means are the same.
    """
    a, b = (np.atleast_2d(np.asarray(codes, np.float64)) for codes in (with_it, without))
    if not a.size or not b.size or a.shape[1] != b.shape[1]:
        raise InputError(f"a direction needs two groups of style codes (N, D), got {a.shape} and {b.shape}")
    vector = a.mean(0) - b.mean(0)
    if np.linalg.norm(vector) < 1e-9:
        raise InputError("both groups have the same mean style: there is no direction between them")
    middle = (a.mean(0) + b.mean(0)) / 2 @ vector
    right = int((a @ vector > middle).sum() + (b @ vector < middle).sum())
    return Direction(vector.astype(np.float32), right / (len(a) + len(b)), (len(a), len(b)))
