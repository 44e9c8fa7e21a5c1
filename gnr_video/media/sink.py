"""VideoSink, the contract of whatever frames are written to, and how errors of writing become one line."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from engines.errors import OutputError
from gnr_video.frame import Frame

log = logging.getLogger(__name__)

_SAFE_NAME = 140
"""Bytes of a name that every disk takes; encrypted folders take the fewest."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class VideoSink(ABC):
    """An output being written: a context manager that finishes, or aborts when there was an exception.

    Attributes:
        path: the final name (for an image sequence, its pattern).
        codec: the encoder really used.
        warnings: what the user should know; grows while frames are written.
        frames_written: so far.
    """

    def __init__(self, path: Path, codec: str) -> None:
        self.path = path
        self.codec = codec
        self.warnings: list[str] = []
        self.frames_written = 0
        self._open = True

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Append a frame; its size must be the one given to `open_sink`.

        Raises:
            OutputError: the disk is full, the file cannot be written. What was written is removed.
        """

    def write_sound(self, samples: NDArray[np.float32]) -> None:
        """Append sound, float32 [n, 2] at 48 kHz, to a sink that was opened with `sound`; raises as `write`."""
        raise ValueError("the sink was opened without sound")

    @abstractmethod
    def finish(self) -> None:
        """Write what is still under way and give the file its final name. Does nothing the second time.

        Call it after the source has been read to its end, so that audio after the last frame is in.

        Raises:
            OutputError: as `write`.
        """

    @abstractmethod
    def abort(self, keep: bool = False) -> None:
        """Stop early: remove what was written or, with `keep`, finish it if a frame is in.

        Does nothing after `finish`. Raises nothing without `keep`.
        """

    def __enter__(self) -> VideoSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.abort()

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
            log.warning("%s", text)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of FFmpeg and of the system while writing become one line for the user."""
    import av

    try:
        yield
    except (av.FFmpegError, OSError) as error:
        number = getattr(error, "errno", None)
        reason = getattr(error, "strerror", None) or str(error)
        if number in _FULL:
            raise OutputError(
                f"no room left for {path}: {reason}", "free some space, or write elsewhere"
            ) from error
        raise OutputError(
            f"cannot write {path}: {reason}", "check that the folder exists and that you may write to it"
        ) from error


def temporary_name(path: Path) -> Path:
    """The name beside the target under which it is written: clip.mp4 -> .clip.part.mp4; no longer than a long one."""
    added = len(b"..part")
    if len(os.fsencode(path.name)) + added <= _SAFE_NAME:
        return path.with_name(f".{path.stem}.part{path.suffix}")
    mark = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]
    room = len(os.fsencode(path.stem)) - added - len(mark)
    return path.with_name(f".{shortened(path.stem, room)}{mark}.part{path.suffix}")


def shortened(text: str, size: int) -> str:
    """As much of a name as fits into `size` bytes, whole letters."""
    while len(os.fsencode(text)) > size:
        text = text[:-1]
    return text
