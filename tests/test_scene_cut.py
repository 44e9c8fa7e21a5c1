"""Hard cuts are found; flashes, pans, zooms and noise are none. Device: CPU."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from gnr_video.tracking.scene_cut import SceneCut

SIZE = (640, 360)


def cuts(frames: Iterable[np.ndarray]) -> list[int]:
    detector = SceneCut()
    return [i for i, frame in enumerate(frames) if detector.is_cut(frame)]


def place(seed: int) -> np.ndarray:
    """A made-up scene: coloured blobs, 1280x720, in hues of its own."""
    rng = np.random.default_rng(seed)
    picture = cv2.GaussianBlur(rng.normal(0, 1, (180, 320, 3)).astype(np.float32), (0, 0), 12)
    picture = rng.uniform(50, 200, 3) + 60 * picture / picture.std()
    return cv2.resize(np.clip(picture, 0, 255).astype(np.uint8), (1280, 720))


def window(picture: np.ndarray, x: float, y: float, zoom: float = 1.0) -> np.ndarray:
    matrix = np.array([[zoom, 0, x], [0, zoom, y]])
    return cv2.warpAffine(
        picture, matrix, SIZE, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
    )


def noisy(frame: np.ndarray, seed: int, sigma: float = 6.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, frame.shape)
    return np.clip(frame + noise, 0, 255).astype(np.uint8)


def talking(n: int, speed: float = 30.0) -> list[np.ndarray]:
    """A portrait that swings by `speed` pixels a frame at most."""
    picture = cv2.resize(astronaut(), (1024, 1024))
    return [noisy(window(picture, 200 + speed * 3 * np.sin(i / 3), 100), i) for i in range(n)]


def test_cuts_between_scenes() -> None:
    scenes = [talking(12), *([noisy(window(place(s), 100, 80), i) for i in range(12)] for s in (1, 2, 3))]
    assert cuts(frame for scene in scenes for frame in scene) == [12, 24, 36]


def stage(seed: int, n: int, *, speed: float = 2.0) -> list[np.ndarray]:
    """A singer in a spotlight that moves over a dark stage, with a camera's noise."""
    rng = np.random.default_rng(seed)
    face = cv2.resize(astronaut()[:320, 100:420], (240, 240))
    x, y, tint = rng.uniform(0, 360), rng.uniform(0, 110), rng.uniform(0.5, 1.0, 3)
    frames = []
    for i in range(n):
        frame = np.full((SIZE[1], SIZE[0], 3), 8, np.float32)
        left, top = round(x + speed * i) % 400, round(y)
        light = np.exp(-(((np.mgrid[0:240, 0:240] - 120) / 80.0) ** 2).sum(0))[..., None]
        frame[top : top + 240, left : left + 240] += light * face * tint
        frames.append(noisy(frame, i, 2.0))
    return frames


def test_cuts_in_dark_scenes() -> None:
    scenes = [stage(seed, 15) for seed in (1, 3, 4)]
    assert cuts(frame for scene in scenes for frame in scene) == [15, 30]


def test_motion_and_strobes_in_dark_scenes_are_no_cuts() -> None:
    assert cuts(stage(6, 20, speed=14)) == []
    frames = stage(3, 30)
    strobe = [cv2.convertScaleAbs(f, alpha=1.8 if i % 6 == 5 else 1.0) for i, f in enumerate(frames)]
    assert cuts(strobe) == []
    assert cuts(cv2.convertScaleAbs(f, alpha=0.2) for f in talking(60, speed=60)) == []


@pytest.mark.parametrize("length", [1, 2])
def test_short_scenes(length: int) -> None:
    frames = [*talking(10), *[window(place(4), 0, 0)] * length, *[window(place(5), 0, 0)] * 5]
    assert cuts(frames) == [10, 10 + length]


def test_fast_head_motion_is_no_cut() -> None:
    assert cuts(talking(60, speed=60)) == []


def test_pan_and_zoom_are_no_cuts() -> None:
    assert cuts(window(place(1), 12 * i, 3 * i) for i in range(50)) == []
    assert cuts(window(place(2), 0, 0, 1.8 * 0.97**i) for i in range(40)) == []


def test_exposure_and_flash_are_no_cuts() -> None:
    frames = talking(30)
    exposure = [cv2.convertScaleAbs(f, alpha=0.5 + 0.02 * i, beta=i) for i, f in enumerate(frames)]
    assert cuts(exposure) == []
    flash = list(frames)
    flash[15] = cv2.convertScaleAbs(frames[15], alpha=1.2, beta=70)
    assert cuts(flash) == []


def test_the_end_of_a_white_flash_is_no_cut() -> None:
    frames = talking(30, speed=5)
    frames[15] = np.full_like(frames[15], 255)
    assert 16 not in cuts(frames)


def test_a_cross_fade_is_at_most_one_cut() -> None:
    a, b = window(place(1), 0, 0), window(place(2), 0, 0)
    assert len(cuts(cv2.addWeighted(a, 1 - i / 20, b, i / 20, 0) for i in range(21))) <= 1


def test_still_and_flat_pictures() -> None:
    flat = np.full((360, 640, 3), 128, np.uint8)
    assert cuts(noisy(flat, i) for i in range(30)) == []
    assert cuts([np.zeros_like(flat)] * 10) == []


@pytest.mark.parametrize("shape", [(16, 16), (1, 1), (5, 900)])
def test_tiny_frames(shape: tuple[int, int]) -> None:
    assert cuts([np.full((*shape, 3), v, np.uint8) for v in (0, 0, 0)]) == []


def test_reset_makes_the_next_frame_a_first_one() -> None:
    detector = SceneCut()
    for frame in talking(5):
        assert not detector.is_cut(frame)
    detector.reset()
    assert not detector.is_cut(place(1))
