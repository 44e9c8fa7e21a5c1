"""The gnr-video command: its forms, defaults, outputs and help. Device: CPU."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from cli import command
from gnr_video import __version__
from gnr_video.checkpoints import DEFAULT_FILE
from gnr_video.commands.translate import default_output
from gnr_video.frame import Image
from gnr_video.samples.portrait import portrait
from tests.cli_helpers import REPOSITORY, TIMEOUT, call, run
from tests.media_helpers import frame_times, make_clip, read_packets, read_pictures

needs_face_model = pytest.mark.usefixtures("face_model")


@pytest.fixture
def options(tiny: Path) -> list[object]:
    """What makes a run quick and the same everywhere."""
    return ["--weights", tiny, "--engine", "torch", "--precision", "fp32"]


@pytest.fixture
def clip(tmp_path: Path, face_clip: Path) -> Path:
    """A copy of the clip in a folder of its own."""
    target = tmp_path / "clip.mp4"
    target.write_bytes(face_clip.read_bytes())
    return target


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    target = tmp_path / "photo.png"
    cv2.imwrite(str(target), portrait()[..., ::-1])
    return target


def image(path: Path) -> Image:
    found = cv2.imread(str(path))
    assert found is not None
    return np.asarray(found[..., ::-1], np.uint8)


def names(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.iterdir())


class TestHelp:
    def test_answers_at_once(self) -> None:
        """Nothing slow is imported for help, nor for the version, nor for a mistake."""
        script = """
import sys, time
from cli import command
for args in (["--help"], ["translate", "--help"], ["train", "--help"], ["--version"], ["--paste", "ear", "x"]):
    try:
        command(args, prog_name="gnr-video")
    except SystemExit:
        pass
