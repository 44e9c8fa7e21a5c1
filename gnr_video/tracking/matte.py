"""Where the person is around a face: with it the whole head becomes anime, hair included.

The generator is convolutional, so it may see more than the crop that it was trained on (`alignment.widened`); there the
hair goes on. What of that is head and what background, MediaPipe's person segmentation says.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelFileError
from gnr_video.frame import Alignment, Bust, Image
from gnr_video.tracking.alignment import BUST, bust, crop_face
from gnr_video.tracking.face_mesh import Mask
from gnr_video.tracking.mediapipe_networks import PersonNetwork, try_person
from gnr_video.tracking.mediapipe_tasks import explained, import_mediapipe, quiet_stderr
from gnr_video.tracking.model_files import PERSON_MODEL

log = logging.getLogger(__name__)

REFRESH_SECONDS = 0.05
"""A bust is cut and its matte made when the last is so old: every second frame at 30 a second. Little moves faster,
seen from the head."""
STEADY_SECONDS = 0.05
"""Time constant of a matte: hair at the edge of what the network is sure of would flicker."""
SURE = (0.15, 0.85)
"""Confidences that count as background and as person; a straight line lies between them."""


class PersonMatte:
    """Soft outlines of the people in the crops of one video. A context manager; one thread at a time.

    Args:
        model: selfie_segmentation.tflite; None finds or fetches it.
        graph: have MediaPipe run it even where OpenVINO could.

    Raises:
        ModelFileError: no model, or MediaPipe does not start.
    """

    def __init__(self, model: str | Path | None = None, *, graph: bool = False) -> None:
        path = PERSON_MODEL.resolve(model)
        self._network: PersonNetwork | _Graph | None = None if graph else try_person(path)
        self._network = self._network or _Graph(path)
        self._before: dict[int, tuple[float, NDArray[np.float32]]] = {}
        self._busts: dict[int, Bust] = {}

    def busts(self, image: Image, heads: Sequence[Alignment], seconds: float) -> list[Bust]:
        """Head and shoulders of the people in one frame.

        Args:
            image: uint8 HxWx3 RGB.
            heads: where their heads' crops lie (`alignment.widened`).
            seconds: the frame's time.

        Returns:
            In the order of `heads`, with pictures and mattes of `align.BUST` pixels.
        """
        places = [bust(head) for head in heads]
        ids = [place.track_id for place in places]
        known = [self._busts[one] for one in ids if one in self._busts]
        if len(known) < len(ids) or not all(0 < seconds - one.seconds < REFRESH_SECONDS for one in known):
            pictures = [crop_face(image, place, BUST) for place in places]
            mattes = self.mattes(pictures, ids, seconds)
            parts = zip(places, pictures, mattes, strict=True)
            made = [Bust(place, picture, matte, seconds) for place, picture, matte in parts]
            self._busts = dict(zip(ids, made, strict=True))
        return [replace(self._busts[place.track_id], alignment=place) for place in places]

    def state(self) -> tuple[Any, ...]:
        """Mattes and busts of the frames before, for `restore`."""
        return dict(self._before), dict(self._busts)

    def restore(self, state: tuple[Any, ...]) -> None:
        """Go on from there."""
        self._before, self._busts = state

    def mattes(self, crops: Sequence[Image], ids: Sequence[int], seconds: float) -> list[Mask]:
        """Mattes of the crops of one frame, each steadied by what it was before.

        Args:
            crops: uint8 SxSx3 RGB.
            ids: whose they are; an id that a frame does not have begins anew in the next.
            seconds: the frame's time.

        Returns:
            uint8 SxS each, 255 = person.
        """
        if self._network is None:
            raise RuntimeError("the matte is closed")
        now: dict[int, tuple[float, NDArray[np.float32]]] = {}
        for crop, one in zip(crops, ids, strict=True):
            matte = _sure(self._network(crop))
            then, before = self._before.get(one, (seconds, matte))
            if before.shape == matte.shape and seconds > then:
                kept = math.exp(-(seconds - then) / STEADY_SECONDS)
                matte = np.asarray(cv2.addWeighted(before, kept, matte, 1.0 - kept, 0.0), np.float32)
            now[one] = seconds, matte
        self._before = now
        return [np.asarray(cv2.convertScaleAbs(matte, alpha=255.0), np.uint8) for _, matte in now.values()]

    def person(self, crop: Image) -> Mask:
        """The matte of one crop (uint8 SxSx3 RGB) by itself: uint8 SxS, 255 = person."""
        if self._network is None:
            raise RuntimeError("the matte is closed")
        return np.asarray(cv2.convertScaleAbs(_sure(self._network(crop)), alpha=255.0), np.uint8)

    def reset(self) -> None:
        """Forget the frames before."""
        self._before, self._busts = {}, {}

    def close(self) -> None:
        """Free the network. May be called twice."""
        self.reset()
        network, self._network = self._network, None
        if isinstance(network, _Graph):
            network.close()

    def __enter__(self) -> PersonMatte:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _sure(person: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the network is sure of, between 0 and 1, with soft edges."""
    matte = np.clip((person - SURE[0]) / (SURE[1] - SURE[0]), 0.0, 1.0)
    return np.asarray(cv2.GaussianBlur(matte, (0, 0), len(person) / 128), np.float32)


class _Graph:
    """MediaPipe's own graph around the network."""

    def __init__(self, model: Path) -> None:
        vision, self._mediapipe = import_mediapipe()
        options = vision.ImageSegmenterOptions(
            base_options=self._mediapipe.tasks.BaseOptions(model_asset_path=str(model)),
            output_confidence_masks=True,
            output_category_mask=False,
        )
        try:
            with quiet_stderr():
                self._segmenter: Any = vision.ImageSegmenter.create_from_options(options)
        except (RuntimeError, ValueError, OSError) as error:
            raise explained(error, "'s image segmenter") from error

    def __call__(self, crop: Image) -> NDArray[np.float32]:
        """float32 SxS, 0..1: how likely each pixel of a crop shows a person."""
        picture = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(crop)
        )
        person: NDArray[np.float32] = self._segmenter.segment(picture).confidence_masks[0].numpy_view()
        return person.reshape(crop.shape[:2])

    def close(self) -> None:
        self._segmenter.close()


_gave_up = False


def try_matte() -> PersonMatte | None:
    """A matte where it can be had; else None, and a warning. A download that failed is not tried again."""
    global _gave_up
    if _gave_up:
        return None
    try:
        return PersonMatte()
    except ModelFileError as error:
        _gave_up = PERSON_MODEL.variable not in os.environ
        log.warning("hair stays human: %s", error)
        return None
