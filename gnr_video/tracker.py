"""Face tracking: a frame and its time go in, the faces' landmarks with stable identities come out.

The landmarks are those of MediaPipe's FaceLandmarker in VIDEO mode, one graph for each face. Identities are
this module's: faces are matched with the tracks of earlier frames by overlap and distance to where each was
heading (Hungarian assignment).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from gnr_video.frame import Face, Image, Points
from gnr_video.mediapipe_tasks import explained, import_mediapipe, quiet_stderr
from gnr_video.model_files import FACE_MODEL

Box = tuple[float, float, float, float]
"""(left, top, right, bottom), pixels."""

Tile = tuple[int, int, int, int]
"""(left, top, right, bottom) of a part of the picture, whole pixels."""

Appearance = NDArray[np.float32]
"""float32 6x6x3, 0..1."""

PROBE_SECONDS = 1.0
FORGET_SECONDS = 2.0
DUPLICATE_IOU = 0.6
NEW_IOU = 0.3
"""Overlap with a known face from which on a face found in a view is that one."""
PROBES_PER_FRAME = 4
COAST_SECONDS = 1.0
"""How long a face that is gone is taken to move on as it did."""
SETTLE_SECONDS = 0.1
"""Time constant of a face's velocity."""
APPEARANCE = 4.0
"""What a difference of all colours by their whole range counts in `match_cost`."""
STAY = 0.5
"""What it counts for an identity that the face's own graph has not lost it, in `match_cost`."""

CLOCK_SPEED = 5
"""How much faster than the video MediaPipe's clock runs.

Its One-Euro filter takes its cut-off from the speed per unit of time, and is tuned for a still picture: it
trails a moving face by 2.2 ms. On a faster clock the same filter is looser: 1 ms, and the error in fast
motion falls by 45 %. The jitter this lets through is better removed after the fit of the alignment, where
there are 4 numbers and not 478 points (benchmarks/tracking.py).
"""

SEARCH_TILES = 2
TAKE_OVER_IOU = 0.6
"""Least overlap of a face with itself in two views, for the tracker to stay on it."""


