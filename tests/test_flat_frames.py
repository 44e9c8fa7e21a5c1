"""Frames of one colour show nobody, and whoever comes after them is drawn at once. Device: CPU."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from gnr_video.frame import Frame
from gnr_video.timing import StageTimes
from gnr_video.tracking.finder import Finder
from tests.faces_helpers import SIZE, two_heads

PLACE = (150.0, 160.0)


@pytest.mark.parametrize("level", [0, 16, 255])
@pytest.mark.parametrize("lookahead", [0, 15])
def test_faces_between_flat_frames(face_model: Path, level: int, lookahead: int) -> None:
    flat = np.full((SIZE[1], SIZE[0], 3), level, np.uint8)
    face = two_heads((PLACE, None))
    pictures = [flat] * 8 + [face] * 12 + [flat] * 8 + [face] * 6
    frames = [Frame(picture, index, Fraction(1, 30), index) for index, picture in enumerate(pictures)]
    with Finder(face_model, lookahead=lookahead) as finder:
        found = list(finder.track(frames, StageTimes()))
    assert [item.frame.index for item in found] == list(range(len(frames)))
    for item in found:
        opacities = [layer.alignment.opacity for layer in item.faces]
        assert opacities == ([] if item.frame.image is flat else [1.0]), item.frame.index


def test_a_flash_changes_nobody(face_model: Path) -> None:
    """Whoever is there before and after it stays the same person."""
    flat, face = np.full((SIZE[1], SIZE[0], 3), 255, np.uint8), two_heads((PLACE, None))
    pictures = [face] * 6 + [flat] + [face] * 6
    frames = [Frame(picture, index, Fraction(1, 30), index) for index, picture in enumerate(pictures)]
    with Finder(face_model, lookahead=3) as finder:
        found = list(finder.track(frames, StageTimes()))
    people = {(layer.alignment.track_id, layer.role) for item in found for layer in item.faces}
    assert len(people) == 1
