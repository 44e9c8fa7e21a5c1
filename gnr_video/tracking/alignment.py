"""Alignment: the similarity transform between a face in the frame and the 256x256 crop, and the crop itself.

The crop is framed as the training pictures are: the eyes' midpoint at (128, 92), the eye centres 72 px
apart, upright.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import cv2
import numpy as np

from gnr_video.frame import Alignment, Face, Image, Points
from gnr_video.tracking.face_mesh import (
    Mask,
)

CROP = 256
"""Side of the crop that alignments speak of, pixels."""

HEAD_EXTENT = 5 / 4
HEAD_RISE = 24.0
"""The crop around a whole head: so much larger than a face's, and its middle so many pixels of that one higher."""

BUST = 256
"""Side of the crop around head and shoulders, pixels: what MediaPipe's person segmentation looks at."""
BUST_EXTENT = 8 / 5
BUST_DROP = 25.6
"""The crop around head and shoulders: so much larger than a head's, and its middle so many pixels of that one lower."""

# Landmarks of the nose, the eyes' surroundings, forehead and cheekbones: none of lips, jaw, eyelids or brows.
# Positions: means over 1,001 generated frontal faces, made symmetric, in crop pixels. Weights: fitted by
# gradient descent on five generated faces under the motion of benchmarks/tracking.py and on clips of
# talking faces, for least corner error, least jitter and least response to mouth, jaw, brows and smiles.
_TEMPLATE = (
    # index, x, y, weight
    (33, 76.19, 90.75, 0.0868),
    (35, 60.24, 95.18, 0.0211),
    (36, 90.78, 130.60, 0.0323),
    (50, 68.48, 129.00, 0.0031),
    (51, 121.66, 122.65, 0.0402),
    (69, 90.86, 48.57, 0.0210),
    (71, 55.30, 68.84, 0.0214),
    (93, 46.40, 130.46, 0.0335),
    (101, 86.33, 120.61, 0.0046),
    (129, 102.66, 134.46, 0.0172),
    (205, 78.44, 139.50, 0.0726),
    (226, 66.94, 93.11, 0.0201),
    (228, 72.63, 103.00, 0.0074),
    (229, 79.97, 105.03, 0.0073),
    (231, 98.75, 103.44, 0.0508),
    (235, 107.58, 139.90, 0.0178),
    (244, 114.02, 95.60, 0.0429),
    (263, 179.81, 90.75, 0.0868),
    (265, 195.76, 95.18, 0.0211),
    (266, 165.22, 130.60, 0.0323),
    (280, 187.52, 129.00, 0.0031),
    (281, 134.34, 122.65, 0.0402),
    (299, 165.14, 48.57, 0.0210),
    (301, 200.70, 68.84, 0.0214),
    (323, 209.60, 130.46, 0.0335),
    (330, 169.67, 120.61, 0.0046),
    (358, 153.34, 134.46, 0.0172),
    (425, 177.56, 139.50, 0.0726),
    (446, 189.06, 93.11, 0.0201),
    (448, 183.37, 103.00, 0.0074),
    (449, 176.03, 105.03, 0.0073),
    (451, 157.25, 103.44, 0.0508),
    (455, 148.42, 139.90, 0.0178),
    (464, 141.98, 95.60, 0.0429),
)
RIGID = np.array([row[0] for row in _TEMPLATE])
TEMPLATE: Points = np.array([row[1:3] for row in _TEMPLATE], np.float32)
WEIGHTS = np.array([row[3] for row in _TEMPLATE]) / sum(row[3] for row in _TEMPLATE)

_BORDER = 24.0
"""Width of the soft border between two heads, pixels of the 256 crop."""


