"""Camera, the first stage when live: a device, URL, file or test pattern, of which only the latest picture counts."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from engines.errors import InputError
from gnr_video.channels import Latest
from gnr_video.frame import Image
from gnr_video.live.sound.hub import Feed

log = logging.getLogger(__name__)

TEST_PATTERN = "test"
SAMPLE = "sample"
BROWSER = "browser"

SILENT_SECONDS = 2.0
"""How long a camera may give no picture before that is worth a notice."""


@dataclass(frozen=True, eq=False)
class Shot:
    """A picture and when it was taken.

    Attributes:
        image: uint8 HxWx3 RGB, upright.
        captured: seconds on the clock of `time.perf_counter`.
    """

    image: Image
    captured: float


class CameraLost(InputError):
    """A camera that was there gives no more pictures."""


class Camera(ABC):
    """Something that gives pictures in real time.

    Attributes:
        name: for people.
        size: (width, height) of its pictures, pixels; (0, 0) where that is not known yet.
        fps: nominal frames per second; None where unknown.
        notices: what the user should know, such as another size than was asked for.
    """

    name: str = ""
    size: tuple[int, int] = (0, 0)
    fps: float | None = None

    def __init__(self) -> None:
        self.notices: list[str] = []

    @abstractmethod
    def read(self, stop: threading.Event) -> Shot | None:
        """Wait for the next picture. None when `stop` was set or for some tenths of a second nothing came.

        Raises:
            CameraLost: it is gone.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the device. May be called twice."""

    def listen(self, feed: Feed) -> bool:
        """Bring the sound that it has of its own from now on; False: it has none. Call it before the first `read`."""
        return False

    def _check_size(self, wanted: tuple[int, int] | None) -> None:
        if wanted is not None and wanted != self.size:
            self.notices.append(
                f"{self.name} has no {wanted[0]}x{wanted[1]}: running at {self.size[0]}x{self.size[1]}"
            )

    def describe(self) -> str:
        """ "camera 0: 1280x720, 30 fps"."""
        rate = f", {self.fps:.4g} fps" if self.fps else ""
        return f"{self.name}: {self.size[0]}x{self.size[1]}{rate}"


class PatternCamera(Camera):
    """Moving colours with a running number: for trying out sinks where there is no camera."""

    def __init__(self, size: tuple[int, int], fps: float) -> None:
        super().__init__()
        self.name, self.size, self.fps = "test pattern", size, fps
        width, height = size
        y, x = np.mgrid[0:height, 0:width]
        ground = np.stack([255 * x / width, 255 * y / height, 160 - 100 * x / width], -1)
        self._ground = ground.astype(np.uint8)
        self._index = 0
        self._start = time.perf_counter()

    def read(self, stop: threading.Event) -> Shot | None:
        import cv2

        due, now = self._start + self._index / (self.fps or 30), time.perf_counter()
        if now - due > 1.0:  # nobody has asked for a while
            self._start += now - due
        if stop.wait(max(0.0, due - now)):
            return None
        image = self._ground.copy()
        width, height = self.size
        left = 4 * self._index % width
        image[:, left : left + max(2, width // 40)] = 255
        place, scale = (width // 20, height // 2), width / 320
        cv2.putText(image, str(self._index), place, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 2)
        self._index += 1
        return Shot(image, time.perf_counter())

    def close(self) -> None:
        pass


class PushCamera(Camera):
    """A camera whose pictures are brought by somebody else, such as a browser."""

    WAIT_SECONDS = 0.2

    def __init__(self, name: str = BROWSER) -> None:
        super().__init__()
        self.name = name
        self._slot: Latest[Shot] = Latest()

    def push(self, image: Image) -> None:
        """Take a picture (uint8 HxWx3 RGB) as captured now."""
        self._slot.put(Shot(image, time.perf_counter()))

    def forget(self) -> None:
        """Drop a picture that has not been read yet: whoever brought it has gone."""
        self._slot.get(0)

    def read(self, stop: threading.Event) -> Shot | None:
        shot = self._slot.get(self.WAIT_SECONDS)
        if shot is not None:
            self.size = (shot.image.shape[1], shot.image.shape[0])
        return shot

    def close(self) -> None:
        pass
