"""Colour: the matrices, untagged input, ranges, depths, and tags that match the samples. Device: CPU."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from hypothesis import given, settings
from hypothesis import strategies as st

from gnr_video.media.color import (
    BT709,
    BT2020,
    RANGE_JPEG,
    RANGE_MPEG,
    SMPTE170M,
    ColorTags,
    from_rgb,
    rgb_to_yuv_matrix,
    to_rgb,
    yuv_to_rgb_matrix,
)
from gnr_video.media.open import open_source
from tests.media_helpers import copy, make_clip, picture, read_pictures

# 8-bit samples of full-intensity red, ITU-R BT.601-7 and BT.709-6 at limited range, JFIF at full range.
RED = {
    (SMPTE170M, False): (81, 90, 240),
    (BT709, False): (63, 102, 240),
    (SMPTE170M, True): (76, 85, 255),
    (BT2020, False): (74, 97, 240),
}


@pytest.mark.parametrize(("matrix", "full_range"), RED)
def test_red_is_the_standards_red(matrix: int, full_range: bool) -> None:
    affine = rgb_to_yuv_matrix(matrix, full_range)
    yuv = affine[:, :3] @ np.array([255, 0, 0]) + affine[:, 3]
    assert np.abs(np.minimum(yuv, 255) - RED[matrix, full_range]).max() < 0.6


@settings(deadline=None, max_examples=40)
@given(
    rgb=st.tuples(*[st.integers(0, 255)] * 3),
    matrix=st.sampled_from([1, 4, 5, 6, 7, 9]),
    full_range=st.booleans(),
)
def test_matrices_are_inverse(rgb: tuple[int, int, int], matrix: int, full_range: bool) -> None:
    there, back = rgb_to_yuv_matrix(matrix, full_range), yuv_to_rgb_matrix(matrix, full_range)
    yuv = there[:, :3] @ np.array(rgb) + there[:, 3]
    assert np.abs(back[:, :3] @ yuv + back[:, 3] - rgb).max() < 1e-3


@pytest.mark.parametrize("matrix", [BT709, SMPTE170M, BT2020])
@pytest.mark.parametrize("color_range", [RANGE_MPEG, RANGE_JPEG])
@pytest.mark.parametrize("size", [(64, 48), (33, 21), (16, 16)])
def test_an_untouched_picture_comes_back(matrix: int, color_range: int, size: tuple[int, int]) -> None:
    """YUV -> RGB -> YUV, as for the background of a translated video."""
    tags = ColorTags(color_range, 1, 1, matrix)
    reformatter = VideoReformatter()
    once = from_rgb(picture(*size), tags)
    again = from_rgb(to_rgb(once, reformatter), tags)
    for before, after in zip(once.planes, again.planes):
        a, b = (
            np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[:, : p.width].astype(int)
            for p in (before, after)
        )
        assert np.abs(a - b).mean() < 0.2
        assert abs((a - b).mean()) < 0.1, "a bias darkens or tints the background"


@pytest.mark.parametrize(
    "pix_fmt",
    ["yuv420p", "nv12", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "p010le", "gbrp", "bgra"],
)
@pytest.mark.parametrize("matrix", [BT709, SMPTE170M])
def test_pixel_formats_agree(pix_fmt: str, matrix: int) -> None:
    """A flat colour is the same RGB in every layout and depth."""
    tags = ColorTags(RANGE_MPEG, 1, 1, matrix)
    color = (200, 90, 40)
    frame = from_rgb(np.full((48, 64, 3), color, np.uint8), tags)
    code = {SMPTE170M: 5}.get(matrix, matrix)
    other = frame.reformat(
        format=pix_fmt,
        src_colorspace=code,
        dst_colorspace=code,
        src_color_range=1,
        dst_color_range=2 if pix_fmt in ("gbrp", "bgra") else 1,
    )
    result = to_rgb(other, VideoReformatter())
    assert np.abs(result.astype(int) - color).max() <= 3


@pytest.mark.parametrize("size", [(64, 48), (62, 46), (33, 21), (1920, 1080)])
@pytest.mark.parametrize("color_range", [RANGE_MPEG, RANGE_JPEG])
def test_nv12_is_yuv420p_to_the_bit(size: tuple[int, int], color_range: int) -> None:
    """Cameras and hardware decoders give it: the same samples, chromas in turns."""
    planar = from_rgb(picture(*size), ColorTags(color_range, 1, 1, BT709))
    interleaved = planar.reformat(format="nv12", src_color_range=color_range, dst_color_range=color_range)
    reformatter = VideoReformatter()
    assert np.array_equal(to_rgb(interleaved, reformatter), to_rgb(planar, reformatter))


def test_untagged_is_guessed_by_height() -> None:
    assert ColorTags().resolved(1080) == ColorTags(RANGE_MPEG, BT709, BT709, BT709)
    assert ColorTags().resolved(720).matrix == BT709
    assert ColorTags().resolved(480) == ColorTags(RANGE_MPEG, SMPTE170M, SMPTE170M, SMPTE170M)
    assert ColorTags(RANGE_JPEG, 12, 13, 1).resolved(480) == ColorTags(RANGE_JPEG, 12, 13, 1)
    assert ColorTags(primaries=9, transfer=16).resolved(480).matrix == BT2020


@pytest.mark.parametrize(
    ("tags", "size"),
    [
        ((1, 1, 1, 1), (64, 48)),
        ((1, 6, 6, 6), (64, 48)),
        ((2, 1, 1, 1), (64, 48)),
        ((1, 9, 16, 9), (64, 48)),
        (None, (64, 48)),
        (None, (32, 720)),
    ],
)
@pytest.mark.parametrize("extension", ["mp4", "mkv", "webm"])
def test_output_tags_and_colors(
    tmp_path: Path, tags: tuple[int, int, int, int] | None, size: tuple[int, int], extension: str
) -> None:
    default = (1, 6, 6, 6) if size[1] < 720 else (1, 1, 1, 1)
    image = np.full((size[1], size[0], 3), (200, 90, 40), np.uint8)
    clip = make_clip(tmp_path / "a.mp4", size=size, pts=range(3), tags=tags or default, images=[image])
    if tags is None:
        clip = make_clip(tmp_path / "a.mp4", size=size, pts=range(3), images=[image])
    target = tmp_path / f"b.{extension}"
    copy(clip, target)
    with av.open(str(target)) as container:
        frame = next(container.decode(video=0))
        found = (frame.color_range, frame.color_primaries, frame.color_trc, frame.colorspace)
    assert found == (tags or default)
    for before, after in zip(read_pictures(clip), read_pictures(target)):
        assert np.abs(before.astype(int) - after).max() <= 4


def test_10_bit_input(tmp_path: Path) -> None:
    image = np.full((48, 64, 3), (200, 90, 40), np.uint8)
    clip = make_clip(
        tmp_path / "a.mkv",
        codec="libx265",
        pix_fmt="yuv420p10le",
        tags=(1, 1, 1, 1),
        images=[image],
        pts=range(3),
        options={"x265-params": "log-level=none"},
    )
    with open_source(clip) as source:
        assert source.info.pix_fmt == "yuv420p10le"
        assert all(np.abs(f.image.astype(int) - image).max() <= 4 for f in source)
        assert source.warnings == []


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_warns(tmp_path: Path, transfer: int) -> None:
    clip = make_clip(tmp_path / "a.mp4", pts=range(3), tags=(1, 9, transfer, 9))
    with open_source(clip) as source:
        assert source.info.color.is_hdr
        assert "HDR" in source.warnings[0]


def test_gif_becomes_limited_range_video(tmp_path: Path) -> None:
    copy(make_clip(tmp_path / "a.mp4"), tmp_path / "a.gif")
    copy(tmp_path / "a.gif", tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.color_range, frame.colorspace) == (RANGE_MPEG, SMPTE170M)
    for before, after in zip(read_pictures(tmp_path / "a.gif"), read_pictures(tmp_path / "b.mp4")):
        assert np.abs(before.astype(int) - after).mean() < 10


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (45, 33), (360, 640)])
def test_chroma_is_doubled_to_the_nearest(shape):
    import cv2

    from gnr_video.media.color import _doubled

    plane = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    nearest = cv2.resize(plane, (2 * shape[1], 2 * shape[0]), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(_doubled(plane), nearest)


@pytest.mark.parametrize(
    ("tagged", "expected"), [(1, [0, 128, 255]), (2, [16, 126, 235]), (0, [16, 126, 235])]
)
def test_grey_has_the_levels_that_its_range_says(tagged: int, expected: list[int]) -> None:
    frame = av.VideoFrame.from_ndarray(np.array([[16, 126, 235, 16]] * 4, np.uint8), "gray")
    frame.color_range = tagged
    image = to_rgb(frame, av.video.reformatter.VideoReformatter())
    assert image[0, :3, 0].tolist() == expected
    assert (image == image[..., :1]).all()
