"""Cameras of live use: the slot that keeps the latest picture, real-time pacing, loss and return. Device: CPU."""

from __future__ import annotations

import errno
import socket
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engines.errors import InputError
from gnr_video.channels import Latest
from gnr_video.live import capture as capture_module
from gnr_video.live import stream_cameras
from gnr_video.live.camera import Camera, CameraLost, PatternCamera, PushCamera
from gnr_video.live.cameras import open_camera
from gnr_video.live.capture import Capture
from gnr_video.live.device_cameras import (
    OpenCVCamera,
    V4L2Camera,
    device_error,
    kernel_time,
    v4l2_options,
)
from gnr_video.live.stream_cameras import without_secrets
from tests.live_helpers import Still, until
from tests.media_helpers import make_clip, picture

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's /dev")


class TestLatest:
    def test_the_newest_wins_and_the_others_are_counted(self) -> None:
        slot: Latest[int] = Latest()
        for i in range(5):
            slot.put(i)
        assert slot.get(0) == 4
        assert slot.get(0) is None
        assert slot.dropped == 4

    def test_depth(self) -> None:
        slot: Latest[int] = Latest(3)
        for i in range(5):
            slot.put(i)
        assert [slot.get(0) for _ in range(4)] == [2, 3, 4, None]

    def test_close_wakes_who_waits(self) -> None:
        slot: Latest[int] = Latest()
        threading.Timer(0.05, slot.close).start()
        start = time.perf_counter()
        assert slot.get() is None
        assert time.perf_counter() - start < 5

    def test_what_is_in_it_survives_close(self) -> None:
        slot: Latest[int] = Latest()
        slot.put(1)
        slot.close()
        slot.put(2)
        assert [slot.get(), slot.get()] == [1, None]


class TestPacing:
    def test_a_file_runs_in_real_time_and_starts_again(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "a.mp4", pts=range(10))  # a third of a second
        stop = threading.Event()
        camera = open_camera(str(clip))
        shots = []
        while len(shots) < 16:
            shot = camera.read(stop)
            if shot is not None:
                shots.append(shot)
        camera.close()
        spent = shots[9].captured - shots[0].captured
        assert 0.28 <= spent < 5.0
        assert all(b.captured > a.captured for a, b in pairwise(shots))
        assert np.array_equal(shots[0].image, shots[10].image)

    def test_waiting_ends_at_once_when_told(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "a.mp4", pts=[0, 150])  # five seconds between two frames
        camera, stop = open_camera(str(clip)), threading.Event()
        assert camera.read(stop) is not None
        threading.Timer(0.05, stop.set).start()
        start = time.perf_counter()
        assert camera.read(stop) is None
        assert time.perf_counter() - start < 4
        camera.close()

    def test_a_picture_is_no_busy_loop(self, tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "a.png"), picture(64, 48))
        camera, stop = open_camera(str(tmp_path / "a.png")), threading.Event()
        start, shots = time.perf_counter(), 0
        while shots < 5:
            shots += camera.read(stop) is not None
        assert time.perf_counter() - start > 0.14  # 25 a second
        camera.close()

    def test_pattern_moves(self) -> None:
        camera, stop = open_camera("test", (64, 48), 100), threading.Event()
        assert isinstance(camera, PatternCamera)
        first, second = camera.read(stop), camera.read(stop)
        assert first is not None and second is not None
        assert first.image.shape == (48, 64, 3)
        assert not np.array_equal(first.image, second.image)


