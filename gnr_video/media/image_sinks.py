"""Sinks of pictures that are files of their own: one image, or a numbered sequence."""

from __future__ import annotations

import errno
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from engines.errors import OutputError
from gnr_video.frame import Frame
from gnr_video.media.formats import PNG, by_suffix, kept_suffix
from gnr_video.media.image_files import write_picture
from gnr_video.media.sink import VideoSink, temporary_name, writing
from gnr_video.media.transparency import ON_WHITE

if TYPE_CHECKING:
    from gnr_video.media.source import VideoSource

NUMBER_PATTERN = re.compile(r"%0?\d*d")


class StillSink(VideoSink):
    """One image file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, path.suffix[1:].lower())
        self._temporary = temporary_name(path)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.touch()

    def write(self, frame: Frame) -> None:
        if self.frames_written:
            raise ValueError("an image file takes one frame")
        try:
            _save(self._temporary, frame, self)
        except BaseException:
            self.abort()
            raise
        self.frames_written += 1

    def finish(self) -> None:
        if not self._open:
            return
        if not self.frames_written:
            self.abort()
            return
        with writing(self.path):
            os.replace(self._temporary, self.path)
        self._open = False

    def abort(self, keep: bool = False) -> None:
        if keep and self.frames_written:
            self.finish()
        elif self._open:
            self._open = False
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)


class ImageSequenceSink(VideoSink):
    """One image for each frame: numbered from 0, or in a folder under the names of the files that they are from."""

    def __init__(
        self, path: Path, source: VideoSource, size: tuple[int, int], *, overwrite: bool = False
    ) -> None:
        is_pattern = bool(NUMBER_PATTERN.search(path.name))
        folder = path.parent if is_pattern else path
        pattern = path.name if is_pattern else "%05d.png"
        if len(NUMBER_PATTERN.findall(pattern)) != 1 or pattern.count("%") != 1:
            raise OutputError(f"the pattern {pattern!r} must hold one number", "write it as %05d")
        super().__init__(folder / pattern, Path(pattern).suffix[1:].lower())
        self._folder, self._pattern = folder, pattern
        self._size = None if source.info.is_mixed else size
        self._names = [] if is_pattern else kept_names(source.names())
        self._written: list[Path] = []
        given = Path(source.info.path)
        if given.exists() and folder.exists() and given.is_dir() and folder.samefile(given):
            raise OutputError(f"the output folder {folder} is the input folder", "choose another folder")
        before, after = (re.escape(part) for part in NUMBER_PATTERN.split(pattern))
        numbered = re.compile(rf"{before}\d+{after}")
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            names = (f.name for f in folder.iterdir())
            ours = set(self._names)
            taken = [n for n in names if (n in ours if ours else numbered.fullmatch(n))]
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if taken and not overwrite:
            raise OutputError(
                f"{folder} holds {taken[0]} and maybe more already", "give --overwrite to replace such images"
            )
        if source.info.has_audio:
            self.warn("audio is left out: images cannot hold it")

    def write(self, frame: Frame) -> None:
        if self._size is not None and frame.size != self._size:
            raise ValueError(f"the sink was opened for frames of {self._size}, got {frame.size}")
        number = self.frames_written
        target = self._folder / (self._names[number] if self._names else self._pattern % number)
        temporary = temporary_name(target)
        try:
            _save(temporary, frame, self)
            with writing(target):
                os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            self.abort()
            raise
        self._written.append(target)
        self.frames_written += 1

    def finish(self) -> None:
        self._open = False

    def abort(self, keep: bool = False) -> None:
        if self._open and not keep:
            for file in self._written:
                with suppress(OSError):
                    file.unlink()
        self._open = False


def _save(file: Path, frame: Frame, sink: VideoSink) -> None:
    if frame.alpha is not None and not holds_alpha(file):
        sink.warn(f"{ON_WHITE}: {file.suffix} cannot hold it")
    data = write_picture(file, frame.image, frame.alpha, sink.path)
    with writing(sink.path):
        file.write_bytes(data)


def kept_names(names: Sequence[str]) -> list[str]:
    """What translations of pictures are called in a folder of their own: as the pictures, each name once."""
    made = []
    for name in names:
        suffix = kept_suffix(Path(name), by_suffix(Path(name)) or PNG)
        made.append(f"{Path(name).stem}{suffix}")
    twice = {name for name, count in Counter(map(os.path.normcase, made)).items() if count > 1}
    return [
        f"{name}{Path(new).suffix}" if os.path.normcase(new) in twice else new
        for name, new in zip(names, made, strict=True)
    ]


def holds_alpha(path: Path) -> bool:
    """Whether pictures of that name have transparency."""
    kind = by_suffix(path)
    return kind is not None and kind.alpha
