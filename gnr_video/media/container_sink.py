"""VideoSink, the last stage: frames become a video, a GIF or image files, beside the input's own audio.

Audio and subtitle packets are copied as they are; what the container cannot hold is encoded anew where it can be
(`gnr_video.media.transcode`). Everything is written under a temporary name and renamed at the end, so that a file
under the final name is always whole.
"""

from __future__ import annotations

import errno
import io
import logging
import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.errors import OutputError
from gnr_video.frame import Frame, Image
from gnr_video.media.color import RANGE_MPEG, ColorTags, from_rgb
from gnr_video.media.encoders import (
    EncoderSettings,
    choose_encoder,
    default_codec,
    default_threads,
    fallback_codecs,
    hardware,
    list_encoders,
    needs_even_size,
    pixel_format,
)
from gnr_video.media.transcode import AudioTranscoder, TextTranscoder, transcode

if TYPE_CHECKING:
    from gnr_video.media.container_source import SourceInfo, VideoSource

__all__ = ["VideoSink", "list_encoders", "open_sink"]

log = logging.getLogger(__name__)

CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".gif": "gif",
}
"""Extension -> FFmpeg's muxer."""
IMAGE_OUTPUTS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

_PATTERN = re.compile(r"%0?\d*d")
_GIF_TIME_BASE = Fraction(1, 100)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What a muxer writes by itself, or what described the input's container only.
_OWN_METADATA = {"major_brand", "minor_version", "compatible_brands", "encoder", "ENCODER", "DURATION"}


class VideoSink(ABC):
    """An output being written: a context manager that finishes, or aborts when there was an exception.

    Attributes:
        path: the final name (for an image sequence, its pattern).
        codec: the encoder really used.
        warnings: what the user should know; grows while frames are written.
        frames_written: so far.
    """

    def __init__(self, path: Path, codec: str) -> None:
        self.path = path
        self.codec = codec
        self.warnings: list[str] = []
        self.frames_written = 0
        self._open = True

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Append a frame; its size must be the one given to `open_sink`.

        Raises:
            OutputError: the disk is full, the file cannot be written. What was written is removed.
        """

    @abstractmethod
    def finish(self) -> None:
        """Write what is still under way and give the file its final name. Does nothing the second time.

        Call it after the source has been read to its end, so that audio after the last frame is in.

        Raises:
            OutputError: as `write`.
        """

    @abstractmethod
    def abort(self, keep: bool = False) -> None:
        """Stop early: remove what was written or, with `keep`, finish it if a frame is in.

        Does nothing after `finish`. Raises nothing without `keep`.
        """

    def __enter__(self) -> VideoSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.abort()

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
            log.warning("%s", text)


def open_sink(
    path: str | os.PathLike[str],
    source: VideoSource,
    *,
    size: tuple[int, int] | None = None,
    codec: str | None = None,
    crf: int | None = None,
    overwrite: bool = False,
    threads: int | None = None,
    live: bool = False,
) -> VideoSink:
    """Open an output; the container is chosen by extension.

    Args:
        path: .mp4, .m4v, .mov, .mkv, .webm, .gif; .png, .jpg, .webp, .bmp for a still input; an image
            sequence when the name holds a pattern such as %05d, ends in "/", or is a folder that exists.
        source: where the frames, the audio and the colour tags come from. Not yet iterated.
        size: (width, height) of the frames to come; the source's when None. Encoders of 4:2:0 need even
            sizes: an odd one gets its last column or row repeated.
        codec: FFmpeg's name of an encoder, or h264, h265, vp9, av1; None: H.264 (VP9 in webm). One that does
            not work here is replaced by libx264, with a warning.
        crf: quality, lower is better; None: 18 for H.264.
        overwrite: whether an existing output may be replaced.
        threads: encoder threads; None: all cores but one, 0: as many as the encoder likes.
        live: mp4 and mov are written in fragments, and the encoder holds nothing back: the file can be closed
            at any moment at once, and is playable even if the process is killed. It is kept when writing fails.

    Times: pts and time base are kept exactly in mp4, m4v and mov, also a first pts that is not zero. mkv and
    webm count in milliseconds and know no negative times (audio that begins before zero moves everything
    later by the same amount); gif counts in hundredths and begins at zero.

    Raises:
        OutputError: exists without `overwrite`, is the input, unknown extension, not writable, no encoder.
    """
    text = os.fspath(path)
    target = Path(text)
    suffix = target.suffix.lower()
    size = size or source.info.size
    if (
        text.endswith(("/", os.sep))
        or target.is_dir()
        or (_PATTERN.search(target.name) and suffix in IMAGE_OUTPUTS)
    ):
        if codec is not None:
            raise OutputError("an image sequence has no encoder", "leave --codec out")
        return ImageSequenceSink(target, source, size, overwrite=overwrite)
    if suffix not in CONTAINERS and suffix not in IMAGE_OUTPUTS:
        known = ", ".join([*CONTAINERS, *IMAGE_OUTPUTS])
        raise OutputError(
            f"cannot tell the format of {text!r} from its extension {suffix!r}",
            f"use one of {known}, or a folder for an image sequence",
        )
    if target.exists() and Path(source.info.path).exists() and target.samefile(source.info.path):
        raise OutputError(f"the output {text} is the input itself", "choose another name for the output")
    if target.exists() and not overwrite:
        raise OutputError(f"{text} exists already", "give --overwrite to replace it")
    if suffix in IMAGE_OUTPUTS:
        if not source.info.is_still:
            raise OutputError(
                f"{text} is one image, but the input is a video",
                f"use a pattern such as {target.stem}-%05d{suffix}, or a folder",
            )
        return StillSink(target)
    return ContainerSink(target, source, size, codec=codec, crf=crf, threads=threads, live=live)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Errors of FFmpeg and of the system while writing become one line for the user."""
    import av

    try:
        yield
    except (av.FFmpegError, OSError) as error:
        number = getattr(error, "errno", None)
        reason = getattr(error, "strerror", None) or str(error)
        if number in _FULL:
            raise OutputError(
                f"no room left for {path}: {reason}", "free some space, or write elsewhere"
            ) from error
        raise OutputError(
            f"cannot write {path}: {reason}", "check that the folder exists and that you may write to it"
        ) from error


