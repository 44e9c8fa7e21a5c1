"""The virtual camera: pictures reach pyvirtualcam, and advice where there is no device. Device: CPU."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from engines.errors import EngineError, OutputError
from engines.installation import install_line
from gnr_video.live.session import LiveSession
from gnr_video.live.virtual_camera import VirtualCameraSink, setup_hint
from tests.live_helpers import Still, live_session, until
from tests.media_helpers import picture

pyvirtualcam = pytest.importorskip("pyvirtualcam", reason="needs pyvirtualcam")


class FakeBackend:
    """A virtual camera device in memory."""

    devices: ClassVar[list[FakeBackend]] = []
    block: ClassVar[threading.Event] = threading.Event()

    def __init__(self, *, width: int, height: int, fps: float, fourcc: int, device: str | None, **_: Any):
        if device == "taken":
            raise RuntimeError("the device is in use")
        self.shape, self.fps, self.closed = (height, width, 3), fps, False
        self.frames: list[Any] = []
        self.block.set()
        self.devices.append(self)

    def send(self, frame: Any) -> None:
        self.block.wait(20)
        self.frames = [*self.frames[-3:], frame.reshape(self.shape).copy()]

    def close(self) -> None:
        self.closed = True

    def device(self) -> str:
        return "fake0"

    def native_fourcc(self) -> None:
        return None


@pytest.fixture
def fake() -> Iterator[type[FakeBackend]]:
    pyvirtualcam.register_backend("fake", FakeBackend)
    FakeBackend.devices = []
    yield FakeBackend
    FakeBackend.block.set()
    del pyvirtualcam.camera.BACKENDS["fake"]


@pytest.fixture
def session(tiny: Path, face_model: Path, tmp_path: Path, no_threads_left: None) -> Iterator[LiveSession]:
    with live_session(tiny, Still(picture(96, 64)), folder=tmp_path) as running:
        yield running


def test_pictures_arrive_and_the_device_is_let_go(session: LiveSession, fake: type[FakeBackend]) -> None:
    sink = VirtualCameraSink(session.size, 30, backend="fake")
    session.add_sink(sink)
    device = fake.devices[0]
    assert sink.device == "fake0"
    until(lambda: len(device.frames) > 2)
    np.testing.assert_array_equal(device.frames[-1], picture(96, 64))
    assert session.times.summary()["to virtual camera"].count > 1
    session.stop()
    assert device.closed


def test_a_device_that_blocks_holds_up_nobody(session: LiveSession, fake: type[FakeBackend]) -> None:
    session.add_sink(VirtualCameraSink(session.size, 30, backend="fake"))
    until(lambda: fake.devices[0].frames)
    fake.block.clear()
    seen = session.counts.frames
    until(lambda: session.counts.frames > seen + 20)
    start = time.perf_counter()
    session.stop()
    assert time.perf_counter() - start < 10.0
    fake.block.set()


def test_a_device_that_is_taken(fake: type[FakeBackend]) -> None:
    with pytest.raises(OutputError, match="in use") as caught:
        VirtualCameraSink((64, 48), 30, "taken", backend="fake")
    assert caught.value.hint == setup_hint()


@pytest.mark.skipif(
    sys.platform != "linux" or Path("/sys/devices/virtual/video4linux").is_dir(),
    reason="needs a Linux without v4l2loopback",
)
def test_no_device() -> None:
    """The real backend of this system says no, in one line, with the commands that help."""
    with pytest.raises(OutputError, match="no virtual camera") as caught:
        VirtualCameraSink((640, 480), 30)
    assert "modprobe v4l2loopback" in caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("os_release", "command"),
    [
        ("ID=debian\n", "sudo apt install v4l2loopback-dkms"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "sudo apt install"),
        ('ID="fedora"\n', "sudo dnf install"),
        ("ID=manjaro\nID_LIKE=arch\n", "sudo pacman -S"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "sudo zypper install"),
        ("", "sudo apt install"),
    ],
)
def test_commands_for_linux(os_release: str, command: str) -> None:
    hint = setup_hint("Linux", os_release)
    assert hint.startswith(command)
    assert "exclusive_caps=1" in hint  # without it Chromium does not list the device


@pytest.mark.parametrize(
    ("system", "word"), [("Windows", "OBSProject.OBSStudio"), ("Darwin", "brew install")]
)
def test_commands_for_others(system: str, word: str) -> None:
    assert word in setup_hint(system)


def test_without_the_package() -> None:
    code = (
        "import sys; sys.modules['pyvirtualcam'] = None\n"
        "from gnr_video.live.virtual_camera import VirtualCameraSink\n"
        "from engines.errors import EngineError\n"
        "try: VirtualCameraSink((64, 48), 30)\n"
        "except EngineError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert install_line("live") in done.stdout, done.stderr
    assert issubclass(EngineError, Exception)