def fit_alignment(face: Face) -> Alignment:
    """Crop of a face by weighted least squares, in closed form (Umeyama 1991, for two dimensions).

    With points as complex numbers, landmarks f_i, template m_i and weights w_i of sum 1, the similarity
    m = z f + t of least sum of w_i |m_i - z f_i - t|^2 is

        z = sum w_i conj(f_i - f) (m_i - m) / sum w_i |f_i - f|^2,    t = m - z f,

    f and m the weighted means. Fitted in this direction the crop zooms in less when a head turns away
    than with the residual measured in the frame.

    Returns:
        The alignment, `landmarks` included.

    Raises:
        ValueError: the landmarks fall into one point or are not finite.
    """
    if not np.isfinite(face.landmarks[RIGID, :2]).all():
        raise ValueError("the landmarks are degenerate: not finite")
    frame = face.landmarks[RIGID, 0] + 1j * face.landmarks[RIGID, 1].astype(np.float64)
    crop = TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1].astype(np.float64)
    frame_mean, crop_mean = WEIGHTS @ frame, WEIGHTS @ crop
    frame, crop = frame - frame_mean, crop - crop_mean
    spread = float(WEIGHTS @ (frame * frame.conj()).real)
    product = complex(WEIGHTS @ (frame.conj() * crop))
    if min(spread, abs(product)) < 1e-12:
        raise ValueError("the landmarks are degenerate: no similarity transform fits")
    inverse = spread / product
    center = frame_mean + inverse * (complex(CROP / 2, CROP / 2) - crop_mean)
    return with_landmarks(
        Alignment(
            face.track_id,
            center_x=center.real,
            center_y=center.imag,
            scale=abs(inverse),
            angle=math.atan2(inverse.imag, inverse.real),
        ),
        face.landmarks,
    )


def with_landmarks(alignment: Alignment, landmarks: Points) -> Alignment:
    """The same alignment, carrying frame landmarks (Nx2 or Nx3, pixels) mapped into its crop (Nx2)."""
    c, s = math.cos(alignment.angle) / alignment.scale, math.sin(alignment.angle) / alignment.scale
    offset = landmarks[:, :2] - np.array([alignment.center_x, alignment.center_y], np.float32)
    mapped = offset @ np.array([[c, -s], [s, c]], np.float32) + np.float32(CROP / 2)
    return Alignment(
        alignment.track_id,
        alignment.center_x,
        alignment.center_y,
        alignment.scale,
        alignment.angle,
        alignment.opacity,
        mapped.astype(np.float32, copy=False),
    )


def widened(alignment: Alignment) -> Alignment:
    """The alignment of the crop around the whole head, from that of the face."""
    return _larger(alignment, HEAD_EXTENT, -HEAD_RISE)


def narrowed(head: Alignment) -> Alignment:
    """The alignment of the face's crop, from that of the crop around the whole head: `widened` undone."""
    return _larger(head, 1 / HEAD_EXTENT, HEAD_RISE / HEAD_EXTENT)


def bust(head: Alignment) -> Alignment:
    """The alignment of the crop around head and shoulders, from that of the whole head (`widened`)."""
    return _larger(head, BUST_EXTENT, BUST_DROP)


def bust_head(side: int) -> tuple[slice, slice]:
    """Rows and columns of the head's crop within that of the bust, of `side` pixels (a multiple of 128)."""
    half, drop = side / BUST_EXTENT / 2, BUST_DROP / BUST_EXTENT * side / CROP
    start, top = round(side / 2 - half), round(side / 2 - drop - half)
    length = round(2 * half)
    return slice(top, top + length), slice(start, start + length)


def _larger(alignment: Alignment, extent: float, drop: float) -> Alignment:
    """The alignment of a crop `extent` larger, its middle `drop` crop pixels lower."""
    c, s = math.cos(alignment.angle) * alignment.scale, math.sin(alignment.angle) * alignment.scale
    landmarks = alignment.landmarks
    if landmarks is not None:
        middle = np.float32(CROP / 2)
        landmarks = (landmarks - middle - np.array([0, drop], np.float32)) / np.float32(extent) + middle
    return replace(
        alignment,
        center_x=alignment.center_x - drop * s,
        center_y=alignment.center_y + drop * c,
        scale=alignment.scale * extent,
        landmarks=landmarks,
    )


def mirrored(image: Image, alignment: Alignment) -> tuple[Image, Alignment]:
    """A frame as in a mirror, and where the face lies there. Its landmarks keep their numbers: left is right."""
    x = image.shape[1] - 1 - alignment.center_x + alignment.scale * math.cos(alignment.angle)
    y = alignment.center_y - alignment.scale * math.sin(alignment.angle)
    flipped = np.ascontiguousarray(image[:, ::-1])
    landmarks = alignment.landmarks
    if landmarks is not None:
        landmarks = landmarks.copy()
        landmarks[:, 0] = CROP - 1 - landmarks[:, 0]
    return flipped, replace(alignment, center_x=x, center_y=y, angle=-alignment.angle, landmarks=landmarks)


def face_part(crop: Image, size: int) -> Image:
    """The size x size face crop within the crop of its whole head; any other crop as it is."""
    if crop.shape[0] != head_side(size):
        return crop
    left, _, top, _ = head_margins(size)
    return crop[top : top + size, left : left + size]


def head_side(size: int) -> int:
    """Side of the crop around the whole head where that of the face is `size`, both in pixels."""
    return round(size * HEAD_EXTENT)


