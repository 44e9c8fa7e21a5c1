"""The clock of an output: from zero, without the input's jumps; a bad packet costs that packet. Device: none."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from gnr_video.media.adts import AdtsFrames
from gnr_video.media.open import open_source
from gnr_video.media.picture_decoder import PictureDecoder
from tests.media_helpers import copy, frame_times, make_clip, read_packets

FRAME = Fraction(1, 30)
BASE = 2000
"""Seconds at which the clocks of copies in Matroska begin, so that all times can be written."""


def remuxed(
    source: Path, target: Path, change: Callable[[Any, int], Any] = lambda packet, number: packet
) -> Path:
    """A copy of a clip, its packets one by one (by number within their stream) given to `change`; None: left out."""
    numbers: dict[int, int] = {}
    with av.open(str(source)) as given, av.open(str(target), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in given.streams}
        for packet in given.demux():
            if not packet.size:
                continue
            packet.dts = packet.pts
            number = numbers[packet.stream_index] = numbers.get(packet.stream_index, -1) + 1
            stream, changed = streams[packet.stream_index], change(packet, number)
            if changed is not None:
                if target.suffix == ".mkv":
                    # Matroska holds display times alone; those of decoding only have to rise, and be the lower ones.
                    changed.pts += round(BASE / changed.time_base)
                    changed.dts = sum(numbers.values()) - 2_000_000
                changed.stream = stream
                out.mux(changed)
    return target


def later(seconds: int) -> Callable[[Any, int], Any]:
    def change(packet: Any, number: int) -> Any:
        ticks = int(seconds / packet.time_base)
        packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        return packet

    return change


def clip(path: Path, seconds: float = 1.0) -> Path:
    return make_clip(path, pts=range(round(seconds * 30)), audio="aac", options={"bf": "0"})


def joined(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def spans(path: Path) -> dict[str, tuple[float, float]]:
    """Where picture and sound begin and end, seconds."""
    times = frame_times(path)
    sound = [t for t, _ in read_packets(path)]
    found = {"video": (float(times[0]), float(times[-1] + FRAME))}
    if sound:
        found["audio"] = (float(sound[0]), float(sound[-1]) + 1024 / 48000)
    return found


@pytest.mark.parametrize("seconds", [0, 3600, 36_000])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".gif"])
def test_a_recording_that_begins_late(tmp_path: Path, seconds: int, suffix: str) -> None:
    late = remuxed(clip(tmp_path / "a.mkv"), tmp_path / "late.ts", later(seconds))
    copy(late, tmp_path / f"out{suffix}")
    for begin, end in spans(tmp_path / f"out{suffix}").values():
        assert begin == pytest.approx(0, abs=0.06)
        assert end == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("offsets", [(0, 0, 0), (100, 0, 50), (0, 1000, 80_000)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_recordings_joined_end_to_end(tmp_path: Path, offsets: tuple[int, ...], suffix: str) -> None:
    parts = [
        remuxed(clip(tmp_path / "a.mkv"), tmp_path / f"{number}.ts", later(offset))
        for number, offset in enumerate(offsets)
    ]
    source, _ = copy(joined(tmp_path / "all.ts", *parts), tmp_path / f"out{suffix}")
    assert sum("clock jumps at 1.0 s" in text for text in source.warnings) == 1
    times = frame_times(tmp_path / f"out{suffix}")
    assert len(times) == 90
    steps = [b - a for a, b in pairwise(times)]
    assert max(steps) < 2.5 * FRAME
    found = spans(tmp_path / f"out{suffix}")
    assert found["video"][1] == pytest.approx(3, abs=0.1)
    assert found["audio"][1] == pytest.approx(3, abs=0.1)
    sound = [t for t, _ in read_packets(tmp_path / f"out{suffix}")]
    assert len(sound) > 3 * 45  # at most the overlaps are missing


def test_subtitles_follow_a_jump(tmp_path: Path) -> None:
    lines = tmp_path / "a.srt"
    lines.write_text(
        "1\n00:00:00,200 --> 00:00:00,600\nfirst\n\n2\n00:00:01,200 --> 00:00:01,500\nsecond\n\n"
    )
    whole = make_clip(tmp_path / "a.mkv", pts=range(60), audio="aac", subtitles=lines, options={"bf": "0"})

    def back(packet: Any, number: int) -> Any:
        if packet.pts * packet.time_base >= 1:
            ticks = round(1 / packet.time_base)
            packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
        return packet

    # Matroska takes times that fall.
    jumping = remuxed(whole, tmp_path / "b.mkv", back)
    copy(jumping, tmp_path / "out.mkv")
    assert [round(float(t), 1) for t, _ in read_packets(tmp_path / "out.mkv", "subtitle")] == [0.2, 1.2]


def test_a_gap_stays_a_gap(tmp_path: Path) -> None:
    """A file may have nothing to show for a while; only a broadcast's clock jumps ahead."""
    times = [*range(10), *range(600, 610)]
    make_clip(tmp_path / "a.mkv", pts=times)
    with open_source(tmp_path / "a.mkv") as source:
        assert [round(f.pts_seconds * 30) for f in source] == times
        assert not source.warnings


