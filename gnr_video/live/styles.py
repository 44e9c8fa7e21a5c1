"""LiveStyles: the styles on show in a live session, changed and blended while they are asked for."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.errors import StyleError
from gnr_video.styles.code import Saved, Seed, StyleCode
from gnr_video.styles.grammar import StyleExpression
from gnr_video.styles.looks import Looks, style_colors
from gnr_video.styles.schedule import Row, StyleSchedule

if TYPE_CHECKING:
    from engines.base import Engine

BLEND_SECONDS = 2.0
TEXT_LENGTH = 2000
"""Letters that a style's text may have: a long mix of many looks has some hundreds."""


class LiveStyles(StyleSchedule):
    """The styles on show, changed while they are asked for; safe from any thread.

    Args:
        styles: a style text, as `gnr_video.styles.looks.Looks` reads it.
        engine: its weights give the text a meaning.
        face_model: MediaPipe's model, to find the face in a reference picture.

    Attributes:
        looks: the styles.
        other: those they are mixed with, None for none.

    Raises:
        StyleError: it does not parse, or cannot be had with these weights.
    """

    def __init__(self, styles: str | int, engine: Engine, *, face_model: Path | None = None) -> None:
        self._engine = engine
        self._face_model = face_model
        self._lock = threading.RLock()
        self.looks = self.parse(styles)
        self.other: Looks | None = None
        self._mix = 0.0
        self._blend_start: float | None = None

    def parse(self, text: str | int) -> Looks:
        """The styles a text stands for; StyleError where it does not parse."""
        text = str(text).strip()
        check_text(text)
        return self._looks(text)

    def saved(self, path: Path) -> Looks:
        """The look in a file; StyleError where there is none."""
        return self._looks(StyleExpression(((Saved(path), 1.0),)))

    def colored(self, place: str, name: str) -> Looks:
        """The styles on show with another colour of hair, eyes or skin; StyleError where that cannot be had."""
        return self._looks([look.expression.colored(place, name) for look in self.looks.looks])

    def colors(self) -> dict[str, str]:
        """Of the first style on show, see `gnr_video.styles.looks.style_colors`."""
        return style_colors(self.looks.codes[0], self._engine)

    def _looks(self, styles: str | StyleExpression | list[StyleExpression]) -> Looks:
        return Looks(styles, self._engine, face_model=self._face_model)

    @property
    def mix(self) -> float:
        """0 = `looks` alone, 1 = `other` alone. A blend that has come to its end is over."""
        with self._lock:
            if self._blend_start is not None and self.other is not None:
                self._mix = max((time.perf_counter() - self._blend_start) / BLEND_SECONDS, 0.0)
                if self._mix >= 1.0:
                    self.show(self.other)
            return self._mix

    def show(self, looks: Looks, other: Looks | None = None, mix: float = 0.0) -> None:
        """Show these styles, mixed with others."""
        with self._lock:
            self.looks, self.other, self._mix, self._blend_start = looks, other, mix, None

    def blend(self, to: Looks | None = None) -> tuple[str, str]:
        """Change to other styles in `BLEND_SECONDS`; the labels of both. A blend under way ends at once."""
        with self._lock:
            mix = self.mix
            if self._blend_start is not None and self.other is not None:
                self.show(self.other)
                mix = 0.0
            if to is not None:
                mix = 0.0
            self.other = to or self.other or self.following()
            self._blend_start = time.perf_counter() - mix * BLEND_SECONDS
            return self.looks.label, self.other.label

    def following(self, by: int = 1) -> Looks:
        """The seed after (or before) the first one on show, in the colours asked for; 0 where there is none."""
        shown = self.looks.looks[0].expression
        seed = Seed(0 if shown.seed is None else shown.seed + by)
        return self._looks(StyleExpression(((seed, 1.0),), colors=shown.colors))

    def code_at(self, time_seconds: float, track_id: int = 0) -> Row:
        with self._lock:
            mix, looks, other = self.mix, self.looks, self.other
        now = looks.w(track_id)
        return now if other is None or mix == 0.0 else now + np.float32(mix) * (other.w(track_id) - now)

    def code(self) -> StyleCode:
        """The first person's style as it is now, with a label that says so."""
        with self._lock:
            if self.other is None or self.mix == 0.0:
                return self.looks.codes[0]
            share = self.mix
            label = f"{self.looks.codes[0].label}*{1 - share:.2f}+{self.other.codes[0].label}*{share:.2f}"
            return StyleCode(tuple(self.code_at(0.0).tolist()), label)


def check_text(text: str) -> None:
    """Raise StyleError for a text that is no style, whatever the grammar: too long, or with letters nobody types."""
    if len(text) > TEXT_LENGTH:
        raise StyleError(f"a style has {TEXT_LENGTH} letters at most, this one has {len(text)}")
    if not text.isprintable():
        raise StyleError("a style is one line, without control characters")
