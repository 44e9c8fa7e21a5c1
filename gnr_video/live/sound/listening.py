"""Listening reads a microphone on a thread of its own into a feed, and opens it again when it has vanished."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from engines.errors import GnrVideoError
from gnr_video.live.capture import FIRST_PAUSE, LONGEST_PAUSE
from gnr_video.live.sound.hub import Feed
from gnr_video.live.sound.microphones import Microphone

log = logging.getLogger(__name__)

_QUICKEST = 1.004
"""How much quicker than nominal a device may be: ALSA's pseudo devices give as much as is asked for."""
_BURST_SECONDS = 0.2


class Listening:
    """Reads until `stop`.

    Args:
        microphone: already open, so that one that is not there is found before anything slow is loaded.
        reopen: opens it again after it was lost.
        feed: gets the sound; closed at the end.
        say: told what the user should know: once that it has vanished, once that it is back.
    """

    def __init__(
        self,
        microphone: Microphone,
        reopen: Callable[[], Microphone],
        feed: Feed,
        say: Callable[[str], None],
    ) -> None:
        self._microphone: Microphone | None = microphone
        self._reopen = reopen
        self._feed = feed
        self._say = say
        self._lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="gnr-video microphone", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 0.5) -> None:
        """End the thread and let go of the device. May be called twice."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        elif self._microphone is not None:
            self._microphone.close()
            self._microphone = None
        self._feed.close()

    def _work(self) -> None:
        pause, opened = FIRST_PAUSE, time.perf_counter()
        try:
            while not self._stop.is_set():
                try:
                    if self._microphone is None:
                        self._microphone = self._reopen()
                        opened = time.perf_counter()
                    self._read(self._microphone)
                    return
                except GnrVideoError as error:
                    if self._microphone is not None:
                        self._microphone.close()
                        if time.perf_counter() - opened > LONGEST_PAUSE:
                            pause = FIRST_PAUSE  # it was there for good
                    self._microphone = None
                    self._feed.end()
                    if not self._lost:
                        self._say(f"{error.message}: silence until it is back")
                    self._lost = True
                    log.debug("%s: again in %.1f s", error, pause)
                    self._stop.wait(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
        except Exception as error:  # pictures go on
            log.debug("listening failed", exc_info=True)
            self._say(f"the microphone has failed: {error}")
        finally:
            if self._microphone is not None:
                self._microphone.close()

    def _read(self, microphone: Microphone) -> None:
        """Read until told to stop; raises when the device is gone."""
        ahead, last = 0.0, time.perf_counter()
        while not self._stop.is_set():
            block = microphone.read(self._stop)
            if block is None:
                continue
            if self._lost:
                self._say(f"{microphone.name} is back")
                self._lost = False
            self._feed.push(block.samples, microphone.rate, block.captured)
            now = time.perf_counter()
            ahead = max(0.0, ahead + len(block.samples) / microphone.rate - (now - last) * _QUICKEST)
            last = now
            if ahead > _BURST_SECONDS:
                self._stop.wait(ahead - _BURST_SECONDS)
