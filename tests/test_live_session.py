"""The live session: pictures go through, delay does not build up, sinks do not hold each other up. Device: CPU."""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from gnr_video.frame import Frame
from gnr_video.live.camera import Shot
from gnr_video.live.recorder import TIME_BASE, Recorder, RecordSink
from gnr_video.live.session import IN_FLIGHT, QUICK_IN_FLIGHT
from gnr_video.live.sinks import ThreadedSink
from gnr_video.live.status import Status, limit_of
from gnr_video.media.images import before_after, fitted
from tests.live_helpers import Kept, Still, live_session, until
from tests.media_helpers import frame_times, picture, read_pictures

pytestmark = pytest.mark.usefixtures("face_model", "no_threads_left")


class TestPictures:
    def test_the_face_is_translated_and_the_style_changes_it(
        self, tiny: Path, face_clip: Path, tmp_path: Path
    ) -> None:
        with live_session(tiny, face_clip, folder=tmp_path) as session:
            sink = Kept()
            session.add_sink(sink)

            def changed() -> float:
                assert sink.last is not None
                frame = sink.last
                return float(np.abs(frame.image.astype(int) - frame.props["source"]).mean())

            until(lambda: sink.last is not None and changed() > 1)
            session.controls.run("view", "before")
            until(lambda: changed() == 0)
            session.controls.run("view", "after")
            until(lambda: changed() > 1)
            assert session.crop is not None
            assert session.counts.faces > 0
        assert sink.closed
        assert session.report().frames == session.counts.frames

    def test_views_and_paste_modes_keep_the_size(self, tiny: Path, face_clip: Path, tmp_path: Path) -> None:
        with live_session(tiny, face_clip, folder=tmp_path) as session:
            sink = Kept()
            session.add_sink(sink)
            until(lambda: session.counts.faces)
            for command, value in (("view", "both"), ("view", "grid"), ("view", "after"), ("paste", "crop"),
                                   ("paste", "side-by-side")):  # fmt: skip
                session.controls.run(command, value)
                seen = sink.count
                until(lambda seen=seen: sink.count > seen + 4)
                assert sink.last is not None
                assert sink.last.size == session.size == (320, 180)

    def test_the_grid_is_that_of_files(self, tiny: Path, face_clip: Path, tmp_path: Path) -> None:
        """Eight styles around the face, in the middle of a picture of another shape."""
        with live_session(tiny, face_clip, folder=tmp_path) as session:
            sink = Kept()
            session.add_sink(sink)
            session.controls.run("view", "grid")
            until(lambda: sink.last is not None and "grid" in sink.last.props)
            image = sink.last.image
        assert image.shape == (180, 320, 3)
        assert image[:, :70].max() == image[:, 250:].max() == 0
        cells = [image[y : y + 60, x : x + 60].astype(int) for y in (0, 60, 120) for x in (70, 130, 190)]
        own = cells.pop(4)
        assert own.std() > 20, "the face itself"
        assert all(np.abs(a[:40] - b[:40]).mean() > 1 for i, a in enumerate(cells) for b in [own, *cells[:i]])

    def test_effects_go_to_the_translator(self, tiny: Path, tmp_path: Path) -> None:
        with live_session(tiny, Still(picture(96, 64)), folder=tmp_path) as session:
            effects = session.translator.effects
            for name, on in effects.state.items():
                session.controls.run(name)
                until(lambda name=name, on=on: effects[name] is not on)

    def test_mirror(self, tiny: Path, tmp_path: Path) -> None:
        still = picture(96, 64)
        with live_session(tiny, Still(still), folder=tmp_path) as session:
            sink = Kept()
            session.add_sink(sink)
            until(lambda: sink.last is not None and np.array_equal(sink.last.image, still))
            session.controls.run("mirror")
            until(lambda: sink.last is not None and np.array_equal(sink.last.image, still[:, ::-1]))


