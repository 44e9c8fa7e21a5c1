"""Pixels that are not square: frames come in square ones, every output has the right shape. Device: none."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from gnr_video.frame import Image
from gnr_video.media.open import open_sink, open_source
from gnr_video.media.stream_facts import square_size
from tests.media_helpers import copy, make_clip, set_display_matrix


def disc(width: int, height: int, aspect: Fraction) -> Image:
    """A white disc that is round where pixels have that aspect."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    away = np.hypot((x - width / 2) * float(aspect), y - height / 2)
    return np.repeat(np.where(away < min(height, width * aspect) / 3, 235, 20)[..., None], 3, 2).astype(
        np.uint8
    )


def oblong(path: Path, aspect: Fraction, size: tuple[int, int] = (180, 144)) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"bf": "0", "crf": "5"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for index in range(4):
            frame = av.VideoFrame.from_ndarray(disc(*size, aspect), "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def roundness(image: Image) -> float:
    """Width over height of what is bright."""
    bright = image[..., 1] > 128
    return float(np.ptp(np.nonzero(bright.any(0))) / np.ptp(np.nonzero(bright.any(1))))


@pytest.mark.parametrize("aspect", [Fraction(64, 45), Fraction(4, 3), Fraction(10, 11), Fraction(1, 2)])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".gif"])
def test_every_output_has_the_right_shape(tmp_path: Path, aspect: Fraction, suffix: str) -> None:
    clip = oblong(tmp_path / "a.mp4", aspect)
    with open_source(clip) as source:
        image = next(iter(source)).image
    assert roundness(image) == pytest.approx(1, abs=0.03)
    assert min(image.shape[1] / 180, image.shape[0] / 144) == 1, "no pixel is lost"
    copy(clip, tmp_path / f"b{suffix}")
    with av.open(str(tmp_path / f"b{suffix}")) as made:
        stream = made.streams.video[0]
        if suffix not in (".gif", ".webm"):
            assert (stream.width, stream.height) == (180, 144)
            assert stream.sample_aspect_ratio == aspect
        else:
            assert (stream.height, stream.width) == image.shape[:2]
    with open_source(tmp_path / f"b{suffix}") as again:
        shown = next(iter(again)).image
    assert shown.shape == image.shape
    assert roundness(shown) == pytest.approx(1, abs=0.03)
    assert np.abs(shown.astype(int) - image).mean() < 4


def shown_as(path: Path, width: int, height: int, unit: int) -> Path:
    """A webm that says how large it is to be shown, in pixels (0) or as a ratio (3); in the place of its colours."""
    data = bytearray(path.read_bytes())
    at = data.index(b"\x55\xb0")
    room = data[at + 2] & 0x7F
    said = b"\x54\xb0\x82" + width.to_bytes(2, "big") + b"\x54\xba\x82" + height.to_bytes(2, "big")
    said += b"\x54\xb2\x81" + bytes([unit])
    rest = 3 + room - len(said) - 2
    data[at : at + 3 + room] = said + b"\xec" + bytes([0x80 | rest]) + bytes(rest)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("width", "height", "unit"), [(240, 144, 0), (180, 108, 0), (5, 3, 3), (180, 144, 0), (0, 144, 0)]
)
def test_what_webm_says_of_its_size(tmp_path: Path, width: int, height: int, unit: int) -> None:
    """DisplayWidth and DisplayHeight are the shape: larger, smaller, a ratio. Without them pixels are square."""
    aspect = Fraction(width * 144, height * 180) if width else Fraction(1)
    images = [disc(180, 144, aspect)]
    make_clip(
        tmp_path / "a.webm",
        size=(180, 144),
        codec="libvpx-vp9",
        images=images,
        pts=range(2),
        tags=(1, 6, 6, 6),
    )
    clip = shown_as(tmp_path / "a.webm", width, height, unit)
    with open_source(clip) as source:
        image = next(iter(source)).image
        assert source.info.sample_aspect_ratio == aspect
    for suffix in (".webm", ".mkv", ".mp4"):
        copy(clip, tmp_path / f"b{suffix}")
        with open_source(tmp_path / f"b{suffix}") as again:
            shown = next(iter(again)).image
        assert shown.shape == image.shape == (144, 240 if aspect > 1 else 180, 3)
        assert roundness(shown) == pytest.approx(1, abs=0.03)


def test_turned(tmp_path: Path) -> None:
    clip = oblong(tmp_path / "a.mp4", Fraction(4, 3))
    set_display_matrix(clip, 0, 1, -1, 0)
    copy(clip, tmp_path / "b.mp4")
    for name in ("a.mp4", "b.mp4"):
        with open_source(tmp_path / name) as source:
            image = next(iter(source)).image
            assert image.shape == (240, 144, 3)
            assert source.info.stored == (144, 180)
            assert source.info.sample_aspect_ratio == Fraction(3, 4)
        assert roundness(image) == pytest.approx(1, abs=0.03)


def test_pictures_and_other_sizes_are_square(tmp_path: Path) -> None:
    clip = oblong(tmp_path / "a.mp4", Fraction(4, 3))
    copy(clip, tmp_path / "out-%d.png")
    assert roundness(cv2.imread(str(tmp_path / "out-0.png"))) == pytest.approx(1, abs=0.03)
    with open_source(clip) as source:
        frame = next(iter(source))
        wide = np.hstack([frame.image, frame.image])
        with open_sink(tmp_path / "b.mp4", source, size=(wide.shape[1], wide.shape[0])) as sink:
            sink.write(type(frame)(wide, frame.pts, frame.time_base, frame.index))
    with av.open(str(tmp_path / "b.mp4")) as made:
        stream = made.streams.video[0]
        assert (stream.width, stream.height) == (480, 144)
        assert stream.sample_aspect_ratio in (None, 1)


def test_nonsense_is_square() -> None:
    assert square_size((720, 576), Fraction(1)) == (720, 576)
    assert square_size((1920, 1080), Fraction(1281, 1280)) == (1920, 1080)
    assert square_size((720, 480), Fraction(8, 9)) == (720, 540)
