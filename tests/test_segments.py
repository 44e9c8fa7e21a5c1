"""Long renders in segments: cut, stopped at any frame, gone on with, joined; always the same video. Device: CPU."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from engines.accuracy import psnr
from engines.errors import InputError, OutputError
from gnr_video.media.open import open_source
from gnr_video.options import EngineOptions, OutputOptions
from gnr_video.pipeline import Counts
from gnr_video.report import Report
from gnr_video.samples.portrait import demo_frames, make_demo_clip
from gnr_video.segments.plan import Lengths, make_plan
from gnr_video.segments.render import render_segment
from gnr_video.segments.run import translate
from gnr_video.segments.store import Store, folder_of
from gnr_video.translator import Translator
from tests.media_helpers import frame_times, make_clip, read_packets, read_pictures

pytestmark = pytest.mark.usefixtures("no_threads_left", "face_model")

SHORT = Lengths(segment=0.5, warm_up=0.6, least=0.0)
SEAM = 45.0
"""dB that a video that was gone on with has at least, to one that was not interrupted."""


def worst_psnr(a: Path, b: Path) -> float:
    """Of the frame in which two videos differ most, dB."""
    return min(psnr(*pair) for pair in zip(read_pictures(a), read_pictures(b), strict=True))


@pytest.fixture(scope="module")
def translator(tiny: Path) -> Iterator[Translator]:
    with Translator(tiny, 1, engine=EngineOptions("torch", precision="fp32", threads=1)) as made:
        yield made


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A moving face with sound: 24 frames of 2.4 s."""
    return make_demo_clip(tmp_path_factory.mktemp("in") / "clip.mp4", seconds=2.4, fps=10, size=(320, 180))


