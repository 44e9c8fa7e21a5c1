"""The frame stream: decode -> track -> align -> cut -> draw -> compose -> write, each stage on its own thread.

Stages are generators; `channels.Threaded` runs one ahead of its consumer through a bounded channel, so that memory
stays flat however long the video is, and a failure or a cancellation anywhere ends all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gnr_video.channels import Threaded
from gnr_video.compositing.compositor import HEAD_MODES
from gnr_video.effects.dark_hair import DarkHair
from gnr_video.frame import Alignment, Bust, Frame, Image
from gnr_video.hold import Drawings
from gnr_video.machine import usable_cores
from gnr_video.tracking.alignment import crop_face, head_side, widened
from gnr_video.tracking.selection import Cast

if TYPE_CHECKING:
    from engines.base import Engine
    from gnr_video.compositing.compositor import Compositor
    from gnr_video.styles.schedule import StyleSchedule
    from gnr_video.timing import StageTimes
    from gnr_video.tracking.matte import PersonMatte
    from gnr_video.tracking.scene_cut import SceneCut
    from gnr_video.tracking.smoothing import Aligner
    from gnr_video.tracking.tracker import FaceTracker

READ_SECONDS = 1.0
"""How long a run that ends early waits for its source, which may be a pipe or a camera that says nothing."""


@dataclass(frozen=True)
class Tracked:
    """A frame, where its faces are, and the number that the style of each goes by."""

    frame: Frame
    alignments: list[Alignment] = field(default_factory=list)
    roles: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Cut:
    """A frame, its faces' source crops (uint8 S x S x 3), and those that the network is shown, in the order of
    `alignments`. With busts, crops and alignments are those of whole heads.
    """

    tracked: Tracked
    crops: list[Image] = field(default_factory=list)
    shown: list[Image] = field(default_factory=list)
    busts: list[Bust] = field(default_factory=list)


@dataclass(frozen=True)
class Translated:
    """A frame, its faces' source crops and translations (uint8 S x S x 3), in the order of `alignments`.

    Where there are busts, in the same order, crops and alignments are those of whole heads.
    """

    tracked: Tracked
    crops: list[Image]
    pictures: list[Image]
    busts: list[Bust] = field(default_factory=list)


@dataclass(frozen=True)
class Heads:
    """The matte of a run, what darkens hair, and the compositor, which decides whether they are of use just now."""

    matte: PersonMatte
    compositor: Compositor
    hair: DarkHair = field(default_factory=DarkHair)

    @property
    def wanted(self) -> bool:
        return self.compositor.mode in HEAD_MODES


@dataclass
class Counts:
    """What came through so far."""

    frames: int = 0
    faces: int = 0
    frames_without_face: int = 0


def decode(frames: Iterable[Frame], times: StageTimes) -> Generator[Frame, None, None]:
    """Take frames from the source, timed."""
    iterator = iter(frames)
    while True:
        with times.stage("decode"):
            frame = next(iterator, None)
        if frame is None:
            return
        yield frame


def track(
    frames: Iterable[Frame],
    tracker: FaceTracker,
    aligner: Aligner,
    cuts: SceneCut,
    times: StageTimes,
    cast: Cast | None = None,
) -> Generator[Tracked, None, None]:
    """Find the faces, choose, smooth their alignment. As many frames come out, `lookahead` frames later."""
    cast = cast or Cast()
    waiting: deque[Frame] = deque()

    def tracked(alignments: list[Alignment]) -> Tracked:
        return Tracked(waiting.popleft(), alignments, [cast.role(a.track_id) for a in alignments])

    for frame in frames:
        with times.stage("track"):
            cut = cuts.is_cut(frame.image)
            if cut:
                tracker.reset()
                cast.reset()
            faces = cast.choose(tracker.track(frame.image, frame.pts_seconds), frame.pts_seconds)
        waiting.append(frame)
        with times.stage("align"):
            ready = aligner.push(frame.pts_seconds, faces, cut=cut)
        for alignments in ready:
            yield tracked(alignments)
    for alignments in aligner.flush():
        yield tracked(alignments)


def cut(
    items: Iterable[Tracked], engine: Engine, times: StageTimes, *, grid: int = 0, heads: Heads | None = None
) -> Generator[Cut, None, None]:
    """Cut the faces out, or whole heads where they are pasted; see `translate`."""
    for item in items:
        if not item.alignments:
            yield Cut(item)
            continue
        side = engine.size
        matte = heads.matte if heads is not None and heads.wanted else None
        if matte is not None:
            item = replace(item, alignments=[widened(a) for a in item.alignments])
            side = head_side(side)
        chosen = item.alignments[:1] if grid else item.alignments
        with times.stage("crop"):
            crops = [crop_face(item.frame.image, a, side) for a in chosen]
        shown, busts = crops, []
        if heads is not None and matte is not None:
            with times.stage("matte"):
                busts = matte.busts(item.frame.image, chosen, item.frame.pts_seconds)
                if engine.takes_styles and not grid:
                    shown = heads.hair.apply(crops, chosen, busts)
        yield Cut(item, crops, shown, busts)


def draw(
    items: Iterable[Cut],
    engine: Engine,
    times: StageTimes,
    styles: StyleSchedule | None = None,
    *,
    start: float = 0.0,
    grid: int = 0,
    drawings: Drawings | None = None,
) -> Generator[Translated, None, None]:
    """Run the generator on what was cut out, all faces of a frame as one batch; see `translate`."""
    drawings = drawings or Drawings(engine, times)
    first: float | None = None
    for item in items:
        tracked = item.tracked
        seconds = tracked.frame.pts_seconds
        first = seconds if first is None else first
        seconds += start - first
        pictures: list[Image] = []
        if item.crops and grid and styles is not None:
            with times.stage("network"):
                content = engine.encode(item.shown[0][None])
                pictures = list(engine.decode_styles(content, styles.codes_at(seconds, range(grid))))
        elif item.crops:
            codes = None if styles is None else styles.codes_at(seconds, tracked.roles)
            ids = [a.track_id for a in tracked.alignments[: len(item.crops)]]
            pictures = drawings.of(item.shown, ids, codes)
        yield Translated(tracked, item.crops, pictures, item.busts)


def translate(
    items: Iterable[Tracked],
    engine: Engine,
    times: StageTimes,
    styles: StyleSchedule | None = None,
    *,
    start: float = 0.0,
    grid: int = 0,
    heads: Heads | None = None,
    drawings: Drawings | None = None,
) -> Generator[Translated, None, None]:
    """Cut the faces out and run the generator on them: `cut`, then `draw`.

    Args:
        styles: says which style each face has; None: the engine's own for all.
        start: the time of the first frame on the clock of `styles`, seconds.
        grid: so many styles of the first face alone, encoded once; 0: one style for each face.
        heads: takes in whole heads where they are pasted; None: faces only.
        drawings: how often faces are drawn, but for a grid; None: for every frame.
    """
    cuts = cut(items, engine, times, grid=grid, heads=heads)
    return draw(cuts, engine, times, styles, start=start, grid=grid, drawings=drawings)


def compose(
    items: Iterable[Translated], compositor: Compositor, times: StageTimes, counts: Counts
) -> Generator[Frame, None, None]:
    """Paste the translations back; time and index of the frames stay as they are."""
    for item in items:
        frame, alignments = item.tracked.frame, item.tracked.alignments
        with times.stage("compose"):
            # The pictures of a grid are all of one face.
            faces = (
                alignments if len(item.crops) == len(item.pictures) else alignments[:1] * len(item.pictures)
            )
            image = compositor.compose(frame.image, list(zip(faces, item.pictures)), item.crops, item.busts)
        counts.frames += 1
        counts.faces += len(item.crops)
        counts.frames_without_face += not alignments
        yield Frame(image, frame.pts, frame.time_base, frame.index, frame.props)


@contextmanager
def few_opencv_threads() -> Iterator[None]:
    """Leaves the cores to the stages: OpenCV's own threads spin while they wait for each other."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(max(usable_cores() // 4, 1))
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def run(
    source: Iterable[Frame],
    write: Callable[[Frame], None],
    *,
    tracker: FaceTracker,
    aligner: Aligner,
    cuts: SceneCut,
    engine: Engine,
    compositor: Compositor,
    times: StageTimes,
    cast: Cast | None = None,
    styles: StyleSchedule | None = None,
    start: float = 0.0,
    grid: int = 0,
    matte: PersonMatte | None = None,
    hold: int = 1,
    on_frame: Callable[[Counts], None] | None = None,
) -> Counts:
    """Send every frame of `source` through all stages to `write`, which is called on this thread, in order.

    Args:
        source: frames in presentation order.
        write: takes the finished frames.
        cast: which faces are translated; None: all that the tracker follows.
        styles, start, grid: see `translate`.
        matte: for whole heads; None: faces only.
        hold: frames that a drawing is shown for, see `gnr_video.hold`.
        on_frame: told after each frame what has come through.

    Returns:
        What came through.

    Raises:
        Whatever a stage raised. All threads have ended by then, save one that waits for a silent source.
    """
    counts = Counts()
    decoded = Threaded(decode(source, times), "decode")
    tracked = Threaded(track(decoded, tracker, aligner, cuts, times, cast), "track")
    heads = None if matte is None else Heads(matte, compositor)
    cut_out = Threaded(cut(tracked, engine, times, grid=grid, heads=heads), "cut")
    drawings = Drawings(engine, times, hold)
    translated = Threaded(
        draw(cut_out, engine, times, styles, start=start, grid=grid, drawings=drawings), "draw"
    )
    stages = (translated, cut_out, tracked, decoded)
    try:
        with few_opencv_threads():
            for frame in compose(translated, compositor, times, counts):
                with times.stage("encode"):
                    write(frame)
                if on_frame is not None:
                    on_frame(counts)
    finally:
        # All are told before any is waited for: a stage may itself be waiting for the one before it.
        for stage in stages:
            stage.cancel()
        for stage in stages[:-1]:
            stage.close()
        decoded.close(READ_SECONDS)
    return counts
