"""Background: what is behind the people in a frame gives way to a blur, a colour or a picture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import InputError, StyleError
from gnr_video.compositing.masks import guided
from gnr_video.frame import Alpha, FaceLayer, Image
from gnr_video.media.image_files import read_image
from gnr_video.styles.color_names import rgb_of
from gnr_video.tracking.matte import PersonMatte

SIDE = 256
"""Of the picture that people are looked for in: the network's own."""
GUIDE = 640
"""Longer side of the picture by whose edges the matte is made sharp, pixels."""
RADIUS, EPSILON = 6, 1e-3
"""Of the guided filter: pixels of the guide, and the variance, 0..1 squared, that counts as an edge."""
SPILL = 15
"""Width of what colours at edges are taken from, pixels of half the guide."""
_OWN = np.clip((np.arange(256) - 150) * 3, 0, 255).astype(np.uint8)
BLUR = 0.02
"""Width of the blur, in longer sides of the frame."""
BLUR_SIDE = 240
"""Longer side of the picture that is blurred: nothing finer is left of it."""
KEY_GREEN = (0, 177, 64)


@dataclass(frozen=True, eq=False)
class Backdrop:
    """A `--background` value: a blur where there is neither a colour nor a picture, nor nothing at all.

    Attributes:
        color: RGB, 0..255.
        picture: uint8 HxWx3 RGB; it covers the frame, its middle in the frame's.
        transparent: nothing is behind people.
    """

    color: tuple[int, int, int] | None = None
    picture: Image | None = None
    transparent: bool = False

    def describe(self) -> str:
        """The same for the same background."""
        if self.picture is None:
            return "transparent" if self.transparent else str(self.color or "blur")
        return hashlib.sha256(self.picture.tobytes()).hexdigest()

    @classmethod
    def parse(cls, text: str) -> Backdrop | None:
        """Of "keep" (None), "blur", "key" (a green screen's green), "transparent", a colour
        ("white", "#00ff00"), or a picture's name.

        Raises:
            InputError: none of these, or a picture that cannot be read.
        """
        word = text.strip().lower()
        if word == "keep":
            return None
        if word in ("blur", "key"):
            return cls(KEY_GREEN if word == "key" else None)
        if word == "transparent":
            return cls(transparent=True)
        if Path(text).is_file():
            return cls(picture=read_image(text))
        try:
            return cls(rgb_of(word))
        except StyleError as error:
            raise InputError(
                f"{text!r} is no background",
                "--background takes keep, blur, key (green), transparent, a colour (white, #00ff00) or a picture",
            ) from error


