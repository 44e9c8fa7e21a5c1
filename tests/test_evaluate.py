"""`gnr-video evaluate`: from folders and weights to a table and JSON; bad folders. Device: CPU."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from skimage.data import astronaut

import engines
from cli import command
from engines.weights import load_weights
from tests.test_lpips import random_trunk
from tests.tiny_weights import make_tiny_weights
from train.lpips import Lpips
from train.metrics.estimate import Estimate
from train.metrics.evaluate import METRICS, Evaluator, Networks, Result, Settings, format_table
from train.metrics.features import TrunkSpace
from train.metrics.pictures import Folder

pytest.importorskip("PIL", reason="reading folders of pictures needs Pillow")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trunks look at 64 pixels instead of 224, which take twelve times as long and change no statement."""
    monkeypatch.setattr(TrunkSpace, "side", 64)


@pytest.fixture(scope="module")
def trunks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG16 and AlexNet with random weights: good enough to tell pictures apart."""
    folder = tmp_path_factory.mktemp("trunks")
    for net in ("vgg", "alex"):
        torch.save({k: v.half() for k, v in random_trunk(net).items()}, folder / f"{net}.pth")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three faces of different sizes, one of them grey, and a file that is none; three drawings."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    picture = astronaut()[:, :, ::-1]
    for name in ("testA", "testB"):
        (folder / name).mkdir()
        for i in range(3):
            size = 60 + 7 * i
            x, y = rng.integers(0, 300, 2)
            crop = cv2.resize(picture[y : y + 200, x : x + 200], (size, size + (i == 1) * 9))
            if name == "testB":
                crop = crop // 64 * 64
            elif i == 2:
                crop = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)
            cv2.imwrite(str(folder / name / f"{i}.png"), crop)
    (folder / "testA" / "broken.png").write_bytes(b"not a picture")
    return folder


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(command, ["evaluate", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.slow
def test_table_and_json(tmp_path, data, tiny, trunks):
    out = tmp_path / "out.json"
    code, table, errors = run(
        data,
        "--weights",
        tiny,
        "--quick",
        "--engine",
        "torch",
        "--lpips-trunk",
        trunks,
        "--json",
        out,
        "--limit",
        6,
    )
    assert code == 0, errors
    report = json.loads(out.read_text())
    (result,) = report["results"]
    quick = {
        "fid_vgg16",
        "kid_vgg16",
        "fid_alexnet",
        "kid_alexnet",
        "lpips_diversity",
        "ms_ssim_diversity",
        "equivariance_db",
    }
    assert quick <= result["metrics"].keys()
    assert result["pictures"] == 3
    assert report["real"]["pictures"] == 3
    assert report["hardware"]["cpu"]
    for key, numbers in result["metrics"].items():
        assert numbers["low"] <= numbers["value"] <= numbers["high"], key
        assert METRICS[key].title in table
    assert "1 of 4 pictures" in errors
    assert "broken.png" in errors
    assert "no FID and KID in Inception's space" in errors


def test_a_folder_against_itself_and_against_others(data, trunks):
    networks = Networks([TrunkSpace("vgg", trunks)], None)
    evaluator = Evaluator(Folder.open(data / "testB"), networks)
    same = evaluator.outputs("same", Folder.open(data / "testB")).metrics
    other = evaluator.outputs("other", Folder.open(data / "testA")).metrics
    assert same["fid_vgg16"].value < 1e-6
    assert other["fid_vgg16"].value > 100 * same["fid_vgg16"].value
    assert "lpips_diversity" not in same


def test_outputs_in_folders_of_one_face_each_have_diversity(tmp_path, data, trunks):
    for face in range(3):
        (tmp_path / str(face)).mkdir()
        for style in range(3):
            picture = np.full((48, 48, 3), 40 + 30 * face + 20 * style * (face > 0), np.uint8)
            cv2.imwrite(str(tmp_path / str(face) / f"{style}.png"), picture)
    networks = Networks([TrunkSpace("vgg", trunks)], None)
    result = Evaluator(Folder.open(data / "testB"), networks).outputs("o", Folder.open(tmp_path))
    assert result.pictures == 9
    assert result.metrics["ms_ssim_diversity"].count == 3
    assert 0.5 < result.metrics["ms_ssim_diversity"].value < 1
    assert result.metrics["fid_vgg16"].low < result.metrics["fid_vgg16"].value


def test_progress_counts_what_was_promised(data, tiny, trunks):
    stages: list[str] = []
    window = astronaut()
    clip = [np.ascontiguousarray(window[:128, 150 + i : 278 + i]) for i in range(3)]
    settings = Settings(
        limit=2,
        styles=2,
        diversity_faces=1,
        diversity_styles=2,
        dfid_faces=1,
        dfid_styles=3,
        moved_faces=2,
        patches=4,
        paths=2,
    )
    evaluator = Evaluator(
        Folder.open(data / "testB"),
        Networks([TrunkSpace("vgg", trunks)], None, Lpips("vgg", trunks)),
        settings,
        advance=stages.append,
    )
    faces = Folder.open(data / "testA", 2)
    weights = load_weights(tiny)
    with engines.create(weights, engine="torch", precision="fp32") as engine:
        result = evaluator.generator("tiny", engine, faces, weights=weights, clips=[clip])
        assert len(stages) == evaluator.units(len(faces), generators=1, clip_frames=3)
        assert result.metrics["dfid_vgg16"].value > 0
        assert result.metrics["path_length"].value > 0
        assert result.metrics["swd"].value > 0
        assert "palette" in result.metrics
        assert result.metrics["warp_error"].count == 2
        assert 0 <= result.metrics["warp_error_source"].value < result.metrics["warp_error"].value
        assert result.metrics["style_drift"].value > 0
        assert result.pictures == 4


def test_the_same_styles_for_every_system_and_run(data, tiny, trunks):
    few = Settings(limit=2, styles=1, diversity_faces=0, dfid_faces=0, moved_faces=1, patches=0, paths=0)
    evaluator = Evaluator(Folder.open(data / "testB", 2), Networks([TrunkSpace("vgg", trunks)], None), few)
    faces = Folder.open(data / "testA", 2)
    with engines.create(load_weights(tiny), engine="torch", precision="fp32") as engine:
        first, second = (evaluator.generator("tiny", engine, faces) for _ in range(2))
    assert first.metrics == second.metrics
    assert list(first.metrics) == ["fid_vgg16", "kid_vgg16", "palette", "equivariance_db"]


@pytest.mark.slow
def test_two_weights_side_by_side(tmp_path, data, tiny, trunks):
    other = make_tiny_weights(tmp_path / "other.safetensors", seed=5)
    code, table, errors = run(
        data,
        "--weights",
        tiny,
        "--weights",
        other,
        "--quick",
        "--limit",
        2,
        "--lpips-trunk",
        trunks,
        "-q",
        "--engine",
        "torch",
    )
    assert code == 0, errors
    assert str(tiny) in table or tiny.stem in table
    assert other.stem in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such image folder"),
        (["{data}", "--weights", "nothing.safetensors"], "does not exist"),
        (["{data}", "--outputs", "{empty}"], "no images in"),
        (["{data}", "--real", "{one}", "--outputs", "{data}/testB"], "two of each"),
        (["{data}", "--real", "{broken}", "--outputs", "{data}/testB"], "none of the 1 pictures"),
        (["{data}", "--inception", "nothing.pth", "--outputs", "{data}/testB"], "cannot read nothing.pth"),
    ],
)
def test_says_what_is_wrong(tmp_path, data, trunks, arguments, message):
    places = {name: tmp_path / name for name in ("empty", "one", "broken")}
    for place in places.values():
        place.mkdir()
    cv2.imwrite(str(places["one"] / "a.png"), np.zeros((40, 40, 3), np.uint8))
    (places["broken"] / "a.png").write_bytes(b"broken")
    given = [a.format(data=data, **places) for a in arguments]
    code, _, errors = run(*given, "--quick", "--limit", 2, "--lpips-trunk", trunks)
    assert code != 0
    assert message in errors
    assert "Traceback" not in errors


def test_without_any_network_it_says_how_to_get_one(tmp_path, data, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    code, _, errors = run(data, "--outputs", data / "testB", "--lpips-trunk", tmp_path)
    assert code != 0
    assert "no network to compare pictures with" in errors
    assert "no vgg*.safetensors" in errors


def test_markdown_table():
    results = [
        Result("a", "weights", {"fid_vgg16": Estimate(12.3456, 11, 13.5, 100), "kid": Estimate(0.0123)}, 100),
        Result("b", "outputs", {"fid_vgg16": Estimate(2.0, math.nan, math.nan, 1)}, 50),
    ]
    lines = format_table(results, markdown=True).splitlines()
    assert lines[0] == "|  | a | b |"
    assert lines[1] == "|---|---|---|"
    assert lines[2] == "| pictures compared | 100 | 50 |"
    assert lines[3] == "| KID x 1000 (Inception) ↓ | 12.30 | - |"
    assert lines[4] == "| FID (VGG16 features) ↓ | 12.346 [11.000, 13.500] | 2.000 |"
