"""What is shown of a live session's frames: drawn, before and after, a grid of styles; still, or not at all."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import cv2
import numpy as np

from gnr_video.compositing.cover import cover_of, covered_picture, hidden
from gnr_video.compositing.grid import GridCompositor
from gnr_video.frame import FaceLayer, Image, Layered
from gnr_video.live.controls import GRID, Controls
from gnr_video.live.status import LiveTimes
from gnr_video.media.images import before_after, fitted
from gnr_video.privacy import ASKED
from gnr_video.tracking.alignment import crop_face, mirrored
from gnr_video.translator import Translator


class Views:
    """The view that the controls say.

    Args:
        translator: draws the grid. In private its frames are shown with a cover over each head where they are shown as
            they were.
        controls: say what is shown.
        size: (width, height) of what is shown.

    Attributes:
        effects: of the grid's drawings.
    """

    def __init__(self, translator: Translator, controls: Controls, size: tuple[int, int]) -> None:
        self._translator = translator
        self._controls = controls
        self._size = size
        rows, columns = GRID
        self._grid = GridCompositor(rows, columns, cell=max(16, min(size[0] // columns, size[1] // rows)))
        self.effects = translator.effects.again()
        self._still: Image | None = None

    def prepared(self, item: Layered, times: LiveTimes) -> tuple[Layered, Image | None]:
        """A frame as it is to be drawn in this view, and the crop of its face if that was cut out for the grid."""
        view, crop = self._controls.view, None
        if view == "grid" and item.faces and not item.blurred:
            crop = self._add_grid(item, times)
        if view not in ("before", "grid"):
            return item, crop
        # Nobody sees a translation in these views.
        covers = [cover_of(face) for face in item.faces] if self._translator.private else []
        return replace(item, faces=[], covers=[*covers, *item.covers]), crop

    def _add_grid(self, item: Layered, times: LiveTimes) -> Image:
        """Leave the picture of the grid with the frame; the crop of its face."""
        engine, looks = self._translator.engine, self._controls.grid_styles()
        image, alignment = item.frame.image, item.faces[0].alignment
        shown = hidden(image, item) if self._translator.private else image
        if self._controls.mirror:
            # Here and not as a whole: its captions are to be read.
            shown, _ = mirrored(shown, alignment)
            image, alignment = mirrored(image, alignment)
        with times.stage("crop"):
            crop = crop_face(image, alignment, engine.size)
        with times.stage("network"):
            codes = np.stack([style.w() for style in looks])
            pictures = engine.decode_styles(engine.encode(crop[None]), codes)
        with times.stage("compose"):
            self._grid.captions = [style.label for style in looks]
            faces = [FaceLayer(alignment, drawing=self.effects.drawing(picture)) for picture in pictures]
            self.effects.face(faces)
            item.frame.props["grid"] = fitted(self._grid.compose(shown, faces), self._size)
        return crop

    def shown(self, item: Layered) -> tuple[Image, str]:
        """What is shown of a frame that was composed, uint8 RGB, and why it is covered, if the user wants it to be."""
        if not self._controls.frozen:
            self._still = None
        still = covered_picture(self._size) if self._controls.covered else self._still
        if still is not None:
            item.frame.props.update(before=lambda: still, mirrored=False)
            return still, ASKED if self._controls.covered else ""
        item.frame.props.update(before=partial(self._source, item), mirrored=self._controls.mirror)
        picture = self._picture(item)
        if self._controls.frozen:
            self._still = picture
        return picture, ""

    def _picture(self, item: Layered) -> Image:
        view, image = self._controls.view, item.frame.image
        if view == "before":
            image = self._source(item)
        elif view == "both":
            source = self._source(item)
            image = before_after(source, fitted(image, (source.shape[1], source.shape[0])))
        elif view == "grid" and "grid" in item.frame.props:
            return np.asarray(item.frame.props["grid"], np.uint8)
        image = fitted(image, self._size)
        return np.asarray(cv2.flip(image, 1), np.uint8) if self._controls.mirror else image

    def _source(self, item: Layered) -> Image:
        """What may be shown of the camera's picture."""
        source: Image = item.frame.props["source"]
        return hidden(source, item) if self._translator.private else source
