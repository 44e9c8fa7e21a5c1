"""Inputs that are not what they seem: one clear line, or as much as can be saved. Device: CPU."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import pytest

from engines.errors import InputError
from gnr_video.media.open import open_source
from tests.media_helpers import copy, frame_times, make_clip, picture, read_pictures, sound_only


def refused(path: Path | str, match: str) -> InputError:
    with pytest.raises(InputError, match=match) as caught:
        open_source(path)
    error = caught.value
    assert "\n" not in str(error)
    assert error.hint
    assert error.exit_code == 3
    return error


def test_missing(tmp_path: Path) -> None:
    make_clip(tmp_path / "clip.mp4")
    assert "clip.mp4" in refused(tmp_path / "clipp.mp4", "no such file").hint
    refused(tmp_path / "no" / "folder.mp4", "no such file")


def test_zero_length(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.png"):
        (tmp_path / name).touch()
        refused(tmp_path / name, "empty")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.txt", "a.gif", "a"])
def test_text_with_the_name_of_a_video(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("This is no video.\n" * 200)
    refused(tmp_path / name, "not a video|no video stream|not an image")


def test_text_with_the_name_of_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("This is no image.\n")
    refused(tmp_path / "a.png", "not an image")


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no image")
    refused(tmp_path, "has no images")


def test_truncated_before_its_index(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", pts=range(60))
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    assert "moov" in refused(clip, "not a video .* or is cut off").hint


def test_truncated_after_its_index(tmp_path: Path) -> None:
    clip = make_clip(
        tmp_path / "a.mp4", pts=range(60), size=(320, 240), muxer_options={"movflags": "+faststart"}
    )
    clip.write_bytes(clip.read_bytes()[: int(clip.stat().st_size * 0.6)])
    with open_source(clip) as source:
        frames = list(source)
    assert 5 < len(frames) < 60
    assert any("ends early" in w or "cannot be read to its end" in w for w in source.warnings)


def test_truncated_mkv(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mkv", pts=range(60), size=(320, 240), audio="aac")
    clip.write_bytes(clip.read_bytes()[: int(clip.stat().st_size * 0.6)])
    copy(clip, tmp_path / "b.mp4")
    assert 5 < len(frame_times(tmp_path / "b.mp4")) < 60


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
def test_damaged_in_the_middle(tmp_path: Path, extension: str) -> None:
    """Frames before and after the holes are there, times increase, and the user is told."""
    clip = make_clip(
        tmp_path / f"a.{extension}", pts=range(60), size=(320, 240), options={"g": "10"},
        muxer_options={"movflags": "+faststart"} if extension == "mp4" else None,
    )  # fmt: skip
    data = bytearray(clip.read_bytes())
    for hole in (0.35, 0.5, 0.65):
        start = int(len(data) * hole)
        data[start : start + 1000] = bytes(1000)
    clip.write_bytes(data)
    with open_source(clip) as source:
        times = [f.pts * f.time_base for f in source]
    assert len(times) > 30
    assert times == sorted(set(times))
    assert times[-1] > 1.5
    assert source.warnings
    copy(clip, tmp_path / "b.mp4")
    assert frame_times(tmp_path / "b.mp4") == times


def test_random_damage_never_hangs_or_escapes(tmp_path: Path) -> None:
    import numpy as np

    whole = make_clip(tmp_path / "a.mp4", pts=range(20), audio="aac").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(25):
        data = bytearray(whole)
        for _ in range(20):
            data[random.integers(len(data))] = random.integers(256)
        (tmp_path / "b.mp4").write_bytes(data)
        try:
            with open_source(tmp_path / "b.mp4") as source:
                assert sum(1 for _ in source) <= 60
        except InputError:
            continue


def test_audio_only(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mkv", audio="aac")
    sound_only(clip, tmp_path / "b.m4a")
    refused(tmp_path / "b.m4a", "no video stream, only audio")


def test_encrypted(tmp_path: Path) -> None:
    """A film with copy protection is not called damaged."""
    key = {"encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    clip = make_clip(tmp_path / "a.mp4", muxer_options={"encryption_scheme": "cenc-aes-ctr", **key})
    refused(clip, "encrypted")


def test_video_without_a_frame(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream = out.add_stream("libx264", rate=30)
        stream.width, stream.height = 64, 48
        out.start_encoding()
    refused(tmp_path / "a.mkv", "no frame|not a video|no video stream")


def test_damaged_image_of_a_folder_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), picture(16, 16))
    (tmp_path / "2.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"2\.png is not an image"):
        read_pictures(tmp_path)


def test_a_change_of_size_is_scaled_and_said(tmp_path: Path) -> None:
    """MPEG-TS files can be joined end to end, as recordings are."""
    for name, size in (("a.ts", (64, 48)), ("b.ts", (96, 64))):
        make_clip(tmp_path / name, size=size, pts=range(10 if name == "a.ts" else 0, 20), codec="mpeg2video")
    (tmp_path / "c.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    with open_source(tmp_path / "c.ts") as source:
        sizes, times = zip(*[(f.size, f.pts) for f in source])
    assert set(sizes) == {(64, 48)}
    assert len(sizes) > 20
    assert list(times) == sorted(set(times))
    assert any("picture size changes to 96x64" in w for w in source.warnings)


def test_unknown_protocol() -> None:
    refused("nonsense://example.com/a.mp4", "no such protocol")


def test_unreachable_address() -> None:
    refused("http://127.0.0.1:9/a.mp4", "cannot open http")
