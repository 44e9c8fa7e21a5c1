"""Background: what is behind the people in a frame gives way to a blur, a colour or a picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from engines.errors import InputError
from gnr_video.frame import FaceLayer, Image
from gnr_video.media.images import read_image
from gnr_video.styles.colours import NAMED
from gnr_video.tracking.face_mesh import Mask
from gnr_video.tracking.matte import PersonMatte

SIDE = 256
"""Of the picture that people are looked for in: the network's own."""
EDGE_RADIUS, EDGE_EPSILON = 8, 1e-4
"""Of the guided filter that brings a matte to the picture's edges, in pixels of a frame 1280 wide, and 0..1 squared."""
GUIDE = 640
"""Longer side of the picture that it works on, pixels."""
BLUR = 0.03
"""Width of the blur, in longer sides of the frame."""
BLUR_SIDE = 160


@dataclass(frozen=True)
class Backdrop:
    """A `--background` value.

    Attributes:
        kind: "blur", "colour" or "picture".
        colour: RGB.
        picture: uint8 HxWx3 RGB.
    """

    kind: str
    colour: tuple[int, int, int] = (0, 0, 0)
    picture: Image | None = None

    @classmethod
    def parse(cls, text: str) -> Backdrop | None:
        """Of "keep" (None), "blur", a colour ("green", "#00ff00") or the name of a picture.

        Raises:
            InputError: none of these, or a picture that cannot be read.
        """
        word = text.strip().lower()
        if word == "keep":
            return None
        if word == "blur":
            return cls("blur")
        if match := re.fullmatch(r"#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})", word):
            return cls("colour", tuple(int(part, 16) for part in match.groups()))  # type: ignore[arg-type]
        if word in COLOURS:
            return cls("colour", COLOURS[word])
        if not Path(text).is_file():
            raise InputError(
                f"{text!r} is no background", "--background takes keep, blur, green, #00ff00, or a picture"
            )
        return cls("picture", picture=read_image(text))
