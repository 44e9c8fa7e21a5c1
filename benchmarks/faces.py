"""What several faces cost: a clip of two people beside a copy of itself, four faces, against one face alone.

    python -m benchmarks.faces --frames 60

Prints milliseconds a frame of tracking, network and the whole way (without decoding and encoding), and ratios.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from engines.errors import exit_with
from gnr_video import Frame, Translator
from gnr_video.frame import Image
from gnr_video.hold import Drawings
from gnr_video.machine import hardware
from gnr_video.pipeline import Counts, Look, compose, cut, draw
from gnr_video.samples.portrait import portrait
from gnr_video.timing import StageTimes
from gnr_video.tracking.finder import Finder

SIZE = (1280, 400)


def picture(count: int, shift: float) -> Image:
    """`count` heads side by side, moved by `shift` pixels; uint8."""
    head = cv2.resize(portrait()[5:245, 105:345], (280, 280), interpolation=cv2.INTER_LINEAR)
    frame = np.full((SIZE[1], SIZE[0], 3), 110, np.uint8)
    for i in range(count):
        left, top = round(20 + 315 * i + shift), round(60 + shift / 2)
        frame[top : top + 280, left : left + 280] = head if i % 2 == 0 else head[:, ::-1]
    return frame


def frames(faces: int, count: int) -> Iterator[Frame]:
    for i in range(count):
        yield Frame(picture(faces, 8 + 8 * np.sin(i / 8)), i, Fraction(1, 30), i)


def measure(translator: Translator, faces: int, count: int) -> dict[str, float]:
    """Milliseconds a frame with so many faces; the first ten frames are not counted."""
    results = {}
    times, counts = StageTimes(), Counts()
    look = Look(translator.engine, translator.compositor, translator.effects)
    with Finder(translator.face_model, translator.faces) as finder:
        found = cut(finder.track(frames(faces, count + 10), times), look, times)
        drawings = Drawings(look.engine, look.effects, times)
        done = compose(draw(found, look, drawings, times, styles=translator.schedule()), look, times)
        for _ in range(10):
            next(done)
        start = time.perf_counter()
        for item in done:
            counts.add(item)
        results["total_ms"] = 1e3 * (time.perf_counter() - start) / count
    results["faces_found"] = counts.faces / count
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--weights")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with Translator(options.weights, "42,7,3,9") as translator:
        one, four = (measure(translator, n, options.frames) for n in (1, 4))
    ratio = four["total_ms"] / one["total_ms"]
    print(f"one face    {one['total_ms']:6.1f} ms a frame ({one['faces_found']:.2f} found)")
    print(f"four faces  {four['total_ms']:6.1f} ms a frame ({four['faces_found']:.2f} found): {ratio:.2f} x")
    if options.json:
        options.json.write_text(
            json.dumps({"one": one, "four": four, "ratio": ratio, "hardware": hardware()})
        )


if __name__ == "__main__":
    exit_with(main)