class TestOpening:
    def test_another_size_is_said(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "a.mp4")
        camera = open_camera(str(clip), (1280, 720))
        assert camera.size == (64, 48)
        assert camera.notices == ["a.mp4 has no 1280x720: running at 64x48"]
        camera.close()

    def test_no_such_file(self) -> None:
        with pytest.raises(InputError, match="no such file"):
            open_camera("nowhere.mp4")

    @linux_only
    def test_no_such_device(self) -> None:
        with pytest.raises(InputError, match="no camera at /dev/video9876") as caught:
            open_camera("9876")
        assert "--camera" in caught.value.hint

    @linux_only
    @pytest.mark.parametrize(
        ("number", "message"),
        [
            (errno.EBUSY, "in use by another program"),
            (errno.EACCES, "no permission"),
            (errno.ENODEV, "no camera"),
            (errno.EIO, "gives no picture"),
        ],
    )
    def test_what_a_device_says(self, number: int, message: str) -> None:
        error = device_error(Path("/dev/video0"), number)
        assert message in error.message
        assert error.hint

    @linux_only
    def test_a_file_that_is_no_device(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """PyAV and OpenCV really try to open it as a device, and fail in one line."""
        file = tmp_path / "video0"
        file.write_bytes(b"no device")
        with pytest.raises(InputError, match="gives no picture"):
            V4L2Camera(file, (640, 480), 30)
        with pytest.raises(InputError, match="no picture"):
            OpenCVCamera(str(file), (640, 480), 30)

    def test_options_for_v4l2(self) -> None:
        assert v4l2_options("mjpeg", (1280, 720), 29.97) == {
            "input_format": "mjpeg",
            "video_size": "1280x720",
            "framerate": "29.97",
        }
        assert v4l2_options("", None, None) == {}

    def test_kernel_times(self) -> None:
        assert kernel_time(99.9, 100.0) == 99.9  # the same clock
        assert kernel_time(1.7e9, 100.0) == 100.0  # the time of day
        assert kernel_time(50.0, 100.0) == 100.0  # stale
        assert kernel_time(None, 100.0) == 100.0


class TestFolder:
    def test_pictures_of_several_sizes_go_on_and_on(self, tmp_path: Path) -> None:
        for index, size in enumerate([(64, 48), (48, 64), (128, 96)]):
            cv2.imwrite(str(tmp_path / f"{index}.png"), picture(*size, index))
        (tmp_path / "3.png").write_text("damaged")
        camera, stop = open_camera(str(tmp_path)), threading.Event()
        shots = [shot for _ in range(12) if (shot := camera.read(stop)) is not None]
        assert camera.size == (64, 48) and len(shots) >= 9
        assert {shot.image.shape for shot in shots} == {(48, 64, 3)}
        camera.close()


class TestSample:
    def test_it_moves_and_ends_where_it_began(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stream_cameras, "SAMPLE_FRAMES", 4)
        camera, stop = open_camera("sample", (320, 180)), threading.Event()
        shots = [shot.image for _ in range(6) if (shot := camera.read(stop)) is not None]
        assert shots[0].shape == (180, 320, 3)
        assert not np.array_equal(shots[0], shots[1])
        np.testing.assert_array_equal(shots[0], shots[4])


class Line:
    """A camera of the network: an HTTP server that sends a clip, or some of it, or nothing, and stays open."""

    def __init__(self, data: bytes) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._data = data
        self._open: list[socket.socket] = []
        self.url = f"http://user:secret@127.0.0.1:{self._server.getsockname()[1]}/live?key=1"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._open.append(connection)
            connection.recv(4096)
            if self._data:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\n\r\n" + self._data)

    def close(self) -> None:
        self._server.close()
        for connection in self._open:
            connection.close()


class TestNetwork:
    def test_one_that_dies_half_way_is_lost(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its line stays open and says nothing: only the time tells."""
        monkeypatch.setattr(stream_cameras, "LOST_SECONDS", 1.0)
        clip = make_clip(tmp_path / "a.ts", pts=range(60), codec="mpeg2video", size=(320, 240))
        line = Line(clip.read_bytes())
        camera, stop = open_camera(line.url), threading.Event()
        assert "secret" not in camera.describe() and "key" not in camera.describe()
        seen = 0
        with pytest.raises(CameraLost, match="no picture for 1 s"):
            for _ in range(100):
                seen += camera.read(stop) is not None
        assert seen >= 1
        line.close()
        camera.close()
        until(lambda: not camera._thread.is_alive())  # type: ignore[attr-defined]

    def test_one_that_says_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stream_cameras, "OPEN_SECONDS", 0.5)
        line = Line(b"")
        started = time.perf_counter()
        with pytest.raises(InputError, match="has not answered") as caught:
            open_camera(line.url)
        assert time.perf_counter() - started < 5 and caught.value.hint
        line.close()

    def test_one_that_is_not_there(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
        with pytest.raises(InputError):
            open_camera(f"http://127.0.0.1:{port}/")

    def test_how_it_is_called(self) -> None:
        assert without_secrets("rtsp://me:pass@cam.local:554/a/b?token=1#x") == "rtsp://cam.local:554/a/b"


class TestCapture:
    def test_a_lost_camera_comes_back(self, monkeypatch: pytest.MonkeyPatch, no_threads_left: None) -> None:
        monkeypatch.setattr(capture_module, "FIRST_PAUSE", 0.02)
        monkeypatch.setattr(capture_module, "LONGEST_PAUSE", 0.05)
        first, second = Still(picture(64, 48)), Still(picture(64, 48))
        attempts: list[float] = []

        def reopen() -> Camera:
            attempts.append(time.perf_counter())
            if len(attempts) < 3:
                raise InputError("no camera at /dev/video0", "plug one in")
            return second

        capture = Capture(first, reopen)
        capture.start()
        until(lambda: capture.frames > 3)
        first.unplugged.set()
        until(lambda: "trying again" in capture.notice)
        until(lambda: len(attempts) == 3)
        seen = capture.frames
        until(lambda: capture.frames > seen + 3)
        assert capture.notice == ""
        assert capture.reconnects == 1
        assert first.closed == 1
        capture.stop()
        assert second.closed == 1

    def test_one_that_comes_and_goes_is_not_hurried(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A camera that gives one picture and is lost again is asked ever more rarely."""
        monkeypatch.setattr(capture_module, "FIRST_PAUSE", 0.05)
        opened = 0
        pauses: list[float | None] = []

        class Brief(Still):
            def read(self, stop: threading.Event) -> Any:
                shot = super().read(stop)
                self.unplugged.set()
                return shot

        def reopen() -> Camera:
            nonlocal opened
            opened += 1
            return Brief(picture(64, 48))

        class Noting(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                if timeout != 1 / 50:  # the camera's own
                    pauses.append(timeout)
                return super().wait(timeout)

        capture = Capture(Brief(picture(64, 48)), reopen)
        capture._wake = Noting()
        capture.start()
        until(lambda: opened >= 4)
        capture.stop()
        assert pauses[:4] == [0.05, 0.1, 0.2, 0.4]

    def test_its_rate_is_what_it_gives(self) -> None:
        capture = Capture(Still(picture(64, 48), fps=20), lambda: Still(picture(64, 48)))
        capture.start()
        until(lambda: capture.frames > 20)
        assert 8 < capture.rate() < 24
        capture.stop()

    def test_pauses_grow(self) -> None:
        """At most a few attempts while a camera stays away."""
        attempts: list[float] = []
        camera = Still(picture(64, 48))

        def reopen() -> Camera:
            attempts.append(time.perf_counter())
            raise CameraLost("still away")

        camera.unplugged.set()
        capture = Capture(camera, reopen)
        capture.start()
        time.sleep(1.2)
        capture.stop()
        assert 1 <= len(attempts) <= 2

    def test_a_silent_camera_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(capture_module, "SILENT_SECONDS", 0.1)
        capture = Capture(PushCamera(), PushCamera)
        capture.start()
        until(lambda: capture.notice == "browser gives no picture")
        capture.stop()

    def test_switching(self, no_threads_left: None) -> None:
        first, pushed = Still(picture(64, 48)), PushCamera()
        capture = Capture(first, lambda: first)
        capture.start()
        until(lambda: capture.frames)
        capture.switch(lambda: pushed, pushed)
        until(lambda: first.closed)
        pushed.push(picture(32, 32))
        until(lambda: (shot := capture.latest.get(0.1)) is not None and shot.image.shape == (32, 32, 3))
        capture.stop()

    def test_a_bug_is_kept(self) -> None:
        class Broken(Still):
            def read(self, stop: threading.Event) -> None:
                raise ZeroDivisionError

        capture = Capture(Broken(picture(64, 48)), lambda: Broken(picture(64, 48)))
        capture.start()
        until(lambda: isinstance(capture.failure, ZeroDivisionError))
        assert capture.latest.closed
        capture.stop()
