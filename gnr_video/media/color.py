"""Colour tags of a video and the exact YUV <-> RGB conversion that goes with them; used by source and sink.

Why not swscale alone: its fast yuv420p -> rgb24 path truncates (one 8-bit level darker on average at limited
range) and its rgb24 -> yuv420p path shifts chroma. Here both directions round, so that a picture that the
pipeline leaves alone comes back as it was, at about 1.4 ms each for 1280x720.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gnr_video.frame import Alpha, Image

if TYPE_CHECKING:
    import av

# Numbers of ITU-T H.273, which FFmpeg's AVCOL_* constants share.
UNSPECIFIED = 2
RANGE_UNSPECIFIED, RANGE_MPEG, RANGE_JPEG = 0, 1, 2
BT709, FCC, BT470BG, SMPTE170M, SMPTE240M, BT2020 = 1, 4, 5, 6, 7, 9
TRANSFER_BT2020_10, TRANSFER_PQ, TRANSFER_HLG = 14, 16, 18

# Luma weights (Kr, Kb) of each matrix, H.273 table 4.
_LUMA_WEIGHTS = {
    BT709: (0.2126, 0.0722),
    FCC: (0.30, 0.11),
    BT470BG: (0.299, 0.114),
    SMPTE170M: (0.299, 0.114),
    SMPTE240M: (0.212, 0.087),
    BT2020: (0.2627, 0.0593),
}
# The primaries and the transfer that usually accompany a matrix.
_COMPANIONS = {
    BT709: (BT709, BT709),
    FCC: (FCC, FCC),
    BT470BG: (BT470BG, SMPTE170M),
    SMPTE170M: (SMPTE170M, SMPTE170M),
    SMPTE240M: (SMPTE240M, SMPTE240M),
    BT2020: (BT2020, TRANSFER_BT2020_10),
}
_BT2020_CONSTANT_LUMINANCE = 10


@dataclass(frozen=True)
class ColorTags:
    """How a video's samples are meant, as numbers of ITU-T H.273.

    Attributes:
        range: 1 MPEG (16..235), 2 JPEG (0..255), 0 untagged.
        primaries, transfer, matrix: H.273 code points, 2 untagged.
    """

    range: int = RANGE_UNSPECIFIED
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED

    @property
    def is_hdr(self) -> bool:
        """Whether the transfer is PQ or HLG."""
        return self.transfer in (TRANSFER_PQ, TRANSFER_HLG)

    @property
    def full_range(self) -> bool:
        return self.range == RANGE_JPEG

    def resolved(self, height: int) -> ColorTags:
        """These tags with every gap filled, all of them values that YUV can be converted with.

        Args:
            height: rows of the picture as coded: without a matrix, 720 and more mean BT.709, less BT.601.
        """
        matrix = BT2020 if self.matrix == _BT2020_CONSTANT_LUMINANCE else self.matrix
        if matrix not in _LUMA_WEIGHTS:
            by_size = BT709 if height >= 720 else SMPTE170M
            matrix = BT2020 if self.primaries == BT2020 else by_size
        primaries, transfer = _COMPANIONS[matrix]
        return ColorTags(
            range=self.range if self.range in (RANGE_MPEG, RANGE_JPEG) else RANGE_MPEG,
            primaries=self.primaries if self.primaries not in (0, UNSPECIFIED) else primaries,
            transfer=self.transfer if self.transfer not in (0, UNSPECIFIED) else transfer,
            matrix=matrix,
        )


@lru_cache(maxsize=32)
def yuv_to_rgb_matrix(matrix: int, full_range: bool) -> NDArray[np.float32]:
    """float32 3x4 affine matrix from 8-bit (Y, Cb, Cr) to 8-bit (R, G, B); H.273 equations 38 to 44."""
    kr, kb = _LUMA_WEIGHTS[matrix]
    kg = 1.0 - kr - kb
    linear = np.array(
        [
            [1.0, 0.0, 2.0 * (1.0 - kr)],
            [1.0, -2.0 * kb * (1.0 - kb) / kg, -2.0 * kr * (1.0 - kr) / kg],
            [1.0, 2.0 * (1.0 - kb), 0.0],
        ]
    )
    black, luma, chroma = (0.0, 1.0, 1.0) if full_range else (16.0, 255.0 / 219.0, 255.0 / 224.0)
    linear = linear @ np.diag([luma, chroma, chroma])
    offset = -linear @ np.array([black, 128.0, 128.0])
    return np.column_stack([linear, offset]).astype(np.float32)


@lru_cache(maxsize=32)
def rgb_to_yuv_matrix(matrix: int, full_range: bool) -> NDArray[np.float32]:
    """float32 3x4 affine matrix from 8-bit (R, G, B) to 8-bit (Y, Cb, Cr), the inverse of the other way."""
    forward = yuv_to_rgb_matrix(matrix, full_range).astype(np.float64)
    linear = np.linalg.inv(forward[:, :3])
    return np.column_stack([linear, -linear @ forward[:, 3]]).astype(np.float32)


def frame_tags(frame: av.VideoFrame) -> ColorTags:
    """The tags that a decoded picture carries itself (a yuvj* format means full range).

    Range and matrix of an RGB picture say nothing about the YUV it is to become: they are left untagged.
    """
    if frame.format.is_rgb or frame.format.has_palette:
        return ColorTags(primaries=int(frame.color_primaries), transfer=int(frame.color_trc))
    full = frame.format.name.startswith("yuvj")
    return ColorTags(
        range=RANGE_JPEG if full else int(frame.color_range),
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        matrix=int(frame.colorspace),
    )


def to_rgb(
    frame: av.VideoFrame,
    reformatter: av.video.reformatter.VideoReformatter,
    size: tuple[int, int] | None = None,
) -> Image:
    """A decoded picture as RGB.

    Args:
        frame: any pixel format and depth; untagged pictures are converted as `ColorTags.resolved` has it.
        reformatter: kept by the caller over a stream, because it is costly to set up.
        size: (width, height) to scale to, where it differs from the picture's.

    Returns:
        uint8 HxWx3 RGB, C-contiguous.
    """
    import cv2

    width, height = size or (frame.width, frame.height)
    scaled = (width, height) != (frame.width, frame.height)
    tags = frame_tags(frame).resolved(frame.height)
    name = frame.format.name
    if name in ("yuv420p", "yuvj420p", "nv12") and not scaled:
        planes = _nv12_planes(frame) if name == "nv12" else _planes(frame)
        return _yuv420_to_rgb(planes, yuv_to_rgb_matrix(tags.matrix, tags.full_range))
    options: dict[str, Any] = {"format": "rgb24", "width": width, "height": height}
    if name.startswith(("yuv", "nv", "p0", "p2", "p4", "uyvy", "yvyu", "y2", "vuy", "xv")):
        from av.video.reformatter import Interpolation

        # Without these two flags swscale truncates, see above.
        accurate = int(Interpolation.ACCURATE_RND) if hasattr(Interpolation, "ACCURATE_RND") else 0x40000
        full_chroma = (
            int(Interpolation.FULL_CHR_H_INT) if hasattr(Interpolation, "FULL_CHR_H_INT") else 0x2000
        )
        options |= {
            # swscale has one number for both BT.601 systems.
            "src_colorspace": BT470BG if tags.matrix == SMPTE170M else tags.matrix,
            "src_color_range": tags.range,
            "dst_color_range": RANGE_JPEG,
            "interpolation": int(Interpolation.BICUBIC if scaled else Interpolation.BILINEAR)
            | accurate
            | full_chroma,
        }
    image = np.ascontiguousarray(reformatter.reformat(frame, **options).to_ndarray(), np.uint8)
    if name.startswith(("gray", "ya")) and frame_tags(frame).range == RANGE_MPEG:
        image = np.asarray(
            cv2.LUT(image, _limited_levels()), np.uint8
        )  # swscale takes all grey for full range
    return image


@lru_cache(maxsize=1)
def _limited_levels() -> NDArray[np.uint8]:
    """16..235 to 0..255."""
    return np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)


def from_rgb(image: Image, tags: ColorTags) -> av.VideoFrame:
    """A yuv420p picture with `tags` on it, ready for an encoder.

    Args:
        image: uint8 HxWx3 RGB, any size; odd sizes have their last chroma column or row from one pixel.
        tags: resolved tags; their matrix and range are those of the conversion.
    """
    import av
    import cv2

    height, width = image.shape[:2]
    frame = av.VideoFrame(width, height, "yuv420p")
    luma, blue, red = _planes(frame)
    converted = cv2.transform(image, rgb_to_yuv_matrix(tags.matrix, tags.full_range))
    if width % 2 or height % 2:
        converted = cv2.copyMakeBorder(converted, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    u, v = np.empty_like(converted, shape=(2, *converted.shape[:2]))
    if converted.shape[:2] == luma.shape:
        cv2.split(converted, [luma, u, v])  # into arrays that are there: half the time, and no copy
    else:
        y, u, v = cv2.split(converted)
        luma[:] = y[:height, :width]
    half = (converted.shape[1] // 2, converted.shape[0] // 2)
    # INTER_AREA at one half is the rounded mean of 2x2, which undoes the repetition on the way in.
    blue[:] = cv2.resize(u, half, interpolation=cv2.INTER_AREA)
    red[:] = cv2.resize(v, half, interpolation=cv2.INTER_AREA)
    frame.color_range = tags.range
    frame.color_primaries = tags.primaries
    frame.color_trc = tags.transfer
    frame.colorspace = tags.matrix
    return frame


def has_alpha(frame: av.VideoFrame) -> bool:
    """Whether a decoded picture's format holds transparency."""
    return any(component.is_alpha for component in frame.format.components) or frame.format.name == "pal8"


