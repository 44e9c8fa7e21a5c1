"""A page's microphone: whose it is just now, and its sound on its way into the session (WebRTC only)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from gnr_video.live.sound import Feed, Sound
from gnr_video.live.sound.microphones import mono_or_stereo
from gnr_video.live.sound.resample import Samples

PREFETCH_SECONDS = 0.08
"""Sound waits so long in aiortc's jitter buffer (four packets); pictures do not."""
_LOST_SECONDS = 1.0
"""Of packets that did not arrive: as much is silence, more is a new beginning."""


class PageMicrophone:
    """The microphone that pages bring; one of them at a time, and none until it is turned on.

    Args:
        sound: gets it.
    """

    def __init__(self, sound: Sound) -> None:
        self.owner: object | None = None
        self._sound = sound
        self._feed: Feed | None = None

    def use(self, page: object) -> None:
        """Hear this page from now on."""
        self._close()
        self.owner = page
        self._feed = self._sound.open("the browser's microphone")

    def give_back(self, page: object) -> None:
        """This page is heard no more; what was heard before it, is."""
        if self.owner is page:
            self._close()

    def _close(self) -> None:
        self.owner = None
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    async def take_track(self, page: object, track: Any) -> None:
        """Take the sound of an audio track of aiortc, until it ends."""
        from aiortc.mediastreams import MediaStreamError

        expected: int | None = None
        try:
            while True:
                frame = await track.recv()
                arrived = time.perf_counter()
                if self.owner is not page or self._feed is None:
                    expected = None
                    continue
                samples = _floats(frame)
                missing = 0 if expected is None else frame.pts - expected
                if 0 < missing <= _LOST_SECONDS * frame.sample_rate:
                    silence = np.zeros((missing, samples.shape[1]), np.float32)
                    samples = np.concatenate([silence, samples])
                elif missing:
                    self._feed.end()
                expected = frame.pts + frame.samples
                captured = arrived - PREFETCH_SECONDS - len(samples) / frame.sample_rate
                self._feed.push(samples, frame.sample_rate, captured)
        except MediaStreamError:
            return


def _floats(frame: Any) -> Samples:
    """Samples of 16 bits as aiortc's decoders give them: float32 [n, 1 or 2]."""
    samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels) / 32768
    return mono_or_stereo(np.asarray(samples, np.float32))
