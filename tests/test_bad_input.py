"""Whatever goes wrong: one clear line, the right exit status, nothing half-written left. Device: CPU."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engines.weights import load_weights
from gnr_video.media.sink import temporary_name
from gnr_video.samples.portrait import demo_frames, portrait
from tests.cli_helpers import TIMEOUT, Done, call, finish, run, start
from tests.media_helpers import frame_times, make_clip, picture, read_packets, read_pictures, sound_only

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and limits")

INPUT, OUTPUT, WEIGHTS, FACE_MODEL = 3, 4, 5, 7
"""Exit statuses."""


@pytest.fixture
def options(tiny: Path) -> list[object]:
    return ["--weights", tiny, "--engine", "torch", "--precision", "fp32"]


def names(folder: Path) -> list[str]:
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*"))


def one_error(done: Done, status: int, says: str) -> str:
    """Check that a run ended with this status and one line of error, to which one of advice may be added.

    Returns:
        The advice.
    """
    assert done.status == status, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 2, done.stderr
    assert lines[0].startswith("error: "), done.stderr
    assert says in lines[0]
    assert len(lines) == 1 or (lines[1].startswith("  ") and len(lines[1]) > 10)
    return lines[-1].strip() if len(lines) == 2 else ""


def refused(folder: Path, args: list[object], status: int, says: str) -> str:
    """Run in this process; nothing in the folder may change."""
    before = {name: _content(folder / name) for name in names(folder)}
    advice = one_error(call(*args, "-q"), status, says)
    assert {name: _content(folder / name) for name in names(folder)} == before
    return advice


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


@pytest.mark.usefixtures("no_threads_left")
class TestInputs:
    """In each case the output is the default one, beside the input."""

    def test_missing(self, tmp_path: Path, options: list[object]) -> None:
        advice = refused(tmp_path, [tmp_path / "clip.mp4", *options], INPUT, "no such file")
        assert advice
        make_clip(tmp_path / "clip.mkv", pts=range(2))
        assert "clip.mkv" in refused(tmp_path, [tmp_path / "clip.mp4", *options], INPUT, "no such file")

    def test_text(self, tmp_path: Path, options: list[object]) -> None:
        (tmp_path / "clip.mp4").write_text("This is no video.\n" * 100)
        assert refused(tmp_path, [tmp_path / "clip.mp4", *options], INPUT, "not a video")

    def test_zero_length(self, tmp_path: Path, options: list[object]) -> None:
        (tmp_path / "clip.mp4").touch()
        assert refused(tmp_path, [tmp_path / "clip.mp4", *options], INPUT, "empty (0 bytes)")

    def test_truncated(self, tmp_path: Path, face_clip: Path, options: list[object]) -> None:
        data = face_clip.read_bytes()
        (tmp_path / "clip.mp4").write_bytes(data[: len(data) // 2])
        advice = refused(tmp_path, [tmp_path / "clip.mp4", *options], INPUT, "cut off")
        assert "moov" in advice

    def test_without_video(self, tmp_path: Path, face_clip: Path, options: list[object]) -> None:
        sound_only(face_clip, tmp_path / "clip.mp4")
        assert refused(tmp_path, [tmp_path / "clip.mp4", *options], INPUT, "no video stream, only audio")

    def test_not_a_picture(self, tmp_path: Path, options: list[object]) -> None:
        (tmp_path / "me.png").write_text("no picture")
        refused(tmp_path, [tmp_path / "me.png", *options], INPUT, "not an image")

    def test_an_empty_folder(self, tmp_path: Path, options: list[object]) -> None:
        (tmp_path / "in").mkdir()
        refused(tmp_path, [tmp_path / "in", *options], INPUT, "has no images")

    def test_a_part_after_the_end(self, tmp_path: Path, options: list[object]) -> None:
        make_clip(tmp_path / "clip.mp4")
        refused(tmp_path, [tmp_path / "clip.mp4", "--start", 99, *options], INPUT, "")

    def test_an_address_that_does_not_answer(self, tmp_path: Path, options: list[object]) -> None:
        args: list[object] = ["http://127.0.0.1:9/clip.mp4", "-o", tmp_path / "out.mp4"]
        refused(tmp_path, [*args, *options], INPUT, "cannot open http://127.0.0.1:9/clip.mp4")

    def test_a_damaged_picture_in_a_folder(
        self, tmp_path: Path, options: list[object], face_model: Path
    ) -> None:
        """The failure comes in the middle of the run, on another thread."""
        (tmp_path / "in").mkdir()
        for i in range(30):
            cv2.imwrite(str(tmp_path / "in" / f"{i}.png"), picture(64, 48))
        (tmp_path / "in" / "25.png").write_bytes(b"\x89PNG\r\n\x1a\n, and no more")
        refused(
            tmp_path, [tmp_path / "in", "-o", tmp_path / "out.mp4", *options], INPUT, "25.png is not an image"
        )

    def test_pictures_of_several_sizes_make_no_video(
        self, tmp_path: Path, options: list[object], face_model: Path
    ) -> None:
        (tmp_path / "in").mkdir()
        for i in range(3):
            cv2.imwrite(str(tmp_path / "in" / f"{i}.png"), picture(64 + 2 * i, 48))
        refused(
            tmp_path, [tmp_path / "in", "-o", tmp_path / "out.mp4", *options], OUTPUT, "have several sizes"
        )


@pytest.mark.usefixtures("face_model", "no_threads_left")
class TestInputsThatWork:
    """What can be translated is, and what the user should know is said, even with --quiet."""

    def translated(self, clip: Path, options: list[object]) -> tuple[list[Any], str]:
        out = clip.with_name("out.mp4")
        done = call(clip, "-q", "-o", out, *options)
        assert done.status == 0, done.stderr
        return read_pictures(out), done.stderr

    def test_no_face_in_any_frame(self, tmp_path: Path, options: list[object]) -> None:
        images = [picture(96, 64, i) for i in range(20)]
        clip = make_clip(tmp_path / "clip.mkv", size=(96, 64), pts=range(20), images=images, audio="aac")
        after, stderr = self.translated(clip, options)
        assert stderr == "warning: no face was found in any frame: the output shows the source pictures\n"
        before = read_pictures(clip)
        assert len(before) == len(after) == 20
        for one, other in zip(before, after):
            assert cv2.PSNR(one, other) > 35
        assert frame_times(tmp_path / "out.mp4") == frame_times(clip)
        assert len(read_packets(tmp_path / "out.mp4")) == len(read_packets(clip))

    def test_16x16(self, tmp_path: Path, options: list[object]) -> None:
        clip = make_clip(tmp_path / "clip.mp4", size=(16, 16))
        after, stderr = self.translated(clip, options)
        assert {p.shape for p in after} == {(16, 16, 3)}
        assert len(after) == 12
        assert "no face" in stderr

    @pytest.mark.parametrize("size", [(321, 181), (320, 181), (321, 180)])
    def test_odd_sizes(self, tmp_path: Path, options: list[object], size: tuple[int, int]) -> None:
        images = list(demo_frames(8, size))[:3]
        clip = make_clip(tmp_path / "clip.mkv", size=size, pts=range(3), codec="ffv1", images=images)
        after, stderr = self.translated(clip, options)
        # H.264 at 4:2:0 counts in twos: the last column and row are there twice.
        assert {p.shape for p in after} == {(size[1] + size[1] % 2, size[0] + size[0] % 2, 3)}
        assert stderr == ""
        for one, other in zip(images, after):
            changed = np.abs(one.astype(int) - other[: size[1], : size[0]]).max(axis=2) > 40
            assert 0.02 < changed.mean() < 0.6

    def test_one_frame(self, tmp_path: Path, options: list[object]) -> None:
        clip = make_clip(tmp_path / "clip.mp4", size=(320, 180), pts=range(1))
        assert len(self.translated(clip, options)[0]) == 1

    def test_truncated_after_its_index(self, tmp_path: Path, options: list[object]) -> None:
        clip = make_clip(
            tmp_path / "clip.mp4", pts=range(40), size=(96, 64), muxer_options={"movflags": "+faststart"}
        )
        clip.write_bytes(clip.read_bytes()[: int(clip.stat().st_size * 0.6)])
        after, stderr = self.translated(clip, options)
        assert 0 < len(after) < 40
        assert "warning: " in stderr
        assert "ends early" in stderr or "cannot be read to its end" in stderr


@pytest.mark.usefixtures("no_threads_left")
class TestWeights:
    @pytest.fixture
    def clip(self, tmp_path: Path) -> Path:
        return make_clip(tmp_path / "clip.mp4", pts=range(3))

    def refused(self, clip: Path, weights: Path | str, says: str) -> str:
        return refused(clip.parent, [clip, "--weights", weights, "--engine", "torch"], WEIGHTS, says)

    def test_missing(self, clip: Path) -> None:
        assert self.refused(clip, "nowhere.safetensors", "does not exist")

    def test_a_folder(self, clip: Path) -> None:
        assert self.refused(clip, clip.parent, "is a folder")

    def test_text(self, clip: Path) -> None:
        (clip.parent / "w.safetensors").write_text("no weights\n" * 50)
        assert self.refused(clip, clip.parent / "w.safetensors", "not a readable safetensors file")

    def test_empty(self, clip: Path) -> None:
        (clip.parent / "w.safetensors").touch()
        self.refused(clip, clip.parent / "w.safetensors", "not a readable safetensors file")

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
    def test_truncated(self, clip: Path, tiny: Path, share: float) -> None:
        data = tiny.read_bytes()
        (clip.parent / "w.safetensors").write_bytes(data[: int(len(data) * share)])
        self.refused(clip, clip.parent / "w.safetensors", "not a readable safetensors file")

    def test_of_something_else(self, clip: Path) -> None:
        import torch
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(3)}, str(clip.parent / "w.safetensors"))
        self.refused(clip, clip.parent / "w.safetensors", "not a gnr-video weights file")

    def test_tensors_that_do_not_fit(self, clip: Path, tiny: Path) -> None:
        from safetensors.torch import save_file

        weights = load_weights(tiny)
        tensors = dict(weights.tensors)
        tensors["conv1.conv.weight"] = tensors["conv1.conv.weight"][:, :8].contiguous()
        save_file(tensors, str(clip.parent / "w.safetensors"), metadata=dict(weights.metadata))
        self.refused(clip, clip.parent / "w.safetensors", "conv1.conv.weight: expected [1, 16, 16, 3, 3]")

    def test_values_that_are_not_finite(self, clip: Path, tiny: Path) -> None:
        from safetensors.torch import save_file

        weights = load_weights(tiny)
        tensors = {name: tensor.clone() for name, tensor in weights.tensors.items()}
        tensors["conv1.activate.bias"][0] = float("nan")
        save_file(tensors, str(clip.parent / "w.safetensors"), metadata=dict(weights.metadata))
        self.refused(clip, clip.parent / "w.safetensors", "not finite, for example conv1.activate.bias")


@pytest.mark.usefixtures("no_threads_left")
class TestFaceModel:
    def test_another_file(self, tmp_path: Path, options: list[object]) -> None:
        clip = make_clip(tmp_path / "clip.mp4", pts=range(3))
        model = tmp_path / "face_landmarker.task"
        model.write_bytes(b"no model")
        args: list[object] = [clip, "--face-model", model, *options]
        assert refused(tmp_path, args, FACE_MODEL, "expected sha256 64184e22")

    def test_another_file_in_the_environment(
        self, tmp_path: Path, options: list[object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clip = make_clip(tmp_path / "clip.mp4", pts=range(3))
        monkeypatch.setenv("GNR_VIDEO_FACE_MODEL", str(clip))
        refused(tmp_path, [clip, *options], FACE_MODEL, "$GNR_VIDEO_FACE_MODEL")

    def test_missing(self, tmp_path: Path, options: list[object]) -> None:
        clip = make_clip(tmp_path / "clip.mp4", pts=range(3))
        refused(tmp_path, [clip, "--face-model", tmp_path / "no.task", *options], FACE_MODEL, "is not a file")


@pytest.mark.usefixtures("face_model", "no_threads_left")
class TestOutputs:
    @pytest.fixture
    def clip(self, tmp_path: Path) -> Path:
        return make_clip(tmp_path / "clip.mp4", pts=range(3))

    def test_exists(self, clip: Path, options: list[object]) -> None:
        (clip.parent / "clip_anime.mp4").write_bytes(b"precious")
        advice = refused(clip.parent, [clip, *options], OUTPUT, "exists already")
        assert "--overwrite" in advice

    def test_exists_and_may_be_replaced(self, clip: Path, options: list[object]) -> None:
        (clip.parent / "clip_anime.mp4").write_bytes(b"old")
        assert call(clip, "-q", "--overwrite", *options).status == 0
        assert len(read_pictures(clip.parent / "clip_anime.mp4")) == 3

    def test_is_the_input(self, clip: Path, options: list[object]) -> None:
        refused(clip.parent, [clip, "-o", clip, "--overwrite", *options], OUTPUT, "is the input itself")

    def test_under_a_file(self, clip: Path, options: list[object]) -> None:
        (clip.parent / "file").touch()
        args: list[object] = [clip, "-o", clip.parent / "file" / "out.mp4", *options]
        assert refused(clip.parent, args, OUTPUT, "cannot write")

    @pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc, where nobody may write")
    def test_where_nobody_may_write(self, clip: Path, options: list[object]) -> None:
        refused(clip.parent, [clip, "-o", "/proc/out.mp4", *options], OUTPUT, "cannot write /proc/out.mp4")

    @pytest.mark.parametrize("name", ["out.xyz", "out", "out.jpg"])
    def test_of_no_known_kind(self, clip: Path, options: list[object], name: str) -> None:
        assert refused(clip.parent, [clip, "-o", clip.parent / name, *options], OUTPUT, "")

    def test_encoder_nobody_knows(self, clip: Path, options: list[object]) -> None:
        assert refused(clip.parent, [clip, "--codec", "h999", *options], OUTPUT, "h999")

    def test_a_report_that_cannot_be_written(self, clip: Path, options: list[object]) -> None:
        """It is found out before the work is done, not after."""
        (clip.parent / "file").touch()
        args: list[object] = [clip, "--report", clip.parent / "file" / "r.json", *options]
        refused(clip.parent, args, OUTPUT, "r.json")

    @posix
    @pytest.mark.slow
    def test_full_disk(self, tmp_path: Path, face_clip: Path, options: list[object]) -> None:
        """A limit on the size of files fails in the same place as a disk without room."""
        limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
        args: list[object] = [face_clip, "-q", "-o", tmp_path / "out.mp4", "--crf", 1, *options]
        one_error(run(*args, before=limit), OUTPUT, "no room left for")
        assert names(tmp_path) == []


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long enough to be interrupted: 1,000 frames."""
    target = tmp_path_factory.mktemp("film") / "film.mp4"
    images = list(demo_frames(20, (320, 180)))
    return make_clip(target, size=(320, 180), pts=range(1000), images=images, options={"preset": "ultrafast"})


