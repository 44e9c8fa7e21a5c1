"""A run's account: stage times, counts, fallbacks, hardware, versions."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engines.files import write_atomically
from engines.installation import install_line
from gnr_video.machine import this_machine, versions
from gnr_video.timing import StageSummary, stage_table

FASTER = "on a CPU without bf16, --precision int8 makes the network about 1.5 times as fast"
TIP_SECONDS = 30.0


@dataclass
class Report:
    """What a run did.

    Attributes:
        source, target: what was read and written, as the user named it.
        frames: frames written.
        faces: faces translated, summed over the frames.
        frames_without_face: frames that show the source picture, for want of a face.
        covered: frames in which a face was covered, by reason (`gnr_video.privacy.REASONS`).
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
    covered: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    stages: dict[str, StageSummary] = field(default_factory=dict)
    engine: str = ""
    weights: str = ""
    style: str = ""
    fallbacks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=lambda: this_machine())
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
        if self.covered:
            lines.append(f"frames covered: {covered_line(self.covered)}")
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


def covered_line(covered: Mapping[str, int]) -> str:
    """Frames that were covered, for people: "31 lost, 4 beginning"."""
    return ", ".join(f"{count} {reason}" for reason, count in covered.items())


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
