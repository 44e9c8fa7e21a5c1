"""`benchmarks.gpu`: its parts are processes, its bars are judged, and without a GPU it says so. Device: CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, network
from benchmarks.fps import DEFAULT, OFFICIAL
from benchmarks.gpu import Part, bars, markdown, parts, run
from engines.weights import load_weights
from tests.cuda_stub import install

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_a_gpu_there_is_one_line(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "-o", str(tmp_path / "out")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr.count("\n") == 1 and "there is no NVIDIA GPU" in run.stderr
    assert not (tmp_path / "out").exists()


def child(tmp_path, code, **more):
    return Part("live", [sys.executable, "-c", code], tmp_path / "live.json", **more)


def test_a_part_is_a_process_with_a_result(tmp_path):
    """A missed bar, so a status, is no failure."""
    write = (
        f"import pathlib, sys; pathlib.Path({str(tmp_path / 'live.json')!r}).write_text('[1]'); sys.exit(1)"
    )
    found = run(child(tmp_path, write), 60)
    assert found["result"] == [1] and found["status"] == 1 and "failed" not in found


@pytest.mark.parametrize(
    ("code", "seconds", "why"),
    [
        ("raise SystemExit('the card is gone')", 60, "status 1: the card is gone"),
        ("import os; os.abort()", 60, "it said nothing"),
        ("import time; print('slow'); time.sleep(60)", 0.5, "not done in 0.5 s, see live.txt"),
    ],
)
def test_a_part_that_fails_is_told(tmp_path, code, seconds, why):
    (tmp_path / "live.json").write_text('"of an earlier run"')
    found = run(child(tmp_path, code), seconds)
    assert why in found["failed"] and "result" not in found


def test_a_missing_package_is_named(tmp_path):
    found = run(child(tmp_path, "", needs=("no_such_module", "pip install it")), 60)
    assert found == {"failed": "no_such_module is not installed (pip install it)"}


def test_a_real_run_of_tests_is_counted(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_good(): pass\ndef test_bad(): assert 0\n"
        "@pytest.mark.skip\ndef test_left_out(): pass\n"
    )
    target = tmp_path / "tests.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        f"--junitxml={target}",
        str(tmp_path),
    ]
    (tmp_path / "none.ini").touch()
    found = run(Part("tests", [*command, "-c", str(tmp_path / "none.ini")], target), 120)
    result = found["result"]
    assert (result["passed"], result["skipped"]) == (1, 1)
    assert [name.split("::")[1] for name in result["failed"]] == ["test_bad"]


def test_every_part_runs_what_there_is(tmp_path):
    """Each module takes the options that it gets."""
    for part in parts(tmp_path, {"file 720p": tmp_path / "clip.mp4"}, tmp_path / "vgg.pth"):
        module = part.command[2]
        if module == "pytest":
            continue
        given = {text for text in part.command[3:] if text.startswith("--")}
        said = subprocess.run(
            [sys.executable, "-m", module, "--help"], cwd=REPOSITORY, capture_output=True, text=True
        ).stdout
        assert given <= {word.strip("[],") for word in said.split()}, module


def test_the_network_is_judged_beside_the_official_path(tiny, monkeypatch):
    """What `benchmarks.network` measures is what is read; run on a stand-in for CUDA."""
    install(monkeypatch)
    monkeypatch.setattr(network, "convolution_ceiling", lambda *_: 1.0)
    measured = network.measure(
        load_weights(tiny), rounds=2, threads=1, only=["torch fp32 cuda"], seconds=0.05, compared=(1, 1)
    )
    official = measured["executions"][f"{network.BASELINE} cuda"]["p50_ms"]
    for ms, holds in ((0.4, True), (1.0, False)):
        measured["executions"]["torch fp32 cuda"]["p50_ms"] = ms
        found = {"network": {"result": {"network": {OFFICIAL: measured, DEFAULT: measured}}}}
        row = next(bar for bar in bars(found) if bar.what == "network")
        assert row.holds is holds and row.found == f"{ms:.2f} ms, torch fp32"
        assert row.official.startswith(f"{official:.2f} ms")
        result = {
            "hardware": {
                "gpu": ["A GPU"],
                "cpu": "A CPU",
                "cores_usable": 2,
                "os": "Linux",
                "versions": {"torch": "2.13"},
            },
            "cuda": "13.0",
            "installation": [{"name": "engine tensorrt", "status": "warn", "detail": "is not installed"}],
            "parts": found,
            "bars": [vars(bar) for bar in bars(found)],
        }
        text = markdown(json.loads(json.dumps(result)))
        assert f"| {ms:.2f} ms, torch fp32 | {'yes' if holds else '**no**'} |" in text
        assert "| live |" in text and "not asked for | not told |" in text
        assert network.TF32 in text and "engine tensorrt: is not installed" in text


def test_clips_and_live_are_judged():
    stages = {"decode": {"p50_ms": 4.0}, "compose": {"p50_ms": 15.2}}
    executions = {f"{network.BASELINE} cuda": {"p50_ms": 20.0}}
    slow, fast, lost = (
        {"fps": fps, "stages": stages, "engine": f"torch fp16 on {device}"}
        for fps, device in ((29.9, "cuda:0"), (60.0, "cuda:0"), (99.0, "cpu"))
    )
    rows = {"torch fp16 cuda": slow, "tensorrt fp16 cuda": fast, "torch bf16 cuda": lost, "torch fp32": lost}
    report = {
        "frames": 600,
        "seconds": 10.0,
        "engine": "tensorrt fp16 on cuda:0",
        "settings": {"camera_fps": 60.0},
        "stages": {"to virtual camera": {"p95_ms": 33.0}},
    }
    found = {
        "network": {"result": {"network": {DEFAULT: {"executions": executions}}}},
        "file 720p": {"result": {"file": {DEFAULT: rows}}},
        "file 1080p": {"result": {"file": {DEFAULT: {"torch fp16 cuda": slow}}}},
        "live": {"result": {"report": report}},
    }
    table = {bar.what: bar for bar in bars(found)}
    assert table["file 720p"].holds is True and table["file 1080p"].holds is False
    assert table["file 720p"].found == "60.0 fps, tensorrt fp16; slowest stage: compose, 15.2 ms"
    assert table["file 720p"].official == "its network alone: 50 fps, 20.0 ms a picture"
    assert table["live"].official == table["file 720p"].official
    assert table["live"].holds is True and "33 ms at p95 (2.0 frames)" in table["live"].found
    report["engine"] = "openvino bf16 on cpu"  # the card was lost on the way
    assert {bar.what: bar for bar in bars(found)}["live"].holds is False
    report["engine"] = "tensorrt fp16 on cuda:0"
    report["stages"]["to virtual camera"]["p95_ms"] = 34.0
    assert {bar.what: bar for bar in bars(found)}["live"].holds is False
    report["stages"]["to virtual camera"]["p95_ms"], report["frames"] = 20.0, 500
    assert {bar.what: bar for bar in bars(found)}["live"].holds is False


def test_kernels_and_training_are_judged():
    def row(case, ms):
        more = {"dtype": "float16", "layout": "channels_last", "plain_torch_ms": 3.0}
        return {"case": case, "ms": ms, "bytes": 850.0, "copy_bytes_per_ms": 1000.0, **more}

    step = {"seconds": {"plain": 1.2, "ours": 0.4}, "speedup": 3.0, "peak_gb": {"plain": 30.0, "ours": 11.9}}
    found = {"kernels": {"result": {"rows": [row("blur", 1.0), row("tail", 0.9)]}}}
    found["training"] = {"result": {**step, "lpips": True}}
    assert all(bar.holds for bar in bars(found) if bar.what in ("kernels", "training"))
    found["kernels"]["result"]["rows"].append(row("up 2", 1.01))
    found["training"] = {"result": {**step, "lpips": False}}
    table = [bar for bar in bars(found) if bar.what in ("kernels", "training")]
    assert [bar.holds for bar in table] == [False, None, None]
    assert table[0].found == "2 of 3; least: 84% (up 2, float16 channels_last)"
    assert "LPIPS" in table[1].found and table[2].official == "30.0 GB"


def test_wrong_parts(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--parts", "network,speed"])
    assert "no part is called 'speed'" in capsys.readouterr().err
