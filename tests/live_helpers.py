"""Live sessions for tests: a short clip or a pattern as camera, and a small network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gnr_video.frame import Frame, Image
from gnr_video.live.camera import Camera, Shot
from gnr_video.live.cameras import open_camera
from gnr_video.live.capture import Capture
from gnr_video.live.controls import Controls
from gnr_video.live.session import LiveSession
from gnr_video.live.sinks import LiveSink
from gnr_video.options import EngineOptions
from gnr_video.translator import Translator


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until something is true, and return it; fails after `seconds`, which a busy machine may need."""
    end = time.perf_counter() + seconds
    while not (value := condition()):
        assert time.perf_counter() < end, "it did not happen"
        time.sleep(0.01)
    return value


class Kept(LiveSink):
    """A sink that keeps the last picture and counts them."""

    def __init__(self, name: str = "kept") -> None:
        super().__init__(name)
        self.count = 0
        self.last: Frame | None = None
        self.times: list[float] = []
        self.closed = False

    def show(self, frame: Frame) -> None:
        self.last = frame
        self.count += 1
        self.times.append(frame.props["captured"])
        self.delivered(frame)

    def close(self, timeout: float = 0.5) -> None:
        self.closed = True


class Still(Camera):
    """A camera that gives one picture again and again, and can be unplugged."""

    def __init__(self, image: Image, fps: float = 50) -> None:
        super().__init__()
        self.image, self.fps, self.name = image, fps, "still"
        self.size = (image.shape[1], image.shape[0])
        self.unplugged = threading.Event()
        self.closed = 0

    def read(self, stop: threading.Event) -> Shot | None:
        from gnr_video.live.camera import CameraLost

        if self.unplugged.is_set():
            raise CameraLost("still has vanished")
        return None if stop.wait(1 / (self.fps or 1)) else Shot(self.image, time.perf_counter())

    def close(self) -> None:
        self.closed += 1


@contextmanager
def live_session(
    weights: Path, camera: Camera | str | Path, *, style: int | str = 1, reopen: Any = None, folder: Path
) -> Iterator[LiveSession]:
    """A running session; it is stopped at the end."""
    opened = camera if isinstance(camera, Camera) else open_camera(str(camera))
    with Translator(weights, engine=EngineOptions("torch", precision="fp32")) as translator:
        capture = Capture(opened, reopen or (lambda: open_camera(str(camera))))
        controls = Controls(translator.engine, style, folder=folder)
        with LiveSession(translator, capture, controls) as session:
            yield session