def temporary_name(path: Path) -> Path:
    """The name beside the target under which it is written: clip.mp4 -> .clip.part.mp4."""
    return path.with_name(f".{path.stem[:200]}.part{path.suffix}")


@dataclass
class _Copied:
    """An audio or subtitle stream on its way through: where it goes, and what encodes it anew if it must be."""

    stream: Any
    label: str
    transcoder: AudioTranscoder | TextTranscoder | None = None
    last_dts: int | None = None


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
    ) -> None:
        import av

        extension = path.suffix.lower()
        self._size = size
        self._live = live
        self._gif = extension == ".gif"
        info = source.info
        settings = self._settings(info, codec or default_codec(extension), extension, crf, threads, live)
        notice = ""
        if not self._gif:
            _check_container(settings.codec, extension)
            settings, notice = choose_encoder(settings, fallback_codecs(extension))
        super().__init__(path, settings.codec)
        if notice:
            self._warn(notice)
        self._time_base = settings.time_base
        self._tags = output_tags(info)
        self._durations: dict[int, int] = {}
        self._last_pts: int | None = None
        self._usual_duration = max(1, round(1 / (settings.rate * self._time_base)))
        self._temporary = temporary_name(path)
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.touch()
        try:
            with _writing(path):
                muxer = CONTAINERS[extension]
                options = _muxer_options(muxer, self._time_base, source, live)
                self._container: Any = av.open(
                    f"file:{self._temporary}", "w", format=muxer, container_options=options
                )
                self._stream = self._add_video(settings, info)
                self._copied, self._queue = self._add_copied(source, muxer)
                self._add_metadata(source)
                self._container.start_encoding()
            self._palette = _PaletteGraph(size, self._time_base) if self._gif else None
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
        width, height = self._size
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
        )

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
            context.color_range = self._tags.range
            context.color_primaries = self._tags.primaries
            context.color_trc = self._tags.transfer
            context.colorspace = self._tags.matrix
            if self._size == info.size and info.sample_aspect_ratio != 1:
                context.sample_aspect_ratio = info.sample_aspect_ratio
        if settings.codec in (
            "libx265",
            "hevc_nvenc",
            "hevc_qsv",
            "hevc_videotoolbox",
        ) and self.path.suffix in (
            ".mp4",
            ".m4v",
            ".mov",
        ):
            context.codec_tag = "hvc1"  # without it QuickTime shows nothing
        stream.time_base = self._time_base
        return stream

    def _add_copied(self, source: VideoSource, muxer: str) -> tuple[dict[int, _Copied], Any]:
        copied: dict[int, _Copied] = {}
        for template in source.streams_to_copy():
            name = template.codec_context.name if template.codec_context is not None else template.type
            label = f"{template.type} ({name})"
            transcoder = None
            if not why_not_copied(template, muxer):
                stream = self._container.add_stream_from_template(template)
            elif (transcoder := transcode(template, self._container, muxer)) is not None:
                stream = transcoder.stream
                made = stream.codec_context.codec.canonical_name
                mixed = " in stereo" if isinstance(transcoder, AudioTranscoder) and transcoder.mixed else ""
                self._warn(f"{label} becomes {made}{mixed}: {self.path.suffix} cannot hold it as it is")
            else:
                if template.type != "attachment":
                    self._warn(f"{label} is left out: {self.path.suffix} cannot hold it")
                continue
            for key, value in template.metadata.items():
                if key not in _OWN_METADATA:
                    stream.metadata[key] = value
            with suppress(AttributeError, TypeError):
                stream.disposition = template.disposition
            copied[template.index] = _Copied(stream, label, transcoder)
        return copied, source.attach(copied.keys())

    def _add_metadata(self, source: VideoSource) -> None:
        for key, value in source.info.metadata.items():
            if key not in _OWN_METADATA:
                self._container.metadata[key] = value

    # -- writing -------------------------------------------------------------------------------------------

    def write(self, frame: Frame) -> None:
        if frame.size != self._size:
            raise ValueError(f"the sink was opened for frames of {self._size}, got {frame.size}")
        if not self._open:
            raise ValueError("the sink is closed")
        try:
            with _writing(self.path):
                self._write(frame)
        except BaseException:
            self.abort()
            raise
        self.frames_written += 1

    def _write(self, frame: Frame) -> None:
        pts = self._rescale(frame.pts, frame.time_base)
        if self._last_pts is not None and pts <= self._last_pts:
            if self._gif:
                self._warn("the input has more than 100 frames a second, gif has not: it plays slower")
            pts = self._last_pts + 1
        duration = self._rescale(int(frame.props.get("duration", 0)), frame.time_base)
        self._durations[pts] = duration or self._usual_duration
        self._last_pts = pts
        if self._palette is not None:
            for picture in self._palette.push(frame.image, pts):
                self._encode(picture)
        else:
            picture = from_rgb(self._even(frame.image), self._tags)
            wanted = pixel_format(self.codec)
            if wanted != "yuv420p":
                picture = picture.reformat(format=wanted)
            picture.pts, picture.time_base = pts, self._time_base
            self._encode(picture)
        self._copy_packets()

    def _rescale(self, ticks: int, time_base: Fraction) -> int:
        return ticks if time_base == self._time_base else round(ticks * time_base / self._time_base)

    def _even(self, image: Image) -> Image:
        height, width = image.shape[:2]
        if not needs_even_size(self.codec) or (width % 2 == 0 and height % 2 == 0):
            return image
        import cv2

        padded = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        return np.asarray(padded, np.uint8)

    def _encode(self, picture: Any) -> None:
        for packet in self._stream.encode(picture):
            # Encoders forget durations; without this one the last frame would last by guess.
            duration = self._durations.pop(packet.pts, 0)
            if duration:
                packet.duration = duration
            self._container.mux(packet)

    def _copy_packets(self) -> None:
        for index, packet in self._queue.drain():
            copied = self._copied.get(index)
            if copied is None:
                continue
            for one in [packet] if copied.transcoder is None else copied.transcoder.push(packet):
                self._copy(index, copied, one)

    def _flush_transcoders(self) -> None:
        for index, copied in list(self._copied.items()):
            if copied.transcoder is not None:
                for packet in copied.transcoder.flush():
                    self._copy(index, copied, packet)
                if copied.transcoder.damaged:
                    self._warn(f"{copied.label} is damaged: what cannot be decoded is missing")

    def _copy(self, index: int, copied: _Copied, packet: Any) -> None:
        import av

        if packet.dts is None:
            packet.dts = packet.pts
        if packet.dts is None:
            return
        if copied.last_dts is not None and packet.dts < copied.last_dts:
            self._warn(f"{copied.label}: packets whose time runs backwards are left out")
            return
        copied.last_dts = packet.dts
        packet.stream = copied.stream
        try:
            self._container.mux(packet)
        except (av.FFmpegError, ValueError) as error:
            if getattr(error, "errno", None) not in (errno.EINVAL, None) and not isinstance(
                error, ValueError
            ):
                raise
            del self._copied[index]
            self._warn(
                f"{copied.label} is left out from here on: {getattr(error, 'strerror', None) or error}"
            )

    # -- ending --------------------------------------------------------------------------------------------

    def finish(self) -> None:
        if not self._open:
            return
        try:
            with _writing(self.path):
                if self._palette is not None:
                    for picture in self._palette.flush():
                        self._encode(picture)
                self._encode(None)
                self._copy_packets()
                self._flush_transcoders()
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


