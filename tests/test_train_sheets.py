"""Sample sheets: where each image lands, value ranges, and that a PNG appears whole or not at all. CPU."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engines.errors import OutputError
from train.sheets import sample_sheet, save_png, to_image


def flat(value: int, size: int = 8) -> torch.Tensor:
    return torch.full((3, size, size), value, dtype=torch.uint8)


def test_grid_places_every_image() -> None:
    sheet = sample_sheet([[flat(10), flat(20)], torch.stack([flat(30), flat(40)])], gap=2)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (22, 22, 3)
    for (top, left), value in {(2, 2): 10, (2, 12): 20, (12, 2): 30, (12, 12): 40}.items():
        assert (sheet[top : top + 8, left : left + 8] == value).all()
    gaps = np.ones((22, 22), bool)
    gaps[2:10, 2:10] = gaps[2:10, 12:20] = gaps[12:20, 2:10] = gaps[12:20, 12:20] = False
    assert (sheet[gaps] == 255).all()


def test_uint8_and_float_mean_the_same() -> None:
    levels = torch.arange(192, dtype=torch.uint8).view(3, 8, 8)
    assert (to_image(levels / 127.5 - 1) == to_image(levels)).all()
    assert (to_image(levels) == levels.permute(1, 2, 0).numpy()).all()
    assert to_image((levels / 127.5 - 1).requires_grad_().bfloat16()).shape == (8, 8, 3)


def test_overflow_is_clipped_and_nan_is_black() -> None:
    values = torch.tensor([-3.0, 3.0, float("nan"), float("inf")]).expand(3, 1, 4)
    assert to_image(values)[0, :, 0].tolist() == [0, 255, 0, 0]


def test_rows_of_unequal_length_and_size() -> None:
    sheet = sample_sheet([[flat(10, 4), flat(20)], [flat(30)]], gap=0)
    assert sheet.shape == (16, 16, 3)
    assert (sheet[:8, :8] == 10).all(), "enlarged to its cell"
    assert (sheet[8:, 8:] == 255).all(), "blank"


def test_labels_stay_in_their_column() -> None:
    rows = [[flat(0, 32), flat(0, 32), flat(0, 32)]]
    sheet = sample_sheet(rows, ["input", "", "a label longer than the column"], gap=2)
    plain = sample_sheet(rows, gap=2)
    header = sheet[: sheet.shape[0] - plain.shape[0]]
    assert (sheet[len(header) :] == plain).all()
    assert (header[:, 2:34] < 128).any()
    assert (header[:, 34:70] == 255).all()
    assert (header[:, 70:] < 128).any()


def test_nothing_to_show_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        sample_sheet([])
    with pytest.raises(ValueError, match="got"):
        sample_sheet([[torch.zeros(1, 8, 8)]])


def test_png_round_trip_in_a_new_folder(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    path = tmp_path / "new" / "sheet.png"
    save_png(image, path)
    save_png(image, path)  # replaces
    assert (cv2.imread(str(path))[:, :, ::-1] == image).all()
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]


def test_unwritable_png_leaves_nothing_behind(tmp_path: Path) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    target = tmp_path / "sheet.png"
    target.mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*sheet\.png"):
        save_png(image, target)
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        save_png(image, tmp_path / "file" / "sheet.png")
