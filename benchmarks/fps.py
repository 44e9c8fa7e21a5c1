"""How fast it is: the network alone against the official eager path, and a whole clip from decoder to encoder.

    python -m benchmarks.fps [--clip FILE] [--repeat 3] [--rounds 10] [--json FILE]

The clip defaults to the project's own demo clip (1280x720, 6 s). The end-to-end figure is the median of the
repeats; the stage table is that of the median run. A bar that is missed makes the exit status 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import network
from engines.architecture import Architecture
from engines.weights import load_weights
from gnr_video.demo import make_demo_clip
from gnr_video.report import Report, hardware, versions
from gnr_video.translator import Translator
from gnr_video.weights import resolve_weights

END_TO_END_BAR = 20.0
"""Frames per second that the default weights must reach on the 1280x720 clip."""


def end_to_end(translator: Translator, clip: Path, repeat: int) -> list[Report]:
    """Translate the clip `repeat` times; reports sorted by speed, slowest first."""
    with tempfile.TemporaryDirectory() as folder:
        reports = [
            translator.translate_video(clip, Path(folder) / "out.mp4", overwrite=True) for _ in range(repeat)
        ]
    return sorted(reports, key=lambda report: report.fps)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clip", type=Path, help="video to translate (default: the demo clip)")
    parser.add_argument(
        "--weights", default=None, help="weights for the whole clip (default: the default ones)"
    )
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of the network")
    parser.add_argument("--repeat", type=int, default=3, help="runs over the whole clip")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of the network alone; 0 leaves it out")
    parser.add_argument("--json", type=Path, help="write everything there")
    options = parser.parse_args()

    result: dict[str, Any] = {"hardware": hardware(), "versions": versions()}
    bars: list[tuple[str, bool]] = []
    if options.rounds:
        networks = {"official size": network.random_weights(Architecture())}
        networks["default weights"] = load_weights(resolve_weights(options.weights))
        result["network"] = {}
        for name, weights in networks.items():
            measured = network.measure(weights, options.rounds, options.threads)
            result["network"][name] = measured
            print(network.table(name, measured), end="\n\n")
        bars += network.bars(result["network"])

    with tempfile.TemporaryDirectory() as folder:
        clip = options.clip or make_demo_clip(Path(folder) / "demo.mp4")
        with Translator(
            options.weights, engine=options.engine, precision=options.precision, threads=options.threads
        ) as translator:
            reports = end_to_end(translator, clip, options.repeat)
    median = reports[len(reports) // 2]
    fps = statistics.median(report.fps for report in reports)
    print(f"{clip.name}, end to end, median of {len(reports)} runs: {fps:.1f} fps")
    print(median.table())
    result["end_to_end"] = {
        "clip": clip.name,
        "fps": [report.fps for report in reports],
        "median": json.loads(median.to_json()),
    }
    bars.append((f"default weights end to end at {END_TO_END_BAR:.0f} fps or more", fps >= END_TO_END_BAR))
    for text, reached in bars:
        print(f"{'ok' if reached else 'MISSED':7}{text}")
    result["bars"] = dict(bars)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if all(reached for _, reached in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
