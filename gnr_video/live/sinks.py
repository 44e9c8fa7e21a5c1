"""LiveSink, the contract of whatever shows a live session's pictures; ThreadedSink, one on a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from engines.errors import GnrVideoError
from gnr_video.channels import Latest
from gnr_video.frame import Frame

log = logging.getLogger(__name__)


class LiveSink(ABC):
    """Where pictures go. `show` is called on the session's thread and must return at once.

    Attributes:
        name: for people and for the table of times.
        notices: what the user should know.
        failure: why it shows nothing any more, None while all is well.
        latency: set by the session; takes the seconds from a picture's capture until the sink had it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.notices: list[str] = []
        self.failure: GnrVideoError | None = None
        self.latency: Callable[[float], None] = lambda seconds: None

    @abstractmethod
    def show(self, frame: Frame) -> None:
        """Take a picture; `frame.props["captured"]` is when it was taken, on `time.perf_counter`'s clock."""

    def close(self, timeout: float = 0.5) -> None:  # noqa: B027
        """Let go of device or file, after what was shown is delivered. May be called twice."""

    def delivered(self, frame: Frame) -> None:
        """The picture has reached the sink's device."""
        self.latency(time.perf_counter() - frame.props["captured"])


class ThreadedSink(LiveSink):
    """A sink that delivers on a thread of its own and passes over pictures when it is slow.

    A subclass brings `deliver` and `release`, both called on that thread.
    """

    def __init__(self, name: str, *, depth: int = 1) -> None:
        super().__init__(name)
        self.slot: Latest[Frame] = Latest(depth)
        self._thread = threading.Thread(target=self._work, name=f"gnr-video {name}", daemon=True)
        self._starting = threading.Lock()

    @abstractmethod
    def deliver(self, frame: Frame) -> None:
        """Hand one picture over."""

    def release(self) -> None:
        """Let go of device or file."""

    def show(self, frame: Frame) -> None:
        self._start()
        self.slot.put(frame)

    def close(self, timeout: float = 0.5) -> None:
        self.slot.close()
        self._start()  # it may be only to release
        self._thread.join(timeout)

    def _start(self) -> None:
        with self._starting:  # the last picture may be shown while another thread closes
            if self._thread.ident is None:
                self._thread.start()

    def _work(self) -> None:
        try:
            while True:
                frame = self.slot.get()
                if frame is None:
                    break
                self.deliver(frame)
                self.delivered(frame)
        except GnrVideoError as error:
            self.failure = error
        except Exception as error:  # one sink must not take the others with it
            log.debug("%s failed", self.name, exc_info=True)
            self.failure = GnrVideoError(f"{self.name} has failed: {error}")
        finally:
            self.slot.close()
            try:
                self.release()
            except GnrVideoError as error:
                self.failure = self.failure or error
