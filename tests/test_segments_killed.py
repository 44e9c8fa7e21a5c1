"""Translations killed at any moment: the next run of the same goes on, and comes to the same end. Device: CPU."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from gnr_video.samples.portrait import make_demo_clip
from tests.media_helpers import frame_times, read_packets
from tests.segment_server import Server
from tests.test_segments import SEAM, worst_psnr

KILLED = -9
FRAMES = 20


@pytest.mark.slow
@pytest.mark.timeout(1200)  # ten processes and more, on whatever machine
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_killed_ten_times(tiny: Path, face_model: Path, tmp_path: Path) -> None:
    clip = make_demo_clip(tmp_path / "in.mp4", seconds=2.0, fps=10, size=(320, 180))
    whole, target = tmp_path / "whole" / "out.mp4", tmp_path / "killed" / "out.mp4"
    for one in (whole, target):
        one.parent.mkdir()
    moments, kills = random.Random(0), 0
    with Server() as server:
        assert server.run(tiny, clip, whole) == 0
        while kills < 10:
            # While it starts, after a few frames, while it joins: progress is made by some, by others not.
            status = server.run(tiny, clip, target, kill_after=moments.choice([-1, *range(7), FRAMES]))
            assert status in (0, KILLED)
            kills += status == KILLED
            assert {one.name for one in target.parent.iterdir()} <= {"out.mp4", ".out.mp4.segments"}
            if target.exists():
                check(target, whole)
                target.unlink()
        assert server.run(tiny, clip, target) == 0
    check(target, whole)
    assert os.listdir(target.parent) == ["out.mp4"]


def check(target: Path, whole: Path) -> None:
    """What was killed on the way is what was not."""
    assert frame_times(target) == frame_times(whole)
    assert len(frame_times(target)) == FRAMES
    assert read_packets(target) == read_packets(whole) != []
    assert worst_psnr(target, whole) >= SEAM
