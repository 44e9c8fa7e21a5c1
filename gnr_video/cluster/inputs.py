"""One input of a run: which work it is made of, and what becomes of what workers answer."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from engines.errors import GnrVideoError, InputError
from engines.files import write_atomically
from gnr_video.batch.jobs import Job
from gnr_video.batch.ledger import Ledger
from gnr_video.batch.run import Outcome, Progress
from gnr_video.cluster.worker import Parts
from gnr_video.options import OutputOptions
from gnr_video.pipeline import Counts
from gnr_video.report import Report
from gnr_video.segments.plan import can_be_cut
from gnr_video.segments.store import Segment, Store, tidy


@dataclass(eq=False)
class Work:
    """What one worker does for an input at a time.

    Attributes:
        kind: "parts": look how long it is; "segment": render one; "whole": translate it, or join what is rendered.
        index: of the segment.
        attempts: workers that were lost at it.
        place: where the present attempt writes to: no other does.
    """

    input: Input
    kind: Literal["parts", "segment", "whole"]
    index: int = -1
    attempts: int = 0
    place: Path = field(default_factory=Path)


class Input:
    """An input on its way. To be closed.

    Args:
        settings: the fingerprint of the workers' translations.
        send: inputs and outputs travel through the cluster.
        say: told what becomes of segments of earlier runs.

    Attributes:
        ended: nobody is interested in answers any more.
    """

    def __init__(
        self,
        job: Job,
        ledger: Ledger,
        output: OutputOptions,
        settings: str,
        *,
        send: bool,
        say: Callable[[str], None],
    ) -> None:
        self.job, self._ledger, self._settings, self._send, self._say = job, ledger, settings, send, say
        self._output = replace(output, overwrite=True)
        self._replaces = output.overwrite
        self._before: os.stat_result | None = None
        self._parts: Parts | None = None
        self._store: Store | None = None
        self._left: set[int] = set()
        self._frames: dict[int, int] = {}
        self.told: Progress | None = None
        self.ended = False

    def begin(self) -> Outcome | list[Work]:
        """The first of its work; or what becomes of it without any.

        Raises:
            GnrVideoError, OSError: it cannot be translated.
        """
        job = self.job
        tidy(job.target)
        self._before = job.source.stat()
        if self._ledger.is_done(job.source, job.target, self._settings):
            return Outcome(job, "skipped")
        if job.target.exists() and not self._replaces and not self._ledger.is_ours(job.target):
            return Outcome(job, "failed", f"{job.target} exists already (give --overwrite to replace it)")
        can_be_parts = self._output.resume and not self._send and can_be_cut(job.source, job.target)
        return [Work(self, "parts" if can_be_parts else "whole")]

    def call(self, work: Work) -> tuple[str, tuple[Any, ...]]:
        """The method of `Worker` that does some work, and its arguments, for a new attempt."""
        source, target = str(self.job.source.absolute()), self.job.target.absolute()
        if work.kind == "parts":
            return "parts", (source, str(target), self._output)
        if work.kind == "segment":
            assert self._parts is not None and self._store is not None
            work.place = self._store.folder.absolute() / "unfinished" / uuid.uuid4().hex
            return "segment", (source, self._parts.plan, work.index, str(work.place))
        if self._send:
            data = self.job.source.read_bytes()
            return "translate_data", (self.job.source.name, data, target.name, self._output)
        # The segments of a long one are locked; what is short is written aside by each attempt.
        work.place = target if self._parts else self._ledger.aside(target)
        return "translate", (source, str(work.place), self._output)

    def answered(self, work: Work, answer: Any) -> Outcome | list[Work]:
        """What is to be done next; or what has become of it.

        Raises:
            GnrVideoError, OSError: it could not be kept.
        """
        if work.kind == "parts":
            self._parts = answer
            return self._divided()
        if work.kind == "segment":
            return self._rendered(work, answer)
        return self._translated(work, answer)

    def counted(self, work: Work, frames: int, expected: int | None) -> None:
        """Told how far some work is."""
        if self.told is None or work.kind == "parts":
            return
        if work.kind == "segment":
            assert self._parts is not None
            self._frames[work.index] = frames
            frames, expected = sum(self._frames.values()), self._parts.frames
        self.told(Counts(frames), expected)

    def failed(self, why: str) -> Outcome:
        """It will not be done."""
        self.close()
        return Outcome(self.job, "failed", why)

    def close(self) -> None:
        """What is done stays for the next run."""
        self.ended = True
        if self._store is not None:
            store, self._store = self._store, None
            shutil.rmtree(store.folder / "unfinished", ignore_errors=True)
            store.__exit__(None, None, None)

    def _divided(self) -> list[Work]:
        """The segments that are still to be made, or the whole where there are none."""
        parts = self._parts
        if parts is None or not parts.apart:
            return [Work(self, "whole")]
        self._store = Store(self.job.target)
        self._store.__enter__()
        self._store.take_up(
            parts.settings, parts.plan, lambda text: self._say(f"{self.job.source.name}: {text}")
        )
        done = self._store.done
        self._frames = {index: segment.counts.frames for index, segment in done.items()}
        self._left = set(range(parts.plan.count)) - set(done)
        return [Work(self, "segment", index) for index in sorted(self._left)] or self._joined()

    def _rendered(self, work: Work, segment: Segment) -> list[Work]:
        assert self._store is not None and self._parts is not None
        plan = self._parts.plan
        if segment.size:
            plan.file(work.place, work.index).replace(plan.file(self._store.folder, work.index))
        self._store.add(segment, plan)
        self._left.discard(work.index)
        return [] if self._left else self._joined()

    def _joined(self) -> list[Work]:
        """All segments are there: whoever translates the whole finds them, and joins them."""
        self.close()
        self.ended = False
        return [Work(self, "whole")]

    def _translated(self, work: Work, answer: Report | tuple[Report, bytes]) -> Outcome:
        job = self.job
        job.target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(answer, tuple):
            report, data = answer
            write_atomically(job.target, data)
        else:
            report = answer
            if not work.place.exists():
                raise InputError(
                    f"what a worker wrote to {work.place.parent} is not there on this machine",
                    "name a folder that all machines have, or --ray-send",
                )
            if not self._parts:
                work.place.replace(job.target)
        assert self._before is not None
        self._ledger.add(job.source, job.target, self._settings, self._before)
        self.ended = True
        return Outcome(job, "done", report=replace(report, source=str(job.source), target=str(job.target)))


def why(error: BaseException) -> str:
    """One line on what a worker raised."""
    if isinstance(error, ModuleNotFoundError):
        return f"a machine of the cluster lacks a package: {error} (install gnr-video on all of them)"
    return str(error) if isinstance(error, GnrVideoError | OSError) else f"{type(error).__name__}: {error}"
