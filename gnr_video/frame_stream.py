"""FrameStream: frames translated one by one, each as soon as it comes, for programs with a loop of their own."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from gnr_video.frame import Frame, Image
from gnr_video.hold import Drawings
from gnr_video.pipeline import Look, compose, cut, draw, track
from gnr_video.timing import StageTimes
from gnr_video.tracking.finder import Finder

if TYPE_CHECKING:
    from gnr_video.styles.schedule import StyleSchedule
    from gnr_video.tracking.selection import FaceChoice


class FrameStream:
    """What is kept from frame to frame.

    Args:
        look: how faces are drawn and pasted; closed with the stream.
        face_model, faces: see `Finder`.
        hold: frames that a drawing is shown for.

    To be closed; those whom nobody closes are when the interpreter ends.
    """

    def __init__(self, look: Look, face_model: Path | None, faces: FaceChoice, hold: int) -> None:
        self._look, self._times = look, StageTimes()
        self._finder = Finder(face_model, faces, private=look.privacy is not None)
        self._drawings = Drawings(look.engine, look.effects, self._times, hold)
        self._first: float | None = None
        # MediaPipe's graphs must be closed before the interpreter ends.
        self.close = weakref.finalize(self, _close, self._finder, look)

    def translate(self, frame: Frame, styles: StyleSchedule | None) -> Image:
        """The frame with its faces translated, uint8 RGB; the style clock begins with the first frame."""
        if self._first is None:
            self._first = frame.pts_seconds
        tracked = track([frame], self._finder, self._look, self._times)
        found = cut(tracked, self._look, self._times)
        since = frame.pts_seconds - self._first
        drawn = draw(found, self._look, self._drawings, self._times, styles=styles, start=since)
        return next(compose(drawn, self._look, self._times)).frame.image

    def reset(self) -> None:
        """The next frame begins a new stream."""
        self._finder.reset()
        self._look.reset()
        self._first = None
        self._drawings.reset()


def _close(finder: Finder, look: Look) -> None:
    finder.close()
    look.close()
