"""Microphone, where a voice comes from; which one an option means, and which there are."""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from typing import NamedTuple

from engines.errors import InputError
from gnr_video.live.sound.resample import Samples

RATE = 48_000
"""Samples a second that devices are asked for; they may give others."""
BLOCK_SECONDS = 0.02
DEFAULT = "default"


class Block(NamedTuple):
    """Sound of a device.

    Attributes:
        samples: float32 [n, 1 or 2], -1..1.
        captured: when the first one was, on the clock of `time.perf_counter`.
    """

    samples: Samples
    captured: float


class Device(NamedTuple):
    """A microphone that could be opened: what `--microphone` takes, and what people call it."""

    name: str
    title: str


class MicrophoneLost(InputError):
    """A microphone that was there gives no more sound."""


class Microphone(ABC):
    """Something that gives sound in real time.

    Attributes:
        name: for people.
        rate: nominal samples a second.
    """

    name: str = ""
    rate: float = RATE

    @abstractmethod
    def read(self, stop: threading.Event) -> Block | None:
        """Wait for the next block; None when for some tenths of a second nothing came.

        Raises:
            MicrophoneLost: it is gone.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the device. May be called twice."""


def mono_or_stereo(samples: Samples) -> Samples:
    """Of more than two channels, which may be anything, their mean."""
    return samples if samples.shape[1] <= 2 else samples.mean(axis=1, keepdims=True)


def open_microphone(spec: str) -> Microphone:
    """Open what stands behind `--microphone`.

    On Linux it is a source of PulseAudio or PipeWire, else a device of ALSA (a name such as plughw:1,0, or a card's
    number); elsewhere a device of PortAudio, by a part of its name or its number.

    Raises:
        InputError: there is none, it is busy, or not to be used; the hint lists those that there are.
        EngineError: what reads it is not installed.
    """
    if not sys.platform.startswith("linux"):
        from gnr_video.live.sound.portaudio import PortAudioMicrophone

        return PortAudioMicrophone(spec)
    from gnr_video.live.sound.alsa import AlsaMicrophone, reads_alsa
    from gnr_video.live.sound.pulse import PulseMicrophone, find_source

    source = find_source(spec)
    if source is not None:
        return PulseMicrophone(source)
    if reads_alsa():
        return AlsaMicrophone(spec)
    from gnr_video.live.sound.portaudio import PortAudioMicrophone

    return PortAudioMicrophone(spec)


def list_microphones() -> list[Device]:
    """What `open_microphone` could open here, best first; does not open them."""
    if not sys.platform.startswith("linux"):
        from gnr_video.live.sound.portaudio import portaudio_devices

        return portaudio_devices()
    from gnr_video.live.sound.alsa import alsa_devices
    from gnr_video.live.sound.pulse import pulse_sources

    return [*pulse_sources(), *alsa_devices()]


def which_there_are() -> str:
    """A hint: the microphones of this machine."""
    devices = list_microphones()
    if not devices:
        return "plug one in, or allow it in the system's privacy settings; --microphone none goes on without sound"
    return f"there is {', '.join(f'{device.name} ({device.title})' for device in devices)}"
