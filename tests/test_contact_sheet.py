"""Contact sheets: layout, labels, and frames of two videos at the same times. Device: CPU."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from engines.errors import InputError, OutputError
from gnr_video.contact_sheet import before_after_sheet, contact_sheet, frames_at, save_png


def plain(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def write_video(path: Path, times_ms: list[int], size: tuple[int, int] = (64, 48)) -> Path:
    """Frame i is a grey of 20 + 10 i and is shown from times_ms[i] on (losslessly coded)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=25, options={"qp": "0"})
        stream.width, stream.height = size
        stream.pix_fmt = "rgb24"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for i, t in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(plain(size[1], size[0], 20 + 10 * i), format="rgb24")
            frame.pts, frame.time_base = t, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def shown(images: list[np.ndarray]) -> list[int]:
    return [round((float(image.mean()) - 20) / 10) for image in images]


def test_cells_lie_on_a_grid_with_even_margins():
    rows = [[plain(64, 64, 10), plain(64, 64, 20)], [plain(64, 64, 30)]]
    sheet = contact_sheet(rows, cell=64, pad=8)
    assert sheet.shape == (8 + 2 * 72, 8 + 2 * 72, 3)
    assert (sheet[8:72, 8:72] == 10).all()
    assert (sheet[8:72, 80:144] == 20).all()
    assert (sheet[80:144, 8:72] == 30).all()
    rest = sheet.copy()
    rest[8:72, 8:72] = rest[8:72, 80:144] = rest[80:144, 8:72] = 255
    assert (rest == 255).all()


def test_pictures_keep_their_aspect_ratio():
    sheet = contact_sheet([[plain(100, 200, 10)]], cell=(64, 64), pad=0)
    dark = (sheet == 10).all(axis=2)
    assert dark.sum() == 64 * 32
    assert dark[16:48].all()


def test_labels_leave_the_pictures_alone_and_are_drawn():
    rows = [[plain(96, 96, 10)] * 3, [plain(96, 96, 200)] * 3]
    bare = contact_sheet(rows, cell=96)
    sheet = contact_sheet(
        rows, row_labels=["before", "after"], column_labels=["0.0 s", "1.0 s", "2.0 s"], title="Demo", cell=96
    )
    assert sheet.shape[0] > bare.shape[0]
    assert sheet.shape[1] > bare.shape[1]
    height, width = bare.shape[:2]
    np.testing.assert_array_equal(sheet[-(height - 8) :, -(width - 8) :], bare[8:, 8:])
    assert sheet[: -(height - 8)].min() < 100, "the column labels are dark"
    assert sheet[-(height - 8) :, : -(width - 8)].min() < 100, "the row labels are dark"
    border = np.concatenate([sheet[:, 0].ravel(), sheet[:, -1].ravel(), sheet[0].ravel(), sheet[-1].ravel()])
    assert (border == 255).all(), "nothing is cut off at the border"


def test_long_and_foreign_labels_stay_in_their_column():
    images = [[plain(64, 64, 128)] * 2]
    sheet = contact_sheet(
        images, column_labels=["a label much longer than its cell", "日本語"], cell=64, pad=8
    )
    gap = sheet[:, 8 + 64 + 1 : 8 + 64 + 7]
    assert (gap == 255).all()
    assert sheet.shape[1] == 8 + 2 * 72


def test_dark_sheets_have_light_text():
    sheet = contact_sheet([[plain(64, 64, 0)]], title="Styles", dark=True, cell=256)
    assert sheet[0, 0].max() < 50
    assert sheet[:32].max() > 150


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {}, "at least one"),
        ([[]], {}, "at least one"),
        ([[plain(4, 4, 0)]], {"row_labels": ["a", "b"]}, "2 row labels for 1 rows"),
        ([[plain(4, 4, 0)]], {"column_labels": []}, "0 column labels for 1 columns"),
        ([[np.zeros((4, 4, 3))]], {}, "uint8"),
        ([[np.zeros((0, 4, 3), np.uint8)]], {}, "uint8"),
    ],
)
def test_bad_grids_are_named(rows, options, message):
    with pytest.raises(ValueError, match=message):
        contact_sheet(rows, **options)


def test_png_comes_back_bit_for_bit(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    file = save_png(tmp_path / "sheet.png", image)
    np.testing.assert_array_equal(cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB), image)
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(OutputError):
        save_png(tmp_path / "missing" / "sheet.png", image)


def test_frames_are_those_on_the_screen_at_the_time(tmp_path):
    # Variable frame rate, and a first frame that is not at zero.
    file = write_video(tmp_path / "vfr.mkv", [500, 540, 700, 1500])
    assert shown(frames_at(file, [0.0, 0.03, 0.04, 0.1, 0.2, 0.99, 1.0, 9.0])) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert frames_at(file, []) == []


def test_before_after_takes_the_same_times_of_both(tmp_path):
    times = [40 * i for i in range(20)]
    before = write_video(tmp_path / "before.mkv", times)
    after = write_video(tmp_path / "after.mkv", times, size=(128, 48))
    file = before_after_sheet(before, after, tmp_path / "sheet.png", count=4, width=80)
    sheet = cv2.imread(str(file))
    assert sheet.shape[1] > 4 * 88
    # 0.8 s in four parts: their middles are 0.1, 0.3, 0.5 and 0.7 s.
    x = [sheet.shape[1] - 88 * (4 - i) + 40 for i in range(4)]
    y_after = sheet.shape[0] - 8 - 30
    y_before = y_after - 68
    for i, frame in enumerate((2, 7, 12, 17)):
        assert abs(int(sheet[y_before, x[i], 1]) - (20 + 10 * frame)) <= 1
        assert abs(int(sheet[y_after, x[i], 1]) - (20 + 10 * frame)) <= 1


def test_unreadable_videos_are_named(tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with pytest.raises(InputError, match=r"text\.mp4"):
        frames_at(text, [0.0])
    with pytest.raises(InputError, match=r"missing\.mp4"):
        before_after_sheet(tmp_path / "missing.mp4", text, tmp_path / "sheet.png")
    with pytest.raises(ValueError, match="count"):
        before_after_sheet(text, text, tmp_path / "sheet.png", count=0)
    assert not (tmp_path / "sheet.png").exists()