class FaceTracker:
    """Tracks the faces of one video. A context manager; one thread at a time.

    MediaPipe filters the landmarks itself only while it is asked for a single face, and runs its detector on
    every frame (with 35 times the jitter) while it is asked for more faces than there are. So each face has
    a graph of its own that is asked for one face, as many as there are faces, and further ones are looked
    for in separate views, in turn: those that show large faces once a second.

    MediaPipe's detector sees the whole picture in 128x128 pixels and is blind to a face that fills less than
    about a fifth of it. So parts of the picture (tiles) are searched too; a face found there is handed to
    its graph, which follows small faces well once it has them.

    Args:
        model: the model file; None has `FACE_MODEL` found or fetched.
        max_faces: how many faces to follow at most.

    Raises:
        FaceModelError: no model, no MediaPipe, or a system library that MediaPipe needs is missing.
    """

    def __init__(self, model: str | Path | None = None, *, max_faces: int = 1) -> None:
        if max_faces < 1:
            raise ValueError(f"max_faces must be at least 1, got {max_faces}")
        self.max_faces = max_faces
        self._model = FACE_MODEL.resolve(model)
        self._prober: _Landmarker | None = None
        self._closed = False
        self._identities = Identities()
        self._search = _Search()
        self._rounds = _Rounds()
        self._spare: list[_Follower] = []
        # The first one looks for its face by itself; the others are given theirs.
        self._followers = [_Follower(self._model)]

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
        clean = low_pass(image, self._known())
        for follower in self._followers:
            follower.follow(clean, time_seconds, _size(image))
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
        self._search = _Search()
        self._rounds = _Rounds()
        self._dismiss(self._followers[1:])
        self._followers[0].restart()

    def close(self) -> None:
        """Release MediaPipe's graphs; a second call does nothing."""
        self._closed = True
        graphs = [f.landmarker for f in (*self._followers, *self._spare)]
        graphs += [self._prober] if self._prober else []
        self._followers, self._spare, self._prober = [], [], None
        for graph in graphs:
            graph.close()

    def __enter__(self) -> FaceTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _probe(self, view: Image) -> list[Points]:
        """Landmarks of all faces in a picture by itself."""
        if self._prober is None:
            self._prober = _Landmarker(self._model, num_faces=self.max_faces, video=False)
        return self._prober.image(view)

    def _known(self) -> list[Box]:
        """Where the faces are that are followed."""
        return [f.box for f in self._followers if f.box is not None]

    def _settle(self) -> None:
        """One graph for each face: a graph that has lost its face is set aside.

        Two graphs on one face: one of them has slipped over from a face that is now hidden. That is the one
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

    def _dismiss(self, followers: Sequence[_Follower]) -> None:
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
        width, height = _size(image)
        # One that has left the picture comes back in its own time.
        lost = [b for b in lost if 0 <= b[0] + b[2] < 2 * width and 0 <= b[1] + b[3] < 2 * height]
        views: list[Tile] = [_around(box, width, height, 1.75) for box in lost[:1]]
        for left, top, right, bottom in views + self._rounds.due(time_seconds, width, height):
            boxes = [_moved(box, -left, -top) for box in self._known()]
            view = _without(boxes, image[top:bottom, left:right])
            for points in self._probe(view):
                box = _moved(_box(points), left, top)
                known = self._known()
                if len(known) < self.max_faces and all(iou(box, k) < NEW_IOU for k in known):
                    self._add(image, box)

    def _add(self, image: Image, box: Box) -> None:
        """Put a graph on a face that was found in a view."""
        follower = self._spare.pop() if self._spare else _Follower(self._model)
        follower.take_over(image, _around(box, image.shape[1], image.shape[0], 1.0), box)
        # It may have taken to a neighbour instead, or to none.
        if follower.box is None or iou(follower.box, box) < NEW_IOU:
            follower.restart()
            self._spare.append(follower)
        else:
            self._followers.append(follower)


class _Follower:
    """One MediaPipe graph and the face it is on.

    Attributes:
        points, box: the face in the last frame; None where it was not seen.
        track_id: who it was taken for in the last frame; None if it is new.
        surprise: `match_cost` of its box and the one that its motion had led to expect.
    """

    def __init__(self, model: Path) -> None:
        self.landmarker = _Landmarker(model, num_faces=1, video=True)
        self.clock = MillisecondClock(CLOCK_SPEED)
        self.points: Points | None = None
        self.box: Box | None = None
        self.track_id: int | None = None
        self.surprise = 0.0
        self._motion: _Track | None = None

    def follow(self, image: Image, time_seconds: float, size: tuple[int, int]) -> None:
        """Find the face in the next frame, of that size (width, height); `image` may be a smaller copy."""
        found = self.landmarker.video(image, self.clock.stamp(time_seconds), size)
        self._see(found, time_seconds)

    def take_over(self, image: Image, tile: Tile, box: Box) -> None:
        """Follow a face that the detector sees in a tile only.

        The graph is shown views that zoom out from the tile to the whole picture, so slowly that the face in
        one overlaps the face in the one before: then it is tracked and need not be detected.
        """
        found: list[Points] = []
        for left, top, right, bottom in zoom_out(tile, box, image.shape[1], image.shape[0]):
            self.clock.skip(33 * CLOCK_SPEED)
            found = self.landmarker.video(image[top:bottom, left:right], self.clock.tick())
            if not found:
                break
        self._motion = None
        self._see(found, None)

    def restart(self) -> None:
        """Forget the face."""
        self.landmarker.restart(self.clock)
        self.points = self.box = self.track_id = self._motion = None
        self.surprise = 0.0

    def _see(self, found: Sequence[Points], time_seconds: float | None) -> None:
        self.points = found[0] if found else None
        self.box = _box(found[0]) if found else None
        if self.box is None:
            self._motion = None
            self.track_id = None
        elif time_seconds is not None:
            if self._motion is None:
                self._motion, self.surprise = _Track(self.box, time_seconds), 0.0
            else:
                self.surprise = match_cost(self._motion.expected(time_seconds), self.box)
                self._motion.see(self.box, time_seconds)


class MillisecondClock:
    """Presentation times as the strictly increasing whole milliseconds that MediaPipe demands.

    Frames less than a millisecond apart and repeated times are spread one millisecond apart; a jump back (a
    seek, a stream that starts again) continues from where the clock stands.

    Args:
        speed: milliseconds on this clock for a millisecond of the video.
    """

    JUMP_MS = 500

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._offset: int | None = None
        self._last = 0

    def stamp(self, time_seconds: float) -> int:
        """Milliseconds for a frame shown at `time_seconds`: more than any before, at least 1."""
        milliseconds = round(time_seconds * 1000 * self.speed)
        if self._offset is None or milliseconds + self._offset < self._last - self.JUMP_MS * self.speed:
            self._offset = self._last + 1 - milliseconds
        self._last = max(milliseconds + self._offset, self._last + 1)
        return self._last

    def tick(self) -> int:
        """The next millisecond, for something that belongs to no frame."""
        self._last += 1
        return self._last

    def skip(self, milliseconds: int) -> None:
        """Let time pass that the video does not have; the frames to come move with it."""
        self._last += milliseconds
        if self._offset is not None:
            self._offset += milliseconds


@dataclass
class _Search:
    """Looks through tiles of a picture for a face: all of them at first, then a few in each frame."""

    tiles: list[Tile] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    position: int = 0
    last: Box | None = None

    def seen(self, boxes: Sequence[Box]) -> None:
        """Where faces are now: the place to look first when they are gone."""
        if boxes:
            self.last = boxes[0]

    def next(self, image: Image, probe: Callable[[Image], list[Points]]) -> tuple[Tile, Box] | None:
        """A tile of this frame with a face in it and the face's box, in pixels of the frame; or None."""
        height, width = image.shape[:2]
        chosen: list[Tile] = []
        if self.size != (width, height):
            self.size, self.tiles, self.position = (width, height), search_tiles(width, height), 0
            chosen = self.tiles
        else:
            if self.last is not None:
                chosen.append(_around(self.last, width, height, 1.75))
            while self.tiles and len(chosen) < SEARCH_TILES:
                chosen.append(self.tiles[self.position % len(self.tiles)])
                self.position += 1
        for tile in chosen:
            left, top, right, bottom = tile
            found = probe(image[top:bottom, left:right])
            if found:
                return tile, _moved(_box(found[0]), left, top)
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


