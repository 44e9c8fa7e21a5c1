"""Interlaced pictures are deinterlaced and said, or left and flagged. Device: none."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from gnr_video.frame import Image
from gnr_video.media.deinterlace import FieldFlags, first_field
from gnr_video.media.open import open_source
from tests.media_helpers import copy, frame_times, make_clip

SIZE = (160, 96)


def field(moment: int) -> Image:
    """A dark bar that moves four pixels from field to field."""
    image = np.full((SIZE[1], SIZE[0], 3), 200, np.uint8)
    image[:, 4 * moment + 8 : 4 * moment + 40] = 30
    return image


def woven(index: int, first: str) -> Image:
    """Two moments in one picture, line by line."""
    early, late = field(2 * index), field(2 * index + 1)
    image = early.copy()
    rows = slice(1, None, 2) if first == "top" else slice(0, None, 2)
    image[rows] = late[rows]
    return image


def interlaced(path: Path, first: str = "top", count: int = 10) -> Path:
    images = [woven(index, first) for index in range(count)]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"x264-params": "tff=1", "crf": "4"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        flags = FieldFlags(first, Fraction(1, 30))
        for index, image in enumerate(images):
            picture = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
            picture.pts, picture.time_base = index, Fraction(1, 30)
            out.mux(stream.encode(flags.put(picture)))
        out.mux(stream.encode(None))
    return path


def combs(image: Image) -> float:
    """How much lines differ from both of their neighbours in the same way."""
    rows = image[..., 1].astype(int)
    up, down = rows[1:-1] - rows[:-2], rows[1:-1] - rows[2:]
    return float(np.minimum(np.abs(up), np.abs(down))[np.sign(up) == np.sign(down)].sum() / rows.size)


def pictures(path: Path, **options: bool) -> list[Image]:
    with open_source(path, **options) as source:
        return [frame.image for frame in source]


@pytest.mark.parametrize("first", ["top", "bottom"])
def test_combs_go_and_times_stay(tmp_path: Path, first: str) -> None:
    clip = interlaced(tmp_path / "a.mp4", first)
    source, _ = copy(clip, tmp_path / "b.mp4")
    assert any("interlaced" in text for text in source.warnings)
    assert frame_times(tmp_path / "b.mp4") == frame_times(clip)
    assert max(combs(image) for image in pictures(tmp_path / "b.mp4")[1:-1]) < 2
    assert min(combs(image) for image in pictures(clip, keep_fields=True)[1:-1]) > 5


@pytest.mark.parametrize("first", ["top", "bottom"])
def test_kept_and_flagged(tmp_path: Path, first: str) -> None:
    clip = interlaced(tmp_path / "a.mp4", first)
    with open_source(clip, keep_fields=True) as source:
        assert source.info.fields == first
    from gnr_video.media.open import open_sink

    with (
        open_source(clip, keep_fields=True) as source,
        open_sink(tmp_path / "b.mp4", source) as sink,
    ):
        for frame in source:
            sink.write(frame)
    assert not source.warnings and not sink.warnings
    with av.open(str(tmp_path / "b.mp4")) as made:
        for frame in made.decode(video=0):
            assert frame.interlaced_frame
            assert first_field(frame) == first
    for before, after in zip(
        pictures(clip, keep_fields=True), pictures(tmp_path / "b.mp4", keep_fields=True)
    ):
        assert np.abs(before.astype(int) - after).mean() < 2


def test_whole_pictures_are_left_alone(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", size=SIZE)
    with open_source(clip) as source, av.open(str(clip)) as plain:
        for frame, expected in zip(source, plain.decode(video=0), strict=True):
            assert np.abs(frame.image.astype(int) - expected.to_ndarray(format="rgb24")).mean() < 2
        assert not source.warnings


def test_flags_that_begin_in_the_middle(tmp_path: Path) -> None:
    """Two recordings, the second interlaced: no frame is lost, none is out of order."""
    make_clip(tmp_path / "a.ts", size=SIZE, pts=range(10))
    interlaced(tmp_path / "b.ts")
    (tmp_path / "c.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    with open_source(tmp_path / "c.ts") as source:
        times = [frame.pts for frame in source]
    assert len(times) == 20
    assert times == sorted(set(times))
