"""The style of an anime picture: its face is found, and cut out as the style encoder knows faces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.errors import FaceModelError, InputError, StyleError, WeightsError
from gnr_video.frame import Image
from gnr_video.media.image_files import read_image
from gnr_video.styles.code import Reference, StyleCode

if TYPE_CHECKING:
    from engines.base import Engine

REFERENCE_SHARE = 0.75
"""Side of the run-time's crop in sides of a training picture (median of selfie2anime's anime faces)."""


def encode_reference(path: Path, engine: Engine, face_model: Path | None = None) -> StyleCode:
    """The style of an anime picture: its face is found and cut out as the style encoder knows faces.

    Where no face is found (MediaPipe knows about six in ten anime faces), the middle square is used.

    Raises:
        StyleError: missing, not a picture, or these weights have no style encoder.
    """
    crop, warning = read_reference(path, engine.size, face_model)
    try:
        z = engine.encode_style(crop)
    except WeightsError as error:
        raise StyleError(f"no style can be read off {path.name}: {error.message}", error.hint) from error
    warnings = (f"{path.name}: {warning}",) if warning else ()
    return StyleCode(tuple(z.tolist()), str(Reference(path)), warnings)


def read_reference(path: Path, size: int, face_model: Path | None = None) -> tuple[Image, str]:
    """An anime picture's face as the style encoder wants it: uint8 (size, size, 3) RGB, and a warning or "".

    Raises:
        StyleError: missing or not a picture.
    """
    import cv2

    if not path.is_file():
        raise StyleError(f"no style reference at {path}", "--style takes a seed, or ref:PICTURE")
    try:
        picture = read_image(path)
    except InputError as error:
        raise StyleError(error.message, error.hint) from error
    (left, top, side), warning = reference_square(picture, face_model)
    square = picture[top : top + side, left : left + side]
    how = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return np.ascontiguousarray(cv2.resize(square, (size, size), interpolation=how), dtype=np.uint8), warning


def reference_square(picture: Image, face_model: Path | None = None) -> tuple[tuple[int, int, int], str]:
    """Where the face of an anime picture is, framed as the style encoder's training pictures are.

    Returns:
        ((left, top, side) in pixels, a warning or ""). A picture that is framed so already is taken whole.
    """
    from gnr_video.tracking.alignment import CROP, fit_alignment
    from gnr_video.tracking.tracker import FaceTracker

    height, width = picture.shape[:2]
    short = min(height, width)
    whole = ((width - short) // 2, (height - short) // 2, short)
    try:
        with FaceTracker(face_model) as tracker:
            faces = tracker.track(picture, 0.0)
        alignment = fit_alignment(faces[0]) if faces else None
    except FaceModelError as error:
        return whole, f"its middle square is used, for no face was looked for: {error.message}"
    except ValueError:  # landmarks in one point
        alignment = None
    if alignment is None:
        # A picture of a face and nothing else needs no finding.
        return whole, "" if short <= 2 * CROP else "no face was found in it; its middle square is used"
    side = round(CROP * alignment.scale / REFERENCE_SHARE)
    if side >= 0.8 * short:
        return whole, ""
    left = min(max(round(alignment.center_x - side / 2), 0), width - side)
    top = min(max(round(alignment.center_y - side / 2), 0), height - side)
    return (left, top, side), ""
