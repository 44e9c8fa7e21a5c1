"""The demo clip: a known camera path over a portrait, with sound. Device: CPU."""

from __future__ import annotations

import math
import re
import sys
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from engines.errors import InputError, OutputError
from engines.installation import install_line
from gnr_video import demo
from gnr_video.samples.portrait import (
    SAMPLE_RATE,
    camera_pose,
    demo_frames,
    demo_sound,
    make_demo_clip,
    portrait,
)

SIZE = (320, 180)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_demo_clip(tmp_path_factory.mktemp("demo") / "clip.mp4", seconds=1, fps=10, size=SIZE)


def decoded(path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [
            frame.reformat(
                format="rgb24", src_colorspace=frame.colorspace, src_color_range=frame.color_range
            ).to_ndarray()
            for frame in container.decode(video=0)
        ]


def test_clip_has_the_frames_times_and_tags_asked_for(clip):
    with av.open(str(clip)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.width, video.height) == SIZE
        assert video.average_rate == 10
        assert audio.codec_context.name == "aac"
        assert audio.codec_context.sample_rate == SAMPLE_RATE
        context = video.codec_context
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (
            1,
            1,
            1,
            1,
        )
        times = [frame.time for frame in container.decode(video)]
    np.testing.assert_allclose(times, np.arange(10) / 10, atol=1e-6)


def test_clip_shows_the_pictures_that_were_drawn(clip):
    frames = decoded(clip)
    drawn = list(demo_frames(10, SIZE))
    assert len(frames) == len(drawn)
    for one, other in zip(frames, drawn):
        assert cv2.PSNR(one, other) > 28
        # A wrong matrix or range would shift the mean colour.
        assert np.abs(one.mean(axis=(0, 1)) - other.mean(axis=(0, 1))).max() < 2


def test_clip_sounds_and_lasts_as_long_as_its_pictures(clip):
    with av.open(str(clip)) as container:
        sound = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert sound.shape[0] == 2
    assert abs(sound.shape[1] / SAMPLE_RATE - 1.0) < 0.05
    assert 0.02 < np.sqrt(np.mean(sound**2)) < 0.4
    assert np.abs(sound).max() < 0.9


def test_the_same_arguments_give_the_same_file(clip, tmp_path):
    again = make_demo_clip(tmp_path / "again.mp4", seconds=1, fps=10, size=SIZE)
    assert again.read_bytes() == clip.read_bytes()
    assert list(tmp_path.iterdir()) == [again]


def test_ntsc_rates_stay_exact(tmp_path):
    file = make_demo_clip(tmp_path / "ntsc.mp4", seconds=0.2, fps=Fraction(30000, 1001), size=(64, 64))
    with av.open(str(file)) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
        assert len(list(container.decode(video=0))) == 6


def test_frames_follow_the_camera_path():
    """Phase correlation between the portrait seen through the path's inverse and the portrait itself."""
    still = cv2.cvtColor(portrait(), cv2.COLOR_RGB2GRAY).astype(np.float32)
    face = (slice(30, 190), slice(140, 320))
    window = cv2.createHanningWindow((180, 160), cv2.CV_32F)
    count = 5
    for i, frame in enumerate(demo_frames(count, (640, 360))):
        back = cv2.invertAffineTransform(camera_pose(i / count).portrait_to_frame((640, 360)))
        seen = cv2.warpAffine(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32), back, (512, 512))
        shift, response = cv2.phaseCorrelate(still[face], seen[face], window)
        assert np.hypot(*shift) < 0.1
        assert response > 0.5


def test_the_path_is_closed_smooth_and_keeps_the_face_in_the_frame():
    phases = np.arange(181) / 180
    poses = [camera_pose(p) for p in phases]
    for name in ("x", "y", "zoom", "angle"):
        values = np.array([getattr(pose, name) for pose in poses])
        assert values[0] == pytest.approx(values[-1], abs=1e-9)
        assert np.ptp(values) > 0, f"{name} moves"
    for size in ((1280, 720), (720, 1280), (640, 640)):
        matrices = np.array([pose.portrait_to_frame(size) for pose in poses])
        # The eyes' midpoint, chin and hair of the portrait.
        points = matrices @ np.array([[227, 227, 227], [103, 180, 20], [1, 1, 1]], float)
        assert (points[:, 0] > 0.1 * size[0]).all()
        assert (points[:, 0] < 0.9 * size[0]).all()
        assert (points[:, 1, :2] > 0.1 * size[1]).all()
        assert (points[:, 1, :2] < 0.95 * size[1]).all()
        step = np.abs(np.diff(points, axis=0)).max()
        assert step < 0.02 * max(size), "no jump between frames at 30 fps"


def test_the_frame_never_leaves_the_continued_portrait():
    """Beyond the margin the picture would repeat without blur."""
    low, high = -64.0, 512.0 + 64.0
    for size in ((1280, 720), (720, 1280)):
        corners = np.array([[0, size[0] - 1, 0, size[0] - 1], [0, 0, size[1] - 1, size[1] - 1], [1, 1, 1, 1]])
        for phase in np.arange(60) / 60:
            back = cv2.invertAffineTransform(camera_pose(phase).portrait_to_frame(size))
            seen = back @ corners
            assert seen.min() > low
            assert seen.max() < high


def test_sound_is_silent_at_both_ends_and_stereo():
    sound = demo_sound(2.0)
    assert sound.shape == (2, 2 * SAMPLE_RATE)
    assert sound.dtype == np.float32
    assert np.abs(sound[:, :50]).max() < 1e-3
    assert np.abs(sound[:, -50:]).max() < 1e-3
    assert not np.allclose(sound[0], sound[1])
    spectrum = np.abs(np.fft.rfft(sound[0]))
    strongest = np.argmax(spectrum) / 2.0
    assert min(abs(12 * math.log2(strongest / 440) - round(12 * math.log2(strongest / 440))), 1) < 0.25, (
        "in tune"
    )


def test_missing_scikit_image_names_the_line_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(InputError, match=re.escape(install_line("demo"))):
        make_demo_clip(tmp_path / "clip.mp4", seconds=0.1, size=(64, 64))
    assert list(tmp_path.iterdir()) == []


def test_bad_targets_and_sizes(tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        make_demo_clip(tmp_path / "missing" / "clip.mp4", seconds=0.1, size=(64, 64))
    for options in ({"size": (63, 64)}, {"size": (0, 64)}, {"seconds": 0}):
        with pytest.raises(ValueError, match="even size"):
            make_demo_clip(tmp_path / "clip.mp4", **options)
    assert list(tmp_path.iterdir()) == []


def test_command_line_reports_errors_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert demo.main([str(tmp_path / "out")]) == InputError.exit_code
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "scikit-image" in captured.err
