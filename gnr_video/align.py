"""Alignment: the similarity transform between a face in the frame and the 256x256 crop, and the crop itself.

The crop is framed as the training pictures are: the eyes' midpoint at (128, 92), the eye centres 72 px
apart, upright.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np

from gnr_video.frame import Alignment, Face, Image, Points

CROP = 256
"""Side of the crop that alignments speak of, pixels."""

# Landmarks of forehead, nose bridge, eye corners and cheekbones: none that speech, brows or eyelids move
# much. Positions: means over 1,001 generated frontal faces, made symmetric, in crop pixels. Weights:
# reciprocals of the variance that was left of each point, aligned, in clips of heads that turn and talk.
_TEMPLATE = (
    # index, x, y, weight
    (10, 128.00, 30.44, 1.04),
    (151, 128.00, 48.70, 1.35),
    (9, 128.00, 68.54, 0.92),
    (8, 128.00, 78.66, 1.15),
    (168, 128.00, 88.50, 1.08),
    (6, 128.00, 97.93, 0.88),
    (197, 128.00, 106.44, 0.65),
    (33, 76.19, 90.75, 0.41),
    (263, 179.81, 90.75, 0.41),
    (133, 107.81, 93.25, 1.25),
    (362, 148.19, 93.25, 1.25),
    (67, 87.24, 33.90, 0.71),
    (297, 168.76, 33.90, 0.71),
    (109, 106.11, 30.94, 0.90),
    (338, 149.89, 30.94, 0.90),
    (69, 90.86, 48.57, 1.32),
    (299, 165.14, 48.57, 1.32),
    (117, 65.50, 110.06, 0.51),
    (346, 190.50, 110.06, 0.51),
    (118, 74.52, 112.76, 0.86),
    (347, 181.48, 112.76, 0.86),
    (119, 88.46, 111.82, 1.54),
    (348, 167.54, 111.82, 1.54),
    (50, 68.48, 129.00, 0.65),
    (280, 187.52, 129.00, 0.65),
    (101, 86.33, 120.61, 1.61),
    (330, 169.67, 120.61, 1.61),
    (122, 121.42, 99.47, 1.19),
    (351, 134.58, 99.47, 1.19),
    (188, 116.91, 103.26, 2.17),
    (412, 139.09, 103.26, 2.17),
    (193, 119.68, 89.21, 1.37),
    (417, 136.32, 89.21, 1.37),
)
RIGID = np.array([row[0] for row in _TEMPLATE])
TEMPLATE: Points = np.array([row[1:3] for row in _TEMPLATE], np.float32)
WEIGHTS = np.array([row[3] for row in _TEMPLATE]) / sum(row[3] for row in _TEMPLATE)


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
    frame = face.landmarks[RIGID, 0] + 1j * face.landmarks[RIGID, 1].astype(np.float64)
    crop = TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1].astype(np.float64)
    frame_mean, crop_mean = WEIGHTS @ frame, WEIGHTS @ crop
    frame, crop = frame - frame_mean, crop - crop_mean
    spread = float(WEIGHTS @ (frame * frame.conj()).real)
    product = complex(WEIGHTS @ (frame.conj() * crop))
    if not (math.isfinite(spread) and spread > 1e-12 and abs(product) > 1e-12):
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


def crop_face(image: Image, alignment: Alignment, size: int = CROP) -> Image:
    """Cut the aligned face out of a frame.

    A crop pixel of a large face covers many frame pixels, so the region is low-passed before it is sampled:
    a Gaussian of sigma (ratio - 1) / 2 frame pixels, which is continuous in the ratio and the same at every
    place, so that neither a head that comes nearer nor one that moves flickers. Beyond the frame's border
    the picture is mirrored.

    Args:
        image: uint8 HxWx3 RGB.
        alignment: where the crop lies.
        size: side of the crop, pixels.

    Returns:
        uint8 size x size x 3 RGB.
    """
    import cv2

    ratio = alignment.scale * CROP / size
    # A close-up: means of k x k frame pixels first, on a grid that stays put in the frame.
    height, width = image.shape[:2]
    shrink = max(1, min(int(ratio / MAX_BLUR_RATIO), height, width))
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
        region = cast(Image, cv2.GaussianBlur(region, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101))
    crop = cv2.warpAffine(
        region,
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return cast(Image, crop)


MAX_BLUR_RATIO = 3.0
"""Frame pixels per crop pixel up to which a blur alone is cheap."""


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
