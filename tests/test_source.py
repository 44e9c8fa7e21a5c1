"""What a source tells of an input, and the frames it gives. Device: CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.errors import InputError
from gnr_video.media.image_sources import natural_key
from gnr_video.media.open import open_source
from tests.media_helpers import CLIPS, frame_times, make_clip, needs_clips, picture, read_pictures

REPOSITORY = Path(__file__).resolve().parents[1]


def test_info_describes_the_clip(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", pts=range(24), audio="aac")
    with open_source(clip) as source:
        info = source.info
        assert (info.width, info.height, info.size) == (64, 48, (64, 48))
        assert (info.codec, info.pix_fmt, info.average_rate) == ("h264", "yuv420p", 30)
        assert info.frame_count == 24
        assert info.duration_seconds == pytest.approx(0.8)
        assert info.has_audio
        assert not info.is_still
        assert "h264 64x48, 30 fps, 0.8 s, about 24 frames, audio" in info.describe()


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mov", "libx264"),
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("a.avi", "mpeg4"),
    ],
)
def test_containers(tmp_path: Path, name: str, codec: str) -> None:
    clip = make_clip(tmp_path / name, codec=codec)
    with open_source(clip) as source:
        frames = list(source)
    assert [f.index for f in frames] == list(range(12))
    assert [f.pts * f.time_base for f in frames] == frame_times(clip)
    for index, frame in enumerate(frames):
        assert frame.image.flags.c_contiguous
        assert np.abs(frame.image.astype(int) - picture(64, 48, index)).mean() < 12


def test_frames_keep_their_pictures(tmp_path: Path) -> None:
    """A frame's array must not change when later frames are decoded into recycled buffers."""
    clip = make_clip(tmp_path / "a.mp4", pts=range(30))
    with open_source(clip) as source:
        frames, copies = [], []
        for frame in source:
            frames.append(frame.image)
            copies.append(frame.image.copy())
    assert all(np.array_equal(a, b) for a, b in zip(frames, copies))


def test_single_pass(tmp_path: Path) -> None:
    with open_source(make_clip(tmp_path / "a.mp4")) as source:
        assert len(list(source)) == 12
        with pytest.raises(RuntimeError, match="once"):
            iter(source)


def test_close_ends_the_iteration(tmp_path: Path) -> None:
    source = open_source(make_clip(tmp_path / "a.mp4"))
    frames = iter(source)
    next(frames)
    source.close()
    source.close()
    assert list(frames) == []


@pytest.mark.parametrize("name", ["-", "pipe:0"])
def test_standard_input(tmp_path: Path, name: str) -> None:
    clip = make_clip(tmp_path / "a.mkv")
    script = (
        "from gnr_video.media.open import open_source\n"
        f"with open_source({name!r}) as s: print(s.info.size, sum(1 for _ in s))"
    )
    with clip.open("rb") as stream:
        done = subprocess.run(
            [sys.executable, "-c", script],
            stdin=stream,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=REPOSITORY,
        )
    assert done.stdout.strip() == "(64, 48) 12", done.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_named_pipe(tmp_path: Path) -> None:
    clip, fifo = make_clip(tmp_path / "a.mkv"), tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = subprocess.Popen(["sh", "-c", f"cat '{clip}' > '{fifo}'"])
    try:
        with open_source(fifo) as source:
            assert len(list(source)) == 12
    finally:
        writer.kill()
        writer.wait()


