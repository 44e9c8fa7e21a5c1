"""Microphone, where a voice comes from: the contract of the libraries that read one."""

from __future__ import annotations

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


class NoMicrophone(InputError):
    """There is none of that name, or it cannot be opened."""


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
