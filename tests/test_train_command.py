"""`gnr-video train`: from folders of images to a weights file that the run-time runs. Device: CPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from cli import command
from gnr_video.translator import Translator


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder, level in (("trainA", 90), ("trainB", 180)):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for i in range(6):
            image = np.clip(rng.normal(level, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(tmp_path / "data" / folder / f"{i}.png"), image)
    (tmp_path / "data" / "trainA" / "broken.png").write_bytes(b"not a picture")
    return tmp_path / "data"


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(command, ["train", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.mark.slow
def test_trains_stops_and_goes_on(tmp_path, data, monkeypatch, caplog):
    # No trunk: the LPIPS term is left out, and that is said.
    monkeypatch.setenv("GNR_VIDEO_LPIPS_TRUNK", str(tmp_path / "nothing"))
    out = tmp_path / "run"
    code, text = run(data, "--recipe", "tiny", "-o", out, "--steps", 4, "--log-every", 2, "--device", "cpu")
    assert code == 0, text
    assert "skipped 1 of 7 images" in caplog.text
    assert "broken.png" in caplog.text
    assert "6 faces, 6 anime pictures" in text
    assert "step 4/4" in text
    code, text = run(data, "--recipe", "tiny", "-o", out, "--steps", 14, "--log-every", 2, "--device", "cpu")
    assert code == 0, text
    assert "goes on from step 4" in text
    assert "32px" in text  # it has grown
    assert list((out / "tensorboard").iterdir())
    with Translator(out / "weights.safetensors", 7) as translator:
        picture = translator.translate_face(np.full((32, 32, 3), 99, np.uint8))
    assert picture.shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such data set folder"),
        (["{data}", "--recipe", "huge"], "no recipe 'huge'"),
        (["{data}/trainB"], "trainA"),
        (["{data}", "--from", "default", "--recipe", "tiny"], "'tiny' trains both directions"),
        (["{data}", "--from", "official.pt", "--recipe", "cpu"], "official.pt"),
        (["{data}", "--set", "loss.nothing=1"], "no setting 'loss.nothing'"),
        (["{data}", "--set", "ema=high"], "cannot set 'ema=high'"),
        (["{data}", "--recipe", "tiny", "--batch", "3"], "batch 3 does not hold 2 images twice"),
        (["{one}", "--recipe", "tiny"], "trainB has a single image"),
        (["{empty}", "--recipe", "tiny"], "no images in"),
    ],
)
def test_says_what_is_wrong(data, tmp_path, arguments, message):
    one, empty = tmp_path / "one", tmp_path / "empty"
    shutil.copytree(data, one)
    for extra in list((one / "trainB").iterdir())[1:]:
        extra.unlink()
    shutil.copytree(data, empty)
    shutil.rmtree(empty / "trainB")
    (empty / "trainB").mkdir()
    arguments = [a.format(data=data, one=one, empty=empty) for a in arguments]
    code, text = run(*arguments, "-o", tmp_path / "run")
    assert code != 0
    assert message in text
    assert "Traceback" not in text
