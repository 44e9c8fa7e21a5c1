"""Following one face from frame to frame: by MediaPipe's landmark network, or by a whole graph of MediaPipe's.

The network is MediaPipe's own either way. Where OpenVINO runs it, what the graph does around it is done here, and the
network is shown where the face should be by now, not where it was: its landmarks are drawn towards the middle of what
it sees. So a face that moves is followed more closely, and in half the time (benchmarks/tracking.py).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from gnr_video.frame import Alignment, Image, Points
from gnr_video.tracking.alignment import crop_face
from gnr_video.tracking.boxes import Box, Tile, Track, around, box_of, iou, match_cost, size_of
from gnr_video.tracking.landmarker import Landmarker, MillisecondClock
from gnr_video.tracking.mediapipe_networks import NETWORK_SIDE, LandmarkNetwork

CLOCK_SPEED = 5
"""How much faster than the video MediaPipe's clock runs.

Its One-Euro filter takes its cut-off from the speed per unit of time, and is tuned for a still picture: it
trails a moving face by 2.2 ms. On a faster clock the same filter is looser: 1 ms, and the error in fast
motion falls by 45 %. The jitter this lets through is better removed after the fit of the alignment, where
there are 4 numbers and not 478 points (benchmarks/tracking.py).
"""

TAKE_OVER_IOU = 0.6
"""Least overlap of a face with itself in two views, for MediaPipe's graph to stay on it."""

REGION = 1.5
"""Side of the square that the network is shown, in sides of the landmarks' box; MediaPipe's."""
EYES = (33, 263)
"""The outer corners of the eyes: the region is turned until they are level."""
PRESENT = 0.5
"""How sure the network has to be that the face is still there; MediaPipe's."""
LOOKS, SURE = 4, 0.9
"""How often it looks at a face that is new to it, and how sure it has to be each time."""
BLUR = 1.2
"""Sigma of the Gaussian by which a region is blurred, in its pixels; less where a small face is enlarged in it. Without
it noise goes straight into the landmarks."""
REGION_SECONDS = 0.05
"""Time constant of a region's velocity."""
LOOK_AHEAD_SECONDS = 0.1
"""A region is moved on by at most so much of its motion."""
MIN_CUTOFF, SPEED_CUTOFF, VELOCITY_CUTOFF = 0.25, 53.0, 5.0
"""Of the One-Euro filter of the landmarks: hertz, hertz per side of the face a second, hertz. What MediaPipe's filter
has on a clock of `CLOCK_SPEED`."""


