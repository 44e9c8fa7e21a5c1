"""Files joined by copying packets: the same as one file that was written at once. Device: CPU."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.errors import OutputError
from gnr_video.media.container_source import ContainerSource
from gnr_video.media.joining import Piece, decoding_order, join
from gnr_video.media.open import open_sink, open_source
from gnr_video.media.source import VideoSource
from tests.media_helpers import CLIPS, copy, make_clip, needs_clips, read_packets
from tests.test_transparency import transparent

SUBTITLES = "1\n00:00:00,100 --> 00:00:00,400\nHello\n\n2\n00:00:00,700 --> 00:00:00,900\nWorld\n"


def in_pieces(
    clip: Path, target: Path, cuts: Sequence[float], codec: str | None = None, **part: Any
) -> list[str]:
    """What `copy` does, but written in pieces that begin at some times, and joined."""
    pieces = []
    with open_source(clip, **part) as source:
        pictures = VideoSource()
        pictures.info = source.info
        frames = list(source)
    for number, (begin, end) in enumerate(zip([-1.0, *cuts], [*cuts, 1e9])):
        inside = [frame for frame in frames if begin <= frame.pts_seconds < end]
        if inside:
            path = target.with_name(f"{number}{target.suffix}")
            with open_sink(path, pictures, codec=codec) as sink:
                for frame in inside:
                    sink.write(frame)
            pieces.append(Piece(path, decoding_order(path)))
    with open_source(clip, **part) as source:
        assert isinstance(source, ContainerSource)
        warnings = join(pieces, source, target)
    assert not target.with_name(f".{target.stem}.part{target.suffix}").exists()
    return warnings


def packets(path: Path) -> list[list[tuple[Any, ...]]]:
    """What is in each stream: times of pictures as they are shown, and all of the packets of others."""
    with av.open(str(path)) as container:
        found: list[list[tuple[Any, ...]]] = [[] for _ in container.streams]
        decoded: list[Any] = []
        for packet in container.demux():
            if packet.pts is None:
                continue
            if packet.stream.type == "video":
                found[packet.stream_index].append((packet.pts,))
                decoded.append(packet.dts)
            else:
                found[packet.stream_index].append((packet.pts, packet.dts, packet.duration, bytes(packet)))
    if None not in decoded:
        assert decoded == sorted(set(decoded))
    return [sorted(stream) for stream in found]


def described(path: Path) -> list[tuple[Any, ...]]:
    with av.open(str(path)) as container:
        streams = [
            # Of text, FFmpeg knows the times only if it meets some early on.
            (s.type, s.codec_context.name, s.codec_context.codec_tag, s.time_base)
            + ((s.start_time, s.duration) if s.type != "subtitle" else ())
            for s in container.streams
        ]
        return [*streams, (container.metadata.get("title"), container.duration, container.start_time)]


@pytest.mark.parametrize(
    ("extension", "codec"),
    [("mp4", None), ("mov", None), ("mkv", None), ("webm", None), ("mp4", "h265"), ("mkv", "av1")],
)
def test_like_a_file_that_was_written_at_once(tmp_path: Path, extension: str, codec: str | None) -> None:
    if codec == "av1" and "libsvtav1" not in av.codecs_available:
        pytest.skip("needs libsvtav1")
    (tmp_path / "a.srt").write_text(SUBTITLES)
    sound = "libopus" if extension in ("mkv", "webm") else "aac"
    clip = make_clip(
        tmp_path / "a.mkv", size=(64, 64), pts=range(40), audio=sound, subtitles=tmp_path / "a.srt"
    )
    target = tmp_path / f"b.{extension}"
    _, sink = copy(clip, target, codec=codec)
    pieces = tmp_path / "in" / target.name
    pieces.parent.mkdir()
    warnings = in_pieces(clip, pieces, [0.3, 0.31, 0.9], codec)
    assert packets(pieces) == packets(target)
    assert described(pieces) == described(target)
    assert warnings == sink.warnings


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    gaps=st.lists(st.integers(1, 4000), min_size=2, max_size=14),
    cuts=st.lists(st.integers(1, 20_000), max_size=4, unique=True),
)
def test_whatever_the_times_and_the_cuts(tmp_path: Path, gaps: list[int], cuts: list[int]) -> None:
    """Also where frames are far apart, so that an encoder decodes the first of a piece long before."""
    pts = [sum(gaps[:i]) for i in range(len(gaps) + 1)]
    clip = make_clip(tmp_path / "a.mp4", pts=pts, time_base=Fraction(1, 600), size=(16, 16))
    copy(clip, tmp_path / "b.mp4", overwrite=True)
    for piece in tmp_path.glob("[0-9].mp4"):
        piece.unlink()
    in_pieces(clip, tmp_path / "c.mp4", sorted(cut / 600 for cut in cuts))
    assert packets(tmp_path / "c.mp4") == packets(tmp_path / "b.mp4")


def test_a_part_has_the_sound_of_the_part(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", pts=range(60), audio="aac")
    copy(clip, tmp_path / "b.mp4", start=0.7, end=1.5)
    in_pieces(clip, tmp_path / "c.mp4", [0.4], start=0.7, end=1.5)
    assert read_packets(tmp_path / "c.mp4") == read_packets(tmp_path / "b.mp4") != []


def test_transparency(tmp_path: Path) -> None:
    """VP9 has it beside its packets."""
    transparent(tmp_path / "a.webm", 8)
    copy(tmp_path / "a.webm", tmp_path / "b.webm")
    in_pieces(tmp_path / "a.webm", tmp_path / "c.webm", [0.15])
    with open_source(tmp_path / "b.webm") as whole, open_source(tmp_path / "c.webm") as joined:
        assert joined.info.has_alpha
        for one, other in zip(whole, joined, strict=True):
            assert one.alpha is not None and other.alpha is not None
            assert ((one.alpha == 0) == (other.alpha == 0)).mean() > 0.98


def test_pieces_of_different_encoders_are_refused(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", pts=range(20))
    copy(clip, tmp_path / "0.mp4", end=0.3)
    copy(make_clip(tmp_path / "b.mkv", size=(80, 48), pts=range(20, 40), audio="aac"), tmp_path / "1.mp4")
    pieces = [Piece(tmp_path / f"{i}.mp4", decoding_order(tmp_path / f"{i}.mp4")) for i in (0, 1)]
    with open_source(clip) as source, pytest.raises(OutputError, match="not of the same encoder"):
        assert isinstance(source, ContainerSource)
        join(pieces, source, tmp_path / "c.mp4")
    assert not list(tmp_path.glob(".*")) and not (tmp_path / "c.mp4").exists()


@needs_clips
@pytest.mark.parametrize("name", ["phone_portrait_audio.mp4", "vfr_small_face.mkv"])
def test_real_clips(tmp_path: Path, name: str) -> None:
    copy(CLIPS / name, tmp_path / "b.mp4", end=1.2)
    in_pieces(CLIPS / name, tmp_path / "c.mp4", [0.4, 0.9], end=1.2)
    assert packets(tmp_path / "c.mp4") == packets(tmp_path / "b.mp4")
    assert described(tmp_path / "c.mp4") == described(tmp_path / "b.mp4")
