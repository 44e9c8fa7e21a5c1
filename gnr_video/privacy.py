"""Privacy: no frame goes on with a bare face, once a session or a video has begun.

It stands between the tracker and the drawing, and says of each frame what keeps its last drawing, what is covered, and
whether all of it is blurred. A face that is lost is where its likeness is, else where the outline of the person moves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gnr_video.compositing.cover import colors_of, cover_of, least_mask
from gnr_video.frame import Alignment, Bust, Cover, FaceLayer, Image, Layered
from gnr_video.timing import StageTimes
from gnr_video.tracking.alignment import BUST, bust, crop_face, widened
from gnr_video.tracking.face_mesh import Mask
from gnr_video.tracking.heads import WIDE, HeadPlace, apart, head_place, inside, is_behind, presence
from gnr_video.tracking.likeness import VISIBLE, Likeness
from gnr_video.tracking.matte import PersonMatte
from gnr_video.tracking.unfound import Unfound

LOST, LOST_LONG, NOT_FOUND, NOT_CHOSEN, BEGINNING, ASKED = (
    "lost",
    "lost for long",
    "not found",
    "not chosen",
    "beginning",
    "asked",
)
REASONS = {
    LOST: "a face was lost: its last drawing",
    LOST_LONG: "a face was lost for more than a second: a cover",
    NOT_FOUND: "a person without a face that was found: a cover",
    NOT_CHOSEN: "a face that was not chosen: a cover",
    BEGINNING: "faces were still being looked for: blurred whole",
    ASKED: "covered by the user",
}
"""Why a frame was covered, and how."""

HELD_SECONDS = 1.0
"""For so long a lost face keeps its last drawing."""
BLIND_SECONDS = 5.0
"""For so long it is covered where nothing says whether there is a person."""
UNSEEN_SECONDS = 0.5
"""For so long it is remembered while there is nothing to be seen where it should be, as in a blink to black."""
SETTLE_SECONDS = 0.5
"""For so long pictures are blurred where nobody is found."""
JUMP_SECONDS = 2.0
"""Frames so far apart have nothing to do with each other."""

COAST_SECONDS = 0.3
"""Time constant by which the motion of a lost face dies away."""
VELOCITY_SECONDS = 0.1
"""Time constant of a face's velocity."""
LOOK = 150.0
"""Side of what a face is recognised by, pixels of its 256 crop."""
AROUND, SAME_AROUND = 2.4, 0.6
"""Side of a bust in that of its face, and the correlation from which on it is the same, whatever is before the face."""
PRESENT = 0.3
"""Share of a face's place that is a person, if there is one."""
BESIDE = 3.0
"""Half widths of a head that an outline may be away from a lost one, to be its own."""
USUAL_PLACE = HeadPlace(BUST / 2, 29.0)
"""Of an outline in its bust."""
TURN_SECONDS = 2.0
"""Time constant of a head's size: a face that turns away becomes narrow, its head does not."""
FOLLOWED, FASTEST = 0.6, 8.0
"""How far a cover goes where the outline went, and how fast at most, half widths of a head a second."""


def reasons(item: Layered) -> set[str]:
    """Why a frame was covered, of `REASONS`."""
    found = {item.blurred, *(cover.why for cover in item.covers)} - {""}
    return found | ({LOST} if any(face.held for face in item.faces) else set())


