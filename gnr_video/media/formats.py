"""The one table of picture formats, and how the first bytes of an input tell which of them it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple


@dataclass(frozen=True)
class ImageFormat:
    """A kind of picture file.

    Attributes:
        name: as Pillow calls it; "EXR" and "HDR" are OpenCV's.
        suffixes: what names of such files end in, lower case; the first is the usual one.
        writes: whether outputs may be of it.
        keeps: lossless: the translation of such a file is written as one. Others become PNG, so that nothing is
            lost twice.
        alpha: whether it holds transparency when it is written.
    """

    name: str
    suffixes: tuple[str, ...]
    writes: bool = False
    keeps: bool = False
    alpha: bool = False


PNG = ImageFormat("PNG", (".png", ".apng"), writes=True, keeps=True, alpha=True)
JPEG = ImageFormat("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), writes=True)
WEBP = ImageFormat("WEBP", (".webp",), writes=True, alpha=True)
BMP = ImageFormat("BMP", (".bmp", ".dib"), writes=True, keeps=True)
TIFF = ImageFormat("TIFF", (".tif", ".tiff"), writes=True, keeps=True, alpha=True)
JPEG2000 = ImageFormat("JPEG2000", (".jp2", ".j2k", ".j2c", ".jpx", ".jpf"), writes=True, alpha=True)
AVIF = ImageFormat("AVIF", (".avif", ".avifs"), writes=True, alpha=True)
HEIF = ImageFormat("HEIF", (".heic", ".heif", ".hif"), writes=True, alpha=True)
JXL = ImageFormat("JXL", (".jxl",))
GIF = ImageFormat("GIF", (".gif",))
PNM = ImageFormat("PPM", (".ppm", ".pgm", ".pbm", ".pnm"))
EXR = ImageFormat("EXR", (".exr",))
HDR = ImageFormat("HDR", (".hdr",))
PSD = ImageFormat("PSD", (".psd",))
QOI = ImageFormat("QOI", (".qoi",))
ICO = ImageFormat("ICO", (".ico",))
TGA = ImageFormat("TGA", (".tga",))
PCX = ImageFormat("PCX", (".pcx",))
SGI = ImageFormat("SGI", (".sgi", ".rgb"))
DDS = ImageFormat("DDS", (".dds",))

FORMATS = (
    *(PNG, JPEG, WEBP, BMP, TIFF, JPEG2000, AVIF, HEIF, JXL, GIF),
    *(PNM, EXR, HDR, PSD, QOI, ICO, TGA, PCX, SGI, DDS),
)

UNSIGNED = (ICO, TGA, PCX, SGI)
"""Formats whose files begin with nothing that is theirs alone: their names tell."""

IMAGE_SUFFIXES = frozenset(suffix for one in FORMATS for suffix in one.suffixes)

IMAGE_OUTPUTS = tuple(suffix for one in FORMATS if one.writes for suffix in one.suffixes if suffix != ".apng")
"""Suffixes of the pictures that can be written; .apng is a video."""

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"\xff\xd8\xff", JPEG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"II+\0", TIFF),
    (b"MM\0+", TIFF),
    (b"\0\0\0\x0cjP  \r\n\x87\n", JPEG2000),
    (b"\xff\x4f\xff\x51", JPEG2000),
    (b"\xff\x0a", JXL),
    (b"\0\0\0\x0cJXL \r\n\x87\n", JXL),
    (b"v/1\x01", EXR),
    (b"#?RADIANCE", HDR),
    (b"#?RGBE", HDR),
    (b"8BPS\0\x01", PSD),
    (b"qoif", QOI),
    (b"DDS \x7c\0\0\0", DDS),
)
_STILL_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"heif"}
_HEIF_SEQUENCE_BRANDS = {b"hevc", b"hevx", b"hevm", b"hevs", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
HEIF_BRANDS = _STILL_BRANDS | {b"avif"}
"""Of files that hold one picture, as their first box says."""
GIF_DELAY = b"\x21\xf9\x04"
"""How the block begins that says how long a picture of a GIF is shown."""
_LONGEST_FTYP = 1024
_WEBP_ANIMATION = 2
_BMP_HEADERS = {size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124)}


class Sniffed(NamedTuple):
    """What an input is by its first bytes.

    Attributes:
        format: None where it is no picture.
        moves: it is a row of pictures: an animation, a stream of JPEGs.
    """

    format: ImageFormat | None
    moves: bool = False


class Head:
    """The beginning of a stream can be looked at, and is read again with the rest.

    Args:
        stream: read in order, never sought; without a buffer of its own. Closed with this.
        name: of what it comes from.
    """

    def __init__(self, stream: BinaryIO, name: str = "") -> None:
        self._stream, self._seen, self._at = stream, bytearray(), 0
        self.name = name

    def peek(self, size: int) -> bytes:
        """The first bytes, `size` of them or more; fewer only where there are no more."""
        while len(self._seen) < size and (more := self._stream.read(max(size - len(self._seen), 1 << 16))):
            self._seen += more
        return bytes(self._seen)

    def read(self, size: int = -1) -> bytes:
        """The next bytes: at most `size`, as they come; everything to the end where it is negative."""
        if size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        if self._at < len(self._seen):
            part = bytes(self._seen[self._at : self._at + size])
            self._at += len(part)
            return part
        return self._stream.read(size)

    def close(self) -> None:
        self._stream.close()


def sniff(head: Head) -> Sniffed:
    """What an input is, by content; by name only where a format has no signature."""
    start = head.peek(64)
    found: ImageFormat | None = next(
        (one for signature, one in _SIGNATURES if start.startswith(signature)), None
    )
    if found is not None and found in _MOVING:
        return Sniffed(found, _moves(head, _MOVING[found]))
    if found is None and start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return Sniffed(WEBP, start[12:16] == b"VP8X" and bool(start[20] & _WEBP_ANIMATION))
    if found is None and start[4:8] == b"ftyp":
        return _sniff_ftyp(head)
    elif found is None and start[:2] == b"BM" and start[14:18] in _BMP_HEADERS:
        found = BMP
    elif found is None and re.match(rb"P[1-6]\s", start):
        found = PNM
    elif found is None:
        suffix = Path(head.name).suffix.lower()
        found = next((one for one in UNSIGNED if suffix in one.suffixes), None)
    return Sniffed(found)


def by_suffix(path: Path) -> ImageFormat | None:
    """The format that a name says."""
    return next((one for one in FORMATS if path.suffix.lower() in one.suffixes), None)


def kept_suffix(path: Path, kind: ImageFormat) -> str:
    """What the name of a picture's translation ends in: lossless kinds stay what they are, others become PNG."""
    if not kind.keeps:
        return ".png"
    own = path.suffix.lower()
    return own if own in kind.suffixes and own in IMAGE_OUTPUTS else kind.suffixes[0]


