"""Picture files and single pictures: read, resized, captioned, put beside each other, as JPEG and back."""

from __future__ import annotations

import os

import cv2
import numpy as np

from engines.errors import InputError
from gnr_video.frame import Image

IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})

IMAGE_OUTPUTS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def read_image(file: str | os.PathLike[str]) -> Image:
    """A picture file as uint8 HxWx3 RGB, upright (EXIF orientation applied), without transparency.

    Raises:
        InputError: it is not a picture OpenCV reads.
    """
    import cv2

    try:
        # Not cv2.imread, which cannot open every name that Windows allows.
        data = np.fromfile(file, np.uint8)
    except OSError as error:
        raise InputError(
            f"cannot read {file}: {error.strerror}", "check the file's name and permissions"
        ) from None
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if picture is None:
        raise InputError(
            f"{file} is not an image, or is damaged", "open it in a viewer to see, or convert it to PNG"
        )
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def captioned(picture: Image, text: str) -> Image:
    """A copy of a picture (uint8 HxWx3) with a text in its lower left corner. ASCII only, else "?"."""
    picture = picture.copy()
    text = text.encode("ascii", "replace").decode()
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        place = (8, picture.shape[0] - 10)
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, thickness, cv2.LINE_AA)
    return picture


def resized(crop: Image, size: int) -> Image:
    if crop.shape[0] == size:
        return crop
    how = cv2.INTER_AREA if crop.shape[0] > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(crop, (size, size), interpolation=how), np.uint8)
