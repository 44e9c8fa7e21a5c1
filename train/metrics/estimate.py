"""A measured value with its 95 % confidence interval, from resampling the pictures it was measured on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices = NDArray[np.intp]

# Student's t, 97.5 %, for 1, 2, ... degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Estimate:
    """One figure of a table.

    Attributes:
        value: what was measured.
        low, high: its 95 % confidence interval; NaN where one sample allows none.
        count: independent samples behind it (pictures, faces, pairs of frames).
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    count: int = 1

    def to_json(self) -> dict[str, float | int | None]:
        """Plain numbers; None for what is not finite."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {k: v if math.isfinite(v) else None for k, v in numbers.items()} | {"count": self.count}


def mean_estimate(
    values: ArrayLike,
    *,
    seed: int = 0,
    resamples: int = 2000,
    transform: Callable[..., ArrayLike] | None = None,
) -> Estimate:
    """Mean of per-sample values, interval from the bootstrap (percentiles, Efron 1979).

    Args:
        values: (N,) floats, N >= 1.
        transform: applied to means, on arrays too (a PSNR of mean squared errors, a root).

    Raises:
        ValueError: no values.
    """
    data = np.asarray(values, np.float64).ravel()
    if not data.size:
        raise ValueError("an estimate needs at least one value")
    final: Callable[..., ArrayLike] = transform or (lambda x: x)
    value = float(np.asarray(final(data.mean())))
    if data.size == 1:
        return Estimate(value, count=1)
    rng = np.random.default_rng(seed)
    # One resample at a time: N can be large, and (resamples, N) would not fit in memory.
    means = np.array([data[rng.integers(0, data.size, data.size)].mean() for _ in range(resamples)])
    low, high = np.percentile(np.asarray(final(means)), [2.5, 97.5])
    return Estimate(value, float(low), float(high), data.size)


def distance_estimate(
    statistic: Callable[[Indices, Indices], float],
    groups_a: ArrayLike,
    groups_b: ArrayLike,
    *,
    blocks: int = 10,
    seed: int = 0,
) -> Estimate:
    """A distance of two sets of samples, interval from the delete-a-block jackknife of each set.

    A bootstrap would draw pictures twice, which makes covariances smaller and FID larger; leaving pictures
    out does not.

    Args:
        statistic: the distance of the samples with these indices.
        groups_a, groups_b: (N,) and (M,): samples that belong together (one face in several styles) share a
            number and are left out together.

    Returns:
        The distance of all samples; `count` is the number of samples in the smaller set.
    """
    labels = [np.asarray(groups_a).ravel(), np.asarray(groups_b).ravel()]
    everything = [np.arange(len(part)) for part in labels]
    value = statistic(everything[0], everything[1])
    rng, variance = np.random.default_rng(seed), 0.0
    freedom = []
    for side, part in enumerate(labels):
        names = rng.permutation(np.unique(part))
        count = min(blocks, len(names))
        if count < 2 or len(names) - math.ceil(len(names) / count) < 2:
            return Estimate(value, count=min(map(len, labels)))
        kept = list(everything)
        found = []
        for block in np.array_split(names, count):
            kept[side] = np.flatnonzero(~np.isin(part, block))
            found.append(statistic(kept[0], kept[1]))
        variance += (count - 1) / count * float(np.square(np.array(found) - np.mean(found)).sum())
        freedom.append(count - 1)
    margin = _student_t(min(freedom)) * math.sqrt(variance)
    return Estimate(value, value - margin, value + margin, min(map(len, labels)))


def _student_t(freedom: int) -> float:
    return _T[freedom - 1] if freedom <= len(_T) else 1.96 + 2.4 / freedom