def sniff_file(path: Path) -> Sniffed:
    """As `sniff`, of a file.

    Raises:
        OSError: it cannot be read.
    """
    head = Head(path.open("rb", buffering=0), str(path))
    try:
        return sniff(head)
    finally:
        head.close()


def _sniff_ftyp(head: Head) -> Sniffed:
    size = int.from_bytes(head.peek(8)[:4], "big")
    box = head.peek(min(size, _LONGEST_FTYP))[:size]
    brand = box[8:12]
    brands = {brand} | {box[i : i + 4] for i in range(16, len(box) - 3, 4)}
    if brand in _HEIF_SEQUENCE_BRANDS:
        return Sniffed(HEIF, moves=True)
    if brand in _AVIF_BRANDS or (brand in _STILL_BRANDS and brands & _AVIF_BRANDS):
        return Sniffed(AVIF, moves=b"avis" in brands)
    return Sniffed(HEIF if brand in _STILL_BRANDS else None)


def _moves(head: Head, test: Callable[[bytes], bool | None]) -> bool:
    """Whether a picture moves, by as much of it as `test` needs."""
    size = 1 << 16
    while True:
        data = head.peek(size)
        moves = test(data)
        if moves is not None or len(data) < size:
            return bool(moves)
        size = 2 * len(data)


