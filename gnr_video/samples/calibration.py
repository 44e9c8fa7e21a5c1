"""Faces to calibrate int8 with (`engines.int8`): those of a clip of the user's, or the demo's under its camera."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from engines.errors import InputError
from engines.int8 import Calibration
from gnr_video.frame import Alignment, Image
from gnr_video.tracking.alignment import crop_face, fit_alignment

COUNT = 40
SAMPLE_KEY = "sample faces 1"
"""Names the crops of `sample_faces`; raised whenever they change."""

# A clip gives a face every so often, until there are COUNT or so much of it has passed.
_EVERY_SECONDS = 0.2
_AT_MOST_SECONDS = 60.0


def calibration_faces(
    clip: str | os.PathLike[str] | None = None, face_model: Path | None = None
) -> Calibration:
    """Those of the clip, see `clip_faces`; without one, `sample_faces`."""
    return clip_faces(clip, face_model) if clip else sample_faces()


def sample_faces() -> Calibration:
    """The demo's portrait along its camera path, under changes of framing, roll, exposure and white balance."""
    return Calibration(SAMPLE_KEY, lambda size: np.stack(list(sample_crops(size, COUNT))))


def sample_crops(size: int, count: int) -> Iterator[Image]:
    """The crops of `sample_faces`, uint8 size x size x 3 RGB; the same for the same arguments.

    Raises:
        InputError: scikit-image, which holds the portrait, is not installed.
    """
    from gnr_video.samples.portrait import camera_pose, demo_frames

    random = np.random.default_rng(0)
    frame_size = (640, 360)
    for i, frame in enumerate(demo_frames(count, frame_size)):
        pose = camera_pose(i / count)
        # The crop's middle and width on the portrait, changed by as much as faces and their tracking differ.
        x, y = np.array([227.0, 123.0]) + random.uniform(-5, 5, 2)
        center = pose.portrait_to_frame(frame_size) @ np.array([x, y, 1.0])
        zoom = pose.zoom * frame_size[0] / 1280
        width = 142.0 * np.exp(random.uniform(-0.12, 0.12))
        angle = pose.angle + np.radians(random.uniform(-15, 15))
        crop = crop_face(
            frame, Alignment(0, float(center[0]), float(center[1]), zoom * width / 256, float(angle)), size
        )
        if random.random() < 0.5:
            crop = crop[:, ::-1]
        gain = random.uniform(0.45, 1.2) * random.uniform(0.9, 1.1, 3)
        light = 255.0 * np.clip(crop / 255.0 * gain, 0, 1) ** random.uniform(0.8, 1.25)
        yield np.ascontiguousarray(np.round(light), np.uint8)


def clip_faces(clip: str | os.PathLike[str], face_model: Path | None = None) -> Calibration:
    """The faces that are tracked in a clip (its first minute, five a second).

    Raises:
        InputError: there is no such file. When the crops are asked for: it cannot be read, or shows no face.
    """
    path = Path(clip)
    try:
        length = path.stat().st_size
        found = hashlib.sha256(str(length).encode())
        with path.open("rb") as stream:
            for start in sorted({0, length // 2, max(length - 2**20, 0)}):
                stream.seek(start)
                found.update(stream.read(2**20))
    except OSError as error:
        raise InputError(
            f"cannot read the clip to calibrate with, {path}: {error.strerror}", "give a video file"
        ) from error
    return Calibration(f"clip {found.hexdigest()}", lambda size: clip_crops(path, size, face_model))


def clip_crops(clip: Path, size: int, face_model: Path | None = None) -> np.ndarray:
    """The crops of `clip_faces`, uint8 N x size x size x 3 RGB, N from 1 to `COUNT`.

    Raises:
        InputError: the clip cannot be read, or shows no face.
    """
    from gnr_video.media.open import open_source
    from gnr_video.tracking.tracker import FaceTracker

    crops: list[Image] = []
    due = 0.0
    with open_source(clip) as source, FaceTracker(face_model) as tracker:
        for frame in source:
            if len(crops) >= COUNT or frame.pts_seconds > _AT_MOST_SECONDS:
                break
            if frame.pts_seconds < due:
                continue
            due = frame.pts_seconds + _EVERY_SECONDS
            faces = tracker.track(frame.image, frame.pts_seconds)
            crops += [crop_face(frame.image, fit_alignment(face), size) for face in faces[:1]]
    if not crops:
        raise InputError(f"no face was found in {clip} to calibrate with", "give a clip that shows one")
    return np.stack(crops)
