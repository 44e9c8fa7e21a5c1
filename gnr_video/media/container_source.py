"""The source of videos: what PyAV opens, a file, URL or pipe, becomes upright RGB frames.

Single pass: every packet is read once. Pictures are decoded and handed on; audio and subtitle packets are
put, untouched, into a queue that the sink empties as it writes.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import InputError
from gnr_video.frame import Frame
from gnr_video.media.clock import TS_DISCONT, Clock
from gnr_video.media.color import frame_tags, has_alpha, to_alpha, to_rgb
from gnr_video.media.deinterlace import deinterlaced, first_field
from gnr_video.media.formats import HEIF_BRANDS, Head
from gnr_video.media.orientation import read_orientation
from gnr_video.media.source import Cover, PacketQueue, SourceInfo, StreamPacket, VideoSource
from gnr_video.media.transparency import hide

if TYPE_CHECKING:
    from av.container import InputContainer

log = logging.getLogger(__name__)

_OPEN_TIMEOUT, _READ_TIMEOUT = 20.0, 60.0  # seconds, for network inputs
_SEEKABLE_FORMATS = ("mov", "matroska", "webm")
_READ_ATTEMPTS = 3
_SECONDS_PAST_END = 10
_FRAMES_SPARED = (
    3  # that an input may lack without ending early: files that are whole have them in their counts
)
_LONGEST_PIXEL = 4
_PREROLL = Fraction(1, 10)  # seconds
_HIGHEST_RATE = 1000
_DEFAULT, _ATTACHED = 0x0001, 0x0400  # AV_DISPOSITION_*
_OF_BROADCASTS = ("flv", "live_flv")  # whose clocks jump too, though FFmpeg does not flag them
_OF_VARIANTS = {"hls", "dash", "mpegts"}
_NEARLY_SQUARE = Fraction(1, 100)
_SELDOM_TRANSPARENT = ("gif", "apng", "png", "rawvideo", "qtrle", "bmp", "tiff", "targa")
_UNTIMED = 32  # pictures that may wait for the first that has a time


@dataclass(frozen=True)
class Reading:
    """What of an input is read, and how; see `open_source` for the attributes."""

    start: float | None = None
    end: float | None = None
    keep_fields: bool = False
    stream: int | None = None


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
        self._warnings: list[str] = []
        self._reading = threading.Lock()
        self._closed = False
        self._keep_fields, self._wanted = part.keep_fields, part.stream
        self._reformatter, self._alpha_reformatter = VideoReformatter(), VideoReformatter()
        self._held: deque[StreamPacket] | None = deque()
        self._queue: PacketQueue | None = None
        self._last_pts: int | None = None
        self._video_packets = 0
        self._reached = 0
        self._untimed: list[Any] = []
        self._shift = Fraction(0)
        self._errors = 0
        if isinstance(url, str) and url.startswith("file:"):
            self._open(path, url, part.start, part.end, seekable=True)
        else:
            # It may say nothing for ever.
            _interruptibly(lambda: self._open(path, url, part.start, part.end, seekable=False), self.close)
        self._taken = False
        if self.info.color.is_hdr:
            self.warn(
                "HDR video (PQ or HLG): the output keeps its colour tags but has 8 bits, and the anime face "
                "may look flat; convert it to SDR first for good colours"
            )

    def _open(
        self, path: str, url: str | Head, start: float | None, end: float | None, *, seekable: bool
    ) -> None:
        """Everything that reads before the first frame is asked for."""
        import av

        self._container = _open_container(path, url)
        try:
            self._stream = self._choose(_video_streams(path, self._container))
            self._stream.thread_type = "AUTO"
            self._time_base = Fraction(self._stream.time_base or Fraction(1, 90000))
            self._copied = {s.index: s for s in self._companions()}
            self._covers = {s.index: s for s in self._container.streams.video if _is_cover(s)}
            self._cover_packets: dict[int, Any] = {}
            read = {self._stream.index, *self._copied, *self._covers}
            for stream in self._container.streams:
                if stream.index not in read:
                    stream.discard = av.stream.Discard.all
            self._clock = self._new_clock()
            self._set_range(start, end, seekable)
            self._decoder = _decoder(self._stream)
            self._decoded = self._decode()
            self._first = self._decode_first()
            self._second = next(self._decoded, None) if self._may_be_still() else None
            self._orientation = read_orientation(self._first)
            self.info = self._describe(start, end)
            if start is not None or not self.info.has_audio:
                self._shift = self._first.pts * self._time_base
        except BaseException:
            self._container.close()
            raise

    def _choose(self, streams: list[Any]) -> Any:
        """The video stream asked for; else the default one, of variants of the same thing the best."""
        names = ", ".join(f"{number}: {s.width}x{s.height}" for number, s in enumerate(streams))
        if self._wanted is not None:
            if not 0 <= self._wanted < len(streams):
                raise InputError(f"{self._path} has no video stream {self._wanted}", f"it has {names}")
            return streams[self._wanted]
        default = [s for s in streams if s.disposition & _DEFAULT] or streams
        if self._is_of_variants():
            chosen = max(default, key=lambda s: (s.width * s.height, _bit_rate(s)))
        else:
            chosen = default[0]
        if len(streams) > 1:
            self.warn(
                f"{self._path} has {len(streams)} video streams ({names}): "
                f"{streams.index(chosen)} is used, --stream takes another"
            )
        return chosen

    def _is_of_variants(self) -> bool:
        """Whether video streams are sizes of the same thing, or programmes, each with its own sound."""
        names = set(self._container.format.name.split(","))
        return bool(names & _OF_VARIANTS) and len(self._container.streams.video) > 1

    def _companions(self) -> list[Any]:
        """The sound, text and attachments that belong to the video stream."""
        streams = [s for s in self._container.streams if s.type in ("audio", "subtitle", "attachment")]
        if not self._is_of_variants():
            return streams
        best = self._container.streams.best
        return [s for s in (best("audio", self._stream), best("subtitle", self._stream)) if s is not None]

    def streams_to_copy(self) -> list[Any]:
        return list(self._copied.values())

    def covers(self) -> list[Cover]:
        return [Cover(self._covers[index], packet) for index, packet in self._cover_packets.items()]

    def chapters(self) -> list[dict[str, Any]]:
        part = []
        last = None if self._end is None else self._end - self._shift
        for chapter in self._container.chapters():
            unit = chapter["time_base"] or Fraction(1, 1000)
            start, end = (
                max(self._clock.moved(chapter[key] * unit) - self._shift, Fraction(0))
                for key in ("start", "end")
            )
            end = end if last is None else min(end, last)
            if start < end:
                ticks = {"start": round(start * 1000), "end": round(end * 1000)}
                part.append({**chapter, **ticks, "time_base": Fraction(1, 1000)})
        return part

    def data_tracks(self) -> list[str]:
        # Chapters and timecodes stand in such tracks too.
        has_chapters = bool(self._container.chapters())
        return [
            s.metadata.get("handler_name", "").strip() or s.name or "unknown"
            for s in self._container.streams.data
            if "timecode" not in s.metadata and not (has_chapters and s.name == "bin_data")
        ]

    def timecode(self) -> str:
        holders = [self._container, self._stream, *self._container.streams.data]
        # Matroska writes its keys in capitals.
        entries = [entry for holder in holders for entry in holder.metadata.items()]
        return next((value for key, value in entries if key.lower() == "timecode"), "")

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
        size = square_size(stored, self._aspect())
        shift = round(self._shift / self._time_base)
        pictures = self._pictures()
        if not self._keep_fields:
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

    def _set_range(self, start: float | None, end: float | None, seekable: bool) -> None:
        """Turn seconds after the first frame into the file's own clock, and seek to the first."""
        origin = self._clock.moved((self._stream.start_time or 0) * self._time_base)
        self._start = None if start is None else origin + Fraction(start).limit_denominator(10**6)
        self._end = None if end is None else origin + Fraction(end).limit_denominator(10**6)
        self._earliest: Fraction | None = None
        self._sought = False
        names = self._container.format.name.split(",")
        if self._start and start and seekable and any(n in _SEEKABLE_FORMATS for n in names):
            self._sought = self._seek(self._start)

    def _seek(self, seconds: Fraction) -> bool:
        import av

        try:
            raw = seconds - self._clock.moved(Fraction(0))
            self._container.seek(int(raw / self._time_base), stream=self._stream)
        except av.FFmpegError:
            return False
        return True

    def _decode_first(self) -> Any:
        first = next(self._decoded, None)
        if self._sought and (self._earliest is None or self._earliest > (self._start or 0)):
            # The seek went too far, as it may without a good index: read from the beginning instead.
            self._container.seek(0)
            self._held, self._last_pts, self._clock = deque(), None, self._new_clock()
            self._decoded = self._decode()
            first = next(self._decoded, None)
        if first is not None:
            return first
        if self._start is not None or self._end is not None:
            raise InputError(
                f"{self._path} has no frame in the part asked for",
                "check --start and --end against its length",
            )
        hint = "the file is damaged" if self._errors else "the file has a video stream with nothing in it"
        raise InputError(f"no frame could be decoded from {self._path}", hint)

    def _packets(self) -> Iterator[Any]:
        """Packets of the video stream and of those to be copied; a flush packet of the video ends them."""
        import av

        streams = [*self._covers.values(), *self._read_streams()]
        failures = 0
        while True:
            try:
                for packet in self._container.demux(streams):
                    failures = 0
                    if packet.size == 0 and packet.dts is None and packet.pts is None:
                        continue  # PyAV's flush packets; one is made below, whatever ended the reading
                    if packet.stream_index in self._covers:
                        self._cover_packets[packet.stream_index] = packet
                        continue
                    self._see(packet)
                    yield from self._clock.put(packet)
                break
            except (av.FFmpegError, OSError) as error:
                failures += 1
                self._errors += 1
                damaged = isinstance(error, av.error.InvalidDataError)
                if not damaged or failures >= _READ_ATTEMPTS:
                    reason = getattr(error, "strerror", None) or str(error)
                    self.warn(f"{self._path} cannot be read to its end ({reason}): what comes before is used")
                    break
        yield from self._clock.flush()
        self._account()
        yield None

    def _decode(self) -> Generator[Any, None, None]:
        """Pictures inside the range with a strictly increasing pts; other packets go to the queue."""
        past_end: set[int] = set()
        ended = False
        audio = {i for i, s in self._copied.items() if s.type == "audio"}
        for packet in self._packets():
            if packet is not None and packet.stream_index != self._stream.index:
                if self._pass_on(StreamPacket(packet.stream_index, packet)):
                    past_end.add(packet.stream_index)
            elif not ended:
                for picture in self._timed(self._decode_packet(packet), is_last=packet is None):
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

    def _read_streams(self) -> list[Any]:
        return [self._stream, *(s for s in self._copied.values() if s.type != "attachment")]

    def _new_clock(self) -> Clock:
        form = self._container.format
        return Clock(self._read_streams(), bool(form.flags & TS_DISCONT) or form.name in _OF_BROADCASTS)

    def _see(self, packet: Any) -> None:
        """Note how far the video reaches, on the input's own clock."""
        if packet.stream_index == self._stream.index:
            self._video_packets += 1
            if packet.pts is not None:
                self._reached = max(self._reached, packet.pts + (packet.duration or 0))

    def _account(self) -> None:
        """Say what was not as it should be, when all has been read."""
        if self._clock.report:
            self.warn(f"{self._path}: {self._clock.report}")
        for index, count in self._clock.bad_packets.items():
            self.warn(f"{self._path}: {count} packets of its {self._copied[index].type} had impossible times")
        stream = self._stream
        if self._sought or self._end is not None or not stream.duration:
            return
        # Frames may be left out in other ways: by an edit list, or as frames that repeat the one before.
        missing = (stream.start_time or 0) + stream.duration - self._reached
        if stream.frames > self._video_packets and missing > stream.duration / stream.frames * _FRAMES_SPARED:
            whole = float(stream.duration * self._time_base)
            there = whole - float(missing * self._time_base)
            self.warn(f"{self._path} ends early: {there:.1f} of {whole:.1f} s are there")

    def _timed(self, pictures: list[Any], is_last: bool) -> Iterator[Any]:
        """Pictures with times; the first may come without, and get theirs from the first that has one."""
        for picture in pictures:
            self._untimed.append(picture)
            pts = picture.pts if picture.pts is not None else picture.dts
            if self._last_pts is None and pts is None and len(self._untimed) < _UNTIMED:
                continue
            if self._last_pts is None and pts is not None:
                self._last_pts = pts - len(self._untimed) * self._step(picture)
            yield from self._all_timed()
        if is_last:
            yield from self._all_timed()

    def _all_timed(self) -> Iterator[Any]:
        waiting, self._untimed = self._untimed, []
        for picture in waiting:
            self._set_pts(picture)
            yield picture

    def _decode_packet(self, packet: Any) -> list[Any]:
        import av

        try:
            pictures: list[Any] = self._decoder.decode(packet)
        except av.error.EOFError:
            return []
        except (av.FFmpegError, ValueError) as error:
            self._errors += 1
            reason = getattr(error, "strerror", None) or str(error)
            self.warn(f"{self._path} is damaged ({reason}): what can be decoded is used")
            return []
        if self._container.format.name == "avi":
            # It holds no display times; FFmpeg's guesses of them are wrong where pictures are coded out of order.
            for picture in pictures:
                picture.pts = picture.dts
        return pictures

    def _set_pts(self, picture: Any) -> None:
        pts = picture.pts if picture.pts is not None else picture.dts
        if self._last_pts is not None and (pts is None or pts <= self._last_pts):
            pts = self._last_pts + self._step(picture)
        picture.pts = self._last_pts = 0 if pts is None else pts

    def _step(self, picture: Any) -> int:
        """How long a picture is shown, as far as the input says, in units of its time base."""
        rate = _rate(self._stream)
        step = int(getattr(picture, "duration", 0) or 0)
        return max(1, step or (round(1 / (rate * self._time_base)) if rate else 1))

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

    def _aspect(self) -> Fraction:
        """Of a pixel as coded, width over height; one that nobody can mean is square."""
        aspect = Fraction(self._stream.sample_aspect_ratio or 1)
        return aspect if 1 / _LONGEST_PIXEL <= aspect <= _LONGEST_PIXEL else Fraction(1)

    def _has_alpha(self) -> bool:
        """Whether pictures have transparency: of formats in which that is rare, whether the first has."""
        if not has_alpha(self._first):
            return False
        is_likely = self._decoder.name not in _SELDOM_TRANSPARENT
        return is_likely or bool(to_alpha(self._first, self._alpha_reformatter).min() < 255)

    def _may_be_still(self) -> bool:
        """Whether FFmpeg reads this as pictures, of which there may be one."""
        name = self._container.format.name
        brand = self._container.metadata.get("major_brand", "")
        return name == "image2" or name.endswith("_pipe") or brand.encode() in HEIF_BRANDS

    # -- what is known -------------------------------------------------------------------------------------

    def _describe(self, start: float | None, end: float | None) -> SourceInfo:
        stream, first, container = self._stream, self._first, self._container
        aspect = self._aspect()
        stored: tuple[int, ...] = (first.width, first.height)
        width, height = square_size((first.width, first.height), aspect)
        is_square = (width, height) == stored
        if self._orientation.transpose:
            width, height, aspect, stored = height, width, 1 / aspect, stored[::-1]
        duration: Fraction | None = None
        if stream.duration:
            duration = stream.duration * self._time_base
        elif container.duration:
            duration = Fraction(container.duration, 1_000_000)
        rate = _rate(stream)
        count = stream.frames or (round(duration * rate) if duration and rate else None)
        if duration is not None and (start is not None or end is not None):
            part = min(duration, Fraction(end)) if end is not None else duration
            part = max(Fraction(0), part - Fraction(start or 0))
            count = max(1, round(count * part / duration)) if count else None
            duration = part
        context = stream.codec_context
        tags = frame_tags(first)
        return SourceInfo(
            path=self._path,
            width=width,
            height=height,
            average_rate=rate,
            time_base=self._time_base,
            duration_seconds=None if duration is None else float(duration),
            frame_count=count,
            codec=context.name,
            pix_fmt=first.format.name,
            container=container.format.name,
            color=tags,
            coded_height=first.height,
            rotation=self._orientation.rotation,
            sample_aspect_ratio=aspect,
            stored=None if is_square else (stored[0], stored[1]),
            has_alpha=self._has_alpha(),
            fields=first_field(first) if self._keep_fields else "",
            has_audio=any(s.type == "audio" for s in self._copied.values()),
            is_still=self._may_be_still() and self._second is None,
            metadata=dict(container.metadata),
            warnings=self._warnings,
        )

    def warn(self, text: str) -> None:
        if text not in self._warnings:
            self._warnings.append(text)
            log.warning("%s", text)


