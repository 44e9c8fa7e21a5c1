"""Where to look for faces: parts of the picture, in turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gnr_video.frame import Image, Points
from gnr_video.tracking.boxes import (
    Box,
    Tile,
    around,
    shifted,
)

PROBE_SECONDS = 1.0

PROBES_PER_FRAME = 4

SEARCH_TILES = 2


@dataclass
class Search:
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
class Rounds:
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
