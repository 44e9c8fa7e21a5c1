"""Preparing a data set: aligned faces, reframed drawings, bad files. Device: CPU."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.data import astronaut

from engines.errors import InputError, OutputError
from gnr_video.media.image_files import read_image
from train.data import ANIME_FRAMING, Framing, fit
from train.prepare import plan, prepare


def write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[:, :, ::-1])


def ruler() -> np.ndarray:
    """Every row and column of 256 can be told by its colour."""
    rows, columns = np.mgrid[:256, :256].astype(np.uint8)
    return np.stack([rows, columns, np.zeros_like(rows)], -1)


@pytest.mark.parametrize(("source", "result"), [(107, 93), (156, 163), (182, 202)])
def test_anime_framing_takes_eyes_mouth_and_chin_where_it_says(source: int, result: int) -> None:
    framed = fit(ruler(), 256, ANIME_FRAMING)
    assert abs(int(framed[result, 128, 0]) - source) <= 1


@settings(deadline=None, max_examples=30)
@given(stretch=st.floats(0.6, 1.8), below=st.floats(30, 200), size=st.sampled_from([64, 128, 200]))
def test_the_stretch_moves_only_what_is_below_the_line(stretch: float, below: float, size: int) -> None:
    framing = Framing(stretch=stretch, below=below)
    y = np.linspace(0, 256, 257)
    source = framing.stretched_from(y)
    assert np.allclose(source[y < below - 8 * max(stretch, 1)], y[y < below - 8 * max(stretch, 1)], atol=1e-6)
    assert (np.diff(source) > 0).all()
    far = y > below + 8 * max(stretch, 1)
    assert np.allclose(np.diff(source[far]), 1 / stretch, atol=1e-6)
    assert fit(ruler(), size, framing).shape == (size, size, 3)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    for turn in range(2):
        write(folder / "trainA" / f"{turn}.png", np.roll(astronaut(), 20 * turn, axis=1))
    write(folder / "trainA" / "wall.png", np.full((256, 256, 3), 90, np.uint8))
    (folder / "trainA" / "broken.png").write_bytes(b"not a picture")
    write(folder / "trainB" / "drawing.png", ruler())
    write(folder / "testA" / "0.png", astronaut())
    return folder


def test_faces_are_cut_as_the_pipeline_cuts_them(data: Path, tmp_path: Path) -> None:
    from gnr_video.tracking.alignment import crop_face, fit_alignment
    from gnr_video.tracking.tracker import FaceTracker

    calls: list[str] = []
    done = prepare(plan(data, tmp_path / "out"), size=128, advance=calls.append)
    assert done.written == {"trainA": 2, "trainB": 1, "testA": 1}
    assert len(done.skipped) == 2
    assert "broken.png" in done.skipped[0] and done.skipped[1].endswith("wall.png: no face was found")
    assert sorted(calls) == ["testA", *["trainA"] * 4, "trainB"]
    with FaceTracker() as tracker:
        face = tracker.track(astronaut(), 0.0)[0]
    expected = crop_face(astronaut(), fit_alignment(face), 128)
    for name in ("trainA/0.png", "testA/0.png"):
        assert np.abs(read_image(tmp_path / "out" / name).astype(int) - expected).mean() < 1
    # A face elsewhere in the picture gives the same crop.
    assert np.abs(read_image(tmp_path / "out" / "trainA/1.png").astype(int) - expected).mean() < 6
    assert (read_image(tmp_path / "out" / "trainB/drawing.png") == fit(ruler(), 128, ANIME_FRAMING)).all()


def test_a_second_run_keeps_what_is_there_and_does_the_rest(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(plan(data, out), size=64)
    kept = out / "testA" / "0.png"
    before = kept.stat().st_mtime_ns
    write(tmp_path / "more" / "a.png", astronaut())
    done = prepare(plan(data, out, [tmp_path / "more"]), size=64)
    assert kept.stat().st_mtime_ns == before
    assert done.written == {"trainA": 2, "trainB": 1, "testA": 1, "more": 1}


def test_whole_heads_are_cut_out_where_the_picture_holds_them(data: Path, tmp_path: Path) -> None:
    from gnr_video.tracking.alignment import crop_face, face_part, fit_alignment
    from gnr_video.tracking.tracker import FaceTracker

    write(tmp_path / "more" / "a.png", astronaut())
    write(tmp_path / "more" / "close.png", astronaut()[40:200, 150:300])
    done = prepare(plan(data, tmp_path / "out", [tmp_path / "more"], heads=True), size=64)
    folders = {"trainA": 2, "trainB": 1, "trainB-heads": 1, "testA": 1, "more": 2, "more-heads": 1}
    assert done.written == folders
    assert any(reason.endswith("close.png: the head is not all in the picture") for reason in done.skipped)
    with FaceTracker() as tracker:
        face = tracker.track(astronaut(), 0.0)[0]
    head = read_image(tmp_path / "out" / "more-heads" / "a.png")
    assert head.shape == (80, 80, 3)
    expected = crop_face(astronaut(), fit_alignment(face), 64)
    assert np.abs(face_part(head, 64).astype(int) - expected).mean() < 1
    again = prepare(plan(data, tmp_path / "out", [tmp_path / "more"], heads=True), size=64)
    assert again.written == folders and again.skipped == done.skipped


def test_a_drawing_has_its_face_in_its_head_where_a_photograph_has_it(data: Path, tmp_path: Path) -> None:
    from gnr_video.tracking.alignment import face_part

    out = tmp_path / "out"
    assert "trainB-heads" not in prepare(plan(data, out), size=256).written
    assert prepare(plan(data, out, heads=True), size=256).written["trainB-heads"] == 1
    face, head = (read_image(out / name / "drawing.png") for name in ("trainB", "trainB-heads"))
    assert head.shape == (320, 320, 3)
    assert (face_part(head, 256) == face).all()
    # A few rows above the drawing are its border's; the rest of it goes on.
    assert (head[:12, 160] == head[0, 160]).all() and head[20, 160, 0] < head[50, 160, 0] < face[0, 128, 0]


def test_bad_folders(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder trainA"):
        plan(tmp_path / "absent", tmp_path / "out")
    with pytest.raises(InputError, match="written over"):
        plan(data, data)
    with pytest.raises(InputError, match="same name"):
        plan(data, tmp_path / "out", [data / "trainA"])
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make"):
        prepare(plan(data, tmp_path / "file"))
