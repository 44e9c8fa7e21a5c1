"""The sink of videos: frames become a video file or a GIF through PyAV, beside the input's own audio.

Audio and subtitle packets are copied as they are; what the container cannot hold is encoded anew where it can be
(`gnr_video.media.transcode`). Everything is written under a temporary name and renamed at the end, so that a file
under the final name is always whole.
"""

from __future__ import annotations

import errno
import io
import math
import os
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import OutputError
from gnr_video.frame import Frame, Image
from gnr_video.media.color import RANGE_MPEG, ColorTags, from_rgb, from_rgba
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
from gnr_video.media.sink import VideoSink, temporary_name, writing
from gnr_video.media.sound import SoundEncoder
from gnr_video.media.transcode import AudioTranscoder, TextTranscoder, transcode
from gnr_video.media.transparency import ON_WHITE, on_white

if TYPE_CHECKING:
    from gnr_video.media.source import SourceInfo, VideoSource

_PLAYED = {
    "mp4": ("aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"),
    "mov": ("aac", "mp3", "ac3", "eac3", "alac", "pcm_", "adpcm_", "qdm", "mace", "gsm", "amr"),
}
"""Sound that players find in a container, though more can be put into it."""

_EQUAL_TIMES = ("matroska", "webm")
"""Muxers that take packets of the same time in one stream."""

_HIGHEST_TIMECODE = 255  # frames a second: a byte in the file

_GIF_TIME_BASE = Fraction(1, 100)

# What a muxer writes by itself, or what described the input's container only.
_OWN_METADATA = {"major_brand", "minor_version", "compatible_brands", "encoder", "ENCODER", "DURATION"}


