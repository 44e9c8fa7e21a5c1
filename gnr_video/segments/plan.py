"""Plan: into which segments a video is cut, and where the frames begin that each is warmed up on."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

from gnr_video.media.open import comes_once, local_path
from gnr_video.media.source import VideoSource
from gnr_video.options import OutputOptions

JOINED = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
"""Containers whose packets can be copied from file to file."""


@dataclass(frozen=True)
class Lengths:
    """How long things are, seconds.

    Attributes:
        segment: of a segment; the last is up to half as long again, or half as long.
        warm_up: before a segment that is not rendered on from the one before (docs/notes/resume.md says what for).
        least: shorter videos are not cut: what a crash can cost is less than a minute or two.
    """

    segment: float = 30.0
    warm_up: float = 2.0
    least: float = 90.0


LENGTHS = Lengths()


@dataclass(frozen=True)
class Plan:
    """Segments of a video. Times are seconds on the clock of its frames.

    Attributes:
        count: of segments. The last one ends with the video.
        segment, warm_up: lengths.
        first: the time of the first frame.
        clock: what was taken off the input's own times.
        suffix: of the output, with its dot.
        output: what part of the input is translated, and how it is written.
        lookahead: frames that must be seen beyond a segment.
    """

    count: int
    segment: Fraction
    warm_up: Fraction
    first: Fraction
    clock: Fraction
    suffix: str
    output: OutputOptions
    lookahead: int

    def start(self, index: int) -> Fraction:
        """When a segment begins: it has the frames from then on."""
        return self.first + index * self.segment

    def end(self, index: int) -> Fraction | None:
        """When the next begins; None: it lasts until the video ends."""
        return self.start(index + 1) if index + 1 < self.count else None

    def warm(self, index: int) -> Fraction:
        """From when on frames must have been seen to render a segment."""
        return self.start(index) - self.warm_up

    def file(self, folder: Path, index: int) -> Path:
        """Where a segment's pictures are."""
        return folder / f"{index:05}{self.suffix}"

    def describe(self) -> dict[str, object]:
        """The same for the same segments."""
        values = {**asdict(self), "output": None, "lookahead": None}
        return {key: str(value) for key, value in values.items()}


def can_be_cut(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> bool:
    """Whether a video can be read again from the middle, and its output joined: a file, and one of `JOINED`."""
    text, out = os.fspath(source), os.fspath(target)
    if comes_once(text) or out.endswith(("/", os.sep)) or os.path.isdir(out):
        return False
    return Path(out).suffix.lower() in JOINED and os.path.isfile(local_path(text))


def make_plan(
    video: VideoSource,
    target: str | os.PathLike[str],
    output: OutputOptions,
    *,
    lookahead: int,
    lengths: Lengths | None = None,
) -> Plan | None:
    """The segments of a video; None of one that is short, or of no known length.

    Args:
        video: just opened: all of it that is to be translated.
        lookahead: frames that smoothing sees ahead.
        lengths: None: the usual.
    """
    lengths = lengths or LENGTHS
    info = video.info
    opened = video.opening()
    duration = info.duration_seconds
    if opened is None or duration is None or duration < lengths.least or info.is_still or info.is_mixed:
        return None
    segment = Fraction(lengths.segment).limit_denominator(1000)
    return Plan(
        count=max(1, round(duration / segment)),
        segment=segment,
        warm_up=Fraction(lengths.warm_up).limit_denominator(1000),
        first=opened.first,
        clock=opened.clock,
        suffix=Path(target).suffix.lower(),
        output=output,
        lookahead=lookahead,
    )
