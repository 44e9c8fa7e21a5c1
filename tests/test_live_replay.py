"""The last seconds of what a live page shows, how much of them is kept, and the loops made of them. Device: CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import OutputError
from gnr_video.frame import Frame, Image
from gnr_video.live.replay import (
    FPS,
    REPLAY_SIDE,
    SECONDS,
    Moment,
    Replay,
    Stopped,
    make_loop,
    smaller,
    wipe_share,
)
from gnr_video.media.images import decode_jpeg, encode_jpeg, wiped
from tests.live_helpers import until
from tests.media_helpers import frame_times, read_pictures

RED, BLUE = (220, 20, 20), (20, 20, 220)


def plain(color: tuple[int, int, int], size: tuple[int, int] = (64, 48)) -> Image:
    return np.full((size[1], size[0], 3), color, np.uint8)


def color_of(image: Image) -> int:
    """0 for red, 2 for blue."""
    return int(image.reshape(-1, 3).mean(0).argmax())


class TestWipe:
    def test_one_picture_over_the_other(self) -> None:
        both = wiped(plain(RED), plain(BLUE), 0.25)
        assert color_of(both[:, :14]) == 2 and color_of(both[:, 18:]) == 0
        assert (both[:, 16] == 255).all()
        assert (wiped(plain(RED), plain(BLUE), 0.0) == plain(RED)).all()
        assert (wiped(plain(RED), plain(BLUE), 1.0) == plain(BLUE)).all()

    def test_a_loop_closes_smoothly(self) -> None:
        shares = [wipe_share(i / 100) for i in range(101)]
        assert (
            shares[0] == pytest.approx(0)
            and shares[50] == pytest.approx(1)
            and shares[100] == pytest.approx(0)
        )
        assert max(abs(b - a) for a, b in pairwise(shares)) < 0.04


class TestReplay:
    @pytest.fixture
    def replay(self) -> Iterator[Replay]:
        made = Replay()
        yield made
        made.close(20)

    def props(self, captured: float, before: Image) -> dict[str, Any]:
        return {"captured": captured, "before": lambda: before, "mirrored": False, "source": before}

    def show(self, replay: Replay, captured: float, size: tuple[int, int] = (64, 48)) -> None:
        """Show a picture that was red and is blue; wait until it is kept, or left out."""
        frame = Frame(plain(BLUE, size), 0, Fraction(1, 1000), 0, self.props(captured, plain(RED, size)))
        replay.show(frame)
        until(lambda: not len(replay.slot))

    def test_it_is_bounded_in_seconds_number_and_size(self, replay: Replay) -> None:
        for index in range(180):
            self.show(replay, index / 25)
        until(lambda: replay.moments() and replay.moments()[-1].captured > 179 / 25 - 1 / FPS)
        moments = replay.moments()
        assert 0.9 * SECONDS * FPS <= len(moments) <= SECONDS * FPS
        assert moments[-1].captured - moments[0].captured <= SECONDS
        assert len(replay._moments) <= SECONDS * FPS

    def test_it_keeps_small_pictures_of_before_and_after(self, replay: Replay) -> None:
        self.show(replay, 1.0, (1920, 1080))
        (moment,) = until(replay.moments)
        before, after = decode_jpeg(moment.before), decode_jpeg(moment.after)
        assert before is not None and after is not None
        assert before.shape == after.shape == (360, REPLAY_SIDE, 3)
        assert color_of(before) == 0 and color_of(after) == 2

    def test_what_may_not_be_shown_is_not_kept(self, replay: Replay) -> None:
        """The camera's picture is the session's to give; where it does not, what was shown stands for it."""
        props = {"captured": 1.0, "source": plain(RED)}
        replay.show(Frame(plain(BLUE), 0, Fraction(1, 1000), 0, props))
        (moment,) = until(replay.moments)
        before = decode_jpeg(moment.before)
        assert before is not None and color_of(before) == 2

    def test_a_slow_camera_is_kept_whole(self, replay: Replay) -> None:
        for index in range(30):
            self.show(replay, index / 12)
        until(lambda: len(replay.moments()) == 30)

    def test_the_camera_side_is_mirrored_as_the_picture_is(self) -> None:
        replay = Replay()
        left = plain(RED)
        left[:, :32] = BLUE
        props = self.props(1.0, left) | {"mirrored": True}
        replay.show(Frame(plain(RED), 0, Fraction(1, 1000), 0, props))
        (moment,) = until(replay.moments)
        before = decode_jpeg(moment.before)
        assert before is not None and color_of(before[:, :30]) == 0 and color_of(before[:, 34:]) == 2
        replay.close(20)

    def test_what_is_forgotten_does_not_come_back(self, replay: Replay) -> None:
        """Not even a picture that was on its way."""
        earlier = time.perf_counter() - 10
        self.show(replay, earlier)
        until(replay.moments)
        replay.forget()
        assert replay.moments() == []
        self.show(replay, earlier + 1)  # captured before
        later = time.perf_counter() + 1
        self.show(replay, later)
        assert [moment.captured for moment in until(replay.moments)] == [later]

    def test_pictures_of_another_camera_are_given_to_nobody(self) -> None:
        since = 0.0
        replay = Replay(lambda: since)
        for index in range(10):
            self.show(replay, float(index) / 10)
        until(lambda: len(replay.moments()) == 10)
        since = 0.75
        assert [moment.captured for moment in replay.moments()] == [0.8, 0.9]
        replay.close(20)

    @pytest.mark.parametrize("size", [(1920, 1080), (640, 480), (33, 21), (720, 1280), (2, 2)])
    def test_sizes_that_encoders_take(self, size: tuple[int, int]) -> None:
        width, height = smaller(size, REPLAY_SIDE)
        assert max(width, height) <= REPLAY_SIDE and width % 2 == height % 2 == 0
        if min(size) > 100:
            assert width / height == pytest.approx(size[0] / size[1], rel=0.02)


class TestLoop:
    @pytest.fixture
    def moments(self) -> list[Moment]:
        """A second and a half, red before and blue after."""
        red, blue = (encode_jpeg(plain(color, (128, 96))) for color in (RED, BLUE))
        return [Moment(100 + index / 20, red, blue) for index in range(30)]

    @pytest.mark.parametrize(("name", "count"), [("loop.mp4", 30), ("loop.gif", 15)])
    def test_it_plays_as_it_was(self, moments: list[Moment], tmp_path: Path, name: str, count: int) -> None:
        make_loop(moments, tmp_path / name)
        times = frame_times(tmp_path / name)
        assert len(times) == count
        assert float(times[-1] - times[0]) == pytest.approx(1.45, abs=0.06)
        pictures = read_pictures(tmp_path / name)
        assert all(image.shape == (96, 128, 3) and color_of(image) == 2 for image in pictures)

    @pytest.mark.parametrize("name", ["loop.mp4", "loop.gif"])
    def test_before_and_after(self, moments: list[Moment], tmp_path: Path, name: str) -> None:
        make_loop(moments, tmp_path / name, wipe=True)
        pictures = read_pictures(tmp_path / name)
        count = len(pictures)
        assert [color_of(pictures[i]) for i in (0, count // 2, count - 1)] == [0, 2, 0]
        quarter = pictures[round(count / 4)]
        assert color_of(quarter[:, :40]) == 2 and color_of(quarter[:, -40:]) == 0

    def test_nothing_to_loop(self, moments: list[Moment], tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="no picture yet"):
            make_loop(moments[:1], tmp_path / "loop.mp4")

    def test_it_can_be_given_up(self, moments: list[Moment], tmp_path: Path) -> None:
        with pytest.raises(Stopped):
            make_loop(moments, tmp_path / "loop.mp4", stopping=lambda: True)
        assert not list(tmp_path.iterdir())