def test_a_colon_in_the_name_is_no_protocol(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4").rename(tmp_path / "a:b %03d.mp4")
    assert len(read_pictures(clip)) == 12


@pytest.mark.parametrize("extension", [".png", ".jpg", ".webp", ".bmp"])
def test_still(tmp_path: Path, extension: str) -> None:
    file = tmp_path / f"a{extension}"
    expected = picture(33, 21)
    cv2.imwrite(str(file), expected[..., ::-1])
    with open_source(file) as source:
        assert source.info.is_still
        assert source.info.size == (33, 21)
        (frame,) = source
    assert (frame.pts, frame.time_base) == (0, Fraction(1, 25))
    assert np.abs(frame.image.astype(int) - expected).mean() < (0.01 if extension in (".png", ".bmp") else 16)


def test_folder_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        cv2.imwrite(str(tmp_path / f"frame{number}.png"), np.full((8, 8, 3), number, np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    with open_source(tmp_path) as source:
        frames = list(source)
    assert [int(f.image[0, 0, 0]) for f in frames] == [1, 2, 10]
    assert [f.pts * f.time_base for f in frames] == [0, Fraction(1, 25), Fraction(2, 25)]


def test_natural_key() -> None:
    names = ["a10", "a2", "A1b", "b", "3"]
    assert sorted(names, key=natural_key) == ["3", "A1b", "a2", "a10", "b"]


def test_folder_of_mixed_sizes_is_pictures_by_themselves(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), picture(16, 16))
    cv2.imwrite(str(tmp_path / "2.png"), picture(18, 16))
    with open_source(tmp_path) as source:
        assert source.info.is_mixed
        assert [frame.size for frame in source] == [(16, 16), (18, 16)]


class TestPart:
    """start and end."""

    @pytest.mark.parametrize("extension", ["mp4", "mkv", "avi"])
    def test_frames(self, tmp_path: Path, extension: str) -> None:
        codec = "mpeg4" if extension == "avi" else "libx264"
        clip = make_clip(tmp_path / f"a.{extension}", pts=range(60), codec=codec, options={"g": "10"})
        whole, times = read_pictures(clip), frame_times(clip)
        with open_source(clip, start=0.71, end=1.3) as source:
            frames = list(source)
        chosen = [i for i, t in enumerate(times) if Fraction("0.71") <= t - times[0] < Fraction("1.3")]
        assert len(frames) == len(chosen)
        assert frames[0].pts == 0
        first = times[chosen[0]]
        assert [f.pts * f.time_base for f in frames] == [times[i] - first for i in chosen]
        assert all(np.array_equal(f.image, whole[i]) for f, i in zip(frames, chosen))

    def test_end_alone_keeps_times(self, tmp_path: Path) -> None:
        clip = make_clip(tmp_path / "a.mp4", pts=range(5, 35))
        with open_source(clip, end=0.5) as source:
            assert [f.pts * f.time_base for f in source] == [Fraction(i, 30) for i in range(15)]

    def test_folder(self, tmp_path: Path) -> None:
        for number in range(50):
            cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((4, 4, 3), number, np.uint8))
        with open_source(tmp_path, start=1, end=1.2) as source:
            assert [int(f.image[0, 0, 0]) for f in source] == [25, 26, 27, 28, 29]

    @pytest.mark.parametrize(("start", "end"), [(2.0, 1.0), (-1.0, None), (0.0, 0.0)])
    def test_nonsense(self, tmp_path: Path, start: float, end: float | None) -> None:
        with pytest.raises(InputError, match="empty"):
            open_source(make_clip(tmp_path / "a.mp4"), start=start, end=end)

    def test_after_the_end(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no frame in the part"):
            open_source(make_clip(tmp_path / "a.mp4"), start=100)


@needs_clips
@pytest.mark.parametrize("name", ["two_faces.gif", "vfr_small_face.mkv", "hands_over_face.mkv"])
def test_real_clips_give_what_the_decoder_gives(name: str) -> None:
    with open_source(CLIPS / name) as source:
        times = frame_times(CLIPS / name)
        assert [f.pts * f.time_base for f in source] == [t - times[0] for t in times]
        assert source.warnings == []


INTERRUPTED = """
import os, signal, sys, threading, time
from gnr_video.media.open import open_source

def interrupt():
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)

sent = []
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.5, interrupt).start()
try:
    open_source(sys.argv[1])
except KeyboardInterrupt:
    print(time.monotonic() - sent[0])
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and named pipes")
@pytest.mark.parametrize("says", ["nothing", "half a header", "no writer"])
def test_ctrl_c_while_an_input_stalls(tmp_path: Path, says: str) -> None:
    """FFmpeg waits for a pipe that says no more, or to open one; the process hears Ctrl-C and can end."""
    clip = make_clip(tmp_path / "a.mkv")
    os.mkfifo(tmp_path / "fifo")
    read, write = os.pipe()
    if says == "half a header":
        os.write(write, clip.read_bytes()[:200])
    try:
        done = subprocess.run(
            [sys.executable, "-c", INTERRUPTED, str(tmp_path / "fifo") if says == "no writer" else "-"],
            cwd=REPOSITORY,
            stdin=read,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.close(read)
        os.close(write)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.0


@pytest.mark.skipif(os.name == "nt", reason="needs named pipes")
def test_a_named_pipe(tmp_path: Path) -> None:
    clip, fifo = make_clip(tmp_path / "a.mkv"), tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(clip.read_bytes()), daemon=True)
    writer.start()
    with open_source(fifo) as source:
        assert len(list(source)) == 12
    writer.join(10)