@posix
@pytest.mark.usefixtures("face_model")
@pytest.mark.slow
class TestSignals:
    """In a process of its own, in the middle of a translation."""

    @pytest.fixture
    def stream(self) -> Iterator[tuple[int, int]]:
        """A pipe (where to read, where to write)."""
        read, write = os.pipe()
        yield read, write
        os.close(write)

    def wait_for(self, partial: Path, process: Any) -> None:
        """Until the output is begun."""
        deadline = time.monotonic() + TIMEOUT
        while not partial.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.3)

    @pytest.mark.parametrize(
        ("number", "status", "there"),
        [(signal.SIGTERM, 143, None), (signal.SIGINT, 130, b"precious")],
        ids=["SIGTERM", "SIGINT and an output that was there"],
    )
    def test_during_a_file(
        self,
        tmp_path: Path,
        film: Path,
        options: list[object],
        number: int,
        status: int,
        there: bytes | None,
    ) -> None:
        out = tmp_path / "out.mp4"
        if there is not None:
            out.write_bytes(there)
        process = start([film, "-q", "-o", out, "--overwrite", *options])
        self.wait_for(temporary_name(out), process)
        process.send_signal(number)
        assert finish(process) == (status, "", "stopped; nothing unfinished was left behind\n")
        assert names(tmp_path) == ([] if there is None else ["out.mp4"])
        assert _content(out) == there

    def test_while_a_pipe_is_silent(
        self, tmp_path: Path, face_clip: Path, options: list[object], stream: tuple[int, int]
    ) -> None:
        """The reading thread is stuck in FFmpeg then, and cannot be woken."""
        mkv = tmp_path / "in" / "clip.mkv"
        mkv.parent.mkdir()
        make_clip(mkv, size=(320, 180), images=[portrait()[20:200, 60:380]], pts=range(60))
        out = tmp_path / "out" / "out.mp4"
        read, write = stream
        process = start(["-", "-q", "-o", out, *options], stdin=read)
        os.close(read)
        os.write(write, mkv.read_bytes())
        self.wait_for(temporary_name(out), process)
        process.send_signal(signal.SIGINT)
        assert finish(process) == (130, "", "stopped; nothing unfinished was left behind\n")
        assert names(out.parent) == []

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_while_a_named_pipe_has_no_writer(
        self, tmp_path: Path, options: list[object], number: int
    ) -> None:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        told = (
            "import io; opened = io.open; "
            "io.open = lambda p, *a, **k: "
            "(print('opens', flush=True) if str(p).endswith('fifo') else None, opened(p, *a, **k))[1]"
        )
        process = start([fifo, "-q", "-o", tmp_path / "out.mp4", *options], before=told)
        assert process.stdout.readline() == b"opens\n"
        process.send_signal(number)
        assert finish(process) == (128 + number, "", "stopped; nothing unfinished was left behind\n")
        assert names(tmp_path) == ["fifo"]
