"""The frame stream: decode -> track -> align -> cut -> draw -> compose -> write, each stage on its own thread.

Stages are generators; `channels.Threaded` runs one ahead of its consumer through a bounded channel, so that memory
stays flat however long the video is, and a failure or a cancellation anywhere ends all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gnr_video.channels import Threaded
from gnr_video.compositing.compositor import HEAD_MODES
from gnr_video.compositing.cover import finish, hidden, opaque_under
from gnr_video.frame import Frame, Layered
from gnr_video.hold import Drawings
from gnr_video.machine import usable_cores
from gnr_video.media.transparency import opaque
from gnr_video.privacy import Privacy, reasons
from gnr_video.tracking.alignment import crop_face, head_side, widened

if TYPE_CHECKING:
    from engines.base import Engine
    from gnr_video.compositing.background import Background
    from gnr_video.compositing.compositor import Compositor
    from gnr_video.effects.chain import Effects
    from gnr_video.styles.schedule import StyleSchedule
    from gnr_video.timing import StageTimes
    from gnr_video.tracking.finder import Finder
    from gnr_video.tracking.matte import PersonMatte

READ_SECONDS = 1.0
"""How long a run that ends early waits for its source, which may be a pipe or a camera that says nothing."""


@dataclass(frozen=True)
class Look:
    """What makes a face a drawing, and a drawing part of the frame, in one video. To be closed.

    Attributes:
        engine: draws.
        compositor: pastes; its mode decides whether whole heads are cut out.
        effects: between the two.
        matte: for whole heads; None: faces only.
        background: what is behind people gives way to it; None: it is kept.
        grid: so many styles of the first face alone, encoded once; 0: one style for each face.
        privacy: sees to it that no face is bare; None: nobody does.
    """

    engine: Engine
    compositor: Compositor
    effects: Effects
    matte: PersonMatte | None = None
    background: Background | None = None
    grid: int = 0
    privacy: Privacy | None = None

    def reset(self) -> None:
        """The next frame is of another video."""
        for part in (self.compositor, self.effects, self.matte, self.background, self.privacy):
            if part is not None:
                part.reset()

    def state_of_cut(self) -> dict[str, Any]:
        """What is known of the frames before in the stage `cut`, for `restore`."""
        known: dict[str, Any] = {"effects": self.effects.known("cut")}
        return known if self.matte is None else {**known, "matte": self.matte.state()}

    def state_of_compose(self) -> dict[str, Any]:
        """The same of the stage `compose`."""
        known = {"effects": self.effects.known("compose"), "compositor": self.compositor.state()}
        return known if self.background is None else {**known, "background": self.background.state()}

    def restore(self, states: Mapping[str, Any]) -> None:
        """Go on from there."""
        for name, state in states.items():
            part = getattr(self, name)
            if part is not None:
                part.restore(state)

    def close(self) -> None:
        """Free what looks for people. May be called twice."""
        for part in (self.matte, self.background, self.privacy):
            if part is not None:
                part.close()


@dataclass
class Counts:
    """What came through so far.

    Attributes:
        covered: frames that were covered, by reason (`gnr_video.privacy.REASONS`); a frame may have several.
    """

    frames: int = 0
    faces: int = 0
    frames_without_face: int = 0
    covered: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.frames + other.frames,
            self.faces + other.faces,
            self.frames_without_face + other.frames_without_face,
            _summed(self.covered, other.covered, 1),
        )

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            self.frames - other.frames,
            self.faces - other.faces,
            self.frames_without_face - other.frames_without_face,
            _summed(self.covered, other.covered, -1),
        )

    def add(self, frame: Layered) -> None:
        self.frames += 1
        self.faces += len({face.alignment.track_id for face in frame.faces})
        self.frames_without_face += not frame.faces
        self.cover(*reasons(frame))

    def cover(self, *why: str) -> None:
        """A frame was covered, for these reasons."""
        self.covered = _summed(self.covered, dict.fromkeys(why, 1), 1)


def _summed(one: Mapping[str, int], other: Mapping[str, int], sign: int) -> dict[str, int]:
    sums = {reason: one.get(reason, 0) + sign * other.get(reason, 0) for reason in {**one, **other}}
    return {reason: count for reason, count in sums.items() if count}


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
    frames: Iterable[Frame], finder: Finder, look: Look, times: StageTimes
) -> Generator[Layered, None, None]:
    """Find the faces; in private, what else is to be drawn or covered."""
    found = finder.track(frames, times)
    yield from found if look.privacy is None else look.privacy.guard(found, times)


def cut(items: Iterable[Layered], look: Look, times: StageTimes) -> Generator[Layered, None, None]:
    """Cut the faces out, or whole heads where they are pasted: crops, busts, and what the network is shown."""
    for item in items:
        image, seconds = item.frame.image, item.frame.pts_seconds
        item.frame.note("cut", look.state_of_cut)
        faces = [face for face in item.faces if not face.held][:1] if look.grid else item.faces
        matte = look.matte if look.compositor.mode in HEAD_MODES else None
        side = look.engine.size if matte is None else head_side(look.engine.size)
        new = [face for face in faces if not face.held]
        if new:
            with times.stage("crop"):
                for face in new:
                    face.alignment = face.alignment if matte is None else widened(face.alignment)
                    face.crop = face.shown = crop_face(image, face.alignment, side)
        if new and matte is not None:
            with times.stage("matte"):
                busts = matte.busts(image, [face.alignment for face in new], seconds)
                for face, bust in zip(new, busts, strict=True):
                    face.bust = bust
                look.effects.before(new)
        yield replace(item, faces=faces)


def draw(
    items: Iterable[Layered],
    look: Look,
    drawings: Drawings,
    times: StageTimes,
    *,
    styles: StyleSchedule | None = None,
    start: float = 0.0,
    first: float | None = None,
) -> Generator[Layered, None, None]:
    """Run the generator on what was cut out, all faces of a frame as one batch.

    Args:
        drawings: draw, as often as they are asked to; but for a grid, which is drawn for every frame.
        styles: says which style each face has; None: the engine's own for all.
        start: the time of the first frame on the clock of `styles`, seconds.
        first: its time on that of the frames; None: that of the first that comes.
    """
    for item in items:
        seconds = item.frame.pts_seconds
        item.frame.note("drawings", drawings.state)
        first = seconds if first is None else first
        seconds += start - first
        faces = item.faces
        new = [face for face in faces if not face.held]
        shown = [face.shown for face in new if face.shown is not None]
        if shown and look.grid and styles is not None:
            with times.stage("network"):
                content = look.engine.encode(shown[0][None])
                pictures = look.engine.decode_styles(content, styles.codes_at(seconds, range(look.grid)))
                faces = [replace(faces[0], drawing=look.effects.drawing(picture)) for picture in pictures]
        elif shown:
            codes = None if styles is None else styles.codes_at(seconds, [face.role for face in new])
            made = drawings.of(shown, [face.alignment.track_id for face in new], codes, seconds)
            for face, picture in zip(new, made, strict=True):
                face.drawing = picture
        item = replace(item, faces=faces)
        yield item if look.privacy is None or look.grid else look.privacy.drawn(item)


def compose(items: Iterable[Layered], look: Look, times: StageTimes) -> Generator[Layered, None, None]:
    """Paste the translations back; time and index of the frames stay as they are."""
    for item in items:
        frame = item.frame
        frame.note("compose", look.state_of_compose)
        if (
            look.compositor.output_size(frame.size) != frame.size
            or look.grid
            or look.compositor.mode == "crop"
        ):
            frame = opaque(frame)
        with times.stage("compose"):
            look.effects.face(item.faces)
            source = hidden(frame.image, item) if look.privacy is not None and look.grid else frame.image
            image = look.compositor.compose(source, item.faces, look.effects.frame)
            alpha, whole = frame.alpha, look.compositor.whole_frame(image)
            if look.background is not None and whole is not None:
                alpha = look.background.apply(whole, frame.image, item.faces, frame.pts_seconds)
            if look.privacy is not None:
                finish(whole, look.compositor.source_part(image), frame.image, item)
                alpha = opaque_under(alpha, item.covers)
        done = Frame(image, frame.pts, frame.time_base, frame.index, frame.props, alpha)
        yield replace(item, frame=done)


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
    finder: Finder,
    look: Look,
    times: StageTimes,
    *,
    styles: StyleSchedule | None = None,
    start: float = 0.0,
    hold: int = 1,
    on_frame: Callable[[Counts], None] | None = None,
    states: Mapping[str, Any] | None = None,
) -> Counts:
    """Send every frame of `source` through all stages to `write`, called on this thread, in order; says what came.

    Args:
        source: frames in presentation order.
        write: takes the finished frames.
        finder: finds the faces.
        look: how they are drawn and pasted.
        styles, start: see `draw`.
        hold: frames that a drawing is shown for, see `gnr_video.hold`.
        on_frame: told after each frame what has come through.
        states: what `Frame.note` wrote down before the first of these frames, in a run over more of the same video;
            and "first", the time of that video's first frame, seconds.

    Raises:
        Whatever a stage raised. All threads have ended by then, save one that waits for a silent source.
    """
    counts = Counts()
    drawings = Drawings(look.engine, look.effects, times, hold)
    states = states or {}
    parts: dict[str, Any] = {"finder": finder, "drawings": drawings, "cut": look, "compose": look}
    for name in parts.keys() & states.keys():
        parts[name].restore(states[name])
    if look.privacy is not None:
        look.privacy.restore(states.get("seen"), states.get("kept"))
    decoded = Threaded(decode(source, times), "decode")
    tracked = Threaded(track(decoded, finder, look, times), "track")
    cut_out = Threaded(cut(tracked, look, times), "cut")
    drawing = draw(cut_out, look, drawings, times, styles=styles, start=start, first=states.get("first"))
    drawn = Threaded(drawing, "draw")
    composed = Threaded(compose(drawn, look, times), "compose")
    stages = (composed, drawn, cut_out, tracked, decoded)
    try:
        with few_opencv_threads():
            for item in composed:
                with times.stage("encode"):
                    write(item.frame)
                counts.add(item)
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
