"""Tiny clips for the tests of source and sink, written with PyAV, and what can be read back from a file."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from gnr_video.frame import Image
from gnr_video.media.open import open_sink, open_source
from gnr_video.media.sink import VideoSink
from gnr_video.media.source import VideoSource

CLIPS = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "video"
"""Real clips that are no part of the repository; tests that want them skip without."""

needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason="needs the clips in ../shared/data/video")


def picture(width: int, height: int, index: int = 0) -> Image:
    """A smooth colourful picture with a bar that moves with `index`; uint8 HxWx3 RGB."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([60 + 120 * x / width, 60 + 120 * y / height, 120 + 50 * np.sin(x / 9 + y / 7)], -1)
    left = (index * 3) % max(1, width - 4)
    image[:, left : left + 4] = (200, 180, 40)
    return image.astype(np.uint8)


def make_clip(
    path: Path,
    *,
    size: tuple[int, int] = (64, 48),
    pts: Iterable[int] = range(12),
    time_base: Fraction = Fraction(1, 30),
    rate: Fraction = Fraction(30),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    images: Sequence[Image] | None = None,
    tags: tuple[int, int, int, int] | None = None,
    audio: str | None = None,
    audio_seconds: float | None = None,
    subtitles: Path | None = None,
    muxer_options: dict[str, str] | None = None,
) -> Path:
    """Write a clip by its extension.

    Args:
        pts: one number for each frame, in `time_base` units.
        images: the frames' pictures instead of `picture`.
        tags: (range, primaries, transfer, matrix) of ITU-T H.273, also used to convert.
        audio: an audio encoder ("aac", "libopus") for a 440 Hz tone as long as the video or `audio_seconds`.
        subtitles: an .srt file to be put in.
    """
    times = list(pts)
    with av.open(str(path), "w", container_options=muxer_options or {}) as out:
        speed = {"preset": "veryfast"} if codec == "libx264" else {}
        video: Any = out.add_stream(codec, rate=rate, options=speed | (options or {}))
        video.thread_count = 1
        video.width, video.height, video.pix_fmt = size[0], size[1], pix_fmt
        video.time_base = video.codec_context.time_base = time_base
        if tags:
            context = video.codec_context
            context.color_range, context.color_primaries, context.color_trc, context.colorspace = tags
        sound: Any = out.add_stream(audio, rate=48000) if audio else None
        text: Any = None
        lines = av.open(str(subtitles)) if subtitles else None
        if lines is not None:
            text = out.add_stream_from_template(lines.streams[0])
        packets: list[Any] = []
        for index, time in enumerate(times):
            image = images[index % len(images)] if images else picture(*size, index)
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            kwargs: dict[str, int] = {}
            if tags:
                kwargs = {"dst_colorspace": {6: 5}.get(tags[3], tags[3]), "dst_color_range": tags[0]}
            if pix_fmt != "rgb24":
                frame = frame.reformat(format=pix_fmt, **kwargs)
            frame.pts, frame.time_base = time, time_base
            packets += video.encode(frame)
        packets += video.encode(None)
        if sound is not None:
            seconds = audio_seconds or float((times[-1] + 1) * time_base)
            packets += _tone(sound, seconds)
        if lines is not None:
            for packet in lines.demux():
                if packet.size:
                    packet.stream = text
                    packets.append(packet)
        packets.sort(key=lambda p: float((p.dts if p.dts is not None else 0) * p.time_base))
        for packet in packets:
            out.mux(packet)
        if lines is not None:
            lines.close()
    return path


def _tone(stream: Any, seconds: float) -> list[Any]:
    packets: list[Any] = []
    rate, block = 48000, 960
    for start in range(0, int(seconds * rate), block):
        t = (start + np.arange(block)) / rate
        wave = (0.3 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        packets += stream.encode(frame)
    return [*packets, *stream.encode(None)]


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Overwrite the linear part of the display matrix in an mp4's (first) track header."""
    data = bytearray(path.read_bytes())
    box = data.index(b"tkhd") + 4
    matrix = box + (4 + 32 + 16 if data[box] == 1 else 4 + 20 + 16)
    data[matrix : matrix + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def copy(path: Path | str, target: Path | str, **options: Any) -> tuple[VideoSource, VideoSink]:
    """Source to sink with nothing in between; `start` and `end` go to the source."""
    part = {key: options.pop(key) for key in ("start", "end") if key in options}
    with open_source(path, **part) as source, open_sink(target, source, **options) as sink:
        for frame in source:
            sink.write(frame)
    return source, sink


def frame_times(path: Path | str) -> list[Fraction]:
    """The pts of each decoded frame, in seconds."""
    with av.open(str(path)) as container:
        return [f.pts * f.time_base for f in container.decode(video=0)]  # type: ignore[operator]


def read_packets(path: Path | str, kind: str = "audio") -> list[tuple[Fraction, bytes]]:
    """(pts in seconds, bytes) of each packet of the first stream of a kind; empty without such a stream."""
    with av.open(str(path)) as container:
        streams = [s for s in container.streams if s.type == kind]
        if not streams:
            return []
        packets = [p for p in container.demux(streams[0]) if p.size]
        return [(p.pts * p.time_base, bytes(p)) for p in packets]  # type: ignore[operator]


def read_pictures(path: Path | str) -> list[Image]:
    """All frames as the source gives them."""
    with open_source(path) as source:
        return [frame.image for frame in source]


def sound_only(clip: Path, target: Path) -> None:
    """A file of a clip's sound and nothing else."""
    with av.open(str(clip)) as source, av.open(str(target), "w", format="mp4") as out:
        stream = out.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
