"""Face tracking: a frame and its time go in, the faces' landmarks with stable identities come out.

The landmarks are MediaPipe's, each face is followed by itself (`followers`). Identities are this module's: faces are
matched with the tracks of earlier frames by overlap and distance to where each was heading (Hungarian assignment).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from gnr_video.frame import Face, Image, Points
from gnr_video.tracking.boxes import (
    NO_MATCH,
    Appearance,
    Box,
    Tile,
    Track,
    around,
    box_of,
    iou,
    match_cost,
    moved,
    shifted,
    size_of,
)
from gnr_video.tracking.landmark_tracker import Follower, GraphFollower, NetworkFollower
from gnr_video.tracking.landmarker import Landmarker
from gnr_video.tracking.mediapipe_networks import try_landmarks
from gnr_video.tracking.model_files import FACE_MODEL

PROBE_SECONDS = 1.0
FORGET_SECONDS = 2.0
DUPLICATE_IOU = 0.6
NEW_IOU = 0.3
"""Overlap with a known face from which on a face found in a view is that one."""
PROBES_PER_FRAME = 4
APPEARANCE = 4.0
"""What a difference of all colours by their whole range counts in `match_cost`."""
STAY = 0.5
"""What it counts for an identity that its follower has not lost it, in `match_cost`."""
SEARCH_TILES = 2


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
        self._rounds = _Rounds()
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

    def reset(self) -> None:
        """Forget everything: a scene cut. Faces of the next frame get new identities."""
        self._identities.reset()
        self._search = self._new_search()
        self._rounds = _Rounds()
        self._dismiss(self._followers[1:])
        self._followers[0].restart()

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

    def _new_search(self) -> _Search:
        # A graph looks through the whole picture by itself.
        return _Search(whole=self._network is not None)

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


@dataclass
class _Search:
    """Looks through tiles of a picture for a face: all of them at first, then a few in each frame.

    Attributes:
        whole: the whole picture is looked at as well, every time, before the tiles.
    """

    whole: bool = False
    tiles: list[Tile] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    position: int = 0
    last: Box | None = None

    def seen(self, boxes: Sequence[Box]) -> None:
        """Where faces are now: the place to look first when they are gone."""
        if boxes:
            self.last = boxes[0]

    def next(self, image: Image, probe: Callable[[Image], list[Points]]) -> tuple[Tile, Points] | None:
        """A tile of this frame with a face in it and the face's landmarks, in pixels of the frame; or None."""
        height, width = image.shape[:2]
        chosen: list[Tile] = []
        if self.size != (width, height):
            self.size, self.tiles, self.position = (width, height), search_tiles(width, height), 0
            chosen = self.tiles
        else:
            if self.last is not None:
                chosen.append(around(self.last, width, height, 1.75))
            while self.tiles and len(chosen) < SEARCH_TILES:
                chosen.append(self.tiles[self.position % len(self.tiles)])
                self.position += 1
        if self.whole:
            chosen = [(0, 0, width, height), *chosen]
        for tile in chosen:
            left, top, right, bottom = tile
            found = probe(image[top:bottom, left:right])
            if found:
                return tile, shifted(found[0], left, top)
        return None


@dataclass
class _Rounds:
    """Where to look for further faces: everywhere at first, then view after view.

    Views for large faces (the whole picture and the larger tiles) have their turn once in `PROBE_SECONDS`.
    Between two of them comes one of the many small tiles.
    """

    size: tuple[int, int] = (0, 0)
    large: list[Tile] = field(default_factory=list)
    small: list[Tile] = field(default_factory=list)
    turn: int = 0
    time: float = 0.0

    def due(self, time_seconds: float, width: int, height: int) -> list[Tile]:
        """The views to look at in this frame, often none."""
        if self.size != (width, height):
            tiles = search_tiles(width, height)
            short = min(width, height)
            self.size, self.turn, self.time = (width, height), 0, time_seconds
            self.large = [(0, 0, width, height), *(t for t in tiles if t[2] - t[0] == short)]
            self.small = [t for t in tiles if t[2] - t[0] != short]
            return [*self.large, *self.small]
        interval = PROBE_SECONDS / (2 * len(self.large))
        if not self.time - PROBE_SECONDS <= time_seconds <= self.time + 2 * PROBE_SECONDS:
            self.time = time_seconds  # a jump
        views: list[Tile] = []
        while self.time + interval <= time_seconds and len(views) < PROBES_PER_FRAME:
            self.time += interval
            turn, kind = divmod(self.turn, 2)
            tiles = self.small if kind and self.small else self.large
            views.append(tiles[turn % len(tiles)])
            self.turn += 1
        return views


