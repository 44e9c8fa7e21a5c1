"""How long a run that begins in the middle of a video takes until its pictures are those of a run over all of it.

    python benchmarks/resume.py clip.mp4 --at 2 4 6

Each run goes on from what the run over all of it wrote down before that frame, as resumed renders do
(gnr_video/segments/render.py). Pictures are compared before they are encoded.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from engines.accuracy import EQUAL, psnr  # noqa: E402
from gnr_video import pipeline  # noqa: E402
from gnr_video.frame import Frame, Image  # noqa: E402
from gnr_video.media.open import open_source  # noqa: E402
from gnr_video.options import EngineOptions, LookOptions  # noqa: E402
from gnr_video.segments.written import from_json, to_json  # noqa: E402
from gnr_video.timing import StageTimes  # noqa: E402
from gnr_video.tracking.finder import Finder  # noqa: E402
from gnr_video.translator import Translator  # noqa: E402

BINS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
"""Seconds after the beginning at which what is told begins anew."""


def run(
    translator: Translator,
    frames: Iterator[Frame],
    write: Callable[[Frame], None],
    states: dict[str, Any] | None = None,
) -> None:
    """One run of the pipeline over some frames."""
    with (
        Finder(translator.face_model, translator.faces, translator.lookahead) as finder,
        closing(translator.open_look()) as look,
    ):
        finder.reset()
        look.reset()
        pipeline.run(
            frames,
            write,
            finder,
            look,
            StageTimes(),
            styles=translator.schedule(),
            hold=translator.hold,
            states=states,
        )


def settling(translator: Translator, clip: str, begins: list[float], span: float) -> dict[float, list[float]]:
    """PSNR of the frames after each beginning, by the number of the frame."""
    kept: dict[float, list[Image]] = {begin: [] for begin in begins}
    states: dict[float, dict[str, Any]] = {}

    def noting(frames: Iterator[Frame]) -> Iterator[Frame]:
        left = sorted(begins)
        for frame in frames:
            if left and frame.pts_seconds >= left[0]:
                states[left.pop(0)] = frame.props["states"] = {"first": 0.0, "at": frame.pts_seconds}
            yield frame

    def keep(frame: Frame) -> None:
        for begin in begins:
            if begin in states and 0 <= frame.pts_seconds - states[begin]["at"] < span:
                kept[begin].append(frame.image)

    with open_source(clip) as source:
        run(translator, noting(iter(source)), keep)
    found: dict[float, list[float]] = {}
    for begin in begins:
        begun = from_json(to_json(states[begin]))
        values = found[begin] = []

        def compare(frame: Frame, begin: float = begin, values: list[float] = values) -> None:
            if len(values) < len(kept[begin]):
                values.append(psnr(frame.image, kept[begin][len(values)]))

        def part(frames: Iterator[Frame], begin: float = begun["at"]) -> Iterator[Frame]:
            for frame in frames:
                if frame.pts_seconds >= begin + span + 2:
                    return
                if frame.pts_seconds >= begin:
                    yield frame

        with open_source(clip) as source:
            run(translator, part(iter(source)), compare, begun)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clip")
    parser.add_argument("--at", type=float, nargs="+", default=[2.0, 4.0], help="seconds to begin at")
    parser.add_argument("--span", type=float, default=5.0, help="seconds to look at")
    parser.add_argument("--weights")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--hold", type=int, default=1)
    parser.add_argument("--paste", default="head")
    asked = parser.parse_args()
    look = LookOptions(paste=asked.paste, hold=asked.hold)
    print("worst PSNR, dB, and frames that are not the same, by seconds after the beginning")
    print("begin", *(f"{begin:>10.2f}" for begin in BINS))
    with open_source(asked.clip) as source:
        rate = float(source.info.average_rate or 30)
    with Translator(asked.weights, engine=EngineOptions(asked.engine), look=look) as translator:
        for begin, values in settling(translator, asked.clip, asked.at, asked.span).items():
            cells = []
            for low, high in zip(BINS, (*BINS[1:], math.inf)):
                part = [v for i, v in enumerate(values) if low <= i / rate < high]
                other = sum(v < EQUAL for v in part)
                cells.append(f"{min(part):5.1f} {other:2d}/{len(part):2d}" if part else " " * 10)
            print(f"{begin:5.1f}", *(f"{cell:>10}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