def _around(box: Box, width: int, height: int, sides: float) -> Tile:
    """A square about a box, cut off at the picture's border; `sides`: half its side, in sides of the box."""
    half = sides * max(box[2] - box[0], box[3] - box[1])
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    left, top = min(max(int(x - half), 0), width - 1), min(max(int(y - half), 0), height - 1)
    return left, top, max(min(int(x + half), width), left + 1), max(min(int(y + half), height), top + 1)


def zoom_out(tile: Tile, box: Box, width: int, height: int) -> list[Tile]:
    """Views of a picture from a tile to the whole, in which a face moves little from one to the next.

    Args:
        tile: the first view.
        box: the face, in pixels of the picture.
        width, height: the picture's, in pixels; (0, 0, width, height) is the last view.
    """
    ends = np.array([tile, (0, 0, width, height)], np.float64)

    def view(share: float) -> Tile:
        left, top, right, bottom = (round(float(v)) for v in ends[0] + share * (ends[1] - ends[0]))
        return left, top, right, bottom

    def seen_in(t: Tile) -> Box:
        w, h = t[2] - t[0], t[3] - t[1]
        return (box[0] - t[0]) / w, (box[1] - t[1]) / h, (box[2] - t[0]) / w, (box[3] - t[1]) / h

    grid = [view(i / 64) for i in range(65)]
    views, at = [grid[0]], 0
    while at < 64:
        near = [i for i in range(at + 1, 65) if iou(seen_in(grid[at]), seen_in(grid[i])) >= TAKE_OVER_IOU]
        at = max(near, default=at + 1)
        views.append(grid[at])
    return views


