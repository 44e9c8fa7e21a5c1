"""Accuracy of tracking, alignment and smoothing under known motion: file mode and live mode.

A photograph of a face (scikit-image's astronaut) is moved by a known similarity transform over a background
of blurred noise; the crop that the pipeline finds is compared with the crop that moves along exactly.

    python -m benchmarks.tracking [--json FILE] [--image-mode] [--graphs]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import exit_with
from gnr_video.frame import Alignment, Face, Image
from gnr_video.machine import hardware
from gnr_video.tracking.alignment import CROP, crop_face, fit_alignment
from gnr_video.tracking.smoothing import Aligner
from gnr_video.tracking.tracker import FaceTracker

WIDTH, HEIGHT, FPS, FRAMES = 1280, 720, 30, 300
NOISE = 6.0
MAGNIFICATION = 1.6
REFERENCE = slice(5, 55)
STILL = ((0.5, 1.8), (8.6, 9.8))
SLOW = ((2.5, 4.7),)
FAST = ((5.5, 7.7),)


@dataclass(frozen=True)
class Pose:
    """Where the portrait is: a similarity transform about its own centre."""

    x: float
    y: float
    log_scale: float
    angle: float

    def matrix(self) -> NDArray[np.float64]:
        """2x3 from coordinates of the magnified portrait (centre at 0) to frame pixels."""
        c = math.exp(self.log_scale) * math.cos(self.angle)
        s = math.exp(self.log_scale) * math.sin(self.angle)
        return np.array([[c, -s, self.x], [s, c, self.y]])


def pose_at(t: float) -> Pose:
    """The known motion: still, slow from 2 s to 5 s, fast from 5 s to 8 s, still."""

    def logistic(x: float) -> float:
        return 1.0 / (1.0 + math.exp(-x))

    slow = logistic(15 * (t - 2)) * logistic(-15 * (t - 5))
    fast = logistic(15 * (t - 5)) * logistic(-15 * (t - 8))
    a, b, pi = t - 2, t - 5, math.pi
    return Pose(
        x=640 + 60 * slow * math.sin(0.8 * pi * a) + 120 * fast * math.sin(2 * pi * b),
        y=360 + 30 * slow * math.sin(0.6 * pi * a) + 50 * fast * math.sin(1.6 * pi * b),
        log_scale=0.10 * slow * math.sin(0.6 * pi * a) + 0.12 * fast * math.sin(1.4 * pi * b),
        angle=math.radians(6 * slow * math.sin(0.8 * pi * a) + 12 * fast * math.sin(1.8 * pi * b)),
    )


def scene(times: Sequence[float], *, seed: int = 0) -> Iterator[Image]:
    """Frames uint8 720x1280x3 at these times; the same ones for the same seed."""
    from skimage.data import astronaut

    rng = np.random.default_rng(seed)
    portrait = np.ascontiguousarray(astronaut()[0:300, 70:370])
    background = cv2.GaussianBlur(rng.normal(0, 1, (HEIGHT, WIDTH, 3)).astype(np.float32), (0, 0), 25)
    background = np.clip(128 + 40 * background / background.std(), 0, 255).astype(np.uint8)
    half = (portrait.shape[0] - 1) / 2
    for t in times:
        matrix = pose_at(t).matrix()
        matrix[:, :2] *= MAGNIFICATION
        matrix[:, 2] -= matrix[:, :2] @ (half, half)
        frame = background.copy()
        cv2.warpAffine(
            portrait,
            matrix,
            (WIDTH, HEIGHT),
            dst=frame,
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_TRANSPARENT,
        )
        noise = rng.standard_normal(frame.shape, dtype=np.float32)
        yield np.clip(frame + NOISE * noise, 0, 255).astype(np.uint8)


def corners(alignment: Alignment) -> NDArray[np.float64]:
    """The crop's four corners in the frame: 4x2, pixels."""
    square = np.array([[0, 0, 1], [CROP, 0, 1], [CROP, CROP, 1], [0, CROP, 1]], np.float64)
    return square @ alignment.crop_to_frame().T


@dataclass(frozen=True)
class Accuracy:
    """Corner errors in pixels of the 256 crop, lag in milliseconds."""

    found: int
    frames: int
    still: float
    slow: float
    fast: float
    jitter: float
    lag_ms: float


def accuracy(times: NDArray[np.float64], found: Sequence[Alignment | None]) -> Accuracy:
    """Compare the crops found at `times` with the mean crop of frames 5 to 54 carried along exactly."""
    poses = [pose_at(float(t)).matrix() for t in times]
    present = np.array([a is not None for a in found])
    # In the portrait's own coordinates a perfect crop would stand still.
    own = np.full((len(times), 4, 2), np.nan)
    for i, alignment in enumerate(found):
        if alignment is not None:
            own[i] = (corners(alignment) - poses[i][:, 2]) @ np.linalg.inv(poses[i][:, :2]).T
    reference = np.nanmean(own[REFERENCE], axis=0)
    truth = np.array([reference @ m[:, :2].T + m[:, 2] for m in poses])
    # Frame pixels of a crop pixel, from the true crop's own side.
    scale = np.linalg.norm(truth[:, 1] - truth[:, 0], axis=1) / CROP
    error = np.full_like(own, np.nan)
    for i, alignment in enumerate(found):
        if alignment is not None:
            error[i] = (corners(alignment) - truth[i]) / scale[i]

    def during(spans: Sequence[tuple[float, float]]) -> NDArray[np.bool_]:
        return np.any([(times >= a) & (times <= b) for a, b in spans], axis=0)

    def rms(values: NDArray[np.float64]) -> float:
        """Root mean square distance of a corner."""
        values = values[~np.isnan(values).any(axis=(1, 2))]
        return float(np.sqrt((values**2).sum(-1).mean())) if len(values) else math.nan

    velocity = np.gradient(truth, times, axis=0) / scale[:, None, None]
    moving = during(SLOW + FAST) & present
    still = during(STILL)
    pairs = still[1:] & still[:-1]
    lag = (
        -float((error[moving] * velocity[moving]).sum() / (velocity[moving] ** 2).sum())
        if moving.any()
        else math.nan
    )
    return Accuracy(
        found=int(present.sum()),
        frames=len(times),
        still=rms(error[still]),
        slow=rms(error[during(SLOW)]),
        fast=rms(error[during(FAST)]),
        jitter=rms(np.diff(error, axis=0)[pairs]),
        lag_ms=lag * 1000,
    )


