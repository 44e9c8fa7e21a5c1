"""A walk through styles as a video: one face of one picture, its look on the way from seed to seed."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gnr_video.frame import Frame
from gnr_video.media.color import ColorTags
from gnr_video.media.source import SourceInfo, VideoSource
from gnr_video.styles.schedule import Walk

if TYPE_CHECKING:
    from gnr_video.still import StillFace
    from gnr_video.styles.looks import Looks
    from gnr_video.styles.schedule import StyleSchedule


class WalkSource(VideoSource):
    """A video of a still face whose style follows a schedule.

    Args:
        face: a picture's.
        schedule: says the style at each time.
        count: frames.
        fps: frames per second.
        size: side of the pictures, pixels.
    """

    def __init__(self, face: StillFace, schedule: StyleSchedule, count: int, fps: int, size: int) -> None:
        self._face, self._schedule = face, schedule
        self.info = SourceInfo(
            path="",
            width=size,
            height=size,
            average_rate=Fraction(fps),
            time_base=Fraction(1, fps),
            duration_seconds=count / fps,
            frame_count=count,
            codec="rawvideo",
            pix_fmt="rgb24",
            container="styles",
            color=ColorTags(),
            coded_height=size,
        )

    def __iter__(self) -> Iterator[Frame]:
        size, time_base = self.info.width, self.info.time_base
        codes = (self._schedule.code_at(float(i * time_base)) for i in range(self.info.frame_count or 0))
        for i, picture in enumerate(self._face.through(codes, float(time_base))):
            image = cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC)
            yield Frame(np.asarray(image, np.uint8), i, time_base, i, {"duration": 1})


def write_walk(
    face: StillFace,
    looks: Looks,
    target: str | Path,
    *,
    seconds: float = 12.0,
    fps: int = 30,
    every: float = 2.0,
    size: int = 512,
    overwrite: bool = False,
) -> Path:
    """Write a video of a face that walks through looks, from the first and back to it.

    Args:
        face: a picture's.
        looks: the first look.
        target: mp4, webm, gif and so on.
        seconds, fps: of the video.
        every: seconds from look to look, nearly: a whole number of them makes the walk, at least two.
        size: side of the pictures, pixels.

    Raises:
        OutputError: exists without `overwrite`, unknown extension, not writable.
    """
    from gnr_video.media.open import open_sink

    count = max(2, round(seconds * fps))
    stops = max(2, round(seconds / every))
    walk = Walk(looks, count / fps / stops, stops=stops)
    with (
        WalkSource(face, walk, count, fps, size) as source,
        open_sink(target, source, overwrite=overwrite) as sink,
    ):
        for frame in source:
            sink.write(frame)
        sink.finish()
    return Path(target)
