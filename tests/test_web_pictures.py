"""Pictures as pages send and get them: JPEG there and back, sizes by the header. Device: none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gnr_video.media.images import decode_jpeg, encode_jpeg, even
from gnr_video.web.measure import picture_size
from tests.media_helpers import picture


class TestPictures:
    def test_jpeg_there_and_back(self) -> None:
        image = picture(64, 48)
        back = decode_jpeg(encode_jpeg(image))
        assert back is not None
        assert np.abs(back.astype(int) - image).mean() < 6

    @pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".bmp"])
    @pytest.mark.parametrize("size", [(64, 48), (300, 1001)])
    def test_measured_by_the_header(self, extension: str, size: tuple[int, int]) -> None:
        done, data = cv2.imencode(extension, picture(*size))
        assert done and picture_size(data.tobytes()[:4096]) == size
        assert picture_size(data.tobytes()[:12]) is None

    def test_webp_of_every_kind(self) -> None:
        for quality in (50, 101):  # lossy, and without loss
            _, data = cv2.imencode(".webp", picture(70, 31), [cv2.IMWRITE_WEBP_QUALITY, quality])
            assert picture_size(data.tobytes()) == (70, 31)

    @pytest.mark.parametrize("data", [b"", b"nonsense", b"\xff\xd8\xff"])
    def test_what_is_no_jpeg(self, data: bytes) -> None:
        assert decode_jpeg(data) is None

    def test_even(self) -> None:
        assert even(picture(33, 21)).shape == (20, 32, 3)
