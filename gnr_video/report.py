"""Measures every stage of a run and reports it: stage times, counts, fallbacks, hardware, versions."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engines.installation import install_line
from gnr_video._version import __version__
from gnr_video.files import write_atomically

# A fixed logarithmic histogram: 1 us to 1000 s in steps of 2 %, so a percentile is within 1 % after any
# number of frames, in 8 KB a stage.
_LOWEST_SECONDS = 1e-6
_STEP = 1.02
_BINS = math.ceil(math.log(1e9) / math.log(_STEP)) + 1
_LOG_STEP = math.log(_STEP)

VERSIONED = {
    "gnr-video": "gnr-video",
    "torch": "torch",
    "openvino": "openvino",
    "onnxruntime": "onnxruntime",
    "tensorrt": "tensorrt",
    "mediapipe": "mediapipe",
    "av": "av",
    "opencv": "opencv-python",
    "numpy": "numpy",
}
"""Name in the report -> distribution whose version it is."""

FASTER = "on a CPU without bf16, --precision int8 makes the network about 1.5 times as fast"
TIP_SECONDS = 30.0


@dataclass(frozen=True)
class StageSummary:
    """How long one stage took per call, milliseconds.

    Percentiles come from a histogram with bins 2 % wide; count, mean, total and the extremes are exact.
    """

    count: int
    total_seconds: float
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


class _Histogram:
    """Counts of durations in logarithmic bins."""

    __slots__ = ("bins", "count", "highest", "lowest", "total")

    def __init__(self) -> None:
        self.bins = [0] * _BINS
        self.count = 0
        self.total = 0.0
        self.lowest = math.inf
        self.highest = 0.0

    def add(self, seconds: float) -> None:
        index = 0
        if seconds > _LOWEST_SECONDS:
            index = min(int(math.log(seconds / _LOWEST_SECONDS) / _LOG_STEP), _BINS - 1)
        self.bins[index] += 1
        self.count += 1
        self.total += seconds
        self.lowest = min(self.lowest, seconds)
        self.highest = max(self.highest, seconds)

    def percentile(self, percent: float) -> float:
        """The smallest duration (seconds) that at least `percent` of the calls did not exceed; 0 if empty."""
        rank = max(1, math.ceil(self.count * percent / 100.0))
        seen = 0
        for index, n in enumerate(self.bins):
            seen += n
            if n and seen >= rank:
                middle = _LOWEST_SECONDS * math.exp((index + 0.5) * _LOG_STEP)
                return min(max(middle, self.lowest), self.highest)
        return 0.0


class _Span:
    """Times one `with` block."""

    __slots__ = ("name", "start", "times")

    def __init__(self, times: StageTimes, name: str) -> None:
        self.times = times
        self.name = name
        self.start = 0.0

    def __enter__(self) -> _Span:
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.times.add(self.name, time.perf_counter() - self.start)


class StageTimes:
    """Durations of named stages, from any thread, in memory that does not grow with the number of frames.

    >>> times = StageTimes()
    >>> with times.stage("track"):
    ...     pass
    >>> times.summary()["track"].count
    1
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages: dict[str, _Histogram] = {}

    def stage(self, name: str) -> _Span:
        """A context manager that adds the time of its block to stage `name` (also when the block raises)."""
        return _Span(self, name)

    def add(self, name: str, seconds: float) -> None:
        """Add one duration that was measured elsewhere.

        Raises:
            ValueError: a duration that is negative or not finite.
        """
        if not 0.0 <= seconds < math.inf:
            raise ValueError(f"a duration must be finite and not negative, got {seconds}")
        with self._lock:
            histogram = self._stages.get(name)
            if histogram is None:
                histogram = self._stages[name] = _Histogram()
            histogram.add(seconds)

    def reset(self) -> None:
        """Forget everything measured so far (after a warm-up)."""
        with self._lock:
            self._stages.clear()

    def summary(self) -> dict[str, StageSummary]:
        """The stages in the order in which they were first measured."""
        with self._lock:
            return {
                name: StageSummary(
                    count=h.count,
                    total_seconds=h.total,
                    mean_ms=1e3 * h.total / h.count,
                    p50_ms=1e3 * h.percentile(50),
                    p95_ms=1e3 * h.percentile(95),
                    p99_ms=1e3 * h.percentile(99),
                    max_ms=1e3 * h.highest,
                )
                for name, h in self._stages.items()
            }