class Background:
    """Replaces what is behind the people of one video. A context manager; one thread at a time.

    Raises:
        ModelFileError: there is no person model.
    """

    def __init__(self, backdrop: Backdrop) -> None:
        self._backdrop = backdrop
        self._people = PersonMatte()
        self._still: Image | None = None

    def apply(self, image: Image, source: Image, faces: Sequence[FaceLayer], seconds: float) -> Alpha | None:
        """Replace the background, in place, or say what is to be transparent: uint8 HxW, 255 where people are.

        Args:
            image: uint8 HxWx3 RGB, with drawings; may be a view.
            source: uint8 HxWx3 RGB, the frame without.
            faces: with drawings and masks: hair may be drawn where there was none.
            seconds: the frame's time.
        """
        people = self.people(source, faces, seconds)
        clean = without_spill(image, people)
        if self._backdrop.transparent:
            clean[people == 0] = 255  # what is hidden never shows
            image[...] = clean
            return people
        alpha = cv2.merge([people] * 3)
        behind = cv2.multiply(self._behind(source), cv2.bitwise_not(alpha), scale=1 / 255)
        image[...] = cv2.add(cv2.multiply(clean, alpha, scale=1 / 255), behind)
        return None

    def people(self, source: Image, faces: Sequence[FaceLayer], seconds: float) -> NDArray[np.uint8]:
        """uint8 HxW, 255 = a person, or a drawing."""
        height, width = source.shape[:2]
        seen = np.asarray(cv2.resize(source, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)
        (matte,) = self._people.mattes([seen], [0], seconds)
        zoom = min(GUIDE / max(height, width), 1.0)
        size = max(round(width * zoom), 1), max(round(height * zoom), 1)
        grey = cv2.cvtColor(cv2.resize(source, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        known, edges = (
            np.asarray(plane, np.float32) / np.float32(255) for plane in (cv2.resize(matte, size), grey)
        )
        # What is nearly sure is sure: a guided matte is a little grey everywhere.
        fine = np.clip((guided(known, edges, RADIUS, EPSILON) - 0.2) / 0.7, 0, 1)
        people = np.asarray(cv2.resize(fine, (width, height)) * 255 + 0.5, np.uint8)
        for face in faces:
            if face.mask is not None:
                matrix = face.alignment.crop_to_frame(face.mask.shape[0])
                drawn = cv2.warpAffine(face.mask, matrix, (width, height))
                drawn = cv2.convertScaleAbs(drawn, alpha=min(max(face.alignment.opacity, 0.0), 1.0))
                np.maximum(people, drawn, out=people)
        return people

    def _behind(self, source: Image) -> Image:
        if self._backdrop.color is None and self._backdrop.picture is None:
            return blurred(source)
        if self._still is None or self._still.shape != source.shape:
            if self._backdrop.picture is None:
                self._still = np.full_like(source, self._backdrop.color)
            else:
                self._still = covering(self._backdrop.picture, source.shape[1], source.shape[0])
        return self._still

    def state(self) -> tuple[Any, ...]:
        """Where people were in the frames before, for `restore`."""
        return self._people.state()

    def restore(self, state: tuple[Any, ...]) -> None:
        """Go on from there."""
        self._people.restore(state)

    def reset(self) -> None:
        """The next frame is of another video."""
        self._people.reset()

    def close(self) -> None:
        """Free the network. May be called twice."""
        self._people.close()

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def without_spill(image: Image, people: NDArray[np.uint8]) -> Image:
    """A picture whose edges of people have the colours of what is within, not of the background that shone through.

    Args:
        people: uint8 HxW, 255 = a person.
    """
    height, width = people.shape
    zoom = min(GUIDE / 2 / max(height, width), 1.0)
    size = max(round(width * zoom), 1), max(round(height * zoom), 1)
    small, sure = cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.resize(people, size)
    weight = np.clip((sure.astype(np.float32) - 200) / 55, 0.001, 1)
    sums = cv2.blur(cv2.multiply(small.astype(np.float32), cv2.merge([weight] * 3)), (SPILL, SPILL))
    within = sums / cv2.blur(weight, (SPILL, SPILL))[:, :, None]
    colors = cv2.resize(np.asarray(within, np.uint8), (width, height))
    own = cv2.merge([cv2.LUT(people, _OWN)] * 3)
    kept = cv2.multiply(image, own, scale=1 / 255)
    return np.asarray(cv2.add(kept, cv2.multiply(colors, cv2.bitwise_not(own), scale=1 / 255)), np.uint8)


def blurred(image: Image) -> Image:
    """A picture out of focus."""
    height, width = image.shape[:2]
    zoom = min(BLUR_SIDE / max(height, width), 1.0)
    size = max(round(width * zoom), 1), max(round(height * zoom), 1)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), BLUR * max(size))
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def covering(picture: Image, width: int, height: int) -> Image:
    """The middle of a picture in another shape, as large as it gets."""
    zoom = max(width / picture.shape[1], height / picture.shape[0])
    size = max(round(picture.shape[1] * zoom), width), max(round(picture.shape[0] * zoom), height)
    how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    large = np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.ascontiguousarray(large[top : top + height, left : left + width])