@dataclass
class _Copied:
    """An audio or subtitle stream on its way through: where it goes, and what encodes it anew if it must be."""

    stream: Any
    label: str
    transcoder: AudioTranscoder | TextTranscoder | None = None
    last_dts: int | None = None
    skipped: int = 0


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
        import av

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
            _check_container(settings.codec, extension)
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
        self._doubtful = 0  # packets of sound and text that the muxer may still find fault with
        self._usual_duration = max(1, round(1 / (settings.rate * self._time_base)))
        self._temporary = temporary_name(path)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.touch()
        try:
            with writing(path):
                muxer = CONTAINERS[extension]
                self._strict = int(muxer not in _EQUAL_TIMES)
                options = _muxer_options(muxer, self._time_base, source, live)
                self._container: Any = av.open(
                    f"file:{self._temporary}", "w", format=muxer, container_options=options
                )
                self._stream = self._add_video(settings, info)
                self._copied, self._queue = self._add_copied(source, muxer)
                self._sound = SoundEncoder(self._container, muxer) if sound else None
                covers = self._add_covers(source, muxer)
                self._add_metadata(source, muxer, settings.rate)
                self._container.start_encoding()
                for packet in covers:
                    self._container.mux(packet)
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
                self.warn(f"{label} becomes {made}{mixed}: {self.path.suffix} cannot hold it as it is")
            else:
                if template.type != "attachment":
                    self.warn(f"{label} is left out: {self.path.suffix} cannot hold it")
                continue
            for key, value in template.metadata.items():
                if key not in _OWN_METADATA:
                    stream.metadata[key] = value
            with suppress(AttributeError, TypeError):
                stream.disposition = template.disposition
            copied[template.index] = _Copied(stream, label, transcoder)
        return copied, source.attach(copied.keys())

    def _add_covers(self, source: VideoSource, muxer: str) -> list[Any]:
        """Cover pictures; the packets are to be written after the header."""
        packets = []
        for number, (template, packet) in enumerate(source.covers()):
            kind = template.codec_context.name
            if muxer == "matroska":
                mime = f"image/{'jpeg' if kind == 'mjpeg' else kind}"
                self._container.add_attachment(f"cover{number or ''}.{mime[6:]}", mime, bytes(packet))
            elif muxer == "mp4":
                stream = self._container.add_stream_from_template(template)
                stream.disposition = template.disposition
                packet.stream, packet.pts, packet.dts = stream, 0, 0
                packets.append(packet)
            else:
                self.warn(f"the cover picture is left out: {self.path.suffix} cannot hold it")
        return packets

    def _add_metadata(self, source: VideoSource, muxer: str, rate: Fraction) -> None:
        for key, value in source.info.metadata.items():
            if key not in _OWN_METADATA and key.lower() != "timecode":
                self._container.metadata[key] = value
        tracks = source.data_tracks()
        if tracks:
            self.warn(f"data tracks are left out: {', '.join(dict.fromkeys(tracks))}")
        chapters = source.chapters()
        if chapters and muxer in ("mp4", "mov", "matroska", "webm"):
            self._container.set_chapters(chapters)
        elif chapters:
            self.warn(f"chapters are left out: {self.path.suffix} cannot hold them")
        timecode = source.timecode()
        if timecode and muxer in ("mp4", "mov", "matroska") and _is_timecode(timecode, rate):
            self._stream.metadata["timecode"] = timecode
        elif timecode:
            self.warn(
                f"the timecode {timecode} is left out: {self.path.suffix} cannot hold it at this frame rate"
            )

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
        self._copy_packets()

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
            try:
                self._container.mux(packet)
            except (av.FFmpegError, ValueError) as error:
                # Muxers write late: it may be a packet of the sound that was accepted before.
                if not self._doubtful or not _is_bad_packet(error):
                    raise
                self._doubtful -= 1
                self.warn("a packet of the sound is damaged, and left out")

    def _copy_packets(self) -> None:
        for index, packet in self._queue.drain():
            copied = self._copied.get(index)
            if copied is None:
                continue
            for one in [packet] if copied.transcoder is None else copied.transcoder.push(packet):
                self._copy(copied, one)

    def _flush_transcoders(self) -> None:
        for copied in self._copied.values():
            if copied.transcoder is not None:
                for packet in copied.transcoder.flush():
                    self._copy(copied, packet)

    def _copy(self, copied: _Copied, packet: Any) -> None:
        """Write a packet of sound or text; one that the container does not take costs itself."""
        import av

        if packet.dts is None:
            packet.dts = packet.pts
        if packet.dts is None:
            copied.skipped += 1
            return
        dts = round(packet.dts * packet.time_base / copied.stream.time_base)
        if copied.last_dts is not None and dts < copied.last_dts + self._strict:
            copied.skipped += 1
            return
        packet.stream = copied.stream
        try:
            self._container.mux(packet)
        except (av.FFmpegError, ValueError) as error:
            if not _is_bad_packet(error):
                raise
            copied.skipped += 1
            return
        copied.last_dts = dts
        self._doubtful += 1

    def _account(self) -> None:
        """Say what was left out."""
        for copied in self._copied.values():
            if copied.transcoder is not None and copied.transcoder.damaged:
                self.warn(f"{copied.label} is damaged: what cannot be decoded is missing")
            if copied.skipped and copied.last_dts is None:
                self.warn(f"{copied.label} is left out: none of its packets can be written")
            elif copied.skipped:
                self.warn(
                    f"{copied.label}: {copied.skipped} packets with impossible times or contents are left out"
                )

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
                self._copy_packets()
                self._flush_transcoders()
                self._container.mux([] if self._sound is None else list(self._sound.flush()))
                self._account()
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


def _is_timecode(text: str, rate: Fraction) -> bool:
    """Whether FFmpeg's muxers can count a timecode at so many frames a second."""
    found = re.fullmatch(r"\d\d:\d\d:\d\d([:;.])\d\d+", text)
    if found is None or not 1 <= round(rate) <= _HIGHEST_TIMECODE:
        return False
    return found[1] == ":" or (rate * 1001) % 30000 == 0


def _is_bad_packet(error: Exception) -> bool:
    """Whether a muxer has refused a packet, rather than the disk."""
    import av

    # FFmpeg's own errors are tags of four letters, far above the system's numbers.
    return (
        not isinstance(error, av.FFmpegError) or error.errno == errno.EINVAL or (error.errno or 0) > 1 << 16
    )


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
    played = _PLAYED.get(muxer)
    if played and template.type == "audio":
        name = template.codec_context.codec.canonical_name
        if not name.startswith(played):
            return "few players take it"  # and for PCM without a layout FFmpeg fails, at the very end
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
    # Keys of phones (place, make) are no part of mp4's own; written, they take the place of those.
    keys = "+use_metadata_tags" if any(key.startswith("com.") for key in source.info.metadata) else ""
    return {"movflags": f"+faststart{keys}", "movie_timescale": str(scale)}
