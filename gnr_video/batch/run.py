"""The run over many inputs, one after the other: what is done is passed over, failures are collected."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from engines.errors import GnrVideoError
from gnr_video.batch.jobs import Job
from gnr_video.batch.ledger import Ledger
from gnr_video.fingerprint import fingerprint
from gnr_video.options import OutputOptions
from gnr_video.pipeline import Counts
from gnr_video.report import Report
from gnr_video.segments.run import translate
from gnr_video.segments.store import tidy
from gnr_video.translator import Translator

log = logging.getLogger(__name__)

Progress = Callable[[Counts, int | None], None]


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        why: of a failure, one line with what to do.
        report: of a translation.
    """

    job: Job
    status: Literal["done", "skipped", "failed"]
    why: str = ""
    report: Report | None = None

    def to_json(self) -> str:
        """One line of JSON."""
        values = {"source": str(self.job.source), "target": str(self.job.target), "status": self.status}
        values |= {"why": self.why} if self.why else {}
        values |= {} if self.report is None else {"report": json.loads(self.report.to_json())}
        return json.dumps(values)


def run(
    jobs: Iterable[Job],
    translator: Translator,
    output: OutputOptions,
    *,
    out: Path | None = None,
    progress: Callable[[Job], Progress | None] = lambda job: None,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Outcome]:
    """Translate inputs one after the other.

    Args:
        output: of every one. What was translated with other settings is replaced, also without `overwrite`; what
            other programs wrote is not.
        out: the folder that all targets are in; None: each is beside its input.
        progress: asked before each translation for what is told of its frames.
        say: told what becomes of segments of earlier runs, see `gnr_video.segments.run.translate`.

    Yields:
        What became of each, in order.

    Raises:
        OutputError: another run works on the folder.
    """
    settings = fingerprint(translator, output)
    with ExitStack() as held:
        ledger: Ledger | None = None
        for job in jobs:
            folder = out or job.target.parent
            if ledger is None or ledger.folder != folder:
                held.pop_all().close()
                ledger = held.enter_context(Ledger(folder))
            yield _one(job, translator, output, ledger, settings, progress, say)


def _one(
    job: Job,
    translator: Translator,
    output: OutputOptions,
    ledger: Ledger,
    settings: str,
    progress: Callable[[Job], Progress | None],
    say: Callable[[str], None],
) -> Outcome:
    try:
        tidy(job.target)
        before = job.source.stat()
        if ledger.is_done(job.source, job.target, settings):
            return Outcome(job, "skipped")
        options = replace(output, overwrite=output.overwrite or ledger.is_ours(job.target))
        report = translate(translator, job.source, job.target, options, progress=progress(job), say=say)
        ledger.add(job.source, job.target, settings, before)
    except (GnrVideoError, OSError) as error:
        return Outcome(job, "failed", str(error))
    except Exception as error:  # a bug with one input must not end the others
        log.debug("%s failed", job.source, exc_info=True)
        return Outcome(job, "failed", f"{type(error).__name__}: {error} (--debug says more)")
    return Outcome(job, "done", report=report)
