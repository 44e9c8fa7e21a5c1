"""The part that runs on a cluster's machines: a process with an engine, given one input after the other."""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from engines.errors import EngineError, InputError
from engines.files import write_atomically
from engines.paths import cache_dir
from gnr_video._version import __version__
from gnr_video.fingerprint import fingerprint
from gnr_video.options import EngineOptions, LookOptions, OutputOptions
from gnr_video.pipeline import Counts
from gnr_video.report import Report
from gnr_video.segments.plan import Lengths, Plan, make_plan
from gnr_video.segments.render import render_segment
from gnr_video.segments.run import settings, translate
from gnr_video.segments.store import Segment
from gnr_video.tracking.model_files import FACE_MODEL, PERSON_MODEL
from gnr_video.translator import Translator


@dataclass(frozen=True)
class Setup:
    """What all workers of a run translate with.

    Attributes:
        style, engine, look: as for `Translator`.
        lengths: of segments; None: the usual.
        version: of the program that gives the work.
    """

    style: str | None = None
    engine: EngineOptions = EngineOptions()
    look: LookOptions = LookOptions()
    lengths: Lengths | None = None
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
class Parts:
    """A long video that several workers may work at.

    Attributes:
        plan: its segments.
        settings: what the folder of its segments is to say of them.
        frames: how many there are in all, if that is known.
        apart: whether they can be made apart: those of several people with looks of their own, who must be told from
            each other, are made one after the other.
    """

    plan: Plan
    settings: dict[str, str]
    frames: int | None
    apart: bool


class Worker:
    """One process of a cluster. `done` and `stop` may be called while another call works."""

    def __init__(self) -> None:
        self._translator: Translator | None = None
        self._lengths: Lengths | None = None
        self._counts = Counts()
        self._expected: int | None = None
        self._stop = threading.Event()

    def open(self, setup: Setup, kit: Kit, output: OutputOptions, threads: int | None) -> str:
        """Make the engine; the fingerprint of what comes out of it, see `gnr_video.fingerprint`.

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
        self._lengths = setup.lengths
        face_model = _kept(FACE_MODEL.file_name, kit.face_model)
        engine = setup.engine if setup.engine.threads else replace(setup.engine, threads=threads)
        self._translator = Translator(
            _kept(*kit.weights), setup.style, engine=engine, look=replace(setup.look, face_model=face_model)
        )
        return fingerprint(self._translator, output)

    def parts(self, source: str, target: str, output: OutputOptions) -> Parts | None:
        """The segments of a long video; None of a short one.

        Raises:
            GnrVideoError: it cannot be read.
        """
        translator = self._ready(source)
        with translator.open_source(source, target, output) as video:
            lookahead = translator.lookahead
            plan = make_plan(video, target, output, lookahead=lookahead, lengths=self._lengths)
            frames = video.info.frame_count
        several = translator.looks is not None and len(translator.looks.codes) > 1
        apart = not several and str(translator.faces) == "all"
        return None if plan is None else Parts(plan, settings(translator, source, plan), frames, apart)

    def segment(self, source: str, plan: Plan, index: int, folder: str) -> Segment:
        """Render one segment into a folder, which is made.

        Raises:
            GnrVideoError: it cannot be read or written.
        """
        translator = self._ready(source)
        Path(folder).mkdir(parents=True)
        return render_segment(translator, source, plan, index, Path(folder), on_frame=self._count)

    def translate(self, source: str, target: str, output: OutputOptions) -> Report:
        """Translate one input; what was kept of a long one is taken up.

        Raises:
            GnrVideoError: it cannot be read or written.
        """
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        translator = self._ready(source)
        return translate(translator, source, target, output, progress=self._count, lengths=self._lengths)

    def translate_data(
        self, name: str, data: bytes, target: str, output: OutputOptions
    ) -> tuple[Report, bytes]:
        """Translate one input that has been sent; the translation goes back.

        Args:
            name: of the input.
            target: what the output is to be called.

        Raises:
            GnrVideoError: it cannot be read or written.
        """
        with tempfile.TemporaryDirectory(prefix="gnr-video-") as folder:
            here, there = Path(folder, "in", name), Path(folder, target)
            here.parent.mkdir()
            here.write_bytes(data)
            report = self._ready(str(here)).translate_video(here, there, output, progress=self._count)
            return report, there.read_bytes()

    def done(self) -> tuple[int, int | None]:
        """Frames of the present work that are done, and how many there are; None: unknown."""
        return self._counts.frames, self._expected

    def stop(self) -> None:
        """End the present work, and all to come; nothing half-written is left."""
        self._stop.set()

    def _ready(self, source: str) -> Translator:
        """The translator, for a source that is there."""
        assert self._translator is not None
        if not os.path.exists(source):
            raise InputError(
                f"{source} is not there on {platform.node()}",
                "name a folder that all machines have, or --ray-send",
            )
        self._counts, self._expected = Counts(), None
        return self._translator

    def _count(self, counts: Counts, frames: int | None = None) -> None:
        if self._stop.is_set():
            raise EngineError("the run was ended")
        self._counts, self._expected = counts, frames


def _kept(name: str, data: bytes) -> Path:
    """A file of this machine's cache with these bytes."""
    path = cache_dir() / "cluster" / hashlib.sha256(data).hexdigest() / Path(name).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    return path
