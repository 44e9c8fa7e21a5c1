"""Drawings shown for several frames: which are made, which are shown, and that they go where the face goes.
Device: CPU."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engines
from engines.base import Engine
from engines.errors import InputError
from engines.weights import load_weights
from gnr_video.effects.chain import Effects
from gnr_video.effects.steady import settled
from gnr_video.frame import Image
from gnr_video.hold import Drawings, DrawingsAhead
from gnr_video.options import EngineOptions, LookOptions, OutputOptions
from gnr_video.timing import StageTimes
from gnr_video.translator import Translator
from tests.cli_helpers import call
from tests.live_helpers import Kept, live_session, until
from tests.media_helpers import read_pictures

pytestmark = pytest.mark.usefixtures("no_threads_left")


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Iterator[Engine]:
    with engines.create(load_weights(tiny), engine="torch", precision="fp32", threads=1) as engine:
        engine.set_style(np.zeros(8, np.float32))
        yield engine


@pytest.fixture(scope="module")
def faces(engine: Engine) -> list[Image]:
    """Crops of twelve frames."""
    shape = (12, engine.size, engine.size, 3)
    return list(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


@pytest.fixture(scope="module")
def drawn(engine: Engine, faces: list[Image]) -> list[Image]:
    return [engine.translate(face[None])[0] for face in faces]


def made(times: StageTimes) -> int:
    return times.summary()["network"].count


def in_turn(*drawings: Image) -> Image:
    """What the last of some drawings of a face looks like, each having followed the one before."""
    shown, *others = drawings
    for drawing in others:
        shown = settled(shown, drawing)
    return shown


class Gated:
    """An engine that draws only as often as it is let."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.gate = threading.Semaphore(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def translate(self, *args: Any) -> Any:
        assert self.gate.acquire(timeout=20)
        return self._engine.translate(*args)


class TestDrawings:
    @settings(max_examples=20, deadline=None)
    @given(st.integers(1, 5), st.integers(1, 12))
    def test_every_nth_frame_is_drawn(
        self, engine: Engine, faces: list[Image], drawn: list[Image], hold: int, frames: int
    ) -> None:
        times = StageTimes()
        drawings = Drawings(engine, Effects(), times, hold)
        for i in range(frames):
            shown = in_turn(*drawn[: i + 1 : hold])
            np.testing.assert_array_equal(drawings.of([faces[i]], [7], None, i / (30 * hold))[0], shown)
        assert made(times) == math.ceil(frames / hold)

    def test_a_face_that_appears_is_drawn_at_once(
        self, engine: Engine, faces: list[Image], drawn: list[Image]
    ) -> None:
        drawings = Drawings(engine, Effects(), StageTimes(), 5)
        drawings.of([faces[0]], [1], None, 0 / (30 * 5))
        both = drawings.of([faces[2], faces[1]], [2, 1], None, 1 / 30)
        np.testing.assert_array_equal(both, [drawn[2], in_turn(*drawn[:2])])
        (left,) = drawings.of([faces[3]], [1], None, 1.2 / 30)
        np.testing.assert_array_equal(left, both[1])

    def test_so_is_a_crop_of_another_size_and_another_video(
        self, engine: Engine, faces: list[Image], drawn: list[Image]
    ) -> None:
        drawings = Drawings(engine, Effects(), StageTimes(), 5)
        drawings.of([np.pad(faces[0], ((0, 32), (0, 32), (0, 0)))], [1], None, 0 / (30 * 5))
        np.testing.assert_array_equal(drawings.of([faces[1]], [1], None, 1 / (30 * 5))[0], drawn[1])
        drawings.reset()
        np.testing.assert_array_equal(drawings.of([faces[2]], [1], None, 2 / (30 * 5))[0], drawn[2])

    def test_each_in_its_style(self, engine: Engine, faces: list[Image]) -> None:
        codes = np.random.default_rng(1).standard_normal((2, 8)).astype(np.float32)
        got = Drawings(engine, Effects(), StageTimes()).of(faces[:2], [1, 2], codes, 0 / (30 * 1))
        np.testing.assert_array_equal(got, engine.translate(np.stack(faces[:2]), codes))


