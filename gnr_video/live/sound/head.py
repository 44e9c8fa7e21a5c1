"""Head: reads a delay line in one go, with soft edges where sound begins and ends (a step before every sink)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gnr_video.live.sound.line import RATE, DelayLine
from gnr_video.live.sound.resample import Samples

FADE = RATE // 200
"""Samples over which sound comes up after a gap and goes down before one: 5 ms, so that nothing clicks."""
FADE_SECONDS = FADE / RATE


class Head:
    """One reader of a line.

    Args:
        line: read from.
    """

    def __init__(self, line: DelayLine) -> None:
        self._line = line
        self._gain = 0.0

    def take(self, start: float, count: int, step: float = 1 / RATE) -> Samples:
        """The samples from `start` on, `step` seconds apart; they follow those of the last call.

        Returns:
            float32 [count, CHANNELS]; silence where there is no sound.
        """
        times = start + step * np.arange(count + FADE, dtype=np.float64)
        samples, heard = self._line.read(times, ahead=FADE)
        gains = fades(heard, self._gain)
        self._gain = float(gains[-1]) if len(gains) else self._gain
        return samples * gains[:, None]


def fades(heard: NDArray[np.bool_], before: float) -> NDArray[np.float32]:
    """The gain of each sample but the last `FADE`: up from `before`, and down to nothing before the next gap.

    Args:
        heard: whether there is sound: bool [n + FADE].
        before: the gain of the sample before the first.

    Returns:
        float32 [n], 0..1.
    """
    numbers = np.arange(len(heard))
    silent = np.where(heard, -1, numbers)
    since = numbers - np.maximum.accumulate(silent)
    rising = np.where(np.maximum.accumulate(silent) < 0, before * FADE + numbers + 1, since) / FADE
    following = np.minimum.accumulate(np.where(heard, len(heard), numbers)[::-1])[::-1]
    falling = (following - numbers) / FADE
    gains = np.clip(np.minimum(rising, falling), 0, 1) * heard
    return np.asarray(gains[: max(len(heard) - FADE, 0)], np.float32)
