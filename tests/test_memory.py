"""Memory stays flat however long a video is: a short run of the benchmark. Device: CPU."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from benchmarks.memory import BAR, make_input, measure


@pytest.mark.usefixtures("face_model")
@pytest.mark.slow
def test_the_peak_does_not_grow(tiny: Path) -> None:
    """120 frames between the two readings: if each left its picture behind, that would be 80 MiB, 15 %."""
    result = measure(4, 16, fps=10, size=(640, 360), weights=str(tiny), engine="torch", timeout=200)
    assert result.frames == 160
    assert result.early_mb > 100
    assert 0 <= result.growth <= BAR
    assert len(result.samples) == 20


def test_the_input_lasts_as_long_as_asked_for(tmp_path: Path) -> None:
    with av.open(str(make_input(tmp_path / "in.mp4", 9, 5, (64, 48)))) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        ends = [float(s.duration * s.time_base) for s in (video, audio)]  # type: ignore[operator]
        times = [round(float(f.time), 6) for f in container.decode(video)]
    assert times == [i / 5 for i in range(45)]
    assert ends == pytest.approx([9, 9], abs=0.05)