@pytest.fixture(scope="module")
def at_once(translator: Translator, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its translation without segments."""
    target = tmp_path_factory.mktemp("once") / "out.mp4"
    translator.translate_video(clip, target)
    return target


@pytest.fixture(scope="module")
def whole(
    translator: Translator, clip: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Report]:
    """Its translation in five segments, not interrupted."""
    target = tmp_path_factory.mktemp("whole") / "out.mp4"
    return target, translate(translator, clip, target, lengths=SHORT)


class Stopped(KeyboardInterrupt):
    """What Ctrl-C does."""


def stop_after(frames: int, error: type[BaseException] = Stopped) -> Callable[[Counts, int | None], None]:
    def progress(counts: Counts, total: int | None) -> None:
        if counts.frames >= frames:
            raise error()

    return progress


def hidden(target: Path) -> list[str]:
    """Names beside an output that a user does not see."""
    return [one.name for one in target.parent.iterdir() if one.name.startswith(".")]


def check_same(one: Path, other: Path, least: float = SEAM) -> None:
    """Times and sound are the same, and pictures nearly."""
    assert frame_times(one) == frame_times(other)
    assert read_packets(one) == read_packets(other)
    assert worst_psnr(one, other) >= least


class TestWhole:
    def test_it_is_what_it_would_be_at_once(self, at_once: Path, whole: tuple[Path, Report]) -> None:
        target, report = whole
        assert len(read_packets(target)) > 50
        check_same(target, at_once, least=35.0)  # encoders begin anew with each segment
        assert hidden(target) == []
        assert (report.frames, report.settings["segments"]) == (24, 5)
        assert report.settings["segments_from_before"] == 0
        assert report.warnings == []

    def test_each_segment_begins_with_a_picture_that_needs_none_before(
        self, whole: tuple[Path, Report]
    ) -> None:
        import av

        with av.open(str(whole[0])) as container:
            keys = [float(p.pts * p.time_base) for p in container.demux(video=0) if p.is_keyframe]
        assert {0.5 * i for i in range(5)} <= set(keys)


class TestGoingOn:
    @pytest.mark.parametrize("frames", [10, 11, 22])
    def test_from_whatever_frame(
        self,
        translator: Translator,
        clip: Path,
        whole: tuple[Path, Report],
        tmp_path: Path,
        frames: int,
    ) -> None:
        """Before a seam, at it, after it."""
        target, said, told = tmp_path / "out.mp4", [], []
        with pytest.raises(Stopped) as stopped:
            translate(translator, clip, target, lengths=SHORT, progress=stop_after(frames))
        done = (frames - 1) // 5  # a segment is whole when a frame of the next has come
        assert stopped.value.__notes__ == [
            f"{done} of 5 segments are kept, the same command goes on from there"
        ]
        assert sorted(os.listdir(tmp_path)) == [".out.mp4.segments"]

        report = translate(
            translator,
            clip,
            target,
            lengths=SHORT,
            say=said.append,
            progress=lambda counts, total: told.append((counts.frames, total)),
        )
        assert said == [f"going on: {done} of 5 segments are there"]
        assert told == [(i, 24) for i in range(5 * done, 25)]
        check_same(target, whole[0])
        assert os.listdir(tmp_path) == ["out.mp4"]
        assert (report.frames, report.settings["segments_from_before"]) == (24, done)
        assert report.faces == whole[1].faces

    def test_nothing_is_left_where_nothing_is_whole(
        self, translator: Translator, clip: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(Stopped) as stopped:
            translate(translator, clip, tmp_path / "out.mp4", lengths=SHORT, progress=stop_after(3))
        assert not hasattr(stopped.value, "__notes__")
        assert os.listdir(tmp_path) == []

    def test_a_run_that_was_killed_when_its_output_was_finished(
        self, translator: Translator, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = tmp_path / "out.mp4"
        with monkeypatch.context() as patch:
            patch.setattr(Store, "clear", lambda self: None)
            translate(translator, clip, target, OutputOptions(end=1.0), lengths=SHORT)
        assert hidden(target) == [".out.mp4.segments"]
        with pytest.raises(OutputError, match="exists already"):
            translate(translator, clip, target, OutputOptions(end=1.0), lengths=SHORT)
        assert os.listdir(tmp_path) == ["out.mp4"]


@pytest.fixture(scope="module")
def unfinished(translator: Translator, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the clip, in.mp4, and the first four segments of out.mp4."""
    folder = tmp_path_factory.mktemp("unfinished")
    shutil.copy2(clip, folder / "in.mp4")
    with pytest.raises(Stopped):
        translate(translator, folder / "in.mp4", folder / "out.mp4", lengths=SHORT, progress=stop_after(22))
    return folder


@pytest.fixture
def stopped(unfinished: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Input and output of a run that was stopped after four segments of five."""
    shutil.copytree(unfinished, tmp_path, dirs_exist_ok=True)
    return tmp_path / "in.mp4", tmp_path / "out.mp4"


class TestStartingOver:
    @pytest.mark.parametrize("what", ["the input has", "options or version have", "the weights have"])
    def test_what_has_changed_is_said(
        self,
        translator: Translator,
        stopped: tuple[Path, Path],
        monkeypatch: pytest.MonkeyPatch,
        what: str,
    ) -> None:
        source, target = stopped
        said: list[str] = []
        first: list[int] = []
        output = OutputOptions()
        if what == "the input has":
            os.utime(source, ns=(1, 1))
        elif what == "the weights have":
            monkeypatch.setattr(translator.engine, "weights_hash", "others")
        else:
            output = OutputOptions(crf=30)

        def progress(counts: Counts, total: int | None) -> None:
            first.append(counts.frames)
            raise Stopped

        with pytest.raises(Stopped):
            translate(translator, source, target, output, lengths=SHORT, say=said.append, progress=progress)
        assert said == [f"starting over: {what} changed since the last run"]
        assert first == [0]
        assert hidden(target) == []

    def test_an_input_that_changes_meanwhile_is_not_joined(
        self, translator: Translator, stopped: tuple[Path, Path]
    ) -> None:
        source, target = stopped

        def progress(counts: Counts, total: int | None) -> None:
            os.utime(source, ns=(1, 1))

        with pytest.raises(InputError, match="has changed while it was translated"):
            translate(translator, source, target, lengths=SHORT, progress=progress)
        assert not target.exists()

    def test_segments_that_are_not_whole_are_made_again(
        self, translator: Translator, stopped: tuple[Path, Path], whole: tuple[Path, Report]
    ) -> None:
        source, target = stopped
        folder, told = folder_of(target), []
        (folder / "00000.mp4").write_bytes((folder / "00000.mp4").read_bytes()[:-1])
        (folder / "00002.mp4").unlink()
        (folder / "00003.json").write_text("{")
        translate(
            translator, source, target, lengths=SHORT, progress=lambda done, _: told.append(done.frames)
        )
        assert told == [*range(5, 11), *range(10, 25)]
        check_same(target, whole[0])

    def test_a_segment_that_the_next_cannot_go_on_from(
        self, translator: Translator, stopped: tuple[Path, Path]
    ) -> None:
        source, target = stopped
        (folder_of(target) / "00003.states").write_bytes(b"")
        said: list[str] = []
        with pytest.raises(Stopped):
            translate(translator, source, target, lengths=SHORT, say=said.append, progress=stop_after(0))
        assert said == ["going on: 3 of 5 segments are there"]

    def test_without_resuming(self, translator: Translator, stopped: tuple[Path, Path]) -> None:
        source, target = stopped
        output = OutputOptions(end=0.3, resume=False)
        report = translate(translator, source, target, output, lengths=SHORT)
        assert "segments" not in report.settings
        assert sorted(os.listdir(target.parent)) == ["in.mp4", "out.mp4"]


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Files may not become larger than so many bytes, which fails in the same place as a disk without room."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestFullDisk:
    def test_while_rendering(self, translator: Translator, stopped: tuple[Path, Path]) -> None:
        source, target = stopped
        with full_disk(2000), pytest.raises(OutputError) as full:
            translate(translator, source, target, lengths=SHORT)
        self.check(full.value, target, "4 of 5 segments are kept")
        report = translate(translator, source, target, lengths=SHORT)
        assert report.settings["segments_from_before"] == 4
        assert hidden(target) == []

    def test_while_joining(self, translator: Translator, stopped: tuple[Path, Path]) -> None:
        source, target = stopped
        told: list[int] = []
        sizes = [one.stat().st_size for one in folder_of(target).glob("*.*") if one.suffix != ".states"]
        with full_disk(2 * max(sizes)), pytest.raises(OutputError) as full:
            translate(translator, source, target, lengths=SHORT)
        self.check(full.value, target, "5 of 5 segments are kept")
        report = translate(
            translator, source, target, lengths=SHORT, progress=lambda done, _: told.append(done.frames)
        )
        assert (report.frames, told) == (24, [])
        assert hidden(target) == []

    @staticmethod
    def check(error: OutputError, target: Path, kept: str) -> None:
        assert error.message.startswith("no room left for")
        assert error.hint.endswith(f"{kept}, the same command goes on from there")
        assert not target.exists()
        assert not list(folder_of(target).glob(".*"))


class TestAlone:
    def test_any_segment_can_be_made_by_itself(
        self,
        translator: Translator,
        clip: Path,
        whole: tuple[Path, Report],
        unfinished: Path,
        tmp_path: Path,
    ) -> None:
        """As another process does it, which is sent what it needs."""
        with open_source(clip) as video:
            plan = make_plan(video, "out.mp4", OutputOptions(), lookahead=translator.lookahead, lengths=SHORT)
        assert plan is not None
        with Store(unfinished / "out.mp4") as store:
            states = store.states(1)
        sent, states = pickle.loads(pickle.dumps((plan, states)))
        made = render_segment(translator, clip, sent, 2, tmp_path, states=states)
        pictures = read_pictures(plan.file(tmp_path, 2))
        assert (made.counts.frames, len(made.pts), len(pictures)) == (5, 5, 5)
        assert made.states is not None
        for one, other in zip(pictures, read_pictures(whole[0])[10:]):
            np.testing.assert_array_equal(one, other)


class TestTimes:
    def test_irregular_ones_and_a_gap_of_whole_segments(self, translator: Translator, tmp_path: Path) -> None:
        images = list(demo_frames(24, (320, 180)))
        gaps = [40, 50, 33, 90, 20, 60, 45, 2100, 40, 40, 700, 33, 50, 40, 33, 45, 50, 60, 70, 33, 20, 40]
        pts = [17 + sum(gaps[:i]) for i in range(len(gaps) + 1)]
        clip = make_clip(
            tmp_path / "in.mkv",
            size=(320, 180),
            pts=pts,
            time_base=Fraction(1, 1000),
            images=images,
            audio="aac",
        )
        translator.translate_video(clip, tmp_path / "once.mov")
        target = tmp_path / "out.mov"
        with pytest.raises(Stopped):
            translate(translator, clip, target, lengths=SHORT, progress=stop_after(12))
        report = translate(translator, clip, target, lengths=SHORT)
        assert report.frames == 23
        assert report.settings["segments_from_before"] >= 5
        check_same(target, tmp_path / "once.mov", least=35.0)