class Follower(ABC):
    """What follows one face.

    Attributes:
        points, box: the face in the last frame; None where it was not seen.
        track_id: who it was taken for in the last frame; None if it is new.
        surprise: `match_cost` of its box and the one that its motion had led to expect.
    """

    def __init__(self) -> None:
        self.points: Points | None = None
        self.box: Box | None = None
        self.track_id: int | None = None
        self.surprise = 0.0
        self._motion: Track | None = None

    @abstractmethod
    def follow(self, image: Image, time_seconds: float) -> None:
        """Find the face in the next frame."""

    @abstractmethod
    def take_over(self, image: Image, tile: Tile, points: Points) -> None:
        """Follow a face that was found in a tile of this frame; `points` are its landmarks in the frame's pixels."""

    def restart(self) -> None:
        """Forget the face."""
        self.points = self.box = self.track_id = self._motion = None
        self.surprise = 0.0

    def state(self) -> dict[str, Any]:
        """What it knows of its face, for `restore`."""
        motion = copy(self._motion)
        return {"points": self.points, "id": self.track_id, "surprise": self.surprise, "motion": motion}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what another has known of a face."""
        self.restart()
        self.points, self.track_id, self.surprise = state["points"], state["id"], state["surprise"]
        self.box = None if self.points is None else box_of(self.points)
        self._motion = copy(state["motion"])

    def close(self) -> None:  # noqa: B027
        """Release what it holds; most hold nothing."""

    def _see(self, points: Points | None, time_seconds: float | None) -> None:
        self.points = points
        self.box = None if points is None else box_of(points)
        if self.box is None:
            self._motion = None
            self.track_id = None
        elif time_seconds is not None:
            if self._motion is None:
                self._motion, self.surprise = Track(self.box, time_seconds), 0.0
            else:
                self.surprise = match_cost(self._motion.expected(time_seconds), self.box)
                self._motion.see(self.box, time_seconds)


class GraphFollower(Follower):
    """A MediaPipe graph in VIDEO mode that is asked for one face. It finds a large face by itself, too."""

    def __init__(self, model: Path) -> None:
        super().__init__()
        self.landmarker = Landmarker(model, num_faces=1, video=True)
        self.clock = MillisecondClock(CLOCK_SPEED)
        self._is_restored = False

    def follow(self, image: Image, time_seconds: float) -> None:
        if self._is_restored and self.points is not None and self.box is not None:
            # A graph's own memory cannot be written down.
            self._is_restored = False
            self.take_over(image, around(self.box, *size_of(image), 1.0), self.points)
            return
        clean = low_pass(image, self.box)
        found = self.landmarker.video(clean, self.clock.stamp(time_seconds), size_of(image))
        self._see(found[0] if found else None, time_seconds)

    def take_over(self, image: Image, tile: Tile, points: Points) -> None:
        # Views zoom out from the tile to the whole picture, so slowly that the face in one overlaps the face in the
        # one before: then it is tracked and need not be detected.
        found: list[Points] = []
        for left, top, right, bottom in zoom_out(tile, box_of(points), image.shape[1], image.shape[0]):
            self.clock.skip(33 * CLOCK_SPEED)
            found = self.landmarker.video(image[top:bottom, left:right], self.clock.tick())
            if not found:
                break
        self._motion = None
        self._see(found[0] if found else None, None)

    def restart(self) -> None:
        self.landmarker.restart(self.clock)
        self._is_restored = False
        super().restart()

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._is_restored = True

    def close(self) -> None:
        self.landmarker.close()


class NetworkFollower(Follower):
    """MediaPipe's landmark network without its graph. It is given its face, and given it anew when it was lost."""

    def __init__(self, network: LandmarkNetwork) -> None:
        super().__init__()
        self._network = network
        self._filter = OneEuro()
        self._region: Region | None = None

    def follow(self, image: Image, time_seconds: float) -> None:
        if self.points is None:
            return
        if self._region is None:
            self._region = Region(self.points, time_seconds)
        found = self._look(image, self._region.expected(time_seconds), PRESENT)
        if found is not None:
            found = self._filter(found, time_seconds)
            self._region.see(found, time_seconds)
        self._see(found, time_seconds)

    def take_over(self, image: Image, tile: Tile, points: Points) -> None:
        # What a detector takes for a face in a fold or a badge is none at the second or third look.
        self.restart()
        found: Points | None = points
        for _ in range(LOOKS):
            if found is not None:
                found = self._look(image, region_of(found), SURE)
        self._see(found, None)

    def restart(self) -> None:
        super().restart()
        self._filter, self._region = OneEuro(), None

    def state(self) -> dict[str, Any]:
        region = None if self._region is None else self._region.motion
        return {**super().state(), "filter": self._filter.motion, "region": region}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        if self.points is not None:
            self._filter = OneEuro(self.points, state.get("filter"))
            if (motion := state.get("region")) is not None:
                self._region = Region(self.points, *motion)

    def _look(self, image: Image, region: Vector, sure: float) -> Points | None:
        """The landmarks of the face in a region; None where the network is less sure than that of a face there."""
        x, y, log_side, angle = (float(v) for v in region)
        scale = math.exp(log_side) / NETWORK_SIDE
        along, across = scale * math.cos(angle), scale * math.sin(angle)
        turned = np.array([[along, -across], [across, along]], np.float32)
        # Landmarks have 0 at a pixel's edge, alignments at its middle.
        dx, dy = turned.sum(1) / 2 - 0.5
        place = Alignment(0, x + float(dx), y + float(dy), scale, angle)
        # Not mirrored beyond the frame's border: a face that leaves would be followed into its own mirror image.
        crop = _blurred(
            crop_face(image, place, NETWORK_SIDE, mirror=False), BLUR * min(1.0, 2 * (scale - 0.5))
        )
        points, presence = self._network(crop)
        if presence < sure:
            return None
        in_frame = points * np.float32(scale)
        in_frame[:, :2] = (points[:, :2] - NETWORK_SIDE / 2) @ turned.T + np.array([x, y], np.float32)
        return in_frame


Vector = NDArray[np.float64]
"""A region: its middle's x and y, ln of its side, its angle; pixels and radians."""


def region_of(points: Points) -> Vector:
    """The region around a face's landmarks that the network is to be shown."""
    left, top, right, bottom = box_of(points)
    across = points[EYES[1]] - points[EYES[0]]
    side = REGION * max(right - left, bottom - top, 1.0)
    return np.array(
        [
            (left + right) / 2,
            (top + bottom) / 2,
            math.log(side),
            math.atan2(float(across[1]), float(across[0])),
        ]
    )


