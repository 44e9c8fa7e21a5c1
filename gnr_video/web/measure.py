"""How large a picture is, from its header alone: a small file can hold more pixels than a machine has memory."""

from __future__ import annotations

from typing import Literal

_SIZED = frozenset(range(0xC0, 0xD0)) - {
    0xC4,
    0xC8,
    0xCC,
}  # SOF0 to SOF15 but DHT, JPG and DAC (ITU T.81, B.1)
_ALONE = frozenset([0x01, *range(0xD0, 0xD9)])  # markers without a length


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) as a JPEG's header has them; None where it is no JPEG, or ends before it says so."""
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker in _SIZED:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def picture_size(head: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG, PNG, WebP or BMP from its first bytes; None where it is none, or does not say."""

    def number(start: int, length: int, order: Literal["big", "little"] = "little") -> int:
        return int.from_bytes(head[start : start + length], order)

    if len(head) < 30:
        return None
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return number(16, 4, "big"), number(20, 4, "big")
    if head.startswith(b"BM"):
        return number(18, 4), abs(int.from_bytes(head[22:26], "little", signed=True))
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        kind = head[12:16]
        if kind == b"VP8X":
            return number(24, 3) + 1, number(27, 3) + 1
        if kind == b"VP8L":
            return (number(21, 4) & 0x3FFF) + 1, (number(21, 4) >> 14 & 0x3FFF) + 1
        return number(26, 2) & 0x3FFF, number(28, 2) & 0x3FFF
    return jpeg_size(head)
