"""Pictures that metrics are measured on: folders of any size and format, and resizing that does not alias."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engines.errors import InputError
from gnr_video.media.image_files import read_image
from train.data import list_images

Picture = NDArray[np.uint8]
"""uint8 SxSx3 RGB, of any size."""


@dataclass
class Folder:
    """The pictures of a folder, decoded when they are looped over, so that memory does not grow with it.

    Attributes:
        path: the folder.
        files: its pictures, by name.
        skipped: "name: reason" of the files that did not decode, known after a first loop.
    """

    path: Path
    files: list[Path]
    skipped: dict[Path, str] = field(default_factory=dict)

    @staticmethod
    def open(path: Path, limit: int | None = None) -> Folder:
        """Find the pictures; with `limit`, evenly chosen ones.

        Raises:
            InputError: no such folder, or no pictures in it.
        """
        files = list_images([path])
        if limit is not None and limit < len(files):
            files = [files[i * len(files) // limit] for i in range(limit)]
        return Folder(Path(path), files)

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[tuple[Path, Picture]]:
        """Files with their central squares, uint8 SxSx3; files that do not decode are noted and left out.

        Raises:
            InputError: none of them decodes.
        """
        found = False
        for file in self.files:
            try:
                picture = square(read_image(file))
            except InputError as error:
                self.skipped[file] = error.message
                continue
            found = True
            yield file, picture
        if not found:
            raise InputError(
                f"none of the {len(self)} pictures in {self.path} decodes; {next(iter(self.skipped.values()))}"
            )

    def notes(self) -> list[str]:
        """What a report should say about files that were left out."""
        if not self.skipped:
            return []
        named = "; ".join(list(self.skipped.values())[:5])
        more = "; ..." if len(self.skipped) > 5 else ""
        return [f"{len(self.skipped)} of {len(self)} pictures in {self.path} do not decode ({named}{more})"]


def square(picture: Picture) -> Picture:
    """The central square."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(picture[top : top + side, left : left + side])


def resize_clean(picture: Picture, side: int) -> NDArray[np.float32]:
    """Pillow's bicubic filter, which widens when it reduces, each channel in float (Parmar et al. 2022).

    Args:
        picture: uint8 SxSx3.

    Returns:
        float32 (3, side, side), 0..255, not rounded.
    """
    from PIL import Image

    if picture.shape[:2] == (side, side):
        return picture.transpose(2, 0, 1).astype(np.float32)
    channels = [
        Image.fromarray(picture[:, :, c].astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
        for c in range(3)
    ]
    return np.stack([np.asarray(channel) for channel in channels]).clip(0, 255)


def to_tensor(pictures: Sequence[Picture], side: int) -> torch.Tensor:
    """float32 (N, 3, side, side) in -1..1."""
    return torch.from_numpy(np.stack([resize_clean(p, side) for p in pictures]) / np.float32(127.5) - 1)
