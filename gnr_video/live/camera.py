"""Camera, the first stage when live: a device, URL, file or test pattern, of which only the latest picture counts."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from engines.errors import InputError
from gnr_video.channels import Latest
from gnr_video.frame import Image

log = logging.getLogger(__name__)

TEST_PATTERN = "test"
BROWSER = "browser"

SILENT_SECONDS = 2.0
"""How long a camera may give no picture before that is worth a notice."""
_STILL_FPS = 15  # of a picture in place of a camera
_LATE_SECONDS = 0.5  # a file's clock is set anew when decoding is behind by more


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

    def _check_size(self, wanted: tuple[int, int] | None) -> None:
        if wanted is not None and wanted != self.size:
            self.notices.append(
                f"{self.name} has no {wanted[0]}x{wanted[1]}: running at {self.size[0]}x{self.size[1]}"
            )

    def describe(self) -> str:
        """ "camera 0: 1280x720, 30 fps"."""
        rate = f", {self.fps:.4g} fps" if self.fps else ""
        return f"{self.name}: {self.size[0]}x{self.size[1]}{rate}"


def open_camera(
    spec: str | int,
    size: tuple[int, int] | None = None,
    fps: float | None = None,
    *,
    backend: str = "auto",
) -> Camera:
    """Open what stands behind `--camera`.

    Args:
        spec: a device number, /dev/videoN, a URL, a video file (repeated for ever, in real time), a picture, or
            "test" for a moving pattern.
        size: (width, height) to ask for; the device's nearest is taken and said. Files and URLs keep theirs.
        fps: frames per second to ask for.
        backend: "opencv", "pyav" (Linux devices only), or "auto": PyAV where it can, else OpenCV.

    Raises:
        InputError: no such camera, busy, no permission, or not a video; says what to do.
    """
    text = str(spec).strip()
    if text == TEST_PATTERN:
        return PatternCamera(size or (640, 480), fps or 30)
    if "://" in text:
        return StreamCamera(text)
    number = int(text) if re.fullmatch(r"\d+", text) else None
    device = re.fullmatch(r"/dev/video(\d+)", text)
    if number is None and device is None:
        return StreamCamera(text, size)
    if sys.platform.startswith("linux"):
        path = Path(f"/dev/video{number}" if number is not None else text)
        check_device(path)
        if backend != "opencv":
            try:
                return V4L2Camera(path, size, fps)
            except CameraLost as error:  # busy stays busy; a format PyAV cannot take may work in OpenCV
                if backend == "pyav":
                    raise
                log.info("PyAV cannot read %s (%s): trying OpenCV", path, error.message)
        return OpenCVCamera(str(path), size, fps)
    return OpenCVCamera(number if number is not None else text, size, fps)


def list_devices() -> list[Path]:
    """Video devices of a Linux system, in the order of their numbers."""
    found = Path("/dev").glob("video*")
    return sorted((p for p in found if p.name[5:].isdigit()), key=lambda p: int(p.name[5:]))


def check_device(path: Path) -> None:
    """Raise InputError with the right advice where a Linux video device cannot be opened."""
    try:
        os.close(os.open(path, os.O_RDWR | getattr(os, "O_NONBLOCK", 0)))
    except OSError as error:
        raise device_error(path, error.errno) from None


def device_error(path: Path, number: int | None) -> InputError:
    """What to tell the user when a device fails with this errno."""
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        others = list_devices()
        hint = (
            f"there is {', '.join(map(str, others))}: give one with --camera"
            if others
            else "plug one in, or give a video file: --camera FILE; --camera test shows a pattern"
        )
        return InputError(f"no camera at {path}", hint)
    if number in (errno.EACCES, errno.EPERM):
        return InputError(
            f"no permission to use {path}", "sudo usermod -aG video $USER, then log out and in again"
        )
    if number == errno.EBUSY:
        return InputError(
            f"{path} is in use by another program", f"close it; `fuser {path}` shows which one it is"
        )
    return CameraLost(f"{path} gives no picture: {os.strerror(number or errno.EIO)}", "try another --camera")


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

        due = self._start + self._index / (self.fps or 30)
        if stop.wait(max(0.0, due - time.perf_counter())):
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


class StreamCamera(Camera):
    """A file, repeated and paced by its own times, or a network stream as it comes."""

    def __init__(self, path: str, size: tuple[int, int] | None = None) -> None:
        from gnr_video.media.open import open_source

        super().__init__()
        self._path = path
        self._source = open_source(path)
        info = self._source.info
        self._is_file = "://" not in path or info.duration_seconds is not None
        self._frames = iter(self._source)
        self.name = Path(path).name if "://" not in path else path.split("?")[0]
        self.size = info.size
        self.fps = float(info.average_rate) if info.average_rate else None
        self._start: float | None = None
        self._first_pts = 0.0
        self._next_start = 0.0
        self._check_size(size)

    def read(self, stop: threading.Event) -> Shot | None:
        frame = next(self._frames, None)
        if frame is None:
            self._source.close()
            if not self._is_file:
                raise CameraLost(f"{self.name} has ended")
            self._rewind()
            return None
        now = time.perf_counter()
        if self._is_file:
            if self._start is None:
                self._start, self._first_pts = max(now, self._next_start), frame.pts_seconds
            due = self._start + frame.pts_seconds - self._first_pts
            if now - due > _LATE_SECONDS or due - now > 10:  # decoding is behind, or the times leap
                self._start, self._first_pts, due = now, frame.pts_seconds, now
            self._next_start = due + 1 / (self.fps or _STILL_FPS)
            if stop.wait(max(0.0, due - now)):
                return None
            now = time.perf_counter()
        return Shot(frame.image, now)

    def _rewind(self) -> None:
        from gnr_video.media.open import open_source

        self._source = open_source(self._path)
        self._frames = iter(self._source)
        self._start = None

    def close(self) -> None:
        self._source.close()


class OpenCVCamera(Camera):
    """A device through OpenCV, on every system."""

    def __init__(self, device: int | str, size: tuple[int, int] | None, fps: float | None) -> None:
        import cv2

        super().__init__()
        self.name = f"camera {device}"
        backend = {"win32": cv2.CAP_DSHOW, "darwin": cv2.CAP_AVFOUNDATION}.get(sys.platform, cv2.CAP_ANY)
        if sys.platform.startswith("linux"):
            backend = cv2.CAP_V4L2
        self._capture: Any = cv2.VideoCapture(device, backend)
        if not self._capture.isOpened():
            raise InputError(
                f"no picture from {self.name}: there is none, or another program uses it",
                "close other programs, allow camera access in the system's privacy settings, or try --camera 1",
            )
        if size is not None:
            if size[0] > 640:  # uncompressed, most webcams reach 30 fps only up to 640x480
                self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
        if fps:
            self._capture.set(cv2.CAP_PROP_FPS, fps)
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        done, image = self._capture.read()
        if not done:
            self._capture.release()
            raise InputError(
                f"{self.name} opens but gives no picture", "another program may use it; or try --camera 1"
            )
        self.size = (image.shape[1], image.shape[0])
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS)) or fps
        self._check_size(size)

    def read(self, stop: threading.Event) -> Shot | None:
        import cv2

        done, image = self._capture.read()
        now = time.perf_counter()
        if not done:
            raise CameraLost(f"{self.name} has vanished")
        return Shot(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8), now)

    def close(self) -> None:
        self._capture.release()


class V4L2Camera(Camera):
    """A Linux device through PyAV: MJPEG or YUYV, with the times the kernel gave the pictures."""

    FORMATS = ("mjpeg", "yuyv422", "")
    """Tried in this order: compressed pictures reach 30 fps at 720p over USB 2; "" is the driver's choice."""

    def __init__(self, path: Path, size: tuple[int, int] | None, fps: float | None) -> None:
        import av

        super().__init__()
        self.name = f"camera {path}"
        self._path = path
        self._container: Any = None
        number: int | None = None
        for name in self.FORMATS:
            try:
                self._container = av.open(str(path), format="v4l2", options=v4l2_options(name, size, fps))
                break
            except (av.FFmpegError, OSError) as error:
                number = error.errno
                if number in (errno.EBUSY, errno.ENOENT, errno.EACCES):
                    break
        if self._container is None:
            raise device_error(path, number)
        stream = self._container.streams.video[0]
        self.size = (stream.codec_context.width, stream.codec_context.height)
        self.fps = float(stream.average_rate) if stream.average_rate else fps
        self._packets = self._container.demux(stream)
        self._check_size(size)

    def read(self, stop: threading.Event) -> Shot | None:
        import av

        try:
            packet = next(self._packets)
            pictures = packet.decode() if packet.size else []
        except StopIteration:
            raise CameraLost(f"{self.name} has ended") from None
        except av.error.InvalidDataError:
            return None  # a damaged JPEG, as webcams send when they start
        except (av.FFmpegError, OSError) as error:
            raise CameraLost(f"{self.name} has vanished: {error.strerror or error}") from None
        now = time.perf_counter()
        if not pictures:
            return None
        picture = pictures[-1]
        seconds = None if picture.pts is None else picture.pts * (picture.time_base or Fraction(1, 10**6))
        return Shot(picture.to_ndarray(format="rgb24"), kernel_time(seconds, now))

    def close(self) -> None:
        self._container.close()


def v4l2_options(input_format: str, size: tuple[int, int] | None, fps: float | None) -> dict[str, str]:
    """FFmpeg's options for a v4l2 device; a driver that lacks the size takes its nearest."""
    options = {"input_format": input_format} if input_format else {}
    if size is not None:
        options["video_size"] = f"{size[0]}x{size[1]}"
    if fps:
        options["framerate"] = f"{fps:g}"
    return options


def kernel_time(seconds: Fraction | float | None, now: float) -> float:
    """When a picture was taken: the kernel's time where it is on the same clock as `now`, else `now`.

    Drivers stamp pictures with the monotonic clock, which is that of `time.perf_counter` on Linux; some use
    the time of day.
    """
    if seconds is None or not now - SILENT_SECONDS < float(seconds) <= now:
        return now
    return float(seconds)


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

    def read(self, stop: threading.Event) -> Shot | None:
        shot = self._slot.get(self.WAIT_SECONDS)
        if shot is not None:
            self.size = (shot.image.shape[1], shot.image.shape[0])
        return shot

    def close(self) -> None:
        pass
