"""Scene cuts: tells the tracker and the aligner when the picture has changed at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gnr_video.frame import Image

WIDTH, HEIGHT = 64, 36


class SceneCut:
    """Finds hard cuts in a series of frames, on thumbnails of 64x36.

    A cut changes both what colours there are (histogram distance) and where they lie (mean absolute
    difference of the luma, brightness and contrast taken out), and far more than the frames before it did.
    A flash or a change of exposure leaves the structure; motion of the head or the camera leaves the
    histogram, and its difference rises over several frames.

    Args:
        structure: least change of structure, 0..1 (1 - normalised correlation of the luma).
        histogram: least histogram distance, 0..1 (half the L1 distance of the colour histograms).
        contrast: by what factor the change must exceed the running mean of the changes before.
    """

    def __init__(self, *, structure: float = 0.35, histogram: float = 0.25, contrast: float = 3.0) -> None:
        self.structure = structure
        self.histogram = histogram
        self.contrast = contrast
        self.reset()

    def reset(self) -> None:
        """The next frame is a first frame again."""
        self._last: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        self._usual = 0.0

    def is_cut(self, image: Image) -> bool:
        """Whether this frame (uint8 HxWx3 RGB) begins a new scene. The first frame does not."""
        luma, colours = _describe(image)
        if self._last is None:
            self._last = luma, colours
            return False
        last_luma, last_colours = self._last
        self._last = luma, colours
        change = _structure_change(last_luma, luma)
        shift = 0.5 * float(np.abs(colours - last_colours).sum())
        score = change * shift
        usual = self._usual
        found = change > self.structure and shift > self.histogram and score > self.contrast * usual
        # After a cut the new scene starts with the old scene's liveliness; the cut itself is no part of it.
        if not found:
            self._usual += 0.2 * (score - usual)
        return found


def _describe(image: Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(luma HEIGHT x WIDTH float32, colour histogram of 4x4x4 bins with sum 1)."""
    import cv2

    # A stride first: an area mean over every pixel of a large frame would take longer than all the rest.
    step = max(1, min(image.shape[1] // (4 * WIDTH), image.shape[0] // (4 * HEIGHT)))
    small = cv2.resize(image[::step, ::step], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    luma = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    bins = (np.asarray(small) // 64).astype(np.int64) @ np.array([16, 4, 1])
    colours = np.bincount(bins.ravel(), minlength=64).astype(np.float32) / bins.size
    return luma, colours


def _structure_change(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """1 - correlation of two pictures, 0..1; a little noise in a flat picture counts as no structure."""
    a, b = a - a.mean(), b - b.mean()
    floor = 4.0
    spread = np.sqrt((float((a * a).mean()) + floor) * (float((b * b).mean()) + floor))
    correlation = (float((a * b).mean()) + floor) / spread
    return float(np.clip(1.0 - correlation, 0.0, 1.0))