class TestAhead:
    def test_the_last_is_shown_while_the_next_is_made(
        self, engine: Engine, faces: list[Image], drawn: list[Image]
    ) -> None:
        gated = Gated(engine)
        gated.gate.release()
        drawings = DrawingsAhead(gated, Effects(), StageTimes(), 3)  # type: ignore[arg-type]
        # The fourth frame is drawn, and shown by the seventh at the latest.
        for i in range(6):
            np.testing.assert_array_equal(drawings.of([faces[i]], [1], None, i / (30 * 3))[0], drawn[0])
        gated.gate.release(2)
        np.testing.assert_array_equal(
            drawings.of([faces[6]], [1], None, 6 / (30 * 3))[0], in_turn(drawn[0], drawn[3])
        )
        drawings.close(20)

    def test_it_is_shown_once_it_is_there(
        self, engine: Engine, faces: list[Image], drawn: list[Image]
    ) -> None:
        times = StageTimes()
        drawings = DrawingsAhead(engine, Effects(), times, 4)
        for i in range(5):
            drawings.of([faces[i]], [1], None, i / (30 * 4))
        until(lambda: drawings._pending is not None and drawings._pending.done())
        np.testing.assert_array_equal(
            drawings.of([faces[5]], [1], None, 5 / (30 * 4))[0], in_turn(drawn[0], drawn[4])
        )
        assert made(times) == 2
        drawings.close(20)

    def test_with_every_frame_drawn_there_is_no_thread(
        self, engine: Engine, faces: list[Image], drawn: list[Image]
    ) -> None:
        drawings = DrawingsAhead(engine, Effects(), StageTimes())
        for i, face in enumerate(faces):
            np.testing.assert_array_equal(drawings.of([face], [1], None, i / 30)[0], in_turn(*drawn[: i + 1]))
        assert "gnr-video draw" not in {thread.name for thread in threading.enumerate()}
        drawings.close()

    def test_back_to_every_frame(self, engine: Engine, faces: list[Image], drawn: list[Image]) -> None:
        drawings = DrawingsAhead(engine, Effects(), StageTimes(), 2)
        for i in range(3):
            drawings.of([faces[i]], [1], None, i / (30 * 2))
        drawings.hold = 1
        for i in range(3, 6):
            shown = in_turn(drawn[0], drawn[2], *drawn[3 : i + 1])
            np.testing.assert_array_equal(drawings.of([faces[i]], [1], None, (i - 1) / 30)[0], shown)
        drawings.close(20)

    def test_a_new_face_waits_for_its_own(
        self, engine: Engine, faces: list[Image], drawn: list[Image]
    ) -> None:
        drawings = DrawingsAhead(engine, Effects(), StageTimes(), 3)
        for i in range(4):
            drawings.of([faces[i]], [1], None, i / (30 * 3))
        np.testing.assert_array_equal(drawings.of([faces[4]], [2], None, 4 / (30 * 3))[0], drawn[4])
        drawings.close(20)

    def test_a_failure_reaches_who_waits(
        self, engine: Engine, faces: list[Image], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawings = DrawingsAhead(engine, Effects(), StageTimes(), 2)
        for i in range(2):
            drawings.of([faces[i]], [1], None, i / (30 * 2))

        def broken(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(engine, "translate", broken)
        with pytest.raises(ZeroDivisionError):
            for i in range(2, 6):
                drawings.of([faces[i]], [1], None, i / (30 * 2))
        drawings.close(20)


def painted(image: Image, source: Image) -> tuple[float, float]:
    """The middle of what was changed, pixels."""
    changed = np.abs(image.astype(int) - source).max(2) > 24
    y, x = np.nonzero(changed)
    return float(x.mean()), float(y.mean())


class TestVideo:
    def test_a_drawing_goes_where_the_face_goes(
        self, tiny: Path, face_model: Path, face_clip: Path, tmp_path: Path
    ) -> None:
        sources = read_pictures(face_clip)
        middles: dict[int, list[tuple[float, float]]] = {}
        for hold in (1, 8):
            with Translator(
                tiny,
                engine=EngineOptions("torch", precision="fp32"),
                look=LookOptions(paste="face", hold=hold),
            ) as translator:
                report = translator.translate_video(face_clip, tmp_path / f"{hold}.mp4", OutputOptions(crf=1))
            assert report.stages["network"].count == math.ceil(report.frames / hold)
            assert report.settings["hold"] == hold
            middles[hold] = [
                painted(*pair) for pair in zip(read_pictures(tmp_path / f"{hold}.mp4"), sources, strict=True)
            ]
        one, held = np.array(middles[1]), np.array(middles[8])
        assert np.abs(one[7] - one[0]).max() > 4, "it moves"
        assert np.abs(held - one).max() < 2

    @pytest.mark.parametrize(
        ("look", "words"),
        [
            (LookOptions(hold=0), "one frame or more"),
            (LookOptions(hold=2, grid=(2, 2)), "drawn for every frame"),
        ],
    )
    def test_what_cannot_be_held(self, tiny: Path, look: LookOptions, words: str) -> None:
        with pytest.raises(InputError, match=words):
            Translator(tiny, engine=EngineOptions("torch"), look=look)

    def test_the_command(self, tiny: Path, face_model: Path, face_clip: Path, tmp_path: Path) -> None:
        arguments = [face_clip, "--weights", tiny, "--engine", "torch", "-o", tmp_path / "a.mp4"]
        done = call(*arguments, "--hold", 3, "--report", tmp_path / "a.json")
        assert done.status == 0, done.stderr
        assert '"hold": 3' in (tmp_path / "a.json").read_text()
        assert "hold" in call(*arguments, "--hold", 0).stderr


class TestLive:
    @pytest.fixture
    def slowed(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Engine, float], None]:
        """Makes an engine slow: what it draws stays what it is."""

        def slow(engine: Engine, seconds: float) -> None:
            fast = engine.translate

            def slowly(*args: Any) -> Any:
                time.sleep(seconds)
                return fast(*args)

            monkeypatch.setattr(engine, "translate", slowly)

        return slow

    def test_a_slow_network_does_not_set_the_rate(
        self,
        tiny: Path,
        face_model: Path,
        face_clip: Path,
        tmp_path: Path,
        slowed: Callable[[Engine, float], None],
    ) -> None:
        with live_session(tiny, face_clip, folder=tmp_path) as session:
            slowed(session.translator.engine, 0.8)
            sink = Kept()
            session.add_sink(sink)
            until(lambda: session.status().drawn < 0.5 * session.status().fps, 60)
            drawn, shown = made(session.times), sink.count
            until(lambda: made(session.times) >= drawn + 10, 60)
            # Ten, and those under way, if each had a drawing of its own; up to MAX_HOLD times as many, less where the
            # clip begins anew: the face there is drawn at once.
            assert sink.count - shown >= 2 * 10
            # Rates are of the last moments, and in those of a busy machine there may be no picture.
            until(lambda: "drawn" in session.status().line(), 60)

    def test_as_few_frames_as_are_enough(self, tiny: Path, face_clip: Path, tmp_path: Path) -> None:
        """At 20 frames a second there are 50 ms for each."""
        with live_session(tiny, face_clip, folder=tmp_path) as session:
            session.stop()
            wanted = []
            for milliseconds in (10, 49, 51, 120, 400, 120, 60, 45, 39, 45):
                session.times.recent = {"network": milliseconds / 1e3}
                session._drawings.hold = session._enough()
                wanted.append(session._drawings.hold)
        assert wanted == [1, 1, 2, 3, 3, 3, 2, 2, 1, 1]


def test_small_changes_are_followed_slowly_and_large_ones_at_once():
    before = np.full((8, 8, 3), 100, np.uint8)
    for step, followed in ((0, 0), (1, 0), (2, 1), (8, 4), (24, 24), (100, 100)):
        for sign in (1, -1):
            now = (before.astype(int) + sign * step).astype(np.uint8)
            assert (settled(before, now).astype(int) - before == sign * followed).all()
    smaller = np.zeros((4, 4, 3), np.uint8)
    assert settled(before, smaller) is smaller


@settings(deadline=None)
@given(st.integers(0, 255), st.integers(0, 255))
def test_a_settled_drawing_lies_between_the_two_and_near_the_new_one(before, now):
    made = int(settled(*(np.full((1, 1, 3), value, np.uint8) for value in (before, now)))[0, 0, 0])
    assert min(before, now) <= made <= max(before, now)
    assert abs(made - now) <= 5


def test_noise_in_drawings_is_calmed():
    rng = np.random.default_rng(0)
    noisy = [np.round(np.clip(rng.normal(128, 3, (64, 64, 3)), 0, 255)).astype(np.uint8) for _ in range(20)]
    calm = [noisy[0]]
    for picture in noisy[1:]:
        calm.append(settled(calm[-1], picture))

    def flicker(pictures: list[np.ndarray]) -> float:
        return float(np.abs(np.diff(np.stack(pictures[5:]).astype(int), axis=0)).mean())

    assert flicker(calm) < 0.5 * flicker(noisy)