class _PaletteGraph:
    """RGB pictures to 256 colours with FFmpeg's palettegen and paletteuse, one palette for some seconds.

    A palette for each picture would flicker and keep the encoder from leaving out what stands still; one for
    the whole video would need all of it in memory.
    """

    MEMORY = 64 << 20
    """Bytes of pictures that wait for their palette."""

    def __init__(self, size: tuple[int, int], time_base: Fraction) -> None:
        self._size, self._time_base = size, time_base
        self._window = max(1, min(100, self.MEMORY // (size[0] * size[1] * 3)))
        self._waiting = 0
        self._graph: Any = None

    def push(self, image: Image, pts: int) -> list[Any]:
        """Take a picture in; pictures that are ready come back, in order."""
        import av

        if self._graph is None:
            self._graph = self._build()
        # A copy, because the graph keeps the picture.
        picture = av.VideoFrame.from_ndarray(image, "rgb24")
        picture.pts, picture.time_base = pts, self._time_base
        self._graph.push(picture)
        self._waiting += 1
        return self.flush() if self._waiting >= self._window else []

    def flush(self) -> list[Any]:
        """The pictures that still wait."""
        import av

        ready: list[Any] = []
        if self._waiting:
            self._graph.push(None)
            with suppress(av.error.BlockingIOError, av.error.EOFError):
                while True:
                    picture = self._graph.pull()
                    picture.pict_type = 0
                    ready.append(picture)
        self._graph, self._waiting = None, 0
        return ready

    def _build(self) -> Any:
        import av
        from av.filter import Graph

        graph = Graph()
        width, height = self._size
        rgb = av.VideoFormat("rgb24", width, height)
        source = graph.add_buffer(width=width, height=height, format=rgb, time_base=self._time_base)
        split = graph.add("split")
        palette = graph.add("palettegen", "reserve_transparent=1")
        # Ordered dither stays in place from frame to frame, where error diffusion would crawl.
        use = graph.add("paletteuse", "dither=bayer:bayer_scale=4:diff_mode=rectangle")
        end = graph.add("buffersink")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(palette, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(end)
        graph.configure()
        return graph


class StillSink(VideoSink):
    """One image file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, path.suffix[1:].lower())
        self._temporary = temporary_name(path)
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.touch()

    def write(self, frame: Frame) -> None:
        if self.frames_written:
            raise ValueError("an image file takes one frame")
        try:
            _save_image(self._temporary, frame.image, self.path)
        except BaseException:
            self.abort()
            raise
        self.frames_written += 1

    def finish(self) -> None:
        if not self._open:
            return
        if not self.frames_written:
            self.abort()
            return
        with _writing(self.path):
            os.replace(self._temporary, self.path)
        self._open = False

    def abort(self, keep: bool = False) -> None:
        if keep and self.frames_written:
            self.finish()
        elif self._open:
            self._open = False
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)


class ImageSequenceSink(VideoSink):
    """Numbered images, one for each frame, counted from 0 as `Frame.index` is."""

    def __init__(
        self, path: Path, source: VideoSource, size: tuple[int, int], *, overwrite: bool = False
    ) -> None:
        folder = path.parent if _PATTERN.search(path.name) else path
        pattern = path.name if _PATTERN.search(path.name) else "%05d.png"
        if len(_PATTERN.findall(pattern)) != 1 or pattern.count("%") != 1:
            raise OutputError(f"the pattern {pattern!r} must hold one number", "write it as %05d")
        super().__init__(folder / pattern, Path(pattern).suffix[1:].lower())
        self._folder, self._pattern, self._size = folder, pattern, size
        self._written: list[Path] = []
        given = Path(source.info.path)
        if given.exists() and folder.exists() and given.is_dir() and folder.samefile(given):
            raise OutputError(f"the output folder {folder} is the input folder", "choose another folder")
        before, after = (re.escape(part) for part in _PATTERN.split(pattern))
        name = re.compile(rf"{before}\d+{after}")
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            taken = [f.name for f in folder.iterdir() if name.fullmatch(f.name)]
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if taken and not overwrite:
            raise OutputError(
                f"{folder} holds {taken[0]} and maybe more already", "give --overwrite to replace such images"
            )
        if source.info.has_audio:
            self._warn("audio is left out: images cannot hold it")

    def write(self, frame: Frame) -> None:
        if frame.size != self._size:
            raise ValueError(f"the sink was opened for frames of {self._size}, got {frame.size}")
        target = self._folder / (self._pattern % self.frames_written)
        temporary = temporary_name(target)
        try:
            _save_image(temporary, frame.image, target)
            with _writing(target):
                os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            self.abort()
            raise
        self._written.append(target)
        self.frames_written += 1

    def finish(self) -> None:
        self._open = False

    def abort(self, keep: bool = False) -> None:
        if self._open and not keep:
            for file in self._written:
                with suppress(OSError):
                    file.unlink()
        self._open = False


def output_tags(info: SourceInfo) -> ColorTags:
    """The tags of the output, which are also those that RGB is converted with: the source's, gaps filled."""
    if info.is_still or info.container == "images":
        return ColorTags(range=RANGE_MPEG).resolved(info.coded_height)
    return info.color.resolved(info.coded_height or info.height)


def why_not_copied(template: Any, muxer: str) -> str:
    """Write a header with this stream alone: "" when the container takes it, else the reason it does not."""
    import av

    if template.type == "attachment":
        return "" if muxer == "matroska" else "no attachments"
    if muxer == "gif" or template.codec_context is None:
        return "no such stream"
    if muxer == "mp4" and template.type == "audio" and template.codec_context.name.startswith("pcm_"):
        return "few players take it"  # and for channels without a layout FFmpeg fails, at the very end
    try:
        container = av.open(io.BytesIO(), "w", format=muxer)
        container.add_stream_from_template(template)
        container.start_encoding()
    except (av.FFmpegError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    with suppress(av.FFmpegError, ValueError):
        container.close()
    return ""


def _check_container(codec: str, extension: str) -> None:
    """Refuse what cannot be asked for, such as H.264 in webm."""
    import av

    from gnr_video.media.encoders import ALIASES

    codec = ALIASES.get(codec, codec)
    if codec not in av.codecs_available:
        return  # choose_encoder says so better
    try:
        av.open(io.BytesIO(), "w", format=CONTAINERS[extension]).add_stream(codec, rate=25)
    except ValueError:
        raise OutputError(
            f"{extension} cannot hold {codec}",
            f"leave --codec out for {default_codec(extension)}, or write an mkv",
        ) from None
    except av.FFmpegError:
        return


def _muxer_options(muxer: str, time_base: Fraction, source: VideoSource, live: bool) -> dict[str, str]:
    written = {"flush_packets": "1"} if live else {}  # to the disk, not to a buffer
    if muxer not in ("mp4", "mov"):
        return written
    if live:
        return written | {"movflags": "+frag_keyframe+empty_moov+default_base_moof"}
    # Edit lists, which hold a first pts that is not zero, count in this unit; by default milliseconds.
    scale = time_base.denominator
    for template in source.streams_to_copy():
        if template.time_base is not None:
            together = math.lcm(scale, Fraction(template.time_base).denominator)
            scale = together if together < 2**31 else scale
    return {"movflags": "+faststart", "movie_timescale": str(scale)}


def _save_image(file: Path, image: Image, target: Path) -> None:
    import cv2

    options = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95], ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95]}
    suffix = file.suffix.lower()
    done, data = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]), options.get(suffix, []))
    if not done:
        raise OutputError(f"cannot encode {target}", "write a .png instead")
    with _writing(target):
        file.write_bytes(data.tobytes())
