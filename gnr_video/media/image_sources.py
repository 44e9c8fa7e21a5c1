"""Sources of pictures that are files of their own: one image, or a folder of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from engines.errors import InputError
from gnr_video.frame import Frame
from gnr_video.media.images import IMAGE_EXTENSIONS, read_image
from gnr_video.media.source import SourceInfo, VideoSource

IMAGE_RATE = Fraction(25)
"""Frames per second of a folder of images, which has no clock of its own."""


class StillSource(VideoSource):
    """One picture, as a video of a single frame."""

    def __init__(self, file: Path) -> None:
        self._image = read_image(file)
        height, width = self._image.shape[:2]
        self.info = SourceInfo(
            path=str(file),
            width=width,
            height=height,
            average_rate=IMAGE_RATE,
            time_base=1 / IMAGE_RATE,
            duration_seconds=float(1 / IMAGE_RATE),
            frame_count=1,
            codec=file.suffix[1:].lower(),
            pix_fmt="rgb24",
            container="image",
            coded_height=height,
            is_still=True,
        )

    def __iter__(self) -> Iterator[Frame]:
        yield Frame(self._image, 0, self.info.time_base, 0, {"duration": 1})


class ImageFolderSource(VideoSource):
    """The images of a folder in natural order (frame2 before frame10), all of one size."""

    def __init__(self, folder: Path, *, start: float | None = None, end: float | None = None) -> None:
        files = sorted(
            (f for f in folder.iterdir() if f.suffix.lower() in IMAGE_EXTENSIONS and f.name[0] != "."),
            key=lambda f: natural_key(f.name),
        )
        if not files:
            known = ", ".join(sorted(IMAGE_EXTENSIONS))
            raise InputError(
                f"the folder {folder} has no images", f"it needs {known} files, or give a video file"
            )
        first = int(np.ceil((start or 0.0) * float(IMAGE_RATE)))
        last = len(files) if end is None else int(np.ceil(end * float(IMAGE_RATE)))
        self._files = files[first:last]
        if not self._files:
            raise InputError(
                f"{folder} has no frame in the part asked for",
                f"it lasts {len(files) / float(IMAGE_RATE):g} s",
            )
        self._first = read_image(self._files[0])
        height, width = self._first.shape[:2]
        self.info = SourceInfo(
            path=str(folder),
            width=width,
            height=height,
            average_rate=IMAGE_RATE,
            time_base=1 / IMAGE_RATE,
            duration_seconds=float(len(self._files) / IMAGE_RATE),
            frame_count=len(self._files),
            codec=self._files[0].suffix[1:].lower(),
            pix_fmt="rgb24",
            container="images",
            coded_height=height,
        )

    def __iter__(self) -> Iterator[Frame]:
        for index, file in enumerate(self._files):
            image = self._first if index == 0 else read_image(file)
            height, width = image.shape[:2]
            if (width, height) != self.info.size:
                expected = f"{self.info.width}x{self.info.height}"
                raise InputError(
                    f"{file} is {width}x{height}, but the first image is {expected}",
                    "make all images of the folder the same size",
                )
            yield Frame(image, index, self.info.time_base, index, {"duration": 1})


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts names as people count: frame2 before frame10."""
    parts = re.findall(r"\d+|\D+", name.lower())
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts]