def search_tiles(width: int, height: int) -> list[Tile]:
    """Squares (left, top, right, bottom) that cover a picture, half overlapping, in two sizes.

    The sides are the picture's shorter side (unless that is nearly all of it) and half of that. Those
    nearest to where faces mostly are, the middle of the upper half, come first within a size.
    """
    short = min(width, height)
    tiles: list[Tile] = []
    for side in (short, short // 2):
        if side < 32 or max(width, height) < 1.2 * side:
            continue
        xs, ys = _starts(width, side), _starts(height, side)
        level = [(x, y, x + side, y + side) for y in ys for x in xs]
        tiles += sorted(
            level, key=lambda t: math.hypot((t[0] + t[2] - width) / 2, (t[1] + t[3]) / 2 - 0.4 * height)
        )
    return tiles


def _starts(length: int, side: int) -> list[int]:
    steps = math.ceil((length - side) / (side / 2))
    return [round(i * (length - side) / steps) for i in range(steps + 1)] if steps else [0]


@dataclass
class Identities:
    """Gives the boxes of each frame the numbers they had before, and new numbers to new ones, left to right.

    A face that is gone keeps its number for `forget_seconds`: it is given back to one that appears near
    where the face was last seen, or where it was heading.
    """

    forget_seconds: float = FORGET_SECONDS
    _tracks: dict[int, Track] = field(default_factory=dict)
    _next: int = 0

    def __len__(self) -> int:
        return len(self._tracks)

    def assign(
        self,
        boxes: Sequence[Box],
        time_seconds: float,
        before: Sequence[int | None] | None = None,
        looks: Sequence[Appearance] | None = None,
    ) -> list[int]:
        """One number for each box, in the same order, none twice.

        Args:
            before: the numbers that whatever follows the faces would give them: kept unless others fit better.
            looks: what is in the boxes, which tells people apart who meet.
        """
        self._forget(time_seconds)
        known = list(self._tracks)
        before = before or [None] * len(boxes)
        cost = np.full((len(boxes), len(known)), NO_MATCH)
        for i, (box, last_id) in enumerate(zip(boxes, before)):
            for j, track_id in enumerate(known):
                track = self._tracks[track_id]
                fit = min(match_cost(track.expected(time_seconds), box), match_cost(track.box, box))
                if fit < NO_MATCH:
                    fit -= STAY * (track_id == last_id)
                    if looks is not None and track.appearance is not None:
                        fit += APPEARANCE * float(np.abs(looks[i] - track.appearance).mean())
                cost[i, j] = fit
        ids = [-1] * len(boxes)
        for row, column in hungarian(cost):
            if cost[row, column] < NO_MATCH:
                ids[row] = known[column]
                self._tracks[ids[row]].see(boxes[row], time_seconds)
        for row in sorted((i for i, number in enumerate(ids) if number < 0), key=lambda i: boxes[i][0]):
            ids[row] = self._next
            self._next += 1
            self._tracks[ids[row]] = Track(boxes[row], time_seconds)
        for number, look in zip(ids, looks or ()):
            track = self._tracks[number]
            known_look = look if track.appearance is None else track.appearance
            track.appearance = known_look + np.float32(0.1) * (look - known_look)
        return ids

    def expected(self, time_seconds: float, besides: Sequence[int | None] = ()) -> list[Box]:
        """Where faces that are gone should be by now, the latest first."""
        self._forget(time_seconds)
        gone = [t for k, t in self._tracks.items() if k not in besides]
        return [t.expected(time_seconds) for t in sorted(gone, key=lambda t: -t.seen_at)]

    def _forget(self, time_seconds: float) -> None:
        self._tracks = {
            k: t for k, t in self._tracks.items() if abs(time_seconds - t.seen_at) <= self.forget_seconds
        }

    def reset(self) -> None:
        """No face of the past is any face of the future."""
        self._tracks.clear()


def appearance(image: Image, box: Box) -> Appearance:
    """A face as the mean colours of 6x6 parts of its box."""
    import cv2

    height, width = image.shape[:2]
    left, top = min(max(int(box[0]), 0), width - 1), min(max(int(box[1]), 0), height - 1)
    right, bottom = max(min(int(box[2]), width), left + 1), max(min(int(box[3]), height), top + 1)
    step = max(1, (bottom - top) // 64)
    small = cv2.resize(image[top:bottom:step, left:right:step], (6, 6), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / np.float32(255)


def hungarian(cost: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Assignment of rows to columns with the least total cost, min(rows, columns) pairs.

    Kuhn-Munkres with potentials and shortest augmenting paths, O(n^3) (Jonker and Volgenant, 1987).

    Args:
        cost: float64 rows x columns, finite.
    """
    if cost.size == 0:
        return []
    if cost.shape[0] > cost.shape[1]:
        return sorted((row, column) for column, row in hungarian(cost.T))
    rows, columns = cost.shape
    u, v = np.zeros(rows + 1), np.zeros(columns + 1)
    # Column 0 and row 0 are a dummy pair where each augmenting path starts.
    row_of = np.zeros(columns + 1, dtype=int)
    for row in range(1, rows + 1):
        row_of[0] = row
        column = 0
        shortest = np.full(columns + 1, np.inf)
        before = np.zeros(columns + 1, dtype=int)
        done = np.zeros(columns + 1, dtype=bool)
        while row_of[column]:
            done[column] = True
            i = row_of[column]
            reduced = cost[i - 1] - u[i] - v[1:]
            better = ~done[1:] & (reduced < shortest[1:])
            shortest[1:][better] = reduced[better]
            before[1:][better] = column
            following = 1 + int(np.argmin(np.where(done[1:], np.inf, shortest[1:])))
            delta = shortest[following]
            u[row_of[done]] += delta
            v[done] -= delta
            shortest[~done] -= delta
            column = following
        while column:
            row_of[column] = row_of[before[column]]
            column = before[column]
    return sorted((int(row_of[column]) - 1, column - 1) for column in range(1, columns + 1) if row_of[column])


def _without(boxes: Sequence[Box], view: Image) -> Image:
    """A copy of a view in which the faces in these boxes are grey: MediaPipe spends no landmarks on them then, which
    take most of its time.
    """
    view = view.copy()
    for box in boxes:
        left, top, right, bottom = (max(round(v), 0) for v in box)
        view[top:bottom, left:right] = 127
    return view
