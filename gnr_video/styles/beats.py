"""Beat tracking: the times of the beats in a video's sound, for styles that follow the music.

Sound of any kind that FFmpeg decodes, taken in block by block: an hour needs no more memory than a minute.
The tracker is librosa's (Ellis 2007), an optional package.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import InputError
from engines.installation import install_line
from gnr_video.styles.schedule import BeatTimes

if TYPE_CHECKING:
    from types import ModuleType

log = logging.getLogger(__name__)

RATE = 22050
HOP = 512
BLOCK = 1300
"""Hops of sound that are analysed at once: 30 seconds."""
CONTEXT = 8
"""Hops on both sides of a block that belong to its neighbours."""
SPAN = 13000
"""Hops in which one tempo is looked for: five minutes."""
TEMPO_HINT = "give a tempo instead: --bpm 120"

Sound = NDArray[np.float32]
"""float32 mono samples at `RATE`."""


def find_beats(path: str | os.PathLike[str]) -> BeatTimes:
    """Beats of the first sound track of a file or URL.

    Args:
        path: anything FFmpeg opens.

    Returns:
        Times in seconds since the first picture of the video (of the sound, where there is no picture).

    Raises:
        InputError: librosa is missing, or there is no sound or no beat in it.
    """
    name = os.fspath(path)
    if name in ("-", "pipe:", "pipe:0"):
        raise InputError("a pipe can be read only once: its beats cannot be found beforehand", TEMPO_HINT)
    librosa = _import_librosa()
    beats: list[float] = []
    origin, blocks = _open_sound(name)
    for start, envelope in _spans(_envelope(librosa, blocks)):
        if not envelope.any():
            continue
        _, times = librosa.beat.beat_track(onset_envelope=envelope, sr=RATE, hop_length=HOP, units="time")
        beats += [origin + start * HOP / RATE + float(time) for time in times]
    # Where two spans meet, both may have had a beat.
    beats = [b for i, b in enumerate(beats) if i == 0 or b - beats[i - 1] > 0.15]
    if not beats:
        raise InputError(f"there is no beat in the sound of {name}", TEMPO_HINT)
    log.info("%d beats in %s", len(beats), name)
    return BeatTimes(tuple(beats))


def _import_librosa() -> ModuleType:
    try:
        import librosa
    except ImportError as error:
        raise InputError(
            f"finding beats needs librosa: {error}", f"{install_line('beat')}, or --bpm 120"
        ) from error
    return librosa


def _open_sound(name: str) -> tuple[float, Iterator[Sound]]:
    """(time of the first sample, the samples as they are decoded)."""
    import av

    try:
        container = av.open(name if "://" in name else f"file:{name}")
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{name} cannot be opened for its sound: {error}", TEMPO_HINT) from error
    if not container.streams.audio:
        container.close()
        raise InputError(f"{name} has no sound track to find beats in", TEMPO_HINT)
    stream = container.streams.audio[0]
    pictures = container.streams.video[0] if container.streams.video else None

    def start(of: Any) -> float:
        return float((of.start_time or 0) * of.time_base) if of is not None and of.time_base else 0.0

    def samples() -> Iterator[Sound]:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
        with container:
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:
                    log.debug("a packet of sound is passed over: %s", error)
                    continue
                for frame in frames:
                    for part in resampler.resample(frame):
                        yield part.to_ndarray()[0]
            for part in resampler.resample(None):
                yield part.to_ndarray()[0]

    return start(stream) - (start(pictures) if pictures is not None else start(stream)), samples()


def _envelope(librosa: Any, sound: Iterator[Sound]) -> Iterator[NDArray[np.float32]]:
    """Onset strength, one value for each hop, in blocks; `CONTEXT` hops around a block keep its edges clean."""
    context, block = CONTEXT * HOP, BLOCK * HOP
    held = np.zeros(context, np.float32)
    parts: deque[Sound] = deque([held])
    length = context
    ended = False
    while not ended:
        while length < block + 2 * context:
            part = next(sound, None)
            if part is None:
                ended = True
                break
            parts.append(part)
            length += len(part)
        samples = np.concatenate(parts)
        here = block if not ended else max(length - context, 0)
        window = samples[: here + 2 * context]
        if len(window) > 2048:
            strength = librosa.onset.onset_strength(y=window, sr=RATE, hop_length=HOP)
            yield strength[CONTEXT : CONTEXT + -(-here // HOP)].astype(np.float32)
        parts = deque([samples[here:]])
        length -= here


def _spans(blocks: Iterator[NDArray[np.float32]]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(first hop, the envelope) of spans of at least `SPAN` hops but for the last."""
    start, held = 0, np.zeros(0, np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        if len(held) >= SPAN:
            yield start, held
            start, held = start + len(held), np.zeros(0, np.float32)
    if len(held):
        yield start, held
