"""What a video needs of a translator: warp error, style drift, equivariance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engines.errors import InputError
from train.metrics.estimate import Estimate, mean_estimate
from train.metrics.pictures import Picture

Flow = NDArray[np.float32]
"""float32 HxWx2: the pixel at p of the first picture is at p + flow[p] in the second."""

Translate = Callable[[Picture], Picture]

_BORDER = 8  # pixels of a 256 picture that are left out: filters see beyond the edge there


def optical_flow(first: Picture, second: Picture) -> Flow:
    """Dense flow by OpenCV's DIS (Kroeger et al. 2016, preset medium) of uint8 HxWx3 pictures of one size."""
    import cv2

    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (first, second)]
    return np.asarray(dis.calc(grey[0], grey[1], None), np.float32)  # type: ignore[call-overload]


def warp_back(picture: NDArray[np.float32], flow: Flow) -> NDArray[np.float32]:
    """`picture` read at p + flow[p] (bilinear): the second picture brought onto the first."""
    import cv2

    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.asarray(
        cv2.remap(
            picture, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        ),
        np.float32,
    )


def visible(forward: Flow, backward: Flow) -> NDArray[np.bool_]:
    """Pixels that are in both pictures: flow there and back again ends where it began.

    The test of Sundaram, Brox and Keutzer 2010: ``|f + b|^2 < 0.01 (|f|^2 + |b|^2) + 0.5``, b read at the end
    of f. A border is left out.
    """
    back = warp_back(backward, forward)
    gap = np.square(forward + back).sum(-1)
    size = np.square(forward).sum(-1) + np.square(back).sum(-1)
    return np.asarray((gap < 0.01 * size + 0.5) & _inside(forward.shape[0], forward.shape[1]))


def warp_errors(source: Sequence[Picture], result: Sequence[Picture]) -> NDArray[np.float64]:
    """How much a translated clip differs from itself moved along the source's optical flow (Lai et al. 2018).

    For each pair of neighbouring frames: the mean squared difference, over visible pixels and channels, of
    the second result brought back onto the first, values 0..1.

    Args:
        source: the frames (face crops) that were translated, uint8 SxSx3.
        result: their translations, of the same size.

    Returns:
        (N - 1,) mean squared errors; NaN where no pixel is visible in both.

    Raises:
        InputError: fewer than two frames, or lengths that differ.
    """
    if len(source) != len(result) or len(source) < 2:
        raise InputError(
            f"a warp error needs two frames and as many results, got {len(source)} and {len(result)}"
        )
    errors = []
    for i in range(len(source) - 1):
        forward, backward = optical_flow(source[i], source[i + 1]), optical_flow(source[i + 1], source[i])
        mask = visible(forward, backward)
        first, second = (result[k].astype(np.float32) / np.float32(255) for k in (i, i + 1))
        gap = np.square(warp_back(second, forward) - first).mean(-1)
        errors.append(float(gap[mask].mean()) if mask.any() else math.nan)
    return np.array(errors)


def style_drift(codes: ArrayLike, spread: float) -> float:
    """How far the style read off a translated clip's frames wanders, against how far styles differ.

    Root mean square distance of the frames' codes from their mean, over `spread`: 0 when the look is kept
    perfectly, 1 when frames differ as much as random styles do.

    Args:
        codes: (N, D) style codes of the translated frames, N >= 2.
        spread: the same root mean square distance, of codes of different looks (see `style_spread`).
    """
    if not spread > 0:
        raise InputError("style drift needs styles that differ: the style encoder gives one code for all")
    return style_spread(codes) / spread


def style_spread(codes: ArrayLike) -> float:
    """Root mean square distance of codes (N, D), N >= 2, from their mean."""
    z = np.asarray(codes, np.float64)
    if z.ndim != 2 or len(z) < 2:
        raise InputError(f"style drift compares two style codes and more, got shape {z.shape}")
    return float(np.sqrt(np.square(z - z.mean(0)).sum(1).mean()))


@dataclass(frozen=True)
class Move:
    """A small similarity transform about the centre: what a head does between frames.

    Attributes:
        dx, dy: shift in shares of the side.
        angle: radians.
        scale: enlargement.
    """

    dx: float = 0.0
    dy: float = 0.0
    angle: float = 0.0
    scale: float = 1.0

    def matrix(self, size: int) -> NDArray[np.float64]:
        """2x3, from pixels of the original to pixels of the result."""
        c, s = self.scale * math.cos(self.angle), self.scale * math.sin(self.angle)
        centre = (size - 1) / 2
        x, y = centre - c * centre + s * centre, centre - s * centre - c * centre
        return np.array([[c, -s, x + self.dx * size], [s, c, y + self.dy * size]])

    def apply(self, picture: Picture) -> Picture:
        """Moved, uint8 SxSx3; bicubic, mirrored beyond the border."""
        import cv2

        size = len(picture)
        return np.asarray(
            cv2.warpAffine(
                picture,
                self.matrix(size),
                (size, size),
                flags=cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REFLECT_101,
            ),
            np.uint8,
        )

    def valid(self, size: int) -> NDArray[np.bool_]:
        """Pixels of the result that come from well inside the original."""
        import cv2

        inside = _inside(size, size)
        mask = cv2.warpAffine(
            inside.astype(np.uint8), self.matrix(size), (size, size), flags=cv2.INTER_NEAREST
        )
        return (np.asarray(mask) > 0) & inside


def random_moves(count: int, seed: int = 0) -> list[Move]:
    """Moves as tracking leaves them and as heads make them: up to 3 % shift, 6 degrees, 5 % zoom, uniform."""
    draws = np.random.default_rng(seed).uniform(-1, 1, (count, 4))
    return [Move(0.03 * x, 0.03 * y, math.radians(6 * a), 1 + 0.05 * s) for x, y, a, s in draws.tolist()]


def equivariance_error(translate: Translate, face: Picture, move: Move) -> float:
    """Mean squared difference (values 0..1) between translating a moved face and moving a translated one.

    0 for a translator that does to each place of a face the same wherever the place is.

    Args:
        translate: uint8 SxSx3 -> uint8 SxSx3, style fixed.
    """
    moved_after = move.apply(translate(face))
    moved_before = translate(move.apply(face))
    gap = np.square((moved_before.astype(np.float64) - moved_after) / 255).mean(-1)
    return float(gap[move.valid(len(face))].mean())


def psnr(mean_squared_errors: ArrayLike) -> Estimate:
    """PSNR in dB (peak 1) of the mean of squared errors; 99 dB stands for none at all."""
    errors = np.asarray(mean_squared_errors, np.float64)
    best = mean_estimate(errors[np.isfinite(errors)], transform=_decibel)
    # The interval of the error turns over: the largest error is the smallest PSNR.
    low, high = sorted((best.low, best.high)) if math.isfinite(best.low) else (best.low, best.high)
    return Estimate(best.value, low, high, best.count)


def _decibel(error: ArrayLike) -> NDArray[np.float64]:
    return np.minimum(99.0, -10 * np.log10(np.maximum(np.asarray(error, np.float64), 1e-12)))


def _inside(height: int, width: int) -> NDArray[np.bool_]:
    border = max(1, round(_BORDER * min(height, width) / 256))
    mask = np.zeros((height, width), bool)
    mask[border : height - border, border : width - border] = True
    return mask
