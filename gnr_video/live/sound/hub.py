"""Sound: all that a live session hears; feeds bring it, of which the newest is heard, and a delay line keeps it."""

from __future__ import annotations

import threading
import time

from gnr_video.live.sound.line import DelayLine
from gnr_video.live.sound.resample import Samples


class Feed:
    """One way in, from `Sound.open`. What it brings while another one is heard is let go of.

    Args:
        sound: the session's.
        name: for people.
    """

    def __init__(self, sound: Sound, name: str) -> None:
        self._sound = sound
        self.name = name

    def push(self, samples: Samples, rate: float, captured: float, *, exact: bool = False) -> None:
        """Bring a block; see `DelayLine.push`."""
        if self._sound.current is self:
            self._sound.line.push(samples, rate, captured, time.perf_counter(), exact=exact)

    def end(self) -> None:
        """What comes next does not follow what came before."""
        if self._sound.current is self:
            self._sound.line.end()

    def begin(self, at: float) -> None:
        """Sound that begins at this time is on its way."""
        if self._sound.current is self:
            self._sound.line.begin(at, time.perf_counter())

    def close(self) -> None:
        """Bring nothing more; the feed that was heard before is heard again. May be called twice."""
        self._sound.drop(self)


class Sound:
    """What is heard.

    Attributes:
        line: holds it; for readers.
    """

    def __init__(self) -> None:
        self.line = DelayLine()
        self._feeds: list[Feed] = []
        self._lock = threading.Lock()

    @property
    def current(self) -> Feed | None:
        """The feed that is heard, None where there is none."""
        feeds = self._feeds
        return feeds[-1] if feeds else None

    def open(self, name: str) -> Feed:
        """A new feed, which is heard from now on."""
        feed = Feed(self, name)
        with self._lock:
            self._feeds = [*self._feeds, feed]
            self.line.end()
        return feed

    def drop(self, feed: Feed) -> None:
        """As `Feed.close`."""
        with self._lock:
            if feed not in self._feeds:
                return
            was_heard = self.current is feed
            self._feeds = [other for other in self._feeds if other is not feed]
            if was_heard:
                self.line.end()
