"""Preview window, a sink when live (OpenCV's highgui): the picture, how it is doing, and hotkeys.

highgui wants to be used by one thread, on macOS the main one: `show` only leaves the picture, `tick` draws it.
"""

from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np

from engines.errors import OutputError
from gnr_video.channels import Latest
from gnr_video.frame import Frame, Image
from gnr_video.lettering import write
from gnr_video.live.controls import Controls
from gnr_video.live.keys import HELP, SEED, Keys, window_key
from gnr_video.live.session import LiveSession, Status
from gnr_video.live.sinks import LiveSink

TITLE = "gnr-video"
WAIT_MS = 10
_QUIET = "default.warning=false"
"""Rule for Qt's log: else it names the fonts that OpenCV's wheels lack, line by line, when the first window opens."""
_PROBE = "import cv2; cv2.namedWindow('gnr-video'); cv2.waitKey(1); cv2.destroyAllWindows()"
_PROBE_SECONDS = 15


def why_no_window() -> str:
    """ "" where a window can be opened, else the reason it cannot."""
    if sys.platform.startswith("linux"):
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            return "there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)"
        # Qt does not raise when it cannot reach the display: it ends the process. So another one tries.
        try:
            done = subprocess.run(
                [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired):
            return "the display does not answer"
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            return f"the display cannot be used ({lines[-1].strip()[:120] if lines else done.returncode})"
        return ""
    try:
        cv2.namedWindow(TITLE)
        cv2.destroyWindow(TITLE)
    except cv2.error:
        return "this OpenCV has no windows (opencv-python-headless?)"
    return ""


def check_window() -> None:
    """Raise OutputError where no window can be opened."""
    reason = why_no_window()
    if reason:
        raise OutputError(
            f"no preview window: {reason}", "use the browser instead: --web, or --virtual-camera, --record"
        )


class PreviewSink(LiveSink):
    """The window. `tick` must be called again and again, by the thread that made it; see `check_window`."""

    def __init__(self, session: LiveSession) -> None:
        super().__init__("preview")
        self._session = session
        self._controls = session.controls
        self._keys = Keys(session.controls)
        self._slot: Latest[Frame] = Latest()
        self._open = False
        self._seen = False

    def show(self, frame: Frame) -> None:
        self._slot.put(frame)

    def tick(self) -> None:
        """Draw the newest picture, act on keys, quit when the window was closed. Waits some milliseconds."""
        frame = self._slot.get(timeout=WAIT_MS / 1000)
        if frame is not None:
            picture = draw_overlay(frame.image, self._session.status(), self._controls, self._keys.typed)
            if not self._open:
                os.environ.setdefault("QT_LOGGING_RULES", _QUIET)
                cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
                cv2.resizeWindow(TITLE, frame.image.shape[1], frame.image.shape[0])
                self._open = True
            cv2.imshow(TITLE, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            self.delivered(frame)
        if not self._open:
            return
        if key := window_key(cv2.waitKeyEx(1)):
            self._keys.press(key)
        visible = cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) >= 1
        if self._seen and not visible:
            self._controls.run("quit")
        self._seen = self._seen or visible

    def close(self, timeout: float = 0.5) -> None:
        self._slot.close()
        if self._open:
            self._open = False
            cv2.destroyAllWindows()
            cv2.waitKey(1)


def draw_overlay(image: Image, status: Status, controls: Controls, typed: str = "") -> Image:
    """A picture with the overlay: rate, delay, limit, style; notices; the keys when they are asked for.

    Returns:
        uint8 of the shape of `image`; a new array.
    """
    out = image.copy()
    height = out.shape[0]
    write(out, status.line(), (10, 22))
    write(out, f"style {controls.style_label}    h: keys", (10, 44))
    text = f"style {typed.lstrip(SEED)}_" if typed else controls.message
    if text:
        write(out, text, (10, height - 14))
    notice = status.notice or ("" if status.face else "no face in the picture")
    if notice:
        band = out[height // 2 - 24 : height // 2 + 16]
        band[:] = (band * np.float32(0.3)).astype(np.uint8)
        write(out, notice, (10, height // 2), 0.6)
    if controls.help:
        box = out[56 : 56 + 22 * len(HELP) + 12, : min(300, out.shape[1])]
        box[:] = (box * np.float32(0.3)).astype(np.uint8)
        for i, line in enumerate(HELP):
            write(out, line, (16, 76 + 22 * i))
    return out
