"""The Python API: a `Translator` turns faces, frames and videos into anime, with one style until it is changed."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from engines.errors import InputError, StyleError
from gnr_video.frame import Frame, Image
from gnr_video.media.images import resized
from gnr_video.options import EngineOptions, LookOptions, OutputOptions
from gnr_video.report import Report
from gnr_video.styles.code import DEFAULT_SEED, StyleCode
from gnr_video.styles.looks import Looks, parse_style
from gnr_video.styles.schedule import StylePlan, StyleSchedule, make_schedule
from gnr_video.timing import StageTimes
from gnr_video.tracking.alignment import head_side
from gnr_video.tracking.selection import FaceChoice
from gnr_video.tracking.smoothing import LOOKAHEAD

if TYPE_CHECKING:
    from engines.tensorrt_build import Progress
    from gnr_video.frame_stream import FrameStream
    from gnr_video.media.source import SourceInfo, VideoSource
    from gnr_video.pipeline import Counts, Look

DEFAULT_STYLE = DEFAULT_SEED

Style = int | str | StyleCode
"""A seed, a style text (see `gnr_video.styles.grammar`), or a code."""


class Translator:
    """A face translator: weights, an engine and a style. A context manager.

    Args:
        weights: "default" (or None), "official", a weights file, or any image-to-image ONNX file.
        style: a seed, a style text ("42*0.7+7*0.3", "ref:PICTURE", see `gnr_video.styles.grammar`), a `StyleCode`, or a
            list of these (a text with commas): the styles of several people in order of appearance. None: seed
            42, or none for an ONNX file, which has one look.
        engine: what runs the network.
        look: whose faces are drawn, how, and how the drawings are put back.
        build_progress: told of an engine that is being built, see `engines.tensorrt_build.Progress`.

    Raises:
        WeightsError, EngineError, StyleError: what was asked for cannot be had; each says what to do.

    Example:
        >>> from gnr_video import Translator
        >>> with Translator(style=42) as translator:  # doctest: +SKIP
        ...     report = translator.translate_video("me.mp4", "anime.mp4")
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
        self._owns_engine = True
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
        self._stream: FrameStream | None = None
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

    def translate_frame(self, frame: Frame | Image) -> Image:
        """Translate the faces of one picture.

        Args:
            frame: a plain uint8 HxWx3 RGB array is a picture by itself. A `Frame` belongs to a stream: tracking
                and smoothing go on from the frame before (until `reset`), without looking ahead.

        Returns:
            uint8 RGB, of the size that the paste mode makes of it; the source where no face is found.
        """
        from gnr_video.frame_stream import FrameStream

        single = not isinstance(frame, Frame)
        if not isinstance(frame, Frame):
            self.reset()
            frame = Frame(np.ascontiguousarray(frame), 0, Fraction(1, 1000), 0)
        if self._stream is None:
            self._stream = FrameStream(self.open_look(), self.face_model, self.faces, self.hold)
        if self._schedule is None:
            self._schedule = self.schedule()
        image = self._stream.translate(frame, self._schedule)
        if single:
            self.reset()
        return image

    def reset(self) -> None:
        """Forget the stream of `translate_frame`: the next frame begins a new one."""
        if self._stream is not None:
            self._stream.reset()  # compositor and effects included
            return
        self.compositor.reset()
        self.effects.reset()

    def translate_video(
        self,
        source: str | os.PathLike[str],
        target: str | os.PathLike[str],
        output: OutputOptions = OutputOptions(),
        *,
        progress: Callable[[Counts, int | None], None] | None = None,
    ) -> Report:
        """Translate a video file, image, folder of images, URL or pipe.

        Frames, their times, audio and subtitles stay as they are; the target appears under its name only when
        it is whole.

        Args:
            source: anything `gnr_video.media.open.open_source` reads.
            target: container by extension, see `gnr_video.media.open.open_sink`.
            output: the part that is translated, the encoder, whether a target may be replaced.
            progress: called after each frame with what came through and how many frames to expect (None when
                unknown).

        Returns:
            What was done, with the time of every stage.

        Raises:
            GnrVideoError: one line that says what to do; no partial file is left.
        """
        from gnr_video import pipeline
        from gnr_video.media.open import open_sink
        from gnr_video.tracking.finder import Finder

        times = StageTimes()
        schedule = self.schedule(source)
        with (
            self.open_source(source, target, output) as video,
            Finder(self.face_model, self.faces, self.lookahead, private=self.private) as finder,
            closing(self.open_look()) as look,
            open_sink(
                target,
                video,
                size=self.compositor.output_size(video.info.size),
                codec=self.codec_for(target, output, video.info.size),
                crf=output.crf,
                overwrite=output.overwrite,
            ) as sink,
        ):
            started = time.perf_counter()
            counts = pipeline.Counts()

            def on_frame(done: Counts) -> None:
                if progress is not None:
                    progress(counts + done, video.info.frame_count)

            # Pictures that have nothing to do with each other are each a video of one frame.
            for frames in ([frame] for frame in video) if video.info.is_mixed else (video,):
                finder.reset()
                look.reset()
                counts += pipeline.run(
                    frames,
                    sink.write,
                    finder,
                    look,
                    times,
                    styles=schedule,
                    start=output.start or 0.0,
                    hold=self.hold,
                    on_frame=on_frame,
                )
            sink.finish()
            seconds = time.perf_counter() - started
            warnings = [*(schedule.looks.warnings if schedule else ()), *video.warnings, *sink.warnings]
        return self.report(
            video.info, target, counts, seconds=seconds, times=times, codec=sink.codec, warnings=warnings
        )

    def report(
        self,
        info: SourceInfo,
        target: str | os.PathLike[str],
        counts: Counts,
        *,
        seconds: float,
        times: StageTimes,
        codec: str,
        warnings: Sequence[str],
    ) -> Report:
        """The account of a translation.

        Args:
            info: of the input.
            counts: what is in the output.
            seconds, times: that it took.
            codec: the encoder.
            warnings: what was said on the way.
        """
        from gnr_video.media.transparency import ON_WHITE

        said = list(warnings)
        if info.has_alpha and self.compositor.output_size(info.size) != info.size:
            said.append(ON_WHITE)
        if counts.frames_without_face == counts.frames:
            said.append("no face was found in any frame: the output shows the source pictures")
        return Report(
            source=info.path,
            target=os.fspath(target),
            frames=counts.frames,
            faces=counts.faces,
            frames_without_face=counts.frames_without_face,
            seconds=seconds,
            covered=dict(counts.covered),
            stages=times.summary(),
            engine=f"{self.engine.name} {self.engine.precision} on {self.engine.device}",
            weights=self.weights_name,
            style=self.plan.keys or (self.looks.label if self.looks else "none"),
            fallbacks=[str(self.engine.fallback)] if self.engine.fallback else [],
            warnings=list(dict.fromkeys(said)),
            settings={
                "paste": self.compositor.mode,
                "background": self.backdrop.describe() if self.backdrop else "keep",
                "faces": str(self.faces),
                "private": self.private,
                "mode": self.plan.mode,
                "codec": codec,
                "lookahead": self.lookahead,
                **self.effects.state,
                "hold": self.hold,
            },
        )

    def codec_for(
        self, target: str | os.PathLike[str], output: OutputOptions, size: tuple[int, int]
    ) -> str | None:
        """The encoder: the one asked for; beside an engine on a GPU that GPU's, where it has one; None: the usual."""
        from gnr_video.media.encoders import gpu_codec

        if output.codec is not None or output.crf is not None or not self.engine.device.startswith("cuda"):
            return output.codec
        return gpu_codec(target, self.compositor.output_size(size))

    def open_source(
        self, source: str | os.PathLike[str], target: str | os.PathLike[str], output: OutputOptions
    ) -> VideoSource:
        """The source, with transparency where there is to be some."""
        from gnr_video.media.open import check_alpha, open_source

        is_transparent = self.backdrop is not None and self.backdrop.transparent
        if is_transparent:
            check_alpha(target, output.codec)
        video = open_source(
            source,
            start=output.start,
            end=output.end,
            keep_fields=output.interlaced == "keep",
            stream=output.stream,
        )
        if is_transparent:
            video.info = replace(video.info, has_alpha=True)
        return video

    def sibling(self, paste: str, looks: Looks | None) -> Translator:
        """Another translator on the same engine, for use at the same time: paste mode, styles and memory are its own.

        Args:
            paste: as for the constructor.
            looks: its styles; None for weights that take none.

        Returns:
            One that looks ahead as for files, whatever this one does. This one must outlive it.
        """
        from gnr_video.compositing.compositor import Compositor

        other = copy.copy(self)
        other.compositor, other.effects = Compositor(paste), self.effects.again()
        other.grid, other._grid_styles = None, 0
        other.looks, other.style, other.plan = looks, looks.codes[0] if looks else None, StylePlan()
        other.lookahead = LOOKAHEAD
        other._stream = other._schedule = None
        other._owns_engine = False
        return other

    def beside(self, style: Style | Sequence[Style] | None, look: LookOptions) -> Translator:
        """Another translator on the same engine, for use when this one rests: style and look are its own.

        Args:
            style, look: as for the constructor; the face model is this one's.

        Returns:
            One that need not be closed if it translates videos only. This one must outlive it.

        Raises:
            StyleError, InputError: as the constructor.
        """
        other = copy.copy(self)
        other._owns_engine = False
        other._take_look(look)
        other._begin(style, look)
        return other

    def close(self) -> None:
        """Free the engine and the tracker. May be called twice."""
        if self._owns_engine:
            self.engine.close()
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def __enter__(self) -> Translator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _checked_hold(look: LookOptions) -> int:
    hold = 1 if look.hold is None else look.hold
    if hold < 1:
        raise InputError(f"a drawing is shown for one frame or more, not {hold}")
    if hold > 1 and look.grid:
        raise InputError("a grid is drawn for every frame", "leave hold out, or the grid")
    return hold
