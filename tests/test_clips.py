"""Real clips through the whole pipeline: times, audio, the face and what is around it. Device: CPU.

The clips are no part of the repository: without `../shared/data/video` these tests skip. Most are cut short;
with the environment variable GNR_VIDEO_FULL_CLIPS=1 each is translated to its end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from gnr_video import Translator
from gnr_video.compositing.compositor import Compositor, Surroundings, paste
from gnr_video.frame import Alignment, FaceLayer, Image
from gnr_video.media.open import open_source
from gnr_video.options import EngineOptions, OutputOptions
from gnr_video.report import Report
from gnr_video.tracking.face_mesh import Mask
from tests.media_helpers import CLIPS, copy, needs_clips, read_packets

pytestmark = [needs_clips, pytest.mark.slow, pytest.mark.usefixtures("face_model", "no_threads_left")]

SECONDS: dict[str, float | None] = {
    "hands_over_face.mkv": 1.5,
    "hd_1280x720_audio.mp4": 0.8,
    "long_expressions_34s.mp4": 1.5,
    "phone_glasses_720x1280.mp4": 0.7,
    "phone_portrait_audio.mp4": 0.8,
    "two_faces.gif": None,
    "vfr_small_face.mkv": 2.0,
}
"""How much of each clip is translated; None: all."""

FULL = bool(os.environ.get("GNR_VIDEO_FULL_CLIPS"))


class Recorder(Compositor):
    """The usual compositor; it notes where the faces are put."""

    def __init__(self) -> None:
        super().__init__("head")
        self.placed: list[list[tuple[Alignment, Mask]]] = []
        self.changed: list[np.ndarray] = []

    def compose(self, image: Image, faces: Sequence[FaceLayer], *around: Surroundings) -> Image:
        out = super().compose(image, faces, *around)
        self.placed.append([(face.alignment, face.mask) for face in faces])
        self.changed.append(np.packbits((out != image).any(axis=2)))
        return out


@dataclass
class Run:
    """A clip that was translated."""

    clip: Path
    result: Path
    seconds: float | None
    report: Report
    placed: list[list[tuple[Alignment, Mask]]]
    """The faces of each frame."""
    changed: list[np.ndarray]
    """Bits of the pixels that pasting and tint changed, before they were encoded."""


@pytest.fixture(scope="module", params=sorted(SECONDS))
def run(
    request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    clip = CLIPS / request.param
    if not clip.is_file():
        pytest.skip(f"needs ../shared/data/video/{request.param}")
    seconds = None if FULL else SECONDS[request.param]
    result = tmp_path_factory.mktemp("clips") / f"{clip.stem}.mp4"
    with Translator(tiny, engine=EngineOptions("torch", precision="fp32", threads=1)) as translator:
        recorder = Recorder()
        translator.compositor = recorder
        report = translator.translate_video(clip, result, OutputOptions(end=seconds))
    yield Run(clip, result, seconds, report, recorder.placed, recorder.changed)
    result.unlink()


def expected_times(run: Run, kind: str) -> list[tuple[Fraction, bytes]]:
    """Times and contents of the input's packets of a kind, in order, up to where the translation ended.

    Without sound they begin at zero.
    """
    packets = sorted(read_packets(run.clip, kind), key=lambda p: p[0])
    first = min(time for time, _ in read_packets(run.clip, "video"))
    origin = Fraction(0) if read_packets(run.clip, "audio") else first
    end = Fraction(10**6) if run.seconds is None else Fraction(str(run.seconds)) + first
    return [(time - origin, data) for time, data in packets if time < end]


def test_every_frame_has_its_time(run: Run) -> None:
    expected = [time for time, _ in expected_times(run, "video")]
    found = sorted(time for time, _ in read_packets(run.result, "video"))
    assert found == expected
    assert run.report.frames == len(expected) > 15


def test_audio_is_untouched(run: Run) -> None:
    assert read_packets(run.result, "audio") == expected_times(run, "audio")


def test_a_face_is_found_nearly_always(run: Run) -> None:
    assert run.report.frames_without_face <= 0.1 * run.report.frames


def mask_of(placed: Sequence[tuple[Alignment, Mask]], shape: tuple[int, ...]) -> Mask:
    """Pixels of the frame that the pasted faces may change: 255, others 0."""
    canvas = np.zeros(shape, np.uint8)
    for alignment, mask in placed:
        paste(canvas, alignment, np.full((*mask.shape, 3), 255, np.uint8), mask)
    return np.asarray((canvas[..., 0] > 0) * 255, np.uint8)


def test_the_face_changes_and_nothing_else(run: Run, tmp_path: Path) -> None:
    """Changed pixels move with the head. Outside of it and of the tint the picture is as good as if it were only
    encoded again, without a translation."""
    plain = tmp_path / "plain.mp4"
    copy(run.clip, plain, end=run.seconds)
    squared = {"translated": 0.0, "plain": 0.0}
    outside = 0
    offsets, sides = [], []
    with (
        open_source(run.clip, end=run.seconds) as source,
        open_source(run.result) as result,
        open_source(plain) as encoded,
    ):
        for before, after, again, placed, bits in zip(
            source, result, encoded, run.placed, run.changed, strict=True
        ):
            mask = mask_of(placed, before.image.shape)
            # What is encoded together with the face, in blocks of at most 16 pixels, may be a little off.
            touched = np.unpackbits(bits, count=mask.size).reshape(mask.shape) * np.uint8(255)
            far = cv2.bitwise_not(cv2.dilate(cv2.max(mask, touched), np.ones((33, 33), np.uint8)))
            outside += 3 * cv2.countNonZero(far)
            for name, frame in (("translated", after), ("plain", again)):
                squared[name] += cv2.norm(frame.image, before.image, cv2.NORM_L2SQR, far)
            visible = [a for a, _ in placed if a.opacity > 0.8]
            if not visible:
                continue
            changed = np.max(cv2.absdiff(after.image, before.image), axis=2) > 30
            assert changed[mask > 0].mean() > 0.4
            rows, columns = np.nonzero(changed & (mask > 0))
            mask_rows, mask_columns = np.nonzero(mask)
            offsets.append((columns.mean() - mask_columns.mean(), rows.mean() - mask_rows.mean()))
            sides.append(256 * float(np.mean([a.scale for a in visible])))
    assert len(sides) > 0.8 * run.report.frames
    # Centroids of what changed and of where the head is, in sides of the crop.
    relative = np.array(offsets) / np.array(sides)[:, None]
    assert np.abs(relative).max() < 0.2
    assert relative.std(axis=0).max() < 0.06
    quality = {name: 10 * np.log10(255**2 * outside / total) for name, total in squared.items()}
    assert quality["plain"] > 33, quality
    assert quality["translated"] > quality["plain"] - 1.0, quality
