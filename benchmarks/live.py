"""How late a live picture is: from the camera to a virtual camera, stage by stage; and whether it lasts.

    python -m benchmarks.live [--seconds 30] [--size 640x480] [--hold N] [--weights ...] [--json FILE]
    python -m benchmarks.live --soak 30                      30 minutes: memory, queues, threads
    python -m benchmarks.live --pairs 5 --record             what --private, light and sound cost, in turn

The camera is the demo clip in real time, the virtual camera a pyvirtualcam backend in this process that takes
every picture. The bars: with 2 CPU cores and the default weights at 640x480, 20 fps or more and at most
120 ms at p95; and where the pipeline keeps up with the camera, at most two frame intervals at p95. In a soak,
memory after its first tenth (at least a minute) may grow by 5 %, and no thread or queue may be left. In pairs, the
median rate with everything on may be 10 % less than without.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.memory import resident_mb
from engines.errors import exit_with
from gnr_video.live import Capture, Controls, LiveSession, open_camera
from gnr_video.live.memory import share_heaps
from gnr_video.live.recorder import Recorder
from gnr_video.live.sound import Sound
from gnr_video.live.sound.voice import AUTO, NONE, Voice
from gnr_video.live.virtual_camera import VirtualCameraSink
from gnr_video.machine import hardware
from gnr_video.options import EngineOptions, LookOptions
from gnr_video.report import Report
from gnr_video.samples.portrait import make_demo_clip
from gnr_video.timing import stage_table
from gnr_video.translator import Translator

FPS_BAR, P95_BAR_MS = 20.0, 120.0
GROWTH_BAR = 0.05
COST_BAR = 0.1
WARM_UP_SECONDS = 3.0


class MemoryBackend:
    """A virtual camera device that keeps the last picture in memory."""

    def __init__(self, *, width: int, height: int, **_: Any) -> None:
        self.size = (width, height)
        self.last: Any = None

    def send(self, frame: Any) -> None:
        self.last = frame.copy()  # a device copies it to the kernel

    def close(self) -> None:
        self.last = None

    def device(self) -> str:
        return "memory"

    def native_fourcc(self) -> None:
        return None


@dataclass
class Soak:
    """What was watched while it ran.

    Attributes:
        minutes: how long.
        samples: (seconds, resident MiB, threads, pictures that wait anywhere).
        stop_seconds: how long stopping took.
        threads_left: names of this project's threads that outlived it.
    """

    minutes: float = 0.0
    samples: list[tuple[float, float, int, int]] = field(default_factory=list)
    stop_seconds: float = 0.0
    threads_left: list[str] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """By how much memory grew from the end of the first tenth (or minute) to the end, as a share."""
        settled = max(60.0, 6.0 * self.minutes)
        late = [s for s in self.samples if s[0] >= settled] or self.samples[-2:]
        return late[-1][1] / late[0][1] - 1


def own_threads() -> list[str]:
    return sorted(t.name for t in threading.enumerate() if t.name.startswith("gnr-video "))


def measure(
    options: argparse.Namespace, clip: Path, folder: Path, everything: bool | None = None
) -> tuple[Report, Soak]:
    """Run a session; its report, and what was watched (every ten seconds in a soak).

    Args:
        everything: whether faces are kept private, light is taken on and the clip's sound is heard; None: as in a
            `Translator` by default, without sound.
    """
    import pyvirtualcam

    pyvirtualcam.register_backend("memory", MemoryBackend)
    share_heaps()  # as the command does
    soak = Soak(options.soak or 0.0)
    sound = Sound()
    voice = Voice(AUTO if everything else NONE, sound, print)
    reopen = voice.opener(lambda: open_camera(str(clip)))
    camera = reopen()
    capture = Capture(camera, reopen)
    look = (
        LookOptions()
        if everything is None
        else LookOptions(private=everything, effects={"light": everything})
    )
    with Translator(
        options.weights,
        engine=EngineOptions(options.engine, precision=options.precision, threads=options.threads),
        look=look,
    ) as translator:
        controls = Controls(translator.engine, 42, effects=translator.effects)
        session = LiveSession(translator, capture, controls, hold=options.hold, sound=sound)
        session.add_sink(VirtualCameraSink(session.size, camera.fps or 30.0, backend="memory"))
        recorder = Recorder(session, folder / "live.mp4", overwrite=True)
        if options.record:
            recorder.start()
        session.start()
        voice.start()
        try:
            session.wait(WARM_UP_SECONDS)
            session.times.reset()
            counted, dropped = session.counts.frames, capture.latest.dropped
            read, begun = capture.frames, time.perf_counter()
            if options.soak:
                watch(session, soak)
            else:
                session.wait(options.seconds)
            report = session.report()
            report.seconds = time.perf_counter() - begun
            report.frames = session.counts.frames - counted
            report.settings |= {
                "camera_fps": camera.fps,
                "camera_frames": capture.frames - read,
                "dropped": capture.latest.dropped - dropped,
                "recording": bool(options.record),
            }
        finally:
            start = time.perf_counter()
            session.stop()
            recorder.stop()
            voice.stop()
            soak.stop_seconds = time.perf_counter() - start
    soak.threads_left = own_threads()
    return report, soak


def cost(options: argparse.Namespace, clip: Path, folder: Path) -> int:
    """Sessions without and with everything on, in turn; the exit status."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(2 * options.pairs):
        everything = turn % 4 in (1, 2)  # whichever comes second may find a warmer processor
        report, _ = measure(options, clip, folder, everything)
        rates[everything].append(report.fps)
        late = report.stages["to virtual camera"]
        print(
            f"{'everything' if everything else 'plain':11}{report.fps:5.1f} fps,"
            f" {late.p50_ms:.0f} ms (p95 {late.p95_ms:.0f})"
        )
    plain, full = (statistics.median(rates[on]) for on in (False, True))
    reached = full >= (1 - COST_BAR) * plain
    print(
        f"{'ok' if reached else 'MISSED':7}{full:.1f} fps against {plain:.1f} (medians): {full / plain:.2f}"
    )
    if options.json:
        result = {"hardware": hardware(), "plain": rates[False], "everything": rates[True]}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if reached else 1