@dataclass
class Report:
    """What a run did.

    Attributes:
        source, target: what was read and written, as the user named it.
        frames: frames written.
        faces: faces translated, summed over the frames.
        frames_without_face: frames that show the source picture, for want of a face.
        seconds: wall time from the first frame read to the last packet written.
        stages: time per call of each stage (`StageTimes.summary`).
        engine: what executed the generator ("openvino bf16 on CPU").
        weights, style: what it was given.
        fallbacks: why a faster or asked-for way was passed over, one line each.
        warnings: what the user should know, one line each.
        settings: other options of the run.
        hardware, versions: of this machine; see `hardware` and `versions`.
    """

    source: str = ""
    target: str = ""
    frames: int = 0
    faces: int = 0
    frames_without_face: int = 0
    seconds: float = 0.0
    stages: dict[str, StageSummary] = field(default_factory=dict)
    engine: str = ""
    weights: str = ""
    style: str = ""
    fallbacks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=lambda: _machine())
    versions: dict[str, str] = field(default_factory=lambda: versions())

    @property
    def fps(self) -> float:
        """Frames per second of wall time; 0 before anything was measured."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    @property
    def tip(self) -> str:
        """What would have made a run of some length faster; "" if nothing is known."""
        network = self.stages.get("network")
        long = self.seconds > TIP_SECONDS and network is not None and network.total_seconds > self.seconds / 2
        return f"{FASTER} ({install_line('int8')})" if long and self.engine == "openvino fp32 on cpu" else ""

    def table(self) -> str:
        """The stages' times as aligned text, the slowest stage marked: it sets the pipeline's rate."""
        lines = [f"{self.frames} frames in {self.seconds:.2f} s: {self.fps:.1f} fps"]
        if self.engine:
            lines[0] += f", {self.engine}"
        lines.append(
            f"faces: {self.faces} in {self.frames - self.frames_without_face} frames, "
            f"{self.frames_without_face} frames without a face"
        )
        if self.stages:
            lines += ["", *stage_table(self.stages).splitlines()]
        lines += [f"fallback: {text}" for text in self.fallbacks]
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join(lines)

    def to_json(self) -> str:
        """The report as strict JSON (a number that is not finite becomes null)."""
        values = asdict(self)
        values["fps"] = self.fps
        return json.dumps(_finite(values), indent=2, allow_nan=False, default=str)

    def write(self, path: str | Path) -> None:
        """Write `to_json` to `path`, under a temporary name first.

        Raises:
            OutputError: the file cannot be written.
        """
        write_atomically(path, (self.to_json() + "\n").encode())


def stage_table(stages: Mapping[str, StageSummary]) -> str:
    """Stages as aligned text: calls, mean and percentiles in milliseconds; `*` marks the largest total."""
    header = ["stage", "calls", "mean ms", "p50", "p95", "p99", "max"]
    slowest = max(stages, key=lambda name: stages[name].total_seconds, default="")
    rows = [
        [
            f"{name} *" if name == slowest and len(stages) > 1 else name,
            str(s.count),
            *(f"{ms:.2f}" for ms in (s.mean_ms, s.p50_ms, s.p95_ms, s.p99_ms, s.max_ms)),
        ]
        for name, s in stages.items()
    ]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:]))])
        for row in [header, *rows]
    )


def versions() -> dict[str, str]:
    """Versions of Python and of the packages a run depends on; those not installed are left out."""
    found = {"python": platform.python_version()}
    for name, distribution in VERSIONED.items():
        version = distribution_version(distribution)
        if version is not None:
            found[name] = version
    found.setdefault("gnr-video", __version__)
    return found


def distribution_version(name: str) -> str | None:
    """Version of an installed distribution, without importing it; None when it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def hardware() -> dict[str, Any]:
    """This machine: CPU model, cores, memory, GPUs, operating system, and `versions` of the packages.

    `cores_usable` counts the cores that this process may run on. The names of GPUs come from torch, which is
    imported for it.
    """
    return {**_machine(), "versions": versions()}


def _machine() -> dict[str, Any]:
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count() or 1,
        "cores_usable": usable_cores(),
        "ram_gb": _ram_gb(),
        "gpu": gpu_names(),
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def cpu_model() -> str:
    """The CPU's marketing name, or the machine type where the system does not tell."""
    if sys.platform.startswith("linux"):
        try:
            for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
                if line.lower().startswith(("model name", "hardware")):
                    return line.split(":", 1)[1].strip()
        except OSError:
            pass
    if sys.platform == "darwin":
        try:
            answer = subprocess.run(
                ["sysctl", "-n", "machdep.cpu.brand_string"],
                capture_output=True,
                text=True,
                timeout=2,
                check=True,
            )
            return answer.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass
    return os.environ.get("PROCESSOR_IDENTIFIER") or platform.processor() or platform.machine()


def gpu_names() -> list[str]:
    """Names of the GPUs that torch can use."""
    try:
        import torch

        if torch.cuda.is_available():
            return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if getattr(torch.backends, "mps", None) and torch.backends.mps.is_available():
            return ["Apple GPU (mps)"]
    except Exception:  # a broken driver must not break a report
        pass
    return []


def usable_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _ram_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
