"""Live: a camera's picture is translated as it comes, and shown in a virtual camera, a window, a browser, a file.

run.py             a session put together from the command's options
session.py         the pipeline between camera and sinks, and how long a picture takes through it
status.py          how it is doing: rate, delay and what limits them
camera.py          where pictures come from; device_cameras.py, stream_cameras.py: of which kinds
capture.py         a camera read on a thread of its own, the latest picture kept
controls.py        what can be changed while it runs, the same from every keyboard and from the browser
keys.py            key presses become commands of the controls
styles.py          the styles on show, changed and blended
sinks.py           what shows the pictures: the contract, and a sink on a thread of its own
virtual_camera.py  sink: a camera for video calls
preview.py         sink: a window
web/, page/        sink and camera: the browser; browsers.py: opened by itself
files.py           videos that the browser hands over
recorder.py        sink: a file
replay.py          the last five seconds, and loops made of them
sound/             a voice in step with the picture: microphones, delay line, virtual microphone
memory.py          freed memory is given back, so that a session can run for hours
"""

from __future__ import annotations

from gnr_video.live.cameras import open_camera
from gnr_video.live.capture import Capture
from gnr_video.live.controls import Controls
from gnr_video.live.session import LiveSession

__all__ = ["Capture", "Controls", "LiveSession", "open_camera"]