def watch(session: LiveSession, soak: Soak) -> None:
    """Let it run for the soak's minutes; styles and views change as a user would change them."""
    begun = last = time.perf_counter()
    commands = ("next", "blend", "compare", "compare", "compare", "mirror", "grid", "grid")
    turn = 0
    while (now := time.perf_counter()) - begun < 60 * soak.minutes:
        session.wait(min(10.0, max(0.1, 60 * soak.minutes - (now - begun))))
        session.controls.run(commands[turn % len(commands)])
        turn += 1
        gc.collect()
        waiting = len(session.capture.latest) + sum(len(getattr(s, "slot", ())) for s in session.sinks)
        soak.samples.append((time.perf_counter() - begun, resident_mb()[0], len(own_threads()), waiting))
        if time.perf_counter() - last > 60:
            last = time.perf_counter()
            print(
                f"{(last - begun) / 60:5.1f} min  {soak.samples[-1][1]:7.1f} MiB  {session.status().line()}"
            )


def bars(report: Report, soak: Soak) -> list[tuple[str, bool]]:
    """What has to hold, and whether it does."""
    late = report.stages["to virtual camera"].p95_ms
    camera_fps = float(report.settings["camera_fps"])
    found = [
        (f"{FPS_BAR:.0f} fps or more", report.fps >= FPS_BAR),
        (f"at most {P95_BAR_MS:.0f} ms at p95", late <= P95_BAR_MS),
    ]
    if report.fps >= 0.98 * camera_fps:
        found.append(("keeps up: at most two frame intervals at p95", late <= 2000.0 / camera_fps))
    found += [
        ("stops in less than a second", soak.stop_seconds < 1.0),
        ("no thread is left", not soak.threads_left),
    ]
    if soak.samples:
        found += [
            (f"memory grows by less than {100 * GROWTH_BAR:.0f} %", soak.growth < GROWTH_BAR),
            ("no queue grows", max(sample[3] for sample in soak.samples) <= 16),
            ("no thread is added", len({sample[2] for sample in soak.samples[1:]}) <= 1),
        ]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="after the warm-up")
    parser.add_argument(
        "--soak", type=float, metavar="MINUTES", help="run so long, and watch memory and threads"
    )
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--fps", type=int, default=30, help="of the camera")
    parser.add_argument(
        "--hold", type=int, help="frames that a drawing is shown for (default: as few as keep up)"
    )
    parser.add_argument("--weights", default=None)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of the network")
    parser.add_argument(
        "--pairs", type=int, metavar="N", help="sessions without and with everything on, in turn"
    )
    parser.add_argument("--record", action="store_true", help="record to a file as well")
    parser.add_argument("--json", type=Path, help="write everything there")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory(prefix="gnr-video-live-") as name:
        clip = make_demo_clip(Path(name) / "camera.mp4", seconds=4, fps=options.fps, size=(width, height))
        if options.pairs:
            return cost(options, clip, Path(name))
        report, soak = measure(options, clip, Path(name))
    print(f"{report.settings['size']} at {options.fps} fps, {report.engine}, {report.weights}")
    drawn = report.stages["network"].count / report.seconds
    print(f"{report.frames} pictures in {report.seconds:.1f} s: {report.fps:.1f} fps, {drawn:.1f} drawn")
    print(stage_table(report.stages))
    if soak.samples:
        first, last = soak.samples[0][1], soak.samples[-1][1]
        print(f"memory {first:.0f} -> {last:.0f} MiB, settled growth {100 * soak.growth:+.1f} %")
    checked = bars(report, soak)
    for text, reached in checked:
        print(f"{'ok' if reached else 'MISSED':7}{text}")
    if options.json:
        result = {"hardware": hardware(), "report": json.loads(report.to_json()), "soak": asdict(soak)}
        options.json.write_text(
            json.dumps(result | {"bars": dict(checked)}, indent=2) + "\n", encoding="utf-8"
        )
    return 0 if all(reached for _, reached in checked) else 1


if __name__ == "__main__":
    exit_with(main)