def head_margins(size: int) -> tuple[int, int, int, int]:
    """(left, right, top, bottom) of that crop around a face's crop of `size`, all in pixels."""
    side, rise = (head_side(size) - size) // 2, round(HEAD_RISE * size / CROP)
    return side, side, side + rise, side - rise


def crop_face(image: Image, alignment: Alignment, size: int = CROP, *, mirror: bool = True) -> Image:
    """Cut the aligned face out of a frame.

    A crop pixel of a large face covers many frame pixels, so the region is low-passed before it is sampled:
    means of k x k pixels, k the whole part of the ratio, on a grid that stays put in the frame, then a
    Gaussian of sigma (ratio / k - 1) / 2. The two join without a step (the mean of 2 x 2 pixels has sigma
    0.5), so that neither a head that comes nearer nor one that moves flickers.

    Args:
        image: uint8 HxWx3 RGB.
        alignment: where the crop lies.
        size: side of the crop, pixels.
        mirror: beyond the frame's border the picture is mirrored; else its outermost pixels go on.

    Returns:
        uint8 size x size x 3 RGB.
    """

    border = cv2.BORDER_REFLECT_101 if mirror else cv2.BORDER_REPLICATE
    ratio = alignment.scale * CROP / size
    height, width = image.shape[:2]
    shrink = max(1, min(int(ratio), height, width))
    matrix = alignment.crop_to_frame(size)
    corners = matrix @ np.array([[0, size - 1, 0, size - 1], [0, 0, size - 1, size - 1], [1, 1, 1, 1]])
    left, right = _span(corners[0], width, shrink)
    top, bottom = _span(corners[1], height, shrink)
    region: Image = image[top:bottom, left:right]
    matrix[:, 2] -= (left, top)
    if shrink > 1:
        shrunk = ((right - left) // shrink, (bottom - top) // shrink)
        region = cast(Image, cv2.resize(region, shrunk, interpolation=cv2.INTER_AREA))
        matrix /= shrink
        matrix[:, 2] += 0.5 / shrink - 0.5
    sigma = (ratio / shrink - 1) / 2
    # Below this the kernel's neighbours round to nothing.
    if sigma > 0.25:
        region = cast(Image, cv2.GaussianBlur(region, (0, 0), sigma, borderType=border))
    # OpenCV takes less than half the time over four channels, conversions included: they lie on words.
    crop = cv2.warpAffine(
        cv2.cvtColor(region, cv2.COLOR_RGB2RGBA),
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=border,
    )
    return cast(Image, cv2.cvtColor(crop, cv2.COLOR_RGBA2RGB))


def _span(corners: np.ndarray, length: int, step: int) -> tuple[int, int]:
    """Pixels from the least to the greatest corner, widened to whole steps, within 0..length.

    A part outside is mirrored, so it needs as many pixels within. At least one step; `length` holds one.
    """
    low, high = float(corners.min()) - 2, float(corners.max()) + 3
    if low < 0:
        high = max(high, -low + 2)
    if high > length:
        low = min(low, 2 * length - high - 2)
    length = length // step * step
    start = min(max(math.floor(low / step) * step, 0), length - step)
    stop = max(min(math.ceil(high / step) * step, length), start + step)
    return start, stop


def nearest_part(mask: Mask, alignment: Alignment, others: Sequence[Alignment]) -> Mask:
    """The part of a head's mask that is nearer to it than to heads pasted before, by their sizes: a person
    segmentation does not tell two people who sit side by side apart.

    Args:
        mask: uint8 SxS, of the head that lies at `alignment`.

    Returns:
        uint8 SxS; the mask itself where no other head is near.
    """
    x, y = alignment.center_x, alignment.center_y
    near = [
        o for o in others if math.hypot(o.center_x - x, o.center_y - y) < 256 * (o.scale + alignment.scale)
    ]
    if not near:
        return mask
    size = mask.shape[0]
    u, v = np.meshgrid(np.arange(size), np.arange(size))
    (a, b, c), (d, e, f) = alignment.crop_to_frame(size)
    frame_x, frame_y = a * u + b * v + c, d * u + e * v + f
    own = np.hypot(frame_x - x, frame_y - y) / alignment.scale
    other = np.min([np.hypot(frame_x - o.center_x, frame_y - o.center_y) / o.scale for o in near], axis=0)
    share = np.clip(0.5 + (other - own) / _BORDER, 0.0, 1.0)
    return np.asarray(np.round(mask * share), np.uint8)
