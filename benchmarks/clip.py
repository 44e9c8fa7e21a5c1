"""A whole clip: from file to file, live, and the first frame of a process that has just started."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gnr_video.frame import Frame
from gnr_video.options import OutputOptions
from gnr_video.report import Report
from gnr_video.timing import stage_table
from gnr_video.translator import Translator

COLD_SECONDS = 3.0
"""Bar: from the start of a process to its first translated frame, with caches warm."""

_CHILD = """
import json, sys, time
options = json.loads(sys.argv[1])
from gnr_video.translator import Translator
from gnr_video.media.open import open_source
from gnr_video.options import EngineOptions
engine = EngineOptions(options["engine"], precision=options["precision"])
imported = time.time()
with Translator(options["weights"], engine=engine) as translator:
    made = time.time()
    with open_source(options["clip"]) as source:
        picture = translator.translate_frame(next(iter(source)))
    print(json.dumps({"imported": imported, "made": made, "first": time.time(), "shape": picture.shape}))
"""


def file(translator: Translator, clip: Path, repeat: int) -> dict[str, Any]:
    """Translate the clip `repeat` times, from file to file: the median run, and all runs' rates."""
    with tempfile.TemporaryDirectory() as folder:
        reports = sorted(
            (
                translator.translate_video(clip, Path(folder) / "out.mp4", OutputOptions(overwrite=True))
                for _ in range(repeat)
            ),
            key=lambda report: report.fps,
        )
    median = reports[(len(reports) - 1) // 2]
    return {"fps": round(statistics.median(r.fps for r in reports), 2), **_facts(median)}


def live(translator: Translator, clip: Path, seconds: float, hold: int | None = None) -> dict[str, Any]:
    """The clip as a camera in real time: what the live pipeline shows and draws, and how old it is by then."""
    from gnr_video.live.cameras import open_camera
    from gnr_video.live.capture import Capture
    from gnr_video.live.controls import Controls
    from gnr_video.live.session import LiveSession
    from gnr_video.live.sinks import LiveSink

    class Screen(LiveSink):
        def show(self, frame: Frame) -> None:
            self.delivered(frame)

    def camera() -> Any:
        return open_camera(str(clip))

    lookahead, translator.lookahead = translator.lookahead, 0
    try:
        session = LiveSession(
            translator,
            Capture(camera(), camera),
            Controls(translator.engine, effects=translator.effects),
            hold=hold,
        )
        session.add_sink(Screen("screen"))
        with session:
            session.wait(min(1.0, seconds / 2))  # the first pictures find the face
            session.times.reset()
            frames, started = session.counts.frames, time.perf_counter()
            session.wait(seconds)
            passed = time.perf_counter() - started
            shown = (session.counts.frames - frames) / passed
            report = session.report()
    finally:
        translator.lookahead = lookahead
    network = report.stages.get("network")
    return {
        "fps": round(shown, 2),
        "drawn_fps": round(network.count / passed if network else 0.0, 2),
        "dropped": report.settings["dropped"],
        **_facts(report),
    }


def _facts(report: Report) -> dict[str, Any]:
    return {
        "engine": report.engine,
        "frames": report.frames,
        "frames_without_face": report.frames_without_face,
        "stages": json.loads(report.to_json())["stages"],
        "table": stage_table(report.stages),
    }


def cold_start(weights: str, clip: Path, engine: str, precision: str, repeat: int = 3) -> dict[str, Any]:
    """Seconds from the start of a fresh process to its first translated frame.

    Returns:
        "cold": the first process (files not yet in memory, caches perhaps empty); "warm": the median of
        `repeat` more; "imports", "translator", "frame": where the time of the median went.
    """
    options = {"weights": weights, "clip": str(clip), "engine": engine, "precision": precision}
    runs = []
    for _ in range(1 + repeat):
        started = time.time()
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, json.dumps(options)], capture_output=True, text=True, timeout=900
        )
        if done.returncode:
            raise RuntimeError(f"the fresh process failed:\n{done.stderr}")
        stamps = json.loads(done.stdout.splitlines()[-1])
        runs.append([stamps[key] - started for key in ("imported", "made", "first")])
    warm = sorted(runs[1:], key=lambda run: run[2])[(repeat - 1) // 2]
    return {
        "cold_s": round(runs[0][2], 2),
        "warm_s": round(warm[2], 2),
        "imports_s": round(warm[0], 2),
        "translator_s": round(warm[1] - warm[0], 2),
        "frame_s": round(warm[2] - warm[1], 2),
    }
