"""People in whom no face was found: where their heads are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gnr_video.frame import Alignment, Image
from gnr_video.tracking.heads import HIGH, SHOULDERS, WIDE, apart, bare_heads, inside
from gnr_video.tracking.likeness import Likeness
from gnr_video.tracking.matte import PersonMatte

SIDE = 256
"""Of the picture that people are looked for in, pixels: the network's own."""
ASK_SECONDS, MOVING_SECONDS, COMING_SECONDS = 0.5, 0.2, 0.05
"""How often people are looked for besides those who are known: where nothing changes, everything does, and a part."""
EVERYWHERE = 0.3
"""Share of a picture that has changed when the camera moves."""
LINGER_SECONDS, SURE_TIMES = 0.5, 3
"""For so long one is believed in who is no longer found but was so often, while there still is what was there."""
LOOK = 180.0
"""Side of what a head is recognised by, pixels of its face's 256 crop."""
STILL = 0.3
"""Half widths of a head by which an outline moves by itself."""
CHANGED = 10
"""Grey levels by which a part of the picture has changed."""
THUMBNAIL = (64, 36)


@dataclass(frozen=True, eq=False)
class UnfoundHead:
    """A head without a face.

    Attributes:
        place: the alignment that a face in it would have.
        likeness: what it looked like.
        found_at, times: when it was found last, seconds, and how often.
    """

    place: Alignment
    likeness: Likeness
    found_at: float
    times: int

    @property
    def is_sure(self) -> bool:
        """Whether it was found again and again."""
        return self.times >= SURE_TIMES


class Unfound:
    """Heads without a face in one video.

    Args:
        matte: says where people are. It stays the caller's.
    """

    def __init__(self, matte: PersonMatte) -> None:
        self._matte = matte
        self.reset()

    def reset(self) -> None:
        """The next frame is of another scene."""
        self._heads: list[UnfoundHead] = []
        self._asked: NDArray[np.uint8] | None = None
        self._asked_at = -math.inf

    def state(self) -> tuple[Any, ...]:
        """What is known of the frames before, for `restore`."""
        return list(self._heads), self._asked, self._asked_at

    def restore(self, state: tuple[Any, ...]) -> None:
        """Go on from there."""
        self._heads, self._asked, self._asked_at = state

    def heads(self, image: Image, seconds: float, known: Sequence[Alignment]) -> list[UnfoundHead]:
        """Where they are in the next frame.

        Args:
            image: uint8 HxWx3 RGB.
            seconds: its time.
            known: the alignments of faces that are in it.
        """
        thumbnail = _thumbnail(image)
        changed = self._changed(thumbnail, image, known)
        # A camera that moves changes everything; somebody who comes does not.
        pause = ASK_SECONDS
        if changed:
            pause = (MOVING_SECONDS if changed > EVERYWHERE else COMING_SECONDS) if known else 0.0
        if seconds - self._asked_at >= pause:
            self._asked, self._asked_at = thumbnail, seconds
            small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            matte = self._matte.person(np.asarray(small, np.uint8))
            found = bare_heads(matte, (image.shape[1], image.shape[0]), known)
            self._heads = [*self._again(found, image, seconds), *self._still(found, image, seconds)]
        self._heads = [
            head
            for head in self._heads
            if not any(inside(head.place, k) or inside(k, head.place) for k in known)
        ]
        return list(self._heads)

    def _again(self, found: Sequence[Alignment], image: Image, seconds: float) -> list[UnfoundHead]:
        """Those that were found; one that has hardly moved is half way from where it was."""
        heads = []
        for place in found:
            before = next((one for one in self._heads if inside(one.place, place)), None)
            last = None if before is None else before.place
            if last is not None and apart(last, place) < STILL:
                place = replace(
                    place,
                    center_x=(place.center_x + last.center_x) / 2,
                    center_y=(place.center_y + last.center_y) / 2,
                    scale=max(place.scale, (place.scale + last.scale) / 2),
                )
            likeness = Likeness.of(image, place.center_x, place.center_y, LOOK * place.scale)
            heads.append(UnfoundHead(place, likeness, seconds, 1 if before is None else before.times + 1))
        return heads

    def _still(self, found: Sequence[Alignment], image: Image, seconds: float) -> list[UnfoundHead]:
        """Those that were not, but look as they did."""
        heads = []
        for head in self._heads:
            place = head.place
            is_old = seconds - head.found_at > LINGER_SECONDS or not head.is_sure
            if is_old or any(inside(place, one) for one in found):
                continue
            match = head.likeness.find(image, place.center_x, place.center_y)
            if match.is_like:
                heads.append(replace(head, place=replace(place, center_x=match.x, center_y=match.y)))
        return heads

    def _changed(self, thumbnail: NDArray[np.uint8], image: Image, known: Sequence[Alignment]) -> float:
        """How much has, besides the people who are known, since people were looked for: a share of the picture."""
        if self._asked is None:
            return 1.0
        changed = np.asarray((cv2.absdiff(thumbnail, self._asked) > CHANGED) * 255, np.uint8)
        across, down = THUMBNAIL[0] / image.shape[1], THUMBNAIL[1] / image.shape[0]
        for face in known:
            x, y = face.center_x * across, face.center_y * down
            wide, high = SHOULDERS * WIDE * face.scale * across, 1.6 * HIGH * face.scale * down
            corners = (round(x - wide), round(y - high)), (round(x + wide), THUMBNAIL[1])
            cv2.rectangle(changed, *corners, 0, -1)
        count = cv2.countNonZero(changed)
        return count / changed.size if count > 1 else 0.0


def _thumbnail(image: Image) -> NDArray[np.uint8]:
    few = cv2.resize(image, (4 * THUMBNAIL[0], 4 * THUMBNAIL[1]), interpolation=cv2.INTER_NEAREST)
    small = cv2.resize(few, THUMBNAIL, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
