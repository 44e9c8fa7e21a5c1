"""Peak memory of a translation after a minute and after ten minutes of 720p input: it must not grow.

    python benchmarks/memory.py --json memory.json
    python benchmarks/memory.py --early 20 --late 120 --fps 10 --tiny      a quick look

The input is the demo clip, its packets repeated as often as needed, which costs next to nothing. It is
translated by a process of its own, so that the peak is that of the translation alone.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

BAR = 0.10
"""How much higher the late peak may be than the early one."""


@dataclass(frozen=True)
class Result:
    """What was measured.

    Attributes:
        early_seconds, late_seconds: seconds of video after which the peak was read.
        early_mb, late_mb: highest resident set until then, MiB.
        frames: translated.
        seconds: wall time.
        samples: (seconds of video, current resident set in MiB), twenty of them evenly spaced.
    """

    early_seconds: float
    late_seconds: float
    early_mb: float
    late_mb: float
    frames: int
    seconds: float
    samples: list[tuple[float, float]]
    hardware: dict[str, Any]
    settings: dict[str, Any]

    @property
    def growth(self) -> float:
        """By how much the late peak is higher than the early one, as a share of it."""
        return self.late_mb / self.early_mb - 1


def resident_mb() -> tuple[float, float]:
    """(current, highest) resident set of this process, MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: on Linux its maximum counts what the parent had when this process was started.
        values = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(values["VmRSS"].split()[0]) / 1024, int(values["VmHWM"].split()[0]) / 1024
    import psutil  # type: ignore[import-untyped]

    info = psutil.Process().memory_info()
    if sys.platform == "win32":
        return info.rss / 2**20, info.peak_wset / 2**20
    import resource

    return info.rss / 2**20, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS: bytes


def make_input(path: Path, seconds: float, fps: int, size: tuple[int, int]) -> Path:
    """The demo clip with its sound, repeated until it lasts `seconds`."""
    import av

    from gnr_video.samples.portrait import make_demo_clip

    turns = math.ceil(seconds / 4)
    once = make_demo_clip(path.with_name(f"once-{path.name}"), seconds=seconds / turns, fps=fps, size=size)
    with av.open(str(once)) as source, av.open(str(path), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
        packets = [p for p in source.demux() if p.dts is not None]
        video = source.streams.video[0]
        length = video.frames / Fraction(video.average_rate or fps)
        end: dict[int, int] = {}
        packed = [(p.stream_index, p.pts, p.dts, p.time_base, bytes(p), p.is_keyframe) for p in packets]
        for turn in range(turns):
            for index, pts, dts, time_base, data, key in packed:
                assert pts is not None and dts is not None and time_base is not None
                packet = av.Packet(data)
                shift = round(turn * length / time_base)
                packet.pts, packet.dts, packet.time_base = pts + shift, dts + shift, time_base
                packet.is_keyframe = key
                # Where two turns meet, a packet of sound may begin before the last one's end.
                if packet.dts <= end.get(index, packet.dts - 1):
                    continue
                end[index] = packet.dts
                packet.stream = streams[index]
                out.mux(packet)
    once.unlink()
    return path


def measure_here(
    clip: Path, target: Path, weights: str | None, early: float, late: float, engine: str
) -> Result:
    """Translate in this process and watch its memory."""
    from gnr_video import Translator
    from gnr_video.machine import hardware
    from gnr_video.media.open import open_source
    from gnr_video.options import EngineOptions
    from gnr_video.pipeline import Counts

    with open_source(clip) as source:
        rate = float(source.info.average_rate or 0)
        size = source.info.size
    early_frames, every = round(early * rate), max(1, round(late * rate / 20))
    peak_early = 0.0
    samples: list[tuple[float, float]] = []

    def watch(counts: Counts, total: int | None) -> None:
        nonlocal peak_early
        if counts.frames == early_frames:
            peak_early = resident_mb()[1]
        if counts.frames % every == 0:
            samples.append((counts.frames / rate, round(resident_mb()[0], 1)))

    started = time.perf_counter()
    with Translator(weights, engine=EngineOptions(engine)) as translator:
        report = translator.translate_video(clip, target, progress=watch)
    return Result(
        early_seconds=early,
        late_seconds=report.frames / rate,
        early_mb=round(peak_early, 1),
        late_mb=round(resident_mb()[1], 1),
        frames=report.frames,
        seconds=round(time.perf_counter() - started, 1),
        samples=samples,
        hardware=hardware(),
        settings={
            "size": f"{size[0]}x{size[1]}",
            "fps": rate,
            "engine": report.engine,
            "weights": report.weights,
        },
    )


def measure(
    early: float = 60,
    late: float = 600,
    *,
    fps: int = 30,
    size: tuple[int, int] = (1280, 720),
    weights: str | None = None,
    engine: str = "auto",
    timeout: float = 7200,
) -> Result:
    """Make the input and measure in a process of its own; the arguments are those of the command line.

    Raises:
        subprocess.SubprocessError: the process failed or took longer than `timeout` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="gnr-video-memory-") as name:
        folder = Path(name)
        clip = make_input(folder / "in.mp4", late, fps, size)
        command = [
            sys.executable,
            __file__,
            "--inside",
            str(clip),
            "--early",
            str(early),
            "--late",
            str(late),
        ]
        command += ["--engine", engine, *(["--weights", weights] if weights else [])]
        command += ["--json", str(folder / "result.json")]
        subprocess.run(command, check=True, timeout=timeout, cwd=REPOSITORY)
        values = json.loads((folder / "result.json").read_text())
    values.pop("growth")
    return Result(**values)


def text(result: Result) -> str:
    """The result for people."""
    cpu, cores = result.hardware["cpu"], result.hardware["cores_usable"]
    return "\n".join(
        [
            f"{cpu}, {cores} cores; {', '.join(f'{k} {v}' for k, v in result.settings.items())}",
            f"{result.frames} frames in {result.seconds:.0f} s",
            f"peak after {result.early_seconds:5.0f} s of video: {result.early_mb:8.1f} MiB",
            f"peak after {result.late_seconds:5.0f} s of video: {result.late_mb:8.1f} MiB "
            f"({100 * result.growth:+.1f} %, at most {100 * BAR:+.0f} %)",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--early", type=float, default=60, metavar="SECONDS", help="of video; default 60")
    parser.add_argument("--late", type=float, default=600, metavar="SECONDS", help="of video; default 600")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--weights", help="default, official, or a file")
    parser.add_argument("--tiny", action="store_true", help="a very small network instead: far quicker")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        result = measure_here(
            options.inside,
            options.inside.with_name("out.mp4"),
            options.weights,
            options.early,
            options.late,
            options.engine,
        )
    else:
        if not 0 < options.early < options.late:
            parser.error("needs 0 < --early < --late")
        with tempfile.TemporaryDirectory(prefix="gnr-video-memory-") as folder:
            weights = options.weights
            if options.tiny:
                from tests.tiny_weights import make_tiny_weights

                weights = str(make_tiny_weights(Path(folder) / "tiny.safetensors"))
            result = measure(
                options.early, options.late, fps=options.fps, weights=weights, engine=options.engine
            )
        print(text(result))
    if options.json:
        options.json.write_text(json.dumps(asdict(result) | {"growth": result.growth}, indent=2) + "\n")
    return 0 if options.inside is not None or result.growth <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
