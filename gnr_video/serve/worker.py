"""The worker: translates the jobs of a store one after the other, on a thread of its own, on one engine."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.errors import GnrVideoError, InputError
from gnr_video._version import __version__
from gnr_video.batch.jobs import Job
from gnr_video.batch.run import Outcome, run
from gnr_video.pipeline import Counts
from gnr_video.serve.folder import RESULT, SOURCE, Folder
from gnr_video.serve.job_options import allowed_file, job_options
from gnr_video.serve.store import Record, State, Store
from gnr_video.translator import Translator
from gnr_video.web.handed import check_video

log = logging.getLogger(__name__)

TIDY_SECONDS = 600.0
"""How often results that are too old or too many are looked for, at least."""
RETRY_SECONDS = 5.0
"""After which a full disk is tried again."""
STOP_SECONDS = 20.0
"""How long a job at work has to come to the end of its frame."""


class _Stopped(BaseException):
    """Nobody wants the rest of this translation now. No error: what deals with those is not to see it."""


@dataclass
class Progress:
    """Of the job at work.

    Attributes:
        frames: translated.
        expected: how many there will be; None: unknown.
    """

    id: str
    frames: int = 0
    expected: int | None = None
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds_left(self) -> int | None:
        """An estimate; None where there is none."""
        if not self.frames or self.expected is None:
            return None
        passed = time.perf_counter() - self.started
        return max(0, round(passed / self.frames * (self.expected - self.frames)))


@dataclass(frozen=True)
class Keeping:
    """How long results are kept.

    Attributes:
        most_bytes: of all of them; beyond it the oldest go.
        seconds: of each, and of what is known of a job.
    """

    most_bytes: int
    seconds: int


def identity(translator: Translator) -> dict[str, str]:
    """What translates: the same wherever results are the same."""
    engine = translator.engine
    return {
        "version": __version__,
        "weights": translator.weights_name,
        "weights_sha256": engine.weights_hash,
        "engine": f"{engine.name} {engine.precision} on {engine.device}",
    }


class Worker:
    """Does the work.

    Args:
        store: whose jobs.
        folder: where they lie.
        translator: whose engine is used; it must outlive this.
        allowed: folders that jobs may read from.
        keeping: what becomes of results.

    Attributes:
        maker: see `identity`.
        messages: what the user should know, one line each.
        notice: what keeps it from working; "" where nothing does.
    """

    def __init__(
        self, store: Store, folder: Folder, translator: Translator, allowed: Sequence[Path], keeping: Keeping
    ) -> None:
        self._store = store
        self._folder = folder
        self._translator = translator
        self._allowed = allowed
        self._keeping = keeping
        self.maker = identity(translator)
        self.messages: deque[str] = deque(maxlen=1000)
        self.notice = ""
        self._progress: Progress | None = None
        self._unwanted: set[str] = set()
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._tidied = -TIDY_SECONDS
        self._thread = threading.Thread(target=self._work, name="gnr-video worker", daemon=True)

    def start(self) -> None:
        """Clear up what a program that ended without a word has left, and begin.

        Raises:
            OutputError: the folder cannot be written to.
        """
        for job in self._store.recover():
            self.messages.append(f"{job.name}: {job.outcome['message']}")
        self._folder.clear_others(self._store.states())
        self._thread.start()

    def wake(self) -> None:
        """There is a new job."""
        self._woken.set()

    def cancel(self, id: str) -> None:
        """The store has this job as one that is to be cancelled: end it, if it is at work."""
        self._unwanted.add(id)

    @property
    def running(self) -> str | None:
        """The id of the job at work."""
        progress = self._progress
        return None if progress is None else progress.id

    def progress(self, id: str) -> Progress | None:
        """Of a job, while it is at work."""
        progress = self._progress
        return progress if progress is not None and progress.id == id else None

    def stop(self, timeout: float = STOP_SECONDS) -> bool:
        """Put the job at work back into the queue, and end. Whether it has ended in time."""
        self._stopping.set()
        self._woken.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    # -- the thread

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                self._next()
            except Exception as error:  # the disk is full, or a bug: later jobs are not to wait for ever
                log.debug("the worker is held up", exc_info=True)
                self._hold_up(error)

    def _next(self) -> None:
        """Do the next job, or wait for one."""
        self._tidy()
        job = self._store.take(self.maker)
        self.notice = ""
        if job is None:
            self._woken.wait(TIDY_SECONDS)
            self._woken.clear()
            return
        self._progress = Progress(job.id)
        try:
            self._one(job)
        finally:
            self._progress = None
            self._unwanted.discard(job.id)

    def _one(self, job: Record) -> None:
        """Translate a job, and write down what has become of it."""
        size = 0
        try:
            outcome = self._translate(job)
            state: State = "done" if outcome["result"] else "failed"
            if state == "done":
                size = (self._folder.results(job.id) / outcome["result"]).stat().st_size
        except _Stopped:
            ended = self._written_down(lambda: self._store.put_back(job.id))
        except Exception as error:  # one job's failure is none of the others'
            log.debug("%s failed", job.name, exc_info=True)
            outcome = {"message": self._said(error)}
            ended = self._written_down(lambda: self._store.end(job.id, "failed", outcome))
        else:
            ended = self._written_down(lambda: self._store.end(job.id, state, outcome, size))
        if ended is None or ended.state == "queued":
            return
        self.messages.append(f"{job.name}: {ended.state}, {ended.outcome['message']}")
        self._folder.clear_after(job.id, ended.state)

    def _translate(self, job: Record) -> dict[str, Any]:
        """What came of a job, as the store keeps it.

        Raises:
            GnrVideoError: it cannot be translated.
        """
        self._check_wanted(job.id)
        source = self._folder.source(job) if job.is_upload else allowed_file(job.source, self._allowed)
        if not source.is_file():
            raise InputError(f"{job.name} is gone", "hand it over again")
        check_video(source)
        options = job_options(job.options, self._allowed)
        translator = self._translator.beside(options.style, options.look)
        folder = self._folder.results(job.id)
        work = Job(source, options.target(source, folder))
        (outcome,) = run(
            [work], translator, options.output, out=folder, progress=lambda _: self._watch(job.id)
        )
        return self._told(outcome)

    def _told(self, outcome: Outcome) -> dict[str, Any]:
        report = outcome.report
        told: dict[str, Any] = {"result": None if outcome.status == "failed" else outcome.job.target.name}
        if report is None:
            message = "it was finished before the restart" if outcome.status == "skipped" else outcome.why
            return told | {"message": self._clean(message)}
        return told | {
            "message": f"{report.frames} frames in {report.seconds:.1f} s, style {report.style}",
            "frames": report.frames,
            "warnings": [self._clean(text) for text in [*report.fallbacks, *report.warnings]],
        }

    def _watch(self, id: str) -> Callable[[Counts, int | None], None]:
        def update(counts: Counts, expected: int | None) -> None:
            self._check_wanted(id)
            if (progress := self._progress) is not None:
                progress.frames, progress.expected = counts.frames, expected

        return update

    def _check_wanted(self, id: str) -> None:
        if self._stopping.is_set() or id in self._unwanted:
            raise _Stopped

    def _written_down(self, write: Callable[[], Record]) -> Record | None:
        """Write to the store, until it works; None where the program ends before: then the job begins again."""
        while True:
            try:
                return write()
            except GnrVideoError as error:
                if self._stopping.is_set():
                    return None
                self._hold_up(error)

    def _hold_up(self, error: Exception) -> None:
        """Wait for a while, and say why."""
        if self.notice != str(error):
            self.notice = str(error)
            self.messages.append(self.notice)
        self._stopping.wait(RETRY_SECONDS)

    def _tidy(self) -> None:
        """Delete results that are too old, and the oldest where they are too many."""
        if self._store.kept_bytes() <= self._keeping.most_bytes:
            if time.monotonic() - self._tidied < TIDY_SECONDS:
                return
            self._tidied = time.monotonic()
        for id in self._store.forget(time.time() - self._keeping.seconds, self._keeping.most_bytes):
            self._folder.clear(id)

    def _said(self, error: Exception) -> str:
        if isinstance(error, GnrVideoError):
            return self._clean(str(error))
        return self._clean(f"{type(error).__name__}: {error} (--debug says more)")

    def _clean(self, text: str) -> str:
        """Where an upload lies means nothing to who sent it."""
        folder = self._progress and self._folder.of(self._progress.id)
        for part in (RESULT, SOURCE):
            text = text.replace(f"{folder}{os.sep}{part}{os.sep}", "")
        return text


def differences(asked_of: Mapping[str, str], maker: Mapping[str, str]) -> list[str]:
    """Where a job was submitted to another version, weights or engine than translate it, one line each."""
    names = {"version": "version", "weights_sha256": "weights", "engine": "engine"}
    return [
        f"submitted to {label} {_short(asked_of, name)}, translated by {_short(maker, name)}"
        for name, label in names.items()
        if asked_of.get(name) != maker.get(name)
    ]


def _short(maker: Mapping[str, str], name: str) -> str:
    if name != "weights_sha256":
        return str(maker.get(name))
    return f"{maker.get('weights')} ({maker.get(name, '')[:12]})"
