"""A container's packets in the order of the file, on one clock (part of the container source)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from gnr_video.media.adts import AdtsFrames
from gnr_video.media.clock import TS_DISCONT, Clock
from gnr_video.media.stream_choice import Streams
from gnr_video.media.stream_facts import unit_of

if TYPE_CHECKING:
    from av.container import InputContainer

_READ_ATTEMPTS = 3
_FRAMES_SPARED = 3
"""Frames that an input may lack without ending early: files that are whole have them in their counts."""
_OF_BROADCASTS = ("flv", "live_flv")  # whose clocks jump too, though FFmpeg does not flag them


class PacketReader:
    """Reads packets; what cannot be read is left out, and said.

    Args:
        path: the input, for messages.
        container: the input (PyAV's).
        streams: those that are read.
        warn: called with what the user should know.

    Attributes:
        clock: that the packets' times are moved onto.
        covers: index -> the packet of a cover picture, as far as read.
        errors: failures of reading so far.
        reads_all: whether the input is read from its first frame to its last; set it before reading.
    """

    def __init__(
        self, path: str, container: InputContainer, streams: Streams, warn: Callable[[str], None]
    ) -> None:
        self._path, self._container, self._streams, self._warn = path, container, streams, warn
        self._video_packets = 0
        self._reached = 0
        self.covers: dict[int, Any] = {}
        self.errors = 0
        self.reads_all = True
        self.restart()

    def restart(self) -> None:
        """A new clock: what is read next does not follow what was read before."""
        form = self._container.format
        self._highest: int | None = None  # decoding time of the video so far, in its units
        jumps = bool(form.flags & TS_DISCONT) or form.name in _OF_BROADCASTS
        self.clock = Clock(self._streams.timed, jumps)
        sound = [s for s in self._streams.copied.values() if s.codec_context is not None and s.name == "aac"]
        self._adts = {s.index: AdtsFrames(s) for s in sound if not s.codec_context.extradata}

    def read(self) -> Iterator[Any]:
        """Packets of the video stream and of those to be copied; None, which flushes decoders, ends them."""
        import av

        streams = [*self._streams.covers.values(), *self._streams.timed]
        failures = 0
        while True:
            try:
                for packet in self._container.demux(streams):
                    failures = 0
                    if packet.size == 0 and packet.dts is None and packet.pts is None:
                        continue  # PyAV's flush packets; one is made below, whatever ended the reading
                    if packet.stream_index in self._streams.covers:
                        self.covers[packet.stream_index] = packet
                        continue
                    yield from self._put(self._seen(packet))
                break
            except (av.FFmpegError, OSError) as error:
                failures += 1
                self.errors += 1
                damaged = isinstance(error, av.error.InvalidDataError)
                if not damaged or failures >= _READ_ATTEMPTS:
                    reason = getattr(error, "strerror", None) or str(error)
                    self._warn(
                        f"{self._path} cannot be read to its end ({reason}): what comes before is used"
                    )
                    break
        for frames in self._adts.values():
            for packet in frames.flush():
                yield from self.clock.put(packet)
        yield from self.clock.flush()
        self._account()
        yield None

    def _put(self, packet: Any) -> Iterator[Any]:
        frames = self._adts.get(packet.stream_index)
        for one in [packet] if frames is None else frames.put(packet):
            yield from self.clock.put(one)

    def _seen(self, packet: Any) -> Any:
        """A packet, noted how far the video reaches on the input's own clock."""
        if packet.stream_index != self._streams.video.index:
            return packet
        self._video_packets += 1
        if packet.pts is not None:
            self._reached = max(self._reached, packet.pts + (packet.duration or 0))
        if packet.dts is not None:
            falls = self._highest is not None and packet.dts <= self._highest
            self._highest = packet.dts if self._highest is None else max(self._highest, packet.dts)
            if falls and packet.is_discard:
                # So FFmpeg marks fragments of mp4 whose clock begins anew: as what an edit list cuts off.
                return _unmarked(packet)
        return packet

    def _account(self) -> None:
        """Say what was not as it should be, when all has been read."""
        if self.clock.report:
            self._warn(f"{self._path}: {self.clock.report}")
        for index, count in self.clock.bad_packets.items():
            kind = self._streams.copied[index].type
            self._warn(f"{self._path}: {count} packets of its {kind} had impossible times")
        for index, frames in self._adts.items():
            if frames.damaged:
                kind = self._streams.copied[index].type
                self._warn(f"{self._path}: {frames.damaged} packets of its {kind} are damaged, and left out")
        stream = self._streams.video
        if not self.reads_all or not stream.duration:
            return
        # Frames may be left out in other ways: by an edit list, or as frames that repeat the one before.
        missing = (stream.start_time or 0) + stream.duration - self._reached
        if stream.frames > self._video_packets and missing > stream.duration / stream.frames * _FRAMES_SPARED:
            unit = unit_of(stream)
            whole = float(stream.duration * unit)
            there = whole - float(missing * unit)
            self._warn(f"{self._path} ends early: {there:.1f} of {whole:.1f} s are there")


def _unmarked(packet: Any) -> Any:
    """A packet without the mark that its pictures are not to be shown."""
    import av

    made: Any = av.Packet(bytes(packet))
    made.stream, made.time_base = packet.stream, packet.time_base
    made.pts, made.dts, made.duration = packet.pts, packet.dts, packet.duration
    made.is_keyframe = packet.is_keyframe
    if packet.has_sidedata("new_extradata"):
        made.set_sidedata(packet.get_sidedata("new_extradata"))
    return made
