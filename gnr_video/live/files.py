"""Videos that a browser hands over: translated one at a time on the live session's engine, beside its picture."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import GnrVideoError, InputError, OutputError
from gnr_video.live.controls import Controls
from gnr_video.media.open import anime_name, picture_format
from gnr_video.options import OutputOptions
from gnr_video.pipeline import Counts
from gnr_video.translator import Translator
from gnr_video.web.handed import check_video, safe_name

log = logging.getLogger(__name__)


class _Stopped(Exception):
    """Nobody wants the translation any more."""


@dataclass
class Job:
    """One file on its way.

    Attributes:
        source, target: as handed over, and translated.
        stage: "upload", "translation", "done", "failed" or "stopped".
        done, frames: frames translated, and how many to expect (None: unknown); during "upload", bytes.
        message: what the user should know: the result, or why there is none.
        number: of the file among those of the session.
    """

    source: Path
    target: Path
    stage: str = "upload"
    done: int = 0
    frames: int | None = None
    message: str = ""
    started: float = 0.0
    number: int = 1

    @property
    def busy(self) -> bool:
        return self.stage in ("upload", "translation")

    def state(self) -> dict[str, Any]:
        """For the page."""
        passed = time.perf_counter() - self.started
        left = passed / self.done * (self.frames - self.done) if self.done and self.frames else None
        return {
            "name": self.source.name,
            "result": self.target.name,
            "stage": self.stage,
            "done": self.done,
            "frames": self.frames,
            "seconds_left": None if left is None else round(max(left, 0.0)),
            "message": self.message,
            "number": self.number,
        }


class FileTranslations:
    """Takes one file after the other, with the style, paste mode and the rest that are on show when it comes.

    Args:
        translator: whose engine, faces and model are used; it must outlive this.
        controls: say them.

    Attributes:
        job: the last one, None before the first.
    """

    def __init__(self, translator: Translator, controls: Controls) -> None:
        self._translator = translator
        self._controls = controls
        self._folder = Path(tempfile.mkdtemp(prefix="gnr-video-files-"))
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self.job: Job | None = None

    def receive(self, name: str, size: int) -> Job:
        """Make room for a file of `size` bytes; it is to be written to the job's `source`.

        Raises:
            InputError: another one is not finished.
            OutputError: it does not fit on the disk.
        """
        source = self._folder / safe_name(name)
        with self._lock:
            if self.job is not None and self.job.busy:
                raise InputError(f"{self.job.source.name} is not finished yet", "wait for it, or stop it")
            self._clear()
            free = shutil.disk_usage(self._folder).free
            if 2 * size > free:
                raise OutputError(f"{source.name} does not fit on the disk: {free / 1e9:.1f} GB are free")
            self._stop.clear()
            number = 1 if self.job is None else self.job.number + 1
            target = anime_name(source, picture_format(str(source)))
            self.job = Job(source, target, frames=size, number=number)
            return self.job

    def start(self) -> None:
        """The file is whole: translate it, on a thread of its own."""
        self._thread = threading.Thread(target=self._work, name="gnr-video file", daemon=True)
        self._thread.start()

    def drop(self, reason: str) -> None:
        """The file did not come whole."""
        if self.job is not None:
            self.job.source.unlink(missing_ok=True)
            self.job.stage = "stopped" if self.stopping else "failed"
            self.job.message = f"{self.job.source.name} did not come whole: {reason}"

    def stop(self) -> None:
        """End what is under way, if anything is: an upload or a translation."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether what is under way is not wanted any more."""
        return self._stop.is_set()

    def close(self, timeout: float = 0.5) -> None:
        """End everything and delete the files, what is still being written as soon as it ends. May be called twice."""
        self._closed = True
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _work(self) -> None:
        job = self.job
        assert job is not None
        job.stage, job.started, job.done, job.frames = "translation", time.perf_counter(), 0, None
        try:
            job.target = anime_name(job.source, picture_format(str(job.source)))
            job.message = self._translate(job)
            job.stage = "done"
        except _Stopped:
            job.stage, job.message = "stopped", f"{job.source.name} was stopped"
        except GnrVideoError as error:
            # Where it lay for a while means nothing to who sent it.
            job.message = str(error).replace(f"{self._folder}{os.sep}", "")
            job.stage = "failed"
        except Exception as error:  # the live picture goes on
            log.debug("%s failed", job.source, exc_info=True)
            job.stage, job.message = "failed", f"{job.source.name} has failed: {error}"
        finally:
            job.source.unlink(missing_ok=True)
            if self._closed:  # and was not waited for
                shutil.rmtree(self._folder, ignore_errors=True)

    def _translate(self, job: Job) -> str:
        """Make the job's target; what came of it."""
        check_video(job.source)
        styles = self._controls.styles
        translator = self._translator.sibling(self._controls.paste, styles.looks if styles else None)
        self._controls.hand_to(translator.effects)

        def progress(counts: Counts, frames: int | None) -> None:
            if self.stopping:
                raise _Stopped
            job.done, job.frames = counts.frames, frames

        report = translator.translate_video(
            job.source, job.target, OutputOptions(overwrite=True), progress=progress
        )
        warnings = "".join(f"; {text}" for text in report.warnings)
        frames = "1 frame" if report.frames == 1 else f"{report.frames} frames"
        return f"{frames} in {report.seconds:.0f} s, style {report.style}{warnings}"

    def _clear(self) -> None:
        for path in self._folder.iterdir():
            path.unlink(missing_ok=True)
