"""A walk through styles as a video: one face of one picture, its look on the way from seed to seed."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from engines.errors import StyleError
from gnr_video.frame import Frame, Image
from gnr_video.media.color import ColorTags
from gnr_video.media.source import SourceInfo, VideoSource
from gnr_video.styles.schedule import Walk

if TYPE_CHECKING:
    from gnr_video.styles.schedule import StyleSchedule
    from gnr_video.translator import Translator


class StyledFace(VideoSource):
    """A video of one face under a schedule; encoded once, decoded for every frame.

    Args:
        translator: has the engine.
        face: uint8 SxSx3 RGB, as `Translator.find_face` cuts it out.
        schedule: says the style at each time.
        count: frames.
        fps: frames per second.
        size: side of the pictures, pixels.
    """

    def __init__(
        self, translator: Translator, face: Image, schedule: StyleSchedule, count: int, fps: int, size: int
    ) -> None:
        self._engine = translator.engine
        self._content = self._engine.encode(translator.fitted(face)[None])
        self._schedule = schedule
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
        for i in range(self.info.frame_count or 0):
            code = self._schedule.code_at(float(i * time_base))
            picture = self._engine.decode_styles(self._content, code)[0]
            image = cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC)
            yield Frame(np.asarray(image, np.uint8), i, time_base, i, {"duration": 1})


def write_walk(
    translator: Translator,
    face: Image,
    target: str | Path,
    *,
    seconds: float = 12.0,
    fps: int = 30,
    every: float = 2.0,
    size: int = 512,
    overwrite: bool = False,
) -> Path:
    """Write a video of a face that walks through looks, from the translator's own and back to it.

    Args:
        translator: has the engine and the first look.
        face: uint8 SxSx3 RGB, as `Translator.find_face` cuts it out.
        target: mp4, webm, gif and so on.
        seconds, fps: of the video.
        every: seconds from look to look, nearly: a whole number of them makes the walk, at least two.
        size: side of the pictures, pixels.

    Raises:
        OutputError: exists without `overwrite`, unknown extension, not writable.
    """
    from gnr_video.media.open import open_sink

    if translator.looks is None:
        raise StyleError(f"{translator.weights_name} translates in one look only: there is nowhere to walk")
    count = max(2, round(seconds * fps))
    stops = max(2, round(seconds / every))
    walk = Walk(translator.looks, count / fps / stops, stops=stops)
    with (
        StyledFace(translator, face, walk, count, fps, size) as source,
        open_sink(target, source, overwrite=overwrite) as sink,
    ):
        for frame in source:
            sink.write(frame)
        sink.finish()
    return Path(target)
