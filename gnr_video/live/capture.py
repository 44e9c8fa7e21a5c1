"""Capture reads a camera on a thread of its own into a slot that holds one picture.

Whoever is slow misses pictures and never sees old ones. A camera that vanishes is opened again, with growing pauses.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from engines.errors import InputError
from gnr_video.channels import Latest
from gnr_video.live.camera import SILENT_SECONDS, Camera, Shot
from gnr_video.live.status import Rate

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Seconds between two attempts to open a camera that was lost."""


class Capture:
    """Reads a camera on a thread of its own; the slot `latest` holds its newest picture.

    Args:
        camera: already open, so that a camera that is not there is found before anything slow is loaded.
        reopen: opens it again after it was lost.

    Attributes:
        latest: where the pictures are.
        frames: pictures read so far.
        rate: how many a second the camera gives.
        notice: why there is no picture just now, "" when all is well.
        reconnects: how often a lost camera came back.
        since: when this camera was chosen, on `time.perf_counter`'s clock: pictures captured before are another one's.
        failure: what ended the thread before its time, a bug.
    """

    def __init__(self, camera: Camera, reopen: Callable[[], Camera]) -> None:
        self.latest: Latest[Shot] = Latest()
        self.camera = camera
        self.frames = 0
        self.rate = Rate()
        self.reconnects = 0
        self.since = 0.0
        self.failure: BaseException | None = None
        self._reopen = reopen
        self._lost = ""
        self._next: tuple[Camera | None, Callable[[], Camera]] | None = None
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._last = time.perf_counter()
        self._thread = threading.Thread(target=self._work, name="gnr-video capture", daemon=True)

    @property
    def notice(self) -> str:
        if self._lost:
            return self._lost
        silent = time.perf_counter() - self._last
        return f"{self.camera.name} gives no picture" if silent > SILENT_SECONDS else ""

    def start(self) -> None:
        self._last = time.perf_counter()
        self._thread.start()

    def switch(self, reopen: Callable[[], Camera], camera: Camera | None = None) -> None:
        """Use another camera from now on; it is opened on the capture thread, unless it is given open."""
        with self._lock:
            self._next = (camera, reopen)
            self.since = time.perf_counter()
        self._wake.set()

    def may_repeat(self, shot: Shot) -> bool:
        """Whether a picture may be shown again while there is no new one: not one of the camera before."""
        return bool(self.notice) and shot.captured >= self.since

    def stop(self, timeout: float = 0.5) -> None:
        """End the thread and let go of the camera; waits at most `timeout` for a device that says nothing."""
        with self._lock:
            self._stop.set()
            self._wake.set()
        self.latest.close()
        if self._thread.ident is None:
            self.camera.close()
        else:
            self._thread.join(timeout)

    def _work(self) -> None:
        camera: Camera | None = self.camera
        pause, opened = FIRST_PAUSE, time.perf_counter()
        try:
            while not self._stop.is_set():
                camera = self._switched(camera)
                try:
                    if camera is None:
                        camera = self.camera = self._reopen()
                        opened = time.perf_counter()
                        self.reconnects += bool(self._lost)
                    shot = camera.read(self._wake)
                except InputError as error:
                    if camera is not None:
                        camera.close()
                        if time.perf_counter() - opened > LONGEST_PAUSE:
                            pause = FIRST_PAUSE  # it was there for good
                    camera = None
                    self._lost = f"{error.message}: trying again"
                    log.debug("%s in %.1f s", self._lost, pause)
                    self._wake.wait(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                    continue
                if shot is not None:
                    self._take(shot, camera)
        except BaseException as error:
            self.failure = error
            log.debug("capture failed", exc_info=True)
        finally:
            if camera is not None:
                camera.close()
            self.latest.close()

    def _take(self, shot: Shot, camera: Camera) -> None:
        with self._lock:
            if self._next is not None and (self._next[0] is not camera or shot.captured < self.since):
                return  # another camera has been chosen meanwhile, or another page's pictures of the same one
            self._lost, self._last = "", time.perf_counter()
            self.frames += 1
            self.rate.count()
            self.latest.put(shot)

    def _switched(self, camera: Camera | None) -> Camera | None:
        with self._lock:
            if self._next is None:
                return camera
            (given, self._reopen), self._next = self._next, None
            if not self._stop.is_set():
                self._wake.clear()
        if camera is not None:
            camera.close()
        self._lost = ""
        self._last = time.perf_counter()
        if given is not None:
            self.camera = given
        return given
