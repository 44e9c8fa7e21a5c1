"""A container's packets in the order of the file, on one clock (part of the container source)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

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
        jumps = bool(form.flags & TS_DISCONT) or form.name in _OF_BROADCASTS
        self.clock = Clock(self._streams.timed, jumps)

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
                    self._see(packet)
                    yield from self.clock.put(packet)
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
        yield from self.clock.flush()
        self._account()
        yield None

    def _see(self, packet: Any) -> None:
        """Note how far the video reaches, on the input's own clock."""
        if packet.stream_index == self._streams.video.index:
            self._video_packets += 1
            if packet.pts is not None:
                self._reached = max(self._reached, packet.pts + (packet.duration or 0))

    def _account(self) -> None:
        """Say what was not as it should be, when all has been read."""
        if self.clock.report:
            self._warn(f"{self._path}: {self.clock.report}")
        for index, count in self.clock.bad_packets.items():
            kind = self._streams.copied[index].type
            self._warn(f"{self._path}: {count} packets of its {kind} had impossible times")
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
