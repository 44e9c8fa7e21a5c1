"""Live: a camera's picture is translated as it comes, and shown in a virtual camera, a window, a browser, a file.

camera.py          where pictures come from, read on a thread of their own, the latest one kept
session.py         the pipeline between camera and sinks, and how long a picture takes through it
controls.py        what can be changed while it runs, the same from every keyboard and from the browser
virtual_camera.py  sink: a camera for video calls
preview.py         sink: a window
web.py, page/      sink and camera: the browser
files.py           videos that the browser hands over
recorder.py        sink: a file
memory.py          freed memory is given back, so that a session can run for hours
"""

from __future__ import annotations

from gnr_video.live.camera import open_camera
from gnr_video.live.capture import Capture
from gnr_video.live.controls import Controls
from gnr_video.live.session import LiveSession

__all__ = ["Capture", "Controls", "LiveSession", "open_camera"]