def _interruptibly(work: Callable[[], None], undo: Callable[[], None]) -> None:
    """`work()` on a thread of its own, because Ctrl-C is not heard inside FFmpeg.

    Interrupted, it is left to itself; `undo()` is called if it ever succeeds.
    """
    ended, lock = threading.Event(), threading.Lock()
    failed: list[BaseException] = []
    abandoned = False

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)
        with lock:
            ended.set()
            if abandoned and not failed:
                undo()

    try:
        threading.Thread(target=run, name="gnr-video open", daemon=True).start()
        # In turns: on some systems a wait without end cannot be interrupted.
        while not ended.wait(0.2):
            pass
    except BaseException:
        with lock:
            abandoned = True
            if ended.is_set() and not failed:
                undo()
        raise
    if failed:
        raise failed[0]


def _open_container(path: str, url: str | Head) -> InputContainer:
    import av

    local = isinstance(url, Head) or url.startswith("file:")
    what: Any = url
    try:
        return av.open(
            what,
            metadata_errors="replace",
            timeout=None if local else (_OPEN_TIMEOUT, _READ_TIMEOUT),
        )
    except (av.error.InvalidDataError, av.error.EOFError):
        message = f"{path} is not a video that FFmpeg can read, or is cut off"
        if isinstance(url, Head):
            hint = (
                "an mp4 read from a pipe must be written with -movflags +faststart, or give the file itself"
            )
        elif Path(path).suffix.lower() in (".mp4", ".mov", ".m4v"):
            hint = "an interrupted recording or download lacks its index (moov): copy or download it again"
        else:
            hint = "play it in a video player to see whether it is whole"
        raise InputError(message, hint) from None
    except av.error.ProtocolNotFoundError:
        raise InputError(
            f"{path}: this FFmpeg build has no such protocol", "download the video first"
        ) from None
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"cannot open {path}: {reason}", "check the name, the permissions, or the network"
        ) from None


