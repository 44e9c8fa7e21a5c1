"""The model card's table of metrics: weights, what doing nothing and what real drawings give, and clips.

    python -m benchmarks.quality DATA [--weights NAME|FILE ...] [--outputs FOLDER ...] [--videos FOLDER]
        [--ink] [--quick] [--json FILE]

DATA holds testA and testB (and trainB). Two columns stand beside the weights: "input" compares testA itself with
testB, which is what a translator that changes nothing gets, and "real" compares as many drawings of trainB with
testB, which is the best that test sets of this size can show. Intervals are 95 %, from resampling. Small test
sets make FID larger than it would be with thousands of pictures; KID does not depend on their number.
"""

from __future__ import annotations

import engines  # before torch, for how its OpenMP threads wait

# isort: split

import argparse
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from engines.devices import best_device
from engines.errors import InputError, exit_with
from engines.files import write_atomically
from engines.weights import load_weights
from gnr_video.checkpoints import resolve_weights
from gnr_video.effects.ink import inked
from gnr_video.frame import Image
from gnr_video.machine import hardware
from gnr_video.samples.face_clip import face_run
from train.metrics.evaluate import FULL, QUICK, Evaluator, Networks, format_table, report_json
from train.metrics.pictures import Folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.base import Engine

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
VIDEOS = {".mp4", ".mkv", ".mov", ".webm", ".gif"}


def read_clips(folder: Path, frames: int) -> dict[str, list[Image]]:
    """The face of each video in a folder, by name; videos that show none are left out."""
    found = {}
    for file in sorted(f for f in folder.iterdir() if f.suffix.lower() in VIDEOS):
        try:
            found[file.name] = face_run(file, frames=frames)
        except InputError as error:
            print(f"{file.name}: {error}", file=sys.stderr)
    return found


class Inked:
    """An engine whose pictures are inked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._engine, name)
        if name not in ("translate", "decode", "decode_styles"):
            return found
        return lambda *arguments: np.stack([inked(picture) for picture in found(*arguments)])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", nargs="*", default=["default"])
    parser.add_argument("--outputs", nargs="*", type=Path, default=[], help="folders of finished outputs")
    parser.add_argument("--videos", type=Path, default=SHARED / "data" / "video", help="folder of clips")
    parser.add_argument("--ink", action="store_true", help="measure the weights once more with inked lines")
    parser.add_argument("--inception", help="Inception's weights: a file, or download")
    parser.add_argument("--lpips-trunk", type=Path, help="folder with VGG16 and AlexNet trunk weights")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    started = time.monotonic()
    settings = QUICK if options.quick else FULL
    networks = Networks.load(
        trunk=options.lpips_trunk,
        inception=None if options.inception in (None, "download") else Path(options.inception),
        download=options.inception == "download",
        path_length=settings.paths > 0,
        device=best_device(),
    )
    clips = read_clips(options.videos, settings.clip_frames) if options.videos.is_dir() else {}
    evaluator = Evaluator(Folder.open(options.data / "testB", settings.limit), networks, settings)
    faces = Folder.open(options.data / "testA", settings.limit)
    folders = {"input": faces}
    if (options.data / "trainB").is_dir():
        folders["real"] = Folder.open(options.data / "trainB", len(evaluator.real))
    folders |= {folder.name: Folder.open(folder, settings.limit) for folder in options.outputs}
    frames = sum(map(len, clips.values()))
    shown: dict[str, Callable[[Engine], Any]]
    shown = {"": lambda engine: engine, ", inked": Inked} if options.ink else {"": lambda engine: engine}
    columns = len(options.weights) * len(shown)
    total = evaluator.units(len(faces), map(len, folders.values()), columns, frames)

    results = []
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=total, disable=not sys.stderr.isatty(), leave=False))

        def advance(stage: str) -> None:
            bar.set_description_str(stage, refresh=False)
            bar.update()

        evaluator.advance = advance
        for name in options.weights:
            loaded = load_weights(resolve_weights(name))
            with engines.create(loaded) as engine:
                for suffix, as_shown in shown.items():
                    column = name + suffix
                    results.append(
                        evaluator.generator(
                            column, as_shown(engine), faces, weights=loaded, clips=list(clips.values())
                        )
                    )
        for name, folder in folders.items():
            results.append(evaluator.outputs(name, folder))
    machine = hardware()
    print(format_table(results, markdown=True))
    print(
        f"\n{len(evaluator.real)} real pictures, {len(faces)} faces, {len(clips)} clips ({frames} frames); "
        f"{time.monotonic() - started:.0f} s on {machine['cpu']}, {machine['cores_usable']} cores"
    )
    for note in dict.fromkeys(note for result in results for note in result.notes):
        print(f"note: {note}")
    if options.json:
        report = report_json(results, evaluator, hardware=machine, clips=sorted(clips))
        write_atomically(options.json, json.dumps(report, indent=2).encode())
    return 0


if __name__ == "__main__":
    exit_with(main)
