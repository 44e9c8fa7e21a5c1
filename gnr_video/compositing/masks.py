"""Masks: which part of a translated crop is pasted, in the crop's pixels."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from gnr_video.frame import Image, Points
from gnr_video.tracking.alignment import HEAD_EXTENT, HEAD_RISE
from gnr_video.tracking.face_mesh import (
    CHIN,
    EYES,
    FACE_OVAL,
    FOREHEAD,
    JAW,
    LIPS,
    Mask,
    in_pixels,
    polygon,
    scaled,
    smoothstep,
)


def head_mask(landmarks: Points | None = None, size: int = 256) -> Mask:
    """Soft shape around the whole anime head: hair, ears and chin.

    A superellipse, as high as the crop allows, because human hair usually goes on above the crop: the more of
    the crop is used, the less of that hair is left. Below the jaw it narrows, so that it ends on the neck and
    leaves the shoulders alone. Landmarks keep it to the head: a turned face fills only one side of the crop,
    and beside it the translation's background, whose colour the style chooses, would be a halo.

    Args:
        landmarks: float32 Nx2 (N >= 468, MediaPipe's order), pixels of the 256 crop; None: the superellipse.
        size: side of the crop, pixels. The shape fits a crop with the eyes' midpoint at (128, 92) of 256.

    Returns:
        uint8 size x size, zero on the border.
    """
    if landmarks is None or len(landmarks) <= max(FACE_OVAL):
        return _superellipse(size)
    oval = np.asarray(landmarks, np.float64)[list(FACE_OVAL), :2]
    wide = scaled(oval, HEAD_MARGIN)
    # Hair and forehead: the face goes on upwards.
    outline = np.asarray(
        cv2.convexHull(np.vstack([wide, wide - (0.0, 90.0)]).astype(np.float32))[:, 0], np.float64
    )
    return np.asarray(cv2.multiply(_filled(outline, size, 9.0), _superellipse(size), scale=1 / 255), np.uint8)


def whole_head_mask(matte: Mask) -> Mask:
    """What a crop around the whole head (`alignment.widened`) shows of its person: the head, not the shoulders.

    Args:
        matte: uint8 SxS, 255 = person.

    Returns:
        uint8 SxS, zero on the border.
    """
    return np.asarray(cv2.multiply(matte, _head_region(matte.shape[0]), scale=1 / 255), np.uint8)


def above_jaw(landmarks: Points, drawing: Image) -> Mask:
    """What of a drawn head lies above its jaw. Below it the drawing has collars of its own.

    The jaw is the face's, and within that, because drawn chins are narrower, where the drawn skin and its outline end.

    Args:
        landmarks: float32 Nx2 (N >= 468, MediaPipe's order), pixels of the 256 crop.
        drawing: uint8 SxSx3 RGB, the head.

    Returns:
        uint8 SxS, 255 above.
    """
    side = _JAW_SIDE
    points = in_pixels(landmarks, side)
    height = float(np.linalg.norm(points[CHIN] - points[FOREHEAD]))
    oval, jaw, lips = points[list(FACE_OVAL)], points[list(JAW)], points[list(LIPS)]
    middle = oval.mean(axis=0)
    small = cv2.resize(drawing, (side, side), interpolation=cv2.INTER_AREA)
    cheeks = polygon(scaled(oval, 0.6), side) > 127
    cheeks[: max(int(points[list(EYES), 1].mean() + 0.05 * height), 0)] = False
    below = cv2.subtract(polygon(jaw, side), polygon(scaled(lips, 1.35), side))
    if cheeks.any():
        # Alike by all of brightness, red and blue: 255 up to half a tolerance away, 0 from one and a half.
        alike = []
        for channel, tolerance in zip(
            cv2.split(cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb)), (50.0, 14.0, 14.0)
        ):
            away = cv2.absdiff(channel, np.full_like(channel, np.median(channel[cheeks])))
            alike.append(cv2.addWeighted(away, -255 / tolerance, away, 0.0, 1.5 * 255))
        skin = cv2.min(cv2.min(alike[0], alike[1]), alike[2])
        skin = cv2.morphologyEx(skin, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        radius = max(round(0.022 * height), 1)
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        below = cv2.multiply(below, cv2.bitwise_not(cv2.dilate(skin, disc)), scale=1 / 255)
    away = (jaw - middle) / np.linalg.norm(jaw - middle, axis=1, keepdims=True).clip(1e-6) * height
    # Sharp below the chin, where there is a line; soft beside it, in hair.
    near, far = jaw + 0.015 * away, jaw + 0.05 * away
    end = 2.0 * side
    chin = np.vstack([near[1:-1], [near[-2, 0], end], [near[1, 0], end]])
    beside = np.vstack([[end, far[1, 1]], far[1:-1], [-side, far[-2, 1]], [-side, end], [end, end]])
    sharp = cv2.GaussianBlur(cv2.max(below, polygon(chin, side)), (0, 0), 0.016 * height + 0.1)
    soft = cv2.GaussianBlur(polygon(beside, side), (0, 0), 0.06 * height + 0.1)
    size = drawing.shape[0]
    return np.asarray(cv2.resize(cv2.bitwise_not(cv2.max(sharp, soft)), (size, size)), np.uint8)


_JAW_SIDE = 80
"""Side of the picture that the jaw is looked for in, pixels."""


@lru_cache(maxsize=16)
def _head_region(size: int) -> Mask:
    """Nearly all of the crop above the chin; below it a neck's width."""
    x, y = _grid(size)
    # Pixels of the face's crop, from its middle.
    u, v = (x - 127.5) * HEAD_EXTENT, (y - 127.5) * HEAD_EXTENT - HEAD_RISE
    half_height = np.where(v < 0, 182.0, 126.0)
    half_width = 156.0 - 74.0 * smoothstep((v + 10.0) / 110.0)
    return _to_mask(_in_superellipse(u / half_width, v / half_height, 0.18))


HEAD_MARGIN = 1.16
"""The head's outline in face ovals: ears and some hair."""


def guided(
    weight: NDArray[np.float32], grey: NDArray[np.float32], radius: int = 2, epsilon: float = 3e-4
) -> NDArray[np.float32]:
    """Weights smoothed along a picture's edges, not across them (guided filter, He et al. 2010).

    Args:
        weight, grey: float32 HxW, 0..1.
        radius: of the windows, pixels.
        epsilon: variance of `grey` that counts as an edge.
    """

    def mean(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.blur(x, (2 * radius + 1,) * 2), np.float32)

    mean_grey, mean_weight = mean(grey), mean(weight)
    variance = mean(grey * grey) - mean_grey * mean_grey + np.float32(epsilon)
    slope = np.asarray((mean(grey * weight) - mean_grey * mean_weight) / variance, np.float32)
    return np.asarray(np.clip(mean(slope) * grey + mean(mean_weight - slope * mean_grey), 0, 1), np.float32)


def _filled(outline: NDArray[np.floating], size: int, sigma: float) -> Mask:
    """A polygon, pixels of the 256 crop, filled and blurred by `sigma` of them."""
    if not np.isfinite(outline).all():
        raise ValueError("landmarks must be finite")
    points = np.clip((outline + 0.5) * (size / 256.0) - 0.5, -size, 2 * size)
    soft = cv2.GaussianBlur(
        polygon(points, size), (0, 0), sigma * size / 256.0, borderType=cv2.BORDER_CONSTANT
    )
    return np.asarray(soft, np.uint8)


@lru_cache(maxsize=16)
def _superellipse(size: int) -> Mask:
    x, y = _grid(size)
    u, v = x - 127.5, y - 122.0
    half_height = np.where(v < 0, 119.0, 131.0)
    half_width = 114.0 - 22.0 * smoothstep(v / 131.0)
    return _to_mask(_in_superellipse(u / half_width, v / half_height, 0.21))


@lru_cache(maxsize=16)
def square_mask(size: int = 256) -> Mask:
    """Feathered rounded square over the whole crop, uint8 size x size, zero on the border."""
    x, y = _grid(size)
    corner, feather, half = 40.0, 20.0, 127.0
    dx, dy = np.abs(x - 127.5) - (half - corner), np.abs(y - 127.5) - (half - corner)
    outside = np.hypot(np.maximum(dx, 0.0), np.maximum(dy, 0.0)) + np.minimum(np.maximum(dx, dy), 0.0)
    return _to_mask(smoothstep((corner - outside) / feather))


def face_mask(landmarks: Points | None, size: int = 256) -> Mask:
    """Feathered face oval from landmarks.

    Args:
        landmarks: float32 Nx2 (N >= 468, MediaPipe's order), pixels of the 256 crop; None: an average oval.
        size: side of the crop, pixels.

    Returns:
        uint8 size x size, zero on the border.
    """
    if landmarks is None or len(landmarks) <= max(FACE_OVAL):
        turn = np.linspace(0.0, 2.0 * np.pi, 36, endpoint=False)
        oval = np.stack([128.0 + 82.0 * np.sin(turn), 128.0 - 104.0 * np.cos(turn)], axis=1)
    else:
        oval = np.asarray(landmarks, np.float64)[list(FACE_OVAL), :2]
    # Drawn a little smaller, so that the feather ends at the jaw and not on the background behind it.
    soft = _filled(scaled(oval, 0.93), size, 6.0)
    return np.asarray(cv2.multiply(soft, square_mask(size), scale=1 / 255), np.uint8)


def _grid(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixels of a size x size crop in coordinates of the 256 crop (whose middle is at 127.5)."""
    axis = (np.arange(size) + 0.5) * (256.0 / size) - 0.5
    x, y = np.meshgrid(axis, axis)
    return x, y


def _in_superellipse(u: NDArray[np.float64], v: NDArray[np.float64], feather: float) -> NDArray[np.float64]:
    """0 outside of the superellipse of unit axes, 1 where it is deeper than `feather`."""
    radius = (np.abs(u) ** 2.5 + np.abs(v) ** 2.5) ** (1 / 2.5)
    return smoothstep((1.0 - radius) / feather)


def _to_mask(alpha: NDArray[np.float64]) -> Mask:
    mask = np.round(alpha * 255.0).astype(np.uint8)
    mask[[0, -1]] = 0
    mask[:, [0, -1]] = 0
    mask.setflags(write=False)  # it is shared by every caller
    return mask
