"""The Python API: a `Translator` turns faces, frames and videos into anime, with one style until it is changed."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from gnr_video.face_translator import FaceTranslator, Style
from gnr_video.frame import Frame, Image
from gnr_video.options import LookOptions, OutputOptions
from gnr_video.report import Report
from gnr_video.styles.looks import Looks
from gnr_video.styles.schedule import StylePlan
from gnr_video.timing import StageTimes
from gnr_video.tracking.smoothing import LOOKAHEAD

if TYPE_CHECKING:
    from gnr_video.frame_stream import FrameStream
    from gnr_video.media.source import SourceInfo, VideoSource
    from gnr_video.pipeline import Counts


class Translator(FaceTranslator):
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

    _stream: FrameStream | None = None
    _owns_engine = True

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
        other._stream, other._owns_engine = None, False
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
