"""SoundEncoder: samples become the sound of a container, in what its players take (part of the sink)."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import OutputError
from gnr_video.media.transcode import BITS_PER_CHANNEL, FORMATS, SOUND

RATE, CHANNELS = 48_000, 2


class SoundEncoder:
    """One stereo stream at 48 kHz: AAC in mp4 and mov, Opus in webm and mkv.

    Args:
        container: PyAV's output, before its header is written; gets the stream.
        muxer: FFmpeg's name of its format.

    Raises:
        OutputError: this FFmpeg has no encoder for it.
    """

    def __init__(self, container: Any, muxer: str) -> None:
        import av

        names = SOUND.get(muxer, ())
        encoder = next((name for name in names if name in av.codecs_available), None)
        if encoder is None:
            raise OutputError(f"{muxer} cannot hold sound here: none of {', '.join(names)} is in this FFmpeg")
        # AAC's search for the least bits takes twice as long, beside a live session, for no better sound at this rate.
        options = {"aac_coder": "fast"} if encoder == "aac" else {}
        self._stream = container.add_stream(encoder, rate=RATE, layout="stereo", options=options)
        self._format = FORMATS.get(encoder, "fltp")
        self._stream.codec_context.format = self._format
        self._stream.bit_rate = BITS_PER_CHANNEL * CHANNELS
        self._samples = 0

    def push(self, samples: NDArray[np.float32]) -> Iterator[Any]:
        """Take samples in, float32 [n, 2], that follow the last ones; the packets that are ready come out."""
        import av

        clipped = np.clip(samples, -1.0, 1.0)
        planes = clipped.reshape(1, -1) if self._format == "flt" else clipped.T
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes), self._format, "stereo")
        frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
        frame.pts = self._samples
        self._samples += len(samples)
        yield from self._stream.encode(frame)

    def flush(self) -> Iterator[Any]:
        """The packets that are still held; nothing may be pushed after it."""
        if self._samples:
            yield from self._stream.encode(None)
