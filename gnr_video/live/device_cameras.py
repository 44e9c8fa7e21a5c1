"""Cameras that are devices: through OpenCV on every system, through PyAV on Linux, with the kernel's times."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from engines.errors import InputError
from gnr_video.live.camera import SILENT_SECONDS, Camera, CameraLost, Shot


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
            else "plug one in; or use the browser's: --web --camera browser; or a video: --camera FILE, --camera sample"
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