class TestDelay:
    def test_it_does_not_build_up_when_the_network_is_slow(
        self, tiny: Path, face_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A stage of 400 ms and a camera of 20 fps: frames are dropped, what is shown stays fresh."""
        with live_session(tiny, face_clip, folder=tmp_path) as session:
            engine = session.translator.engine
            fast = engine.translate

            def slow(*args: object) -> object:
                time.sleep(0.4)
                return fast(*args)  # type: ignore[arg-type]

            monkeypatch.setattr(engine, "translate", slow)
            sink, on_their_way = Kept(), []
            session.add_sink(sink)

            def twelve_shown() -> bool:
                entered = session.times.summary().get("wait")
                on_their_way.append((entered.count if entered else 0) - sink.count)
                return session.counts.faces >= 12

            until(twelve_shown, 60)
            dropped = session.status().dropped
        assert dropped > 5
        # However long it runs: a picture is shown while at most one other follows it.
        assert max(on_their_way) <= IN_FLIGHT

    @pytest.mark.parametrize(("fps", "most"), [(30, IN_FLIGHT), (60, QUICK_IN_FLIGHT)])
    def test_a_quick_camera_has_one_more_on_the_way(
        self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fps: float, most: int
    ) -> None:
        """As many as may enter while nothing is shown."""
        go = threading.Event()
        with live_session(tiny, Still(picture(160, 90), fps), folder=tmp_path) as session:
            compositor, sink = session.translator.compositor, Kept()
            compose = compositor.compose
            session.add_sink(sink)
            monkeypatch.setattr(compositor, "compose", lambda *args: go.wait(30) and compose(*args))

            def on_their_way() -> int:
                entered = session.times.summary().get("wait")
                return (entered.count if entered else 0) - sink.count

            until(lambda: on_their_way() == most)
            time.sleep(0.3)
            assert on_their_way() == most
            go.set()
            until(lambda: sink.count > most)

    def test_a_sink_that_hangs_holds_up_nobody(self, tiny: Path, tmp_path: Path) -> None:
        released = threading.Event()

        class Stuck(ThreadedSink):
            def deliver(self, frame: Frame) -> None:
                released.wait(20)

        with live_session(tiny, Still(picture(96, 64)), folder=tmp_path) as session:
            stuck, sink = Stuck("stuck"), Kept()
            session.add_sink(stuck)
            session.add_sink(sink)
            until(lambda: sink.count > 20)
            assert len(stuck.slot) <= 1
            start = time.perf_counter()
            session.stop()
            assert time.perf_counter() - start < 5
        released.set()

    def test_a_sink_that_fails_is_left_out_and_said(self, tiny: Path, tmp_path: Path) -> None:
        class Broken(ThreadedSink):
            def deliver(self, frame: Frame) -> None:
                raise RuntimeError("the cable is cut")

        with live_session(tiny, Still(picture(96, 64)), folder=tmp_path) as session:
            sink = Kept()
            session.add_sink(Broken("broken"))
            session.add_sink(sink)
            until(lambda: sink.count > 5)
            session.wait(0.2)
            assert "broken has failed: the cable is cut" in session.messages[0]
            seen = sink.count
            until(lambda: sink.count > seen + 5)

    def test_the_time_counts_from_the_first_picture(self, tiny: Path, tmp_path: Path) -> None:
        ready = threading.Event()

        class Late(Still):
            def read(self, stop: threading.Event) -> Shot | None:
                return super().read(stop) if ready.wait(0.01) else None

        with live_session(tiny, Late(picture(96, 64)), folder=tmp_path) as session:
            session.add_sink(sink := Kept())
            threading.Timer(0.5, ready.set).start()
            session.wait(0.2)
            assert sink.count > 2

    def test_a_session_without_a_picture_ends_too(
        self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gnr_video.live.session.FIRST_PICTURE_SECONDS", 0.2)
        camera = Still(picture(96, 64))
        camera.unplugged.set()
        with live_session(tiny, camera, folder=tmp_path) as session:
            start = time.perf_counter()
            session.wait(0.1)
            assert time.perf_counter() - start < 5 and not session.counts.frames

    def test_times_of_every_stage(self, tiny: Path, face_clip: Path, tmp_path: Path) -> None:
        with live_session(tiny, face_clip, folder=tmp_path) as session:
            session.add_sink(Kept("window"))
            until(lambda: session.counts.faces > 3)
            stages = session.report().stages
        assert {"wait", "track", "align", "crop", "network", "compose", "to window"} <= set(stages)
        assert stages["to window"].p50_ms >= stages["network"].p50_ms


class TestStatus:
    """15 of 30 pictures a second: whose fault is it?"""

    RECENT: ClassVar = {"track": 0.01, "matte": 0.02, "network": 0.062, "compose": 0.005}

    @pytest.mark.parametrize(
        ("fps", "given", "limit"),
        [(15, 30, "drawing (62 ms)"), (15, 15, "the camera"), (28, 30, "the camera"), (0, 0, "the camera")],
    )
    def test_what_limits(self, fps: float, given: float, limit: str) -> None:
        assert limit_of(fps, given, self.RECENT) == limit

    def test_in_a_sentence(self) -> None:
        slow = Status(15, 15, 120, 150, 268, "drawing (62 ms)", "", "", 30.0)
        assert slow.sentence() == (
            "15 of the camera's 30 pictures a second, 120 ms late: this machine is busy with drawing (62 ms)."
        )
        fine = Status(15, 15, 31, 44, 0, "the camera", "", "", 15.0)
        assert fine.sentence() == "15 pictures a second, as the camera gives them, 31 ms late."
        assert Status(0, 0, 0, 0, 0, "the camera", "", "").sentence() == ""

    def test_whether_there_is_a_face(self, tiny: Path, face_clip: Path, tmp_path: Path) -> None:
        with live_session(tiny, face_clip, folder=tmp_path) as session:
            until(lambda: session.status().face)
            still = Still(np.full((180, 320, 3), 90, np.uint8))
            session.capture.switch(lambda: still, still)
            until(lambda: not session.status().face)
            assert session.status().fps > 1


class TestEnding:
    def test_the_last_picture_stays_while_the_camera_is_gone(self, tiny: Path, tmp_path: Path) -> None:
        from engines.errors import InputError

        first, second, back = Still(picture(96, 64)), Still(picture(96, 64, 9)), threading.Event()

        def reopen() -> Still:
            if not back.is_set():
                raise InputError("no camera at /dev/video0")
            return second

        with live_session(tiny, first, reopen=reopen, folder=tmp_path) as session:
            sink = Kept()
            session.add_sink(sink)
            until(lambda: sink.count > 3)
            first.unplugged.set()
            until(lambda: "no camera" in session.status().notice)
            seen = sink.count
            until(lambda: sink.count > seen + 2)
            assert sink.last is not None
            assert np.array_equal(sink.last.image, first.image)
            assert all(b > a for a, b in pairwise(sink.times))
            back.set()
            until(lambda: sink.last is not None and np.array_equal(sink.last.image, second.image))
            assert session.status().notice == ""

    def test_stop_is_quick_and_lets_go_of_everything(
        self, tiny: Path, face_clip: Path, tmp_path: Path
    ) -> None:
        with live_session(tiny, face_clip, folder=tmp_path) as session:
            recorder = Recorder(session, tmp_path / "out.mp4")
            recorder.start()
            until(lambda: session.counts.frames > 10)
            start = time.perf_counter()
            session.stop()
            assert time.perf_counter() - start < 10.0
            recorder.stop()
            session.stop()
        assert recorder.last == tmp_path / "out.mp4"
        assert len(read_pictures(tmp_path / "out.mp4")) > 3

    def test_a_stage_that_is_slow_to_end_leaves_no_thread(
        self, tiny: Path, face_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The drawings' thread too, which nobody else would end; `no_threads_left` looks."""
        with live_session(tiny, face_clip, folder=tmp_path) as session:
            session.hold = 2
            until(lambda: session._drawings._thread.is_alive())
            find, held = session._finder.tracker.track, threading.Event()

            def slow(*args: Any) -> Any:
                held.set()
                time.sleep(2.0)
                return find(*args)

            monkeypatch.setattr(session._finder.tracker, "track", slow)
            assert held.wait(20)

    def test_a_bug_in_a_stage_ends_the_session(
        self, tiny: Path, face_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with live_session(tiny, face_clip, folder=tmp_path) as session:
            monkeypatch.setattr(session.translator.engine, "translate", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                session.wait(20)

    def test_quit(self, tiny: Path, tmp_path: Path) -> None:
        with live_session(tiny, Still(picture(96, 64)), folder=tmp_path) as session:
            threading.Timer(0.1, session.controls.run, ["quit"]).start()
            session.wait(20)
            assert session.controls.quitting.is_set()


class TestRecording:
    def test_times_are_the_cameras(self, tiny: Path, face_clip: Path, tmp_path: Path) -> None:
        with live_session(tiny, face_clip, folder=tmp_path) as session:
            sink, target = Kept(), tmp_path / "out.mp4"
            recorder = Recorder(session, target)
            session.controls.on_record = recorder.toggle
            assert "recording to" in session.controls.run("record")
            session.add_sink(sink)
            until(lambda: sink.count > 12)
            assert "recorded" in session.controls.run("record")
        times = [float(t) for t in frame_times(target)]
        assert len(times) >= 8
        assert times[0] == pytest.approx(0, abs=0.001)
        assert all(b > a for a, b in pairwise(times))
        taken = np.array(sink.times) - sink.times[0]
        assert times[-1] == pytest.approx(taken[-1], abs=1.0)
        assert not list(tmp_path.glob(".*part*"))

    def test_a_second_recording_has_its_own_name(self, tiny: Path, tmp_path: Path) -> None:
        with live_session(tiny, Still(picture(96, 64)), folder=tmp_path) as session:
            recorder = Recorder(session, tmp_path / "out.mp4")
            for _ in range(2):
                recorder.start()
                until(lambda: recorder.current is not None and recorder.current.frames_written > 3)
                recorder.stop()
        assert recorder.last == tmp_path / "out-2.mp4"
        assert len(read_pictures(tmp_path / "out.mp4")) > 3

    def test_a_recording_without_a_picture_leaves_no_file(self, tmp_path: Path) -> None:
        sink = RecordSink(tmp_path / "out.mp4", (64, 48), 30)
        sink.close(5)
        assert list(tmp_path.iterdir()) == []

    def test_what_is_there_already_stays(self, tiny: Path, tmp_path: Path) -> None:
        (tmp_path / "out.mp4").write_bytes(b"mine")
        with live_session(tiny, Still(picture(96, 64)), folder=tmp_path) as session:
            said = Recorder(session, tmp_path / "out.mp4").toggle()
        assert "exists already" in said
        assert (tmp_path / "out.mp4").read_bytes() == b"mine"

    def test_it_is_playable_when_the_process_is_killed(self, tmp_path: Path) -> None:
        """What stands on the disk before the file is closed has pictures in it."""
        from gnr_video.media.sink import temporary_name

        sink = RecordSink(tmp_path / "out.mp4", (64, 48), 10)
        for i in range(60):
            sink.deliver(Frame(picture(64, 48, i), 0, TIME_BASE, i, {"captured": i / 10}))
        copy = tmp_path / "copy.mp4"
        copy.write_bytes(temporary_name(tmp_path / "out.mp4").read_bytes())
        assert len(read_pictures(copy)) >= 20
        sink.close(5)
        assert len(read_pictures(tmp_path / "out.mp4")) == 60

    def test_a_full_disk_leaves_what_was_recorded(self, tiny: Path, tmp_path: Path) -> None:
        with live_session(tiny, Still(picture(96, 64)), folder=tmp_path) as session:
            recorder = Recorder(session, tmp_path / "out.mp4")
            recorder.start()
            recording = recorder.current
            assert recording is not None
            until(lambda: recording.frames_written > 120)  # a key frame every two seconds closes a fragment

            def full(*_: object) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            recording._sink._encode = full  # type: ignore[attr-defined]
            until(lambda: recording.failure is not None)
            assert "no room left" in str(recording.failure)
            until(lambda: (tmp_path / "out.mp4").exists())
            assert not recorder.running and recorder.last == tmp_path / "out.mp4"
            session.wait(20)  # nothing shows the pictures any more
            assert "no room left" in session.controls.message
            assert session.failures == [recording.failure]
            assert re.fullmatch(r"recorded only \d+\.\d s, until it failed: .*out.mp4", recorder.stopped())
        assert len(read_pictures(tmp_path / "out.mp4")) >= 60


class TestDrawing:
    def test_fitted_keeps_the_shape(self) -> None:
        white = np.full((100, 100, 3), 255, np.uint8)
        out = fitted(white, (64, 32))
        assert out.shape == (32, 64, 3)
        assert out[:, 16:48].min() > 250
        assert out[:, :15].max() == 0
        assert fitted(white, (100, 100)) is white

    @pytest.mark.parametrize("width", [64, 65, 66, 67])
    def test_before_and_after(self, width: int) -> None:
        before, after = np.zeros((8, width, 3), np.uint8), np.full((8, width, 3), 9, np.uint8)
        out = before_after(before, after)
        assert out.shape == before.shape
        assert out[:, : width // 2].max() == 0
        assert out[:, width // 2 :].min() == 9