@pytest.mark.parametrize("change", [-1000, 1000, 5, -3])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_one_wrong_time_costs_one_packet(tmp_path: Path, change: int, suffix: str) -> None:
    """In a container whose own times are not looked at when it is written."""

    def wrong(packet: Any, number: int) -> Any:
        if packet.stream.type == "audio" and number == 20:
            ticks = round(change / packet.time_base)
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        return packet

    given = remuxed(clip(tmp_path / "a.mkv", 2), tmp_path / "b.mkv", wrong)
    source, sink = copy(given, tmp_path / f"out{suffix}")
    before, after = read_packets(tmp_path / "a.mkv"), read_packets(tmp_path / f"out{suffix}")
    assert len(before) - 1 <= len(after)
    last = max(float(t) for t, _ in after)
    assert last == pytest.approx(float(before[-1][0]), abs=0.05)
    assert any("impossible times" in text for text in [*source.warnings, *sink.warnings])


def test_equal_times(tmp_path: Path) -> None:
    def equal(packet: Any, number: int) -> Any:
        if packet.stream.type == "audio" and number == 20:
            ticks = round(Fraction(1024, 48000) / packet.time_base)
            packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
        return packet

    given = remuxed(clip(tmp_path / "a.mkv", 2), tmp_path / "b.mkv", equal)
    _, sink = copy(given, tmp_path / "out.mp4")
    assert len(read_packets(tmp_path / "out.mp4")) >= len(read_packets(tmp_path / "a.mkv")) - 1
    assert any("1 packets" in text for text in sink.warnings)


def test_a_broken_header_costs_its_packet(tmp_path: Path) -> None:
    """ADTS headers, which mp4 has to take apart. FFmpeg's parser loses what follows in the stream's packet."""
    given = remuxed(clip(tmp_path / "a.mkv", 2), tmp_path / "a.ts")
    whole = read_packets(given)
    data = given.read_bytes()
    # A packet of the transport stream may end within a frame.
    places = {i: data.index(frame[:40]) for i, (_, frame) in enumerate(whole) if data.count(frame[:40]) == 1}
    numbers = list(places)
    assert len(numbers) > 50
    swallowed = 0
    for broken in ([0, 20, 21], [10, 14, 40]):
        lost = [numbers[i] for i in broken]
        damaged = bytearray(data)
        for i in lost:
            damaged[places[i] : places[i] + 2] = b"\0\0"
        (tmp_path / "b.ts").write_bytes(damaged)
        kept = [one for i, one in enumerate(whole) if i not in lost]
        swallowed += len(
            {frame for _, frame in kept} - {frame for _, frame in read_packets(tmp_path / "b.ts")}
        )
        source, _ = copy(tmp_path / "b.ts", tmp_path / "out.mp4", overwrite=True)
        sound = read_packets(tmp_path / "out.mp4")
        assert [frame for _, frame in sound] == [frame[7:] for _, frame in kept]
        late = [float(now - before) for (now, _), (before, _) in zip(sound, kept)]
        assert max(late) - min(late) < 0.002
        assert any("packets of its audio are damaged" in text for text in source.warnings)
        assert len(frame_times(tmp_path / "out.mp4")) == 60
    assert swallowed > 5, "FFmpeg's parser is mended: adts.py can go"


