"""The source of videos: what PyAV opens, a file, URL or pipe, becomes upright RGB frames.

Single pass: every packet is read once. Pictures are decoded and handed on; audio and subtitle packets are
put, untouched, into a queue that the sink empties as it writes.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from engines.errors import InputError
from gnr_video.channels import interruptibly
from gnr_video.frame import Frame
from gnr_video.media.color import frame_tags, has_alpha, to_alpha, to_rgb
from gnr_video.media.deinterlace import deinterlaced, first_field
from gnr_video.media.formats import Head
from gnr_video.media.opening import open_container
from gnr_video.media.orientation import read_orientation
from gnr_video.media.packet_reader import PacketReader
from gnr_video.media.picture_decoder import PictureDecoder
from gnr_video.media.programmes import read_programmes
from gnr_video.media.source import Cover, Opening, PacketQueue, SourceInfo, StreamPacket, VideoSource
from gnr_video.media.stream_choice import choose_streams
from gnr_video.media.stream_facts import (
    chapters_of,
    data_tracks_of,
    frame_rate,
    length,
    may_be_still,
    pixel_aspect,
    square_size,
    timecode_of,
    unit_of,
)
from gnr_video.media.transparency import hide

log = logging.getLogger(__name__)

_SEEKABLE_FORMATS = ("mov", "matroska", "webm")
_SECONDS_PAST_END = 10
_PREROLL = Fraction(1, 10)  # seconds
_SELDOM_TRANSPARENT = ("gif", "apng", "png", "rawvideo", "qtrle", "bmp", "tiff", "targa")


@dataclass(frozen=True)
class Reading:
    """What of an input is read, and how; see `open_source` for the attributes.

    Attributes:
        clock: of a part of something that was read before, that one's `Opening.clock`. Its frames keep the times that
            they had there, and `start` is such a time.
    """

    start: float | None = None
    end: float | None = None
    keep_fields: bool = False
    stream: int | None = None
    clock: Fraction | None = None


class ContainerSource(VideoSource):
    """A video that PyAV opens; see `open_source` for the arguments."""

    def __init__(
        self,
        path: str,
        url: str | Head,
        part: Reading = Reading(),
    ) -> None:
        from av.video.reformatter import VideoReformatter

        self._path = path
        self._part = part
        self._warnings: list[str] = []
        self._reading = threading.Lock()
        self._closed = False
        self._reformatter, self._alpha_reformatter = VideoReformatter(), VideoReformatter()
        self._held: deque[StreamPacket] | None = deque()
        self._queue: PacketQueue | None = None
        self._shift = Fraction(0)
        self._is_skimmed = False
        if isinstance(url, str) and url.startswith("file:"):
            self._open(url, seekable=True)
        else:
            # It may say nothing for ever.
            interruptibly(lambda: self._open(url, seekable=False), "gnr-video open", undo=self.close)
        self._taken = False
        if self.info.color.is_hdr:
            self.warn(
                "HDR video (PQ or HLG): the output keeps its colour tags but has 8 bits, and the anime face "
                "may look flat; convert it to SDR first for good colours"
            )
        if self._decoder.has_captions:
            self.warn("closed captions inside the pictures (CEA-608, CEA-708) are left out")

    def _open(self, url: str | Head, *, seekable: bool) -> None:
        """Everything that reads before the first frame is asked for."""
        programmes = read_programmes(url)  # before FFmpeg uses up what is no file
        self._container = open_container(self._path, url)
        try:
            streams = choose_streams(self._path, self._container, programmes, self._part.stream, self.warn)
            self._stream, self._copied, self._covers = streams.video, streams.copied, streams.covers
            self._stream.thread_type = "AUTO"
            self._time_base = unit_of(self._stream)
            self._reader = PacketReader(self._path, self._container, streams, self.warn)
            self._set_range(seekable)
            is_avi = self._container.format.name == "avi"
            self._decoder = PictureDecoder(self._path, self._stream, is_avi=is_avi, warn=self.warn)
            self._decoded = self._decode()
            self._first = self._decode_first()
            self._second = next(self._decoded, None) if may_be_still(self._container) else None
            self._orientation = read_orientation(self._first, self._decoder.name)
            self.info = self._describe()
            if self._part.clock is not None:
                self._shift = self._part.clock
            elif self._part.start is not None or not self.info.has_audio:
                self._shift = self._first.pts * self._time_base
            self._opening = Opening(self._first.pts * self._time_base - self._shift, self._shift)
        except BaseException:
            self._container.close()
            raise

    def streams_to_copy(self) -> list[Any]:
        return list(self._copied.values())

    def covers(self) -> list[Cover]:
        return [Cover(self._covers[index], packet) for index, packet in self._reader.covers.items()]

    def chapters(self) -> list[dict[str, Any]]:
        return chapters_of(self._container, self._reader.clock, self._shift, self._end)

    def data_tracks(self) -> list[str]:
        return data_tracks_of(self._container)

    def timecode(self) -> str:
        return timecode_of(self._container, self._stream)

    def opening(self) -> Opening:
        return self._opening

    def attach(self, streams: Collection[int]) -> PacketQueue:
        self._queue = PacketQueue(streams)
        held, self._held = self._held or (), None
        for item in held:
            self._pass_on(item)
        return self._queue

    def __iter__(self) -> Iterator[Frame]:
        if self._taken:
            raise RuntimeError("a video source can be gone through only once")
        self._taken = True
        self._held = None
        return self._frames()

    def skim(self) -> Iterator[Fraction]:
        """Read on without decoding, for the packets of the other streams that were attached.

        Yields:
            How far it has come, seconds on the clock of the frames.
        """
        self._taken, self._held, self._is_skimmed = True, None, True
        while (packet := self._next(self._decoded)) is not None:
            if packet.dts is not None:
                yield packet.dts * self._time_base - self._shift

    def close(self) -> None:
        self._closed = True
        # The reading thread may be inside FFmpeg. If it is blocked there for good (a pipe that says nothing),
        # the process is about to end anyway, and closing under it would crash.
        if self._reading.acquire(timeout=5.0):
            try:
                self._decoded.close()
                self._container.close()
            finally:
                self._reading.release()

    def _next(self, pictures: Iterator[Any]) -> Any:
        with self._reading:
            return None if self._closed else next(pictures, None)

    def _pictures(self) -> Iterator[Any]:
        picture, self._first = self._first, None
        second, self._second = self._second, None
        while picture is not None:
            yield picture
            picture, second = second or self._next(self._decoded), None

    def _frames(self) -> Iterator[Frame]:
        stored = (self._first.width, self._first.height)
        size = square_size(stored, pixel_aspect(self._stream))
        shift = round(self._shift / self._time_base)
        pictures = self._pictures()
        if not self._part.keep_fields:
            pictures = deinterlaced(pictures, self._time_base, self._say_interlaced)
        for index, picture in enumerate(pictures):
            if (picture.width, picture.height) != stored:
                self.warn(
                    f"the picture size changes to {picture.width}x{picture.height}: scaled to "
                    f"{stored[0]}x{stored[1]}, the size of the first frame"
                )
            image, alpha = to_rgb(picture, self._reformatter, size), None
            if self.info.has_alpha and has_alpha(picture):
                image, alpha = hide(image, to_alpha(picture, self._alpha_reformatter, size))
                alpha = None if alpha is None else self._orientation.apply(alpha)
            image = self._orientation.apply(image)
            duration = max(0, int(getattr(picture, "duration", 0) or 0))
            yield Frame(image, picture.pts - shift, self._time_base, index, {"duration": duration}, alpha)

    def _say_interlaced(self) -> None:
        self.warn(f"{self._path} is interlaced: it is deinterlaced (--interlaced keep leaves it)")

    # -- reading -------------------------------------------------------------------------------------------

    def _set_range(self, seekable: bool) -> None:
        """Turn seconds after the first frame into the file's own clock, and seek to the first."""
        start, end = self._part.start, self._part.end
        origin = self._reader.clock.moved((self._stream.start_time or 0) * self._time_base)
        begin = origin if self._part.clock is None else self._part.clock
        self._start = None if start is None else begin + Fraction(start).limit_denominator(10**6)
        self._end = None if end is None else origin + Fraction(end).limit_denominator(10**6)
        self._earliest: Fraction | None = None
        self._sought = False
        names = self._container.format.name.split(",")
        if self._start and start and seekable and any(n in _SEEKABLE_FORMATS for n in names):
            self._sought = self._seek(self._start)
        self._reader.reads_all = not self._sought and end is None

    def _seek(self, seconds: Fraction) -> bool:
        import av

        try:
            raw = seconds - self._reader.clock.moved(Fraction(0))
            self._container.seek(int(raw / self._time_base), stream=self._stream)
        except av.FFmpegError:
            return False
        return True

    def _decode_first(self) -> Any:
        first = next(self._decoded, None)
        if self._sought and (self._earliest is None or self._earliest > (self._start or 0)):
            # The seek went too far, as it may without a good index: read from the beginning instead.
            self._container.seek(0)
            self._held = deque()
            self._decoder.restart()
            self._reader.restart()
            self._decoded = self._decode()
            first = next(self._decoded, None)
        if first is not None:
            return first
        if self._start is not None or self._end is not None:
            raise InputError(
                f"{self._path} has no frame in the part asked for",
                "check --start and --end against its length",
            )
        is_damaged = self._reader.errors or self._decoder.errors
        hint = "the file is damaged" if is_damaged else "the file has a video stream with nothing in it"
        raise InputError(f"no frame could be decoded from {self._path}", hint)

    def _decode(self) -> Generator[Any, None, None]:
        """Pictures inside the range with a strictly increasing pts; other packets go to the queue."""
        past_end: set[int] = set()
        ended = False
        audio = {i for i, s in self._copied.items() if s.type == "audio"}
        for packet in self._reader.read():
            if packet is not None and packet.stream_index != self._stream.index:
                if self._pass_on(StreamPacket(packet.stream_index, packet)):
                    past_end.add(packet.stream_index)
            elif self._is_skimmed and packet is not None:
                at = None if packet.dts is None else packet.dts * self._time_base
                ended = ended or (self._end is not None and at is not None and at >= self._end)
                yield packet
            elif not ended:
                for picture in self._decoder.decode(packet):
                    if picture.is_corrupt:
                        self.warn(f"{self._path} is damaged: some frames are not as they were")
                    seconds = picture.pts * self._time_base
                    if self._earliest is None:
                        self._earliest = seconds
                    if self._start is not None and seconds < self._start:
                        continue
                    if self._end is not None and seconds >= self._end:
                        ended = True
                        break
                    yield picture
            if ended and (past_end >= audio or self._far_past_end(packet)):
                return

    def _far_past_end(self, packet: Any) -> bool:
        """Whether reading on for audio that ends with the part is pointless."""
        if packet is None or packet.dts is None:
            return packet is None
        return bool(packet.dts * packet.time_base > (self._end or 0) + _SECONDS_PAST_END)

    def _pass_on(self, item: StreamPacket) -> bool:
        """Queue a packet to be copied, moved in time with the frames; True if it lies past the end."""
        packet = item.packet
        time = packet.pts if packet.pts is not None else packet.dts
        seconds = None if time is None else time * packet.time_base
        past_end = self._end is not None and seconds is not None and seconds >= self._end
        if seconds is not None and seconds + (packet.duration or 0) * packet.time_base < -_PREROLL:
            return past_end  # cut off by an edit list; decoders need no more than the last of it
        if self._held is not None:
            self._held.append(item)
        elif self._queue is not None and item.stream in self._queue.streams and not past_end:
            if self._shift:
                if self._start is not None and (seconds is None or seconds < self._shift):
                    return past_end
                ticks = round(self._shift / packet.time_base)
                packet.pts = None if packet.pts is None else packet.pts - ticks
                packet.dts = None if packet.dts is None else packet.dts - ticks
            self._queue.put(item)
        return past_end

    # -- what is known -------------------------------------------------------------------------------------

    def _has_alpha(self) -> bool:
        """Whether pictures have transparency: of formats in which that is rare, whether the first has."""
        if not has_alpha(self._first):
            return False
        is_likely = self._decoder.name not in _SELDOM_TRANSPARENT
        return is_likely or bool(to_alpha(self._first, self._alpha_reformatter).min() < 255)

    def _describe(self) -> SourceInfo:
        stream, first, container = self._stream, self._first, self._container
        aspect = pixel_aspect(stream)
        stored: tuple[int, ...] = (first.width, first.height)
        width, height = square_size((first.width, first.height), aspect)
        is_square = (width, height) == stored
        if self._orientation.transpose:
            width, height, aspect, stored = height, width, 1 / aspect, stored[::-1]
        duration, count = length(container, stream, self._part.start, self._part.end)
        return SourceInfo(
            path=self._path,
            width=width,
            height=height,
            average_rate=frame_rate(stream),
            time_base=self._time_base,
            duration_seconds=None if duration is None else float(duration),
            frame_count=count,
            codec=stream.codec_context.name,
            pix_fmt=first.format.name,
            container=container.format.name,
            color=frame_tags(first),
            coded_height=first.height,
            rotation=self._orientation.rotation,
            sample_aspect_ratio=aspect,
            stored=None if is_square else (stored[0], stored[1]),
            has_alpha=self._has_alpha(),
            fields=first_field(first) if self._part.keep_fields else "",
            has_audio=any(s.type == "audio" for s in self._copied.values()),
            is_still=may_be_still(container) and self._second is None,
            metadata=dict(container.metadata),
            warnings=self._warnings,
        )

    def warn(self, text: str) -> None:
        if text not in self._warnings:
            self._warnings.append(text)
            log.warning("%s", text)
