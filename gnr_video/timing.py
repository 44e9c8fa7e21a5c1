"""Stage times: how long each stage takes, in memory that does not grow with the number of frames."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

# A fixed logarithmic histogram: 1 us to 1000 s in steps of 2 %, so a percentile is within 1 % after any
# number of frames, in 8 KB a stage.
_LOWEST_SECONDS = 1e-6
_STEP = 1.02
_BINS = math.ceil(math.log(1e9) / math.log(_STEP)) + 1
_LOG_STEP = math.log(_STEP)


@dataclass(frozen=True)
class StageSummary:
    """How long one stage took per call, milliseconds.

    Percentiles come from a histogram with bins 2 % wide; count, mean, total and the extremes are exact.
    """

    count: int
    total_seconds: float
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


class _Histogram:
    """Counts of durations in logarithmic bins."""

    __slots__ = ("bins", "count", "highest", "lowest", "total")

    def __init__(self) -> None:
        self.bins = [0] * _BINS
        self.count = 0
        self.total = 0.0
        self.lowest = math.inf
        self.highest = 0.0

    def add(self, seconds: float) -> None:
        index = 0
        if seconds > _LOWEST_SECONDS:
            index = min(int(math.log(seconds / _LOWEST_SECONDS) / _LOG_STEP), _BINS - 1)
        self.bins[index] += 1
        self.count += 1
        self.total += seconds
        self.lowest = min(self.lowest, seconds)
        self.highest = max(self.highest, seconds)

    def percentile(self, percent: float) -> float:
        """The smallest duration (seconds) that at least `percent` of the calls did not exceed; 0 if empty."""
        rank = max(1, math.ceil(self.count * percent / 100.0))
        seen = 0
        for index, n in enumerate(self.bins):
            seen += n
            if n and seen >= rank:
                middle = _LOWEST_SECONDS * math.exp((index + 0.5) * _LOG_STEP)
                return min(max(middle, self.lowest), self.highest)
        return 0.0


class _Span:
    """Times one `with` block."""

    __slots__ = ("name", "start", "times")

    def __init__(self, times: StageTimes, name: str) -> None:
        self.times = times
        self.name = name
        self.start = 0.0

    def __enter__(self) -> _Span:
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.times.add(self.name, time.perf_counter() - self.start)


class StageTimes:
    """Durations of named stages, from any thread, in memory that does not grow with the number of frames.

    >>> times = StageTimes()
    >>> with times.stage("track"):
    ...     pass
    >>> times.summary()["track"].count
    1
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages: dict[str, _Histogram] = {}

    def stage(self, name: str) -> _Span:
        """A context manager that adds the time of its block to stage `name` (also when the block raises)."""
        return _Span(self, name)

    def add(self, name: str, seconds: float) -> None:
        """Add one duration that was measured elsewhere.

        Raises:
            ValueError: a duration that is negative or not finite.
        """
        if not 0.0 <= seconds < math.inf:
            raise ValueError(f"a duration must be finite and not negative, got {seconds}")
        with self._lock:
            histogram = self._stages.get(name)
            if histogram is None:
                histogram = self._stages[name] = _Histogram()
            histogram.add(seconds)

    def reset(self) -> None:
        """Forget everything measured so far (after a warm-up)."""
        with self._lock:
            self._stages.clear()

    def summary(self) -> dict[str, StageSummary]:
        """The stages in the order in which they were first measured."""
        with self._lock:
            return {
                name: StageSummary(
                    count=h.count,
                    total_seconds=h.total,
                    mean_ms=1e3 * h.total / h.count,
                    p50_ms=1e3 * h.percentile(50),
                    p95_ms=1e3 * h.percentile(95),
                    p99_ms=1e3 * h.percentile(99),
                    max_ms=1e3 * h.highest,
                )
                for name, h in self._stages.items()
            }


def stage_table(stages: Mapping[str, StageSummary]) -> str:
    """Stages as aligned text: calls, mean and percentiles in milliseconds; `*` marks the largest total."""
    header = ["stage", "calls", "mean ms", "p50", "p95", "p99", "max"]
    slowest = max(stages, key=lambda name: stages[name].total_seconds, default="")
    rows = [
        [
            f"{name} *" if name == slowest and len(stages) > 1 else name,
            str(s.count),
            *(f"{ms:.2f}" for ms in (s.mean_ms, s.p50_ms, s.p95_ms, s.p99_ms, s.max_ms)),
        ]
        for name, s in stages.items()
    ]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:]))])
        for row in [header, *rows]
    )
