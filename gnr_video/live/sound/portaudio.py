"""Microphones of PortAudio (the package sounddevice): those of macOS and Windows."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

import numpy as np

from engines.errors import EngineError
from engines.installation import install_line
from gnr_video.live.sound.microphones import (
    BLOCK_SECONDS,
    DEFAULT,
    Block,
    Device,
    Microphone,
    MicrophoneLost,
    NoMicrophone,
    mono_or_stereo,
)

_WAIT_SECONDS = 0.2
_SILENT_SECONDS = 2.0
"""Without a block, after which a device counts as lost: PortAudio hardly ever says so."""
_LONGEST_AGE = 2.0


def _sounddevice() -> Any:
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the library that it wraps is missing
        raise EngineError(
            f"a microphone needs sounddevice, which cannot be used: {error}", install_line("voice")
        ) from None
    return sounddevice


def portaudio_devices() -> list[Device]:
    """Devices with an input; [] where PortAudio is not installed."""
    try:
        devices = list(_sounddevice().query_devices())
    except EngineError:
        return []
    return [Device(str(d["index"]), str(d["name"])) for d in devices if d["max_input_channels"] > 0]


class PortAudioMicrophone(Microphone):
    """A device of PortAudio at its own rate.

    Args:
        device: its number, a part of its name, or "default".
    """

    def __init__(self, device: str) -> None:
        sounddevice = _sounddevice()
        # Devices that were plugged in since are not seen by a PortAudio that is running.
        sounddevice._terminate()
        sounddevice._initialize()
        chosen = None if device == DEFAULT else int(device) if device.isdecimal() else device
        self._blocks: queue.Queue[Block] = queue.Queue()
        try:
            found = sounddevice.query_devices(chosen, "input")
            self.name = f"microphone {found['name']}"
            self.rate = float(found["default_samplerate"])
            self._stream = sounddevice.InputStream(
                device=found["index"],
                channels=min(2, int(found["max_input_channels"])),
                samplerate=self.rate,
                blocksize=round(self.rate * BLOCK_SECONDS),
                dtype="float32",
                latency="low",
                callback=self._take,
            )
            self._stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            what = "no microphone" if device == DEFAULT else f"no microphone {device}"
            raise NoMicrophone(f"{what}: {error}") from None
        self._last = time.perf_counter()

    def _take(self, data: Any, count: int, times: Any, status: Any) -> None:
        """Called by PortAudio, on a thread of its own."""
        now = time.perf_counter()
        # Some systems know no capture times, or say that it is this moment.
        age, seconds = times.currentTime - times.inputBufferAdcTime, count / self.rate
        captured = now - (max(age, seconds) if age < _LONGEST_AGE else seconds)
        self._blocks.put(Block(mono_or_stereo(np.array(data, np.float32)), captured))

    def read(self, stop: threading.Event) -> Block | None:
        try:
            block = self._blocks.get(timeout=_WAIT_SECONDS)
        except queue.Empty:
            if time.perf_counter() - self._last > _SILENT_SECONDS or not self._stream.active:
                raise MicrophoneLost(f"{self.name} has vanished") from None
            return None
        self._last = time.perf_counter()
        return block

    def close(self) -> None:
        self._stream.close()
