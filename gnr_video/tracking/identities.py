"""Who is who: faces get the numbers that they had in earlier frames.

They are matched with the tracks of those by overlap and distance to where each was heading (Hungarian assignment).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gnr_video.frame import Image
from gnr_video.tracking.boxes import (
    NO_MATCH,
    Appearance,
    Box,
    Track,
    match_cost,
)

FORGET_SECONDS = 2.0

APPEARANCE = 4.0
"""What a difference of all colours by their whole range counts in `match_cost`."""
STAY = 0.5
"""What it counts for an identity that its follower has not lost it, in `match_cost`."""


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
