"""How much brighter faces are than what is around them: photographed, and drawn without and with the scene's light.

    python -m benchmarks.light CLIP [CLIP ...] [--frames 30] [--gain 1 0.3 0.1] [--json FILE]

Each clip as it is and darkened (`--gain`, of linear light). Brightness is mean luma, 0..255, of the face's oval and
of the rest of a square twice the face's crop.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from engines.errors import exit_with
from engines.files import write_atomically
from gnr_video import LookOptions, Translator
from gnr_video.frame import Alignment, Frame, Image
from gnr_video.machine import hardware
from gnr_video.media.open import open_source
from gnr_video.timing import StageTimes
from gnr_video.tracking.alignment import crop_face
from gnr_video.tracking.face_mesh import FACE_OVAL, in_pixels, polygon
from gnr_video.tracking.finder import Finder

SIDE = 128


def darkened(image: Image, gain: float) -> Image:
    """A picture with less light: `gain` of it, linear."""
    levels = 255 * (np.arange(256) / 255 * gain ** (1 / 2.2))
    return np.asarray(cv2.LUT(image, np.round(levels).astype(np.uint8)), np.uint8)


def faces(clip: Path, frames: int, gain: float) -> Iterator[tuple[Frame, Alignment]]:
    """Every tenth frame, darkened, and where its first face is."""
    with open_source(clip) as video, Finder() as finder:
        taken = (
            replace(frame, image=darkened(frame.image, gain))
            for frame, _ in zip(video, range(10 * frames), strict=False)
        )
        for number, item in enumerate(finder.track(taken, StageTimes())):
            if number % 10 == 0 and item.faces:
                yield item.frame, item.faces[0].alignment


def brighter(image: Image, face: Alignment) -> float:
    """Mean luma of a face less that of its surroundings."""
    assert face.landmarks is not None
    square = replace(face, scale=2 * face.scale)
    luma = cv2.cvtColor(crop_face(image, square, SIDE), cv2.COLOR_RGB2GRAY).astype(np.float64)
    oval = in_pixels(face.landmarks, SIDE)[list(FACE_OVAL)] / 2 + SIDE / 4
    weight = polygon(oval, SIDE) / 255.0
    return float((luma * weight).sum() / weight.sum() - (luma * (1 - weight)).sum() / (1 - weight).sum())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=30, help="of each clip, every tenth")
    parser.add_argument("--gain", nargs="+", type=float, default=[1.0, 0.3, 0.1])
    parser.add_argument("--weights", default="default")
    parser.add_argument("--style", default="42")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    def translator(light: bool) -> Translator:
        return Translator(options.weights, options.style, look=LookOptions(effects={"light": light}))

    rows = []
    with translator(False) as without, translator(True) as lit:
        for gain in options.gain:
            seen = []
            for clip in options.clips:
                for translating in (without, lit):
                    translating.reset()
                for frame, face in faces(clip, options.frames, gain):
                    pictures = (
                        frame.image, without.translate_frame(frame), lit.translate_frame(frame)
                    )  # fmt: skip
                    seen.append([brighter(picture, face) for picture in pictures])
            photo, plain, light = np.mean(seen, axis=0)
            rows.append({"gain": gain, "faces": len(seen), "photo": photo, "without": plain, "with": light})
            print(
                f"light x {gain:g}: photographed {photo:+.0f}, drawn {plain:+.0f}, in its light {light:+.0f}"
            )
    if options.json:
        report = {"rows": rows, "hardware": hardware()}
        write_atomically(options.json, json.dumps(report, indent=2).encode())
    return 0


if __name__ == "__main__":
    exit_with(main)
