"""Audio and subtitle packets are copied byte for byte, in time with the frames. Device: CPU."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from gnr_video.media.open import open_sink, open_source
from tests.media_helpers import copy, frame_times, make_clip, read_packets

SUBTITLES = "1\n00:00:00,100 --> 00:00:00,400\nHello\n\n2\n00:00:00,700 --> 00:00:00,900\nWorld\n"


@pytest.mark.parametrize("extension", ["mp4", "mov", "m4v"])
def test_aac_is_identical(tmp_path: Path, extension: str) -> None:
    clip = make_clip(tmp_path / "a.mp4", pts=range(30), audio="aac")
    _, sink = copy(clip, tmp_path / f"b.{extension}")
    packets = read_packets(clip)
    assert len(packets) > 40
    assert packets[0][0] < 0, "this clip should begin with the encoder's priming samples"
    assert read_packets(tmp_path / f"b.{extension}") == packets
    assert frame_times(tmp_path / f"b.{extension}") == frame_times(clip)
    assert sink.warnings == []


def test_mkv_keeps_sound_and_picture_together(tmp_path: Path) -> None:
    """Matroska has no times before zero: both move by the same amount, to the millisecond."""
    clip = make_clip(tmp_path / "a.mp4", pts=range(30), audio="aac")
    copy(clip, tmp_path / "b.mkv")
    before, after = read_packets(clip), read_packets(tmp_path / "b.mkv")
    assert [p[1] for p in after] == [p[1] for p in before]
    moved = [b[0] - a[0] for a, b in zip(before, after)]
    moved += [b - a for a, b in zip(frame_times(clip), frame_times(tmp_path / "b.mkv"))]
    assert max(moved) - min(moved) <= Fraction(1, 500)


@pytest.mark.parametrize(
    ("source", "target"), [("mkv", "mkv"), ("mkv", "webm"), ("webm", "mkv"), ("mkv", "mp4")]
)
def test_opus(tmp_path: Path, source: str, target: str) -> None:
    codec = "libvpx-vp9" if source == "webm" else "libx264"
    clip = make_clip(tmp_path / f"a.{source}", codec=codec, pts=range(30), audio="libopus")
    _, sink = copy(clip, tmp_path / f"b.{target}")
    assert [p[1] for p in read_packets(tmp_path / f"b.{target}")] == [p[1] for p in read_packets(clip)]
    assert sink.warnings == []


def test_a_gif_has_no_sound(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mkv", audio="aac")
    _, sink = copy(clip, tmp_path / "b.gif")
    assert read_packets(tmp_path / "b.gif") == []
    assert len(frame_times(tmp_path / "b.gif")) == 12
    (warning,) = sink.warnings
    assert "aac" in warning
    assert "gif" in warning


@pytest.mark.parametrize("seconds", [0.2, 3.0])
def test_audio_shorter_and_longer_than_the_video(tmp_path: Path, seconds: float) -> None:
    clip = make_clip(tmp_path / "a.mp4", pts=range(30), audio="aac", audio_seconds=seconds)
    copy(clip, tmp_path / "b.mp4")
    assert read_packets(tmp_path / "b.mp4") == read_packets(clip)


def test_subtitles(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text(SUBTITLES)
    clip = make_clip(tmp_path / "a.mkv", pts=range(30), audio="aac", subtitles=tmp_path / "a.srt")
    packets = read_packets(clip, "subtitle")
    assert [p[1] for p in packets] == [b"Hello", b"World"]
    _, sink = copy(clip, tmp_path / "b.mkv")
    assert read_packets(tmp_path / "b.mkv", "subtitle") == packets
    assert sink.warnings == []


@pytest.mark.parametrize(("start", "end"), [(0.5, 1.2), (0.33, None), (None, 0.8)])
def test_a_part_takes_its_sound_along(tmp_path: Path, start: float | None, end: float | None) -> None:
    clip = make_clip(tmp_path / "a.mp4", pts=range(60), audio="aac", options={"g": "10"})
    copy(clip, tmp_path / "b.mp4", start=start, end=end)
    first, last = Fraction(str(start or 0)), Fraction(str(end or 100))
    times = [t for t in frame_times(clip) if first <= t < last]
    shift = times[0] if start is not None else Fraction(0)
    assert frame_times(tmp_path / "b.mp4") == [t - shift for t in times]
    first = shift if start is not None else Fraction(-1)
    expected = [(t - shift, data) for t, data in read_packets(clip) if first <= t < last]
    result = read_packets(tmp_path / "b.mp4")
    assert [p[1] for p in result] == [p[1] for p in expected]
    # The shift is a number of whole samples: at most half a sample off, the same for all packets.
    off = {a[0] - b[0] for a, b in zip(result, expected)}
    assert len(off) == 1
    assert abs(off.pop()) <= Fraction(1, 96000)


def test_several_tracks_and_their_languages(tmp_path: Path) -> None:
    one = make_clip(tmp_path / "a.mkv", pts=range(30), audio="aac")
    two = make_clip(tmp_path / "b.mkv", pts=range(30), audio="libopus")
    with av.open(str(tmp_path / "c.mkv"), "w") as out, av.open(str(one)) as a, av.open(str(two)) as b:
        streams = {id(s): out.add_stream_from_template(s) for s in (*a.streams, *b.streams.audio)}
        for stream, language in zip(list(streams.values())[1:], ("jpn", "eng")):
            stream.metadata["language"] = language
        for container, chosen in ((a, list(a.streams)), (b, list(b.streams.audio))):
            for packet in container.demux(chosen):
                if packet.size:
                    packet.stream = streams[id(packet.stream)]
                    out.mux(packet)
    copy(tmp_path / "c.mkv", tmp_path / "d.mp4")
    with av.open(str(tmp_path / "d.mp4")) as container:
        found = [(s.codec_context.name, s.metadata.get("language")) for s in container.streams.audio]
    assert found == [("aac", "jpn"), ("opus", "eng")]


def test_packets_that_do_not_say_how_long_they_last(tmp_path: Path) -> None:
    """As FLAC's in NUT: the last one counts, too."""
    clip = make_clip(tmp_path / "a.mkv", pts=range(30), options={"bf": "0"})
    with av.open(str(clip)) as given, av.open(str(tmp_path / "a.nut"), "w") as out:
        pictures, sound = (
            out.add_stream_from_template(given.streams.video[0]),
            out.add_stream("flac", rate=48000),
        )
        packets = []
        for at in range(0, 48000, 4608):
            frame = av.AudioFrame.from_ndarray(np.full((1, 2 * 4608), at % 9, np.int16), "s16", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48000, at, Fraction(1, 48000)
            packets += sound.encode(frame)
        packets += sound.encode(None)
        for packet in given.demux():
            if packet.size:
                packet.stream = pictures
                packets.append(packet)
        for packet in sorted(packets, key=lambda one: one.dts * one.time_base):
            out.mux(packet)
    with av.open(str(tmp_path / "a.nut")) as container:
        lasts = [p.duration for p in container.demux(audio=0) if p.size]
    assert len(lasts) == 11 and not any(lasts)
    copy(tmp_path / "a.nut", tmp_path / "b.mp4")
    assert read_packets(tmp_path / "b.mp4") == read_packets(tmp_path / "a.nut")


def test_memory_is_bounded_by_the_interleaving(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", pts=range(120), audio="aac")
    longest = 0
    with open_source(clip) as source, open_sink(tmp_path / "b.mp4", source) as sink:
        queue = sink._copied._queue  # type: ignore[attr-defined]
        for frame in source:
            longest = max(longest, len(queue))
            sink.write(frame)
            assert len(queue) == 0
    assert longest < 60  # of 190; the decoder runs a few frames ahead


def test_packets_nobody_asked_for_are_not_kept(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", pts=range(30), audio="aac")
    with open_source(clip) as source:
        assert len(list(source)) == 30
        assert not source._held  # type: ignore[attr-defined]
