"""Beats of a sound track: found where they are, in any container. Device: CPU. Needs librosa (extra `beat`)."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from engines.errors import InputError
from engines.installation import install_line
from gnr_video.styles.beats import find_beats
from tests.media_helpers import make_clip

RATE = 44100


def write_clicks(path: Path, codec: str, period: float, seconds: float) -> Path:
    """Short bursts of noise every `period` seconds from 0.25 s on, stereo."""
    wave = np.zeros(round(seconds * RATE), np.float32)
    noise = np.random.default_rng(0).normal(0, 0.3, 900).astype(np.float32) * np.linspace(
        1, 0, 900, dtype=np.float32
    )
    for start in np.arange(0.25, seconds - 0.1, period):
        at = round(start * RATE)
        wave[at : at + 900] += noise[: len(wave) - at]
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=RATE, layout="stereo")
        for at in range(0, len(wave), 1024):
            block = np.stack([wave[at : at + 1024]] * 2)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
            resampled = av.AudioResampler(format=stream.format, layout="stereo", rate=RATE).resample(frame)
            for part in resampled:
                out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("name", "codec"), [("a.wav", "pcm_s16le"), ("b.mkv", "flac")])
@pytest.mark.slow
def test_a_steady_click(tmp_path: Path, name: str, codec: str) -> None:
    pytest.importorskip("librosa", reason="needs librosa")
    # Longer than a block, so that its edge is in the test.
    beats = find_beats(write_clicks(tmp_path / name, codec, 0.5, 36.0))
    times = np.array(beats.times)
    assert 66 <= len(times) <= 73
    assert np.abs((times - 0.25 + 0.25) % 0.5 - 0.25).max() < 0.06
    assert np.diff(times) == pytest.approx(0.5, abs=0.08)


def test_silence_and_no_sound(tmp_path: Path) -> None:
    pytest.importorskip("librosa", reason="needs librosa")
    silent = make_clip(tmp_path / "mute.mp4")
    with pytest.raises(InputError, match="no sound track") as caught:
        find_beats(silent)
    assert "--bpm" in caught.value.hint
    quiet = write_clicks(tmp_path / "quiet.wav", "pcm_s16le", 100.0, 0.2)
    with pytest.raises(InputError, match="no beat"):
        find_beats(quiet)
    with pytest.raises(InputError, match="cannot be opened"):
        find_beats(tmp_path / "none.mp4")


def test_a_pipe_cannot_be_listened_to() -> None:
    with pytest.raises(InputError, match="only once"):
        find_beats("-")


def test_without_librosa_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "librosa", None)
    with pytest.raises(InputError, match="librosa") as caught:
        find_beats(tmp_path / "a.mp4")
    assert install_line("beat") in caught.value.hint