class Region:
    """Where the region of one face was last, and how it moves."""

    def __init__(self, points: Points, time_seconds: float, velocity: Vector | None = None) -> None:
        self._last, self._seen_at = region_of(points), time_seconds
        self._velocity = np.zeros(4) if velocity is None else velocity.copy()

    @property
    def motion(self) -> tuple[float, Vector]:
        """What must be known of it besides the landmarks: when they were seen, and its velocity."""
        return self._seen_at, self._velocity.copy()

    def expected(self, time_seconds: float) -> Vector:
        """Where it should be by now."""
        dt = min(max(time_seconds - self._seen_at, 0.0), LOOK_AHEAD_SECONDS)
        return self._last + dt * self._velocity

    def see(self, points: Points, time_seconds: float) -> None:
        """Take in where the face is now."""
        here, dt = region_of(points), time_seconds - self._seen_at
        moved = here - self._last
        moved[3] = math.remainder(moved[3], 2 * math.pi)
        if dt > 0:
            self._velocity += (1 - math.exp(-dt / REGION_SECONDS)) * (moved / dt - self._velocity)
        self._last, self._seen_at = here, time_seconds


class OneEuro:
    """A low-pass that lets through what is fast (Casiez et al. 2012), for each coordinate of a face's landmarks.

    Args:
        last, motion: what another has given last, and its `motion`, to go on from there.
    """

    def __init__(self, last: Points | None = None, motion: tuple[Points, float] | None = None) -> None:
        self._speed: Points | None = None
        self._time = 0.0
        if motion is not None:
            self._speed, self._time = motion
        self._last = None if motion is None else last

    @property
    def motion(self) -> tuple[Points, float] | None:
        """What must be known of it besides its last landmarks: their speed and their time; None: it has had none."""
        return None if self._speed is None else (self._speed, self._time)

    def __call__(self, points: Points, time_seconds: float) -> Points:
        """The landmarks (float32 478x3), filtered."""
        if self._last is None or self._speed is None:
            self._last, self._speed, self._time = points, np.zeros_like(points), time_seconds
            return points
        # A time that stands still or runs back counts as the least step there is.
        dt = max(time_seconds - self._time, 1e-3)
        left, top, right, bottom = box_of(points)
        moved = (points - self._last) / (dt * max((right - left + bottom - top) / 2, 1.0))
        self._speed = self._speed + _share(VELOCITY_CUTOFF, dt) * (moved - self._speed)
        share = _share(MIN_CUTOFF + SPEED_CUTOFF * np.abs(self._speed), dt)
        self._last, self._time = self._last + share * (points - self._last), time_seconds
        return self._last


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


def low_pass(image: Image, box: Box | None) -> Image:
    """The picture as MediaPipe's graph should sample it: smaller if the face is large, blurred around it.

    MediaPipe samples 1.5 times the face's box at 256x256 points, bilinear and without a low-pass, so noise
    goes straight into the landmarks. A blur by one such sample takes off a fifth of their jitter.

    Returns:
        `image` itself or a copy, of the same aspect; a face in it at the same shares of width and height.
    """
    import cv2

    ratio = REGION * max(box[2] - box[0], box[3] - box[1]) / 256 if box else 0.0
    if box is None or ratio < 0.6:
        return image
    shrink = max(1, int(ratio))
    if shrink > 1:
        size = (math.ceil(image.shape[1] / shrink), math.ceil(image.shape[0] / shrink))
        clean = cast(Image, cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    else:
        clean = image.copy()
    # A margin for the ground between the face's box, MediaPipe's region and the motion of one frame.
    left, top, right, bottom = around(box, image.shape[1], image.shape[0], 1.1)
    part = clean[top // shrink : bottom // shrink + 1, left // shrink : right // shrink + 1]
    part[...] = _blurred(part, min(ratio, 2 * (ratio - 0.5)) / shrink)
    return clean


def _blurred(image: Image, sigma: float) -> Image:
    """By a Gaussian; by less than a fifth of a pixel not at all."""
    import cv2

    if sigma < 0.2:
        return image
    taps = 2 * math.ceil(2 * sigma) + 1
    return cast(Image, cv2.GaussianBlur(image, (taps, taps), sigma))


def _share(cutoff: Any, dt: float) -> Any:
    """How far a low-pass of that cut-off (hertz; a number or an array) goes to what is new after `dt` seconds."""
    return 1.0 / (1.0 + 1.0 / (2.0 * math.pi * cutoff * dt))
