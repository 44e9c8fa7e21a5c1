"""How drawn mouths follow the face's: as the network makes them, and drawn from landmarks.

    python -m benchmarks.expression CLIP [CLIP ...] [--frames 300] [--json FILE]

Followed is the correlation, over the frames of a clip, of how far the lips are apart with how much of the drawing there
is not skin. Jitter is the mean second difference in time of the same part, in levels of 255. Milliseconds are those of
drawing the mouth and eyelids of one face, the median.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import closing
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import steadiness
from engines.errors import exit_with
from engines.files import write_atomically
from gnr_video import Translator
from gnr_video.effects.expression import Expression, lips_apart, unlike_skin
from gnr_video.frame import Alignment, Image
from gnr_video.hold import Drawings
from gnr_video.machine import hardware
from gnr_video.media.open import open_source
from gnr_video.pipeline import cut, draw
from gnr_video.timing import StageTimes
from gnr_video.tracking.finder import Finder


def drawings(translator: Translator, clip: Path, frames: int) -> list[tuple[Alignment, Image]]:
    """Where the first face is in each frame, and its drawing."""
    times = StageTimes()
    with (
        open_source(clip) as video,
        Finder(lookahead=15) as finder,
        closing(translator.open_look()) as look,
    ):
        taken = (frame for frame, _ in zip(video, range(frames)))
        made = draw(
            cut(finder.track(taken, times), look, times),
            look,
            Drawings(look.engine, look.effects, times),
            times,
            styles=translator.schedule(),
        )
        faces = (item.faces[0] for item in made if item.faces)
        return [(face.alignment, face.drawing) for face in faces if face.drawing is not None]


def measure(faces: list[tuple[Alignment, Image]]) -> dict[str, float]:
    """How well mouths follow, and how unsteady they are."""
    seen = [(lips_apart(place), *unlike_skin(place, picture)) for place, picture in faces]
    gaps, shares = np.array([gap for gap, *_ in seen]), np.array([share for _, share, _ in seen])
    # The part of the first frame: heads hardly move in their crops.
    x0, y0, x1, y1 = seen[0][2]
    jitter = steadiness.measure([picture[y0:y1, x0:x1] for _, picture in faces])["jitter"]
    return {"followed": float(np.corrcoef(gaps, shares)[0, 1]), "jitter": jitter}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    rows: dict[str, dict[str, dict[str, float]]] = {}
    print(f"{'clip':<28}{'':<18}{'followed':>10}{'jitter':>8}{'ms':>7}")
    with Translator(options.weights, style=42) as translator:
        for clip in options.clips:
            before = drawings(translator, clip, options.frames)
            expressions, after, took = Expression(), [], []
            for face in before:
                started = time.perf_counter()
                after += expressions.apply([face])
                took.append(1e3 * (time.perf_counter() - started))
            rows[clip.name] = {
                "network": measure(before),
                "from landmarks": measure(after) | {"milliseconds": median(took)},
            }
            for name, row in rows[clip.name].items():
                ms = f"{row['milliseconds']:7.2f}" if "milliseconds" in row else ""
                print(f"{clip.name:<28}{name:<18}{row['followed']:>10.2f}{row['jitter']:>8.2f}{ms}")
    if options.json:
        write_atomically(options.json, json.dumps({"hardware": hardware(), "clips": rows}, indent=2).encode())
    return 0


if __name__ == "__main__":
    exit_with(main)
