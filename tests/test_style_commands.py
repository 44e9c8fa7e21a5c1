"""Styles in the commands: save, show, sheet, walk, interpolate, schedules and grids. Device: CPU."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gnr_video.media.open import open_source
from gnr_video.options import EngineOptions
from gnr_video.samples.portrait import portrait
from gnr_video.translator import Translator
from tests.cli_helpers import call
from tests.media_helpers import frame_times, read_packets, read_pictures

ENGINE = ["--engine", "torch", "--precision", "fp32"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(cv2.imencode(".png", portrait()[..., ::-1])[1].tobytes())
    return path


def test_save_show_and_use(tiny: Path, photo: Path, tmp_path: Path) -> None:
    saved = tmp_path / "mine.style.json"
    assert call("styles", "save", "42*0.7+7*0.3", "-o", saved, "--weights", tiny, "-q").status == 0
    again = call("styles", "save", "42", "-o", saved, "--weights", tiny)
    assert again.status == 4
    assert "exists already" in again.stderr
    shown = call("styles", "show", saved, "--weights", tiny)
    assert "32 numbers in w space" in shown.stdout
    assert "sefa" in shown.stdout
    done = call("interpolate", "42", saved, photo, "-n", 4, "--weights", tiny, *ENGINE)
    assert done.status == 0, done.stderr
    strip = cv2.imread(str(tmp_path / "photo_interpolation.png"))
    assert strip.shape == (8 + 256 + 8, 8 + 5 * 264, 3)


def test_a_mistake_is_pointed_at() -> None:
    done = call("styles", "show", "42*x")
    assert done.status == 2
    assert done.stderr.splitlines()[-2:] == ["  42*x", "     ^"]


def test_walk(tiny: Path, photo: Path, tmp_path: Path) -> None:
    target = tmp_path / "walk.mp4"
    done = call(
        "styles", "walk", photo, "-o", target, "--seconds", 2, "--fps", 10, "--every", "1s", "--size", 64,
        "--weights", tiny, *ENGINE,
    )  # fmt: skip
    assert done.status == 0, done.stderr
    pictures = [p.astype(int) for p in read_pictures(target)]
    assert len(pictures) == 20
    steps = [np.abs(a - b).mean() for a, b in zip(pictures, [*pictures[1:], pictures[0]])]
    assert min(steps) > 0.05  # it never stops
    assert max(steps) < 4 * np.mean(steps)  # nor jumps, not even from the end to the beginning


def test_schedules_change_no_times(tiny: Path, face_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    done = call(
        face_clip, "-o", out, "--styles", "0=42,0.5s=7", "--transition", "200ms", "--paste", "crop",
        "--weights", tiny, *ENGINE,
    )  # fmt: skip
    assert done.status == 0, done.stderr
    assert frame_times(out) == frame_times(face_clip)
    assert read_packets(out) == read_packets(face_clip)
    pictures = [p.astype(int).mean((0, 1)) for p in read_pictures(out)]
    before, after = np.mean(pictures[:9], axis=0), np.mean(pictures[15:], axis=0)
    assert np.abs(before - after).max() > 3


def test_grid_with_a_late_start(tiny: Path, face_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    done = call(
        face_clip, "-o", out, "--grid", "2x3", "--mode", "blend", "--start", 0.5, "--weights", tiny, *ENGINE
    )
    assert done.status == 0, done.stderr
    with open_source(out) as source:
        assert source.info.size == (5 * 256, 2 * 256)
    picture = read_pictures(out)[3].astype(int)
    cells = [picture[r : r + 256, c : c + 256] for r in (0, 256) for c in (512, 768, 1024)]
    assert all(np.abs(a - b).mean() > 2 for i, a in enumerate(cells) for b in cells[:i])


def test_grid_around_the_original(tiny: Path, face_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    done = call(face_clip, "-o", out, "--grid", "3x3", "--weights", tiny, *ENGINE)
    assert done.status == 0, done.stderr
    with open_source(out) as source:
        assert source.info.size == (3 * 256, 3 * 256)
    assert frame_times(out) == frame_times(face_clip)
    assert read_packets(out) == read_packets(face_clip), "the sound is kept"
    picture = read_pictures(out)[3].astype(int)
    cells = [picture[r : r + 200, c : c + 256] for r in (0, 256, 512) for c in (0, 256, 512)]  # without names
    assert all(np.abs(a - b).mean() > 2 for i, a in enumerate(cells) for b in cells[:i])
    with Translator(tiny, engine=EngineOptions("torch", precision="fp32")) as translator:
        face = cv2.resize(translator.find_face(read_pictures(face_clip)[3]), (256, 256))[:200].astype(int)
    far = [np.abs(face - cell).mean() for cell in cells]
    assert far[4] < 12 < min(far[:4] + far[5:]), "the original is in the middle"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--styles", "0=42", "--mode", "blend"], "exclude each other"),
        (["--grid", "3"], "is no grid"),
        (["--faces", "some"], "chooses no faces"),
        (["--transition", "soon"], "a time"),
        (["--styles", "42"], "'=' and a style"),
        (["--mode", "sefa", "--bpm", "0"], "bpm must be above 0"),
    ],
)
def test_what_does_not_parse_is_said_at_once(
    face_clip: Path, tmp_path: Path, options: list[str], says: str
) -> None:
    done = call(face_clip, "-o", tmp_path / "out.mp4", *options)
    assert done.status in (2, 3)
    assert says in done.stderr