@dataclass(eq=False)
class KnownHead:
    """A head that was seen, and may be lost.

    Attributes:
        alignment: of its face's crop, where it is now.
        role, chosen: the face's.
        image: the frame in which it was seen last; None when all of it is known that is needed.
        since, seen_at, time: when it was seen first and last, and when it was looked at last, seconds.
        velocity: of its middle, pixels a second.
        scale: of its alignment when its face was turned to the camera.
        looks: what face and bust looked like in that; made when it is lost.
        anchor: where its outline was in its bust when it was seen.
        unseen: for how long there has been nothing to be seen where it should be, seconds.
        brightness: of it now, in that of when it was seen.
        is_like: whether its likeness is where it should be.
        is_moved: whether its outline was found elsewhere, so that it no longer looks as it did.
    """

    alignment: Alignment
    role: int
    chosen: bool
    image: Image | None
    since: float
    seen_at: float
    time: float
    velocity: NDArray[np.float64]
    scale: float
    looks: tuple[Likeness, Likeness] | None = None
    anchor: HeadPlace | None = None
    unseen: float = 0.0
    brightness: float = 1.0
    is_like: bool = False
    is_moved: bool = False

    def move(self, dx: float, dy: float) -> None:
        place = self.alignment
        self.alignment = replace(place, center_x=place.center_x + dx, center_y=place.center_y + dy)

    def is_outside(self, size: tuple[int, int]) -> bool:
        """Whether no more of the face is in a frame of (width, height) `size`."""
        x, y, half = self.alignment.center_x, self.alignment.center_y, LOOK / 2 * self.alignment.scale
        across = min(x + half, size[0]) - max(x - half, 0)
        down = min(y + half, size[1]) - max(y - half, 0)
        return across < 0.1 * half or down < 0.1 * half


