"""A video translated, in segments if it is long: what a crash leaves is taken up by the next run of the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from engines.errors import InputError, OutputError, interrupts
from gnr_video.fingerprint import fingerprint
from gnr_video.media.container_source import ContainerSource
from gnr_video.media.joining import Piece, join
from gnr_video.media.open import local_path
from gnr_video.options import OutputOptions
from gnr_video.pipeline import Counts
from gnr_video.report import Report
from gnr_video.segments.plan import Lengths, Plan, can_be_cut, make_plan
from gnr_video.segments.render import render
from gnr_video.segments.store import Segment, Store, tidy
from gnr_video.timing import StageTimes
from gnr_video.translator import Translator

Source = str | os.PathLike[str]


def translate(
    translator: Translator,
    source: Source,
    target: Source,
    output: OutputOptions = OutputOptions(),
    *,
    progress: Callable[[Counts, int | None], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
    lengths: Lengths | None = None,
) -> Report:
    """Translate as `Translator.translate_video` does; a long file is rendered in segments that are kept.

    Args:
        progress: see `Translator.translate_video`; what was done before counts.
        say: told at the beginning what becomes of segments that are there, one line.
        lengths: of segments; None: the usual.

    Raises:
        GnrVideoError: one line that says what to do. Segments that are whole wait beside the target for the next run.
    """
    plan = None
    if can_be_cut(source, target):
        tidy(Path(target))
        if output.resume:
            with translator.open_source(source, target, output) as video:
                plan = make_plan(video, target, output, lookahead=translator.lookahead, lengths=lengths)
                frames = video.info.frame_count
    if plan is None:
        report = translator.translate_video(source, target, output, progress=progress)
        tidy(Path(target), all_of_it=True)
        return report
    return _Run(translator, source, Path(target), plan, frames).run(progress, say)


class _Run:
    """One video in segments."""

    def __init__(
        self, translator: Translator, source: Source, target: Path, plan: Plan, frames: int | None
    ) -> None:
        self._translator, self._source, self._target = translator, source, target
        self._plan, self._frames = plan, frames

    def run(
        self, progress: Callable[[Counts, int | None], None] | None, say: Callable[[str], None]
    ) -> Report:
        plan, times = self._plan, StageTimes()
        self._refuse_existing()
        with Store(self._target) as store:
            self._refuse_existing()  # whoever held the lock may have made it
            before = settings(self._translator, self._source, plan)
            kept = store.take_up(before, plan, say)
            with self._keeping(store):
                for segments in store.missing(plan):
                    done = store.counts

                    def on_frame(new: Counts, done: Counts = done) -> None:
                        if progress is not None:
                            progress(done + new, self._frames)

                    on_frame(Counts())
                    render(
                        self._translator,
                        self._source,
                        plan,
                        segments,
                        store.folder,
                        states=store.states(segments.start - 1),
                        times=times,
                        done=lambda segment: store.add(segment, plan),
                        on_frame=on_frame,
                    )
                if settings(self._translator, self._source, plan) != before:
                    raise InputError(
                        f"{self._source} has changed while it was translated", "run it again when it is whole"
                    )
                report = self._finish(store, times)
        report.settings |= {"segments": plan.count, "segments_from_before": kept}
        return report

    def _refuse_existing(self) -> None:
        if os.path.exists(self._target) and not self._plan.output.overwrite:
            raise OutputError(
                f"{self._target} exists already", "give --overwrite to replace it, or another -o"
            )

    @contextmanager
    def _keeping(self, store: Store) -> Iterator[None]:
        """Whatever ends a run says what is kept of it."""
        try:
            with interrupts():
                yield
        except (KeyboardInterrupt, OutputError) as error:
            if store.done:
                kept = f"{len(store.done)} of {self._plan.count} segments are kept, the same command goes on from there"
                if isinstance(error, OutputError):
                    raise OutputError(error.message, f"{error.hint}; {kept}") from error
                error.add_note(kept)
            raise

    def _finish(self, store: Store, times: StageTimes) -> Report:
        """Join the segments, and give the whole its name."""
        plan, translator = self._plan, self._translator
        segments = [store.done[index] for index in range(plan.count)]
        pieces = [Piece(plan.file(store.folder, one.index), one.pts) for one in segments if one.size]
        whole = store.folder / f"whole{plan.suffix}"
        with translator.open_source(self._source, self._target, plan.output) as video:
            warnings = join(pieces, cast(ContainerSource, video), whole)
            info = video.info
        report = translator.report(
            info,
            self._target,
            store.counts,
            seconds=sum(one.seconds for one in segments),
            times=times,
            codec=next(one.codec for one in segments if one.codec),
            warnings=[*_warned(segments), *info.warnings, *warnings],
        )
        store.deliver(whole)
        return report


def settings(translator: Translator, source: Source, plan: Plan) -> dict[str, str]:
    """All that decides what segments look like, by names that people know."""
    found = local_path(os.fspath(source)).stat()
    return {
        "the input has": f"{found.st_size} {found.st_mtime_ns}",
        "the weights have": str(translator.engine.weights_hash or translator.weights_name),
        "options or version have": f"{fingerprint(translator, plan.output)} {plan.describe()}",
    }


def _warned(segments: list[Segment]) -> list[str]:
    return [text for segment in segments for text in segment.warnings]