@dataclass
class _Track:
    """Where a face was last, and how it moved."""

    box: Box
    seen_at: float
    velocity: tuple[float, float] = (0.0, 0.0)
    """Of its middle, pixels a second."""
    appearance: Appearance | None = None

    def expected(self, time_seconds: float) -> Box:
        """Where it is by now, if it has moved on as it did."""
        dt = min(max(time_seconds - self.seen_at, 0.0), COAST_SECONDS)
        return _moved(self.box, self.velocity[0] * dt, self.velocity[1] * dt)

    def see(self, box: Box, time_seconds: float) -> None:
        """Take in where it is now."""
        dt = time_seconds - self.seen_at
        if dt > 0:
            share = 1 - math.exp(-dt / SETTLE_SECONDS)
            moved = [(box[i] + box[i + 2] - self.box[i] - self.box[i + 2]) / 2 / dt for i in (0, 1)]
            vx, vy = (v + share * (m - v) for v, m in zip(self.velocity, moved))
            self.velocity = vx, vy
        self.box, self.seen_at = box, time_seconds


@dataclass
class Identities:
    """Gives the boxes of each frame the numbers they had before, and new numbers to new ones, left to right.

    A face that is gone keeps its number for `forget_seconds`: it is given back to one that appears near
    where the face was last seen, or where it was heading.
    """

    forget_seconds: float = FORGET_SECONDS
    _tracks: dict[int, _Track] = field(default_factory=dict)
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
            self._tracks[ids[row]] = _Track(boxes[row], time_seconds)
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


NO_MATCH = 1e6


def match_cost(a: Box, b: Box) -> float:
    """How unlike two boxes of the same face in neighbouring frames are: 1 - IoU + distance / size.

    `NO_MATCH` when they are further apart than their own size, or one is twice the other's size.
    """
    size_a, size_b = max(a[2] - a[0], a[3] - a[1]), max(b[2] - b[0], b[3] - b[1])
    size = max(size_a, size_b, 1e-6)
    distance = math.hypot(a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3]) / 2 / size
    if distance > 1.0 or min(size_a, size_b) < 0.5 * size:
        return NO_MATCH
    return 1.0 - iou(a, b) + distance


