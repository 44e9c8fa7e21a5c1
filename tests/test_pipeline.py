"""The stages joined: order, bounded memory, failures and cancellation at any point. Device: CPU."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engines
from engines.base import Engine
from engines.torch_engine import TorchEngine
from engines.weights import load_weights
from gnr_video import pipeline
from gnr_video.channels import DEPTH, Cancelled, Channel, Threaded
from gnr_video.compositing.compositor import Compositor
from gnr_video.effects.chain import Effects
from gnr_video.frame import Frame, Image
from gnr_video.pipeline import Counts, Look
from gnr_video.samples.portrait import demo_frames
from gnr_video.timing import StageTimes
from gnr_video.tracking.finder import Finder
from gnr_video.tracking.scene_cut import SceneCut
from gnr_video.tracking.smoothing import Aligner
from gnr_video.tracking.tracker import FaceTracker

pytestmark = pytest.mark.usefixtures("no_threads_left")

SECONDS = 10.0
"""Longest that anything here may wait: far more than it takes on a busy machine."""


def stage_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("gnr-video ")]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class TestChannel:
    @settings(deadline=None, max_examples=25)
    @given(st.lists(st.integers(), max_size=30), st.integers(1, 4))
    def test_everything_arrives_in_order(self, items: list[int], depth: int) -> None:
        channel: Channel[int] = Channel(depth)

        def produce() -> None:
            for item in items:
                channel.put(item)
            channel.end()

        thread = threading.Thread(target=produce)
        thread.start()
        got = []
        with pytest.raises(StopIteration):
            while True:
                got.append(channel.get())
        thread.join(SECONDS)
        assert got == items
        assert not thread.is_alive()

    def test_a_full_channel_makes_the_producer_wait(self) -> None:
        channel: Channel[int] = Channel(2)
        put = []

        def produce() -> None:
            for item in range(10):
                channel.put(item)
                put.append(item)
            channel.end()

        thread = threading.Thread(target=produce)
        thread.start()
        wait_until(lambda: len(put) == 2)
        time.sleep(0.05)
        assert put == [0, 1]
        assert channel.get() == 0
        wait_until(lambda: len(put) == 3)
        for expected in range(1, 10):
            assert channel.get() == expected
        thread.join(SECONDS)

    def test_a_failure_comes_after_the_items_before_it(self) -> None:
        channel: Channel[int] = Channel()
        channel.put(1)
        failure = ValueError("broken")
        channel.end(failure)
        assert channel.get() == 1
        for _ in range(2):
            with pytest.raises(ValueError, match="broken") as caught:
                channel.get()
            assert caught.value is failure

    def test_cancel_wakes_a_producer_that_waits(self) -> None:
        channel: Channel[int] = Channel(1)
        channel.put(0)
        ended = []

        def produce() -> None:
            try:
                channel.put(1)
            except Cancelled:
                ended.append("cancelled")

        thread = threading.Thread(target=produce)
        thread.start()
        time.sleep(0.02)
        channel.cancel()
        thread.join(SECONDS)
        assert ended == ["cancelled"]

    def test_cancel_wakes_a_consumer_that_waits(self) -> None:
        channel: Channel[int] = Channel()
        ended = []

        def consume() -> None:
            try:
                channel.get()
            except Cancelled:
                ended.append("cancelled")

        thread = threading.Thread(target=consume)
        thread.start()
        time.sleep(0.02)
        channel.cancel()
        thread.join(SECONDS)
        assert ended == ["cancelled"]

    def test_nothing_goes_through_a_cancelled_channel(self) -> None:
        channel: Channel[int] = Channel()
        channel.put(1)
        channel.cancel()
        with pytest.raises(Cancelled):
            channel.get()
        with pytest.raises(Cancelled):
            channel.put(2)


class TestThreaded:
    def test_runs_ahead_by_no_more_than_its_depth(self) -> None:
        made = []

        def stage() -> Generator[int, None, None]:
            for item in range(50):
                made.append(item)
                yield item

        ahead = Threaded(stage(), "test", depth=3)
        assert next(ahead) == 0
        wait_until(lambda: len(made) == 5)  # one taken, three in the channel, one in the hand
        time.sleep(0.05)
        assert len(made) == 5
        assert list(ahead) == list(range(1, 50))
        ahead.close()

    def test_works_on_another_thread(self) -> None:
        def stage() -> Generator[threading.Thread, None, None]:
            yield threading.current_thread()

        ahead = Threaded(stage(), "test")
        worker = next(ahead)
        assert worker is not threading.current_thread()
        assert worker.name == "gnr-video test"
        ahead.close()
        assert not worker.is_alive()

    @pytest.mark.parametrize("taken", [0, 1, 20])
    def test_close_closes_the_stage(self, taken: int) -> None:
        closed = []

        def stage() -> Generator[int, None, None]:
            try:
                yield from range(1_000_000)
            finally:
                closed.append(True)

        ahead = Threaded(stage(), "test")
        assert [next(ahead) for _ in range(taken)] == list(range(taken))
        ahead.close()
        ahead.close()
        assert bool(closed) == (taken > 0)  # what was never begun has nothing to end
        assert not stage_threads()

    def test_a_failure_while_the_stage_is_closed_does_not_hang_anyone(self) -> None:
        def stage() -> Generator[int, None, None]:
            try:
                yield from range(1_000_000)
            finally:
                raise RuntimeError("cannot be closed")

        ahead = Threaded(stage(), "test")
        next(ahead)
        ahead.close()
        assert not stage_threads()

    @settings(deadline=None, max_examples=30)
    @given(
        count=st.integers(0, 20),
        stages=st.integers(1, 4),
        depth=st.integers(1, 3),
        fails_at=st.integers(0, 25),
        fails_in=st.integers(0, 3),
        taken=st.integers(0, 25),
    )
    def test_chains_end_wherever_they_break(
        self, count: int, stages: int, depth: int, fails_at: int, fails_in: int, taken: int
    ) -> None:
        """Some stages in a row, one of which may fail, and a consumer that may leave early."""

        def stage(number: int, items: Iterable[int]) -> Generator[int, None, None]:
            for item in items:
                if number == fails_in and item == fails_at:
                    raise ValueError(f"stage {number}")
                yield item

        chain: list[Threaded[int]] = []
        items: Iterable[int] = range(count)
        for number in range(stages):
            items = Threaded(stage(number, items), str(number), depth)
            chain.append(items)
        fails = fails_in < stages and fails_at < count
        got: list[int] = []
        failure = ""
        try:
            for item in items:
                if len(got) == taken:
                    break
                got.append(item)
        except ValueError as error:
            failure = str(error)
        finally:
            for link in reversed(chain):
                link.cancel()
            for link in reversed(chain):
                link.close(SECONDS)
        ends = fails_at if fails else count
        assert got == list(range(min(taken, ends)))
        assert failure == (f"stage {fails_in}" if fails and taken >= ends else "")
        assert not stage_threads()


@lru_cache(maxsize=1)
def pictures() -> list[Image]:
    """A moving face, 24 pictures of a path that closes."""
    return list(demo_frames(24, (320, 180)))


def frames(count: int) -> Iterator[Frame]:
    """Times are as irregular as variable frame rate makes them."""
    pts = 7
    for index in range(count):
        image = pictures()[index % 24]
        yield Frame(image, pts, Fraction(1, 600), index, {"duration": 20, "index": index})
        pts += 20 + 7 * (index % 3)


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Iterator[Engine]:
    with engines.create(load_weights(tiny), engine="torch", precision="fp32", threads=1) as made:
        made.set_style(np.linspace(-1, 1, 8, dtype=np.float32))
        yield made


@pytest.fixture
def parts(face_model: Path, engine: Engine) -> Iterator[dict[str, Any]]:
    """What `pipeline.run` is given besides source and sink."""
    with Finder(face_model, lookahead=3) as finder:
        look = Look(engine, Compositor("head"), Effects({"steady": False}))
        yield {"finder": finder, "look": look, "times": StageTimes()}


class TestRun:
    @pytest.mark.parametrize("lookahead", [0, 3, 40])
    def test_every_frame_comes_out_once_in_order_with_its_own_time(
        self, parts: dict[str, Any], lookahead: int
    ) -> None:
        source = list(frames(14))
        result: list[Frame] = []
        told: list[int] = []
        parts["finder"].aligner = Aligner(lookahead)
        counts = pipeline.run(
            source,
            result.append,
            **parts,
            on_frame=lambda done: told.append(done.frames),
        )
        assert [(f.pts, f.time_base, f.index, f.props) for f in result] == [
            (f.pts, f.time_base, f.index, f.props) for f in source
        ]
        assert counts == Counts(frames=14, faces=14, frames_without_face=0)
        assert told == list(range(1, 15))
        summary = parts["times"].summary()
        assert set(summary) == {"decode", "track", "align", "crop", "network", "compose", "encode"}
        assert summary["network"].count == summary["encode"].count == 14
        assert not stage_threads()

    def test_the_face_changes_and_the_rest_stays(self, parts: dict[str, Any]) -> None:
        source = list(frames(6))
        result: list[Frame] = []
        pipeline.run(source, result.append, **parts)
        for before, after in zip(source, result):
            changed = np.abs(before.image.astype(int) - after.image).max(axis=2)
            assert 0.02 < (changed > 20).mean() < 0.6
            assert changed[:, :20].max() == changed[:, -20:].max() == 0  # beside the head
            assert before.image is not after.image

    def test_the_source_pictures_are_left_as_they_are(self, parts: dict[str, Any]) -> None:
        source = list(frames(5))
        copies = [f.image.copy() for f in source]
        pipeline.run(source, lambda frame: None, **parts)
        for frame, copy in zip(source, copies):
            np.testing.assert_array_equal(frame.image, copy)

    def test_a_frame_is_composed_while_the_one_before_is_written(self, parts: dict[str, Any]) -> None:
        """Encoding and pasting are the two longest stages of large pictures: neither waits for the other."""
        composed: list[str] = []
        compositor = parts["look"].compositor
        compose = compositor.compose

        def noted(*arguments: Any) -> Image:
            composed.append(threading.current_thread().name)
            return compose(*arguments)

        def write(frame: Frame) -> None:
            written.append(frame.index)
            wait_until(lambda: len(composed) > min(len(written), 5))

        written: list[int] = []
        compositor.compose = noted
        try:
            pipeline.run(list(frames(6)), write, **parts)
        finally:
            del compositor.compose
        assert written == list(range(6)) and set(composed) == {"gnr-video compose"}

    def test_no_frames(self, parts: dict[str, Any]) -> None:
        assert pipeline.run([], lambda frame: None, **parts) == Counts()

    def test_frames_without_a_face_pass_through(self, parts: dict[str, Any]) -> None:
        y, x = np.mgrid[0:90, 0:160]
        picture = np.stack([x, y, 255 - x], -1).astype(np.uint8)
        source = [Frame(picture, i, Fraction(1, 25), i) for i in range(6)]
        result: list[Frame] = []
        counts = pipeline.run(source, result.append, **parts)
        assert counts == Counts(frames=6, faces=0, frames_without_face=6)
        for frame in result:
            np.testing.assert_array_equal(frame.image, picture)

    def test_the_number_of_frames_in_memory_does_not_grow_with_the_video(self, parts: dict[str, Any]) -> None:
        """With a writer slower than all stages before it, which would fill any queue without bound."""
        alive = 0
        most = 0
        lock = threading.Lock()

        def died() -> None:
            nonlocal alive
            with lock:
                alive -= 1

        def source() -> Iterator[Frame]:
            nonlocal alive, most
            for frame in frames(40):
                weakref.finalize(frame, died)
                with lock:
                    alive += 1
                    most = max(most, alive)
                yield frame

        pipeline.run(source(), lambda frame: time.sleep(0.03), **parts)
        # What the aligner waits for, three channels, and what each of the stages has in its hands. (Behind
        # `compose` there are other frames.)
        assert 3 < most <= 3 + 3 * DEPTH + 8


class Broken(Exception):
    """What the stages below raise."""


def breaking(cls: type, method: str, after: int) -> type:
    """The class with a method that raises at its call number `after`, counted from 0."""
    calls = 0

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Broken(f"{cls.__name__}.{method}")
        return getattr(super(made, self), method)(*args, **kwargs)

    made = type(f"Breaking{cls.__name__}", (cls,), {method: wrapped})
    return made


class TestFailures:
    AFTER = 5

    @pytest.mark.parametrize("where", ["source", "cuts", "tracker", "aligner", "engine", "compositor"])
    def test_of_a_stage(self, parts: dict[str, Any], tiny: Path, face_model: Path, where: str) -> None:
        """The exception arrives, nothing hangs, all threads end, and no frame is written twice or skipped."""
        closed: list[bool] = []

        def source() -> Iterator[Frame]:
            try:
                for frame in frames(30):
                    if where == "source" and frame.index == self.AFTER:
                        raise Broken("source")
                    yield frame
            finally:
                closed.append(True)

        written: list[int] = []
        made: dict[str, Any] = {}
        finder, look = parts["finder"], parts["look"]
        if where == "cuts":
            made[where] = breaking(SceneCut, "is_cut", self.AFTER)()
        elif where == "tracker":
            made[where] = breaking(FaceTracker, "track", self.AFTER)(face_model)
        elif where == "aligner":
            made[where] = breaking(Aligner, "push", self.AFTER)(3)
        elif where == "engine":
            made[where] = breaking(TorchEngine, "_translate", self.AFTER)(
                load_weights(tiny), device="cpu", precision="fp32"
            )
            made[where].set_style(np.zeros(8, np.float32))
        elif where == "compositor":
            made[where] = breaking(Compositor, "compose", self.AFTER)("head")
        for name, thing in made.items():
            if hasattr(finder, name):
                if hasattr(getattr(finder, name), "close"):
                    getattr(finder, name).close()
                setattr(finder, name, thing)
            else:
                look = replace(look, **{name: thing})
        with pytest.raises(Broken, match=where[:5] if where == "source" else r"\."):
            pipeline.run(source(), lambda frame: written.append(frame.index), finder, look, parts["times"])
        assert not stage_threads()
        assert written == list(range(len(written)))
        assert len(written) <= self.AFTER
        if where in ("engine", "compositor"):
            assert len(written) == self.AFTER
        for thing in made.values():
            if hasattr(thing, "close"):
                thing.close()
        if where == "source":
            assert closed == [True]

    @pytest.mark.parametrize("error", [Broken, KeyboardInterrupt, MemoryError])
    @pytest.mark.parametrize("where", ["write", "on_frame"])
    def test_of_the_writer(self, parts: dict[str, Any], where: str, error: type[BaseException]) -> None:
        read = []

        def source() -> Iterator[Frame]:
            for frame in frames(30):
                read.append(frame.index)
                yield frame

        def fail(number: int) -> None:
            if number == 2:
                raise error("stop")

        with pytest.raises(error, match="stop"):
            pipeline.run(
                source(),
                lambda frame: fail(frame.index if where == "write" else -1),
                on_frame=lambda counts: fail(counts.frames - 1 if where == "on_frame" else -1),
                **parts,
            )
        assert not stage_threads()
        assert len(read) < 30

    def test_a_source_that_says_nothing_does_not_hold_up_the_end(self, parts: dict[str, Any]) -> None:
        """Ctrl-C while a pipe is silent: the run ends, though the reading thread cannot be woken."""
        speak = threading.Event()

        def source() -> Iterator[Frame]:
            yield from frames(12)
            speak.wait(SECONDS)

        def write(frame: Frame) -> None:
            if frame.index == 6:
                raise KeyboardInterrupt

        before = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(source(), write, **parts)
        assert time.monotonic() - before < SECONDS - 1
        assert set(stage_threads()) <= {"gnr-video decode"}
        speak.set()
        wait_until(lambda: not stage_threads())

    def test_the_parts_can_be_used_again(self, parts: dict[str, Any]) -> None:
        with pytest.raises(Broken):
            pipeline.run(frames(10), self._broken_write, **parts)
        parts["times"] = StageTimes()
        parts["finder"].reset()
        result: list[Image] = []
        counts = pipeline.run(frames(8), lambda frame: result.append(frame.image), **parts)
        assert counts.frames == len(result) == 8

    @staticmethod
    def _broken_write(frame: Frame) -> None:
        raise Broken("disk")
