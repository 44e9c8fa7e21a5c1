"""Samples between samples: windowed-sinc interpolation at positions of any spacing (a step of the delay line)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

HALF = 16
"""Samples on each side that an interpolated one is made of, where the rate is not lowered."""
_PHASES = 512
_KAISER_BETA = 8.0
"""Of the window: 80 dB below the signal, a transition of a sixth of the band."""
_PASSED = 0.92
"""Of the band up to half the lower rate: the rest is the filter's transition."""


def reach(cutoff: float) -> int:
    """Samples on each side of a position that are looked at; `cutoff` as for `interpolate`."""
    return int(np.ceil(HALF / min(1.0, cutoff)))


def interpolate(samples: Samples, positions: NDArray[np.float64], cutoff: float = 1.0) -> Samples:
    """Band-limited values between samples (Smith, Digital Audio Resampling, "windowed sinc interpolation").

    Args:
        samples: float32 [n, channels]; before and after them is silence.
        positions: float64 [m], in samples: 1.5 lies between the second and the third.
        cutoff: output rate over input rate where that is below 1: what the output cannot hold is left out.

    Returns:
        float32 [m, channels].
    """
    half = reach(cutoff)
    table = _table(half, round(min(1.0, cutoff), 6))
    first = np.floor(positions)
    phase = (positions - first) * _PHASES
    lower = phase.astype(np.int64)
    weight = (phase - lower).astype(np.float32)[:, None]
    kernels = table[lower] * (1 - weight) + table[lower + 1] * weight
    count, channels = samples.shape
    padded = np.zeros((channels, count + 2 * half), np.float32)  # each channel in a row: four times as fast
    padded[:, half : half + count] = samples.T
    begin = np.clip(first.astype(np.int64) + 1, 0, count)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half, axis=1)
    values = np.empty((len(positions), channels), np.float32)
    for channel in range(channels):
        values[:, channel] = np.einsum("mt,mt->m", windows[channel][begin], kernels)
    values[(first < -1) | (first > count - 1)] = 0
    return values


@lru_cache(maxsize=8)
def _table(half: int, cutoff: float) -> Samples:
    """Kernels for positions from 0 to 1 after the sample in their middle: float32 [_PHASES + 1, 2 * half]."""
    fractions = np.arange(_PHASES + 1) / _PHASES
    distance = fractions[:, None] - np.arange(1 - half, half + 1)
    band = cutoff * _PASSED
    window = np.i0(_KAISER_BETA * np.sqrt(np.clip(1 - (distance / half) ** 2, 0, None))) / np.i0(_KAISER_BETA)
    kernels = band * np.sinc(band * distance) * window
    kernels /= kernels.sum(axis=1, keepdims=True)  # a constant stays one
    return np.asarray(kernels, np.float32)
