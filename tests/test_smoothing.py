"""Temporal smoothing: the filters, and what the aligner does when faces come, go and jump. Device: CPU."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnr_video.frame import Alignment, Face
from gnr_video.tracking.alignment import RIGID, TEMPLATE
from gnr_video.tracking.kalman import rts_smooth
from gnr_video.tracking.smoothing import (
    FADE_IN_SECONDS,
    FADE_OUT_SECONDS,
    HOLD_SECONDS,
    Aligner,
    from_parameters,
    to_parameters,
    unwrap,
)

FPS = 30
HOLD_FRAMES, FADE_OUT_FRAMES, FADE_IN_FRAMES = (
    round(FPS * seconds) for seconds in (HOLD_SECONDS, FADE_OUT_SECONDS, FADE_IN_SECONDS)
)


def face(x: float, y: float = 300.0, *, scale: float = 1.5, angle: float = 0.0, track_id: int = 0) -> Face:
    """A face whose crop is centred at (x, y)."""
    landmarks = np.zeros((478, 3), np.float32)
    matrix = Alignment(track_id, x, y, scale, angle).crop_to_frame()
    landmarks[RIGID, :2] = np.c_[TEMPLATE, np.ones(len(TEMPLATE))] @ matrix.T
    return Face(track_id, landmarks)


def run(aligner: Aligner, frames: list[list[Face]], *, cuts: tuple[int, ...] = ()) -> list[list[Alignment]]:
    done = [a for i, f in enumerate(frames) for a in aligner.push(i / FPS, f, cut=i in cuts)]
    return done + aligner.flush()


def opacities(result: list[list[Alignment]], track_id: int = 0) -> list[float]:
    return [next((a.opacity for a in frame if a.track_id == track_id), 0.0) for frame in result]


# The parameters


@settings(deadline=None, max_examples=50)
@given(st.floats(-500, 4000), st.floats(-500, 4000), st.floats(0.05, 20), st.floats(-math.pi, math.pi))
def test_parameters_there_and_back(x: float, y: float, scale: float, angle: float) -> None:
    back = from_parameters(to_parameters(Alignment(3, x, y, scale, angle)), 3, 0.5)
    assert (back.center_x, back.center_y) == pytest.approx((x, y), abs=1e-6)
    assert back.scale == pytest.approx(scale)
    assert math.remainder(back.angle - angle, 2 * math.pi) == pytest.approx(0, abs=1e-9)
    assert (back.track_id, back.opacity) == (3, 0.5)


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_unwrap_takes_the_nearest_turn(angle: float, near: float) -> None:
    found = unwrap(angle, near)
    assert abs(found - near) <= math.pi + 1e-9
    assert math.remainder(found - angle, 2 * math.pi) == pytest.approx(0, abs=1e-9)


def test_a_roll_through_half_a_turn_does_not_swing_back() -> None:
    angles = np.linspace(2.6, 3.7, 40)
    result = run(
        Aligner(8, lag_seconds=0), [[face(400, angle=math.remainder(a, 2 * math.pi))] for a in angles]
    )
    for frame, angle in zip(result, angles):
        assert math.remainder(frame[0].angle - angle, 2 * math.pi) == pytest.approx(0, abs=0.02)


# The filters


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0.005, 0.2), min_size=3, max_size=30), st.floats(-900, 900), st.floats(-300, 300))
def test_rts_leaves_constant_velocity_alone(gaps: list[float], start: float, speed: float) -> None:
    times = np.concatenate([[0], np.cumsum(gaps)])
    values = (start + speed * times)[:, None] * np.ones(4)
    position, velocity = rts_smooth(times.tolist(), values)
    np.testing.assert_allclose(position, values, atol=0.02)
    np.testing.assert_allclose(velocity, speed, atol=1.0)


def test_rts_equals_the_least_squares_solution() -> None:
    """The smoother is the minimum of a quadratic form, which plain linear algebra solves as well."""
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.01, 0.08, 12))
    z = rng.normal(0, 5, 12)
    q, r = 1e4, 1.0
    rows, right = [], []

    def add(
        matrix: np.ndarray, state: int, weight: np.ndarray, value: np.ndarray, following: int = -1
    ) -> None:
        row = np.zeros((len(value), 24))
        row[:, 2 * state : 2 * state + 2] = matrix
        if following >= 0:
            row[:, 2 * following : 2 * following + 2] = -np.eye(2)
        rows.append(weight @ row)
        right.append(weight @ value)

    add(np.array([[0.0, 1.0]]), 0, np.array([[1e-3]]), np.zeros(1))
    for i in range(12):
        add(np.array([[1.0, 0.0]]), i, np.array([[1 / math.sqrt(r)]]), z[i : i + 1])
    for i in range(11):
        dt = times[i + 1] - times[i]
        noise = q * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
        weight = np.linalg.cholesky(np.linalg.inv(noise)).T
        add(np.array([[1.0, dt], [0.0, 1.0]]), i, weight, np.zeros(2), i + 1)
    solution = np.linalg.lstsq(np.vstack(rows), np.concatenate(right), rcond=None)[0].reshape(12, 2)
    position, velocity = rts_smooth(times.tolist(), z[:, None], q, r)
    np.testing.assert_allclose(position[:, 0], solution[:, 0], atol=1e-6)
    np.testing.assert_allclose(velocity[:, 0], solution[:, 1], rtol=1e-5, atol=1e-4)


def test_rts_interpolates_a_gap() -> None:
    times = np.arange(40) / FPS
    truth = 100 * np.sin(2 * times)[:, None] * np.ones(4)
    seen = truth.copy()
    seen[15:22] = np.nan
    position, _ = rts_smooth(times.tolist(), seen)
    assert np.abs(position - truth).max() < 2.0
    with pytest.raises(ValueError, match="first value"):
        rts_smooth([0.0], np.array([[np.nan]]))


# The stage


@pytest.mark.parametrize("lookahead", [0, 1, 6, 15])
def test_one_answer_for_each_frame_in_order(lookahead: int) -> None:
    aligner = Aligner(lookahead)
    done: list[list[Alignment]] = []
    for i in range(40):
        faces = [] if i % 7 == 3 else [face(400 + i)]
        done += aligner.push(i / FPS, faces, cut=i == 25)
        # A cut makes what is pending final.
        pending = min(i + 1, lookahead) if i < 25 else min(i - 24, lookahead)
        assert len(done) == i + 1 - pending
    done += aligner.flush()
    assert len(done) == 40
    assert aligner.flush() == []
    assert all(a and abs(a[0].center_x - 400 - i) < 9 for i, a in enumerate(done))


def test_smoothing_takes_out_noise_and_adds_no_lag() -> None:
    rng = np.random.default_rng(0)
    t = np.arange(150) / FPS
    truth = 640 + 100 * np.sin(2 * math.pi * 0.8 * t) * (t > 2.5)
    noisy = truth + rng.normal(0, 0.5, len(t))
    result = run(Aligner(15, lag_seconds=0), [[face(x)] for x in noisy])
    found = np.array([frame[0].center_x for frame in result])
    still = slice(5, 70)
    assert np.diff(found[still]).std() < 0.25 * np.diff(noisy[still]).std()
    moving = slice(80, 148)
    velocity = np.gradient(truth, t)[moving]
    lag = -((found - truth)[moving] @ velocity) / (velocity @ velocity)
    assert abs(lag) < 0.001
    assert np.abs(found - truth)[moving].max() < 3


def test_lag_is_made_good_with_the_velocity() -> None:
    frames = [[face(300 + 10 * i)] for i in range(40)]
    late = run(Aligner(5, lag_seconds=0), frames)
    made_good = run(Aligner(5, lag_seconds=0.01), frames)
    # 10 px a frame are 300 px/s.
    assert made_good[20][0].center_x - late[20][0].center_x == pytest.approx(3.0, abs=0.05)


@pytest.mark.parametrize("lookahead", [0, 10])
def test_a_lost_face_is_held_then_faded(lookahead: int) -> None:
    result = run(Aligner(lookahead), [[face(400)]] * 10 + [[]] * 40)
    shown = opacities(result)
    assert shown[: 10 + HOLD_FRAMES] == [1.0] * (10 + HOLD_FRAMES)
    fade = shown[10 + HOLD_FRAMES : 10 + HOLD_FRAMES + FADE_OUT_FRAMES]
    np.testing.assert_allclose(fade, 1 - np.arange(1, FADE_OUT_FRAMES + 1) / FADE_OUT_FRAMES)
    assert not any(result[10 + HOLD_FRAMES + FADE_OUT_FRAMES :])
    held = result[12][0]
    assert held.center_x == pytest.approx(400, abs=0.5)
    assert held.landmarks is not None


@pytest.mark.parametrize("fps", [8, 15, 30, 60])
def test_a_lost_face_goes_as_fast_at_every_rate(fps: int) -> None:
    """Counted in frames it would haunt the picture of a slow machine for more than a second."""
    aligner, faces = Aligner(0), [[face(400)]] * (2 * fps) + [[]] * fps
    shown = opacities([a for i, f in enumerate(faces) for a in aligner.push(i / fps, f)])
    gone = next(i for i, opacity in enumerate(shown) if i >= 2 * fps and opacity == 0.0)
    whole = max(i for i, opacity in enumerate(shown) if opacity == 1.0)
    assert (gone - 2 * fps + 1) / fps == pytest.approx(HOLD_SECONDS + FADE_OUT_SECONDS, abs=1.01 / fps)
    assert (whole - 2 * fps + 1) / fps == pytest.approx(HOLD_SECONDS, abs=1.01 / fps)


@pytest.mark.parametrize("gap", [1, 6, 10])
def test_a_gap_shorter_than_the_look_ahead_is_bridged(gap: int) -> None:
    x = [400 + 4.0 * i for i in range(50)]
    frames = [[face(v)] for v in x]
    frames[20 : 20 + gap] = [[]] * gap
    result = run(Aligner(10), frames)
    assert opacities(result) == [1.0] * 50
    assert [f[0].center_x for f in result] == pytest.approx(x, abs=1.5)
    assert all(f[0].landmarks is not None for f in result)


def test_a_longer_gap_is_not_bridged() -> None:
    frames = [[face(400)]] * 20 + [[]] * 11 + [[face(900)]] * 20
    result = run(Aligner(10), frames)
    assert all(abs(f[0].center_x - 400) < 0.5 for f in result[:25])
    assert all(abs(f[0].center_x - 900) < 2.0 for f in result[31:])


def test_a_returning_face_fades_in() -> None:
    result = run(Aligner(0), [[face(400)]] * 10 + [[]] * 30 + [[face(420)]] * 10)
    back = opacities(result)[40:]
    np.testing.assert_allclose(back[:FADE_IN_FRAMES], np.arange(1, FADE_IN_FRAMES + 1) / FADE_IN_FRAMES)
    assert back[FADE_IN_FRAMES:] == [1.0] * (10 - FADE_IN_FRAMES)


def test_a_newcomer_fades_in_but_a_scene_starts_at_once() -> None:
    first = [face(300)]
    both = [*first, face(800, track_id=1)]
    result = run(Aligner(5), [first] * 20 + [both] * 20 + [[face(500, track_id=2)]] * 10, cuts=(40,))
    assert opacities(result)[:20] == [1.0] * 20
    newcomer = opacities(result, 1)
    assert newcomer[:20] == [0.0] * 20
    assert 0 < newcomer[20] < 0.5
    assert newcomer[30:40] == [1.0] * 10
    assert opacities(result, 2)[40:] == [1.0] * 10


@pytest.mark.parametrize("lookahead", [0, 10])
def test_nothing_crosses_a_cut(lookahead: int) -> None:
    frames = [[face(400)]] * 20 + [[face(600)]] * 20
    result = run(Aligner(lookahead, lag_seconds=0), frames, cuts=(20,))
    assert [f[0].center_x for f in result] == pytest.approx([400] * 20 + [600] * 20, abs=0.01)
    # Without the cut the smoothing window does mix the two.
    mixed = run(Aligner(10, lag_seconds=0), frames)
    assert max(abs(f[0].center_x - 400) for f in mixed[:20]) > 1
    gone = run(Aligner(lookahead), [[face(400)]] * 20 + [[]] * 20, cuts=(20,))
    assert not any(gone[20:])


def test_tracks_do_not_touch_each_other() -> None:
    rng = np.random.default_rng(2)
    walk = np.cumsum(rng.normal(0, 2, (60, 2)), axis=0) + np.array([300, 900])
    together = run(Aligner(8), [[face(b, track_id=1), face(a, track_id=0)] for a, b in walk])
    alone = run(Aligner(8), [[face(a, track_id=0)] for a, _ in walk])
    assert [f[0] for f in together] == [f[0] for f in alone]
    assert all([a.track_id for a in f] == [0, 1] for f in together)


def test_landmarks_are_in_pixels_of_the_smoothed_crop() -> None:
    result = run(Aligner(6), [[face(400 + i, angle=0.2)] for i in range(20)])
    for frame in result:
        landmarks = frame[0].landmarks
        assert landmarks is not None
        assert landmarks.shape == (478, 2)
        assert landmarks.dtype == np.float32
        np.testing.assert_allclose(landmarks[RIGID], TEMPLATE, atol=0.5)


def test_variable_frame_rate_and_repeated_times() -> None:
    times = np.cumsum(np.tile([0.033, 0.067, 0.033, 0.0], 15))
    aligner = Aligner(6, lag_seconds=0)
    done = [a for t in times for a in aligner.push(float(t), [face(300 + 200 * float(t))])]
    done += aligner.flush()
    assert [f[0].center_x for f in done] == pytest.approx((300 + 200 * times).tolist(), abs=1.0)


def test_broken_landmarks_count_as_not_seen() -> None:
    broken = Face(0, np.full((478, 3), np.nan, np.float32))
    result = run(Aligner(4), [[face(400)]] * 10 + [[broken]] * 2 + [[face(400)]] * 10)
    assert opacities(result) == [1.0] * 22


def test_memory_is_bounded() -> None:
    aligner = Aligner(10)
    for i in range(600):
        # Someone new every 20 frames.
        aligner.push(i / FPS, [face(100 + i, track_id=i // 20)] if i % 20 < 12 else [])
    assert len(aligner._tracks) <= 4
    assert all(len(track.window) <= 10 for track in aligner._tracks.values())


def test_lookahead_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match="-1"):
        Aligner(-1)


@pytest.mark.parametrize("lookahead", [0, 15])
def test_no_jump_of_opacity(lookahead: int) -> None:
    rng = np.random.default_rng(5)
    present = np.repeat(rng.random(60) < 0.6, rng.integers(1, 14, 60))
    present[:3] = True
    shown = opacities(run(Aligner(lookahead), [[face(400)] if p else [] for p in present]))
    assert max(abs(b - a) for a, b in pairwise(shown)) <= 1 / FADE_IN_FRAMES + 1e-9
