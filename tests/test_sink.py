"""Outputs: formats by extension, sizes, encoders and their fallback, and that nothing is left half-written.
Device: CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from engines.errors import OutputError
from gnr_video.frame import Frame
from gnr_video.media import encoders
from gnr_video.media.encoders import (
    EncoderSettings,
    choose_encoder,
    encoder_options,
    list_encoders,
    preset,
    probe,
)
from gnr_video.media.open import open_sink, open_source
from gnr_video.media.sink import temporary_name
from gnr_video.samples.portrait import make_demo_clip
from tests.media_helpers import copy, frame_times, make_clip, picture, read_pictures

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return make_clip(tmp_path / "in" / "clip.mp4")


def refused(clip: Path, target: Path | str, match: str, **options: object) -> OutputError:
    with open_source(clip) as source, pytest.raises(OutputError, match=match) as caught:
        open_sink(target, source, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert caught.value.exit_code == 4
    return caught.value


def interrupted(clip: Path, target: Path, after: int) -> None:
    """Ctrl-C in the middle of writing."""

    def write() -> None:
        with open_source(clip) as source, open_sink(target, source) as sink:
            for frame in source:
                sink.write(frame)
                if not target.is_dir():
                    assert not target.exists()
                    assert temporary_name(target).exists()
                if frame.index + 1 == after:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()


class TestFormats:
    @pytest.mark.parametrize(
        ("extension", "codec"),
        [
            ("mp4", "h264"),
            ("m4v", "h264"),
            ("MP4", "h264"),
            ("mov", "h264"),
            ("mkv", "h264"),
            ("webm", "vp9"),
            ("gif", "gif"),
        ],
    )
    def test_by_extension(self, tmp_path: Path, clip: Path, extension: str, codec: str) -> None:
        _, sink = copy(clip, tmp_path / f"b.{extension}")
        with av.open(str(tmp_path / f"b.{extension}")) as container:
            assert container.streams.video[0].codec_context.codec.canonical_name == codec
        assert sink.frames_written == 12
        assert sink.warnings == []
        for before, after in zip(read_pictures(clip), read_pictures(tmp_path / f"b.{extension}")):
            assert np.abs(before.astype(int) - after).mean() < 10
        assert sorted(os.listdir(tmp_path)) == [f"b.{extension}", "in"]

    def test_mp4_starts_fast(self, tmp_path: Path, clip: Path) -> None:
        copy(clip, tmp_path / "b.mp4")
        data = (tmp_path / "b.mp4").read_bytes()
        assert data.index(b"moov") < data.index(b"mdat")

    def test_title_is_kept(self, tmp_path: Path, clip: Path) -> None:
        with av.open(str(clip)) as a, av.open(str(tmp_path / "a.mp4"), "w") as b:
            b.metadata["title"] = "A title"
            stream = b.add_stream_from_template(a.streams.video[0])
            for packet in a.demux(a.streams.video[0]):
                if packet.size:
                    packet.stream = stream
                    b.mux(packet)
        copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
        with av.open(str(tmp_path / "b.mp4")) as container:
            assert container.metadata["title"] == "A title"

    def test_gif_palette(self, tmp_path: Path, clip: Path) -> None:
        copy(clip, tmp_path / "b.gif")
        for before, after in zip(read_pictures(clip), read_pictures(tmp_path / "b.gif")):
            assert np.abs(before.astype(int) - after).mean() < 6

    def test_gif_over_several_palettes(self, tmp_path: Path) -> None:
        source = make_clip(
            tmp_path / "a.mkv", pts=range(0, 230 * 40, 40), time_base=Fraction(1, 1000), size=(16, 16)
        )
        copy(source, tmp_path / "b.gif")
        assert frame_times(tmp_path / "b.gif") == frame_times(source)

    @pytest.mark.parametrize("extension", [".png", ".jpg", ".webp", ".bmp"])
    def test_still(self, tmp_path: Path, extension: str) -> None:
        cv2.imwrite(str(tmp_path / "a.png"), picture(33, 21)[..., ::-1])
        copy(tmp_path / "a.png", tmp_path / f"b{extension}")
        (result,) = read_pictures(tmp_path / f"b{extension}")
        assert np.abs(result.astype(int) - picture(33, 21)).mean() < (
            6 if extension in (".jpg", ".webp") else 0.01
        )

    def test_still_to_video(self, tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "a.png"), picture(33, 21)[..., ::-1])
        copy(tmp_path / "a.png", tmp_path / "b.mp4")
        (result,) = read_pictures(tmp_path / "b.mp4")
        assert result.shape == (22, 34, 3)

    def test_video_to_one_image(self, tmp_path: Path, clip: Path) -> None:
        assert "%05d" in refused(clip, tmp_path / "b.png", "one image").hint

    @pytest.mark.parametrize("target", ["out/%03d.png", "out/f-%05d.jpg", "out/"])
    def test_sequence(self, tmp_path: Path, clip: Path, target: str) -> None:
        copy(clip, f"{tmp_path}/{target}")
        names = sorted(os.listdir(tmp_path / "out"))
        first = {"out/%03d.png": "000.png", "out/f-%05d.jpg": "f-00000.jpg", "out/": "00000.png"}[target]
        assert (len(names), names[0]) == (12, first)
        before, after = read_pictures(clip), read_pictures(tmp_path / "out")
        error = max(np.abs(a.astype(int) - b).mean() for a, b in zip(before, after))
        assert error < 8 if target.endswith("jpg") else error == 0
        assert "--overwrite" in refused(clip, f"{tmp_path}/{target}", "already").hint
        copy(clip, f"{tmp_path}/{target}", overwrite=True)

    def test_sequence_into_an_existing_folder_and_its_abort(self, tmp_path: Path, clip: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("stays")
        interrupted(clip, tmp_path / "out", after=3)
        assert os.listdir(tmp_path / "out") == ["mine.txt"]

    def test_folder_to_folder_round_trip(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        for index in range(3):
            cv2.imwrite(str(tmp_path / "in" / f"{index}.png"), picture(20, 10, index)[..., ::-1])
        copy(tmp_path / "in", f"{tmp_path}/out/")
        assert all(
            np.array_equal(a, b)
            for a, b in zip(read_pictures(tmp_path / "in"), read_pictures(tmp_path / "out"))
        )
        refused(tmp_path / "in", tmp_path / "in", "is the input folder", overwrite=True)


class TestSizes:
    @pytest.mark.parametrize("size", [(16, 16), (320, 240), (2, 2), (1280, 720)])
    def test_even(self, tmp_path: Path, size: tuple[int, int]) -> None:
        clip = make_clip(tmp_path / "a.mp4", size=size, pts=range(3))
        copy(clip, tmp_path / "b.mp4")
        assert [p.shape for p in read_pictures(tmp_path / "b.mp4")] == [(size[1], size[0], 3)] * 3

    @pytest.mark.parametrize(
        ("extension", "expected"), [("mp4", (322, 242)), ("webm", (321, 241)), ("gif", (321, 241))]
    )
    def test_odd(self, tmp_path: Path, extension: str, expected: tuple[int, int]) -> None:
        clip = make_clip(tmp_path / "a.mkv", size=(321, 241), pts=range(3), codec="libvpx-vp9")
        before = read_pictures(clip)
        assert before[0].shape == (241, 321, 3)
        copy(clip, tmp_path / f"b.{extension}")
        after = read_pictures(tmp_path / f"b.{extension}")
        assert after[0].shape == (expected[1], expected[0], 3)
        assert np.abs(after[0][:241, :321].astype(int) - before[0]).mean() < 5
        if extension == "mp4":
            assert np.abs(after[0][:, 321].astype(int) - after[0][:, 320]).mean() < 6

    def test_another_size_than_the_source(self, tmp_path: Path, clip: Path) -> None:
        with open_source(clip) as source, open_sink(tmp_path / "b.mp4", source, size=(128, 48)) as sink:
            for frame in source:
                sink.write(Frame(np.hstack([frame.image] * 2), frame.pts, frame.time_base, frame.index))
        assert read_pictures(tmp_path / "b.mp4")[0].shape == (48, 128, 3)
        assert frame_times(tmp_path / "b.mp4") == frame_times(clip)

    def test_a_frame_of_the_wrong_size_is_a_bug(self, tmp_path: Path, clip: Path) -> None:
        with open_source(clip) as source, open_sink(tmp_path / "b.mp4", source) as sink:
            with pytest.raises(ValueError, match="opened for frames"):
                sink.write(Frame(picture(32, 32), 0, Fraction(1, 30), 0))
            for frame in source:
                sink.write(frame)

    def test_pixels_that_are_not_square(self, tmp_path: Path) -> None:
        clip = tmp_path / "a.mkv"
        with av.open(str(clip), "w") as out:
            stream = out.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.codec_context.sample_aspect_ratio = 64, 48, Fraction(4, 3)
            for index in range(3):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(64, 48, index), "rgb24")))
            out.mux(stream.encode(None))
        copy(clip, tmp_path / "b.mp4")
        with av.open(str(tmp_path / "b.mp4")) as container:
            assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


class TestEncoders:
    def test_options_are_pure(self) -> None:
        assert encoder_options("libx264") == {
            "preset": "superfast",
            "mbtree": "1",
            "rc-lookahead": "10",
            "crf": "18",
        }
        assert encoder_options("libx264", 30)["crf"] == "30"
        assert encoder_options("h264_nvenc", 25)["cq"] == "25"
        assert preset("libvpx-vp9") is None

    @pytest.mark.parametrize("threads", [1, 2])
    def test_the_same_pictures_become_the_same_file(self, tmp_path: Path, threads: int) -> None:
        """20 macroblocks a row: what x264's AVX-512 code came to by what was in memory."""
        clip = make_demo_clip(tmp_path / "a.mp4", seconds=2.4, fps=10, size=(320, 180))
        made = set()
        for number in range(8):
            target = tmp_path / f"{number}.mp4"
            with open_source(clip) as source, open_sink(target, source, threads=threads) as sink:
                for frame in source:
                    sink.write(frame)
            made.add(target.read_bytes())
        assert len(made) == 1

    @pytest.mark.parametrize(
        ("has", "live", "asm"), [(True, False, True), (False, False, False), (True, True, False)]
    )
    def test_avx512_is_not_used(
        self, monkeypatch: pytest.MonkeyPatch, has: bool, live: bool, asm: bool
    ) -> None:
        monkeypatch.setattr("gnr_video.media.encoders.has_avx512", lambda: has)
        settings = EncoderSettings("libx264", 64, 48, Fraction(1, 30), Fraction(30), live=live, fields="top")
        context = av.CodecContext.create("libx264", "w")
        settings.apply(context)
        assert context.options["x264-params"] == ("tff=1:asm=avx2" if asm else "tff=1")

    def test_list_encoders_opens_them(self) -> None:
        found = list_encoders()
        assert found["libx264"]
        assert {"h264_nvenc", "hevc_nvenc", "h264_qsv", "h264_vaapi", "h264_videotoolbox"} <= found.keys()

    @pytest.mark.parametrize("codec", ["libx265", "h265", "libsvtav1", "libvpx-vp9", "av1"])
    def test_named(self, tmp_path: Path, codec: str) -> None:
        clip = make_clip(tmp_path / "a.mp4", size=(128, 96))
        _, sink = copy(clip, tmp_path / "b.mp4", codec=codec)
        assert sink.codec in (codec, "libx265", "libsvtav1")
        assert sink.warnings == []
        assert frame_times(tmp_path / "b.mp4") == frame_times(clip)

    def test_fallback_says_so(self, tmp_path: Path, clip: Path) -> None:
        missing = [
            name for name, works in list_encoders().items() if not works and name in av.codecs_available
        ]
        if not missing:
            pytest.skip("every encoder works on this machine")
        _, sink = copy(clip, tmp_path / "b.mp4", codec=missing[0])
        assert sink.codec == "libx264"
        (warning,) = sink.warnings
        assert missing[0] in warning
        assert "writing with libx264" in warning
        assert len(frame_times(tmp_path / "b.mp4")) == 12

    @pytest.mark.parametrize(
        ("target", "size", "works", "expected"),
        [
            ("a.mp4", (640, 360), True, "h264_nvenc"),
            ("a.MKV", (641, 361), True, "h264_nvenc"),
            ("a.mov", (640, 360), False, None),
            ("a.webm", (640, 360), True, None),
            ("a.gif", (640, 360), True, None),
            ("a.png", (640, 360), True, None),
            ("a.mp4/", (640, 360), True, None),
        ],
    )
    def test_beside_a_gpu(
        self,
        monkeypatch: pytest.MonkeyPatch,
        target: str,
        size: tuple[int, int],
        works: bool,
        expected: str | None,
    ) -> None:
        """Chosen only where libx264 would be, and where it has just encoded a picture of that size."""
        probed: list[EncoderSettings] = []
        monkeypatch.setattr(
            encoders, "probe", lambda settings: probed.append(settings) or ("" if works else "no such GPU")
        )
        assert encoders.gpu_codec(target, size) == expected
        assert all((s.width, s.height) == (size[0] + size[0] % 2, size[1] + size[1] % 2) for s in probed)

    def test_an_impossible_size_falls_back(self) -> None:
        settings = EncoderSettings("libsvtav1", 16, 16, Fraction(1, 30), Fraction(30))
        assert probe(settings)
        chosen, message = choose_encoder(settings, ("libx264",))
        assert chosen.codec == "libx264"
        assert "libsvtav1" in message

    def test_unknown_name(self, tmp_path: Path, clip: Path) -> None:
        assert "libx264" in refused(clip, tmp_path / "b.mp4", "no encoder called 'x999'", codec="x999").hint
        assert not (tmp_path / "b.mp4").exists()

    def test_wrong_container(self, tmp_path: Path, clip: Path) -> None:
        refused(clip, tmp_path / "b.webm", r"\.webm cannot hold libx264", codec="h264")
        refused(clip, tmp_path / "b.gif", "a gif cannot hold libx264", codec="libx264")
        assert os.listdir(tmp_path) == ["in"]

    @pytest.mark.parametrize("threads", [0, 1, 3])
    def test_threads(self, tmp_path: Path, clip: Path, threads: int) -> None:
        copy(clip, tmp_path / "b.mp4", threads=threads)
        assert frame_times(tmp_path / "b.mp4") == frame_times(clip)

    def test_crf(self, tmp_path: Path, clip: Path) -> None:
        copy(clip, tmp_path / "good.mp4", crf=10)
        copy(clip, tmp_path / "bad.mp4", crf=45)
        assert (tmp_path / "bad.mp4").stat().st_size < (tmp_path / "good.mp4").stat().st_size


