"""Scene cuts: tells the tracker and the aligner when the picture has changed at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnr_video.frame import Image

WIDTH, HEIGHT = 64, 36
FLAT = 2.0
"""Standard deviation of the thumbnail below which a frame shows nothing, grey levels."""
KNOWN = 6
"""Frames of a scene after which it is known how much usually changes in it."""

_Description = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Luma thumbnail and colour histogram."""


class SceneCut:
    """Finds hard cuts in a series of frames, on thumbnails of 64x36.

    A cut changes both what colours there are (histogram distance) and where they lie (correlation of the
    luma, which brightness and contrast leave alone), and far more than the frames before it did. A flash or
    a change of exposure leaves the structure; motion of the head or the camera leaves the histogram, and
    spreads over several frames. Where most of the picture is dark in both scenes, little of the histogram can
    change: there a change of nearly all structure counts that stands out all the more. A frame all of one colour
    is passed over: what comes after a white flash or a black frame is compared with what was before.

    Args:
        structure: least change of structure, 0..1 (1 - normalised correlation of the luma).
        histogram: least histogram distance, 0..1 (half the L1 distance of the colour histograms).
        contrast: by what factor the change must exceed the running mean of the changes before.
        stark: the same three for scenes that are mostly dark, once they are known.

    Attributes:
        is_flat: whether the last frame was all of one colour.
    """

    def __init__(
        self,
        *,
        structure: float = 0.3,
        histogram: float = 0.15,
        contrast: float = 3.0,
        stark: tuple[float, float, float] = (0.6, 0.03, 20.0),
    ) -> None:
        self.structure = structure
        self.histogram = histogram
        self.contrast = contrast
        self.stark = stark
        self.reset()

    def reset(self) -> None:
        """The next frame is a first frame again."""
        self.is_flat = False
        self._last: _Description | None = None
        self._usual = 0.0
        self._seen = 0

    def state(self) -> tuple[Any, ...]:
        """What is known of the frames before, for `restore`."""
        return self.is_flat, self._last, self._usual, self._seen

    def restore(self, state: tuple[Any, ...]) -> None:
        """Go on from there."""
        self.is_flat, self._last, self._usual, self._seen = state

    def is_cut(self, image: Image) -> bool:
        """Whether this frame (uint8 HxWx3 RGB) begins a new scene. The first frame does not."""
        luma, colors = _describe(image)
        self.is_flat = bool(luma.std() < FLAT)
        if self.is_flat:
            return False
        last, self._last = self._last, (luma, colors)
        if last is None:
            return False
        structure = _structure_change(last[0], luma)
        histogram = 0.5 * float(np.abs(colors - last[1]).sum())
        score = structure * histogram
        limits = [(self.structure, self.histogram, self.contrast)]
        if self._seen >= KNOWN:
            limits.append(self.stark)
        if any(structure > s and histogram > h and score > c * self._usual for s, h, c in limits):
            self._seen = 0
            return True
        self._seen += 1
        self._usual += 0.2 * (score - self._usual)
        return False


def _describe(image: Image) -> _Description:
    """(luma HEIGHT x WIDTH float32, colour histogram of 4x4x4 bins with sum 1)."""
    import cv2

    # A stride first: an area mean over every pixel of a large frame would take longer than all the rest.
    step = max(1, min(image.shape[1] // (4 * WIDTH), image.shape[0] // (4 * HEIGHT)))
    small = cv2.resize(image[::step, ::step], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    luma = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    bins = (np.asarray(small) // 64).astype(np.int64) @ np.array([16, 4, 1])
    colors = np.bincount(bins.ravel(), minlength=64).astype(np.float32) / bins.size
    return luma, colors


def _structure_change(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """1 - correlation of two pictures that are not flat, 0..1."""
    a, b = a - a.mean(), b - b.mean()
    correlation = float((a * b).mean()) / float(a.std() * b.std())
    return float(np.clip(1.0 - correlation, 0.0, 1.0))
