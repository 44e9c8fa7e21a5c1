"""DelayLine, the heart of a live session's sound: blocks with capture times in, samples at any later times out.

Readers choose the times. A recording asks for those of its pictures, a virtual microphone for now less the picture's
delay: both get the sound that belongs to the picture, whatever the device's real rate.
"""

from __future__ import annotations

import math
import threading
from collections import deque

import numpy as np
from numpy.typing import NDArray

from gnr_video.live.sound.clock import KEPT, SampleClock
from gnr_video.live.sound.resample import Samples, interpolate, reach

RATE = 48_000
CHANNELS = 2
"""Of what is read."""
PATIENCE = 1.0
"""Seconds that sound may be late before there is silence in its place for good."""
_KEPT_SECONDS = KEPT / 2


class _Segment:
    """Samples without a gap, and their clock.

    Attributes:
        first, end: numbers of the first sample that is kept, and of the one after the last.
        start: when its first block says that it was captured.
        limit: nothing is heard from this time on.
        open: whether more may come.
    """

    def __init__(self, clock: SampleClock, channels: int, first: int, start: float) -> None:
        self.clock = clock
        self.channels = channels
        self.first = self.end = first
        self.start = start
        self.limit = math.inf
        self.open = True
        self.blocks: deque[Samples] = deque()
        self.reach = reach(RATE / clock.rate)

    def append(self, samples: Samples) -> None:
        self.blocks.append(samples)
        self.end += len(samples)

    def forget(self, before: float) -> None:
        """Let go of what was captured before a time."""
        while len(self.blocks) > 1 and self.clock.ready:
            if self.clock.time_at(self.first + len(self.blocks[0])) >= before:
                return
            self.first += len(self.blocks.popleft())

    def part(self, begin: int, end: int) -> tuple[Samples, int]:
        """The samples from `begin` to `end`, as far as there are any, and the number of the first of them."""
        found: list[Samples] = []
        at, first = self.end, self.end
        for block in reversed(self.blocks):  # what is asked for is mostly new
            at -= len(block)
            if at < end and at + len(block) > begin:
                found.insert(0, block)
                first = at
            if at <= begin:
                break
        if not found:
            return np.zeros((0, self.channels), np.float32), begin
        return np.concatenate(found), first

    @property
    def whole(self) -> int:
        """The sample up to which interpolated ones will not change any more."""
        return self.end - self.reach if self.open else self.end - 1

    @property
    def until(self) -> float:
        """When its last sample was captured."""
        return self.clock.time_at(self.end) if self.clock.ready else self.start

    def split(self, index: int, seconds: float) -> _Segment:
        """Give up the samples from `index` on to a new segment that is later by `seconds`."""
        clock = self.clock.after_gap(index, seconds)
        later = _Segment(clock, self.channels, index, clock.time_at(index))
        tail, first = self.part(index, self.end)
        later.append(tail[index - first :])
        kept, first = self.part(self.first, index)
        self.blocks = deque([kept[: index - first]])
        self.end, self.open = index, False
        return later


class DelayLine:
    """Half a minute of sound. Safe from any thread; nothing here waits for sound."""

    def __init__(self) -> None:
        self._segments: list[_Segment] = []
        self._lock = threading.Lock()
        self._read_until = -math.inf
        self._pushed = -math.inf
        self._awaited: float | None = None

    def push(
        self, samples: Samples, rate: float, captured: float, now: float, *, exact: bool = False
    ) -> None:
        """Append a block to what came before it.

        Args:
            samples: float32 [n, 1 or 2], -1..1.
            rate: nominal, samples a second; the real one is found out.
            captured: when the first sample was captured, or is due (then it may lie ahead), on the session's clock.
            now: on the same clock.
            exact: whether `captured` does not tremble.
        """
        if not len(samples):
            return
        with self._lock:
            self._pushed = max(now, captured)
            segment = self._segments[-1] if self._segments else None
            if segment is None or not segment.open or not self._fits(segment, samples, rate):
                self._end(math.inf)
                segment = _Segment(SampleClock(rate, exact=exact), samples.shape[1], 0, captured)
                self._segments.append(segment)
            first = segment.end
            segment.append(samples)
            gap = segment.clock.add(first, len(samples), captured)
            if gap is not None:
                index, seconds = gap
                # Not below what has been heard already: that would be heard twice.
                heard = segment.clock.index_at(np.array([self._read_until]))[0]
                index = max(index, segment.first, 0 if math.isnan(heard) else math.ceil(heard))
                self._segments.append(segment.split(min(index, segment.end), seconds))
            self._forget(captured - _KEPT_SECONDS)

    def end(self) -> None:
        """What comes next does not follow: its times begin anew."""
        with self._lock:
            self._end(math.inf)

    def begin(self, at: float, now: float) -> None:
        """Sound is on its way that begins at a time: what came before is heard until then."""
        with self._lock:
            self._end(at)
            self._awaited, self._pushed = at, max(self._pushed, now)

    def known_until(self, now: float) -> float:
        """The time up to which what is read is final: sound, or silence as none came in time."""
        with self._lock:
            segment = self._segments[-1] if self._segments else None
            if now - self._pushed > PATIENCE:
                return now
            if segment is None or not segment.open:
                return now if self._awaited is None else self._awaited
            if not segment.clock.ready:
                return segment.start
            doubtful = segment.clock.doubtful
            return segment.clock.time_at(segment.whole if doubtful is None else min(segment.whole, doubtful))

    def read(self, times: NDArray[np.float64], ahead: int = 0) -> tuple[Samples, NDArray[np.bool_]]:
        """What was captured at these times.

        Args:
            times: ascending, on the session's clock.
            ahead: the last so many are only asked whether there is sound.

        Returns:
            float32 [n - ahead, CHANNELS], and whether there was sound: bool [n].
        """
        wanted = len(times) - ahead
        samples = np.zeros((wanted, CHANNELS), np.float32)
        heard = np.zeros(len(times), bool)
        with self._lock:
            for segment in self._segments:
                if not segment.clock.ready or min(segment.limit, segment.until) < times[0]:
                    continue
                positions = segment.clock.index_at(times)
                inside = (positions >= segment.first) & (positions <= segment.whole) & (times < segment.limit)
                heard |= inside
                here = np.flatnonzero(inside[:wanted])
                if len(here):
                    samples[here] = self._interpolate(segment, positions[here])
            if wanted:
                self._read_until = max(self._read_until, float(times[wanted - 1]))
        return samples, heard

    @staticmethod
    def _interpolate(segment: _Segment, positions: NDArray[np.float64]) -> Samples:
        begin, end = int(positions[0]) - segment.reach, int(positions[-1]) + segment.reach + 1
        part, first = segment.part(begin, end)
        return interpolate(part, positions - first, RATE / segment.clock.rate)

    @staticmethod
    def _fits(segment: _Segment, samples: Samples, rate: float) -> bool:
        return segment.clock.rate == rate and segment.channels == samples.shape[1]

    def _end(self, limit: float) -> None:
        self._awaited = None
        for segment in self._segments:
            segment.open = False
            segment.limit = min(segment.limit, limit)

    def _forget(self, before: float) -> None:
        for segment in self._segments:
            segment.forget(before)
        self._segments = [s for s in self._segments if s.open or s.until >= before]
