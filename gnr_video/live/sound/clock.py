"""SampleClock: when each sample of a device was captured, on the session's clock (a step of the delay line).

A device counts samples by a quartz of its own, which is off by up to some hundred parts in a million, and its blocks
are stamped with times that tremble. The clock is a delay-locked loop (Adriaensen, "Using a DLL to filter time", 2005)
that is corrected once a second. Its map from samples to times is a line of straight pieces without a jump: what is
read along it is resampled, never cut.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

START_SECONDS = 0.25
"""Sound that is there before the first times are given: the first block alone may be late."""
GAP_SECONDS = 0.04
"""Blocks that are later by more, for `START_SECONDS` on end, come after a gap: samples were lost."""
KEPT = 64
"""Corrections that are remembered: about as many seconds can be read back."""
_WINDOW_SECONDS = 1.0
_QUANTILE = 0.2
"""Of the stamps of a window, the one that counts: blocks are often late, hardly ever early."""
_GAIN, _DRIFT_GAIN = 0.3, 0.03
_MAX_SLEW, _MAX_DRIFT = 0.01, 0.005
"""How much quicker or slower than nominal sound is played for a correction, and how wrong a device's rate may be."""
_MAX_ERROR = 0.02
"""Seconds: what is off by more says little about a device's rate."""


class SampleClock:
    """The times of a row of samples without a gap.

    Args:
        rate: nominal, samples a second.
        exact: whether times do not tremble, as those of a file: then the first block's is good enough.

    Attributes:
        ready: whether `time_at` and `index_at` can be asked.
        period: estimated seconds per sample.
    """

    def __init__(self, rate: float, *, exact: bool = False) -> None:
        self.rate = rate
        self._settle_seconds = 0.0 if exact else START_SECONDS
        self.period = 1 / rate
        self.ready = False
        self._slope = self.period
        # Ends of the straight pieces: samples and times; on the last one's far side `_slope` goes on.
        self._indices: deque[float] = deque(maxlen=KEPT)
        self._times: deque[float] = deque(maxlen=KEPT)
        self._window: list[float] = []
        self._begun = math.inf
        self._late: list[tuple[float, float]] = []
        self._late_index = 0

    def after_gap(self, index: int, seconds: float) -> SampleClock:
        """A clock for what comes from sample `index` on, `seconds` later than this one has it."""
        other = SampleClock(self.rate)
        other.period = other._slope = self.period
        other._indices.append(index)
        other._times.append(self.time_at(index) + seconds)
        other.ready = True
        return other

    def add(self, index: int, count: int, captured: float) -> tuple[int, float] | None:
        """Take note of a block.

        Args:
            index, count: its first sample's number, and how many there are.
            captured: when the first one was captured, seconds.

        Returns:
            (index, seconds) of a gap: from that sample on all is later by so much, see `after_gap`. Else None.
        """
        if not self.ready:
            self._settle(index, count, captured)
            return None
        error = captured - self.time_at(index)
        if gap := self._gap(index, captured, error):
            return gap
        self._window.append(error)
        if index + count - self._indices[-1] >= _WINDOW_SECONDS * self.rate:
            self._correct(index + count)
        return None

    def _settle(self, index: int, count: int, captured: float) -> None:
        """Begin with the earliest of the first times: what had piled up before comes at once, and is late."""
        self._window.append(captured - index / self.rate)
        self._begun = min(self._begun, captured)
        enough = self._settle_seconds
        if (index + count) / self.rate >= enough and captured - self._begun >= enough / 2:
            self._indices.append(0.0)
            self._times.append(min(self._window))
            self._window, self.ready = [], True

    def _gap(self, index: int, captured: float, error: float) -> tuple[int, float] | None:
        """Blocks that were only held up come all at once; after lost samples they are late for good."""
        if error <= GAP_SECONDS:
            self._late.clear()
            return None
        if not self._late or error < self._late[0][1] - GAP_SECONDS / 2:  # they catch up: not after a gap yet
            self._late, self._late_index = [], index
        self._late.append((captured, error))
        if captured - self._late[0][0] < START_SECONDS:
            return None
        return self._late_index, min(error for _, error in self._late)

    def _correct(self, index: float) -> None:
        """Begin the next straight piece: towards the times of the last one's blocks, and at the rate they show."""
        time, count = self.time_at(index), _WINDOW_SECONDS * self.rate
        error = 0.0 if self._late else _low(self._window)
        drift = _DRIFT_GAIN * min(max(error, -_MAX_ERROR), _MAX_ERROR) / count
        self.period = _within(self.period + drift, 1 / self.rate, _MAX_DRIFT)
        self._slope = _within(self.period + _GAIN * error / count, self.period, _MAX_SLEW)
        self._indices.append(index)
        self._times.append(time)
        self._window = []

    def time_at(self, index: float) -> float:
        """When a sample was captured; the newest samples' times are final, later ones' a forecast."""
        if index >= self._indices[-1]:
            return self._times[-1] + (index - self._indices[-1]) * self._slope
        return float(np.interp(index, self._indices, self._times))

    @property
    def doubtful(self) -> int | None:
        """The sample from which all may come after a gap, which is not known yet; None: there is none."""
        return self._late_index if self._late else None

    def index_at(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """The samples, with fractions, of these times; NaN before the first that is remembered."""
        last_index, last_time = self._indices[-1], self._times[-1]
        known = np.interp(times, self._times, self._indices, left=math.nan)
        return np.where(times >= last_time, last_index + (times - last_time) / self._slope, known)


def _low(stamps: list[float]) -> float:
    return sorted(stamps)[int(_QUANTILE * len(stamps))]


def _within(value: float, middle: float, part: float) -> float:
    return min(max(value, middle * (1 - part)), middle * (1 + part))