def square_size(size: tuple[int, int], aspect: Fraction) -> tuple[int, int]:
    """(width, height) in square pixels of a picture of oblong ones: as wide or as high as it takes to lose none."""
    width, height = size
    if abs(aspect - 1) < _NEARLY_SQUARE:
        return size
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))


def _decoder(stream: Any) -> Any:
    """What decodes a stream: the stream's own, or one that knows the transparency of VP8 and VP9."""
    import av

    context = stream.codec_context
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(context.name)
    is_transparent = "1" in (stream.metadata.get("alpha_mode"), stream.metadata.get("ALPHA_MODE"))
    if name is None or not is_transparent:
        return context
    try:
        return av.CodecContext.create(name, "r")
    except (av.FFmpegError, ValueError):
        return context


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & _ATTACHED) and stream.codec_context is not None


def _bit_rate(stream: Any) -> int:
    said = stream.metadata.get("variant_bitrate", "")
    return int(said) if said.isdecimal() else (stream.codec_context.bit_rate or 0)


def _rate(stream: Any) -> Fraction | None:
    """Frames per second; what no camera makes is a time base that passes for a rate."""
    rates = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    return next((rate for rate in rates if rate and rate <= _HIGHEST_RATE), None)


def _video_streams(path: str, container: InputContainer) -> list[Any]:
    """The video streams that are no cover pictures and can be decoded."""
    streams = [s for s in container.streams.video if not s.disposition & _ATTACHED]
    # FFmpeg renders plain text as pictures through its "tty" demuxer.
    if not streams or container.format.name == "tty":
        kinds = sorted({s.type for s in container.streams})
        found = (
            f"only {' and '.join(kinds)}"
            if kinds and container.format.name != "tty"
            else "nothing of the kind"
        )
        raise InputError(f"{path} has no video stream, {found}", "give a file that has pictures in it")
    streams = [s for s in streams if s.codec_context is not None]
    if not streams:
        raise InputError(
            f"{path}: this FFmpeg build has no decoder for its video", "convert it to H.264 first"
        )
    return streams
