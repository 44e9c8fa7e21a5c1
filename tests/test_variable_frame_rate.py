"""Each frame comes out at the instant it came in, whatever the rate, offset or container. Device: CPU."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnr_video.media.open import open_source
from tests.media_helpers import CLIPS, copy, frame_times, make_clip, needs_clips, read_packets

IRREGULAR = [0, 33, 67, 100, 167, 200, 900, 901, 940, 1000, 1500, 1533]


def duration(path: Path) -> Fraction:
    """Of the video stream, in seconds, up to the end of its last frame."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if stream.duration is not None:
            return stream.duration * stream.time_base  # type: ignore[operator]
        return Fraction(container.duration or 0, 1_000_000)


def from_zero(path: Path) -> list[Fraction]:
    """The times of a clip's frames; where it has no sound, from the first on."""
    times = frame_times(path)
    return times if read_packets(path) else [t - times[0] for t in times]


@pytest.mark.parametrize("extension", ["mp4", "mov", "mkv", "webm"])
def test_irregular_times(tmp_path: Path, extension: str) -> None:
    clip = make_clip(tmp_path / "a.mkv", pts=IRREGULAR, time_base=Fraction(1, 1000))
    copy(clip, tmp_path / f"b.{extension}")
    assert frame_times(clip) == [Fraction(t, 1000) for t in IRREGULAR]
    assert frame_times(tmp_path / f"b.{extension}") == frame_times(clip)


@pytest.mark.parametrize(
    ("time_base", "step", "rate"),
    [
        (Fraction(1001, 30000), 1, Fraction(30000, 1001)),
        (Fraction(1, 30000), 1001, Fraction(30000, 1001)),
        (Fraction(1, 24000), 1001, Fraction(24000, 1001)),
        (Fraction(1, 90000), 1500, Fraction(60)),
        (Fraction(1, 25), 1, Fraction(25)),
        (Fraction(1, 1_000_000), 33_333, Fraction(30)),
    ],
)
def test_rates_stay_exact(tmp_path: Path, time_base: Fraction, step: int, rate: Fraction) -> None:
    clip = make_clip(tmp_path / "a.mp4", pts=range(0, 20 * step, step), time_base=time_base, rate=rate)
    copy(clip, tmp_path / "b.mp4")
    assert frame_times(tmp_path / "b.mp4") == frame_times(clip)
    assert duration(tmp_path / "b.mp4") == duration(clip)
    if time_base.denominator % 1001 == 0 or step == 1001:
        with open_source(tmp_path / "b.mp4") as source:
            assert source.info.average_rate == rate


@pytest.mark.parametrize("extension", ["mp4", "mov", "mkv"])
def test_a_first_pts_that_is_not_zero(tmp_path: Path, extension: str) -> None:
    clip = make_clip(tmp_path / "a.mkv", pts=[t + 1733 for t in IRREGULAR], time_base=Fraction(1, 1000))
    copy(clip, tmp_path / f"b.{extension}")
    assert frame_times(tmp_path / f"b.{extension}") == [Fraction(t, 1000) for t in IRREGULAR]


def test_the_last_frame_keeps_its_duration(tmp_path: Path) -> None:
    """Two slow frames: without it the video would end early, or by guess."""
    clip = make_clip(tmp_path / "a.mp4", pts=range(4), time_base=Fraction(1), rate=Fraction(1))
    for extension in ("mp4", "mov"):
        copy(clip, tmp_path / f"b.{extension}")
        assert duration(tmp_path / f"b.{extension}") == duration(clip) == 4


def test_gif_delays(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mkv", pts=[0, 100, 250, 300, 1000], time_base=Fraction(1, 1000))
    copy(clip, tmp_path / "b.gif")
    copy(tmp_path / "b.gif", tmp_path / "c.gif")
    copy(tmp_path / "b.gif", tmp_path / "d.mp4")
    for name in ("b.gif", "c.gif", "d.mp4"):
        assert frame_times(tmp_path / name) == frame_times(clip), name
    with open_source(tmp_path / "b.gif") as first, open_source(tmp_path / "c.gif") as second:
        assert [f.props["duration"] for f in first] == [f.props["duration"] for f in second]


def test_gif_faster_than_it_can_be_loses_no_frame(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mkv", pts=range(0, 60, 3), time_base=Fraction(1, 1000), rate=Fraction(333))
    _, sink = copy(clip, tmp_path / "b.gif")
    assert len(frame_times(tmp_path / "b.gif")) == 20
    assert any("100 frames a second" in w for w in sink.warnings)


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    gaps=st.lists(st.integers(1, 5000), min_size=1, max_size=12),
    start=st.integers(0, 100_000),
    unit=st.sampled_from([600, 1000, 11988, 15360, 90000]),
)
def test_any_times_survive_mp4(tmp_path: Path, gaps: list[int], start: int, unit: int) -> None:
    pts = [start + sum(gaps[:i]) for i in range(len(gaps) + 1)]
    clip = make_clip(tmp_path / "a.mp4", pts=pts, time_base=Fraction(1, unit), size=(16, 16))
    copy(clip, tmp_path / "b.mp4", overwrite=True)
    assert frame_times(tmp_path / "b.mp4") == from_zero(clip)


@needs_clips
@pytest.mark.parametrize("clip", sorted(CLIPS.glob("*.*")) if CLIPS.is_dir() else [], ids=lambda p: p.name)
def test_real_clips_pass_through(tmp_path: Path, clip: Path) -> None:
    """Same number of frames at the same instants, and the same audio packets at theirs (long clips: 1 s)."""
    times, audio = from_zero(clip), read_packets(clip)
    end = None if len(times) < 120 else 1.0
    source, sink = copy(clip, tmp_path / "b.mp4", end=end)
    stop = times[0] + Fraction(end or 10**6)
    assert frame_times(tmp_path / "b.mp4") == [t for t in times if t < stop]
    assert read_packets(tmp_path / "b.mp4") == [p for p in audio if p[0] < stop]
    assert source.warnings == sink.warnings == []


def test_pictures_of_an_avi_that_are_coded_out_of_order(tmp_path: Path) -> None:
    """AVI holds no display times: the pictures are a frame apart, in their order."""
    clip = make_clip(tmp_path / "a.avi", pts=range(20), time_base=Fraction(1, 30))
    copy(clip, tmp_path / "b.mp4")
    assert frame_times(tmp_path / "b.mp4") == [Fraction(i, 30) for i in range(20)]
