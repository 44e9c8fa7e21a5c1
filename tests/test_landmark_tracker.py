"""Following one face: the landmark network without MediaPipe's graph, where it looks next, and what it filters.

Device: CPU. The face model is fetched on first use; without it, or without OpenVINO, tests that need it are skipped.
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.data import astronaut

import engines
from gnr_video.tracking.boxes import box_of, shifted
from gnr_video.tracking.landmark_tracker import (
    LOOKS,
    NetworkFollower,
    OneEuro,
    Region,
    low_pass,
    region_of,
    zoom_out,
)
from gnr_video.tracking.landmarker import Landmarker
from gnr_video.tracking.mediapipe_networks import LandmarkNetwork, compile_beside, try_landmarks
from gnr_video.tracking.search import search_tiles
from gnr_video.tracking.tracker import FaceTracker

FPS = 30


@pytest.fixture(scope="module")
def network(face_model: Path) -> LandmarkNetwork:
    pytest.importorskip("openvino", reason="needs OpenVINO")
    made = try_landmarks(face_model)
    assert made is not None
    return made


@pytest.fixture(scope="module")
def landmarks(face_model: Path) -> np.ndarray:
    """The astronaut's, as MediaPipe's graph finds them in the whole picture."""
    graph = Landmarker(face_model, num_faces=1, video=False)
    try:
        return graph.image(astronaut())[0]
    finally:
        graph.close()


def taken_over(network: LandmarkNetwork, image: np.ndarray, points: np.ndarray) -> NetworkFollower:
    follower = NetworkFollower(network)
    follower.take_over(image, (0, 0, image.shape[1], image.shape[0]), points)
    return follower


def portrait(dx: float, dy: float, zoom: float = 1.0, degrees: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The astronaut moved about his face on grey, 640x512; and the matrix of that."""
    matrix = cv2.getRotationMatrix2D((224, 118), degrees, zoom)
    matrix[:, 2] += (dx, dy)
    picture = cv2.warpAffine(astronaut(), matrix, (640, 512), borderValue=(110, 110, 110))
    return picture, matrix


# The network


