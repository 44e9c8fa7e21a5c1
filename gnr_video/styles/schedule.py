"""Style schedules: which style code each person has at each moment, on files and live.

A schedule is asked for every frame with `code_at`; it keeps no state of its own between frames, so that any
frame can be computed by itself and a clip cut out of a video looks as it does in the whole.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from engines.errors import StyleError
from gnr_video.styles.code import StyleCode
from gnr_video.styles.grammar import parse_keys
from gnr_video.styles.looks import Looks

if TYPE_CHECKING:
    from engines.base import Engine

Row = NDArray[np.float32]
"""float32 (style_dim,): a style code in w space."""

Mode = Literal["normal", "blend", "beat", "sefa"]
MODES: tuple[Mode, ...] = ("normal", "blend", "beat", "sefa")

KEY_TRANSITION = 0.5
BEAT_TRANSITION = 0.1
EVERY = 2.0
SEFA_DIRECTIONS = 8
SEFA_SHARE = 0.5
"""An edit on a beat is at most this share of the weights' spread."""


class StyleSchedule(ABC):
    """Says which style code a person has at a time.

    Attributes:
        looks: the styles it starts from.
        constant: whether time changes nothing.
    """

    looks: Looks
    constant = False

    @abstractmethod
    def code_at(self, time_seconds: float, track_id: int = 0) -> Row:
        """The style code in w space, not to be written to.

        Args:
            time_seconds: since the beginning of the video.
            track_id: the person, numbered from 0 in order of appearance.
        """

    def codes_at(self, time_seconds: float, track_ids: Sequence[int]) -> NDArray[np.float32]:
        """float32 (N, style_dim): one row for each person, as `Engine.translate` takes them."""
        return np.stack([self.code_at(time_seconds, track_id) for track_id in track_ids])


class FixedStyles(StyleSchedule):
    """Everybody keeps their style."""

    constant = True

    def __init__(self, looks: Looks) -> None:
        self.looks = looks

    def code_at(self, time_seconds: float, track_id: int = 0) -> Row:
        return self.looks.w(track_id)


class Timeline(StyleSchedule):
    """A new style at each of some times.

    Args:
        keys: (seconds, styles), by rising time; the first holds from the beginning.
        transition: seconds in which one style becomes the next, beginning at its time. It is cut short where
            the next but one comes sooner.
    """

    def __init__(self, keys: Sequence[tuple[float, Looks]], transition: float = 0.0) -> None:
        self._times = [seconds for seconds, _ in keys]
        self._looks = [looks for _, looks in keys]
        self.looks = self._looks[0]
        self._transition = transition

    def code_at(self, time_seconds: float, track_id: int = 0) -> Row:
        key = max(bisect_right(self._times, time_seconds) - 1, 0)
        now = self._looks[key].w(track_id)
        if key == 0:
            return now
        until = self._times[key + 1] if key + 1 < len(self._times) else math.inf
        begun = self._times[key]
        return _mixed(
            self._looks[key - 1].w(track_id), now, time_seconds - begun, min(self._transition, until - begun)
        )


class Walk(StyleSchedule):
    """A smooth random walk: from a look to the next draw of its seed and on, without stopping.

    Between the looks it is a Catmull-Rom spline in w space.

    Args:
        every: seconds from look to look.
        stops: after so many looks comes the first again; None: never.
    """

    def __init__(self, looks: Looks, every: float = EVERY, *, stops: int | None = None) -> None:
        self.looks = looks
        self._every = every
        self._stops = stops

    def code_at(self, time_seconds: float, track_id: int = 0) -> Row:
        place = max(time_seconds, 0.0) / self._every
        step = int(place)
        t = np.float32(place - step)
        before, here, ahead, beyond = (self._look(track_id, step + i) for i in (-1, 0, 1, 2))
        out, into = (ahead - before) / 2, (beyond - here) / 2
        way = ahead - here
        row = here + t * out + t**2 * (3 * way - 2 * out - into) + t**3 * (out + into - 2 * way)
        return np.asarray(row, np.float32)

    def _look(self, track_id: int, step: int) -> Row:
        return self.looks.w(track_id, step % self._stops if self._stops else max(step, 0))


class Beats(Protocol):
    """Moments in a video's time."""

    def count_before(self, time_seconds: float) -> int:
        """How many there were until this time, this moment included."""

    def time_of(self, index: int) -> float:
        """Seconds of the beat with this number, from 0; infinite after the last."""


@dataclass(frozen=True)
class BeatTimes:
    """Beats at known times (seconds, rising), as `gnr_video.styles.beats.find_beats` finds them."""

    times: tuple[float, ...]

    def count_before(self, time_seconds: float) -> int:
        return bisect_right(self.times, time_seconds)

    def time_of(self, index: int) -> float:
        return self.times[index] if index < len(self.times) else math.inf


@dataclass(frozen=True)
class Metronome:
    """Beats at a steady tempo, for what has no sound: the first a beat after the beginning."""

    bpm: float

    def count_before(self, time_seconds: float) -> int:
        # Seconds are rarely whole parts of a beat: the beat itself counts in spite of rounding.
        return max(0, math.floor(time_seconds * self.bpm / 60.0 + 1e-9))

    def time_of(self, index: int) -> float:
        return (index + 1) * 60.0 / self.bpm


