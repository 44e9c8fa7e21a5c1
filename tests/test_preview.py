"""The preview window: overlay, keys, closing; drawn for real where there is a display or Xvfb. Device: CPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gnr_video.lettering import write
from gnr_video.live import preview as preview_module
from gnr_video.live.preview import PreviewSink, draw_overlay, why_no_window
from gnr_video.live.session import LiveSession, Status
from tests.cli_helpers import REPOSITORY
from tests.live_helpers import Still, live_session, until
from tests.media_helpers import picture

STATUS = Status(24.9, 24.9, 31.0, 44.0, 3, "the camera", "", "camera 0: 640x480")


class FakeWindow:
    """highgui's functions, which need a display; everything before `imshow` is real."""

    def __init__(self) -> None:
        self.shown: list[Any] = []
        self.keys: list[int] = []
        self.visible = 1.0
        self.destroyed = 0

    def imshow(self, title: str, image: Any) -> None:
        self.shown = [*self.shown[-3:], image]

    def waitKey(self, milliseconds: int) -> int:
        return -1

    def waitKeyEx(self, milliseconds: int) -> int:
        return self.keys.pop(0) if self.keys else -1

    def getWindowProperty(self, title: str, which: int) -> float:
        return self.visible

    def destroyAllWindows(self) -> None:
        self.destroyed += 1

    def namedWindow(self, *_: object) -> None:
        pass

    def resizeWindow(self, *_: object) -> None:
        pass


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> FakeWindow:
    fake = FakeWindow()
    for name in (
        "imshow",
        "waitKey",
        "waitKeyEx",
        "getWindowProperty",
        "destroyAllWindows",
        "namedWindow",
        "resizeWindow",
    ):
        monkeypatch.setattr(cv2, name, getattr(fake, name))
    return fake


@pytest.fixture
def session(tiny: Path, face_model: Path, tmp_path: Path, no_threads_left: None) -> Iterator[LiveSession]:
    with live_session(tiny, Still(np.full((240, 640, 3), 90, np.uint8)), folder=tmp_path) as running:
        yield running


def serve(session: LiveSession, sink: PreviewSink, until_true: Any) -> None:
    def ticked() -> Any:
        sink.tick()
        return until_true()

    until(ticked)


class TestWindow:
    def test_pictures_and_keys(self, session: LiveSession, window: FakeWindow) -> None:
        sink = PreviewSink(session)
        session.add_sink(sink)
        serve(session, sink, lambda: window.shown)
        assert window.shown[-1].shape == (240, 640, 3)
        window.keys = [ord(c) for c in ".77\r"]
        serve(session, sink, lambda: session.controls.state()["style"] == "77")
        window.keys = [ord("m"), ord("h")]
        serve(session, sink, lambda: session.controls.mirror and session.controls.help)
        assert session.times.summary()["to preview"].count > 1
        session.stop()
        assert window.destroyed == 1

    def test_closing_the_window_quits(self, session: LiveSession, window: FakeWindow) -> None:
        sink = PreviewSink(session)
        session.add_sink(sink)
        serve(session, sink, lambda: window.shown)
        window.visible = 0.0
        session.wait(20, sink.tick)
        assert session.controls.quitting.is_set()

    def test_a_window_that_comes_late_is_not_closed(self, session: LiveSession, window: FakeWindow) -> None:
        """Some window systems show it some time after the first picture."""
        sink = PreviewSink(session)
        session.add_sink(sink)
        window.visible = 0.0
        serve(session, sink, lambda: window.shown)
        for _ in range(5):
            sink.tick()
        assert not session.controls.quitting.is_set()


class TestOverlay:
    def test_it_leaves_the_picture_alone(self, session: LiveSession) -> None:
        image = picture(640, 360)
        before = image.copy()
        out = draw_overlay(image, STATUS, session.controls)
        np.testing.assert_array_equal(image, before)
        assert not np.array_equal(out[:60], image[:60])
        np.testing.assert_array_equal(out[60:330], image[60:330])

    def test_what_it_says(self) -> None:
        assert STATUS.line() == "24.9 fps, 31 / 44 ms p50 / p95, limited by the camera, 3 dropped"

    def test_letters_stand_in_the_middle_of_their_rim(self) -> None:
        """Drawn twice in two thicknesses they would stand beside each other."""
        image = np.full((60, 700, 3), 128, np.uint8)
        write(image, "24.9 fps, 31 / 44 ms p50 / p95, limited by the camera", (10, 30))
        white, dark = image.min(2) > 140, image.max(2) < 60
        for mask, share in ((white, 0.01), (dark, 0.05)):
            assert mask.mean() > share
        columns = [np.flatnonzero(mask.any(0)) for mask in (white, dark)]
        assert abs((columns[0][0] - columns[1][0]) - (columns[1][-1] - columns[0][-1])) <= 2
        near = cv2.dilate(white.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
        assert not (dark & ~near).any()

    @pytest.mark.parametrize("size", [(640, 480), (1280, 720), (160, 120), (32, 32)])
    def test_everything_at_once(self, session: LiveSession, size: tuple[int, int]) -> None:
        session.controls.run("help")
        session.controls.say("a message")
        status = Status(1, 1, 2, 3, 4, "network (80 ms)", "no camera at /dev/vidéo0", "")
        image = picture(*size)
        out = draw_overlay(image, status, session.controls, typed=".12")
        assert out.shape == image.shape
        assert out.dtype == np.uint8


class TestDisplay:
    def test_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(preview_module.sys, "platform", "linux")
        monkeypatch.delenv("DISPLAY", raising=False)
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        assert "no display" in why_no_window()

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs X11")
    def test_one_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Qt ends the process that tries; it must not be this one."""
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        monkeypatch.setenv("DISPLAY", ":9876")
        assert "cannot be used" in why_no_window()

    @pytest.mark.skipif(shutil.which("xvfb-run") is None, reason="needs Xvfb")
    def test_a_real_window(self, tiny: Path, face_model: Path, face_clip: Path, tmp_path: Path) -> None:
        """The command with a window on a virtual display: pictures are drawn, and it ends by itself."""
        report = tmp_path / "report.json"
        done = subprocess.run(
            ["xvfb-run", "-a", sys.executable, "-m", "cli", "live", "--preview", "--camera", str(face_clip),
             "--weights", str(tiny), "--engine", "torch", "--precision", "fp32", "--seconds", "3",
             "--report", str(report)],
            capture_output=True, text=True, timeout=120, cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "QFontDatabase" not in done.stderr
        did = json.loads(report.read_text())
        assert did["stages"].get("to preview", {"count": 0})["count"] > 5, did
