"""Stage times in bounded memory, and the report of a run. Device: CPU."""

from __future__ import annotations

import json
import math
import threading
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import OutputError
from gnr_video.machine import hardware, versions
from gnr_video.report import TIP_SECONDS, Report
from gnr_video.timing import StageTimes, stage_table


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(2e-6, 100.0), min_size=1, max_size=300))
def test_percentiles_are_within_one_bin(durations):
    times = StageTimes()
    for seconds in durations:
        times.add("engine", seconds)
    s = times.summary()["engine"]
    for percent, value in ((50, s.p50_ms), (95, s.p95_ms), (99, s.p99_ms)):
        exact = 1e3 * float(np.percentile(durations, percent, method="inverted_cdf"))
        assert exact / 1.021 <= value <= exact * 1.021
    assert s.count == len(durations)
    assert s.max_ms == pytest.approx(1e3 * max(durations))
    assert s.total_seconds == pytest.approx(math.fsum(durations))
    assert s.mean_ms == pytest.approx(1e3 * float(np.mean(durations)))


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e4])
def test_durations_outside_the_histogram_are_counted(seconds):
    times = StageTimes()
    times.add("odd", seconds)
    s = times.summary()["odd"]
    assert s.count == 1
    assert s.max_ms == s.p50_ms == 1e3 * seconds


@pytest.mark.parametrize("seconds", [-1e-3, math.nan, math.inf])
def test_impossible_durations_are_refused(seconds):
    with pytest.raises(ValueError, match="duration"):
        StageTimes().add("bad", seconds)


def test_a_block_is_timed_even_when_it_raises():
    times = StageTimes()
    with times.stage("sleep"):
        time.sleep(0.02)
    with pytest.raises(RuntimeError), times.stage("raise"):
        raise RuntimeError
    summary = times.summary()
    assert list(summary) == ["sleep", "raise"]
    assert 19.0 <= summary["sleep"].max_ms < 2000.0
    assert summary["raise"].count == 1
    times.reset()
    assert times.summary() == {}


def test_no_count_is_lost_between_threads():
    times = StageTimes()

    def work(name: str) -> None:
        for _ in range(2000):
            with times.stage(name), times.stage("shared"):
                pass

    threads = [threading.Thread(target=work, args=(f"own{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    summary = times.summary()
    assert summary["shared"].count == 8000
    assert all(summary[f"own{i}"].count == 2000 for i in range(4))


def test_memory_does_not_grow_with_the_number_of_frames():
    times = StageTimes()
    for i in range(1000):
        times.add("track", 1e-3 + i * 1e-5)
    tracemalloc.start()
    try:
        for i in range(20_000):
            times.add("track", 1e-3 + (i % 5000) * 1e-5)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 50_000  # 20,000 floats kept would be 640,000 bytes


def some_report() -> Report:
    times = StageTimes()
    for i in range(100):
        times.add("decode", 0.002)
        times.add("engine", 0.015 + i * 1e-4)
    return Report(
        source="clip.mp4",
        target="anime.mp4",
        frames=100,
        faces=97,
        frames_without_face=3,
        seconds=2.5,
        stages=times.summary(),
        engine="openvino bf16 on cpu",
        fallbacks=["tensorrt: no NVIDIA GPU"],
        warnings=["no face in 3 frames"],
    )


@pytest.mark.parametrize(
    ("engine", "network", "seconds", "said"),
    [
        ("openvino fp32 on cpu", 0.6, 2 * TIP_SECONDS, True),
        ("openvino fp32 on cpu", 0.6, TIP_SECONDS / 2, False),
        ("openvino fp32 on cpu", 0.4, 2 * TIP_SECONDS, False),
        ("openvino bf16 on cpu", 0.6, 2 * TIP_SECONDS, False),
    ],
)
def test_long_runs_in_fp32_are_told_what_is_faster(engine, network, seconds, said):
    times = StageTimes()
    times.add("network", network * seconds)
    report = Report(engine=engine, seconds=seconds, stages=times.summary())
    assert ("int8" in report.tip) is said
    assert "int8" not in Report(engine=engine, seconds=seconds).tip


def test_table_is_aligned_and_marks_the_slowest_stage():
    text = some_report().table()
    lines = text.splitlines()
    assert lines[0] == "100 frames in 2.50 s: 40.0 fps, openvino bf16 on cpu"
    assert "97 in 97 frames, 3 frames without a face" in lines[1]
    start = next(i for i, line in enumerate(lines) if line.startswith("stage"))
    table = lines[start : start + 3]
    assert len({len(line) for line in table}) == 1
    assert table[1].split() == ["decode", "100", "2.00", "2.00", "2.00", "2.00", "2.00"]
    assert table[2].startswith("engine *")
    assert "fallback: tensorrt: no NVIDIA GPU" in lines
    assert "warning: no face in 3 frames" in lines


def test_an_empty_report_prints():
    assert Report().table().startswith("0 frames in 0.00 s: 0.0 fps")
    assert stage_table({}).split()[0] == "stage"


def test_json_is_strict_and_complete(tmp_path):
    report = some_report()
    report.settings["psnr"] = math.inf
    file = tmp_path / "report.json"
    report.write(file)
    values = json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert values["fps"] == 40.0
    assert values["stages"]["engine"]["count"] == 100
    assert values["settings"]["psnr"] is None
    assert values["hardware"]["cpu"]
    assert values["versions"]["numpy"] == np.__version__
    assert list(tmp_path.iterdir()) == [file]


def test_a_report_that_cannot_be_written_says_so(tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        Report().write(tmp_path / "no such folder" / "report.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        Report().write(tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_hardware_names_this_machine():
    found = hardware()
    assert found["cpu"].strip()
    assert 1 <= found["cores_usable"] <= found["cores"]
    assert found["versions"] == versions()
    assert {"python", "gnr-video", "torch", "numpy", "av", "mediapipe"} <= set(versions())
    json.dumps(found, allow_nan=False)
