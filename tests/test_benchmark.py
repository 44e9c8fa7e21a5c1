"""The latency benchmark: what it measures on a tiny network, its bars, its comparison and its chart. Device: CPU."""

from __future__ import annotations

import json
from copy import deepcopy

import cv2
import numpy as np
import pytest
import torch

from benchmarks import clip, fps, network
from engines.errors import GnrVideoError
from engines.weights import load_weights
from tests.cuda_stub import install

pytest.importorskip("skimage", reason="needs scikit-image, which holds the portrait")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def measured(tiny, tmp_path_factory):
    """A whole run on the tiny network with one engine, as its JSON has it."""
    path = tmp_path_factory.mktemp("benchmark") / "run.json"
    arguments = ["--networks", "default", "--weights", str(tiny), "--only", "torch", "--threads", "1"]
    arguments += ["--parts", "network", "--rounds", "3", "--seconds", "0.1", "--compared", "2", "2"]
    fps.main([*arguments, "--json", str(path)])
    return json.loads(path.read_text())


def test_network_part(measured):
    result = measured["network"]["default weights"]
    rows = result["executions"]
    assert {network.BASELINE, "torch fp32"} <= set(rows)
    assert rows[network.BASELINE]["times_faster"] == 1
    for row in rows.values():
        assert 0 < row["min_ms"] <= row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["fps"] > 0
    assert rows["torch fp32"]["psnr_db"] > 50
    assert rows["torch fp32"]["over_ceiling"] > 0
    assert min(result["pairwise_psnr_db"].values(), default=99) >= 40
    assert "does not run fp16" in result["passed_over"]["torch fp16"]
    assert measured["hardware"]["cores"] >= 1 and measured["versions"]["torch"]


def test_a_gpu_is_compared_with_the_official_path_on_it(tiny, monkeypatch):
    """Not with the CPU's; and what fp32 is there stands below the table. Run on a stand-in for CUDA."""
    install(monkeypatch)
    monkeypatch.setattr(network, "convolution_ceiling", lambda *_: 1.0)
    result = network.measure(
        load_weights(tiny), rounds=2, threads=1, only=["torch fp32"], seconds=0.05, compared=(1, 1)
    )
    rows = result["executions"]
    on_gpu, official = rows["torch fp32 cuda"], rows[f"{network.BASELINE} cuda"]
    assert official["times_faster"] == 1 and official["psnr_db"] > 50
    assert on_gpu["times_faster"] == pytest.approx(official["p50_ms"] / on_gpu["p50_ms"], abs=0.02)
    assert network.TF32 in network.table("tiny", result)


def test_work_of_a_convolution_is_counted(tiny):
    """By hand: the first 1x1 convolution alone is 2 * 3 * 8 operations for each of 64 x 64 pixels."""
    weights = load_weights(tiny)
    assert network.gflop(weights) > 2 * 3 * 8 * 64 * 64 / 1e9
    first = network.gflop(network.random_weights(weights.architecture))
    assert first == pytest.approx(network.gflop(weights)), "values do not matter"


def test_clip_from_file_to_file_and_live(tiny, face_clip, face_model):
    from gnr_video import Translator
    from gnr_video.options import EngineOptions, LookOptions

    with Translator(
        tiny,
        engine=EngineOptions("torch", precision="fp32", threads=1),
        look=LookOptions(face_model=face_model),
    ) as translator:
        file = clip.file(translator, face_clip, 2)
        assert file["fps"] > 0 and file["frames"] == 24
        assert {"decode", "track", "network", "compose", "encode"} <= set(file["stages"])
        live = clip.live(translator, face_clip, 1.5)
    assert live["fps"] > 0
    assert live["stages"]["to screen"]["p95_ms"] >= live["stages"]["network"]["p50_ms"]


@pytest.mark.slow
def test_a_fresh_process_is_timed(tiny, face_clip, face_model):
    row = clip.cold_start(str(tiny), face_clip, "torch", "fp32", 1)
    assert row["warm_s"] == pytest.approx(row["imports_s"] + row["translator_s"] + row["frame_s"], abs=0.05)
    assert row["cold_s"] > 0
    with pytest.raises(RuntimeError, match="the fresh process failed"):
        clip.cold_start(str(tiny), face_clip, "no engine", "fp32", 1)