def appearance(image: Image, box: Box) -> Appearance:
    """A face as the mean colours of 6x6 parts of its box."""
    import cv2

    height, width = image.shape[:2]
    left, top = min(max(int(box[0]), 0), width - 1), min(max(int(box[1]), 0), height - 1)
    right, bottom = max(min(int(box[2]), width), left + 1), max(min(int(box[3]), height), top + 1)
    step = max(1, (bottom - top) // 64)
    small = cv2.resize(image[top:bottom:step, left:right:step], (6, 6), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / np.float32(255)


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


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


def _box(points: Points) -> Box:
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _moved(box: Box, dx: float, dy: float) -> Box:
    return box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy


def _without(boxes: Sequence[Box], view: Image) -> Image:
    """A copy of a view in which the faces in these boxes are grey: MediaPipe spends no landmarks on them then, which
    take most of its time.
    """
    view = view.copy()
    for box in boxes:
        left, top, right, bottom = (max(round(v), 0) for v in box)
        view[top:bottom, left:right] = 127
    return view


def _size(image: Image) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def low_pass(image: Image, boxes: Sequence[Box]) -> Image:
    """The picture as MediaPipe should sample it: smaller if all faces are large, blurred around each.

    MediaPipe samples 1.5 times the face's box at 256x256 points, bilinear and without a low-pass, so noise
    goes straight into the landmarks. A blur by one such sample takes off a fifth of their jitter.

    Returns:
        `image` itself or a copy, of the same aspect; a face in it at the same shares of width and height.
    """
    import cv2

    ratios = [1.5 * max(b[2] - b[0], b[3] - b[1]) / 256 for b in boxes]
    if max(ratios, default=0.0) < 0.6:
        return image
    shrink = max(1, int(min(ratios)))
    if shrink > 1:
        size = (math.ceil(image.shape[1] / shrink), math.ceil(image.shape[0] / shrink))
        clean = cast(Image, cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    else:
        clean = image.copy()
    for box, ratio in zip(boxes, ratios):
        sigma = min(ratio, max(0.0, 2 * (ratio - 0.5))) / shrink
        if sigma < 0.2:
            continue
        # A margin for the ground between the face's box, MediaPipe's region and the motion of one frame.
        left, top, right, bottom = _around(box, image.shape[1], image.shape[0], 1.1)
        part = clean[top // shrink : bottom // shrink + 1, left // shrink : right // shrink + 1]
        taps = 2 * math.ceil(2 * sigma) + 1
        part[...] = cv2.GaussianBlur(part, (taps, taps), sigma)
    return clean


class _Landmarker:
    """One MediaPipe graph, arrays in and arrays out."""

    def __init__(self, model: Path, *, num_faces: int, video: bool) -> None:
        vision, self._mediapipe = import_mediapipe()
        mode = vision.RunningMode.VIDEO if video else vision.RunningMode.IMAGE
        try:
            with quiet_stderr():
                options = vision.FaceLandmarkerOptions(
                    base_options=self._mediapipe.tasks.BaseOptions(model_asset_path=str(model)),
                    running_mode=mode,
                    num_faces=num_faces,
                )
                self._graph: Any = vision.FaceLandmarker.create_from_options(options)
        except (OSError, RuntimeError, ValueError) as error:
            raise explained(error) from error
        self._results = _ResultArrays.of(self._graph)

    def video(self, image: Image, milliseconds: int, size: tuple[int, int] | None = None) -> list[Points]:
        """Landmarks in pixels of a picture of that size (width, height), of which `image` may be a copy."""
        wrapped = self._wrap(image)
        if self._results is not None:
            faces = self._results.video(self._graph, wrapped, milliseconds)
        else:
            faces = self._arrays(self._graph.detect_for_video(wrapped, milliseconds))
        return _in_pixels(faces, size or _size(image))

    def image(self, image: Image) -> list[Points]:
        return _in_pixels(self._arrays(self._graph.detect(self._wrap(image))), _size(image))

    def restart(self, clock: MillisecondClock) -> None:
        # An empty picture loses the face, which clears the region of interest and the filter: 3 ms, where
        # building the graph anew takes 200.
        self.video(np.zeros((64, 64, 3), np.uint8), clock.tick())

    def close(self) -> None:
        self._graph.close()

    def _wrap(self, image: Image) -> Any:
        return self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image)
        )

    @staticmethod
    def _arrays(result: Any) -> list[Points]:
        return [np.array([(p.x, p.y, p.z) for p in face], np.float32) for face in result.face_landmarks]


def _in_pixels(faces: list[Points], size: tuple[int, int]) -> list[Points]:
    # z comes in the same scale as x: multiples of the picture's width.
    scale = np.array([size[0], size[1], size[0]], np.float32)
    return [face * scale for face in faces]


class _ResultArrays:
    """Reads landmarks out of the C result of MediaPipe's graph.

    Its Python layer makes an object of each of 478 landmarks, which takes 2 ms of every frame, while no other thread
    of Python's runs.
    """

    def __init__(self, result: Any, landmark: Any) -> None:
        self._result = result
        fields = ("x", "y", "z")
        self._landmark = np.dtype(
            {
                "names": fields,
                "formats": [np.float32] * 3,
                "offsets": [getattr(landmark, name).offset for name in fields],
                "itemsize": ctypes.sizeof(landmark),
            }
        )

    @classmethod
    def of(cls, graph: Any) -> _ResultArrays | None:
        """None where this version of MediaPipe is made otherwise."""
        try:
            from mediapipe.tasks.python.components.containers.landmark_c import NormalizedLandmarkC
            from mediapipe.tasks.python.vision.face_landmarker import FaceLandmarkerResultC

            for name in ("MpFaceLandmarkerDetectForVideo", "MpFaceLandmarkerCloseResult"):
                getattr(graph._lib, name)
            return cls(FaceLandmarkerResultC, NormalizedLandmarkC)
        except (ImportError, AttributeError):
            return None

    def video(self, graph: Any, image: Any, milliseconds: int) -> list[Points]:
        """`graph.detect_for_video`: float32 478x3 for each face, in shares of the picture."""
        result = self._result()
        graph._lib.MpFaceLandmarkerDetectForVideo(
            graph._handle, image._image_ptr, None, milliseconds, ctypes.byref(result)
        )
        try:
            return [self._points(result.face_landmarks[i]) for i in range(result.face_landmarks_count)]
        finally:
            graph._lib.MpFaceLandmarkerCloseResult(ctypes.byref(result))

    def _points(self, landmarks: Any) -> Points:
        data = ctypes.string_at(landmarks.landmarks, landmarks.landmarks_count * self._landmark.itemsize)
        points = np.frombuffer(data, self._landmark)
        return np.stack([points["x"], points["y"], points["z"]], axis=1)