def to_alpha(
    frame: av.VideoFrame,
    reformatter: av.video.reformatter.VideoReformatter,
    size: tuple[int, int] | None = None,
) -> Alpha:
    """The transparency of a decoded picture that has it, uint8 HxW; arguments as of `to_rgb`."""
    width, height = size or (frame.width, frame.height)
    whole = reformatter.reformat(frame, format="rgba", width=width, height=height)
    return np.ascontiguousarray(whole.to_ndarray()[..., 3])


def from_rgba(image: Image, alpha: Alpha, pixel_format: str, tags: ColorTags) -> av.VideoFrame:
    """A picture with transparency, ready for an encoder: yuva420p, as `from_rgb` converts, or what swscale makes.

    Args:
        image: uint8 HxWx3 RGB.
        alpha: uint8 HxW.
        pixel_format: FFmpeg's name of one with transparency.
        tags: resolved tags.
    """
    import av

    if pixel_format != "yuva420p":
        frame = av.VideoFrame.from_ndarray(np.dstack([image, alpha]), "rgba")
        if pixel_format == "rgba":
            return frame
        matrix = BT470BG if tags.matrix == SMPTE170M else tags.matrix
        yuv = {"dst_colorspace": matrix, "dst_color_range": tags.range} if pixel_format[0] == "y" else {}
        return frame.reformat(format=pixel_format, **yuv)
    opaque = from_rgb(image, tags)
    frame = av.VideoFrame(opaque.width, opaque.height, pixel_format)
    for target, source in zip(_planes(frame), [*_planes(opaque), alpha], strict=True):
        target[:] = source
    frame.color_range, frame.colorspace = tags.range, tags.matrix
    frame.color_primaries, frame.color_trc = tags.primaries, tags.transfer
    return frame