@pytest.mark.parametrize(
    "place", [(0, 0, 1.0, 0), (150, 200, 1.5, 0), (60, 40, 1.0, 25), (100, 30, 0.8, -15)]
)
def test_it_finds_what_mediapipes_graph_finds(
    network: LandmarkNetwork,
    face_model: Path,
    landmarks: np.ndarray,
    place: tuple[float, float, float, float],
) -> None:
    picture, matrix = portrait(*place)
    start = landmarks.copy()
    start[:, :2] = landmarks[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    found = taken_over(network, picture, start).points
    graph = Landmarker(face_model, num_faces=1, video=True)
    try:
        for i in range(8):
            [expected] = graph.video(picture, 1 + 33 * i)
    finally:
        graph.close()
    assert found is not None
    assert found.shape == (478, 3)
    assert found.dtype == np.float32
    side = np.ptp(expected[:, 0])
    apart = np.abs(found - expected).mean(0) / side
    assert apart[:2].max() < 0.008
    assert apart[2] < 0.02


def test_it_is_sure_of_a_face_and_of_none(network: LandmarkNetwork, landmarks: np.ndarray) -> None:
    left, top, right, bottom = box_of(landmarks)
    side = int(1.5 * max(right - left, bottom - top)) // 2
    x, y = int(left + right) // 2, int(top + bottom) // 2
    face = cv2.resize(astronaut()[max(y - side, 0) : y + side, x - side : x + side], (256, 256))
    assert network(face)[1] > 0.99
    for nothing in (np.zeros((256, 256, 3), np.uint8), np.full((256, 256, 3), 200, np.uint8)):
        assert network(nothing)[1] < 0.1


def test_a_face_that_goes_is_lost_and_one_that_leaves_is_not_followed_into_its_mirror_image(
    network: LandmarkNetwork, landmarks: np.ndarray
) -> None:
    follower = taken_over(network, portrait(0, 0)[0], landmarks)
    seen = []
    for i in range(60):
        follower.follow(portrait(-8 * i, 0)[0], i / FPS)
        if follower.box is not None:
            seen.append((follower.box[0] + follower.box[2]) / 2)
    assert follower.points is None
    assert follower.box is None
    # It was followed until about half of it was outside.
    assert seen[15] == pytest.approx(224 - 8 * 15, abs=8)
    assert min(seen) > -40


def test_what_is_no_face_is_not_taken_over(network: LandmarkNetwork, landmarks: np.ndarray) -> None:
    # The landmarks as if they had been found on his chest.
    assert taken_over(network, astronaut(), shifted(landmarks, 0, 250)).points is None
    looked = []

    class Doubting:
        def __call__(self, picture: np.ndarray) -> tuple[np.ndarray, float]:
            looked.append(picture)
            return network(picture)[0], 0.95 if len(looked) < LOOKS else 0.7

    assert taken_over(Doubting(), astronaut(), landmarks).points is None  # type: ignore[arg-type]
    assert len(looked) == LOOKS


# Without OpenVINO


def test_mediapipes_graphs_are_used_without_openvino(
    face_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gnr_video.tracking.mediapipe_networks.unavailable", lambda name: "not installed")
    assert try_landmarks(face_model) is None
    with FaceTracker(face_model) as tracker:
        assert tracker.graphs
        assert len(tracker.track(astronaut(), 0.0)) == 1


def test_a_network_that_openvino_does_not_read_is_left_to_mediapipe(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("openvino", reason="needs OpenVINO")
    broken = tmp_path / "face.task"
    for data in (b"", b"no zip archive", (Path(engines.__file__)).read_bytes()):
        broken.write_bytes(data)
        with caplog.at_level("INFO"):
            assert try_landmarks(broken) is None
    assert "MediaPipe's graph runs face.task" in caplog.text


def test_compiling_beside_is_silent_about_a_model_that_is_not_there(
    tmp_path: Path, no_threads_left: None
) -> None:
    compile_beside(tmp_path / "nowhere.task")


# Where the face is heading


def face_at(x: float, y: float, side: float, angle: float) -> np.ndarray:
    """A square of landmarks with the eyes' corners level in it."""
    spread = np.random.default_rng(0).uniform(-0.5, 0.5, (478, 2))
    spread[:4] = (-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)
    spread[33], spread[263] = (-0.3, -0.1), (0.3, -0.1)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return np.c_[side * spread @ turn.T + (x, y), np.zeros(478)].astype(np.float32)


@settings(deadline=None, max_examples=30)
@given(
    st.floats(-300, 300),
    st.floats(-300, 300),
    st.floats(-0.4, 0.4),
    st.floats(1 / 60, 1 / 10),
    st.floats(100, 400),
)
def test_a_steady_motion_is_foreseen(vx: float, vy: float, growth: float, dt: float, side: float) -> None:
    def at(t: float) -> np.ndarray:
        return face_at(400 + vx * t, 300 + vy * t, side * math.exp(growth * t), 0.0)

    region = Region(at(0.0), 0.0)
    for i in range(1, 60):
        region.see(at(i * dt), i * dt)
    expected = region_of(at(60 * dt))
    np.testing.assert_allclose(region.expected(60 * dt), expected, atol=1e-2, rtol=1e-3)


def test_a_turn_past_the_half_circle_is_a_small_one() -> None:
    region = Region(face_at(0, 0, 100, math.pi - 0.02), 0.0)
    for i in range(1, 30):
        region.see(face_at(0, 0, 100, math.pi - 0.02 + 0.01 * i), i / FPS)
    turn = region.expected(30 / FPS)[3] - region_of(face_at(0, 0, 100, math.pi + 0.28))[3]
    assert abs(math.remainder(turn, 2 * math.pi)) < 0.01


@pytest.mark.parametrize("time", [1.0, 0.3, -5.0, 1e6])
def test_times_that_jump_do_not_throw_the_region_away(time: float) -> None:
    region = Region(face_at(100, 100, 100, 0), 0.0)
    for i in range(1, 11):
        region.see(face_at(100 + 5 * i, 100, 100, 0), i / FPS)
    x, y, log_side, angle = region.expected(time)
    assert 150 - 1e-3 <= x <= 150 + 0.1 * 5 * FPS + 1
    assert (y, log_side, angle) == pytest.approx((100, math.log(150), 0), abs=1e-3)


# The filter


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.floats(1 / 120, 0.2))
def test_filtered_landmarks_lie_between_the_last_and_the_new(seed: int, dt: float) -> None:
    rng, low_pass_filter = np.random.default_rng(seed), OneEuro()
    last = low_pass_filter(face_at(200, 200, 100, 0), 0.0)
    for i in range(1, 6):
        new = last + rng.normal(0, 3, last.shape).astype(np.float32)
        found = low_pass_filter(new, i * dt)
        assert found.dtype == np.float32
        assert np.all(found >= np.minimum(last, new) - 1e-3)
        assert np.all(found <= np.maximum(last, new) + 1e-3)
        last = found


def test_noise_is_filtered_and_motion_is_let_through() -> None:
    rng, still, moving = np.random.default_rng(0), OneEuro(), OneEuro()
    noise = [rng.normal(0, 0.1, (478, 3)).astype(np.float32) for _ in range(60)]
    calm = [still(face_at(200, 200, 100, 0) + n, i / FPS) for i, n in enumerate(noise)]
    assert np.std(np.diff(calm[20:], axis=0)) < 0.5 * np.std(np.diff(noise[20:], axis=0))
    late = [
        face_at(200 + 4 * i, 200, 100, 0) - moving(face_at(200 + 4 * i, 200, 100, 0), i / FPS)
        for i in range(60)
    ]
    assert 0 <= np.mean(late[-1][:, 0]) < 0.5


# Views of MediaPipe's graph


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10), st.floats(0, 1), st.floats(0, 1), st.floats(40, 80))
def test_zoom_out_moves_a_face_by_little(tile_index: int, u: float, v: float, side: float) -> None:
    tiles = search_tiles(640, 480)
    tile = tiles[tile_index % len(tiles)]
    x = tile[0] + u * (tile[2] - tile[0] - side)
    y = tile[1] + v * (tile[3] - tile[1] - side)
    views = zoom_out(tile, (x, y, x + side, y + side), 640, 480)
    assert views[0] == tile
    assert views[-1] == (0, 0, 640, 480)
    assert len(views) < 50
    for left, top, right, bottom in views:
        assert 0 <= left <= x
        assert x + side <= right + 1
        assert 0 <= top <= y
        assert y + side <= bottom + 1
        assert right <= 640
        assert bottom <= 480


def test_low_pass_blurs_large_faces_only() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3)).astype(np.uint8)
    before = noise.copy()
    assert low_pass(noise, None) is noise
    assert low_pass(noise, (300, 300, 360, 360)) is noise
    medium = low_pass(noise, (300, 300, 470, 470))
    assert medium.shape == noise.shape
    assert medium[340:420, 340:420].std() < 0.5 * noise.std()
    np.testing.assert_array_equal(medium[:, 700:], noise[:, 700:])
    assert low_pass(noise, (100, 50, 700, 650)).shape == (240, 427, 3)
    np.testing.assert_array_equal(noise, before)