slow = {"torch", "mediapipe", "cv2", "av", "openvino", "numpy", "safetensors"} & set(sys.modules)
print("RESULT", time.process_time(), sorted(slow))
"""
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=TIMEOUT, cwd=REPOSITORY
        )
        seconds, slow = done.stdout.rsplit("RESULT ", 1)[1].strip().split(" ", 1)
        assert slow == "[]"
        assert float(seconds) < 1.0

    def test_has_examples(self) -> None:
        for args in (["--help"], ["translate", "--help"], ["-h"]):
            text = call(*args).stdout
            assert "Examples:" in text
            assert "gnr-video clip.mp4 --style 42 -o out.mp4" in text

    @pytest.mark.parametrize("name", sorted(command.commands))
    def test_of_every_command(self, name: str) -> None:
        done = call(name, "--help")
        assert done.status == 0
        assert done.stdout.startswith(f"Usage: gnr-video {name}")

    def test_names_every_command_and_the_short_form(self) -> None:
        text = call("--help").stdout
        assert "gnr-video INPUT [-o OUTPUT]" in text
        for name in ("translate", "train", "weights", "styles", "doctor"):
            assert f"\n  {name} " in text

    def test_is_what_no_arguments_give(self) -> None:
        assert call() == call("--help")

    def test_version(self) -> None:
        assert call("--version").stdout.strip() == f"gnr-video, version {__version__}"

    def test_the_installed_command(self) -> None:
        """`gnr-video` as pip installs it, where it is installed."""
        program = Path(sys.executable).with_name("gnr-video")
        if not program.is_file():
            pytest.skip("needs the package installed: pip install -e .")
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=TIMEOUT)
        assert done.stdout.strip() == f"gnr-video, version {__version__}"


class TestMistakes:
    @pytest.mark.parametrize(
        ("args", "says"),
        [
            (["clip.mp4", "--paste", "ear"], "ear"),
            (["clip.mp4", "--crf", "99"], "99"),
            (["clip.mp4", "--engine", "steam"], "steam"),
            (["clip.mp4", "--start", "soon"], "soon"),
            (["clip.mp4", "--colour"], "--colour"),
            (["--quiet"], "INPUT"),
            (["weights", "paint"], "paint"),
            (["weights", "pull", "unofficial"], "unofficial"),
        ],
    )
    def test_are_named(self, args: list[str], says: str) -> None:
        done = call(*args)
        assert done.status == 2
        assert says in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_style_that_is_none(self, clip: Path, options: list[object]) -> None:
        done = call(clip, "-q", "--style", "blue", *options)
        assert done.status == 2
        assert done.stderr.startswith("error: the style 'blue' does not parse at character 1: a seed")
        assert names(clip.parent) == ["clip.mp4"]

    def test_an_empty_part(self, clip: Path, options: list[object]) -> None:
        done = call(clip, "-q", "--start", 3, "--end", 2, *options)
        assert done.status == 3
        assert done.stderr.startswith("error: the part from 3 s to 2 s is empty")

    def test_debug_shows_where(self, tmp_path: Path) -> None:
        with pytest.raises(Exception, match="no such file"):
            call(tmp_path / "none.mp4", "--debug")


class TestDefaultOutput:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("clip.mp4", "clip_anime.mp4"),
            ("a/b.c.mov", "a/b.c_anime.mp4"),
            ("clip.GIF", "clip_anime.mp4"),
            ("me.jpg", "me_anime.png"),
            ("me.PNG", "me_anime.png"),
            ("noextension", "noextension_anime.mp4"),
            ("-", "stdin_anime.mp4"),
            ("https://example.com/v/clip.mp4?token=1", "clip_anime.mp4"),
            ("https://example.com/", "stream_anime.mp4"),
        ],
    )
    def test_beside_the_input(self, given: str, expected: str) -> None:
        assert Path(default_output(given)) == Path(expected)

    def test_of_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        for given in (tmp_path / "in", f"{tmp_path}/in/"):
            assert default_output(str(given)) == f"{tmp_path / 'in'}_anime/"


@needs_face_model
class TestTranslate:
    def test_without_a_command(self, clip: Path, options: list[object]) -> None:
        done = call(clip, *options)
        assert done.status == 0, done.stderr
        assert done.stdout == ""
        first, last = done.stderr.splitlines()
        assert first.startswith("clip.mp4: h264 320x180, 20 fps, 1.2 s")
        assert "clip_anime.mp4: 24 frames in" in last
        assert last.endswith("style 42")
        result = clip.with_name("clip_anime.mp4")
        assert names(clip.parent) == ["clip.mp4", "clip_anime.mp4"]
        assert frame_times(result) == frame_times(clip)
        assert read_packets(result) == read_packets(clip)

    @pytest.mark.parametrize(
        "args",
        [
            ["translate", "{clip}", "-o", "{out}"],
            ["{clip}", "-o", "{out}", "--style", "42"],
            ["--style", "42", "{clip}", "-o", "{out}"],
            ["-o", "{out}", "{clip}"],
            ["-q", "{clip}", "-o", "{out}"],
        ],
    )
    def test_forms(self, clip: Path, options: list[object], args: Sequence[str]) -> None:
        out = clip.with_name("out.mkv")
        filled = [a.format(clip=clip, out=out) for a in args]
        assert call(*filled, "--end", 0.2, *options).status == 0
        assert len(read_pictures(out)) == 4

    def test_the_same_seed_gives_the_same_pictures(self, photo: Path, options: list[object]) -> None:
        for name, style in (("a", "7"), ("b", "7"), ("c", "8")):
            out = photo.with_name(f"{name}.png")
            assert call(photo, "-q", "-o", out, "--style", style, *options).status == 0
        a, b, c = (image(photo.with_name(f"{name}.png")) for name in "abc")
        np.testing.assert_array_equal(a, b)
        assert np.abs(a.astype(int) - c).mean() > 0.5

    def test_a_report(self, clip: Path, options: list[object]) -> None:
        report = clip.with_name("report.json")
        assert call(clip, "--end", 0.4, "--report", report, *options).status == 0
        values = json.loads(report.read_text(), parse_constant=lambda name: pytest.fail(name))
        assert values["frames"] == values["faces"] == 8
        assert values["frames_without_face"] == 0
        assert values["style"] == "42"
        assert values["settings"]["paste"] == "head"
        assert set(values["stages"]) >= {"decode", "track", "network", "compose", "encode"}
        assert values["stages"]["network"]["count"] == 8
        assert values["hardware"]["cores"] >= 1
        assert values["versions"]["gnr-video"] == __version__
        assert values["fps"] > 0

    def test_the_part_and_the_way_to_paste(self, clip: Path, options: list[object]) -> None:
        out = clip.with_name("out.mp4")
        args = ["--paste", "side-by-side", "--start", 0.5, "--end", 0.7, "--crf", 10, "--lookahead", 0]
        assert call(clip, "-q", "-o", out, *args, *options).status == 0
        assert {p.shape for p in read_pictures(out)} == {(180, 640, 3)}
        assert len(frame_times(out)) == 4

    def test_a_photo(self, photo: Path, options: list[object]) -> None:
        assert call(photo, *options).status == 0
        before, after = image(photo), image(photo.with_name("photo_anime.png"))
        assert before.shape == after.shape
        assert np.abs(before.astype(int) - after).mean() > 2

    def test_a_folder_of_images(self, tmp_path: Path, clip: Path, options: list[object]) -> None:
        folder = tmp_path / "pictures"
        folder.mkdir()
        for i, picture in enumerate(read_pictures(clip)[:3]):
            cv2.imwrite(str(folder / f"{i}.png"), picture[..., ::-1])
        assert call(folder, *options).status == 0
        assert names(tmp_path / "pictures_anime") == ["0.png", "1.png", "2.png"]

    @pytest.mark.slow
    def test_quiet_says_nothing(self, clip: Path, options: list[object]) -> None:
        """In a process of its own, where also what the native libraries write would be seen."""
        done = run(clip, "--quiet", "--end", 0.2, *options)
        assert done == (0, "", "")
        assert clip.with_name("clip_anime.mp4").is_file()

    @pytest.mark.slow
    def test_a_pipe(self, tmp_path: Path, options: list[object]) -> None:
        clip = make_clip(tmp_path / "in.mkv", size=(64, 48))
        with clip.open("rb") as stream:
            done = run("-", *options, stdin=stream, cwd=tmp_path)
        assert done.status == 0, done.stderr
        assert len(frame_times(tmp_path / "stdin_anime.mp4")) == 12

    def test_a_run_that_is_not_watched_draws_no_progress_bar(self, clip: Path, options: list[object]) -> None:
        assert "\r" not in call(clip, "--end", 0.2, *options).stderr


class TestOtherCommands:
    @needs_face_model
    def test_styles_sheet(self, photo: Path, options: list[object]) -> None:
        assert call("styles", "sheet", photo, "--count", 4, "--first", 3, *options).status == 0
        sheet = image(photo.with_name("photo_styles.png"))
        assert min(sheet.shape[:2]) >= 64
        again = call("styles", "sheet", photo, "--count", 4, *options)
        assert again.status == 4
        assert "exists already" in again.stderr
        other = photo.with_name("other.png")
        assert call("styles", "sheet", photo, "-q", "--count", 4, "--first", 3, "-o", other, *options) == (
            0,
            "",
            "",
        )
        np.testing.assert_array_equal(image(other), sheet)

    @needs_face_model
    def test_styles_sheet_without_a_face(self, tmp_path: Path, options: list[object]) -> None:
        cv2.imwrite(str(tmp_path / "grey.png"), np.full((200, 200, 3), 127, np.uint8))
        done = call("styles", "sheet", tmp_path / "grey.png", *options)
        assert done.status == 3
        assert done.stderr.startswith("error: no face was found in the picture\n")
        assert names(tmp_path) == ["grey.png"]

    def test_weights_info(self, tiny: Path) -> None:
        done = call("weights", "info", tiny)
        assert done.status == 0
        assert "64x64" in done.stdout
        assert "random numbers, for tests" in done.stdout
        assert "licence" in done.stdout

    def test_weights_info_of_the_default(self) -> None:
        if not DEFAULT_FILE.is_file():
            pytest.skip("needs the package's own weights, gnr_video/data/default.safetensors")
        done = call("weights", "info")
        assert done.status == 0
        assert DEFAULT_FILE.stat().st_size <= 40e6
        for heading in ("architecture", "parameters", "provenance", "licence"):
            assert f"\n{heading}" in f"\n{done.stdout}"
        assert "not stated" not in done.stdout
        assert re.search(r"^style encoder +yes", done.stdout, re.MULTILINE)

    def test_weights_import_of_what_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "a.pt").write_bytes(b"no checkpoint")
        done = call("weights", "import", tmp_path / "a.pt", "-o", tmp_path / "b.safetensors")
        assert done.status == 5
        assert done.stderr.startswith("error: ")
        assert names(tmp_path) == ["a.pt"]

    @needs_face_model
    def test_doctor(self) -> None:
        done = call("doctor")
        failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
        assert done.status == (1 if failed else 0)
        for part in ("python", "torch", "mediapipe", "openvino"):
            assert part in done.stdout.lower()
        # All that a run needs is here, as the other tests show; weights may not be.
        assert all("weights" in line for line in failed)
