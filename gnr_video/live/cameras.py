"""Which camera an option means: a device, a URL, a file, the test picture, the browser's."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

from gnr_video.live.camera import SAMPLE, TEST_PATTERN, Camera, CameraLost, PatternCamera

log = logging.getLogger(__name__)


def open_camera(
    spec: str | int,
    size: tuple[int, int] | None = None,
    fps: float | None = None,
    *,
    backend: str = "auto",
) -> Camera:
    """Open what stands behind `--camera`.

    Args:
        spec: a device number, /dev/videoN, a URL, a video file (repeated for ever, in real time), a picture, a
            folder of pictures, "sample" for a moving portrait or "test" for a moving pattern.
        size: (width, height) to ask for; the device's nearest is taken and said. Files and URLs keep theirs.
        fps: frames per second to ask for.
        backend: "opencv", "pyav" (Linux devices only), or "auto": PyAV where it can, else OpenCV.

    Raises:
        InputError: no such camera, busy, no permission, or not a video; says what to do.
    """
    from gnr_video.live.device_cameras import OpenCVCamera, V4L2Camera, check_device
    from gnr_video.live.stream_cameras import FileCamera, NetworkCamera, SampleCamera

    text = str(spec).strip()
    if text == TEST_PATTERN:
        return PatternCamera(size or (640, 480), fps or 30)
    if text == SAMPLE:
        return SampleCamera(size)
    if "://" in text and not text.startswith("file://"):
        return NetworkCamera(text)
    number = int(text) if re.fullmatch(r"\d+", text) else None
    device = re.fullmatch(r"/dev/video(\d+)", text)
    if number is None and device is None:
        return FileCamera(text, size)
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
