"""Rotation and mirroring from the display matrix come before anything else sees a frame. Device: CPU."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gnr_video.frame import Image
from gnr_video.media.open import open_source
from gnr_video.media.orientation import Orientation
from tests.media_helpers import copy, make_clip, read_pictures, set_display_matrix

# (a, b, c, d): a pixel (x, y) is shown at (a x + c y, b x + d y), y down.
MATRICES = {
    "upright": (1, 0, 0, 1),
    "90 clockwise": (0, 1, -1, 0),
    "180": (-1, 0, 0, -1),
    "270 clockwise": (0, -1, 1, 0),
    "mirrored left-right": (-1, 0, 0, 1),
    "mirrored top-bottom": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transversed": (0, -1, -1, 0),
}


def shown(image: Image, a: int, b: int, c: int, d: int) -> Image:
    """The picture moved pixel by pixel, as the definition of the display matrix says."""
    height, width = image.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    new_x, new_y = a * x + c * y, b * x + d * y
    new_x, new_y = new_x - new_x.min(), new_y - new_y.min()
    result = np.empty((new_y.max() + 1, new_x.max() + 1, 3), np.uint8)
    result[new_y, new_x] = image
    return result


def corners(width: int, height: int) -> Image:
    image = np.full((height, width, 3), 128, np.uint8)
    image[: height // 2, : width // 2] = (200, 60, 60)
    image[: height // 2, width // 2 :] = (60, 200, 60)
    image[height // 2 :, : width // 2] = (60, 60, 200)
    return image


@pytest.mark.parametrize("name", MATRICES)
def test_orientation_is_the_display_matrix(name: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    scaled = [v << 16 for v in MATRICES[name]]
    a, b, c, d = scaled
    result = Orientation.from_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30]).apply(image)
    assert np.array_equal(result, shown(image, *MATRICES[name]))
    assert result.flags.c_contiguous


@pytest.mark.parametrize("clockwise", [0, 90, 180, 270, -90])
def test_orientation_from_an_angle(clockwise: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    orientation = Orientation.from_rotation(clockwise)
    assert np.array_equal(orientation.apply(image), np.rot90(image, -clockwise // 90))
    assert orientation.rotation == clockwise % 360


@pytest.mark.parametrize("name", MATRICES)
def test_frames_are_upright(tmp_path: Path, name: str) -> None:
    image = corners(64, 32)
    clip = make_clip(tmp_path / "a.mp4", size=(64, 32), pts=range(3), images=[image], options={"crf": "5"})
    set_display_matrix(clip, *MATRICES[name])
    expected = shown(image, *MATRICES[name])
    with open_source(clip) as source:
        assert source.info.size == (expected.shape[1], expected.shape[0])
        frames = list(source)
    assert len(frames) == 3
    for frame in frames:
        assert frame.size == source.info.size
        assert np.abs(frame.image.astype(int) - expected).mean() < 6


def test_the_output_is_upright_without_metadata(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", size=(64, 32), images=[corners(64, 32)], options={"crf": "5"})
    set_display_matrix(clip, *MATRICES["90 clockwise"])
    copy(clip, tmp_path / "b.mp4")
    with open_source(tmp_path / "b.mp4") as source:
        assert (source.info.size, source.info.rotation) == ((32, 64), 0)
    for before, after in zip(read_pictures(clip), read_pictures(tmp_path / "b.mp4")):
        assert np.abs(before.astype(int) - after).mean() < 3


def test_exif_orientation_of_a_photograph(tmp_path: Path) -> None:
    image = corners(40, 24)
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    assert done
    # Minimal EXIF block: orientation (0x0112) = 6, "turn clockwise by 90 degrees".
    tiff = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + b"\0\0\0\0"
    block = b"Exif\0\0" + tiff
    jpeg = data.tobytes()
    (tmp_path / "a.jpg").write_bytes(
        jpeg[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + jpeg[2:]
    )
    (result,) = read_pictures(tmp_path / "a.jpg")
    assert result.shape == (40, 24, 3)
    assert np.abs(result.astype(int) - np.rot90(image, -1)).mean() < 8
