"""A face of one picture under many styles, each as a video would show it: whole head, effects, pasted back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from gnr_video.compositing.compositor import Compositor
from gnr_video.frame import Frame, Image, Layered
from gnr_video.pipeline import Look, compose, cut
from gnr_video.timing import StageTimes
from gnr_video.tracking.alignment import crop_face
from gnr_video.tracking.finder import Finder
from gnr_video.tracking.selection import FaceChoice
from gnr_video.tracking.tracker import no_face

if TYPE_CHECKING:
    from engines.base import Styles
    from gnr_video.translator import Translator

BATCH = 16
"""Styles that are decoded at once."""


class StillFace:
    """The largest face of a picture, encoded once, drawn under any styles.

    Args:
        translator: has the engine and says which effects are on. It must outlive this.
        image: uint8 HxWx3 RGB.

    Attributes:
        engine: the translator's.
        source: uint8 SxSx3 RGB, the part of the picture that is shown, as it is.

    Raises:
        InputError: there is no face in it.
    """

    def __init__(self, translator: Translator, image: Image) -> None:
        self._frame = Frame(np.ascontiguousarray(image), 0, Fraction(1, 1000), 0)
        self._times = StageTimes()
        self.engine = translator.engine
        with (
            Finder(translator.face_model, FaceChoice("largest")) as finder,
            closing(translator.open_look(any_paste=True)) as look,
        ):
            self._look = Look(self.engine, Compositor(), translator.effects.again(), look.matte)
            found = cut(finder.track([self._frame], self._times), self._look, self._times)
            faces = next(found).faces
        if not faces:
            raise no_face()
        self._face = faces[0]
        assert self._face.crop is not None and self._face.shown is not None
        self.source = self._face.crop
        self._content = self.engine.encode(self._face.shown[None])

    def under(self, codes: Styles) -> Iterator[Image]:
        """The head under some styles, each by itself.

        Args:
            codes: float32 (N, latent_dim) or (N, style_dim).

        Returns:
            uint8 SxSx3 RGB each.
        """
        for i in range(0, len(codes), BATCH):
            for picture in self.engine.decode_styles(self._content, codes[i : i + BATCH]):
                self._look.effects.reset()
                yield self._shown(self._look.effects.drawing(picture))

    def through(self, codes: Iterable[Styles], seconds: float) -> Iterator[Image]:
        """The head in a video that goes through styles.

        Args:
            codes: float32 (1, latent_dim) or (1, style_dim), one for each frame.
            seconds: from frame to frame.

        Returns:
            uint8 SxSx3 RGB each.
        """
        self._look.effects.reset()
        before: Image | None = None
        for code in codes:
            picture = self.engine.decode_styles(self._content, code)[0]
            before = self._look.effects.drawing(picture, before, seconds)
            yield self._shown(before)

    def _shown(self, drawing: Image) -> Image:
        layers = Layered(self._frame, [replace(self._face, drawing=drawing)])
        image = next(compose([layers], self._look, self._times)).frame.image
        return crop_face(image, self._face.alignment, self.source.shape[0])
