"""The sample clip: a face and sound, made out of a public-domain portrait.

The picture is NASA's portrait of Eileen Collins as scikit-image ships it (`skimage.data.astronaut`). A camera
moves over it along a known path, so the true motion of the face is known in every frame.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import InputError, OutputError
from engines.installation import install_line
from gnr_video.frame import Image

if TYPE_CHECKING:
    import av

SAMPLE_RATE = 48_000

_MARGIN = 64  # pixels of the portrait by which it is continued on every side
_ENLARGED = 3  # the camera looks at the portrait enlarged this much
_BT709 = 1  # in H.264's tables of primaries, transfer and matrix alike
_LIMITED_RANGE = 1


@dataclass(frozen=True)
class CameraPose:
    """Where the camera looks.

    Attributes:
        x, y: the point of the portrait in the middle of the frame, pixels of the portrait.
        zoom: frame pixels per portrait pixel, for a 1280x720 frame.
        angle: the picture's roll in radians, clockwise on the screen.
    """

    x: float
    y: float
    zoom: float
    angle: float

    def portrait_to_frame(self, size: tuple[int, int]) -> NDArray[np.float64]:
        """2x3 affine matrix from portrait pixels to pixels of a frame of `size` (width, height)."""
        width, height = size
        zoom = self.zoom * max(width / 1280.0, height / 720.0)
        a, b = zoom * math.cos(self.angle), zoom * math.sin(self.angle)
        cx, cy = (width - 1) / 2.0, (height - 1) / 2.0
        return np.array(
            [[a, -b, cx - a * self.x + b * self.y], [b, a, cy - b * self.x - a * self.y]], np.float64
        )


def camera_pose(phase: float) -> CameraPose:
    """The camera path: a slow push towards the face and back, with sway and roll; closed, so the clip loops.

    Args:
        phase: 0 at the start of the clip, 1 at its end.
    """
    turn = 2.0 * math.pi * phase
    return CameraPose(
        x=240.0 + 8.0 * math.cos(turn) + 16.0 * math.sin(2.0 * turn),
        y=134.0 + 10.0 * math.cos(turn) + 4.0 * math.sin(3.0 * turn),
        zoom=3.05 * math.exp(-0.16 * math.cos(turn)),
        angle=math.radians(4.5) * math.sin(turn) + math.radians(1.5) * math.sin(3.0 * turn),
    )


def portrait() -> Image:
    """The astronaut's portrait, uint8 512x512x3 RGB.

    Raises:
        InputError: scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise InputError(
            "the demo clip needs scikit-image, which holds its portrait", install_line("demo")
        ) from error
    return np.asarray(data.astronaut(), np.uint8)


def demo_frames(count: int, size: tuple[int, int] = (1280, 720)) -> Iterator[Image]:
    """The clip's pictures: uint8 HxWx3 RGB, one for each of `count` phases of the camera path."""
    canvas = _enlarged_portrait()
    # Pixel centres of the canvas in portrait coordinates.
    to_portrait = np.array(
        [
            [1 / _ENLARGED, 0, 0.5 / _ENLARGED - 0.5 - _MARGIN],
            [0, 1 / _ENLARGED, 0.5 / _ENLARGED - 0.5 - _MARGIN],
            [0, 0, 1],
        ]
    )
    for i in range(count):
        matrix = camera_pose(i / count).portrait_to_frame(size) @ to_portrait
        yield np.asarray(
            cv2.warpAffine(canvas, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101),
            np.uint8,
        )


