"""Microphones of ALSA, the sound of Linux, through PyAV."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
import threading
import time
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from engines.errors import InputError
from gnr_video.live.sound.microphones import (
    BLOCK_SECONDS,
    DEFAULT,
    RATE,
    Block,
    Device,
    Microphone,
    MicrophoneLost,
    NoMicrophone,
    mono_or_stereo,
)
from gnr_video.live.sound.resample import Samples

log = logging.getLogger(__name__)

_CONFIGURATION = Path("/usr/share/alsa")
_LONGEST_AGE = 2.0
"""Seconds that a block may have waited for us; an older time is another clock's."""


class AlsaMicrophone(Microphone):
    """A device of ALSA, with the times at which its samples were captured.

    Args:
        device: ALSA's name, or the number of a card.
    """

    def __init__(self, device: str) -> None:
        import av

        prepare()
        self.name = f"microphone {device}"
        self._container: Any = None
        name = f"plughw:{device}" if device.isdecimal() else device
        failure: Exception | None = None
        for channels in ("1", "2"):  # a device that is no plug-in takes only what it has
            try:
                options = {"sample_rate": str(RATE), "channels": channels}
                self._container = av.open(name, format="alsa", options=options)
                break
            except (av.FFmpegError, OSError) as error:
                failure = error
                if error.errno in (errno.EBUSY, errno.ENOENT, errno.EACCES):
                    break
        if self._container is None:
            raise _open_error(device, failure)
        stream = self._container.streams.audio[0]
        self.rate = float(stream.codec_context.sample_rate)
        self._packets = self._container.demux(stream)

    def read(self, stop: threading.Event) -> Block | None:
        import av

        parts: list[Samples] = []
        captured, count = 0.0, 0
        while count < self.rate * BLOCK_SECONDS and not stop.is_set():  # devices give as little as they can
            try:
                packet = next(self._packets)
                frames = packet.decode() if packet.size else []
            except StopIteration:
                raise MicrophoneLost(f"{self.name} has ended") from None
            except (av.FFmpegError, OSError) as error:
                raise MicrophoneLost(f"{self.name} has vanished: {error.strerror or error}") from None
            for frame in frames:
                if not parts:
                    at = None if packet.pts is None else packet.pts * Fraction(packet.time_base)
                    seconds = frame.samples / self.rate
                    captured = capture_time(at, seconds, time.time(), time.perf_counter())
                samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
                parts.append(np.asarray(samples / 32768, np.float32))
                count += len(samples)
        return Block(mono_or_stereo(np.concatenate(parts)), captured) if parts else None

    def close(self) -> None:
        self._container.close()


def capture_time(at: Fraction | float | None, seconds: float, wall: float, now: float) -> float:
    """When a block was captured, on the clock of `now`.

    Args:
        at: the same by the time of day, as FFmpeg has it from ALSA; None: unknown.
        seconds: its length.
        wall, now: this moment, by the time of day and on the session's clock.
    """
    age = None if at is None else wall - float(at)
    return now - (max(age, seconds) if age is not None and age < _LONGEST_AGE else seconds)


def reads_alsa() -> bool:
    """Whether this PyAV has ALSA: its wheels for Linux do."""
    import av

    return "alsa" in av.formats_available


def prepare() -> None:
    """PyAV's wheels bring a libasound that looks for its configuration where it was built, and writes to stderr."""
    _quiet()
    if not {"ALSA_CONFIG_PATH", "ALSA_CONFIG_DIR"} & set(os.environ) and _CONFIGURATION.is_dir():
        os.environ["ALSA_CONFIG_DIR"] = str(_CONFIGURATION)


@cache
def _quiet() -> Any:
    """Have libasound say nothing on stderr: what went wrong is raised, and said once. Returns what must be kept."""
    handler = ctypes.CFUNCTYPE(
        None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p
    )
    silent = handler(lambda *about: None)
    try:
        loaded = Path("/proc/self/maps").read_text(errors="replace")
        for path in set(re.findall(r"(/\S*/libasound\S*\.so\S*)", loaded)):
            ctypes.CDLL(path).snd_lib_error_set_handler(silent)
    except (OSError, AttributeError) as error:
        log.debug("libasound goes on talking: %s", error)
    return silent


def alsa_devices(listing: Path = Path("/proc/asound/pcm")) -> list[Device]:
    """Devices that can capture, as the kernel lists them."""
    try:
        lines = listing.read_text(errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:  # 00-00: ALC256 Analog : ALC256 Analog : playback 1 : capture 1
        place, *fields = [field.strip() for field in line.split(":")]
        numbers = re.fullmatch(r"(\d+)-(\d+)", place)
        if numbers and any(field.startswith("capture") for field in fields):
            found.append(Device(f"plughw:{int(numbers[1])},{int(numbers[2])}", fields[0]))
    return found


def _open_error(device: str, error: Exception | None) -> InputError:
    number = getattr(error, "errno", None)
    if number == errno.EBUSY:
        return InputError(f"microphone {device} is in use by another program", "close it, or choose another")
    if number in (errno.EACCES, errno.EPERM):
        return InputError(
            f"no permission to use microphone {device}",
            "sudo usermod -aG audio $USER, then log out and in again",
        )
    what = "there is no microphone" if device == DEFAULT else f"there is no microphone {device}"
    if number == errno.EIO:  # FFmpeg does not say which it was
        what += " that can be opened, or another program uses it"
    return NoMicrophone(what)
