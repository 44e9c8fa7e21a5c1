"""The sink of videos: frames become a video file or a GIF through PyAV, beside the input's own audio.

Audio and subtitle packets are copied as they are; what the container cannot hold is encoded anew where it can be
(`copied_streams.py`). Everything is written under a temporary name and renamed at the end, so that a file
under the final name is always whole.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import OutputError
from gnr_video.frame import Frame, Image
from gnr_video.media.color import RANGE_MPEG, ColorTags, from_rgb, from_rgba
from gnr_video.media.copied_streams import CopiedStreams
from gnr_video.media.deinterlace import FieldFlags
from gnr_video.media.encoders import (
    ALIASES,
    CONTAINERS,
    EncoderSettings,
    choose_encoder,
    default_codec,
    default_threads,
    fallback_codecs,
    hardware,
    holds_alpha,
    holds_shape,
    needs_even_size,
    pixel_format,
)
from gnr_video.media.gif import PaletteGraph
from gnr_video.media.muxing import add_covers, add_metadata, check_container, muxer_options
from gnr_video.media.sink import VideoSink, temporary_name, writing
from gnr_video.media.sound import SoundEncoder
from gnr_video.media.transparency import ON_WHITE, on_white

if TYPE_CHECKING:
    from gnr_video.media.source import SourceInfo, VideoSource

_GIF_TIME_BASE = Fraction(1, 100)


class ContainerSink(VideoSink):
    """A video file or GIF through PyAV; see `open_sink` for the arguments."""

    def __init__(
        self,
        path: Path,
        source: VideoSource,
        size: tuple[int, int],
        *,
        codec: str | None = None,
        crf: int | None = None,
        threads: int | None = None,
        live: bool = False,
        sound: bool = False,
    ) -> None:
        extension = path.suffix.lower()
        self._size = size
        self._live = live
        self._gif = extension == ".gif"
        info = source.info
        codec = codec or default_codec(extension, info.has_alpha)
        # Encoders take oblong pixels where the frames are those of the input, and the file can say so.
        keeps_shape = size == info.size and holds_shape(ALIASES.get(codec, codec))
        self._coded = info.stored if keeps_shape and info.stored else size
        settings = self._settings(info, codec, extension, crf, threads, live)
        notice = ""
        if not self._gif:
            check_container(settings.codec, extension)
            settings, notice = choose_encoder(settings, fallback_codecs(extension))
        super().__init__(path, settings.codec)
        if notice:
            self.warn(notice)
        self._alpha = settings.alpha and holds_alpha(settings.codec, extension)
        settings = replace(settings, alpha=self._alpha)
        if info.has_alpha and not holds_alpha(settings.codec, extension):
            self.warn(f"{ON_WHITE}: {settings.codec} in {path.suffix} cannot hold it")
        self._fields = FieldFlags(info.fields, settings.time_base) if info.fields else None
        if info.fields and settings.codec != "libx264":
            self.warn(f"{settings.codec} cannot say that the pictures are interlaced")
        self._time_base = settings.time_base
        self._tags = output_tags(info)
        self._durations: dict[int, int] = {}
        self._last_pts: int | None = None
        self._usual_duration = max(1, round(1 / (settings.rate * self._time_base)))
        self._temporary = temporary_name(path)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.touch()
        try:
            with writing(path):
                self._begin(source, settings, CONTAINERS[extension], sound)
            self._palette = PaletteGraph(size, self._time_base, self._alpha) if self._gif else None
        except (ValueError, TypeError) as error:
            self.abort()
            raise OutputError(
                f"cannot write {path}: {error}", "choose another container or --codec"
            ) from error
        except BaseException:
            self.abort()
            raise

    # -- setting up ----------------------------------------------------------------------------------------

    def _settings(
        self, info: SourceInfo, codec: str, extension: str, crf: int | None, threads: int | None, live: bool
    ) -> EncoderSettings:
        if self._gif and codec != "gif":
            raise OutputError(f"a gif cannot hold {codec}", "leave --codec out, or write an mp4")
        width, height = self._coded
        if not self._gif and needs_even_size(codec):
            width, height = width + width % 2, height + height % 2
        return EncoderSettings(
            codec=codec,
            width=width,
            height=height,
            time_base=_GIF_TIME_BASE if self._gif else info.time_base,
            rate=info.average_rate or Fraction(25),
            crf=crf,
            threads=default_threads() if threads is None else threads,
            live=live,
            fields=info.fields,
            alpha=info.has_alpha
            and self._size == info.size
            and holds_alpha(ALIASES.get(codec, codec), extension),
        )

    def _begin(self, source: VideoSource, settings: EncoderSettings, muxer: str, sound: bool) -> None:
        """Open the file and write its header."""
        import av

        options = muxer_options(muxer, self._time_base, source, self._live)
        suffix = self.path.suffix
        self._container: Any = av.open(
            f"file:{self._temporary}", "w", format=muxer, container_options=options
        )
        self._stream = self._add_video(settings, source.info)
        self._copied = CopiedStreams(source, self._container, muxer, suffix, self.warn)
        self._sound = SoundEncoder(self._container, muxer) if sound else None
        covers = add_covers(self._container, source, muxer, suffix, self.warn)
        add_metadata(self._container, self._stream, source, muxer, settings.rate, suffix, self.warn)
        self._container.start_encoding()
        for packet in covers:
            self._container.mux(packet)

    def _add_video(self, settings: EncoderSettings, info: SourceInfo) -> Any:
        device = hardware(settings.codec)
        extra: dict[str, Any] = {} if device is None else {"hwaccel": device}
        stream = self._container.add_stream(settings.codec, rate=settings.rate, **extra)
        context = stream.codec_context
        if self._gif:
            context.width, context.height = self._size
            context.pix_fmt = "pal8"
            context.time_base = self._time_base
        else:
            settings.apply(context)
            if not context.pix_fmt.startswith(("rgb", "bgr")):
                context.color_range = self._tags.range
                context.color_primaries = self._tags.primaries
                context.color_trc = self._tags.transfer
                context.colorspace = self._tags.matrix
            if self._coded != self._size:
                context.sample_aspect_ratio = info.sample_aspect_ratio
        if settings.codec in (
            "libx265",
            "hevc_nvenc",
            "hevc_qsv",
            "hevc_videotoolbox",
        ) and self.path.suffix.lower() in (
            ".mp4",
            ".m4v",
            ".mov",
        ):
            context.codec_tag = "hvc1"  # without it QuickTime shows nothing
        stream.time_base = self._time_base
        return stream

    # -- writing -------------------------------------------------------------------------------------------

    def write(self, frame: Frame) -> None:
        if frame.size != self._size:
            raise ValueError(f"the sink was opened for frames of {self._size}, got {frame.size}")
        if not self._open:
            raise ValueError("the sink is closed")
        try:
            with writing(self.path):
                self._write(frame)
        except BaseException:
            self.abort()
            raise
        self.frames_written += 1

    def write_sound(self, samples: NDArray[np.float32]) -> None:
        if self._sound is None or not self._open:
            return super().write_sound(samples)
        try:
            with writing(self.path):
                self._container.mux(list(self._sound.push(samples)))
        except BaseException:
            self.abort()
            raise

    def _write(self, frame: Frame) -> None:
        pts = self._rescale(frame.pts, frame.time_base)
        if self._last_pts is not None and pts <= self._last_pts:
            if self._gif:
                self.warn("the input has more than 100 frames a second, gif has not: it plays slower")
            pts = self._last_pts + 1
        duration = self._rescale(int(frame.props.get("duration", 0)), frame.time_base)
        self._durations[pts] = duration or self._usual_duration
        self._last_pts = pts
        if self._palette is not None:
            for picture in self._palette.push(_with_alpha(frame) if self._alpha else _opaque(frame), pts):
                self._encode(picture)
        else:
            picture = self._picture(frame)
            picture.pts, picture.time_base = pts, self._time_base
            self._encode(picture if self._fields is None else self._fields.put(picture))
        self._copied.write()

    def _picture(self, frame: Frame) -> Any:
        """A frame as the encoder takes it."""
        wanted = pixel_format(self.codec, self._alpha)
        if self._alpha:
            whole = self._even(_with_alpha(frame))
            return from_rgba(whole[..., :3], np.ascontiguousarray(whole[..., 3]), wanted, self._tags)
        image = self._even(_opaque(frame))
        if wanted in ("rgb24", "bgra", "yuv422p10le"):
            return from_rgba(image, np.full(image.shape[:2], 255, np.uint8), wanted, self._tags)
        picture = from_rgb(image, self._tags)
        return picture if wanted == "yuv420p" else picture.reformat(format=wanted)

    def _rescale(self, ticks: int, time_base: Fraction) -> int:
        return ticks if time_base == self._time_base else round(ticks * time_base / self._time_base)

    def _even(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture in the pixels that are coded."""
        import cv2

        if self._coded != self._size:
            image = np.asarray(cv2.resize(image, self._coded, interpolation=cv2.INTER_AREA), np.uint8)
        height, width = image.shape[:2]
        if not needs_even_size(self.codec) or (width % 2 == 0 and height % 2 == 0):
            return image
        padded = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        return np.asarray(padded, np.uint8)

    def _encode(self, picture: Any) -> None:
        import av

        for packet in self._stream.encode(picture):
            # Encoders forget durations; without this one the last frame would last by guess.
            duration = self._durations.pop(packet.pts, 0)
            if duration:
                packet.duration = duration
            if picture is None and self.frames_written < 3:
                packet.dts = packet.pts  # in order; x265 leaves it undefined
            try:
                self._container.mux(packet)
            except (av.FFmpegError, ValueError) as error:
                if not self._copied.explains(error):
                    raise

    # -- ending --------------------------------------------------------------------------------------------

    def finish(self) -> None:
        if not self._open:
            return
        try:
            with writing(self.path):
                if self._palette is not None:
                    for picture in self._palette.flush():
                        self._encode(picture)
                self._encode(None)
                self._copied.finish()
                self._container.mux([] if self._sound is None else list(self._sound.flush()))
                self._container.close()
                os.replace(self._temporary, self.path)
        except BaseException:
            self.abort()
            raise
        self._open = False

    def abort(self, keep: bool = False) -> None:
        if not self._open:
            return
        if keep and self.frames_written:
            self.finish()
            return
        self._open = False
        if self._live and self.frames_written:
            self._keep()
            return
        # Removed before it is closed: then no index is written for a file nobody wants.
        with suppress(OSError):
            self._temporary.unlink()
        container = getattr(self, "_container", None)
        if container is not None:
            import av

            with suppress(av.FFmpegError, OSError, ValueError):
                container.close()
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def _keep(self) -> None:
        """Give a live file its name although writing failed: what is in it plays without a trailer."""
        import av

        with suppress(av.FFmpegError, OSError, ValueError):
            self._container.close()
        with suppress(OSError):
            os.replace(self._temporary, self.path)


def _with_alpha(frame: Frame) -> NDArray[np.uint8]:
    """uint8 HxWx4."""
    alpha = np.full(frame.image.shape[:2], 255, np.uint8) if frame.alpha is None else frame.alpha
    return np.dstack([frame.image, alpha])


def _opaque(frame: Frame) -> Image:
    return on_white(frame.image, frame.alpha)


def output_tags(info: SourceInfo) -> ColorTags:
    """The tags of the output, which are also those that RGB is converted with: the source's, gaps filled."""
    if info.is_still or info.container == "images":
        return ColorTags(range=RANGE_MPEG).resolved(info.coded_height)
    return info.color.resolved(info.coded_height or info.height)