def demo_sound(seconds: float) -> NDArray[np.float32]:
    """A quiet plucked melody, float32 2xN in [-1, 1] at 48 kHz, silent at both ends."""
    total = round(seconds * SAMPLE_RATE)
    sound = np.zeros((2, total + SAMPLE_RATE), np.float64)
    # Semitones above C4: one broken chord for each second and a half (C, A minor, F, G).
    chords = ((0, 7, 12, 16, 19, 16), (-3, 4, 9, 12, 16, 12), (-7, 5, 9, 12, 17, 12), (-5, 2, 7, 11, 14, 19))
    step = 0.25
    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    for i in range(math.ceil(seconds / step)):
        pitch = 261.63 * 2.0 ** (chords[i // 6 % len(chords)][i % 6] / 12.0)
        tone = sum(
            np.sin(2.0 * np.pi * pitch * n * t) * np.exp(-(2.5 + 2.5 * n) * t) / n**1.6 for n in range(1, 6)
        )
        tone = tone * np.minimum(t / 0.004, 1.0) * np.minimum((1.0 - t) / 0.05, 1.0)
        start = round(i * step * SAMPLE_RATE)
        right = 0.5 + 0.3 * math.sin(1.7 * i)
        stop = min(start + SAMPLE_RATE, sound.shape[1])
        for channel, gain in enumerate((math.sqrt(1.0 - right), math.sqrt(right))):
            sound[channel, start:stop] += gain * tone[: stop - start]
    # An echo that crosses from one side to the other.
    for delay, gain in ((0.19, 0.28), (0.38, 0.14)):
        shift = round(delay * SAMPLE_RATE)
        sound[:, shift:] += gain * sound[::-1, :-shift].copy()
    sound = sound[:, :total]
    fade = min(0.4, seconds / 4.0)
    clock = np.arange(total) / SAMPLE_RATE
    sound *= np.clip(np.minimum(clock, seconds - clock) / fade, 0.0, 1.0)
    return (0.5 * sound / max(np.abs(sound).max(initial=0.0), 1e-9)).astype(np.float32)


def make_demo_clip(
    path: str | Path,
    *,
    seconds: float = 6,
    fps: int | Fraction = 30,
    size: tuple[int, int] = (1280, 720),
) -> Path:
    """Write the demo clip: H.264 with BT.709 tags, and AAC stereo. The same arguments give the same file.

    Args:
        path: where to; the container follows the extension (mp4, mkv, mov).
        seconds: length; the camera path is run through once.
        fps: frames per second.
        size: (width, height) in pixels, both even.

    Returns:
        `path`.

    Raises:
        ValueError: an odd or empty size, or not a single frame.
        InputError: scikit-image is not installed.
        OutputError: the clip cannot be written.
    """
    import av

    path = Path(path)
    rate = Fraction(fps)
    count = round(seconds * rate)
    if count < 1 or min(size) < 2 or size[0] % 2 or size[1] % 2:
        raise ValueError(f"expected at least one frame and an even size, got {count} frames of {size}")
    frames = demo_frames(count, size)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        with av.open(str(partial), "w", options={"fflags": "+bitexact"}) as container:
            video = _video_stream(container, rate, size)
            audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo", options={"b": "128k"})
            sound = demo_sound(float(count / rate))
            written = 0
            for i, image in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
                    format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
                )
                frame.pts, frame.time_base = i, 1 / rate
                container.mux(video.encode(frame))
                # Sound goes along with the pictures, so that players need not seek.
                until = min(round((i + 1) / rate * SAMPLE_RATE), sound.shape[1])
                container.mux(audio.encode(_audio_frame(sound[:, written:until], written)))
                written = until
            container.mux(video.encode(None))
            container.mux(audio.encode(None))
        partial.replace(path)
    except (av.FFmpegError, OSError) as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}",
            "check the folder, its permissions and free space",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


def _enlarged_portrait() -> Image:
    """The portrait continued past its edges by a mirror image that blurs outwards, and enlarged."""
    picture = portrait()
    padded = cv2.copyMakeBorder(picture, _MARGIN, _MARGIN, _MARGIN, _MARGIN, cv2.BORDER_REFLECT_101)
    blurred = cv2.GaussianBlur(padded, (0, 0), 10)
    rows, columns = (np.arange(n + 2 * _MARGIN) - _MARGIN for n in picture.shape[:2])
    dy = np.maximum(np.maximum(-rows, rows - picture.shape[0] + 1), 0)
    dx = np.maximum(np.maximum(-columns, columns - picture.shape[1] + 1), 0)
    weight = np.clip(np.hypot(dy[:, None], dx[None, :]) / 24.0, 0.0, 1.0)[..., None]
    mixed = np.round(padded + weight * (blurred.astype(np.float64) - padded)).astype(np.uint8)
    side = (mixed.shape[1] * _ENLARGED, mixed.shape[0] * _ENLARGED)
    return np.asarray(cv2.resize(mixed, side, interpolation=cv2.INTER_LANCZOS4), np.uint8)


def _video_stream(container: Any, rate: Fraction, size: tuple[int, int]) -> av.VideoStream:
    import av

    try:
        # x264's macroblock tree reads memory it never wrote (with AVX-512): other bytes in every run.
        options = {"crf": "18", "preset": "veryfast", "mbtree": "0"}
        stream = container.add_stream("libx264", rate=rate, options=options)
    except av.codec.codec.UnknownCodecError:  # an FFmpeg built without GPL parts
        stream = container.add_stream("mpeg4", rate=rate, options={"q:v": "3"})
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    stream.time_base = stream.codec_context.time_base = 1 / rate
    context = stream.codec_context
    context.color_primaries = context.color_trc = context.colorspace = _BT709
    context.color_range = _LIMITED_RANGE
    context.thread_type = "AUTO"  # PyAV starts with slice threads, which x264 does not repeat exactly
    return cast("av.VideoStream", stream)


def _audio_frame(samples: NDArray[np.float32], start: int) -> av.AudioFrame:
    import av

    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout="stereo")
    frame.sample_rate = SAMPLE_RATE
    frame.pts, frame.time_base = start, Fraction(1, SAMPLE_RATE)
    return frame
