"""Virtual camera, a sink when live: other programs see the translated picture as a webcam (pyvirtualcam)."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from engines.errors import EngineError, OutputError
from engines.installation import install_line
from gnr_video.frame import Frame
from gnr_video.live.sinks import ThreadedSink

_DOCS = "see docs/live.md"
_LOOPBACK = "sudo modprobe v4l2loopback devices=1 video_nr=10 card_label=gnr-video exclusive_caps=1"


class VirtualCameraSink(ThreadedSink):
    """Sends pictures to v4l2loopback (Linux), OBS (Windows, macOS) or UnityCapture (Windows).

    Args:
        size: (width, height), pixels.
        fps: what the device is told.
        device: its name; None: the first one that is free.
        backend: pyvirtualcam's name of one; None: whatever works on this system.

    Raises:
        OutputError: there is no such device; the hint has the commands that set one up on this system.
        EngineError: pyvirtualcam is not installed.
    """

    def __init__(
        self, size: tuple[int, int], fps: float, device: str | None = None, *, backend: str | None = None
    ) -> None:
        try:
            import pyvirtualcam
        except ImportError:
            raise EngineError(
                "a virtual camera needs pyvirtualcam, which is not installed", install_line("live")
            ) from None
        super().__init__("virtual camera")
        try:
            self._camera: Any = pyvirtualcam.Camera(
                width=size[0], height=size[1], fps=fps, device=device, backend=backend
            )
        except (RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())
            raise OutputError(f"no virtual camera: {reason}", setup_hint()) from None
        self.device: str = self._camera.device

    def deliver(self, frame: Frame) -> None:
        try:
            self._camera.send(frame.image)
        except (RuntimeError, OSError) as error:
            raise OutputError(f"the virtual camera {self.device} has failed: {error}", setup_hint()) from None

    def release(self) -> None:
        self._camera.close()


def setup_hint(system: str | None = None, os_release: str | None = None) -> str:
    """The commands that set up a virtual camera on this system, one line.

    Args:
        system: as `platform.system` has it; None: this one's.
        os_release: text of /etc/os-release, for Linux; None: this one's.
    """
    system = system or platform.system()
    if system == "Windows":
        return (
            "winget install OBSProject.OBSStudio, start OBS once and press Start Virtual Camera, then Stop; "
            f"or install UnityCapture: {_DOCS}"
        )
    if system == "Darwin":
        return (
            "brew install --cask obs, start OBS, press Start Virtual Camera, allow its system extension in "
            "System Settings > General > Login Items & Extensions, press Stop"
        )
    if os_release is None:
        file = Path("/etc/os-release")
        os_release = file.read_text(errors="replace") if file.is_file() else ""
    return f"{install_command(os_release)} && {_LOOPBACK}"


def install_command(os_release: str) -> str:
    """How this Linux distribution installs v4l2loopback."""
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    family = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".replace('"', "").split()
    if "fedora" in family or "rhel" in family:
        return "sudo dnf install v4l2loopback akmod-v4l2loopback"  # from RPM Fusion
    if "arch" in family:
        return "sudo pacman -S v4l2loopback-dkms linux-headers"
    if "suse" in family or "opensuse" in family:
        return "sudo zypper install v4l2loopback-kmp-default"
    return "sudo apt install v4l2loopback-dkms"
