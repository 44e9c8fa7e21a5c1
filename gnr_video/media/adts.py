"""AAC in frames with headers (ADTS), as broadcasts have it: frames that FFmpeg runs together are taken apart
(part of the container source).

FFmpeg's parser takes any twelve set bits for a header. After a broken one it finds a false one in the sound behind it,
which swallows all frames up to the next packet of the stream: a third of a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_HEADER = 7
_SAMPLES = 1024
_FIRST = 4
"""Packets without a header after which none is looked for."""
_MOST = 1 << 18
"""Bytes that are held."""


class AdtsFrames:
    """The packets of a stream of AAC, each one frame again.

    Args:
        stream: the stream (PyAV's).

    Attributes:
        damaged: places so far at which a frame is lost.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._kind = b""  # what the headers of all frames begin with
        self._is_plain = False  # without headers
        self._held: list[Any] = []
        self._next: int | None = None  # when the next packet is due, in units of the stream
        self.damaged = 0

    def put(self, packet: Any) -> Iterator[Any]:
        """Take a packet in; those that are ready come out, in order."""
        data = bytes(packet)
        is_whole, kind = _length(data) == len(data), _kind(data)
        if self._is_plain:
            yield packet
        elif is_whole and kind == (self._kind or kind):
            self._kind = kind
            if self._held:
                yield from self._apart(packet.pts)
            yield self._passed(packet, kind)
        elif not self._kind:
            self._held.append(packet)
            if len(self._held) >= _FIRST:
                self._is_plain = True
                yield from self._released()
        elif is_whole and self._held and bytes(self._held[-1])[:4] == data[:4]:
            # Two of another kind: the stream has changed.
            first = self._held.pop()
            if self._held:
                yield from self._apart(first.pts)
            yield self._passed(first, kind)
            yield self._passed(packet, kind)
        else:
            self._held.append(packet)
            if sum(one.size for one in self._held) > _MOST:
                yield from self._apart(None)

    def _passed(self, packet: Any, kind: bytes) -> Any:
        self._kind = kind
        lasts = packet.duration or self._lasts()
        self._next = None if packet.pts is None else packet.pts + lasts
        return packet

    def flush(self) -> Iterator[Any]:
        """What is held at the end."""
        if self._held:
            yield from self._apart(None) if self._kind else self._released()

    def _released(self) -> list[Any]:
        held, self._held = self._held, []
        return held

    def _lasts(self) -> int:
        """How long a frame lasts, in units of the stream."""
        return round(_SAMPLES / (self._stream.codec_context.sample_rate * self._stream.time_base))

    def _apart(self, end: int | None) -> Iterator[Any]:
        """The frames in what is held; `end`: when the packet after it comes."""
        held = self._released()
        start = held[0].pts if held[0].pts is not None else self._next
        if start is None:
            yield from held
            return
        found = self._found(b"".join(bytes(one) for one in held))
        gaps = sum(frame is None for frame in found)
        self.damaged += gaps
        lasts = self._lasts()
        lost = gaps
        if end is not None:
            lost = max(round((end - start) / lasts) - (len(found) - gaps), 0)
        at = start
        for frame in found:
            if frame is None:
                gaps -= 1
                here = max(lost - gaps, 0)  # one in each, what is left in the first
                lost -= here
                at += here * lasts
            else:
                yield self._packet(frame, at, lasts)
                at += lasts
        self._next = at

    def _found(self, data: bytes) -> list[bytes | None]:
        """Whole frames of the stream's kind in bytes; None where there is something else."""
        found: list[bytes | None] = []
        at = 0
        while at < len(data):
            rest = data[at : at + _HEADER]
            length = _length(rest) if _kind(rest) == self._kind else 0
            if _HEADER <= length <= len(data) - at:
                found.append(data[at : at + length])
                at += length
                continue
            if not found or found[-1] is not None:
                found.append(None)
            at += 1
        return found

    def _packet(self, frame: bytes, at: int, lasts: int) -> Any:
        import av

        packet: Any = av.Packet(frame)
        packet.stream = self._stream
        packet.pts = packet.dts = at
        packet.duration, packet.time_base = lasts, self._stream.time_base
        packet.is_keyframe = True
        return packet


def _length(data: bytes) -> int:
    """How many bytes a frame has by its header; 0 where there is none."""
    if len(data) < _HEADER or data[0] != 0xFF or data[1] & 0xF6 != 0xF0:
        return 0
    return (data[3] & 0x03) << 11 | data[4] << 3 | data[5] >> 5


def _kind(data: bytes) -> bytes:
    """The part of a header that is the same in all frames of a stream (ISO/IEC 13818-7, adts_fixed_header)."""
    return data[:3] + bytes([data[3] & 0xF0]) if len(data) > 3 else b""
