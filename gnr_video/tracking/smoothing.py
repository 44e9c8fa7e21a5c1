"""Temporal smoothing of alignments: the stage between the face tracker and the engine.

A Kalman filter follows each face. A file is smoothed over a look-ahead window (Rauch-Tung-Striebel), so
its result has no lag; a live picture is answered at once. A lost face is held, then faded out; a short gap
is bridged when its end is in view.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gnr_video.frame import Alignment, Face, Points
from gnr_video.tracking.alignment import fit_alignment, with_landmarks
from gnr_video.tracking.kalman import MIN_DT, Motion, Step, Vector, backward, kalman_start, kalman_step

RADIUS = 128.0
"""Half the crop: what turns ln scale and angle into pixels at the crop's edge."""

LOOKAHEAD = 15
HOLD_SECONDS = 5 / 30
FADE_OUT_SECONDS = 8 / 30
FADE_IN_SECONDS = 5 / 30
"""How long a lost face is held, how long it then takes to go, and a new one to come."""
SCENE_START_FRAMES = 3

_SAME = 1e-6  # seconds that two sums of frame times may differ by and mean the same
LAG_SECONDS = 0.001
"""How late the landmarks of a moving face are (benchmarks/tracking.py)."""


def to_parameters(alignment: Alignment, last_angle: float | None = None) -> Vector:
    """(cx/s, cy/s, 128 ln s, 128 theta): float64 4, all in crop pixels.

    `last_angle`: the angle is taken as the turn nearest to this one, so that it never jumps by 2 pi.
    """
    angle = alignment.angle if last_angle is None else unwrap(alignment.angle, last_angle)
    s = alignment.scale
    return np.array([alignment.center_x / s, alignment.center_y / s, RADIUS * math.log(s), RADIUS * angle])


def from_parameters(parameters: Vector, track_id: int = 0, opacity: float = 1.0) -> Alignment:
    """The alignment with these parameters; its angle in -pi..pi."""
    x, y, zoom, turn = (float(p) for p in parameters)
    s = math.exp(zoom / RADIUS)
    return Alignment(track_id, x * s, y * s, s, unwrap(turn / RADIUS, 0.0), opacity)


def unwrap(angle: float, near: float) -> float:
    """The angle that differs from `angle` by whole turns and from `near` by at most half a turn."""
    return angle - 2 * math.pi * round((angle - near) / (2 * math.pi))


# Found by random search on the protocol of benchmarks/tracking.py, with other noise than it runs with.
FILE_MOTION = Motion(still=300, moving=1e4, knee=0.6, decay_seconds=0.093)
LIVE_MOTION = Motion(still=1.3e3, moving=6e5, knee=1.1, decay_seconds=0.045, velocity_seconds=2.4)


@dataclass
class _Observation:
    """One track in one frame of the window."""

    step: Step
    segment: int
    """Steps of different segments have a cut or a long absence between them: nothing is carried across."""
    landmarks: Points | None
    """In the frame, pixels; None where the face was not seen."""


@dataclass
class _Track:
    """What is known of one face."""

    window: deque[_Observation | None]
    """One entry for each pending frame."""
    opacity: float
    last: _Observation | None = None
    """The newest entry, which may have left the window."""
    segment: int = 0
    missing: int = 0
    missing_seconds: float = 0.0
    angle: float = 0.0
    shown: Alignment | None = None
    unseen_seconds: float = 0.0

    def append(self, observation: _Observation | None) -> None:
        self.window.append(observation)
        self.last = observation


_Sight = tuple[Alignment, Points]
"""A face's own fit and its landmarks in the frame."""


def _fit(face: Face) -> Alignment | None:
    try:
        return fit_alignment(face)
    except ValueError:
        # Landmarks in one point or not finite: as good as not seen.
        return None


def _sights(faces: Sequence[Face]) -> Iterator[_Sight]:
    """Those of a face, up to the first that has no fit."""
    for face in faces:
        if (fit := _fit(face)) is None:
            return
        yield fit, face.landmarks


