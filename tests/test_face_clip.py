"""Runs of face crops from clips, as the moving metrics see them. Device: CPU, and MediaPipe's face model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engines.errors import InputError
from gnr_video.samples.face_clip import face_run
from tests.media_helpers import make_clip
from train.metrics.motion import warp_errors


def test_a_face_is_followed_and_stands_still_in_its_crops(face_clip, face_model):
    run = face_run(face_clip, 128, frames=12, face_model=face_model)
    assert len(run) == 12
    assert all(crop.shape == (128, 128, 3) and crop.dtype == np.uint8 for crop in run)
    # The camera moves, the crop with it: what is left is sampling, tracking and compression.
    assert warp_errors(run, run).mean() < 2e-3
    assert len(face_run(face_clip, 64, frames=4, face_model=face_model)) == 4


def test_a_clip_without_a_face(tmp_path: Path, face_model):
    clip = make_clip(tmp_path / "empty.mp4")
    with pytest.raises(InputError, match="no face was followed"):
        face_run(clip, face_model=face_model)
