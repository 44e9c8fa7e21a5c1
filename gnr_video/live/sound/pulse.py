"""PulseAudio and PipeWire, through the programs that come with both: pactl, parec and pacat."""

from __future__ import annotations

import logging
import os
import select
import shutil
import subprocess
import threading
import time
from contextlib import suppress

import numpy as np

from gnr_video.live.sound.microphones import (
    BLOCK_SECONDS,
    DEFAULT,
    RATE,
    Block,
    Device,
    Microphone,
    MicrophoneLost,
)

log = logging.getLogger(__name__)

_ANSWER_SECONDS = 5.0
_WAIT_SECONDS = 0.2
SINK, SOURCE = "gnr_video_voice", "gnr_video"
"""The virtual microphone's own, which is never listened to."""
MONITOR = ".monitor"
"""How sources end that are what is played, and no microphones."""


def pactl(*arguments: str) -> str | None:
    """What pactl prints; None where it is not installed, or has no server to talk to."""
    program = shutil.which("pactl")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ANSWER_SECONDS,
            env=os.environ | {"LC_ALL": "C"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.debug("pactl %s: %s", " ".join(arguments), error)
        return None
    if done.returncode:
        log.debug("pactl %s: %s", " ".join(arguments), done.stderr.strip())
        return None
    return done.stdout


def started(command: list[str]) -> subprocess.Popen[bytes]:
    """One of the server's programs, with pipes; a Ctrl-C in the terminal is not for it."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env=os.environ | {"LC_ALL": "C"},
        start_new_session=True,
    )


def ended(process: subprocess.Popen[bytes]) -> None:
    """End it, whatever it does. May be called twice."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def pulse_sources() -> list[Device]:
    """The server's microphones; [] where there is no server."""
    listed = pactl("list", "sources")
    return [] if listed is None else [d for d in parse_sources(listed) if _is_microphone(d.name)]


def _is_microphone(name: str) -> bool:
    return bool(name) and not name.endswith(MONITOR) and name != SOURCE


def parse_sources(text: str) -> list[Device]:
    """Names and titles from `pactl list sources`."""
    found: list[Device] = []
    name = ""
    for line in text.splitlines():
        key, _, value = line.strip().partition(": ")
        if key == "Name":
            name = value
        elif key == "Description" and name:
            found.append(Device(name, value))
            name = ""
    return found


def find_source(spec: str) -> str | None:
    """The server's name of a source: its default one, or one of that name or title; None: it has none such."""
    if shutil.which("parec") is None:
        return None
    listed = pactl("list", "sources")
    if listed is None:
        return None
    sources = parse_sources(listed)
    if spec == DEFAULT:
        default = (pactl("get-default-source") or "").strip()
        # With nothing plugged in the default is what is being played.
        return (
            default
            if _is_microphone(default)
            else next((d.name for d in sources if _is_microphone(d.name)), None)
        )
    wanted = spec.casefold()
    return next((d.name for d in sources if wanted in (d.name.casefold(), d.title.casefold())), None)


class PulseMicrophone(Microphone):
    """A source of the server, mono.

    Args:
        source: the server's name of it.
    """

    def __init__(self, source: str) -> None:
        self.name = f"microphone {source}"
        self._source = source
        self._command = [
            "parec",
            f"--device={source}",
            "--format=float32le",
            f"--rate={RATE}",
            "--channels=1",
        ]
        self._command += ["--latency-msec=20", "--client-name=gnr-video", "--stream-name=microphone"]
        # Begun with the first read: what waits until then would be taken for new.
        self._recorder: subprocess.Popen[bytes] | None = None
        self._events: subprocess.Popen[bytes] | None = None
        self._rest = b""

    def read(self, stop: threading.Event) -> Block | None:
        if self._recorder is None:
            self._recorder, self._events = started(self._command), started(["pactl", "subscribe"])
        sound = self._recorder.stdout
        events = None if self._events is None else self._events.stdout
        assert sound is not None
        ready = select.select([sound, events] if events else [sound], [], [], _WAIT_SECONDS)[0]
        if events is not None and events in ready:
            self._heed(os.read(events.fileno(), 1 << 16))
        if sound not in ready:
            return None
        data = os.read(sound.fileno(), int(4 * RATE * BLOCK_SECONDS))
        now = time.perf_counter()
        if not data:
            raise MicrophoneLost(f"{self.name} has vanished")
        data = self._rest + data
        whole = len(data) - len(data) % 4
        self._rest = data[whole:]
        samples = np.frombuffer(data[:whole], np.float32).reshape(-1, 1)
        return Block(samples, now - len(samples) / RATE)

    def _heed(self, news: bytes) -> None:
        """When a source is unplugged the server goes on with another one: with what is being played, at worst."""
        if not news:  # the server has gone, which parec finds out as well
            self._end_events()
        elif b"'remove' on source #" in news:
            listed = pactl("list", "sources")
            if listed is not None and self._source not in {device.name for device in parse_sources(listed)}:
                raise MicrophoneLost(f"{self.name} has vanished")

    def _end_events(self) -> None:
        events, self._events = self._events, None
        if events is not None:
            ended(events)

    def close(self) -> None:
        self._end_events()
        if self._recorder is not None:
            ended(self._recorder)
