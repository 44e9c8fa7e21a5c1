"""How a live session is doing: its rate, its delay, and what limits them, in numbers and in a sentence."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gnr_video.timing import StageTimes

WINDOW = 240
"""Pictures that the current rate and latency are taken over."""
RATE_SECONDS = 2.0
"""How far back a rate looks."""
FACELESS_SECONDS = 1.5
"""How long there must be no face before that is said: trackers lose one for a moment."""
WORK = {
    "track": "following the face",
    "matte": "cutting out the head",
    "network": "drawing",
    "compose": "putting the picture together",
}
"""Stage -> what it does, for people."""


class LiveTimes(StageTimes):
    """Stage times that also know how long each stage took of late."""

    def __init__(self) -> None:
        super().__init__()
        self.recent: dict[str, float] = {}

    def add(self, name: str, seconds: float) -> None:
        super().add(name, seconds)
        before = self.recent.get(name, seconds)
        self.recent[name] = before + 0.1 * (seconds - before)


class Rate:
    """How many a second there were of late; safe from any thread."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=WINDOW)

    def count(self) -> None:
        self._times.append(time.perf_counter())

    def __call__(self) -> float:
        now = time.perf_counter()
        recent = [t for t in list(self._times) if now - t < RATE_SECONDS]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 else 0.0


@dataclass(frozen=True)
class Status:
    """How a session is doing just now.

    Attributes:
        fps: pictures a second.
        drawn: drawings of faces a second; fewer, where the network is slower than the camera.
        p50_ms, p95_ms: from capture to sink (to the slowest one), milliseconds.
        dropped: pictures of the camera that were passed over for newer ones.
        limit: what sets the rate: "the camera", or the slowest work and its time.
        notice: why there is no new picture, "" when all is well.
        camera: what the camera is and gives.
        given: pictures a second that the camera gives.
        face: whether there is a face, or was one a moment ago.
        covered: frames that were covered so far, and why: "31 lost, 4 beginning".
    """

    fps: float
    drawn: float
    p50_ms: float
    p95_ms: float
    dropped: int
    limit: str
    notice: str
    camera: str
    given: float = 0.0
    face: bool = True
    covered: str = ""

    def line(self) -> str:
        """ "24.9 fps, 31 / 44 ms p50 / p95, limited by the camera, 0 dropped, covered: 31 lost"."""
        covered = f", covered: {self.covered}" if self.covered else ""
        drawn = f" ({self.drawn:.1f} drawn)" if self.drawn < self.fps else ""
        return (
            f"{self.fps:.1f} fps{drawn}, {self.p50_ms:.0f} / {self.p95_ms:.0f} ms p50 / p95, "
            f"limited by {self.limit}, {self.dropped} dropped{covered}"
        )

    def sentence(self) -> str:
        """ "15 of the camera's 30 pictures a second, 120 ms late: this machine is busy with drawing (62 ms)."."""
        if not self.fps:
            return ""
        late = f"{self.p50_ms:.0f} ms late"
        if self.limit == CAMERA:
            return f"{self.fps:.0f} pictures a second, as the camera gives them, {late}."
        return (
            f"{self.fps:.0f} of the camera's {self.given:.0f} pictures a second, {late}: "
            f"this machine is busy with {self.limit}."
        )


CAMERA = "the camera"


def limit_of(fps: float, given: float, recent: dict[str, float]) -> str:
    """What sets the rate.

    Args:
        fps, given: pictures a second that are shown, and that the camera really gives.
        recent: seconds that stages took of late.
    """
    if fps >= 0.9 * given:
        return CAMERA
    slowest = max(WORK, key=lambda name: recent.get(name, 0.0))
    return f"{WORK[slowest]} ({1e3 * recent.get(slowest, 0.0):.0f} ms)"


def percentiles_ms(latencies: Sequence[float]) -> tuple[float, float]:
    """p50 and p95 of seconds, in milliseconds; 0 where there are none."""
    if not latencies:
        return 0.0, 0.0
    p50, p95 = np.percentile(latencies, [50, 95]) * 1e3
    return float(p50), float(p95)
