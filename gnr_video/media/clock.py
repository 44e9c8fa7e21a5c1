"""One clock for a recording: it starts at zero, and where the input's own jumps, all its streams go on in step.

Part of the container source: packets pass through it on their way to decoder and sink.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

_BACK = Fraction(1, 10)
"""Seconds that a stream's decoding times may fall by; more is another clock. As FFmpeg has it."""
_GAP = Fraction(1)
"""Seconds between two packets of picture or sound, from which on the next is looked at before the first is believed."""
_JUMP = Fraction(10)
"""Seconds that the clock of a broadcast jumps ahead by, where a shorter time is a gap. As FFmpeg has it."""
_TOGETHER = Fraction(5)
"""Seconds between the first packets of different streams after a jump."""

TS_DISCONT = 0x0200
"""FFmpeg's flag of formats whose clocks jump."""

_NAMED = 4


@dataclass
class _Track:
    """What is known of a stream: its place in the list of offsets, its last time, and a packet that is doubted."""

    sparse: bool
    is_video: bool
    epoch: int = 0
    last: Fraction | None = None
    step: Fraction = Fraction(0)
    doubted: Any = None


class Clock:
    """Moves the times of packets onto one clock.

    A time that jumps is believed when the next packet goes on from there, and then moves all streams, each from its own
    first packet after the jump on. One that stands alone is a bad packet's: it is left out, or of a picture forgotten.

    Args:
        streams: the input's (PyAV's) that are read.
        jumps: whether its format is one whose clocks jump ahead (`TS_DISCONT`).

    Attributes:
        bad_packets: how many have been left out, by the index of their stream.
    """

    def __init__(self, streams: Iterable[Any], jumps: bool) -> None:
        self._tracks = {s.index: _Track(s.type not in ("audio", "video"), s.type == "video") for s in streams}
        self._jumps = jumps
        self._offsets: list[Fraction] = []
        self._now: Fraction | None = None
        self._closed: list[tuple[Fraction, Fraction]] = []
        self.bad_packets: dict[int, int] = {}
        starts = [
            s.start_time * s.time_base
            for s in streams
            if s.type in ("audio", "video") and s.start_time is not None and s.time_base
        ]
        if starts:
            self._offsets.append(-min(starts))

    def moved(self, seconds: Fraction) -> Fraction:
        """A time of the input before its first jump, on this clock."""
        return seconds + (self._offsets[0] if self._offsets else 0)

    def put(self, packet: Any) -> Iterator[Any]:
        """Take a packet in; those that are ready come out, their times moved."""
        track, raw = self._tracks[packet.stream_index], _time(packet)
        if not self._offsets and raw is not None:
            self._offsets.append(-raw)
        if packet.dts is None or raw is None:  # display times alone are in no order that could be broken
            yield self._moved(track, packet)
            return
        doubted, track.doubted = track.doubted, None
        if doubted is not None:
            if self._follows(track, raw):
                yield from self._bad(track, doubted)
            else:
                yield self._jumped(track, doubted)
        if track.sparse:
            yield self._beside(track, packet, raw)
        elif self._follows(track, raw):
            yield self._passed(track, packet, raw)
        else:
            track.doubted = packet

    def flush(self) -> Iterator[Any]:
        """The packets that are held at the end."""
        for track in self._tracks.values():
            if track.doubted is not None:
                doubted, track.doubted = track.doubted, None
                time = (_time(doubted) or 0) + self._offsets[track.epoch]
                if self._now is not None and abs(time - self._now) > _JUMP:
                    yield from self._bad(track, doubted)
                else:
                    yield self._jumped(track, doubted)

    @property
    def report(self) -> str:
        """Where the input's clock jumped, for people; "" where it did not."""
        if not self._closed:
            return ""
        places = [f"{float(at):.1f} s ({float(by):+.1f} s)" for at, by in self._closed[:_NAMED]]
        more = ", ..." if len(self._closed) > _NAMED else ""
        return f"its clock jumps at {', '.join(places)}{more}: what follows goes on from there"

    def _follows(self, track: _Track, raw: Fraction) -> bool:
        """Whether a packet's time is one to expect after the last."""
        if track.last is None:
            return len(self._offsets) == 1 and not self._is_ahead(raw + self._offsets[0])
        time = raw + self._offsets[track.epoch]
        return track.last - _BACK <= time <= track.last + track.step + _GAP

    def _is_ahead(self, time: Fraction) -> bool:
        return self._jumps and self._now is not None and time > self._now + _JUMP

    def _beside(self, track: _Track, packet: Any, raw: Fraction) -> Any:
        """A packet of text, on the clock on which it is nearest to picture and sound."""
        now = self._now or Fraction(0)
        track.epoch = min(
            range(track.epoch, len(self._offsets)), key=lambda epoch: abs(raw + self._offsets[epoch] - now)
        )
        return self._passed(track, packet, raw)

    def _jumped(self, track: _Track, packet: Any) -> Any:
        """A packet whose time is believed although it jumps."""
        raw = _time(packet)
        assert raw is not None
        expected = self._now if track.last is None else track.last + track.step
        assert expected is not None
        time = raw + self._offsets[track.epoch]
        falls = track.last is not None and time < track.last - _BACK
        if falls or self._is_ahead(time) or track.last is None:
            near = [
                epoch
                for epoch in range(track.epoch + (track.last is not None), len(self._offsets))
                if abs(raw + self._offsets[epoch] - expected) < _TOGETHER
            ]
            if near:
                track.epoch = near[-1]
            elif falls or self._is_ahead(time):
                self._closed.append((expected, time - expected))
                self._offsets.append(expected - raw)
                track.epoch = len(self._offsets) - 1
        return self._passed(track, packet, raw)

    def _passed(self, track: _Track, packet: Any, raw: Fraction) -> Any:
        offset = self._offsets[track.epoch]
        time = raw + offset
        duration = (packet.duration or 0) * packet.time_base
        track.step = duration or (
            max(time - track.last, Fraction(0)) if track.last is not None else track.step
        )
        track.last = time
        if not track.sparse:
            self._now = time if self._now is None else max(self._now, time)
        return self._moved(track, packet)

    def _moved(self, track: _Track, packet: Any) -> Any:
        if not self._offsets:
            return packet
        ticks = round(self._offsets[track.epoch] / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts + ticks
        packet.dts = None if packet.dts is None else packet.dts + ticks
        return packet

    def _bad(self, track: _Track, packet: Any) -> Iterator[Any]:
        """A packet whose time is nonsense: a picture may be needed by others, sound and text are left out."""
        if track.is_video:
            packet.pts = packet.dts = None
            yield packet
        else:
            self.bad_packets[packet.stream_index] = self.bad_packets.get(packet.stream_index, 0) + 1


def _time(packet: Any) -> Fraction | None:
    ticks = packet.dts if packet.dts is not None else packet.pts
    return None if ticks is None else ticks * packet.time_base
