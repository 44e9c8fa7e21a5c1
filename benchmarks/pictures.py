"""The pictures in the README and the model card, made anew from the current default weights.

    python -m benchmarks.pictures [--faces FOLDER] [--weights FILE]

They show the public-domain demo portrait and, from FOLDER, generated faces (FFHQ framing). No real person's
photograph is to be given here.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2

from engines.errors import InputError, exit_with
from engines.files import write_atomically
from gnr_video.contact_sheet import before_after_sheet, contact_sheet, save_png, style_sheet
from gnr_video.demo import STYLE
from gnr_video.frame import Image
from gnr_video.media.image_files import read_image
from gnr_video.media.image_sources import image_files
from gnr_video.samples.portrait import make_demo_clip, portrait
from gnr_video.still import StillFace
from gnr_video.translator import Translator

FOLDER = Path(__file__).parent.parent / "docs" / "images"
SEEDS = (0, 1, 2, 3, 4, 42)
PEOPLE_SEEDS = (42, 6, 9, 12)
COLORS = ("hair:blond", "hair:red", "hair:blue", "hair:pink+skin:tan")


def found_faces(translator: Translator, folder: Path, count: int) -> tuple[list[Image], list[Image]]:
    """The last `count` images of a folder in which a face is found (the trainer holds those out), and its crops."""
    files = image_files(folder)
    pictures: list[Image] = []
    faces: list[Image] = []
    for file in reversed(files):
        picture = read_image(file)
        try:
            faces.append(translator.find_face(picture))
        except InputError:
            continue
        pictures.append(picture)
        if len(faces) == count:
            break
    return pictures, faces


def in_styles(translator: Translator, picture: Image, styles: Sequence[int | str]) -> list[Image]:
    """A picture as it is and as it is translated in some styles."""
    made = [picture]
    for style in styles:
        translator.set_style(style)
        made.append(translator.translate_frame(picture))
    return made


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=Path, help="folder of generated faces for the sheets of people")
    parser.add_argument("--weights", default=None)
    parser.add_argument("--style", default=STYLE, help="style of the demo clip")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with Translator(options.weights, options.style) as translator, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clip, result = make_demo_clip(folder / "clip.mp4"), folder / "anime.mp4"
        translator.translate_video(clip, result)
        before_after_sheet(clip, result, folder / "demo.png", count=4, width=320)
        seeds = [translator.parse(seed) for seed in range(15)]
        save_png(folder / "styles.png", style_sheet(StillFace(translator, portrait()), seeds))
        if options.faces:
            pictures, faces = found_faces(translator, options.faces, 8)
            rows = [[face, *(translator.translate_face(face, seed) for seed in SEEDS)] for face in faces]
            labels = ["input", *(f"seed {seed}" for seed in SEEDS)]
            save_png(folder / "card.png", contact_sheet(rows, column_labels=labels, cell=128))
            people = [in_styles(translator, picture, PEOPLE_SEEDS) for picture in pictures[:4]]
            save_png(folder / "people.png", contact_sheet(people, cell=192))
            colored = [in_styles(translator, picture, COLORS) for picture in pictures[5:7]]
            labels = ["input", *COLORS]
            save_png(folder / "colours.png", contact_sheet(colored, column_labels=labels, cell=192))
        for picture in sorted(folder.glob("*.png")):
            pixels = cv2.imread(str(picture))
            assert pixels is not None
            _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])
            write_atomically(FOLDER / f"{picture.stem}.jpg", data.tobytes())
            print(FOLDER / f"{picture.stem}.jpg")
    return 0


if __name__ == "__main__":
    exit_with(main)
