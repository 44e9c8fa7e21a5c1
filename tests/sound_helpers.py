"""Sound for tests: devices whose clocks are off, clips whose pictures and beeps say when they are, both measured."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from gnr_video.live.sound.resample import Samples

BITS, SIDE = 10, 16
"""Of a picture's number, written into it as black and white squares of so many pixels."""
BEEP_SECONDS = 0.02
NEAR_SECONDS = 0.1
"""Between a beep and the picture that it is compared with."""


class DeviceBlock(NamedTuple):
    """What a simulated device gives: its samples' numbers, when the first was captured, and what it says of that."""

    first: int
    count: int
    true: float
    stamped: float


def device(
    seconds: float, rate: float, block: int, *, ppm: float = 0.0, jitter: float = 0.0, seed: int = 0
) -> Iterator[DeviceBlock]:
    """Blocks of a device whose quartz is off by `ppm` and whose times are late by `jitter` seconds on average."""
    real = rate * (1 + ppm * 1e-6)
    firsts = np.arange(0, int(seconds * real), block)
    late = np.random.default_rng(seed).exponential(jitter, len(firsts)) if jitter else np.zeros(len(firsts))
    for first, true, stamped in zip(
        firsts.tolist(), (firsts / real).tolist(), (firsts / real + late).tolist()
    ):
        yield DeviceBlock(first, block, true, stamped)


def sine(times: NDArray[np.float64], hertz: float = 440.0) -> Samples:
    """float32 [n, 1]."""
    return np.asarray(0.5 * np.sin(2 * np.pi * hertz * times), np.float32)[:, None]


def numbered(index: int, size: tuple[int, int] = (BITS * SIDE, 64)) -> NDArray[np.uint8]:
    """A picture that says which it is."""
    image = np.full((size[1], size[0], 3), 90, np.uint8)
    for bit in range(BITS):
        image[: size[1] // 2, bit * SIDE : (bit + 1) * SIDE] = 235 if index >> bit & 1 else 20
    return image


def number_of(image: NDArray[np.uint8]) -> int:
    """Which picture it is."""
    row = image[image.shape[0] // 4, SIDE // 2 :: SIDE].mean(-1)
    return sum(1 << bit for bit in range(BITS) if row[bit] > 128)


def make_beeping_clip(
    path: Path, seconds: float, *, fps: int = 30, rate: int = 48_000, every: float = 1.0, codec: str = "aac"
) -> Path:
    """Numbered pictures, and a short beep in the middle of every `every` seconds."""
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "18"})
        video.width, video.height, video.pix_fmt = BITS * SIDE, 64, "yuv420p"
        sound: Any = out.add_stream(codec, rate=rate)
        sound.codec_context.layout = "mono"
        packets = []
        for index in range(round(seconds * fps)):
            picture = av.VideoFrame.from_ndarray(numbered(index), "rgb24")
            picture.pts, picture.time_base = index, Fraction(1, fps)
            packets += video.encode(picture)
        packets += video.encode(None)
        times = np.arange(round(seconds * rate)) / rate
        since = (times - every / 2) % every
        wave = np.where(since < BEEP_SECONDS, 0.8 * np.sin(2 * np.pi * 1000 * since), 0).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(wave[None], "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        packets += [*sound.encode(frame), *sound.encode(None)]
        packets.sort(key=lambda packet: float(packet.dts * packet.time_base))
        for packet in packets:
            out.mux(packet)
    return path


class Measured(NamedTuple):
    """A recording of a beeping clip, read back.

    Attributes:
        numbers, times: of its pictures.
        beeps: when each begins, seconds.
        heard: seconds of sound.
    """

    numbers: list[int]
    times: list[float]
    beeps: list[float]
    heard: float

    def offsets(self, frames: int, fps: int, every: float = 1.0) -> list[float]:
        """How much later than its picture each beep is, seconds; the clip of so many frames was repeated.

        Beeps beside which no picture was recorded are left out: the machine was too busy to say.
        """
        taken, loops = [], 0
        for before, number in zip([0, *self.numbers], self.numbers):
            loops += number < before
            taken.append((loops * frames + number) / fps)
        found = []
        for beep in self.beeps:
            nearest = int(np.argmin(np.abs(np.array(self.times) - beep)))
            if abs(beep - self.times[nearest]) > NEAR_SECONDS:
                continue
            at = taken[nearest] + beep - self.times[nearest]
            found.append((at - every / 2 + every / 2) % every - every / 2)
        return found


def measure(path: Path) -> Measured:
    """Read a recording back."""
    numbers, times, parts = [], [], []
    with av.open(str(path)) as container:
        for frame in container.decode():
            if isinstance(frame, av.VideoFrame):
                numbers.append(number_of(frame.to_ndarray(format="rgb24")))
                times.append(float(frame.time))
            else:
                samples = frame.to_ndarray()
                channels = frame.layout.nb_channels
                loud = np.abs(samples if frame.format.is_planar else samples.reshape(-1, channels).T).max(0)
                parts.append((float(frame.time), frame.sample_rate, loud))
    if not parts:
        return Measured(numbers, times, [], 0.0)
    loud = np.concatenate([part for *_, part in parts])
    at = np.concatenate([start + np.arange(len(part)) / rate for start, rate, part in parts])
    over = at[loud > 0.3]
    first = np.concatenate([[True], np.diff(over) > 0.1]) if len(over) else np.zeros(0, bool)
    return Measured(numbers, times, [float(t) for t in over[first]], float(at[-1] - at[0]))