class Privacy:
    """What is bare in one video, and what is done about it. To be closed.

    Args:
        matte: says where people are; None: only faces that were found are known.
        blurs: the first frames, and those after a cut, are blurred whole until faces have been looked for.
    """

    def __init__(self, matte: PersonMatte | None, *, blurs: bool = False) -> None:
        self._matte = matte
        self._unfound = None if matte is None else Unfound(matte)
        self._blurs = blurs
        self._kept: dict[int, tuple[Image, Bust | None]] = {}
        self._heads: dict[int, KnownHead] = {}
        self._begun: float | None = None
        self._last: float | None = None
        self._forget()

    def reset(self) -> None:
        """The next frame is of another video."""
        self._forget()
        self._kept = {}
        self._last = None

    def close(self) -> None:
        """Free what looks for people. May be called twice."""
        if self._matte is not None:
            self._matte.close()

    def guard(self, items: Iterable[Layered], times: StageTimes) -> Iterator[Layered]:
        """Frames with the faces that were found in them become frames with all that is to be drawn or covered."""
        for item in items:
            item.frame.note("seen", self._state)
            with times.stage("private"):
                guarded = self._guarded(item)
            yield guarded

    def drawn(self, item: Layered) -> Layered:
        """A frame whose faces were drawn; those that are held get their last drawing, or a cover if there is none."""
        item.frame.note("kept", self._kept.copy)
        before, self._kept = self._kept, {}
        faces, covers = [], []
        for face in item.faces:
            track_id = face.alignment.track_id
            if face.held:
                kept = before.get(track_id)
                if kept is None:
                    covers.append(cover_of(face, LOST))
                    continue
                self._kept[track_id] = kept
                face.drawing, face.bust = dimmed(kept[0], face.held), kept[1]
                if face.bust is not None:
                    face.alignment = widened(face.alignment)
                    face.bust = replace(face.bust, alignment=bust(face.alignment))
            elif face.drawing is not None:
                self._kept[track_id] = face.drawing, face.bust
            face.least = least_mask(face)
            faces.append(face)
        for cover in item.covers:
            kept = before.get(cover.alignment.track_id)
            if kept is not None:
                self._kept[cover.alignment.track_id] = kept
                cover = replace(cover, colors=colors_of(kept[0]))
            covers.append(cover)
        return replace(item, faces=faces, covers=covers)

    def _state(self) -> dict[str, Any]:
        """What `guard` knows of the frames before."""
        return {
            "heads": {track_id: copy(self._remembered(head)) for track_id, head in self._heads.items()},
            "unfound": None if self._unfound is None else self._unfound.state(),
            "others": (self._begun, self._is_settled, self._last),
        }

    def restore(self, seen: dict[str, Any] | None, kept: dict[int, tuple[Image, Bust | None]] | None) -> None:
        """Go on from what was written down as "seen" and "kept" with a frame (`Frame.note`)."""
        if seen is not None:
            self._heads = {track_id: copy(head) for track_id, head in seen["heads"].items()}
            if self._unfound is not None and seen["unfound"] is not None:
                self._unfound.restore(seen["unfound"])
            self._begun, self._is_settled, self._last = seen["others"]
        if kept is not None:
            self._kept = dict(kept)

    # -- what is bare

    def _forget(self) -> None:
        """A new scene."""
        self._heads = {}
        if self._unfound is not None:
            self._unfound.reset()
        self._begun, self._is_settled = None, False

    def _guarded(self, item: Layered) -> Layered:
        image, seconds = item.frame.image, item.frame.pts_seconds
        is_jump = self._last is not None and not 0 <= seconds - self._last <= JUMP_SECONDS
        self._last = seconds
        if item.scene == "cut" or is_jump:
            self._forget()
        if item.scene == "flat":  # nobody can be seen; who was there may be again
            self._is_settled, self._begun = False, None
            return replace(item, faces=[])
        for face in item.faces:
            self._see(face, image, seconds)
        seen = [face.alignment for face in item.faces]
        lost = self._lost(image, seconds, seen)
        unfound = self._without_face(image, seconds, seen, lost)
        faces = [face for face in item.faces if face.chosen]
        covers = [Cover(face.alignment, NOT_CHOSEN) for face in item.faces if not face.chosen]
        for head in lost:
            is_short = seconds - head.seen_at <= HELD_SECONDS
            if head.chosen and is_short:
                held = max(head.brightness, 0.05)
                faces.append(FaceLayer(head.alignment, head.role, seconds, held=held))
            # One that is hidden behind somebody else must not be drawn over them.
            elif head.is_like or not any(is_behind(head.alignment, other) for other in seen):
                covers.append(Cover(head.alignment, LOST_LONG if head.chosen else NOT_CHOSEN))
        covers += [Cover(place, NOT_FOUND) for place in unfound]
        is_settled = not self._blurs or self._settled(seconds, is_found=bool(seen) and not unfound)
        return replace(item, faces=faces, covers=covers, blurred="" if is_settled else BEGINNING)

    def _without_face(
        self, image: Image, seconds: float, seen: Sequence[Alignment], lost: Sequence[KnownHead]
    ) -> list[Alignment]:
        """Heads besides those that are seen or lost. One right beside a lost head is that one: it has moved."""
        if self._unfound is None:
            return []
        known = [*seen, *(head.alignment for head in lost)]
        others = []
        for found in self._unfound.heads(image, seconds, known):
            place = found.place
            near = (
                head
                for head in lost
                if apart(head.alignment, place) < BESIDE and 0.5 < place.scale / head.alignment.scale < 1.8
            )
            own = min(near, key=lambda head: apart(head.alignment, place), default=None)
            if own is None or not found.is_sure:
                others.append(place)
            else:
                own.move(place.center_x - own.alignment.center_x, place.center_y - own.alignment.center_y)
                own.velocity, own.anchor, own.is_moved = np.zeros(2), USUAL_PLACE, True
        return others

    def _settled(self, seconds: float, *, is_found: bool) -> bool:
        """Whether faces have been looked for long enough."""
        if self._begun is None:
            self._begun = seconds
        self._is_settled |= is_found or seconds - self._begun >= SETTLE_SECONDS
        return self._is_settled

    def _see(self, face: FaceLayer, image: Image, seconds: float) -> None:
        """A face that was found."""
        place = face.alignment
        head = self._heads.get(place.track_id)
        velocity, since, scale = np.zeros(2), seconds, place.scale
        if head is not None:
            since, dt = head.since, seconds - head.seen_at
            scale = max(place.scale, min(head.scale, 1.5 * place.scale) * math.exp(-dt / TURN_SECONDS))
            if dt > 0 and head.seen_at == head.time:
                last = head.alignment
                moved = np.array([place.center_x - last.center_x, place.center_y - last.center_y])
                share = 1 - math.exp(-dt / VELOCITY_SECONDS)
                velocity = head.velocity + share * (moved / dt - head.velocity)
        self._heads[place.track_id] = KnownHead(
            place, face.role, face.chosen, image, since, seconds, seconds, velocity, scale
        )

    def _lost(self, image: Image, seconds: float, seen: Sequence[Alignment]) -> list[KnownHead]:
        """Heads that are not seen in this frame but are there, moved to where they are by now."""
        present = {place.track_id for place in seen}
        found = []
        for track_id, head in list(self._heads.items()):
            if track_id in present:
                continue
            # Somebody who was found after it was lost, at its place, is the same person.
            again = any(
                self._heads[s.track_id].since > head.seen_at and inside(head.alignment, s) for s in seen
            )
            is_there = None if again else self._follow(head, image, seconds)
            if is_there is None:
                del self._heads[track_id]
            elif is_there:
                found.append(head)
        return found

    def _follow(self, head: KnownHead, image: Image, seconds: float) -> bool | None:
        """Move a lost head on: whether it is there and can be seen; None: it has gone."""
        dt = seconds - head.time
        head.time = seconds
        self._remembered(head)
        assert head.looks is not None
        likeness, bust_likeness = head.looks
        velocity = head.velocity
        head.alignment = replace(head.alignment, scale=head.scale)
        head.move(float(velocity[0]) * dt, float(velocity[1]) * dt)
        head.velocity = velocity * math.exp(-dt / COAST_SECONDS)
        match = likeness.find(image, head.alignment.center_x, head.alignment.center_y)
        head.is_like = match.is_like and not head.is_moved
        if head.is_like:
            head.move(match.x - head.alignment.center_x, match.y - head.alignment.center_y)
            head.brightness = min(match.brightness / max(likeness.brightness, 1.0), 1.0)
        else:
            around = bust_likeness.find(image, head.alignment.center_x, head.alignment.center_y, 0.25)
            if around.contrast < VISIBLE:
                head.unseen += dt
                return None if head.unseen > UNSEEN_SECONDS else False
            if around.is_like and not head.is_moved:
                head.move(around.x - head.alignment.center_x, around.y - head.alignment.center_y)
            elif not self._is_person(head, image, dt, seconds):
                return None
        head.unseen = 0.0
        return None if head.is_outside((image.shape[1], image.shape[0])) else True

    def _is_person(self, head: KnownHead, image: Image, dt: float, seconds: float) -> bool:
        """Whether somebody is where a lost head should be; it follows their outline."""
        if self._matte is None:
            return seconds - head.seen_at <= BLIND_SECONDS
        matte = self._outline(image, head.alignment)
        if presence(matte) < PRESENT:
            return False
        place = head_place(matte)
        if head.anchor is not None and place is not None:
            shoulders = bust(widened(head.alignment))
            unit = shoulders.scale * 256 / BUST
            # A face that turns away goes to one side of its head; its drawing should not.
            dx, dy = (FOLLOWED * unit * d for d in (place.x - BUST / 2, place.top - head.anchor.top))
            c, s = math.cos(shoulders.angle), math.sin(shoulders.angle)
            most = FASTEST * WIDE * head.alignment.scale * dt
            head.move(*(min(max(d, -most), most) for d in (c * dx - s * dy, s * dx + c * dy)))
        return True

    def _remembered(self, head: KnownHead) -> KnownHead:
        """A head whose frame is no longer needed."""
        if head.image is not None:
            head.looks = _looks(head.image, head.alignment)
            if self._matte is not None:
                head.anchor = head_place(self._outline(head.image, head.alignment))
            head.image = None
        return head

    def _outline(self, image: Image, face: Alignment) -> Mask:
        assert self._matte is not None
        return self._matte.person(crop_face(image, bust(widened(face)), BUST, mirror=False))


def _looks(image: Image, face: Alignment) -> tuple[Likeness, Likeness]:
    """What a face and its bust look like."""
    x, y, side = face.center_x, face.center_y, LOOK * face.scale
    return Likeness.of(image, x, y, side), Likeness.of(image, x, y, AROUND * side, SAME_AROUND)


def dimmed(drawing: Image, brightness: float) -> Image:
    """A drawing, so much darker; another array where it is."""
    return (
        drawing if brightness >= 1 else np.asarray(cv2.convertScaleAbs(drawing, alpha=brightness), np.uint8)
    )
