"""SoundTrack, a sink: the sound of a recording, of the same times as its pictures."""

from __future__ import annotations

from collections.abc import Callable

from gnr_video.live.sound.head import FADE_SECONDS, Head
from gnr_video.live.sound.line import RATE, DelayLine
from gnr_video.live.sound.resample import Samples

BLOCK = RATE // 50


class SoundTrack:
    """Reads the line as the pictures go on; never waits for it.

    Args:
        line: where the sound is.
        write: takes the samples, float32 [n, CHANNELS] at RATE, the first one captured at `start`.
        start: when the first picture was captured.
    """

    def __init__(self, line: DelayLine, write: Callable[[Samples], None], start: float) -> None:
        self._line = line
        self._head = Head(line)
        self._write = write
        self._start = start
        self._done = 0

    def advance(self, until: float, now: float) -> None:
        """Write what is final, up to a picture that was captured at `until`."""
        until = min(until, self._line.known_until(now) - FADE_SECONDS)
        while self._start + (self._done + BLOCK) / RATE <= until:
            self._take(BLOCK)

    def finish(self, until: float) -> None:
        """Write the rest, up to the last picture's end, as far as it is there."""
        while (left := round((until - self._start) * RATE) - self._done) > 0:
            self._take(min(BLOCK, left))

    def _take(self, count: int) -> None:
        self._write(self._head.take(self._start + self._done / RATE, count))
        self._done += count
