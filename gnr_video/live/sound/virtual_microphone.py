"""VirtualMicrophone, a sink of sound: other programs hear the voice as late as they see the picture (Linux)."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from engines.errors import OutputError
from gnr_video.live.sound.head import Head
from gnr_video.live.sound.line import CHANNELS, RATE, DelayLine
from gnr_video.live.sound.pulse import SINK, SOURCE, ended, pactl, started

if sys.platform == "linux":
    import fcntl

log = logging.getLogger(__name__)

TITLE = "gnr-video"
_MODULES = (
    (
        "module-null-sink",
        f"sink_name={SINK}",
        f"rate={RATE}",
        f"sink_properties=device.description={TITLE}-voice",
    ),
    (
        "module-remap-source",
        f"source_name={SOURCE}",
        f"master={SINK}.monitor",
        f"source_properties=device.description={TITLE}",
    ),
)
"""A sink that nobody hears, and what is played into it as a microphone: browsers list no monitors."""
LATENCY = 0.045
"""Seconds from a sample's way into the pipe until another program has it: measured with PulseAudio 16."""
_BUFFERED = 0.03
"""Of them those that the server is asked to hold."""
BLOCK = RATE // 100
PIPE_BYTES = 4096
"""Of the pipe to the server, a page: what waits in it is late."""
_JUMP_SECONDS = 0.5
_GAIN, _MAX_SLEW = 0.2, 0.01
_PAUSE_SECONDS = 2.0


class VirtualMicrophone:
    """Plays the line, delayed, until `stop`.

    Args:
        line: read from.
        delay: how late the picture is, seconds; asked again and again.
        say: told what the user should know.

    Attributes:
        title: what other programs call it.

    Raises:
        OutputError: it cannot be made here; the hint has the commands.
    """

    title = TITLE

    def __init__(self, line: DelayLine, delay: Callable[[], float], say: Callable[[str], None]) -> None:
        self._line = line
        self._delay = delay
        self._say = say
        self._stop = threading.Event()
        self._player: subprocess.Popen[bytes] | None = None
        check_virtual_microphone()
        self._modules = _make()
        self._thread = threading.Thread(target=self._work, name="gnr-video voice", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 3.0) -> None:
        """End it, and take the microphone away. May be called twice."""
        self._stop.set()
        if self._player is not None:
            self._player.kill()  # or a write may wait for ever
        if self._thread.ident is not None:
            self._thread.join(timeout)
        modules, self._modules = self._modules, []
        for number in reversed(modules):
            pactl("unload-module", number)

    def _work(self) -> None:
        told = False
        while not self._stop.is_set():
            try:
                if told:
                    self._modules = _make()
                self._play()
            except (OSError, OutputError) as error:
                if self._stop.is_set():
                    return
                log.debug("the virtual microphone: %s", error)
                if not told:
                    self._say("the virtual microphone has vanished: trying again")
                told = True
                self._stop.wait(_PAUSE_SECONDS)

    def _play(self) -> None:
        """Write blocks in real time; OSError when the server has gone."""
        command = ["pacat", "--playback", f"--device={SINK}", "--format=float32le", f"--rate={RATE}"]
        command += [f"--channels={CHANNELS}", f"--latency-msec={1000 * _BUFFERED:.0f}"]
        command += ["--client-name=gnr-video", "--stream-name=voice"]
        player = started(command)
        assert player.stdin is not None
        self._player = player
        if sys.platform == "linux":
            fcntl.fcntl(player.stdin, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        head, last = Head(self._line), time.perf_counter()
        at: float | None = None
        try:
            while not self._stop.is_set():
                now = time.perf_counter()
                target = now + LATENCY - self._delay()
                has_run_dry = now - last > LATENCY
                if at is None or has_run_dry:  # what was to be heard meanwhile is over
                    at = target
                last = now
                at, step = steer(at, target)
                player.stdin.write(head.take(at, BLOCK, step).tobytes())  # waits for room
                at += BLOCK * step
        finally:
            ended(player)


def steer(at: float, target: float) -> tuple[float, float]:
    """Where a block is read, so that readers come near `target` without a cut.

    Args:
        at: where the last one ended.
        target: where this one should begin.

    Returns:
        (where it begins, seconds per sample).
    """
    if abs(target - at) > _JUMP_SECONDS:
        return target, 1 / RATE
    slew = min(max(_GAIN * (target - at), -_MAX_SLEW), _MAX_SLEW)
    return at, (1 + slew) / RATE


def picture_delay(recent: dict[str, float]) -> float:
    """How late the picture is, seconds: in the virtual camera, else where it comes last.

    Args:
        recent: stage -> seconds it took of late, see `LiveTimes`.
    """
    to = {stage: seconds for stage, seconds in dict(recent).items() if stage.startswith("to ")}
    for stage in ("to virtual camera", "to browser", "to window"):
        if stage in to:
            return to[stage]
    return max(to.values(), default=0.0)


def commands() -> str:
    """What makes the virtual microphone by hand, for a shell."""
    return " && ".join(f"pactl load-module {' '.join(module)}" for module in _MODULES)


def check_virtual_microphone() -> None:
    """Raise OutputError where it cannot be made; the hint has the commands."""
    if not sys.platform.startswith("linux"):
        raise OutputError(
            "--virtual-microphone is for Linux",
            "elsewhere choose the real microphone in the other program; recordings are in step",
        )
    if shutil.which("pactl") is None or shutil.which("pacat") is None:
        raise OutputError(
            "a virtual microphone needs pactl and pacat",
            "sudo apt install pulseaudio-utils (Fedora: dnf install pulseaudio-utils, Arch: pacman -S libpulse)",
        )
    if pactl("info") is None:
        raise OutputError(
            "no virtual microphone: no PulseAudio or PipeWire answers",
            f"systemctl --user start pipewire-pulse (or pulseaudio --start), then try again; it does: {commands()}",
        )


def _make() -> list[str]:
    """The numbers of the modules, loaded, or left over from a run that was killed."""
    numbers = []
    for module in _MODULES:
        found = re.search(
            rf"^(\d+)\t.*\b{module[1]}\b", pactl("list", "short", "modules") or "", re.MULTILINE
        )
        number = found[1] if found else (pactl("load-module", *module) or "").strip()
        if not number:
            raise OutputError("the virtual microphone cannot be made", f"try it by hand: {commands()}")
        numbers.append(number)
    return numbers
