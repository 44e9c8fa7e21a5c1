"""The part that runs on a cluster's machines: a process with an engine, given one input after the other."""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from engines.errors import EngineError, GnrVideoError, InputError
from engines.files import write_atomically
from engines.paths import cache_dir
from gnr_video._version import __version__
from gnr_video.batch.run import fingerprint
from gnr_video.options import EngineOptions, LookOptions, OutputOptions
from gnr_video.pipeline import Counts
from gnr_video.report import Report
from gnr_video.tracking.model_files import FACE_MODEL, PERSON_MODEL
from gnr_video.translator import Translator


@dataclass(frozen=True)
class Setup:
    """What all workers of a run translate with.

    Attributes:
        style, engine, look: as for `Translator`.
        version: of the program that gives the work.
    """

    style: str | None = None
    engine: EngineOptions = EngineOptions()
    look: LookOptions = LookOptions()
    version: str = __version__


@dataclass(frozen=True)
class Kit:
    """Files that a worker needs, in full: a machine has each once, however many workers it has.

    Attributes:
        weights: their name and bytes.
        face_model, person_model: MediaPipe's.
    """

    weights: tuple[str, bytes]
    face_model: bytes
    person_model: bytes


@dataclass(frozen=True)
class Translated:
    """What became of one input.

    Attributes:
        why: of a failure, one line.
        data: the translation, where it is sent.
    """

    report: Report | None = None
    why: str = ""
    data: bytes | None = None


class _Stopped(Exception):
    """Nobody wants the translation any more."""


class Worker:
    """One process of a cluster. `done` and `stop` may be called while `translate` works."""

    def __init__(self) -> None:
        self._translator: Translator | None = None
        self._counts = Counts()
        self._expected: int | None = None
        self._stop = threading.Event()

    def open(self, setup: Setup, kit: Kit, output: OutputOptions, threads: int | None) -> str:
        """Make the engine; the fingerprint of what comes out of it, see `gnr_video.batch.run.fingerprint`.

        Args:
            threads: of the network; None: the runtime's choice.

        Raises:
            EngineError: this machine has another version.
            GnrVideoError: it cannot translate; the line says why.
        """
        if setup.version != __version__:
            raise EngineError(
                f"the worker on {platform.node()} has gnr-video {__version__}, the run has {setup.version}",
                "install the same version on all machines",
            )
        os.environ[PERSON_MODEL.variable] = str(_kept(PERSON_MODEL.file_name, kit.person_model))
        face_model = _kept(FACE_MODEL.file_name, kit.face_model)
        engine = setup.engine if setup.engine.threads else replace(setup.engine, threads=threads)
        self._translator = Translator(
            _kept(*kit.weights), setup.style, engine=engine, look=replace(setup.look, face_model=face_model)
        )
        return fingerprint(self._translator, output)

    def translate(self, source: str, target: str, output: OutputOptions, data: bytes | None) -> Translated:
        """Translate one input into `target`, or into bytes where the input comes as `data`."""
        self._counts, self._expected = Counts(), None
        try:
            if data is None:
                return Translated(self._translate(Path(source), Path(target), output))
            with tempfile.TemporaryDirectory(prefix="gnr-video-") as folder:
                here = Path(folder, "in", Path(source).name)
                here.parent.mkdir()
                here.write_bytes(data)
                there = Path(folder, Path(target).name)
                report = self._translate(here, there, output)
                return Translated(report, data=there.read_bytes())
        except _Stopped:
            return Translated(why="stopped")
        except (GnrVideoError, OSError) as error:
            return Translated(why=str(error))
        except Exception as error:  # a bug with one input must not end the others
            return Translated(why=f"{type(error).__name__}: {error} (on {platform.node()})")

    def done(self) -> tuple[int, int | None]:
        """Frames of the present input that are done, and how many there are; None: unknown."""
        return self._counts.frames, self._expected

    def stop(self) -> None:
        """End the present translation, and all to come; nothing half-written is left."""
        self._stop.set()

    def _translate(self, source: Path, target: Path, output: OutputOptions) -> Report:
        assert self._translator is not None
        if not source.exists():
            raise InputError(
                f"{source} is not there on {platform.node()}",
                "name a folder that all machines have, or --ray-send",
            )
        target.parent.mkdir(parents=True, exist_ok=True)

        def progress(counts: Counts, frames: int | None) -> None:
            if self._stop.is_set():
                raise _Stopped
            self._counts, self._expected = counts, frames

        return self._translator.translate_video(source, target, output, progress=progress)


def _kept(name: str, data: bytes) -> Path:
    """A file of this machine's cache with these bytes."""
    path = cache_dir() / "cluster" / hashlib.sha256(data).hexdigest() / Path(name).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    return path
