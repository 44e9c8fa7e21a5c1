"""A Kalman filter of positions and velocities, and the Rauch-Tung-Striebel smoother that goes back over it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

PROCESS_NOISE = 1e4
MEASUREMENT_NOISE = 1.0
MIN_DT = 1e-3


@dataclass
class Step:
    """A frame of the Kalman filter: state (position; velocity) x N and its 2x2 covariance, common to all."""

    predicted: Vector
    predicted_cov: Vector
    filtered: Vector
    filtered_cov: Vector
    gain: Vector
    """The smoother's gain from the step before to this one (unused in a first step)."""
    innovation: float = 0.0
    """Distance of the measurement from its prediction, held and decaying."""


@dataclass(frozen=True)
class Motion:
    """How the head is taken to move: an acceleration of white noise, weak while still, strong in motion.

    Motion shows in the innovation e, the distance of a measurement from its prediction, with a peak hold
    that decays: q = still^(1-m) moving^m with m = e^2 / (e^2 + knee^2).

    Attributes:
        still, moving: spectral density q of the acceleration, px^2/s^3.
        knee: innovation half-way between the two, px.
        decay_seconds: time in which the hold falls to 1/e.
        velocity_seconds: time in which a velocity dies away by itself.
    """

    still: float
    moving: float
    knee: float
    decay_seconds: float
    velocity_seconds: float = math.inf

    def density(self, innovation: float) -> float:
        """Process noise for this innovation, px."""
        m = innovation**2 / (innovation**2 + self.knee**2)
        return self.still ** (1 - m) * self.moving**m


def kalman_start(value: Vector, r: float = MEASUREMENT_NOISE) -> Step:
    """First step: the position is what was measured, the velocity unknown (1000 px/s about 0)."""
    state = np.stack([value, np.zeros_like(value)])
    cov = np.diag([r, 1e6])
    return Step(state, cov, state, cov, np.zeros((2, 2)))


def kalman_step(
    last: Step,
    dt: float,
    value: Vector | None,
    motion: float | Motion = PROCESS_NOISE,
    r: float = MEASUREMENT_NOISE,
) -> Step:
    """Predict over `dt` seconds, correct with `value` (float64 N) where there is one.

    White-noise acceleration of spectral density q: Q = q [[dt^3/3, dt^2/2], [dt^2/2, dt]]
    (Bar-Shalom, Li and Kirubarajan 2001, equation 6.2.2-12); q constant, or as `motion` has it.
    """
    dt = max(dt, MIN_DT)
    if isinstance(motion, float | int):
        motion = Motion(motion, motion, 1.0, 1.0)
    reach, kept = dt, 1.0
    if math.isfinite(motion.velocity_seconds):
        kept = math.exp(-dt / motion.velocity_seconds)
        reach = motion.velocity_seconds * (1 - kept)
    f = np.array([[1.0, reach], [0.0, kept]])
    predicted = f @ last.filtered
    innovation = last.innovation * math.exp(-dt / motion.decay_seconds)
    if value is not None:
        innovation = max(innovation, float(np.linalg.norm(value - predicted[0])))
    q = motion.density(innovation)
    noise = q * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
    predicted_cov = f @ last.filtered_cov @ f.T + noise
    gain = np.linalg.solve(predicted_cov, f @ last.filtered_cov).T
    if value is None:
        return Step(predicted, predicted_cov, predicted, predicted_cov, gain, innovation)
    k = predicted_cov[:, :1] / (predicted_cov[0, 0] + r)
    filtered = predicted + k * (value - predicted[0])
    filtered_cov = predicted_cov - k @ predicted_cov[:1]
    return Step(predicted, predicted_cov, filtered, filtered_cov, gain, innovation)


def backward(steps: Sequence[Step]) -> Iterator[Vector]:
    """Smoothed states (2xN), last step first (Rauch, Tung and Striebel 1965)."""
    smoothed = steps[-1].filtered
    yield smoothed
    for step, following in zip(reversed(steps[:-1]), reversed(steps[1:])):
        smoothed = step.filtered + following.gain @ (smoothed - following.predicted)
        yield smoothed


def rts_smooth(
    times: Sequence[float],
    values: NDArray[np.float64],
    q: float = PROCESS_NOISE,
    r: float = MEASUREMENT_NOISE,
) -> NDArray[np.float64]:
    """Smooth a whole series: Kalman filter with constant velocity, then Rauch-Tung-Striebel backwards.

    Args:
        times: T seconds, increasing, any spacing.
        values: float64 TxN; a row with a NaN is a gap and is interpolated. The first row must be there.
        q: spectral density of the acceleration, units^2/s^3.
        r: variance of a measurement, units^2.

    Returns:
        float64 2xTxN: positions and velocities (units/s).
    """
    values = np.asarray(values, np.float64)
    if len(values) != len(times) or not len(values) or np.isnan(values[0]).any():
        raise ValueError(f"needs as many times as values and a first value, got {len(times)}, {values.shape}")
    steps = [kalman_start(values[0], r)]
    for before, now, value in zip(times, times[1:], values[1:]):
        steps.append(kalman_step(steps[-1], now - before, None if np.isnan(value).any() else value, q, r))
    return np.stack(list(backward(steps))[::-1], axis=1)
