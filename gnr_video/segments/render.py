"""Rendering some segments of a video: warmed up on the frames before, so that they equal those of a run over all of it.

Each stage goes on from what it wrote down in an earlier run (`Frame.note`): faces keep their identities, colours and
drawings. Faces that come or go just then are right after the frames of the warm-up, which are not written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from engines.errors import InputError
from gnr_video import pipeline
from gnr_video.frame import Frame
from gnr_video.media.container_source import ContainerSource, Reading
from gnr_video.media.joining import decoding_order
from gnr_video.media.open import local_path, open_sink
from gnr_video.media.sink import VideoSink
from gnr_video.media.source import SourceInfo, VideoSource
from gnr_video.pipeline import Counts
from gnr_video.segments.plan import Plan
from gnr_video.segments.store import Segment
from gnr_video.timing import StageTimes
from gnr_video.tracking.finder import Finder
from gnr_video.translator import Translator

_SLACK = 0.02
"""Seconds that are read before the first frame that is wanted, for times that no float has."""


def render_segment(
    translator: Translator,
    source: str | os.PathLike[str],
    plan: Plan,
    index: int,
    folder: Path,
    *,
    states: Mapping[str, Any] | None = None,
    on_frame: Callable[[Counts], None] = lambda counts: None,
) -> Segment:
    """Render one segment of a video by itself, in any process: everything but the translator can be pickled.

    Args:
        translator: of this process, with the weights and options of all others.
        source: the file, as this process sees it.
        plan: see `gnr_video.segments.plan.make_plan`.
        index: which one.
        folder: where `plan.file` puts it.
        states: those of the segment before, which say who is who. Without them faces are numbered anew: right for the
            first segment, and for videos of one person.
        on_frame: see `render`.

    Returns:
        What is in it.
    """
    made: list[Segment] = []
    only = range(index, index + 1)
    render(translator, source, plan, only, folder, states=states, done=made.append, on_frame=on_frame)
    return made[0]


def render(
    translator: Translator,
    source: str | os.PathLike[str],
    plan: Plan,
    segments: range,
    folder: Path,
    *,
    states: Mapping[str, Any] | None = None,
    times: StageTimes | None = None,
    done: Callable[[Segment], None] = lambda segment: None,
    on_frame: Callable[[Counts], None] = lambda counts: None,
) -> None:
    """Render segments in a row, in one run.

    Args:
        states: see `render_segment`.
        times: takes how long the stages take.
        done: told of each segment when its file is whole.
        on_frame: told after each frame how many there are, without those of the warm-up.

    Raises:
        GnrVideoError: as `Translator.translate_video`. Segments that are done stay.
    """
    schedule = translator.schedule(source)
    with (
        _frames(translator, source, plan, segments, states) as (info, frames, warnings),
        Finder(
            translator.face_model, translator.faces, translator.lookahead, private=translator.private
        ) as finder,
        closing(translator.open_look()) as look,
        closing(_Writer(plan, segments, _sinks(translator, plan, info, folder), on_frame)) as writer,
    ):
        finder.reset()
        look.reset()
        warned = schedule.looks.warnings if schedule else ()
        writer.done = lambda segment: done(
            replace(segment, warnings=(*warned, *warnings(), *segment.warnings))
        )
        pipeline.run(
            frames,
            writer.write,
            finder,
            look,
            times or StageTimes(),
            styles=schedule,
            start=plan.output.start or 0.0,
            hold=translator.hold,
            on_frame=writer.count,
            states=states or {"first": float(plan.first)},
        )
        writer.finish()


def _sinks(translator: Translator, plan: Plan, info: SourceInfo, folder: Path) -> Callable[[int], VideoSink]:
    """What opens a segment's file: its pictures alone."""
    pictures = VideoSource()
    pictures.info = info
    size = translator.compositor.output_size(info.size)
    codec = translator.codec_for(f"x{plan.suffix}", plan.output, info.size)

    def open_one(index: int) -> VideoSink:
        file = plan.file(folder, index)
        return open_sink(file, pictures, size=size, codec=codec, crf=plan.output.crf, overwrite=True)

    return open_one


@contextmanager
def _frames(
    translator: Translator,
    source: str | os.PathLike[str],
    plan: Plan,
    segments: range,
    states: Mapping[str, Any] | None,
) -> Iterator[tuple[SourceInfo, Iterator[Frame], Callable[[], list[str]]]]:
    """What is known of a video, its frames from the warm-up of some segments to what is seen beyond them, and what
    the user should know by now.
    """
    with ExitStack() as opened:
        whole = opened.enter_context(translator.open_source(source, f"x{plan.suffix}", plan.output))
        begin = plan.warm(segments.start)
        if states is not None:
            begin = states["pts"] * whole.info.time_base
        frames: Iterator[Frame] = iter(())
        part: VideoSource | None = None
        if begin > plan.first:
            with suppress(InputError):  # no frame is so late
                part = opened.enter_context(_open_part(source, plan, begin))
                frames = _from(begin, part, whole.info)
        first = next(frames, None)
        if first is None or (states is not None and first.pts != states["pts"]):
            # It cannot be begun in the middle, or not exactly: what is before is read as well.
            frames = _from(begin, whole, whole.info)
        else:
            frames = _before(first, frames)
        read = [whole] if part is None else [whole, part]
        yield whole.info, _noting(frames, plan, segments), lambda: [w for one in read for w in one.warnings]


