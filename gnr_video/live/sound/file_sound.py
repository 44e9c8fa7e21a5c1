"""FileSound: the sound of a file that stands in for a camera, in step with its pictures."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from gnr_video.live.sound.hub import Feed
from gnr_video.live.sound.resample import Samples
from gnr_video.media.source import VideoSource

log = logging.getLogger(__name__)

AHEAD_SECONDS = 0.1
"""Of the picture on show, that sound is brought: what lies further ahead waits, as a slow file may begin anew."""
_SAME_PACE = 0.005


class FileSound:
    """Decodes what lies between the pictures of a source as they are read, on their thread.

    Args:
        source: whose first frame has not been taken; `has_sound` says whether it has any.
        feed: gets it.
    """

    def __init__(self, source: VideoSource, feed: Feed) -> None:
        template = _template(source)
        assert template is not None
        self._decoder = template.codec_context
        self._queue = source.attach([template.index])
        self._feed = feed
        self._waiting: deque[tuple[float, int, Samples]] = deque()
        self._offset: float | None = None
        self._first = 0.0
        self._end = 0.0
        self._kind: tuple[Any, ...] = ()
        self._resampler: Any = None

    def follow(self, seconds: float, due: float) -> None:
        """A picture was read.

        Args:
            seconds: its time in the file.
            due: when it is shown, on the session's clock.
        """
        if self._offset is None or abs(due - seconds - self._offset) > _SAME_PACE:
            if self._offset is None:
                self._first = seconds
            self._offset = due - seconds
            self._feed.begin(due)
        for _, packet in self._queue.drain():
            self._decode(packet)
        self._bring(seconds + AHEAD_SECONDS)

    def finish(self) -> None:
        """The last picture was read: what is left is heard until the first one comes again."""
        for _, packet in self._queue.drain():
            self._decode(packet)
        self._decode(None)
        self._bring(float("inf"))

    def _bring(self, until: float) -> None:
        while self._offset is not None and self._waiting and self._waiting[0][0] < until:
            seconds, rate, samples = self._waiting.popleft()
            early = max(0, round((self._first - seconds) * rate))  # before the first picture
            if early < len(samples):
                captured = self._offset + seconds + early / rate
                self._feed.push(samples[early:], rate, captured, exact=True)

    def _decode(self, packet: Any) -> None:
        import av

        try:
            for frame in self._decoder.decode(packet):
                for even in self._as_floats(frame):
                    at = self._end if even.pts is None else float(even.pts * even.time_base)
                    samples = np.ascontiguousarray(even.to_ndarray().T)
                    self._end = at + len(samples) / even.sample_rate
                    self._waiting.append((at, even.sample_rate, samples))
        except (av.FFmpegError, ValueError):  # a damaged packet is silence
            log.debug("a packet of sound is left out", exc_info=True)

    def _as_floats(self, frame: Any) -> Iterator[Any]:
        """A decoded frame as float32, mono or stereo, at its own rate."""
        import av

        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
            self._kind, self._resampler = kind, av.AudioResampler("fltp", layout, frame.sample_rate)
        yield from self._resampler.resample(frame)


def has_sound(source: VideoSource) -> bool:
    """Whether there is sound that can be decoded."""
    return _template(source) is not None


def _template(source: VideoSource) -> Any:
    """The stream that players choose: the default one, else the first."""
    streams = [s for s in source.streams_to_copy() if s.type == "audio" and s.codec_context is not None]
    return next((s for s in streams if s.disposition & 1), streams[0] if streams else None)
