"""GridCompositor: one face under many styles at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gnr_video.compositing.compositor import GREY, Compositor, Surroundings, check_crop, dissolved
from gnr_video.frame import FaceLayer, Image
from gnr_video.lettering import captioned
from gnr_video.media.images import resized
from gnr_video.tracking.alignment import crop_face


class GridCompositor(Compositor):
    """One face under many styles at once, around the face itself.

    A grid with a middle (3x3, 3x5) has the face there; beside any other it stands in the grid's full height. A fading
    face dissolves to its source; while there is no face the last picture stays.

    Args:
        rows, columns: of the grid.
        cell: side of a translation, pixels. The output is `rows` cells high.
        captions: a text for each translation, drawn into its corner; shorter or empty: none.

    Attributes:
        styles: how many translations there are: `rows` x `columns`, less one where the face is in the middle.
    """

    def __init__(self, rows: int, columns: int, *, cell: int = 256, captions: Sequence[str] = ()) -> None:
        super().__init__("crop", size=cell)
        if not (1 <= rows <= 16 and 1 <= columns <= 16):
            raise ValueError(f"a grid has 1 to 16 rows and columns, got {rows}x{columns}")
        self.mode = f"grid {rows}x{columns}"
        self.rows, self.columns = rows, columns
        self.captions = captions
        cells = [(row, column) for row in range(rows) for column in range(columns)]
        self._beside = rows % 2 == 0 or columns % 2 == 0 or len(cells) == 1
        if self._beside:
            self._face, self._cells = (0, 0), [(row, rows + column) for row, column in cells]
        else:
            self._face = cells.pop(len(cells) // 2)
            self._cells = cells
        self.styles = len(self._cells)

    def output_size(self, frame_size: tuple[int, int]) -> tuple[int, int]:
        columns = self.columns + (self.rows if self._beside else 0)
        return columns * self.size, self.rows * self.size

    def compose(
        self, image: Image, faces: Sequence[FaceLayer], around: Surroundings = lambda image, faces: None
    ) -> Image:
        """The grid for one frame.

        Args:
            image: uint8 HxWx3 RGB.
            faces: the face with each of its `styles` drawings (uint8 SxSx3), row by row; or nothing.
            around: not asked: no head is pasted.

        Returns:
            uint8 RGB of `output_size`; a new array.
        """
        if faces:
            alignment = faces[0].alignment
            source = crop_face(image, alignment, (self.rows if self._beside else 1) * self.size)
            small = resized(source, self.size)
            self._last = self._empty()
            self._put(source, self._face)
            for i, (cell, face) in enumerate(zip(self._cells, faces)):
                check_crop(face.drawing)
                assert face.drawing is not None
                shown = dissolved(resized(face.drawing, self.size), small, alignment.opacity)
                self._put(captioned(shown, self.captions[i]) if i < len(self.captions) else shown, cell)
        return self._empty() if self._last is None else self._last.copy()

    def _empty(self) -> Image:
        width, height = self.output_size((0, 0))
        return np.full((height, width, 3), GREY, np.uint8)

    def _put(self, picture: Image, cell: tuple[int, int]) -> None:
        """Draw a picture with its upper left corner in that of a cell (row, column)."""
        assert self._last is not None
        top, left = (self.size * i for i in cell)
        self._last[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