def test_sound_that_changes_its_kind(tmp_path: Path) -> None:
    """As of a broadcast, stereo and then mono: nothing is taken for damage."""
    given = remuxed(clip(tmp_path / "a.mkv", 1), tmp_path / "a.ts")
    with av.open(str(given)) as container:
        (stream,) = container.streams.audio
        packets = [packet for packet in container.demux(stream) if packet.size]
        changed = [bytearray(bytes(packet)) for packet in packets]
        for data in changed[20:]:
            data[3] = data[3] & 0x3F | 0x40
        frames, out = AdtsFrames(stream), []
        for packet, data in zip(packets, changed):
            made = av.Packet(bytes(data))
            made.stream, made.pts, made.duration = stream, packet.pts, packet.duration
            out += [(one.pts, bytes(one)) for one in frames.put(made)]
        out += [(one.pts, bytes(one)) for one in frames.flush()]
        assert out == [(packet.pts, bytes(data)) for packet, data in zip(packets, changed)]
        assert not frames.damaged


def test_first_pictures_without_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come before the first that has one, and push nothing: as of a file whose times begin below zero."""
    make_clip(tmp_path / "a.mkv", pts=range(30), audio="aac", options={"bf": "0"})
    with open_source(tmp_path / "a.mkv") as source:
        expected = [f.pts_seconds for f in source]
    decoded, count = PictureDecoder._pictures, iter(range(30))

    def untimed(self: PictureDecoder, packet: Any) -> list[Any]:
        pictures = decoded(self, packet)
        for picture in pictures:
            if next(count) < 6:
                picture.pts = picture.dts = None
        return pictures

    monkeypatch.setattr(PictureDecoder, "_pictures", untimed)
    with open_source(tmp_path / "a.mkv") as source:
        assert [f.pts_seconds for f in source] == pytest.approx(expected, abs=0.004)


def test_what_is_whole_does_not_end_early(tmp_path: Path) -> None:
    """Frames that an AVI repeats by not holding them, and those that an edit list cuts off."""
    clip(tmp_path / "a.mp4", 2)
    make_clip(tmp_path / "a.avi", pts=[*range(10), *range(14, 20)], codec="mpeg4", time_base=FRAME)
    for name in ("a.mp4", "a.avi"):
        with open_source(tmp_path / name) as source:
            list(source)
            assert not source.warnings


def test_a_stream_that_was_interrupted(tmp_path: Path) -> None:
    """FLV, as recorders of live streams write it: the clock goes on while nothing comes."""

    def late(packet: Any, number: int) -> Any:
        if packet.pts * packet.time_base >= 1:
            later(100)(packet, number)
        return packet

    given = remuxed(clip(tmp_path / "a.mkv", 2), tmp_path / "b.flv", late)
    copy(given, tmp_path / "out.mp4")
    for begin, end in spans(tmp_path / "out.mp4").values():
        assert begin == pytest.approx(0, abs=0.06)
        assert end == pytest.approx(2, abs=0.15)


def test_sound_that_an_edit_list_cuts_off(tmp_path: Path) -> None:
    """It pushes nothing in a container that knows no negative times."""

    def early(packet: Any, number: int) -> Any:
        ticks = round(Fraction(1, 2) / packet.time_base)
        packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
        return packet

    # The muxer writes an edit list for times below zero.
    trimmed = remuxed(clip(tmp_path / "a.mkv", 2), tmp_path / "b.mp4", early)
    copy(trimmed, tmp_path / "out.mkv")
    assert float(frame_times(tmp_path / "out.mkv")[0]) < 0.15