def example():
    """A run with every part, every bar reached."""
    execution = {"p50_ms": 50.0, "times_faster": 14.0, "over_ceiling": 1.2}
    one = {
        "executions": {
            network.BASELINE: {"p50_ms": 700.0, "times_faster": 1.0},
            "torch bf16": dict(execution),
            "openvino int8": dict(execution),
        },
        "pairwise_psnr_db": {"torch bf16 | openvino bf16": 50.0, "torch bf16 | openvino int8": 34.0},
    }
    return {
        "hardware": {"cpu": "a CPU", "cores_usable": 2, "gpu": []},
        "network": {"official size": one, "default weights": deepcopy(one)},
        "file": {"default weights": {"openvino int8": {"fps": 50.0}}},
        "live": {"default weights": {"openvino int8": {"fps": 30.0}}},
        "cold": {"default weights": {"openvino int8": {"warm_s": 2.0}}},
    }


def test_bars():
    result = example()
    found = fps.bars(result)
    assert all(holds for _, holds in found)
    assert len(found) >= 8
    rows = result["network"]["official size"]["executions"]
    rows["torch bf16"] |= {"times_faster": 6.9, "over_ceiling": 1.3}
    rows["openvino int8"]["times_faster"] = 9.9
    result["network"]["default weights"]["pairwise_psnr_db"] = {
        "a bf16 | b bf16": 39.9,
        "a bf16 | b int8": 31.9,
    }
    result["file"]["default weights"]["openvino int8"]["fps"] = 29.0
    result["cold"]["default weights"]["openvino int8"]["warm_s"] = 3.1
    missed = [text for text, holds in fps.bars(result) if not holds]
    assert len(missed) == 7, missed
    assert fps.bars({}) == []


def test_regressions():
    old = example()
    assert fps.regressions(old, example()) == []
    new = example()
    rows = new["network"]["official size"]["executions"]
    rows["torch bf16"]["times_faster"] = 12.0
    new["network"]["default weights"]["pairwise_psnr_db"]["torch bf16 | openvino int8"] = 32.5
    new["file"]["default weights"]["openvino int8"]["fps"] = 40.0
    new["cold"]["default weights"]["openvino int8"]["warm_s"] = 2.5
    new["live"]["default weights"]["openvino int8"]["fps"] = 29.0  # within a tenth
    worse = fps.regressions(old, new)
    assert len(worse) == 4
    assert "12 times the official path, was 14" in worse[0]


def test_a_slower_machine_is_no_regression():
    new = example()
    for one in new["network"].values():
        one["executions"][network.BASELINE]["p50_ms"] *= 2
    new["file"]["default weights"]["openvino int8"]["fps"] = 25.0
    new["cold"]["default weights"]["openvino int8"]["warm_s"] = 4.0
    assert fps.regressions(example(), new) == []


def test_compare_sets_the_exit_status(measured, tiny, tmp_path, capsys):
    old = deepcopy(measured)
    for row in old["network"]["default weights"]["executions"].values():
        row["times_faster"] *= 100
    (tmp_path / "old.json").write_text(json.dumps(old))
    arguments = [
        "--networks",
        "default",
        "--weights",
        str(tiny),
        "--only",
        "torch fp32",
        "--parts",
        "network",
    ]
    arguments += ["--rounds", "2", "--seconds", "0.05", "--compared", "1", "1"]
    assert fps.main([*arguments, "--compare", str(tmp_path / "old.json")]) == 1
    assert "WORSE" in capsys.readouterr().out


def test_chart(tmp_path):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    fps.chart(example(), tmp_path / "chart.png")
    picture = cv2.imread(str(tmp_path / "chart.png"))
    assert picture.shape[0] > 400 and picture.shape[1] > 800
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    with pytest.raises(GnrVideoError, match="nothing to draw"):
        fps.chart({"hardware": {}}, tmp_path / "none.png")


@pytest.mark.parametrize("content", [None, "no json", "[]", "{}"])
def test_compare_with_what_is_no_earlier_run(tmp_path, capsys, content):
    """It is said before anything is measured."""
    old = tmp_path / "old.json"
    if content is not None:
        old.write_text(content)
    with pytest.raises(SystemExit) as ended:
        fps.main(["--compare", str(old)])
    assert ended.value.code == 2
    assert "old.json" in capsys.readouterr().err.splitlines()[-1]


def test_only_what_both_runs_measured_tells_how_fast_the_machine_is():
    alone = {part: rows for part, rows in example().items() if part != "network"}
    assert fps.regressions(example(), alone) == []
    other = example()
    for row in other["network"].values():
        row["executions"][fps.network.BASELINE]["p50_ms"] *= 100
    other["network"] = {f"another {name}": row for name, row in other["network"].items()}
    assert fps.regressions(example(), other) == []
