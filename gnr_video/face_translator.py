"""Faces by themselves: weights, an engine and a style that is worn until it is changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.errors import InputError, StyleError
from gnr_video.frame import Image
from gnr_video.media.images import resized
from gnr_video.options import EngineOptions, LookOptions
from gnr_video.styles.code import DEFAULT_SEED, StyleCode
from gnr_video.styles.looks import Looks, parse_style
from gnr_video.styles.schedule import StylePlan, StyleSchedule, make_schedule
from gnr_video.tracking.alignment import head_side
from gnr_video.tracking.selection import FaceChoice
from gnr_video.tracking.smoothing import LOOKAHEAD

if TYPE_CHECKING:
    from engines.tensorrt_build import Progress
    from gnr_video.pipeline import Look

DEFAULT_STYLE = DEFAULT_SEED

Style = int | str | StyleCode
"""A seed, a style text (see `gnr_video.styles.grammar`), or a code."""


class FaceTranslator:
    """What draws faces, and how they are to be put back; see `gnr_video.translator.Translator` for the arguments.

    Attributes:
        engine: runs the network.
        style: the code of the first person; None where the network has one look.
        looks, plan: the styles of all people, and how they change with time.
        compositor, effects, backdrop: what becomes of the drawings.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | None = None,
        style: Style | Sequence[Style] | None = None,
        *,
        engine: EngineOptions = EngineOptions(),
        look: LookOptions = LookOptions(),
        build_progress: Progress | None = None,
    ) -> None:
        from gnr_video.generator import open_generator
        from gnr_video.tracking.mediapipe_networks import compile_beside

        self.face_model = None if look.face_model is None else Path(look.face_model)
        compile_beside(self.face_model)
        self._take_look(look)
        made = open_generator(
            weights,
            engine,
            paste=self.compositor.mode,
            face_model=self.face_model,
            progress=build_progress,
        )
        self.engine, self.weights_name = made.engine, made.name
        self._is_own = made.is_own
        self._begin(style, look)

    def _take_look(self, look: LookOptions) -> None:
        """All of a look that needs no engine."""
        from gnr_video.compositing.background import Backdrop
        from gnr_video.compositing.compositor import Compositor
        from gnr_video.compositing.grid import GridCompositor

        self.faces = FaceChoice.parse(look.faces)
        self.plan = look.plan or StylePlan()
        self.grid = look.grid
        self.backdrop = Backdrop.parse(look.background)
        self.compositor = cells = GridCompositor(*look.grid) if look.grid else Compositor(look.paste)
        self._grid_styles = cells.styles if isinstance(cells, GridCompositor) else 0
        self.lookahead = LOOKAHEAD if look.lookahead is None else look.lookahead
        self.hold = _checked_hold(look)
        self.private = look.private

    def _begin(self, style: Style | Sequence[Style] | None, look: LookOptions) -> None:
        """The rest of it, and the style."""
        from gnr_video.effects.chain import Effects

        self.style: StyleCode | None = None
        self.effects = Effects(look.effects, own=self._is_own, draws=self.engine.takes_styles)
        self._schedule: StyleSchedule | None = None
        self.looks: Looks | None = None
        if style is not None or self.grid or self.plan != StylePlan() or self.engine.takes_styles:
            self.set_style(DEFAULT_STYLE if style is None else style)
        self.engine.warm_up(self.crop_side)

    @property
    def crop_side(self) -> int:
        """Side of the crops that the engine is given, pixels: of faces, or of whole heads."""
        from gnr_video.generator import crop_side

        return crop_side(self.compositor.mode, self.engine)

    def open_look(self, *, any_paste: bool = False, live: bool = False) -> Look:
        """How the faces of one video are drawn and pasted; to be closed.

        Args:
            any_paste: the paste mode may change on the way.
            live: nobody sees ahead: in private, pictures are blurred until faces have been looked for.
        """
        from gnr_video.compositing.background import Background
        from gnr_video.pipeline import Look
        from gnr_video.privacy import Privacy
        from gnr_video.tracking.matte import try_matte

        heads = head_side(self.engine.size)
        is_whole = self.engine.fits(heads) if any_paste else self.crop_side == heads
        return Look(
            self.engine,
            self.compositor,
            self.effects,
            try_matte() if is_whole else None,
            Background(self.backdrop) if self.backdrop else None,
            self._grid_styles,
            Privacy(try_matte(), blurs=live) if self.private else None,
        )

    def set_style(self, style: Style | Sequence[Style], plan: StylePlan | None = None) -> StyleCode:
        """Change the style from the next face on.

        Args:
            style: as for the constructor.
            plan: how it changes with time from now on; None: as before.

        Returns:
            The code of the first person.

        Raises:
            StyleError: it does not parse, or these weights cannot read a style off a picture.
        """
        self._check_styles()
        looks = Looks(style, self.engine, face_model=self.face_model)
        self.engine.set_style(looks.codes[0].array())
        self.looks, self.style = looks, looks.codes[0]
        self.plan = plan or self.plan
        self._schedule = None
        return self.style

    def _check_styles(self) -> None:
        if not self.engine.takes_styles:
            raise StyleError(
                f"{self.weights_name} translates in one look only: it takes no style",
                "leave the style options out",
            )

    def parse(self, style: Style) -> StyleCode:
        """The code of a style, as these weights have it."""
        self._check_styles()
        if isinstance(style, StyleCode):
            return style
        return parse_style(style, self.engine, face_model=self.face_model)

    def schedule(self, source: str | os.PathLike[str] | None = None) -> StyleSchedule | None:
        """Which style everybody has at each moment, as style and plan say; None where there are no styles.

        Args:
            source: the video whose sound has the beats, where the plan follows beats.
        """
        if self.looks is None:
            return None
        beats = None
        if self.plan.needs_beats and source is not None:
            from gnr_video.styles.beats import find_beats

            beats = find_beats(source)
        made = make_schedule(self.engine, self.looks, self.plan, beats=beats, face_model=self.face_model)
        if self.grid and made.constant:
            self.compositor.captions = [made.looks.name(i) for i in range(self._grid_styles)]
        if self.grid or not made.constant:
            # The part of the engine that takes styles with the call is made on its first use: not in mid-video.
            s = self.crop_side
            self.engine.translate(np.zeros((1, s, s, 3), np.uint8), made.code_at(0.0))
        return made

    def translate_face(self, face: Image, style: int | str | StyleCode | None = None) -> Image:
        """Translate one aligned face crop.

        Args:
            face: uint8 SxSx3 RGB, framed as `gnr_video.tracking.alignment.crop_face` does (256x256, or any square).
            style: for this call only; None: the translator's.

        Returns:
            uint8 RGB of the same shape.
        """
        small = self.fitted(face)
        picture = self.engine.translate(small[None], None if style is None else self.parse(style).array())[0]
        return resized(self.effects.drawing(picture), face.shape[0])

    def fitted(self, face: Image) -> Image:
        """A square face crop in the size of the engine's."""
        if face.dtype != np.uint8 or face.ndim != 3 or face.shape[0] != face.shape[1] or face.shape[2] != 3:
            raise InputError(f"a face crop must be uint8 SxSx3, got {face.dtype} {face.shape}")
        return resized(face, self.engine.size)

    def find_face(self, image: Image) -> Image:
        """The face of a picture, cut out as the generator wants it.

        Args:
            image: uint8 HxWx3 RGB.

        Returns:
            uint8 SxSx3 RGB, S = `engine.size`.

        Raises:
            InputError: there is no face in it.
        """
        from gnr_video.tracking.alignment import crop_face, fit_alignment
        from gnr_video.tracking.tracker import FaceTracker, no_face

        with FaceTracker(self.face_model) as tracker:
            faces = tracker.track(image, 0.0)
        if not faces:
            raise no_face()
        return crop_face(image, fit_alignment(faces[0]), self.engine.size)


def _checked_hold(look: LookOptions) -> int:
    hold = 1 if look.hold is None else look.hold
    if hold < 1:
        raise InputError(f"a drawing is shown for one frame or more, not {hold}")
    if hold > 1 and look.grid:
        raise InputError("a grid is drawn for every frame", "leave hold out, or the grid")
    return hold