def jpeg_moves(data: bytes) -> bool | None:
    """Whether a JPEG is the first of a stream of them; None where `data` ends before that is known.

    Further pictures in a phone's file (other sizes, a depth map) are announced by a marker of the Multi-Picture
    Format.
    """
    at, announced = 2, False
    while (at := data.find(b"\xff", at)) >= 0 and at + 5 <= len(data):
        marker = data[at + 1]
        if marker == 0xD9:
            return not announced and data[at + 2 : at + 5] == data[:3]
        if marker == 0xFF:
            at += 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            at += 2
        else:
            announced |= marker == 0xE2 and data[at + 4 : at + 8] == b"MPF\0"
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def png_moves(data: bytes) -> bool | None:
    """Whether a PNG is animated, or the first of a stream of them; None where `data` ends before that is known."""
    at = 8
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"acTL" and int.from_bytes(data[at + 8 : at + 12], "big") > 1:
            return True
        at += 12 + length
        if kind == b"IEND" and at + 3 <= len(data):
            return data[at : at + 3] == data[:3]
    return None


def gif_moves(data: bytes) -> bool | None:
    """Whether a GIF has a second picture; None where `data` ends before that is known."""
    if len(data) < 13:
        return None
    at, pictures = 13 + _palette_size(data[10]), 0
    while at < len(data):
        if data[at] == 0x21:  # extension: its label, then blocks
            at += 2
        elif data[at] == 0x2C and at + 10 < len(data):
            pictures += 1
            if pictures > 1:
                return True
            at += 11 + _palette_size(data[at + 9])  # with the size of LZW's codes
        else:
            return False if data[at] == 0x3B else None
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    return None


def jxl_moves(data: bytes) -> bool | None:
    """Whether a JPEG XL is animated, as its header says; None where `data` ends before that is known.

    ISO/IEC 18181-1, annex D: sizes, then what is not as usual, least significant bits first.
    """
    start = 0 if data[:2] == b"\xff\x0a" else _jxl_codestream(data)
    if start is None:
        return None
    bits = _Bits(data[start + 2 : start + 64])
    bits.size(((9, 1), (13, 1), (18, 1), (30, 1)))
    if bits.read(1) or not bits.read(1):  # all is as usual, or what follows is
        return False
    bits.read(3)  # orientation
    if bits.read(1):
        bits.size(((9, 1), (13, 1), (18, 1), (30, 1)))
    if bits.read(1):
        bits.size(((6, 1), (8, 65), (10, 321), (12, 1345)), ((0, 16), (0, 32), (5, 1), (9, 33)))
    return bool(bits.read(1))


def _jxl_codestream(data: bytes) -> int | None:
    """Where it begins in a file of boxes."""
    at = 0
    while at + 16 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        head = 16 if size == 1 else 8
        if kind in (b"jxlc", b"jxlp"):
            return at + head + (4 if kind == b"jxlp" else 0)
        size = int.from_bytes(data[at + 8 : at + 16], "big") if size == 1 else size
        if size < head:
            return None
        at += size
    return None


class _Bits:
    """Numbers in JPEG XL's header."""

    def __init__(self, data: bytes) -> None:
        self._rest = int.from_bytes(data, "little")

    def read(self, count: int) -> int:
        value = self._rest & ((1 << count) - 1)
        self._rest >>= count
        return value

    def choice(self, choices: tuple[tuple[int, int], ...]) -> int:
        """A number in one of four ways: so many bits, and what is added."""
        count, added = choices[self.read(2)]
        return self.read(count) + added

    def size(self, choices: tuple[tuple[int, int], ...], in_eights: tuple[tuple[int, int], ...] = ()) -> None:
        """Pass over height and width."""
        is_in_eights = self.read(1)

        def side() -> None:
            if not is_in_eights:
                self.choice(choices)
            elif in_eights:
                self.choice(in_eights)
            else:
                self.read(5)

        side()
        if not self.read(3):  # no usual ratio
            side()


def _palette_size(flags: int) -> int:
    """Bytes of the palette that a GIF's flags announce."""
    return 3 << (flags % 8 + 1) if flags & 0x80 else 0


_MOVING = {JPEG: jpeg_moves, PNG: png_moves, GIF: gif_moves, JXL: jxl_moves}