def _open_part(source: str | os.PathLike[str], plan: Plan, begin: Fraction) -> ContainerSource:
    text, output = os.fspath(source), plan.output
    part = Reading(
        start=max(float(begin) - _SLACK, 0.0),
        end=output.end,
        keep_fields=output.interlaced == "keep",
        stream=output.stream,
        clock=plan.clock,
    )
    return ContainerSource(text, f"file:{local_path(text)}", part)


def _from(begin: Fraction, video: VideoSource, like: SourceInfo) -> Iterator[Frame]:
    """Frames from a time on; none of a part that looks otherwise than the whole, whose picture changes its size."""
    if video.info.size != like.size or video.info.time_base != like.time_base:
        return
    video.info = replace(video.info, has_alpha=like.has_alpha)
    for frame in video:
        if frame.pts * frame.time_base >= begin:
            yield frame


def _before(first: Frame, others: Iterator[Frame]) -> Iterator[Frame]:
    yield first
    yield from others


def _noting(frames: Iterator[Frame], plan: Plan, segments: range) -> Iterator[Frame]:
    """Frames up to those that must be seen beyond the segments; the first of each warm-up asks for states."""
    warmed = segments.start + 1
    end, beyond = plan.end(segments.stop - 1), 0
    for frame in frames:
        at = frame.pts * frame.time_base
        if end is not None and at >= end:
            beyond += 1
            if beyond > plan.lookahead + 1:
                return
        if warmed < plan.count and at >= plan.warm(warmed):
            frame.props["states"] = {"first": float(plan.first), "pts": frame.pts}
            warmed = _warmed(plan, warmed, at)
        yield frame


def _warmed(plan: Plan, index: int, at: Fraction) -> int:
    """The first segment, from `index` on, whose warm-up begins after a time."""
    while index < plan.count and at >= plan.warm(index):
        index += 1
    return index


class _Writer:
    """Writes the frames of a run into a file for each segment. To be closed."""

    def __init__(
        self,
        plan: Plan,
        segments: range,
        open_sink: Callable[[int], VideoSink],
        on_frame: Callable[[Counts], None],
    ) -> None:
        self.done: Callable[[Segment], None] = lambda segment: None
        self._plan, self._segments, self._open_sink, self._on_frame = plan, segments, open_sink, on_frame
        self._index = self._warmed = segments.start
        self._warmed += 1
        self._states: dict[int, dict[str, Any]] = {}
        self._sink: VideoSink | None = None
        self._begun = time.perf_counter()
        self._run = self._written = self._here = Counts()
        self._is_kept = False

    def write(self, frame: Frame) -> None:
        """Take the next frame of the run, one of the warm-up or beyond the segments included."""
        at = frame.pts * frame.time_base
        if (states := frame.props.pop("states", None)) is not None:
            ready = _warmed(self._plan, self._warmed, at)
            self._states.update(dict.fromkeys(range(self._warmed, ready), states))
            self._warmed = ready
        while self._index in self._segments and self._ends_before(at):
            self._end()
        self._is_kept = self._index in self._segments and at >= self._plan.start(self._index)
        if self._is_kept:
            if self._sink is None:
                self._sink = self._open_sink(self._index)
            self._sink.write(frame)

    def count(self, run: Counts) -> None:
        """Told after each frame what has come through the run."""
        if self._is_kept:
            new = run - self._run
            self._here += new
            self._written += new
            self._on_frame(self._written)
        self._run = run + Counts()

    def finish(self) -> None:
        """The run has ended: what is left are segments that no frame lies in."""
        while self._index in self._segments:
            self._end()

    def close(self) -> None:
        """Remove what is not whole."""
        if self._sink is not None:
            self._sink.abort()

    def _ends_before(self, at: Fraction) -> bool:
        end = self._plan.end(self._index)
        return end is not None and at >= end

    def _end(self) -> None:
        sink, self._sink = self._sink, None
        now = time.perf_counter()
        states = self._states.pop(self._index + 1, None)
        segment = Segment(self._index, self._here, seconds=now - self._begun, states=states)
        if sink is not None:
            sink.finish()
            segment = replace(
                segment,
                size=sink.path.stat().st_size,
                pts=decoding_order(sink.path),
                codec=sink.codec,
                warnings=tuple(sink.warnings),
            )
        self._begun, self._here = now, Counts()
        self.done(segment)
        self._index += 1
