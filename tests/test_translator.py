"""The Python API: faces, frames, streams of frames, videos, styles. Device: CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

import gnr_video
from engines.errors import (
    EngineError,
    FaceModelError,
    InputError,
    OutputError,
    StyleError,
    WeightsError,
)
from gnr_video import Frame, Translator
from gnr_video.frame import Image
from gnr_video.options import EngineOptions, LookOptions, OutputOptions
from gnr_video.pipeline import Counts
from gnr_video.samples.portrait import demo_frames, portrait
from gnr_video.styles.code import StyleCode, style_from_seed
from tests.cuda_stub import install
from tests.media_helpers import frame_times, picture, read_packets, read_pictures
from tests.tiny_weights import TINY, make_tiny_weights

pytestmark = pytest.mark.usefixtures("no_threads_left")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def made(tiny: Path) -> Iterator[Translator]:
    with Translator(tiny, engine=EngineOptions("torch", precision="fp32", threads=1)) as translator:
        yield translator


@pytest.fixture
def translator(made: Translator) -> Translator:
    """The same one for all tests, as it was when new."""
    made.set_style(42)
    made.reset()
    return made


@pytest.fixture(scope="module")
def face() -> Image:
    """A square of the portrait with its face in it; uint8 200x200x3."""
    return portrait()[10:210, 124:324].copy()


def change(before: Image, after: Image) -> float:
    """Mean absolute difference, levels."""
    return float(np.abs(before.astype(int) - after).mean())


class TestTranslateFace:
    @pytest.mark.parametrize("side", [1, 16, 63, 64, 200, 256, 700])
    def test_any_size_comes_back_in_its_own_size(
        self, translator: Translator, face: Image, side: int
    ) -> None:
        crop = np.asarray(cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
        copy = crop.copy()
        result = translator.translate_face(crop)
        assert result.shape == (side, side, 3)
        assert result.dtype == np.uint8
        assert change(crop, result) > 10
        np.testing.assert_array_equal(crop, copy)

    def test_size_hardly_matters(self, translator: Translator, face: Image) -> None:
        small = np.asarray(cv2.resize(face, (64, 64), interpolation=cv2.INTER_AREA), np.uint8)
        one, other = translator.translate_face(small), translator.translate_face(face)
        again = np.asarray(cv2.resize(other, (64, 64), interpolation=cv2.INTER_AREA), np.uint8)
        assert change(one, again) < 3

    def test_views_are_welcome(self, translator: Translator) -> None:
        image = portrait()
        view = image[10:210, 124:324][::-1, ::-1]
        np.testing.assert_array_equal(
            translator.translate_face(view), translator.translate_face(np.ascontiguousarray(view))
        )

    def test_a_style_for_one_call_only(self, translator: Translator, face: Image) -> None:
        usual = translator.translate_face(face)
        other = translator.translate_face(face, style=7)
        assert change(usual, other) > 5
        np.testing.assert_array_equal(translator.translate_face(face), usual)
        np.testing.assert_array_equal(translator.translate_face(face, style="7"), other)
        np.testing.assert_array_equal(translator.translate_face(face, style=style_from_seed(7)), other)
        assert translator.style == style_from_seed(42)

    @pytest.mark.parametrize("shape", [(64, 65, 3), (64, 64), (64, 64, 4), (1, 64, 64, 3)])
    def test_other_shapes_are_refused(self, translator: Translator, shape: tuple[int, ...]) -> None:
        with pytest.raises(InputError, match="uint8 SxSx3"):
            translator.translate_face(np.zeros(shape, np.uint8))

    def test_other_types_are_refused(self, translator: Translator) -> None:
        with pytest.raises(InputError, match="float32"):
            translator.translate_face(np.zeros((64, 64, 3), np.float32))  # type: ignore[arg-type]


class TestStyle:
    def test_set_style_lasts(self, translator: Translator, face: Image) -> None:
        before = translator.translate_face(face)
        assert translator.set_style(7) == style_from_seed(7)
        after = translator.translate_face(face)
        assert change(before, after) > 5
        translator.set_style("42")
        np.testing.assert_array_equal(translator.translate_face(face), before)

    def test_a_code_of_ones_own(self, translator: Translator, face: Image) -> None:
        code = StyleCode(tuple(np.linspace(-1, 1, TINY.latent_dim)), "mine")
        assert translator.set_style(code) is code
        assert translator.style is code
        translator.translate_face(face)

    @pytest.mark.parametrize("style", ["", "blue", "4.5", StyleCode((1.0, 2.0)), "ref:nowhere.png"])
    def test_a_style_that_cannot_be_leaves_the_old_one(
        self, translator: Translator, face: Image, style: str | StyleCode
    ) -> None:
        before = translator.translate_face(face)
        with pytest.raises(StyleError):
            translator.set_style(style)
        assert translator.style == style_from_seed(42)
        np.testing.assert_array_equal(translator.translate_face(face), before)

    def test_of_a_picture(self, translator: Translator, face: Image, tmp_path: Path) -> None:
        for name, image in (("a.png", picture(90, 120)), ("b.png", 255 - picture(90, 120))):
            cv2.imwrite(str(tmp_path / name), image)
        one = translator.set_style(f"ref:{tmp_path / 'a.png'}")
        assert one.label == "ref:a.png"
        assert len(one.z) == TINY.latent_dim
        first = translator.translate_face(face)
        assert translator.set_style(str(tmp_path / "b.png")).z != one.z
        assert change(first, translator.translate_face(face)) > 1

    def test_of_a_picture_with_weights_that_cannot_read_it(self, tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "a.png"), picture(64, 64))
        weights = make_tiny_weights(tmp_path / "w.safetensors", style_encoder=False)
        with pytest.raises(StyleError, match=r"no style can be read off a\.png"):
            Translator(weights, f"ref:{tmp_path / 'a.png'}", engine=EngineOptions("torch"))

    def test_the_same_seed_on_every_engine(self, tiny: Path, face: Image) -> None:
        pytest.importorskip("openvino")
        results = []
        for engine in ("torch", "openvino"):
            with Translator(tiny, 5, engine=EngineOptions(engine, precision="fp32", threads=1)) as translator:
                assert translator.style == style_from_seed(5)
                results.append(translator.translate_face(face))
        assert change(*results) < 0.5


@pytest.mark.usefixtures("face_model")
class TestTranslateFrame:
    def test_a_plain_picture(self, translator: Translator) -> None:
        image = portrait()
        copy = image.copy()
        result = translator.translate_frame(image)
        assert result.shape == image.shape
        changed = np.abs(image.astype(int) - result).max(axis=2) > 20
        y, x = np.nonzero(changed)
        # The portrait's face is at (x, y) = (224, 110).
        assert abs(x.mean() - 224) < 25
        assert abs(y.mean() - 110) < 40
        assert not changed[:, 420:].any()
        np.testing.assert_array_equal(image, copy)
        np.testing.assert_array_equal(translator.translate_frame(image), result)

    def test_pictures_have_no_memory(self, translator: Translator) -> None:
        """A picture without a face right after one with a face: nothing is held over."""
        empty = picture(512, 512)
        translator.translate_frame(portrait())
        np.testing.assert_array_equal(translator.translate_frame(empty), empty)

    def test_a_view_of_a_picture(self, translator: Translator) -> None:
        mirrored = portrait()[:, ::-1]
        result = translator.translate_frame(mirrored)
        assert change(mirrored, result) > 2

    def test_no_face(self, translator: Translator) -> None:
        image = picture(320, 240)
        result = translator.translate_frame(image)
        np.testing.assert_array_equal(result, image)
        assert result is not image

    @pytest.mark.parametrize("size", [(1, 1), (2, 500), (16, 16), (33, 17)])
    def test_tiny_pictures(self, translator: Translator, size: tuple[int, int]) -> None:
        image = picture(*size)
        np.testing.assert_array_equal(translator.translate_frame(image), image)

    def test_a_stream(self, translator: Translator) -> None:
        """Frames go on from each other: one that lost its face still shows the one before for a while."""
        images = list(demo_frames(20, (320, 180)))[:6]
        results = [
            translator.translate_frame(Frame(image, i, Fraction(1, 30), i)) for i, image in enumerate(images)
        ]
        for image, result in zip(images, results):
            assert result.shape == image.shape
            assert change(image, result) > 2
        # A blurred copy of the last picture: no scene cut, and no face to be found.
        blurred = np.asarray(cv2.GaussianBlur(images[-1], (0, 0), 14), np.uint8)
        held = translator.translate_frame(Frame(blurred, 6, Fraction(1, 30), 6))
        assert change(blurred, held) > 2
        translator.reset()
        gone = translator.translate_frame(Frame(blurred, 7, Fraction(1, 30), 7))
        np.testing.assert_array_equal(gone, blurred)

    def test_a_stream_whose_style_changes(self, translator: Translator) -> None:
        image = next(demo_frames(20, (320, 180)))
        first = translator.translate_frame(Frame(image, 0, Fraction(1, 30), 0))
        translator.set_style(7)
        second = translator.translate_frame(Frame(image, 1, Fraction(1, 30), 1))
        assert change(first, second) > 1

    @pytest.mark.parametrize(
        ("paste", "expected"), [("side-by-side", (512, 1024, 3)), ("crop", (256, 256, 3))]
    )
    def test_other_ways_to_paste(self, tiny: Path, paste: str, expected: tuple[int, ...]) -> None:
        with Translator(
            tiny, engine=EngineOptions("torch", threads=1), look=LookOptions(paste=paste)
        ) as translator:
            assert translator.translate_frame(portrait()).shape == expected

    def test_what_is_no_picture_is_refused(self, translator: Translator) -> None:
        with pytest.raises(ValueError, match="uint8 HxWx3"):
            translator.translate_frame(np.zeros((10, 10), np.uint8))


@pytest.mark.usefixtures("face_model")
class TestFindFace:
    def test_as_the_generator_wants_it(self, translator: Translator) -> None:
        face = translator.find_face(portrait())
        assert face.shape == (64, 64, 3)
        # The eyes' midpoint is at (128, 92) of 256, so the crop is mostly face: skin is redder than blue.
        middle = face[20:44, 20:44].reshape(-1, 3).mean(axis=0)
        assert middle[0] > middle[2] + 20

    def test_none(self, translator: Translator) -> None:
        with pytest.raises(InputError, match="no face was found"):
            translator.find_face(picture(200, 200))


@pytest.mark.usefixtures("face_model")
class TestTranslateVideo:
    def test_counts_and_report(self, translator: Translator, face_clip: Path, tmp_path: Path) -> None:
        target = tmp_path / "out.mp4"
        told: list[tuple[int, int | None]] = []

        def progress(counts: Counts, total: int | None) -> None:
            told.append((counts.frames, total))

        report = translator.translate_video(face_clip, target, progress=progress)
        assert (report.frames, report.faces, report.frames_without_face) == (24, 24, 0)
        assert told == [(i + 1, 24) for i in range(24)]
        assert report.stages["network"].count == 24
        assert report.seconds > 0
        assert report.style == "42"
        assert report.weights == "tiny"
        assert report.engine.startswith("torch fp32")
        assert report.warnings == report.fallbacks == []
        assert report.settings["codec"] == "libx264"
        values = json.loads(report.to_json())
        assert values["frames"] == 24
        assert values["source"] == str(face_clip)
        assert frame_times(target) == frame_times(face_clip)
        assert read_packets(target) == read_packets(face_clip)
        assert sorted(f.name for f in tmp_path.iterdir()) == ["out.mp4"]

    @pytest.mark.parametrize(
        ("device", "output", "expected"),
        [
            ("cuda:0", OutputOptions(), "libx265"),
            ("cpu", OutputOptions(), "libx264"),
            ("cuda:0", OutputOptions(codec="vp9"), "libvpx-vp9"),
            ("cuda:0", OutputOptions(crf=23), "libx264"),
        ],
    )
    def test_beside_an_engine_on_a_gpu_its_encoder_is_the_usual_one(
        self,
        translator: Translator,
        face_clip: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        device: str,
        output: OutputOptions,
        expected: str,
    ) -> None:
        """Unless another one is asked for, or a quality on another one's scale. libx265 stands for h264_nvenc."""
        install(monkeypatch)
        monkeypatch.setattr(translator.engine, "device", device)
        monkeypatch.setattr("gnr_video.media.encoders.gpu_codec", lambda target, size: "libx265")
        report = translator.translate_video(face_clip, tmp_path / "out.mkv", output)
        assert report.settings["codec"] == expected

    def test_the_face_changes_in_every_frame(
        self, translator: Translator, face_clip: Path, tmp_path: Path
    ) -> None:
        translator.translate_video(face_clip, f"{tmp_path}/out/")
        for before, after in zip(read_pictures(face_clip), read_pictures(tmp_path / "out"), strict=True):
            changed = np.abs(before.astype(int) - after).max(axis=2)
            assert (changed > 40).mean() > 0.03
            assert changed[:, :16].max() == 0  # beside the head

    def test_the_same_style_gives_the_same_pictures(
        self, translator: Translator, face_clip: Path, tmp_path: Path
    ) -> None:
        # As PNG: x264 itself does not repeat small videos exactly.
        pictures = []
        for name, style in (("a", 42), ("b", 42), ("c", 43)):
            translator.set_style(style)
            translator.translate_video(face_clip, f"{tmp_path}/{name}/", OutputOptions(end=0.3))
            pictures.append(np.stack(read_pictures(tmp_path / name)))
        np.testing.assert_array_equal(pictures[0], pictures[1])
        assert change(pictures[0], pictures[2]) > 1

    def test_a_part(self, translator: Translator, face_clip: Path, tmp_path: Path) -> None:
        report = translator.translate_video(
            face_clip, tmp_path / "out.mp4", OutputOptions(start=0.4, end=0.8)
        )
        assert report.frames == 8
        assert frame_times(tmp_path / "out.mp4") == [Fraction(i, 20) for i in range(8)]

    def test_no_face_in_any_frame(self, translator: Translator, tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "in.png"), picture(120, 90))
        report = translator.translate_video(tmp_path / "in.png", tmp_path / "out.png")
        assert report.frames_without_face == report.frames == 1
        assert any("no face was found in any frame" in w for w in report.warnings)
        np.testing.assert_array_equal(
            read_pictures(tmp_path / "out.png")[0], read_pictures(tmp_path / "in.png")[0]
        )

    def test_a_picture(self, translator: Translator, tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "in.png"), portrait()[..., ::-1])
        report = translator.translate_video(tmp_path / "in.png", tmp_path / "out.png")
        assert report.faces == 1
        np.testing.assert_array_equal(
            read_pictures(tmp_path / "out.png")[0], translator.translate_frame(portrait())
        )

    @pytest.mark.parametrize(
        ("paste", "size"), [("crop", (256, 256)), ("side-by-side", (640, 180)), ("face", (320, 180))]
    )
    def test_other_ways_to_paste(
        self, tiny: Path, face_clip: Path, tmp_path: Path, paste: str, size: tuple[int, int]
    ) -> None:
        with Translator(
            tiny, engine=EngineOptions("torch", threads=1), look=LookOptions(paste=paste)
        ) as translator:
            translator.translate_video(face_clip, tmp_path / "out.mp4", OutputOptions(end=0.2))
        results = read_pictures(tmp_path / "out.mp4")
        assert {p.shape for p in results} == {(size[1], size[0], 3)}
        if paste == "side-by-side":
            assert change(results[0][:, :320], read_pictures(face_clip)[0]) < 3
            assert change(results[0][:, 320:], results[0][:, :320]) > 2

    def test_an_output_that_exists(self, translator: Translator, face_clip: Path, tmp_path: Path) -> None:
        target = tmp_path / "out.mp4"
        target.write_bytes(b"precious")
        with pytest.raises(OutputError, match="exists already"):
            translator.translate_video(face_clip, target)
        assert target.read_bytes() == b"precious"
        translator.translate_video(face_clip, target, OutputOptions(end=0.2, overwrite=True))
        assert len(read_pictures(target)) == 4

    def test_a_failure_in_progress_leaves_nothing(
        self, translator: Translator, face_clip: Path, tmp_path: Path
    ) -> None:
        def progress(counts: Counts, total: int | None) -> None:
            if counts.frames == 3:
                raise RuntimeError("window closed")

        with pytest.raises(RuntimeError, match="window closed"):
            translator.translate_video(face_clip, tmp_path / "out.mp4", progress=progress)
        assert list(tmp_path.iterdir()) == []

    def test_one_after_another(self, translator: Translator, face_clip: Path, tmp_path: Path) -> None:
        """Also while a stream of frames is under way: neither disturbs the other."""
        image = next(demo_frames(20, (320, 180)))
        translator.translate_frame(Frame(image, 0, Fraction(1, 30), 0))
        for name in ("a.mp4", "b.mp4"):
            assert translator.translate_video(face_clip, tmp_path / name, OutputOptions(end=0.2)).faces == 4
        after = translator.translate_frame(Frame(image, 1, Fraction(1, 30), 1))
        assert change(image, after) > 2


