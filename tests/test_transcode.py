"""Sound and subtitles that a container cannot hold are encoded anew, in time with the frames. Device: CPU."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from gnr_video.media.open import open_sink, open_source
from tests.dts_helpers import with_dts
from tests.media_helpers import copy, frame_times, make_clip, read_packets

RATE = 48_000
SUBTITLES = "1\n00:00:00,100 --> 00:00:00,400\nHello\n\n2\n00:00:00,700 --> 00:00:00,900\n<i>World</i>, two\n"


def chirp(seconds: float, rate: int, start: float = 0.0) -> NDArray[np.float32]:
    """A tone that rises from 300 to 300 + 400 Hz a second, so that each moment is told from the others."""
    t = start + np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * (300 * t + 200 * t * t))).astype(np.float32)


def with_sound(
    path: Path,
    encoder: str,
    sound: NDArray[np.float32],
    *,
    rate: int = RATE,
    layout: str = "stereo",
    gap: tuple[float, float] | None = None,
) -> Path:
    """Two seconds of picture with this sound; `gap`: from when on it comes later, and by how many seconds."""
    silent = make_clip(path.with_name("silent.mp4"), pts=range(60))
    channels = av.AudioLayout(layout).nb_channels
    with av.open(str(silent)) as video, av.open(str(path), "w") as out:
        pictures = out.add_stream_from_template(video.streams.video[0])
        stream = out.add_stream(encoder, rate=rate, layout=layout)
        if encoder == "wmav2":
            stream.bit_rate = 128_000
        packets = []
        for packet in video.demux(video=0):
            if packet.size:
                packet.stream = pictures
                packets.append(packet)
        for at in range(0, len(sound) - 1024, 1024):
            block = np.tile(sound[at : at + 1024], (channels, 1))
            frame = av.AudioFrame.from_ndarray(block, "fltp", layout)
            late = round(gap[1] * rate) if gap and at >= gap[0] * rate else 0
            frame.sample_rate, frame.pts, frame.time_base = rate, at + late, Fraction(1, rate)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        packets.sort(key=lambda p: float(p.dts * p.time_base))
        for packet in packets:
            out.mux(packet)
    return path


def hear(path: Path, seconds: float = 2.5) -> tuple[NDArray[np.float32], float]:
    """The first channel at 48 kHz, each sample at its time from 0 on; and when the sound ends, seconds.

    Times are rounded in some containers: only a step of more than 10 ms counts as one.
    """
    heard, end = np.zeros(round(seconds * RATE), np.float32), None
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("fltp", "stereo", RATE)
        for frame in [*container.decode(audio=0), None]:
            for made in resampler.resample(frame):
                at = round(float(made.pts * made.time_base) * RATE)
                if end is not None and abs(at - end) < 0.01 * RATE:
                    at = end
                end = at + made.samples
                values = made.to_ndarray()[0][max(0, -at) :]
                at = max(0, at)
                heard[at : at + len(values)] = values[: max(0, len(heard) - at)]
    return heard, (end or 0) / RATE


def likeness(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[float, float]:
    """Largest normalised correlation, and the delay at which it is reached, in seconds."""
    n = 2 * len(a)
    product = np.fft.irfft(np.fft.rfft(b, n) * np.conj(np.fft.rfft(a, n)), n)
    at = int(np.argmax(product))
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(product[at]) / norm, (at if at < len(a) else at - n) / RATE


@pytest.mark.parametrize(
    ("encoder", "rate", "layout", "source", "target", "made"),
    [
        ("aac", 48_000, "stereo", "mp4", "webm", "opus"),
        ("aac", 44_100, "mono", "mp4", "webm", "opus"),
        ("aac", 22_050, "stereo", "mkv", "webm", "opus"),
        ("ac3", 48_000, "5.1", "mkv", "webm", "opus"),
        ("libopus", 48_000, "stereo", "mkv", "mov", "aac"),
        ("pcm_s16le", 44_100, "stereo", "mkv", "m4v", "aac"),
    ],
)
def test_sound_stays_in_time(
    tmp_path: Path, encoder: str, rate: int, layout: str, source: str, target: str, made: str
) -> None:
    clip = with_sound(tmp_path / f"a.{source}", encoder, chirp(2.0, rate), rate=rate, layout=layout)
    _, sink = copy(clip, tmp_path / f"b.{target}")
    with av.open(str(tmp_path / f"b.{target}")) as container:
        context = container.streams.audio[0].codec_context
        assert context.name == made
        assert context.sample_rate == RATE
        assert context.layout.name == ("mono" if layout == "mono" else "stereo")
    before, end_before = hear(clip)
    after, end_after = hear(tmp_path / f"b.{target}")
    assert abs(end_after - end_before) < 0.05
    assert after.std() == pytest.approx(before.std(), rel=0.1)
    similar, delay = likeness(before, after)
    assert similar > 0.95
    assert abs(delay) < 0.005
    (warning,) = sink.warnings
    mixed = " in stereo" if layout == "5.1" else ""
    assert warning.startswith("audio (") and f"becomes {made}{mixed}: .{target} cannot hold it" in warning
    assert len(frame_times(tmp_path / f"b.{target}")) == 60


def test_a_gap_stays_a_gap(tmp_path: Path) -> None:
    clip = with_sound(tmp_path / "a.mkv", "aac", chirp(1.6, RATE), gap=(0.8, 0.3))
    copy(clip, tmp_path / "b.webm")
    before, _ = hear(clip)
    after, end = hear(tmp_path / "b.webm")
    assert end == pytest.approx(1.9, abs=0.05)
    for part in (slice(0, round(0.75 * RATE)), slice(round(1.15 * RATE), round(1.8 * RATE))):
        similar, delay = likeness(before[part], after[part])
        assert similar > 0.95
        assert abs(delay) < 0.01
    assert np.abs(after[round(0.86 * RATE) : round(1.05 * RATE)]).max() < 0.05


def test_a_clock_that_jumps_makes_no_hours_of_silence(tmp_path: Path) -> None:
    clip = with_sound(tmp_path / "a.mkv", "aac", chirp(1.6, RATE), gap=(0.8, 30_000.0))
    copy(clip, tmp_path / "b.webm")
    assert len(read_packets(tmp_path / "b.webm")) < 120


def test_a_part_takes_its_sound_along(tmp_path: Path) -> None:
    clip = with_sound(tmp_path / "a.mp4", "aac", chirp(2.0, RATE))
    copy(clip, tmp_path / "b.webm", start=0.5, end=1.5)
    before, _ = hear(clip)
    after, end = hear(tmp_path / "b.webm")
    assert end == pytest.approx(1.0, abs=0.05)
    similar, delay = likeness(before[RATE // 2 : RATE], after[: RATE // 2])
    assert similar > 0.9
    assert abs(delay) < 0.025  # a packet of AAC is the finest cut


def test_damaged_sound_is_missing_only_where_it_is(tmp_path: Path) -> None:
    clip = with_sound(tmp_path / "a.mkv", "ac3", chirp(2.0, RATE))
    data = bytearray(clip.read_bytes())
    bodies = [body for _, body in read_packets(clip)]
    for body in bodies[len(bodies) // 2 : len(bodies) // 2 + 3]:
        at = data.index(body)
        data[at : at + len(body)] = bytes(len(body))
    clip.write_bytes(data)
    _, sink = copy(clip, tmp_path / "b.webm")
    after, end = hear(tmp_path / "b.webm")
    assert end == pytest.approx(2.0, abs=0.06)
    similar, _ = likeness(chirp(2.5, RATE)[: RATE * 3 // 4], after[: RATE * 3 // 4])
    assert similar > 0.95
    assert any("is damaged" in warning for warning in sink.warnings)


def test_what_a_decoder_still_holds_at_the_end(tmp_path: Path) -> None:
    """Windows Media's gives it without a time."""
    clip = with_sound(tmp_path / "a.wmv", "wmav2", chirp(2.0, RATE))
    source, sink = copy(clip, tmp_path / "b.mp4")
    assert not any("left out" in text for text in [*source.warnings, *sink.warnings])
    heard, end = hear(tmp_path / "b.mp4")
    with av.open(str(clip)) as container:
        frames = list(container.decode(audio=0))
    assert frames[-1].pts is None
    assert end == pytest.approx(frames[0].time + sum(frame.samples for frame in frames) / RATE, abs=0.03)
    assert np.abs(heard[round((end - 0.04) * RATE) : round(end * RATE)]).max() > 0.1


