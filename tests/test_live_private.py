"""A live session in private: every picture that a sink gets, in every view; still and covered. Device: CPU."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from gnr_video.compositing.cover import covered_picture
from gnr_video.frame import Frame
from gnr_video.live.camera import Camera, Shot
from gnr_video.live.capture import Capture
from gnr_video.live.controls import Controls
from gnr_video.live.session import LiveSession
from gnr_video.live.sinks import LiveSink
from gnr_video.options import EngineOptions, LookOptions
from gnr_video.privacy import ASKED, BEGINNING
from gnr_video.translator import Translator
from tests.known_faces import FPS, SIZE, Shown, empty, placed
from tests.live_helpers import until

pytestmark = pytest.mark.usefixtures("face_model", "person_model", "no_threads_left")


class Judge(LiveSink):
    """Judges every picture that it is given, and keeps what it was."""

    def __init__(self, shown: Sequence[Shown]) -> None:
        super().__init__("judge")
        self._shown = {id(one.image): one for one in shown}
        self.bare: list[int] = []
        self.pictures: list[np.ndarray] = []

    def show(self, frame: Frame) -> None:
        if self._shown[id(frame.props["source"])].is_bare(frame.image):
            self.bare.append(len(self.pictures))
        self.pictures.append(frame.image)
        self.delivered(frame)


class InStep(Camera):
    """A camera that gives its next picture when the last one was shown, so that none is passed over; then the last one
    again and again. Its clock is its own, and an hour late: a quick machine must not overtake it."""

    def __init__(self, shown: Sequence[Shown], judge: Judge) -> None:
        super().__init__()
        self.size, self.fps, self.name = SIZE, float(FPS), "in step"
        self._shown, self._judge, self._given, self._start = shown, judge, 0, time.perf_counter() - 3600

    def read(self, stop: threading.Event) -> Shot | None:
        if len(self._judge.pictures) < self._given:
            stop.wait(0.002)
            return None
        image = self._shown[min(self._given, len(self._shown) - 1)].image
        self._given += 1
        return Shot(image, self._start + self._given / FPS)

    def close(self) -> None:
        pass


@contextmanager
def private_session(
    weights: Path, shown: Sequence[Shown], folder: Path
) -> Iterator[tuple[LiveSession, Judge]]:
    judge = Judge(shown)
    camera = InStep(shown, judge)
    engine, look = EngineOptions("torch", precision="fp32", threads=1), LookOptions(private=True)
    with Translator(weights, engine=engine, look=look) as translator:
        controls = Controls(translator.engine, 1, folder=folder, effects=translator.effects)
        session = LiveSession(translator, Capture(camera, lambda: camera), controls, hold=1)
        session.add_sink(judge)
        with session:
            yield session, judge


@pytest.mark.slow
def test_no_picture_of_a_session_is_bare(tiny: Path, tmp_path: Path) -> None:
    """It begins with nobody; somebody is there after a cut; then all views and paste modes, still, and covered."""
    shown = [empty()] * 4 + [placed(120, behind=empty().image[::-1])] * 4
    with private_session(tiny, shown, tmp_path) as (session, judge):

        def more(count: int = 4) -> np.ndarray:
            """A picture later by more than there are on the way."""
            seen = len(judge.pictures)
            until(lambda: session.failure or len(judge.pictures) >= seen + count, 60)
            if session.failure is not None:
                raise session.failure
            return judge.pictures[-1]

        more(len(shown))
        assert session.counts.covered[BEGINNING] >= 4
        drawn = more()
        run = session.controls.run
        for view in ("before", "both", "grid", "after"):
            run("view", view)
            assert (more() != drawn).any() or view == "after"
        for paste in ("side-by-side", "face", "crop", "head"):
            run("paste", paste)
            more()
        run("freeze")
        still = more()
        run("next")
        assert (more() == still).all()
        assert "space" in session.status().notice
        run("cover")
        assert (more() == covered_picture(SIZE)).all()
        assert "x shows" in session.status().notice
        assert session.counts.covered[ASKED] >= 1
        run("cover")
        assert (more() == still).all()
        run("freeze")
        assert (more() != still).any() and not session.status().notice
        assert not judge.bare
        assert "" not in session.counts.covered
        assert f"{session.counts.covered[ASKED]} {ASKED}" in session.status().line()
        assert session.report().covered[BEGINNING] >= 4
