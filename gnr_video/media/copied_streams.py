"""Sound and text on their way into a container: copied as they are, or encoded anew (part of the container sink)."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnr_video.media.muxing import OWN_METADATA
from gnr_video.media.transcode import AudioTranscoder, TextTranscoder, transcode

if TYPE_CHECKING:
    from gnr_video.media.source import VideoSource

_PLAYED = {
    "mp4": ("aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"),
    "mov": ("aac", "mp3", "ac3", "eac3", "alac", "pcm_", "adpcm_", "qdm", "mace", "gsm", "amr"),
}
"""Sound that players find in a container, though more can be put into it."""

_EQUAL_TIMES = ("matroska", "webm")
"""Muxers that take packets of the same time in one stream."""


@dataclass
class _Copied:
    """A stream on its way through: where it goes, and what encodes it anew if it must be."""

    stream: Any
    label: str
    transcoder: AudioTranscoder | TextTranscoder | None = None
    last_dts: int | None = None
    skipped: int = 0


class CopiedStreams:
    """The streams of an input that go into an output beside the pictures.

    Args:
        source: the input; asked for the packets of these streams.
        container: the output (PyAV's), before its header is written; gets the new streams.
        muxer: FFmpeg's name of its format.
        suffix: that its name ends in, for messages.
        warn: called with what the user should know.
    """

    def __init__(
        self, source: VideoSource, container: Any, muxer: str, suffix: str, warn: Callable[[str], None]
    ) -> None:
        self._container, self._muxer, self._suffix, self._warn = container, muxer, suffix, warn
        self._strict = int(muxer not in _EQUAL_TIMES)
        self._doubtful = 0  # packets that the muxer may still find fault with
        self._streams: dict[int, _Copied] = {}
        for template in source.streams_to_copy():
            self._add(template)
        self._queue = source.attach(self._streams.keys())

    def _add(self, template: Any) -> None:
        name = template.codec_context.name if template.codec_context is not None else template.type
        label = f"{template.type} ({name})"
        transcoder = None
        if not why_not_copied(template, self._muxer):
            stream = self._container.add_stream_from_template(template)
        elif (transcoder := transcode(template, self._container, self._muxer)) is not None:
            stream = transcoder.stream
            made = stream.codec_context.codec.canonical_name
            mixed = " in stereo" if isinstance(transcoder, AudioTranscoder) and transcoder.mixed else ""
            self._warn(f"{label} becomes {made}{mixed}: {self._suffix} cannot hold it as it is")
        else:
            if template.type != "attachment":
                self._warn(f"{label} is left out: {self._suffix} cannot hold it")
            return
        for key, value in template.metadata.items():
            if key not in OWN_METADATA:
                stream.metadata[key] = value
        with suppress(AttributeError, TypeError):
            stream.disposition = template.disposition
        self._streams[template.index] = _Copied(stream, label, transcoder)

    def write(self) -> None:
        """Write what has been read so far."""
        for index, packet in self._queue.drain():
            copied = self._streams.get(index)
            if copied is None:
                continue
            for one in [packet] if copied.transcoder is None else copied.transcoder.push(packet):
                self._copy(copied, one)

    def finish(self) -> None:
        """Write what is left, and say what was left out."""
        self.write()
        for copied in self._streams.values():
            if copied.transcoder is not None:
                for packet in copied.transcoder.flush():
                    self._copy(copied, packet)
        self._account()

    def explains(self, error: Exception) -> bool:
        """Whether an error of the muxer may be about a packet that it took from here before: muxers write late."""
        if not self._doubtful or not _is_bad_packet(error):
            return False
        self._doubtful -= 1
        self._warn("a packet of the sound is damaged, and left out")
        return True

    def _copy(self, copied: _Copied, packet: Any) -> None:
        """Write a packet; one that the container does not take costs itself."""
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
        if copied.last_dts is not None and not packet.duration and copied.stream.type == "audio":
            # In mp4 a last packet that does not last is never played.
            packet.duration = round((dts - copied.last_dts) * copied.stream.time_base / packet.time_base)
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
        for copied in self._streams.values():
            if copied.transcoder is not None and copied.transcoder.damaged:
                self._warn(f"{copied.label} is damaged: what cannot be decoded is missing")
            if copied.skipped and copied.last_dts is None:
                self._warn(f"{copied.label} is left out: none of its packets can be written")
            elif copied.skipped:
                self._warn(
                    f"{copied.label}: {copied.skipped} packets with impossible times or contents are left out"
                )


def _is_bad_packet(error: Exception) -> bool:
    """Whether a muxer has refused a packet, rather than the disk."""
    import av

    # FFmpeg's own errors are tags of four letters, far above the system's numbers.
    return (
        not isinstance(error, av.FFmpegError) or error.errno == errno.EINVAL or (error.errno or 0) > 1 << 16
    )


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