def _planes(frame: av.VideoFrame) -> list[NDArray[np.uint8]]:
    """Views of an 8-bit planar picture's planes, without the padding at the rows' ends."""
    return [
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]  # type: ignore[call-overload]
        for plane in frame.planes
    ]


def _nv12_planes(frame: av.VideoFrame) -> list[NDArray[np.uint8]]:
    """As `_planes` has them of yuv420p: luma, and the two chromas that nv12 has in turns."""
    import cv2

    luma, chroma = frame.planes
    rows, columns = (frame.height + 1) // 2, (frame.width + 1) // 2
    pairs = np.frombuffer(chroma, np.uint8).reshape(-1, chroma.line_size)[:rows, : 2 * columns]  # type: ignore[call-overload]
    blue, red = cv2.split(pairs.reshape(rows, columns, 2))
    whole = np.frombuffer(luma, np.uint8).reshape(-1, luma.line_size)  # type: ignore[call-overload]
    return [whole[: frame.height, : frame.width], np.asarray(blue, np.uint8), np.asarray(red, np.uint8)]


def _yuv420_to_rgb(planes: list[NDArray[np.uint8]], matrix: NDArray[np.float32]) -> Image:
    import cv2

    luma, blue, red = planes
    height, width = luma.shape
    u, v = (_doubled(c)[:height, :width] for c in (blue, red))
    return np.asarray(cv2.transform(cv2.merge((luma, u, v)), matrix), np.uint8)


def _doubled(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every sample as 2x2 of them: `cv2.resize` to the nearest, in a third of its time."""
    import cv2

    height, width = plane.shape
    rows = np.asarray(cv2.merge((plane, plane)), np.uint8).reshape(height, 2 * width)
    doubled = np.empty((height, 2, 2 * width), np.uint8)
    doubled[:] = rows[:, None]
    return doubled.reshape(2 * height, 2 * width)
