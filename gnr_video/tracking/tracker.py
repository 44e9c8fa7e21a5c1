"""Face tracking: a frame and its time go in, the faces' landmarks with stable identities come out.

The landmarks are MediaPipe's, each face is followed by itself (`landmark_tracker`). Where faces are looked for says
`search`, and who is who `identities`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from engines.errors import InputError
from gnr_video.frame import Face, Image, Points
from gnr_video.tracking.boxes import (
    Box,
    Tile,
    around,
    box_of,
    iou,
    moved,
    shifted,
    size_of,
)
from gnr_video.tracking.identities import Identities, appearance
from gnr_video.tracking.landmark_tracker import Follower, GraphFollower, NetworkFollower
from gnr_video.tracking.landmarker import Landmarker
from gnr_video.tracking.mediapipe_networks import try_landmarks
from gnr_video.tracking.model_files import FACE_MODEL
from gnr_video.tracking.search import Rounds, Search

DUPLICATE_IOU = 0.6
NEW_IOU = 0.3
"""Overlap with a known face from which on a face found in a view is that one."""


def no_face() -> InputError:
    """What is raised for a picture without one."""
    return InputError("no face was found in the picture", "use one where a face is larger and looks ahead")


class FaceTracker:
    """Tracks the faces of one video. A context manager; one thread at a time.

    Faces are found by MediaPipe's FaceLandmarker in single views. They are followed by the landmark network alone where
    OpenVINO runs it, else by a graph for each face: MediaPipe filters landmarks only while it is asked for a single
    face, and runs its detector on every frame (with 35 times the jitter) while it is asked for more faces than there
    are. Further faces are looked for in separate views, in turn: those that show large faces once a second.

    MediaPipe's detector sees the whole picture in 128x128 pixels and is blind to a face that fills less than
    about a fifth of it. So parts of the picture (tiles) are searched too; small faces are followed well once found.

    Args:
        model: the model file; None has `FACE_MODEL` found or fetched.
        max_faces: how many faces to follow at most.
        graphs: follow faces by MediaPipe's graphs even where OpenVINO could.

    Raises:
        FaceModelError: no model, no MediaPipe, or a system library that MediaPipe needs is missing.
    """

    def __init__(self, model: str | Path | None = None, *, max_faces: int = 1, graphs: bool = False) -> None:
        if max_faces < 1:
            raise ValueError(f"max_faces must be at least 1, got {max_faces}")
        self.max_faces = max_faces
        self._model = FACE_MODEL.resolve(model)
        self._network = None if graphs else try_landmarks(self._model)
        self._prober: Landmarker | None = None
        self._closed = False
        self._identities = Identities()
        self._rounds = Rounds()
        self._spare: list[Follower] = []
        self._followers = [self._follower()]
        self._search = self._new_search()
        if self._network:
            self._probe_graph()  # what is missing or broken is said at once

    @property
    def graphs(self) -> bool:
        """Whether MediaPipe's graphs follow the faces, and not its network by itself."""
        return self._network is None

    def track(self, image: Image, time_seconds: float) -> list[Face]:
        """Find the faces of the next frame.

        Args:
            image: uint8 HxWx3 RGB, upright.
            time_seconds: its presentation time. Times should increase; one that does not is moved on by a
                millisecond, the finest step MediaPipe knows.

        Returns:
            The faces, in the order of their `track_id`; landmarks float32 478x3 in pixels of `image`. Empty
            when there is none.
        """
        if self._closed:
            raise RuntimeError("the face tracker is closed")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image must be uint8 HxWx3, got {image.dtype} {image.shape}")
        if not math.isfinite(time_seconds):
            raise ValueError(f"time_seconds must be finite, got {time_seconds}")
        for follower in self._followers:
            follower.follow(image, time_seconds)
        self._settle()
        first = self._followers[0]
        if first.box is None and (place := self._search.next(image, self._probe)) is not None:
            first.take_over(image, *place)
        if self.max_faces > 1 and first.box is not None:
            self._look_for_more(image, time_seconds)
        seen = [f for f in self._followers if f.box is not None and f.points is not None]
        boxes = [f.box for f in seen if f.box is not None]
        self._search.seen(boxes)
        looks = (
            [appearance(image, box) for box in boxes] if len(self._identities) > 1 or len(boxes) > 1 else None
        )
        ids = self._identities.assign(boxes, time_seconds, [f.track_id for f in seen], looks)
        faces = []
        for follower, track_id in zip(seen, ids):
            follower.track_id = track_id
            assert follower.points is not None
            faces.append(Face(track_id, follower.points))
        return sorted(faces, key=lambda face: face.track_id)

    def trace_back(self, face: Face, frames: Iterable[tuple[Image, float]]) -> list[Face]:
        """A face that has just been found, followed backwards for as long as it can be seen.

        Args:
            frames: the frames before, the newest first: pictures as for `track`, and their times.

        Returns:
            The face in those, the newest first; nothing where MediaPipe's graphs follow faces, which only go forwards.
        """
        if self._network is None:
            return []
        follower, traced = NetworkFollower(self._network), []
        follower.points = face.landmarks
        for image, time_seconds in frames:
            follower.follow(image, -time_seconds)
            if follower.points is None:
                break
            traced.append(Face(face.track_id, follower.points))
        return traced

    def reset(self) -> None:
        """Forget everything: a scene cut. Faces of the next frame get new identities."""
        self._identities.reset()
        self._search = self._new_search()
        self._rounds = Rounds()
        self._dismiss(self._followers[1:])
        self._followers[0].restart()

    def state(self) -> dict[str, Any]:
        """Who is where, where to look next, and what each follower knows, for `restore`."""
        return {
            "identities": deepcopy(self._identities),
            "rounds": deepcopy(self._rounds),
            "search": deepcopy(self._search),
            "followers": [follower.state() for follower in self._followers],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from where another tracker was before the next frame: exactly, where the network follows faces."""
        self.reset()
        self._identities, self._rounds = deepcopy(state["identities"]), deepcopy(state["rounds"])
        self._search = deepcopy(state["search"])
        self._search.whole = self._network is not None
        for number, known in enumerate(state["followers"]):
            if number:
                self._followers.append(self._spare.pop() if self._spare else self._follower())
            self._followers[-1].restore(known)

    def close(self) -> None:
        """Release MediaPipe's graphs; a second call does nothing."""
        self._closed = True
        for follower in (*self._followers, *self._spare):
            follower.close()
        if self._prober is not None:
            self._prober.close()
        self._followers, self._spare, self._prober = [], [], None

    def __enter__(self) -> FaceTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _follower(self) -> Follower:
        return NetworkFollower(self._network) if self._network else GraphFollower(self._model)

    def _new_search(self) -> Search:
        # A graph looks through the whole picture by itself.
        return Search(whole=self._network is not None)

    def _probe(self, view: Image) -> list[Points]:
        """Landmarks of all faces in a picture by itself."""
        return self._probe_graph().image(view)

    def _probe_graph(self) -> Landmarker:
        if self._prober is None:
            self._prober = Landmarker(self._model, num_faces=self.max_faces, video=False)
        return self._prober

    def _known(self) -> list[Box]:
        """Where the faces are that are followed."""
        return [f.box for f in self._followers if f.box is not None]

    def _settle(self) -> None:
        """One follower for each face: one that has lost its face is set aside.

        Two on one face: one of them has slipped over from a face that is now hidden. That is the one
        that is farther from where its own face was heading.
        """
        followers = self._followers
        lost = [f for f in followers if f.box is None]
        for i, one in enumerate(followers):
            for other in followers[i + 1 :]:
                if one.box is None or other.box is None or iou(one.box, other.box) < DUPLICATE_IOU:
                    continue
                slipped = max((one, other), key=lambda f: f.surprise)
                if slipped not in lost:
                    lost.append(slipped)
        if len(lost) == len(followers):
            lost = lost[1:]
        self._dismiss(lost)

    def _dismiss(self, followers: Sequence[Follower]) -> None:
        for follower in followers:
            follower.restart()
        self._followers = [f for f in self._followers if f not in followers]
        self._spare += followers

    def _look_for_more(self, image: Image, time_seconds: float) -> None:
        """Where faces were lost, in every frame; everywhere else in turns."""
        if len(self._followers) >= self.max_faces:
            return
        present = [f.track_id for f in self._followers]
        lost = self._identities.expected(time_seconds, besides=present)
        width, height = size_of(image)
        # One that has left the picture comes back in its own time.
        lost = [b for b in lost if 0 <= b[0] + b[2] < 2 * width and 0 <= b[1] + b[3] < 2 * height]
        views: list[Tile] = [around(box, width, height, 1.75) for box in lost[:1]]
        for left, top, right, bottom in views + self._rounds.due(time_seconds, width, height):
            boxes = [moved(box, -left, -top) for box in self._known()]
            view = _without(boxes, image[top:bottom, left:right])
            for points in self._probe(view):
                points = shifted(points, left, top)
                known = self._known()
                if len(known) < self.max_faces and all(iou(box_of(points), k) < NEW_IOU for k in known):
                    self._add(image, points)

    def _add(self, image: Image, points: Points) -> None:
        """Put a follower on a face that was found in a view."""
        follower = self._spare.pop() if self._spare else self._follower()
        box = box_of(points)
        follower.take_over(image, around(box, *size_of(image), 1.0), points)
        # It may have taken to a neighbour instead, or to none.
        if follower.box is None or iou(follower.box, box) < NEW_IOU:
            follower.restart()
            self._spare.append(follower)
        else:
            self._followers.append(follower)


def _without(boxes: Sequence[Box], view: Image) -> Image:
    """A copy of a view in which the faces in these boxes are grey: MediaPipe spends no landmarks on them then, which
    take most of its time.
    """
    view = view.copy()
    for box in boxes:
        left, top, right, bottom = (max(round(v), 0) for v in box)
        view[top:bottom, left:right] = 127
    return view
