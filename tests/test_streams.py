"""What else is in a file: several video streams, chapters, covers, timecodes, keys of phones. Device: none."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import pytest
from av.stream import Disposition

from engines.errors import InputError
from gnr_video.media.open import open_source
from tests.media_helpers import copy, frame_times, make_clip, picture, read_packets


def combined(
    path: Path,
    *parts: Path,
    default: int | None = None,
    muxer_options: dict[str, str] | None = None,
    **metadata: str,
) -> Path:
    """The streams of several clips in one file; `default` is the video stream that is flagged so."""
    inputs = [av.open(str(part)) for part in parts]
    with av.open(str(path), "w", container_options=muxer_options or {}) as out:
        streams: dict[tuple[int, int], Any] = {}
        packets = []
        for number, given in enumerate(inputs):
            for stream in given.streams:
                made = out.add_stream_from_template(stream)
                if default is not None and stream.type == "video":
                    made.disposition = Disposition.default if number == default else Disposition(0)
                streams[number, stream.index] = made
            packets += [(number, packet) for packet in given.demux() if packet.size]
        out.metadata.update(metadata)
        for number, packet in sorted(packets, key=lambda one: one[1].dts * one[1].time_base):
            packet.stream = streams[number, packet.stream_index]
            out.mux(packet)
    for given in inputs:
        given.close()
    return path


def small_and_large(folder: Path, suffix: str = ".mkv") -> list[Path]:
    options = {"bf": "0"}
    return [
        make_clip(folder / f"small{suffix}", size=(64, 48), audio="aac", options=options),
        make_clip(folder / f"large{suffix}", size=(128, 96), audio="aac", audio_seconds=0.2, options=options),
    ]


def size(path: Path, **options: Any) -> tuple[int, int]:
    with open_source(path, **options) as source:
        next(iter(source))
        return source.info.size


def test_the_default_video_stream(tmp_path: Path) -> None:
    small, large = small_and_large(tmp_path)
    for default, expected in ((1, (128, 96)), (0, (64, 48))):
        both = combined(tmp_path / f"{default}.mkv", small, large, default=default)
        with open_source(both) as source:
            assert source.info.size == expected
            assert any("2 video streams" in text and "--stream" in text for text in source.warnings)
        assert size(both, stream=0) == (64, 48)
        assert size(both, stream=1) == (128, 96)
        with pytest.raises(InputError, match="no video stream 2"):
            open_source(both, stream=2)
    with open_source(small) as source:
        assert not source.warnings


def test_the_best_variant_of_a_master_playlist(tmp_path: Path) -> None:
    """With the sound of that variant only."""
    lines = ["#EXTM3U"]
    for number, clip in enumerate(small_and_large(tmp_path, ".ts")):
        with open_source(clip) as source:
            width, height = source.info.size
        lines += [f"#EXT-X-STREAM-INF:BANDWIDTH={400_000 * (number + 1)},RESOLUTION={width}x{height}"]
        lines += [f"{clip.stem}.m3u8"]
        (tmp_path / f"{clip.stem}.m3u8").write_text(
            f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-VERSION:3\n#EXTINF:0.4,\n{clip.name}\n#EXT-X-ENDLIST\n"
        )
    (tmp_path / "master.m3u8").write_text("\n".join(lines) + "\n")
    copy(tmp_path / "master.m3u8", tmp_path / "out.mp4")
    assert size(tmp_path / "out.mp4") == (128, 96)
    with av.open(str(tmp_path / "out.mp4")) as made:
        assert len(made.streams.audio) == 1
    assert float(read_packets(tmp_path / "out.mp4")[-1][0]) < 0.25
    assert size(tmp_path / "master.m3u8", stream=0) == (64, 48)


def with_chapters(path: Path) -> Path:
    clip = make_clip(path.with_name(f"plain{path.suffix}"), pts=range(60))
    with av.open(str(clip)) as given, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        unit = Fraction(1, 1000)
        out.set_chapters(
            [
                {
                    "id": i,
                    "start": 1000 * i,
                    "end": 1000 * (i + 1),
                    "time_base": unit,
                    "metadata": {"title": name},
                }
                for i, name in enumerate(("One", "Two"))
            ]
        )
        for packet in given.demux():
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return path


def chapters(path: Path) -> list[tuple[str, float, float]]:
    with av.open(str(path)) as container:
        return [
            (c["metadata"]["title"], float(c["start"] * c["time_base"]), float(c["end"] * c["time_base"]))
            for c in container.chapters()
        ]


@pytest.mark.parametrize("given", [".mkv", ".mp4"])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_chapters(tmp_path: Path, given: str, suffix: str) -> None:
    clip = with_chapters(tmp_path / f"a{given}")
    _, sink = copy(clip, tmp_path / f"b{suffix}")
    assert chapters(tmp_path / f"b{suffix}") == [("One", 0, 1), ("Two", 1, 2)]
    assert not sink.warnings
    copy(clip, tmp_path / f"c{suffix}", start=0.5, end=1.5)
    assert chapters(tmp_path / f"c{suffix}") == [
        ("One", 0, pytest.approx(0.5, abs=0.04)),
        ("Two", pytest.approx(0.5, abs=0.04), pytest.approx(1.0, abs=0.04)),
    ]


def test_chapters_that_are_left_out_are_named(tmp_path: Path) -> None:
    _, sink = copy(with_chapters(tmp_path / "a.mkv"), tmp_path / "b.gif")
    assert any("chapters" in text for text in sink.warnings)


def covered(path: Path) -> Path:
    clip = make_clip(path.with_name("plain.mp4"), audio="aac", options={"bf": "0"})
    _, jpeg = cv2.imencode(".png", picture(32, 32))
    image = path.with_name("cover.png")
    image.write_bytes(jpeg.tobytes())
    with av.open(str(clip)) as given, av.open(str(image)) as art, av.open(str(path), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in given.streams}
        cover = out.add_stream_from_template(art.streams[0])
        cover.disposition = Disposition.attached_pic
        (packet,) = [p for p in art.demux() if p.size]
        packet.stream, packet.pts, packet.dts = cover, 0, 0
        out.mux(packet)
        for packet in given.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mkv", ".mov", ".webm"])
def test_a_cover_picture(tmp_path: Path, suffix: str) -> None:
    clip = covered(tmp_path / "a.mp4")
    _, sink = copy(clip, tmp_path / f"b{suffix}")
    with av.open(str(tmp_path / f"b{suffix}")) as made:
        covers = [s for s in made.streams.video if s.disposition & Disposition.attached_pic]
        if suffix in (".mov", ".webm"):
            assert not covers
            assert any("cover" in text for text in sink.warnings)
        else:
            assert [(s.width, s.height) for s in covers] == [(32, 32)]
            assert not sink.warnings
    assert len(frame_times(tmp_path / f"b{suffix}")) == 12
    with open_source(tmp_path / f"b{suffix}") as again:
        assert again.info.size == (64, 48)


def test_a_song_with_a_cover_is_no_video(tmp_path: Path) -> None:
    with av.open(str(covered(tmp_path / "a.mp4"))) as given:
        kept = [s for s in given.streams if s.type == "audio" or s.disposition & Disposition.attached_pic]
        with av.open(str(tmp_path / "b.m4a"), "w", format="mp4") as out:
            streams = {s.index: out.add_stream_from_template(s) for s in kept}
            for stream in kept:
                streams[stream.index].disposition = stream.disposition
            for packet in given.demux(kept):
                if packet.size:
                    packet.stream = streams[packet.stream_index]
                    out.mux(packet)
    with pytest.raises(InputError, match="no video stream, only a cover picture and audio"):
        open_source(tmp_path / "b.m4a")


@pytest.mark.parametrize(
    ("rate", "timecode", "kept"),
    [
        (25, "01:00:00:00", True),
        (Fraction(30000, 1001), "01:00:00;00", True),
        (25, "01:00:00;00", False),
        (300, "01:00:00:00", False),
        (25, "nonsense", False),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_timecodes(tmp_path: Path, rate: Fraction, timecode: str, kept: bool, suffix: str) -> None:
    clip = make_clip(
        tmp_path / "plain.mkv", rate=Fraction(rate), time_base=1 / Fraction(rate), options={"bf": "0"}
    )
    tagged = combined(tmp_path / "a.mkv", clip, timecode=timecode)
    _, sink = copy(tagged, tmp_path / f"b{suffix}")
    with av.open(str(tmp_path / f"b{suffix}")) as made:
        found = [s.metadata["timecode"] for s in made.streams if "timecode" in s.metadata]
    assert bool(found) == kept
    assert all(text == timecode for text in found)
    assert any("timecode" in text for text in sink.warnings) != kept


def test_keys_of_phones(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "plain.mp4")
    keys = {
        "com.apple.quicktime.location.ISO6709": "+48.8577+002.2950+035.000/",
        "com.apple.quicktime.make": "Apple",
        "title": "A title",
    }
    with av.open(str(clip)) as given:
        movflags = {"movflags": "use_metadata_tags"}
        with av.open(str(tmp_path / "a.mov"), "w", container_options=movflags) as out:
            stream = out.add_stream_from_template(given.streams.video[0])
            out.metadata.update(keys)
            for packet in given.demux():
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
    for suffix in (".mp4", ".mov"):
        copy(tmp_path / "a.mov", tmp_path / f"b{suffix}")
        with av.open(str(tmp_path / f"b{suffix}")) as made:
            assert keys.items() <= made.metadata.items()


def test_data_tracks_are_named(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mkv", options={"bf": "0"})
    with av.open(str(clip)) as given, av.open(str(tmp_path / "b.ts"), "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        data = out.add_data_stream("klv")
        for number, packet in enumerate(p for p in given.demux() if p.size):
            packet.stream = stream
            out.mux(packet)
            note = av.Packet(b"\x06\x0e\x2b\x34" + bytes(16))
            note.pts = note.dts = number * 3000
            note.time_base, note.stream = Fraction(1, 90000), data
            out.mux(note)
    _, sink = copy(tmp_path / "b.ts", tmp_path / "c.mp4")
    assert any("data tracks are left out" in text for text in sink.warnings)


def test_captions_inside_pictures_are_named(tmp_path: Path) -> None:
    said = b"\xb5\x00\x31GA94\x03\x41\xff\xfc\x94\x2c\xff"
    caption = b"\x06\x04" + bytes([len(said)]) + said + b"\x80"
    stream = b""
    with av.open(str(make_clip(tmp_path / "a.ts", options={"bf": "0"}))) as given:
        for packet in given.demux(video=0):
            for unit in bytes(packet).split(b"\0\0\1")[1:]:
                is_picture = unit[0] & 31 in (1, 5)
                stream += b"".join(b"\0\0\1" + part for part in ([caption] if is_picture else []) + [unit])
    (tmp_path / "b.h264").write_bytes(stream)
    for name, is_named in (("a.ts", False), ("b.h264", True)):
        with open_source(str(tmp_path / name)) as source:
            assert any("closed captions" in text for text in source.info.warnings) is is_named


@pytest.mark.parametrize("rate", [25, 300, 960])
def test_rates_of_cameras_are_believed(tmp_path: Path, rate: int) -> None:
    clip = make_clip(tmp_path / "a.mp4", rate=Fraction(rate), time_base=Fraction(1, rate))
    with open_source(clip) as source:
        assert source.info.average_rate == rate