class OnBeats(StyleSchedule):
    """Something new on every beat: a further draw of the seed, or an edit of the look.

    Args:
        transition: seconds in which it comes, beginning on the beat.
        edits: leave the look and move it along one of the strongest directions of the weights, another on
            each beat (SeFa).
        amount: greatest length of an edit in w space; None: half the weights' spread.
    """

    def __init__(
        self,
        looks: Looks,
        beats: Beats,
        engine: Engine,
        *,
        transition: float = BEAT_TRANSITION,
        edits: bool = False,
        amount: float | None = None,
    ) -> None:
        self.looks = looks
        self._beats = beats
        self._transition = transition
        self._edits = edits
        if edits:
            space = engine.style_space()
            self._directions = space.directions[:SEFA_DIRECTIONS]
            self._amount = SEFA_SHARE * space.spread if amount is None else amount

    def code_at(self, time_seconds: float, track_id: int = 0) -> Row:
        beat = self._beats.count_before(time_seconds)
        now = self._on_beat(beat, track_id)
        if beat == 0:
            return now
        begun = self._beats.time_of(beat - 1)
        duration = min(self._transition, self._beats.time_of(beat) - begun)
        return _mixed(self._on_beat(beat - 1, track_id), now, time_seconds - begun, duration)

    def _on_beat(self, beat: int, track_id: int) -> Row:
        if not self._edits:
            return self.looks.w(track_id, beat)
        if beat == 0:
            return self.looks.w(track_id)
        random = np.random.default_rng((self.looks.seed % 2**64, track_id, beat))
        direction = self._directions[(track_id + 3 * beat) % SEFA_DIRECTIONS]  # never the same twice running
        amount = self._amount * random.uniform(0.5, 1.0) * random.choice((-1.0, 1.0))
        row: Row = self.looks.w(track_id) + np.float32(amount) * direction
        return row


def _mixed(before: Row, after: Row, elapsed: float, duration: float) -> Row:
    """From one row to another in `duration` seconds, slow at both ends; both kept exactly outside."""
    if elapsed >= duration:
        return after
    if elapsed <= 0:
        return before
    t = elapsed / duration
    row: Row = before + np.float32(t * t * (3.0 - 2.0 * t)) * (after - before)
    return row


@dataclass(frozen=True)
class StylePlan:
    """How styles change with time, as the options of the command say it.

    Attributes:
        keys: "0=42,5s=7": styles and when they begin.
        mode: "normal"; "blend", a smooth random walk; "beat", a new look on every beat; "sefa", an edit on
            every beat.
        transition: seconds; None: 0.5 between keys, 0.1 on beats.
        every: seconds between the looks of a blend.
        bpm: a steady tempo instead of the beats of the sound track.
        amount: greatest length of an edit of mode "sefa", in w space.
    """

    keys: str = ""
    mode: Mode = "normal"
    transition: float | None = None
    every: float = EVERY
    bpm: float | None = None
    amount: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise StyleError(f"no style mode is called {self.mode!r}", f"choose {', '.join(MODES)}")
        if self.keys and self.mode != "normal":
            raise StyleError(
                f"a schedule of styles and mode {self.mode} exclude each other",
                "leave --styles or --mode out",
            )
        for name in ("every", "bpm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise StyleError(f"{name} must be above 0, got {value}")
        if self.transition is not None and not 0 <= self.transition < math.inf:
            raise StyleError(f"transition must be at least 0 seconds, got {self.transition}")

    @property
    def needs_beats(self) -> bool:
        """Whether the sound track is to be listened to."""
        return self.mode in ("beat", "sefa") and self.bpm is None


def make_schedule(
    engine: Engine,
    style: str | int | StyleCode | Sequence[str | int | StyleCode] | Looks = 42,
    plan: StylePlan | None = None,
    *,
    beats: Beats | None = None,
    face_model: Path | None = None,
) -> StyleSchedule:
    """The schedule that a plan means.

    Args:
        engine: whose weights give the styles their meaning.
        style: where it starts: one style, or one for each person ("42,7"). Not used where the plan has keys.
        beats: what the modes "beat" and "sefa" follow where the plan has no tempo.
        face_model: MediaPipe's model, for the faces of reference pictures.

    Raises:
        StyleError: a style or the schedule does not parse, or there are no beats to follow.
    """
    plan = plan or StylePlan()
    if plan.keys:
        keys = [
            (seconds, Looks(expression, engine, face_model=face_model))
            for seconds, expression in parse_keys(plan.keys)
        ]
        return Timeline(keys, KEY_TRANSITION if plan.transition is None else plan.transition)
    looks = style if isinstance(style, Looks) else Looks(style, engine, face_model=face_model)
    if plan.mode == "normal":
        return FixedStyles(looks)
    if plan.mode == "blend":
        return Walk(looks, plan.every)
    if plan.bpm is not None:
        beats = Metronome(plan.bpm)
    if beats is None:
        raise StyleError(f"mode {plan.mode} has no beats to follow", "give a tempo: --bpm 120")
    return OnBeats(
        looks,
        beats,
        engine,
        transition=BEAT_TRANSITION if plan.transition is None else plan.transition,
        edits=plan.mode == "sefa",
        amount=plan.amount,
    )