class TestMaking:
    def test_what_is_not_there(self, tiny: Path, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="does not exist"):
            Translator(tmp_path / "none.safetensors")
        with pytest.raises(EngineError, match="no engine is called"):
            Translator(tiny, engine=EngineOptions("abacus"))
        with pytest.raises(EngineError, match="no precision is called"):
            Translator(tiny, engine=EngineOptions(precision="fp12"))
        with pytest.raises(ValueError, match="unknown paste mode"):
            Translator(tiny, look=LookOptions(paste="ear"))

    def test_the_face_model_is_wanted_only_for_finding_faces(
        self, tiny: Path, face: Image, tmp_path: Path
    ) -> None:
        with Translator(
            tiny,
            engine=EngineOptions("torch", threads=1),
            look=LookOptions(face_model=tmp_path / "none.task"),
        ) as translator:
            translator.translate_face(face)
            for use in (translator.find_face, translator.translate_frame):
                with pytest.raises(FaceModelError, match="is not a file"):
                    use(face)

    def test_close(self, tiny: Path, face: Image) -> None:
        translator = Translator(tiny, engine=EngineOptions("torch", threads=1))
        translator.close()
        translator.close()
        with pytest.raises(EngineError, match="closed"):
            translator.translate_face(face)

    @pytest.mark.usefixtures("face_model")
    def test_a_translator_nobody_closed_ends_in_silence(self, tiny: Path) -> None:
        script = f"""
from gnr_video import EngineOptions, Translator
from gnr_video.samples.portrait import portrait
translator = Translator({str(tiny)!r}, engine=EngineOptions("torch", threads=1))
translator.translate_frame(portrait())
"""
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=REPOSITORY
        )
        assert done.returncode == 0
        assert done.stdout == ""
        # MediaPipe's own log lines aside.
        assert "Traceback" not in done.stderr
        assert "Exception" not in done.stderr

    def test_the_package_gives_it_lazily(self) -> None:
        assert gnr_video.Translator is Translator
