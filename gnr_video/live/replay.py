"""The last five seconds of what a page shows, kept small, and the loops that are made of them to be shared.

What is kept is bounded in time, number and size. It is forgotten with the camera that it came from and with the last
page that could ask for it: nobody gets the pictures of whoever was here before.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engines.errors import OutputError
from gnr_video.frame import Frame, Image
from gnr_video.live.recorder import TIME_BASE, LiveInput
from gnr_video.live.sinks import ThreadedSink
from gnr_video.media.images import decode_jpeg, encode_jpeg, even, fitted, wiped
from gnr_video.media.open import open_sink

SECONDS = 5.0
FPS = 20.0
GIF_FPS = 10.0
"""Pictures a second at most that are kept, and that a GIF has: it is ten times a video's size."""
REPLAY_SIDE = 640
GIF_SIDE = 400
"""Longer side in pixels of what is kept, and of a GIF."""
KEPT_QUALITY, PHOTO_QUALITY = 88, 95


class Stopped(Exception):
    """Nobody wants the loop any more."""


@dataclass(frozen=True)
class Moment:
    """One picture of the last seconds.

    Attributes:
        captured: on `time.perf_counter`'s clock.
        before, after: the camera's picture and what was shown, JPEGs of one size.
    """

    captured: float
    before: bytes
    after: bytes


def camera_picture(frame: Frame, size: tuple[int, int] | None = None) -> Image:
    """The camera's picture of a shown frame, of the same side, and as large as what was shown (or `size`).

    That is what the session says may be shown of it: `frame.props["before"]`, a function; where it says nothing, what
    was shown.
    """
    height, width = frame.image.shape[:2]
    may_show = frame.props.get("before")
    before: Image = frame.image if may_show is None else may_show()
    if before.shape == frame.image.shape and size is not None:
        image = shrunk(before, size)
    else:
        image = fitted(before, size or (width, height))
    is_turned = may_show is not None and frame.props["mirrored"]
    return np.asarray(cv2.flip(image, 1), np.uint8) if is_turned else image


class Replay(ThreadedSink):
    """Keeps the last `SECONDS` of what is shown, on a thread of its own; the server hands it the pictures.

    Args:
        since: when the camera in use was chosen; pictures captured before are another one's, and given to nobody.
    """

    def __init__(self, since: Callable[[], float] = lambda: -math.inf) -> None:
        super().__init__("replay")
        self._since = since
        self._lock = threading.Lock()
        self._moments: deque[Moment] = deque(maxlen=math.ceil(SECONDS * FPS))
        self._forgotten = self._due = -math.inf

    def show(self, frame: Frame) -> None:
        captured: float = frame.props["captured"]
        if captured < self._due:
            return
        # The next one is due as if all had come on time, unless the camera is slower than that.
        self._due = max(self._due + 1 / FPS, captured + 0.5 / FPS)
        super().show(frame)

    def deliver(self, frame: Frame) -> None:
        height, width = frame.image.shape[:2]
        size = smaller((width, height), REPLAY_SIDE)
        before = encode_jpeg(camera_picture(frame, size), KEPT_QUALITY)
        after = encode_jpeg(shrunk(frame.image, size), KEPT_QUALITY)
        moment = Moment(frame.props["captured"], before, after)
        with self._lock:
            if moment.captured >= self._forgotten:
                self._moments.append(moment)

    def forget(self) -> None:
        """Drop what is kept, and what is on its way."""
        with self._lock:
            self._moments.clear()
            self._forgotten = time.perf_counter()

    def moments(self) -> list[Moment]:
        """Those of the `SECONDS` before the newest, oldest first."""
        with self._lock:
            kept = list(self._moments)
        oldest = max(self._since(), kept[-1].captured - SECONDS) if kept else 0.0
        return [moment for moment in kept if moment.captured >= oldest]


def shrunk(image: Image, size: tuple[int, int]) -> Image:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def smaller(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(width, height) with its longer side at most `side`, both even, as encoders want them."""
    zoom = min(1.0, side / max(size))
    return max(2, round(size[0] * zoom) // 2 * 2), max(2, round(size[1] * zoom) // 2 * 2)


def thinned(moments: Sequence[Moment], fps: float) -> list[Moment]:
    """So many of them that there are no more than `fps` a second."""
    kept: list[Moment] = []
    for moment in moments:
        if not kept or moment.captured - kept[-1].captured > 0.9 / fps:
            kept.append(moment)
    return kept


def wipe_share(place: float) -> float:
    """How much of the picture is translated at a place (0 to 1) of a loop: none at both ends, all in the middle."""
    return 0.5 - 0.5 * math.cos(2 * math.pi * place)


def make_loop(
    moments: Sequence[Moment], target: Path, *, wipe: bool = False, stopping: Callable[[], bool] = bool
) -> None:
    """Write what was shown as a video or a GIF that can be played again and again.

    Args:
        moments: two at least, as `Replay.moments` gives them.
        target: .mp4 or .gif; replaced if it exists.
        wipe: whether it begins and ends as the camera's picture, and the translation is drawn over it and away.
        stopping: asked with every picture; once it is true, the loop is given up.

    Raises:
        OutputError: there are no pictures, or it cannot be written.
        Stopped: see `stopping`.
    """
    is_gif = target.suffix == ".gif"
    if is_gif:
        moments = thinned(moments, GIF_FPS)
    if len(moments) < 2:
        raise OutputError("there is no picture yet", "wait a moment")
    first = decode_jpeg(moments[0].after)
    assert first is not None
    size = smaller((first.shape[1], first.shape[0]), GIF_SIDE if is_gif else REPLAY_SIDE)
    begin, length = moments[0].captured, moments[-1].captured - moments[0].captured
    fps = (len(moments) - 1) / length if length > 0 else FPS
    sink = open_sink(target, LiveInput(size, fps), overwrite=True)
    try:
        last = -1
        for index, moment in enumerate(moments):
            if stopping():
                raise Stopped
            image = decode_jpeg(moment.after)
            assert image is not None
            if wipe:
                before = decode_jpeg(moment.before)
                assert before is not None
                image = wiped(before, image, wipe_share(index / len(moments)))
            last = max(last + 1, round((moment.captured - begin) / TIME_BASE))
            sink.write(Frame(fitted(even(image), size), last, TIME_BASE, index))
        sink.finish()
    except BaseException:
        sink.abort()
        raise