class TestSafety:
    def test_existing_output(self, tmp_path: Path, clip: Path) -> None:
        (tmp_path / "b.mp4").write_text("precious")
        assert "--overwrite" in refused(clip, tmp_path / "b.mp4", "exists already").hint
        assert (tmp_path / "b.mp4").read_text() == "precious"
        copy(clip, tmp_path / "b.mp4", overwrite=True)
        assert len(frame_times(tmp_path / "b.mp4")) == 12

    def test_output_is_input(self, tmp_path: Path, clip: Path) -> None:
        (tmp_path / "link.mp4").symlink_to(clip)
        for target in (clip, tmp_path / "link.mp4"):
            refused(clip, target, "is the input itself", overwrite=True)
        assert len(frame_times(clip)) == 12

    @pytest.mark.parametrize("name", ["b.xyz", "b", "b.txt"])
    def test_unknown_extension(self, tmp_path: Path, clip: Path, name: str) -> None:
        assert ".mp4" in refused(clip, tmp_path / name, "cannot tell the format").hint

    @pytest.mark.parametrize("name", ["file.txt/b.mp4", "file.txt/b.png", "file.txt/out/"])
    def test_folder_that_cannot_be(self, tmp_path: Path, clip: Path, name: str) -> None:
        (tmp_path / "file.txt").write_text("a file, no folder")
        still = tmp_path / "a.png"
        cv2.imwrite(str(still), picture(16, 16))
        refused(still if name.endswith("png") else clip, f"{tmp_path}/{name}", "cannot write")

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
    def test_folder_without_permission(self, tmp_path: Path, clip: Path) -> None:
        (tmp_path / "out").mkdir(mode=0o500)
        refused(clip, tmp_path / "out" / "b.mp4", "cannot write")
        refused(clip, tmp_path / "out", "cannot write")

    def test_missing_folders_are_made(self, tmp_path: Path, clip: Path) -> None:
        copy(clip, tmp_path / "x" / "y" / "b.mp4")
        assert len(frame_times(tmp_path / "x" / "y" / "b.mp4")) == 12

    @pytest.mark.parametrize("name", ["b.mp4", "b.mkv", "b.gif", "b.webm"])
    def test_nothing_stays_after_an_exception(self, tmp_path: Path, clip: Path, name: str) -> None:
        interrupted(clip, tmp_path / name, after=6)
        assert os.listdir(tmp_path) == ["in"]

    def test_the_old_output_survives_an_abort(self, tmp_path: Path, clip: Path) -> None:
        (tmp_path / "b.mp4").write_text("old")
        with open_source(clip) as source:
            sink = open_sink(tmp_path / "b.mp4", source, overwrite=True)
            sink.write(next(iter(source)))
            sink.abort()
            sink.abort()
            sink.finish()
        assert (tmp_path / "b.mp4").read_text() == "old"

    @pytest.mark.parametrize("name", ["b.mp4", "b.mkv", "b.gif"])
    def test_abort_can_keep_what_is_there(self, tmp_path: Path, clip: Path, name: str) -> None:
        with open_source(clip) as source:
            sink = open_sink(tmp_path / name, source)
            for frame in source:
                sink.write(frame)
                if frame.index == 6:
                    break
            sink.abort(keep=True)
        assert len(read_pictures(tmp_path / name)) == 7
        assert not temporary_name(tmp_path / name).exists()

    @pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
    @pytest.mark.parametrize("extension", ["mp4", "mkv", "gif", "png"])
    def test_full_disk(self, tmp_path: Path, extension: str) -> None:
        """A limit on the size of files fails in the same place as a disk without room."""
        make_clip(tmp_path / "a.mp4", size=(320, 240), pts=range(40))
        target = "out/" if extension == "png" else f"b.{extension}"
        script = f"""
import resource
from engines.errors import OutputError
from gnr_video.media.open import open_sink
from gnr_video.media.open import open_source
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    with open_source({str(tmp_path / "a.mp4")!r}) as source:
        with open_sink({f"{tmp_path}/{target}"!r}, source, crf=1) as sink:
            for frame in source:
                sink.write(frame)
except OutputError as error:
    print(error)
"""
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd=REPOSITORY
        )
        assert done.stdout.startswith("no room left for"), done.stdout + done.stderr
        assert done.stdout.count("\n") == 1
        left = sorted(os.listdir(tmp_path))
        assert left in (["a.mp4"], ["a.mp4", "out"])
        assert left == ["a.mp4"] or os.listdir(tmp_path / "out") == []
