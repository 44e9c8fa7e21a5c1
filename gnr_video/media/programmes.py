"""The programmes of an MPEG transport stream: which of its streams belong together (part of the container source).

After ISO/IEC 13818-1: the table of programmes (PAT) names a table of streams (PMT) for each. FFmpeg reads them too, but
PyAV does not hand them on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gnr_video.media.formats import Head

_SYNC = 0x47
_PACKET = 188
_SPACINGS = (_PACKET, 192, 204)  # plain, with a time before each (cameras, Blu-ray), with parity after each
_SYNCS_IN_A_ROW = 5
_STEP, _MOST = 1 << 16, 1 << 21
"""Bytes that are looked at: at once, and at all. Broadcasts repeat their tables ten times a second."""
_PAT_ID, _PMT_ID = 0, 2
_LONGEST_SECTION = 1024


@dataclass(frozen=True)
class Programme:
    """A programme: its number, and the identifiers (PIDs) of its streams, which FFmpeg has as `Stream.id`."""

    number: int
    pids: frozenset[int]


def read_programmes(url: str | Head) -> list[Programme]:
    """The programmes of a transport stream in the order of its table, as far as their streams are known.

    Args:
        url: as FFmpeg opens it; a beginning is looked at and not used up. What is not a file on this machine is not
            looked at.

    Returns:
        None of them where it is no transport stream.
    """
    if isinstance(url, Head):
        return _programmes(url)
    if not url.startswith("file:"):
        return []
    file = Path(url.removeprefix("file:"))
    try:
        head = Head(file.open("rb", buffering=0))
    except OSError:
        return []
    try:
        return _programmes(head)
    finally:
        head.close()


def _programmes(head: Head) -> list[Programme]:
    data = head.peek(_SPACINGS[-1] * (_SYNCS_IN_A_ROW + 2))
    layout = _layout(data)
    if layout is None:
        return []
    at, spacing = layout
    tables = _Tables()
    while not tables.are_complete and at < _MOST:
        known = len(data)
        data = head.peek(at + _STEP)
        while at + _PACKET <= len(data):
            tables.put(data[at : at + _PACKET])
            at += spacing
        if len(data) == known:
            break
    return [Programme(number, tables.streams[number]) for number in tables.order if number in tables.streams]


def _layout(data: bytes) -> tuple[int, int] | None:
    """Where the first packet begins and how far it is to the next; None where there are none."""
    for spacing in _SPACINGS:
        for start in range(2 * spacing):
            row = data[start::spacing][:_SYNCS_IN_A_ROW]
            if row == bytes([_SYNC]) * _SYNCS_IN_A_ROW:
                return start, spacing
    return None


class _Tables:
    """Reads the tables off packets.

    Attributes:
        order: numbers of the programmes, as the table of programmes has them.
        streams: number -> PIDs of its streams, as far as found.
    """

    def __init__(self) -> None:
        self.order: list[int] = []
        self.streams: dict[int, frozenset[int]] = {}
        self._parts: dict[int, bytes] = {0: b""}  # PID of a table -> what there is of its section

    @property
    def are_complete(self) -> bool:
        return bool(self.order) and all(number in self.streams for number in self.order)

    def put(self, packet: bytes) -> None:
        pid = (packet[1] & 0x1F) << 8 | packet[2]
        has_payload, has_adaptation = packet[3] & 0x10, packet[3] & 0x20
        if packet[0] != _SYNC or pid not in self._parts or not has_payload:
            return
        payload = packet[5 + packet[4] if has_adaptation else 4 :]
        if packet[1] & 0x40 and payload:  # a section begins in it
            self._parts[pid] = payload[1 + payload[0] :]
        elif self._parts[pid]:
            self._parts[pid] += payload
        for section in self._whole(pid):
            self._read(section)

    def _whole(self, pid: int) -> Iterator[bytes]:
        data = self._parts[pid]
        while len(data) >= 3 and data[0] != 0xFF:
            length = 3 + ((data[1] & 0x0F) << 8 | data[2])
            if length > _LONGEST_SECTION:
                data = b""
            if len(data) < length:
                break
            section, data = data[:length], data[length:]
            if length >= 12 and _crc(section) == 0:
                yield section
        self._parts[pid] = b"" if data[:1] == b"\xff" else data

    def _read(self, section: bytes) -> None:
        number = int.from_bytes(section[3:5], "big")
        if not section[5] & 1:  # not yet in force
            return
        if section[0] == _PAT_ID:
            for at in range(8, len(section) - 7, 4):
                number, pid = (int.from_bytes(section[i : i + 2], "big") for i in (at, at + 2))
                if number and number not in self.order:
                    self.order.append(number)
                    self._parts.setdefault(pid & 0x1FFF, b"")
        elif section[0] == _PMT_ID:
            pids = set()
            at = 12 + (int.from_bytes(section[10:12], "big") & 0x0FFF)
            while at + 5 <= len(section) - 4:
                pids.add(int.from_bytes(section[at + 1 : at + 3], "big") & 0x1FFF)
                at += 5 + (int.from_bytes(section[at + 3 : at + 5], "big") & 0x0FFF)
            self.streams.setdefault(number, frozenset(pids))


def _crc(data: bytes) -> int:
    """MPEG's CRC of 32 bits; 0 for a section with its own at the end."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc
