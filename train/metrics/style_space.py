"""How well styles are laid out: perceptual path length and linear separability (StyleGAN, arXiv 1812.04948)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from engines.errors import InputError
from train.metrics.estimate import Estimate, mean_estimate
from train.metrics.pictures import Picture

if TYPE_CHECKING:
    from engines.weights import Weights

ATTRIBUTES = ("brightness", "saturation", "warmth", "contrast", "hair brightness", "hair warmth")
"""What `picture_attributes` measures, in order."""

STEP = 1e-4


class FloatGenerator:
    """A generator in float32 torch whose pictures are not rounded, and through which gradients flow to styles.

    Engines give uint8 pictures: a path of length 1e-4, or a gradient, would be lost in their rounding.
    """

    def __init__(self, weights: Weights) -> None:
        from engines.graph import ContentEncoder, Decoder, MappingNetwork, StyleVectors

        self.size = weights.architecture.size
        self.latent_dim = weights.architecture.latent_dim
        self.mapping = MappingNetwork(weights).eval()
        self._encoder = ContentEncoder(weights).eval()
        self._vectors = StyleVectors(weights).eval()
        self._decoder = Decoder(weights).eval()

    def content(self, crops: NDArray[np.uint8]) -> torch.Tensor:
        """Content codes of crops, uint8 (N, S, S, 3)."""
        with torch.no_grad():
            result: torch.Tensor = self._encoder(torch.from_numpy(np.ascontiguousarray(crops)))
        return result

    def decode(self, content: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Pictures, float32 (N, 3, S, S) in -1..1, of content codes and w codes (N, style_dim)."""
        return self._decoder.features(content, self._vectors(w)).clamp(-1, 1)


def perceptual_path_length(
    render: Callable[[int, torch.Tensor], torch.Tensor],
    distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    starts: torch.Tensor,
    ends: torch.Tensor,
    *,
    step: float = STEP,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> Estimate:
    """Mean of ``distance(G(lerp(w0, w1; t)), G(lerp(w0, w1; t + step))) / step^2``, t uniform (equation 3).

    As in StyleGAN's code, what lies outside of the 1st to 99th percentile is left out. Small where a step in
    style space changes the picture little and evenly.

    Args:
        render: number of the path and a w code (1, D) -> picture.
        distance: LPIPS of two pictures, (1,).
        starts, ends: (N, D) ends of N paths.
    """
    places = torch.rand(len(starts), generator=torch.Generator().manual_seed(seed))
    found = []
    with torch.inference_mode():
        for i, place in enumerate(places):
            first, second = (
                render(i, torch.lerp(starts[i : i + 1], ends[i : i + 1], t)) for t in (place, place + step)
            )
            found.append(distance(first, second).item() / step**2)
            advance()
    values = np.array(found)
    low, high = np.percentile(values, 1, method="lower"), np.percentile(values, 99, method="higher")
    return mean_estimate(values[(values >= low) & (values <= high)])


def linear_separability(codes: ArrayLike, attributes: ArrayLike) -> Estimate:
    """``exp(sum of H(Y | X))`` over attributes (equation 5), Y the attribute above or below its median, X what
    a linear classifier of the style code says of it. 1: known from the code for certain; 2 to the number of
    attributes: not known at all.

    StyleGAN's attributes come from classifiers of CelebA faces; these are measured on the pictures
    (`picture_attributes`). The classifier is logistic regression; it is fitted on one half of the samples and
    asked about the other, in turn.

    Args:
        codes: (N, D) style codes, N >= 20.
        attributes: (N, A).
    """
    x, values = np.asarray(codes, np.float64), np.asarray(attributes, np.float64)
    if x.ndim != 2 or values.ndim != 2 or len(x) != len(values) or len(x) < 20:
        raise InputError(
            f"separability needs 20 style codes (N, D) and their attributes (N, A), got {x.shape} and {values.shape}"
        )
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-12)
    truth = values > np.median(values, 0)
    said = np.zeros_like(truth)
    half = np.arange(len(x)) % 2 == 0
    for a in range(truth.shape[1]):
        for fitted in (half, ~half):
            said[~fitted, a] = _predict(_logistic(x[fitted], truth[fitted, a]), x[~fitted])
    rng = np.random.default_rng(0)
    resampled = [_separability(truth[i], said[i]) for i in rng.integers(0, len(x), (500, len(x)))]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate(_separability(truth, said), float(low), float(high), len(x))


def _separability(truth: NDArray[np.bool_], said: NDArray[np.bool_]) -> float:
    entropy = 0.0
    for y, x in zip(truth.T, said.T):
        for group in (y[x], y[~x]):
            if len(group):
                p = np.array([group.mean(), 1 - group.mean()])
                entropy -= len(group) / len(y) * float((p * np.log(np.maximum(p, 1e-300))).sum())
    return float(np.exp(entropy))


def _logistic(x: NDArray[np.float64], y: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weights, bias last, of ridge logistic regression by Newton's method."""
    inputs = np.hstack([x, np.ones((len(x), 1))])
    ridge = np.diag([*np.full(x.shape[1], 1e-3 * len(x)), 1e-9])
    theta = np.zeros(inputs.shape[1])
    for _ in range(20):
        p = 1 / (1 + np.exp(-np.clip(inputs @ theta, -30, 30)))
        gradient = inputs.T @ (p - y) + ridge @ theta
        hessian = (inputs * (p * (1 - p))[:, None]).T @ inputs + ridge
        step = np.linalg.solve(hessian, gradient)
        theta -= step
        if np.abs(step).max() < 1e-8:
            break
    return theta


def _predict(theta: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(x @ theta[:-1] + theta[-1] > 0)


def picture_attributes(pictures: Sequence[Picture]) -> NDArray[np.float64]:
    """Looks in numbers, (N, 6): see `ATTRIBUTES`. Hair is the picture's upper fifth; warmth is red less blue."""
    rows = []
    for picture in pictures:
        x = picture.astype(np.float64) / 255
        grey, hair = x @ (0.299, 0.587, 0.114), x[: max(1, len(x) // 5)]
        saturation = (x.max(-1) - x.min(-1)).mean()
        warmth = (x[..., 0] - x[..., 2]).mean()
        rows.append(
            (grey.mean(), saturation, warmth, grey.std(), hair.mean(), (hair[..., 0] - hair[..., 2]).mean())
        )
    return np.array(rows)