@pytest.mark.parametrize(
    ("target", "made"), [("mp4", "aac"), ("mov", "aac"), ("webm", "opus"), ("mkv", "dca")]
)
def test_dts(tmp_path: Path, target: str, made: str) -> None:
    """It can be put into mp4, but few players look for it there."""
    clip = with_dts(tmp_path / "a.mkv", make_clip(tmp_path / "silent.mp4", pts=range(60)), 2.0)
    _, sink = copy(clip, tmp_path / f"b.{target}")
    with av.open(str(tmp_path / f"b.{target}")) as container:
        assert container.streams.audio[0].codec_context.name == made
    assert any("becomes" in text for text in sink.warnings) == (made != "dca")
    (before, end_before), (after, end_after) = hear(clip), hear(tmp_path / f"b.{target}")
    assert np.abs(before).max() > 0.1
    assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before), rel=0.1)
    assert end_after == pytest.approx(end_before, abs=0.06)


def test_what_is_held_is_bounded(tmp_path: Path) -> None:
    """What comes out of it lags behind what goes in by less than a fifth of a second."""
    clip = with_sound(tmp_path / "a.mp4", "aac", chirp(2.0, RATE))
    with open_source(clip) as source, open_sink(tmp_path / "b.webm", source) as sink:
        (copied,) = sink._copied._streams.values()  # type: ignore[attr-defined]
        given: list[float] = []
        came: list[float] = []
        push = copied.transcoder.push

        def watched(packet):
            given.append(float(packet.pts * packet.time_base))
            for made in push(packet):
                came.append(float(made.pts * made.time_base))
                yield made
            if len(given) > 10:
                assert given[-1] - came[-1] < 0.2

        copied.transcoder.push = watched
        for frame in source:
            sink.write(frame)
    assert len(came) > 80