def track(
    frames: Iterator[Image], times: Sequence[float], *, graphs: bool = False
) -> tuple[list[list[Face]], float, float]:
    """(the faces of each frame, milliseconds a frame for tracking, for cutting the crop out)."""
    faces, tracking, cropping = [], 0.0, 0.0
    with FaceTracker(graphs=graphs) as tracker:
        for t, frame in zip(times, frames):
            start = time.perf_counter()
            faces.append(tracker.track(frame, t))
            tracked = time.perf_counter()
            if faces[-1]:
                crop_face(frame, fit_alignment(faces[-1][0]))
            tracking += tracked - start
            cropping += time.perf_counter() - tracked
    return faces, tracking / len(faces) * 1000, cropping / len(faces) * 1000


def align(
    faces: Sequence[list[Face]], times: Sequence[float], lookahead: int
) -> tuple[list[Alignment | None], float]:
    """(each frame's alignment, milliseconds a frame)."""
    aligner = Aligner(lookahead)
    start = time.perf_counter()
    final = [done for t, f in zip(times, faces) for done in aligner.push(t, f)]
    final += aligner.flush()
    spent = (time.perf_counter() - start) / len(times) * 1000
    return [frame[0] if frame else None for frame in final], spent


def image_mode(frames: Iterator[Image]) -> list[Alignment | None]:
    """Each frame by itself, without memory: what tracking and filtering gain."""
    found: list[Alignment | None] = []
    for frame in frames:
        with FaceTracker() as tracker:
            faces = tracker.track(frame, 0.0)
        found.append(fit_alignment(faces[0]) if faces else None)
    return found


def measure(
    frames: int = FRAMES,
    lookahead: int = 15,
    *,
    per_image: bool = False,
    seed: int = 0,
    graphs: bool = False,
) -> dict[str, Any]:
    """Run the protocol; returns what `--json` writes."""
    times = [i / FPS for i in range(frames)]
    faces, tracking_ms, crop_ms = track(scene(times, seed=seed), times, graphs=graphs)
    file_mode, file_ms = align(faces, times, lookahead)
    live, live_ms = align(faces, times, 0)
    t = np.array(times)
    modes = {f"file, {lookahead} frames ahead": accuracy(t, file_mode), "live": accuracy(t, live)}
    if per_image:
        modes["each image by itself"] = accuracy(t, image_mode(scene(times, seed=seed)))
    return {
        "hardware": hardware(),
        "seed": seed,
        "modes": {name: asdict(a) for name, a in modes.items()},
        "ms_per_frame": {
            "track": tracking_ms,
            "fit and smooth, file": file_ms,
            "fit and smooth, live": live_ms,
            "fit and crop": crop_ms,
        },
    }


def mean(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The same table with each figure averaged."""

    def average(tables: Sequence[dict[str, float]]) -> dict[str, float]:
        return {key: float(np.mean([t[key] for t in tables])) for key in tables[0]}

    return {
        "hardware": results[0]["hardware"],
        "seed": "mean",
        "modes": {name: average([r["modes"][name] for r in results]) for name in results[0]["modes"]},
        "ms_per_frame": average([r["ms_per_frame"] for r in results]),
    }


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = [
        f"hardware: {result['hardware']['cpu']}, {result['hardware']['cores_usable']} cores",
        "corner error, px of the 256 crop (RMS)",
        f"{'':24}{'found':>9}{'still':>8}{'slow':>8}{'fast':>8}{'jitter':>8}{'lag ms':>8}",
    ]
    for name, m in result["modes"].items():
        lines.append(
            f"{name:24}{m['found']:>5.0f}/{m['frames']:.0f}{m['still']:8.3f}{m['slow']:8.2f}{m['fast']:8.2f}"
            f"{m['jitter']:8.3f}{m['lag_ms']:8.2f}"
        )
    lines += [f"{name:24}{ms:8.2f} ms per frame" for name, ms in result["ms_per_frame"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--image-mode", action="store_true", help="measure single images, too (1 min)")
    parser.add_argument(
        "--graphs", action="store_true", help="faces followed by MediaPipe's graphs, as without OpenVINO"
    )
    parser.add_argument(
        "--seeds", type=int, default=16, help="repeat with other noise: still errors vary by 10 %%"
    )
    options = parser.parse_args()
    results = [
        measure(per_image=options.image_mode, seed=seed, graphs=options.graphs)
        for seed in range(options.seeds)
    ]
    if len(results) > 1:
        results.append(mean(results))
    for result in results:
        print(f"noise seed: {result['seed']}", table(result), sep="\n", end="\n\n")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    exit_with(main)
