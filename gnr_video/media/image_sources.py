"""Sources of pictures that are files of their own: one image, or a folder of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from engines.errors import InputError
from gnr_video.frame import Frame
from gnr_video.media.formats import IMAGE_SUFFIXES, ImageFormat, sniff_file
from gnr_video.media.image_files import Picture, opened, picture_size, read_picture, to_picture
from gnr_video.media.source import SourceInfo, VideoSource

IMAGE_RATE = Fraction(25)
"""Frames per second of a folder of images, which has no clock of its own."""

_MILLISECOND = Fraction(1, 1000)
_UNTIMED = 100  # milliseconds of a picture that does not say how long; browsers show it that long


class StillSource(VideoSource):
    """One picture, as a video of a single frame.

    Args:
        path: its name.
        data: what is in it, where it is read already.
    """

    def __init__(self, path: str, data: bytes | None = None) -> None:
        self._picture = read_picture(path, data)
        self.info = still_info(path, self._picture, "image")

    def __iter__(self) -> Iterator[Frame]:
        image, alpha, notes = self._picture
        for note in notes:
            self.warn(f"{self.info.path}: {note}")
        yield Frame(image, 0, self.info.time_base, 0, {"duration": 1}, alpha)


class AnimationSource(VideoSource):
    """The pictures of an animated WebP or AVIF, each as long as it says.

    Args:
        path: its name.
        data: what is in it.
        kind: its format.
        start, end: see `gnr_video.media.open.open_source`.
    """

    def __init__(
        self,
        path: str,
        data: bytes,
        kind: ImageFormat,
        *,
        start: float | None = None,
        end: float | None = None,
    ) -> None:
        self._data, self._kind = data, kind
        self._start, self._end = start or 0.0, math.inf if end is None else end
        with opened(path, data, kind) as picture:
            count = int(getattr(picture, "n_frames", 1))
            durations, is_transparent = [], False
            for index in range(count):
                picture.seek(index)
                picture.load()
                durations.append(round(picture.info.get("duration", 0)) or _UNTIMED)
                is_transparent |= "A" in picture.getbands() and picture.getextrema()[-1] != (255, 255)
            picture.seek(0)
            first = to_picture(picture)
        times = [sum(durations[:index]) for index in range(count)]
        self._frames = [
            (index, times[index], durations[index])
            for index in range(count)
            if self._start * 1000 <= times[index] < self._end * 1000
        ]
        if not self._frames:
            raise InputError(
                f"{path} has no frame in the part asked for", f"it lasts {sum(durations) / 1000:g} s"
            )
        lasts = sum(duration for *_, duration in self._frames)
        self.info = replace(
            still_info(path, first, kind.name.lower()),
            average_rate=Fraction(1000 * len(self._frames), lasts),
            time_base=_MILLISECOND,
            duration_seconds=lasts / 1000,
            frame_count=len(self._frames),
            is_still=False,
            has_alpha=is_transparent,
        )

    def __iter__(self) -> Iterator[Frame]:
        begin = self._frames[0][1]
        with opened(self.info.path, self._data, self._kind) as picture:
            for number, (index, time, duration) in enumerate(self._frames):
                picture.seek(index)
                image, alpha, _ = to_picture(picture)
                yield Frame(image, time - begin, _MILLISECOND, number, {"duration": duration}, alpha)


def still_info(path: str, picture: Picture, container: str) -> SourceInfo:
    """What is known of a single picture."""
    height, width = picture.image.shape[:2]
    return SourceInfo(
        path=path,
        width=width,
        height=height,
        average_rate=IMAGE_RATE,
        time_base=1 / IMAGE_RATE,
        duration_seconds=float(1 / IMAGE_RATE),
        frame_count=1,
        codec=Path(path).suffix[1:].lower(),
        pix_fmt="rgb24" if picture.alpha is None else "rgba",
        container=container,
        coded_height=height,
        has_alpha=picture.alpha is not None,
        is_still=True,
    )


class ImageFolderSource(VideoSource):
    """The images of a folder in natural order (frame2 before frame10)."""

    def __init__(self, folder: Path, *, start: float | None = None, end: float | None = None) -> None:
        files = image_files(folder)
        if not files:
            raise InputError(
                f"the folder {folder} has no images", "it needs files such as 0001.png, or give a video file"
            )
        first = int(np.ceil((start or 0.0) * float(IMAGE_RATE)))
        last = len(files) if end is None else int(np.ceil(end * float(IMAGE_RATE)))
        self._files = files[first:last]
        if not self._files:
            raise InputError(
                f"{folder} has no frame in the part asked for",
                f"it lasts {len(files) / float(IMAGE_RATE):g} s",
            )
        self._first = read_picture(self._files[0])
        self.info = replace(
            still_info(str(folder), self._first, "images"),
            duration_seconds=float(len(self._files) / IMAGE_RATE),
            frame_count=len(self._files),
            codec=self._files[0].suffix[1:].lower(),
            is_still=False,
            is_mixed=any(picture_size(file) not in (None, _size(self._first)) for file in self._files[1:]),
        )

    def names(self) -> list[str]:
        return [file.name for file in self._files]

    def __iter__(self) -> Iterator[Frame]:
        for index, file in enumerate(self._files):
            picture = self._first if index == 0 else read_picture(file)
            if _size(picture) != self.info.size and not self.info.is_mixed:
                raise InputError(f"{file} is not of the size of the first image", "make all the same size")
            image, alpha, notes = picture
            for note in notes:
                self.warn(f"{file.name}: {note}")
            yield Frame(image, index, self.info.time_base, index, {"duration": 1}, alpha)


def _size(picture: Picture) -> tuple[int, int]:
    return picture.image.shape[1], picture.image.shape[0]


def image_files(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order, by their names; files without a suffix by their content."""
    files = [
        file
        for file in folder.iterdir()
        if file.name[0] != "."
        and file.is_file()
        and (
            file.suffix.lower() in IMAGE_SUFFIXES or (not file.suffix and sniff_file(file).format is not None)
        )
    ]
    return sorted(files, key=lambda file: natural_key(file.name))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts names as people count: frame2 before frame10."""
    parts = re.findall(r"\d+|\D+", name.lower())
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts]