class Aligner:
    """Turns the faces of each frame into smoothed alignments, one state per track.

    Args:
        lookahead: how many frames an answer may wait for its future. 0 answers at once (live).
        lag_seconds: how late the landmarks are; made good with the smoothed velocity.
        fades: whether faces come and go softly. If not, they are there at once, and a lost one is gone at once.
    """

    def __init__(
        self, lookahead: int = LOOKAHEAD, *, lag_seconds: float = LAG_SECONDS, fades: bool = True
    ) -> None:
        if lookahead < 0:
            raise ValueError(f"lookahead must be at least 0, got {lookahead}")
        self.lookahead = lookahead
        self.lag_seconds = lag_seconds
        self._fades = fades
        self._motion = FILE_MOTION if lookahead else LIVE_MOTION
        self._tracks: dict[int, _Track] = {}
        self._pending: deque[float] = deque()
        """Seconds from the frame before, of each frame that is not final."""
        self._time: float | None = None
        self._scene_frame = 0

    @property
    def pending(self) -> int:
        """Frames that are not final yet, all of the scene that goes on."""
        return len(self._pending)

    def push(
        self,
        time_seconds: float,
        faces: Sequence[Face],
        *,
        cut: bool = False,
        before: Mapping[int, Sequence[Face]] | None = None,
    ) -> list[list[Alignment]]:
        """Take the next frame's faces.

        Args:
            time_seconds: presentation time of the frame.
            faces: its faces, each `track_id` once.
            cut: this frame begins a new scene: what is pending becomes final without it, and nothing is
                carried over.
            before: by track_id, a new face in the pending frames just before this one, the newest first.

        Returns:
            The alignments of the frames that became final, oldest first: one list for each frame, in the
            order of `track_id`.
        """
        final = self.flush() if cut else []
        dt = time_seconds - self._time if self._time is not None else 0.0
        self._time = time_seconds
        seen = {face.track_id: (fit, face.landmarks) for face in faces if (fit := _fit(face)) is not None}
        traced = {track_id: list(_sights(earlier)) for track_id, earlier in (before or {}).items()}
        for track_id, track in self._tracks.items():
            self._observe(track, seen.pop(track_id, None), dt, traced.get(track_id, []))
        for track_id, sight in seen.items():
            self._tracks[track_id] = self._new_track(sight, dt, traced.get(track_id, []))
        self._scene_frame += 1
        self._pending.append(max(dt, MIN_DT))
        if len(self._pending) > self.lookahead:
            final.append(self._emit())
        return final

    def state(self) -> tuple[Any, ...]:
        """What is known of each face before the next frame, for `restore`; nothing of the frames that are pending."""
        tracks = {
            number: (
                None if track.last is None else (track.last.step, track.last.segment),
                (track.segment, track.missing, track.missing_seconds, track.angle),
                (track.opacity, track.shown, track.unseen_seconds),
            )
            for number, track in self._tracks.items()
        }
        return tracks, self._time, self._scene_frame

    def restore(self, state: tuple[Any, ...]) -> None:
        """Go on from there: exactly, but for faces that are coming or going."""
        tracks, self._time, self._scene_frame = state
        self._pending.clear()
        for number, (last, (segment, missing, seconds, angle), (opacity, shown, unseen)) in tracks.items():
            track = _Track(deque(), opacity, None, segment, missing, seconds, angle, shown, unseen)
            track.last = None if last is None else _Observation(last[0], last[1], None)
            self._tracks[number] = track

    def flush(self) -> list[list[Alignment]]:
        """The frames still pending, final without any more future; then the state is that of a new scene."""
        final = list(self._drain())
        self._tracks.clear()
        self._time = None
        self._scene_frame = 0
        return final

    def _drain(self) -> Iterator[list[Alignment]]:
        while self._pending:
            yield self._emit()

    def _new_track(self, sight: _Sight, dt: float, earlier: Sequence[_Sight]) -> _Track:
        # In the first frames of a scene the tracker is only just finding what was there all along.
        is_start = self._scene_frame - len(earlier) < SCENE_START_FRAMES
        opacity = 1.0 if is_start or not self._fades else 0.0
        # Its window reaches back over the pending frames in which it was not there.
        track = _Track(deque([None] * len(self._pending)), opacity)
        self._start_segment(track, sight, dt, earlier)
        return track

    def _start_segment(self, track: _Track, sight: _Sight, dt: float, earlier: Sequence[_Sight]) -> None:
        track.segment += 1
        steps = [*list(self._pending)[len(self._pending) - len(earlier) :], dt]
        track.last = None
        for _ in earlier:
            track.window.pop()
        for seconds, (fit, landmarks) in zip(steps, [*reversed(earlier), sight], strict=True):
            self._measure(track, fit, landmarks, seconds)

    def _measure(self, track: _Track, fit: Alignment, landmarks: Points, dt: float) -> None:
        """The next frame, in which the face was seen."""
        last = track.last
        parameters = to_parameters(fit, None if last is None else track.angle)
        track.angle = float(parameters[3]) / RADIUS
        track.missing, track.missing_seconds = 0, 0.0
        step = (
            kalman_start(parameters) if last is None else kalman_step(last.step, dt, parameters, self._motion)
        )
        track.append(_Observation(step, track.segment, landmarks))

    def _observe(self, track: _Track, sight: _Sight | None, dt: float, earlier: Sequence[_Sight]) -> None:
        last = track.last
        if sight is None:
            track.missing += 1
            track.missing_seconds += dt
            # The two sides of a longer gap are never bridged, so there is nothing to predict.
            is_held = track.missing_seconds <= HOLD_SECONDS + _SAME
            if last is None or not (is_held or track.missing <= self.lookahead):
                track.append(None)
            else:
                track.append(
                    _Observation(kalman_step(last.step, dt, None, self._motion), track.segment, None)
                )
            return
        if last is None:
            self._start_segment(track, sight, dt, earlier)
        else:
            self._measure(track, *sight, dt)

    def _emit(self) -> list[Alignment]:
        """The oldest pending frame's alignments; its observations leave the windows."""
        dt = self._pending.popleft()
        shown = []
        for track_id, track in list(self._tracks.items()):
            alignment = self._show(track_id, track, dt)
            track.window.popleft()
            if alignment is not None:
                shown.append(alignment)
            elif track.last is None and not any(track.window):
                del self._tracks[track_id]
        return sorted(shown, key=lambda a: a.track_id)

    def _show(self, track_id: int, track: _Track, dt: float) -> Alignment | None:
        observation = track.window[0]
        if observation is not None:
            seen = observation.landmarks is not None
            if seen or self._returns(track, observation.segment):
                track.unseen_seconds = 0.0
                return self._present(track_id, track, observation, dt)
        if track.shown is None or not self._fades:
            return None
        track.unseen_seconds += dt
        if track.unseen_seconds > HOLD_SECONDS + _SAME:
            track.opacity = max(0.0, track.opacity - dt / FADE_OUT_SECONDS)
        if track.opacity <= 1e-9:
            track.opacity = 0.0
            return None
        return replace(track.shown, opacity=track.opacity)

    def _present(self, track_id: int, track: _Track, observation: _Observation, dt: float) -> Alignment:
        if track.shown is not None or track.opacity == 0.0:
            track.opacity = min(1.0, track.opacity + dt / FADE_IN_SECONDS)
        # Without look-ahead the window is this one frame, and the smoother returns the filter's answer.
        steps = [o.step for o in track.window if o is not None and o.segment == observation.segment]
        position, velocity = deque(backward(steps), maxlen=1)[0]
        alignment = from_parameters(position + self.lag_seconds * velocity, track_id, track.opacity)
        if observation.landmarks is not None:
            alignment = with_landmarks(alignment, observation.landmarks)
        elif track.shown is not None:
            # Not seen in this frame: its outline in the crop stays as it was.
            alignment = replace(alignment, landmarks=track.shown.landmarks)
        track.shown = alignment
        return alignment

    @staticmethod
    def _returns(track: _Track, segment: int) -> bool:
        return any(o is not None and o.segment == segment and o.landmarks is not None for o in track.window)