@pytest.mark.parametrize(
    ("target", "texts"),
    [
        ("mp4", [b"\x00\x05Hello", b"\x00\x0aWorld, two"]),
        ("webm", [b"Hello", b"<i>World</i>, two"]),
    ],
)
def test_subtitles_become_what_the_container_holds(tmp_path: Path, target: str, texts: list[bytes]) -> None:
    (tmp_path / "a.srt").write_text(SUBTITLES)
    clip = make_clip(tmp_path / "a.mkv", pts=range(30), subtitles=tmp_path / "a.srt")
    _, sink = copy(clip, tmp_path / f"b.{target}")
    found = [(at, text) for at, text in read_packets(tmp_path / f"b.{target}", "subtitle") if len(text) > 2]
    assert [text[: len(wanted)] for (_, text), wanted in zip(found, texts, strict=True)] == texts
    assert [float(at) for at, _ in found] == pytest.approx([0.1, 0.7], abs=0.01)
    assert "subtitle (srt) becomes" in sink.warnings[0]


@pytest.mark.parametrize(
    ("encoder", "given", "target", "expected"),
    [
        ("vorbis", ".mkv", ".mp4", "aac"),
        ("mp2", ".mkv", ".mp4", "aac"),
        ("vorbis", ".mkv", ".mov", "aac"),
        ("pcm_s16le", ".mov", ".m4v", "aac"),
        ("pcm_s16le", ".mkv", ".mov", "pcm_s16le"),
        ("vorbis", ".mkv", ".webm", "vorbis"),
        ("mp2", ".mkv", ".mkv", "mp2"),
        ("libmp3lame", ".mkv", ".mp4", "mp3"),
        ("libopus", ".mkv", ".mp4", "opus"),
    ],
)
def test_sound_that_few_players_find_is_encoded_anew(
    tmp_path: Path, encoder: str, given: str, target: str, expected: str
) -> None:
    rate = 48_000
    clip = make_clip(tmp_path / "silent.mp4", pts=range(30))
    path = tmp_path / f"a{given}"
    with av.open(str(clip)) as video, av.open(str(path), "w") as out:
        pictures = out.add_stream_from_template(video.streams.video[0])
        stream = out.add_stream(encoder, rate=rate, layout="stereo", options={"strict": "experimental"})
        kind = {"pcm_s16le": "s16", "libopus": "flt", "mp2": "s16"}.get(encoder, "fltp")
        stream.codec_context.format = kind
        resampler = av.AudioResampler(kind, "stereo", rate)
        packets = [packet for packet in video.demux(video=0) if packet.size]
        for packet in packets:
            packet.stream = pictures
        sound = chirp(1.0, rate)
        for at in range(0, len(sound) - 1024, 1024):
            frame = av.AudioFrame.from_ndarray(np.tile(sound[at : at + 1024], (2, 1)), "fltp", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
            for each in resampler.resample(frame):
                packets += stream.encode(each)
        packets += stream.encode(None)
        for packet in sorted(packets, key=lambda p: float(p.dts * p.time_base)):
            out.mux(packet)
    copy(path, tmp_path / f"b{target}")
    with av.open(str(tmp_path / f"b{target}")) as made:
        assert made.streams.audio[0].codec_context.codec.canonical_name == expected
