"""Transport streams with several programmes: one is read, with its own sound only. Device: none."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from engines.errors import InputError
from gnr_video.media.formats import Head
from gnr_video.media.open import open_source
from gnr_video.media.programmes import Programme, read_programmes
from tests.media_helpers import copy, make_clip, read_packets

PACKET = 188
TABLE_EVERY = 40
"""Packets between two tables of programmes."""


def recording(path: Path, number: int, **options: Any) -> Path:
    """A transport stream of one programme, whose streams count from 256 `number` on; its table is 4096 + `number`."""
    own = {
        "mpegts_service_id": str(number),
        "mpegts_start_pid": str(256 * number),
        "mpegts_pmt_start_pid": str(4096 + number),
    }
    return make_clip(path, muxer_options=own, options={"bf": "0"}, **options)


def only_sound(path: Path, given: Path, number: int) -> Path:
    own = {"mpegts_service_id": str(number), "mpegts_start_pid": str(256 * number)}
    own["mpegts_pmt_start_pid"] = str(4096 + number)
    with av.open(str(given)) as source, av.open(str(path), "w", container_options=own) as out:
        stream = out.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return path


def crc(data: bytes) -> bytes:
    value = 0xFFFFFFFF
    for bit in (byte >> shift & 1 for byte in data for shift in range(7, -1, -1)):
        value = (value << 1) & 0xFFFFFFFF ^ (0x04C11DB7 if (value >> 31) ^ bit else 0)
    return value.to_bytes(4, "big")


def table(numbers: list[int], count: int) -> bytes:
    """A packet with the table of programmes; the first entry is, as in broadcasts, the network's."""
    entries = b"\0\0\xe0\x10" + b"".join(
        n.to_bytes(2, "big") + (0xE000 | 4096 + n).to_bytes(2, "big") for n in numbers
    )
    section = b"\0" + (0xB000 | 9 + len(entries)).to_bytes(2, "big") + b"\0\1\xc1\0\0" + entries
    packet = b"\x47\x40\0" + bytes([0x10 | count & 15]) + b"\0" + section + crc(section)
    return packet.ljust(PACKET, b"\xff")


def multiplexed(path: Path, numbers: list[int], *parts: Path, spacing: int = PACKET) -> Path:
    """Transport streams as the programmes of one; `numbers` is the order in its table."""
    kept = []
    for part in parts:
        data = part.read_bytes()
        packets = [data[i : i + PACKET] for i in range(0, len(data), PACKET)]
        own = [p for p in packets if (p[1] & 0x1F) << 8 | p[2] not in (0, 0x11)]
        kept += [(i / len(own), packet) for i, packet in enumerate(own)]
    out = []
    for i, (_, packet) in enumerate(sorted(kept, key=lambda one: one[0])):
        if i % TABLE_EVERY == 0:
            out.append(table(numbers, i // TABLE_EVERY))
        out.append(packet)
    extra = bytes(spacing - PACKET)
    path.write_bytes(b"".join(extra + packet for packet in out))
    return path


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("programmes")
    small = recording(folder / "small.ts", 1, size=(64, 48), audio="aac")
    large = recording(folder / "large.ts", 2, size=(128, 96), audio="aac", audio_seconds=0.2)
    silent = recording(folder / "silent.ts", 3, size=(96, 64))
    radio = only_sound(folder / "radio.ts", small, 4)
    return {"small": small, "large": large, "silent": silent, "radio": radio}


def written(path: Path) -> tuple[tuple[int, int], float]:
    """The size of a video and where its last sound begins, seconds; 0 without any."""
    with open_source(path) as source:
        size = source.info.size
    with av.open(str(path)) as made:
        assert len(made.streams.audio) <= 1
    sound = read_packets(path)
    return size, float(sound[-1][0]) if sound else 0.0


@pytest.mark.parametrize("spacing", [188, 192])
def test_the_first_programme(tmp_path: Path, parts: dict[str, Path], spacing: int) -> None:
    """By the table, whatever the order or the size of its streams."""
    for numbers, size, until in (([1, 2], (64, 48), 0.38), ([2, 1], (128, 96), 0.18)):
        both = multiplexed(tmp_path / "both.ts", numbers, parts["small"], parts["large"], spacing=spacing)
        source, _ = copy(both, tmp_path / "out.mp4", overwrite=True)
        found, last = written(tmp_path / "out.mp4")
        assert found == size
        assert last == pytest.approx(until, abs=0.06)
        (said,) = [text for text in source.warnings if "--stream" in text]
        assert "64x48 of programme 1" in said and "128x96 of programme 2" in said


def test_another_programme(tmp_path: Path, parts: dict[str, Path]) -> None:
    both = multiplexed(tmp_path / "both.ts", [1, 2], parts["small"], parts["large"])
    with open_source(both) as source:
        (said,) = source.warnings
    for number, text in enumerate(said.partition("(")[2].split(",")[:2]):
        with open_source(both, stream=number) as source:
            assert f"{source.info.width}x{source.info.height} " in text
            (own,) = [s for s in source.streams_to_copy() if s.type == "audio"]
            assert own.id // 256 == (1 if source.info.width == 64 else 2)
            assert not source.warnings
    with pytest.raises(InputError, match="no video stream 2") as caught:
        open_source(both, stream=2)
    assert "programme" in caught.value.hint


def test_no_other_s_sound(tmp_path: Path, parts: dict[str, Path]) -> None:
    """A programme without sound stays silent; one of sound alone is passed over, and said."""
    both = multiplexed(tmp_path / "both.ts", [3, 1], parts["silent"], parts["small"])
    copy(both, tmp_path / "silent.mp4")
    assert written(tmp_path / "silent.mp4") == ((96, 64), 0)
    both = multiplexed(tmp_path / "radio.ts", [4, 2], parts["radio"], parts["large"])
    source, _ = copy(both, tmp_path / "out.mp4")
    size, last = written(tmp_path / "out.mp4")
    assert size == (128, 96) and last < 0.25
    assert any("2 programmes (4, 2): 2," in text for text in source.warnings)


def test_several_sounds_of_a_programme(tmp_path: Path, parts: dict[str, Path]) -> None:
    """As of films in two languages: all of its own."""
    with av.open(str(parts["small"])) as one, av.open(str(parts["small"])) as two:
        own = {"mpegts_service_id": "1", "mpegts_start_pid": "256", "mpegts_pmt_start_pid": "4097"}
        with av.open(str(tmp_path / "two.ts"), "w", container_options=own) as out:
            given = [(one, one.streams.video[0]), (one, one.streams.audio[0]), (two, two.streams.audio[0])]
            for container, stream, made in [(c, s, out.add_stream_from_template(s)) for c, s in given]:
                container.seek(0)
                for packet in container.demux(stream):
                    if packet.size:
                        packet.stream = made
                        out.mux(packet)
    both = multiplexed(tmp_path / "both.ts", [1, 2], tmp_path / "two.ts", parts["large"])
    with open_source(both) as source:
        assert [s.id for s in source.streams_to_copy()] == [257, 258]


def test_a_pipe(parts: dict[str, Path], tmp_path: Path) -> None:
    """What is looked at is read again."""
    both = multiplexed(tmp_path / "both.ts", [2, 1], parts["small"], parts["large"])
    head = Head(both.open("rb", buffering=0), "a pipe")
    found = read_programmes(head)
    assert [one.number for one in found] == [2, 1]
    assert head.read() == both.read_bytes()
    head.close()


def test_tables(tmp_path: Path, parts: dict[str, Path]) -> None:
    both = multiplexed(tmp_path / "both.ts", [1, 2], parts["small"], parts["large"])
    whole = [Programme(1, frozenset({256, 257})), Programme(2, frozenset({512, 513}))]
    assert read_programmes(f"file:{both}") == whole
    data = both.read_bytes()
    for start, damaged in (
        (0, b"\x47" + b"junk" + data),
        (1, data.replace(table([1, 2], 0)[:20], bytes(20))),
    ):
        (tmp_path / "b.ts").write_bytes(damaged)
        assert read_programmes(f"file:{tmp_path / 'b.ts'}") == whole, start
    make_clip(tmp_path / "a.mkv")
    for other in (tmp_path / "a.mkv", tmp_path / "none.ts"):
        assert read_programmes(f"file:{other}") == []
    assert read_programmes("http://127.0.0.1:9/a.ts") == []


def test_one_programme_is_no_choice(parts: dict[str, Path]) -> None:
    with open_source(parts["small"]) as source:
        assert not source.warnings
        assert source.info.duration_seconds == pytest.approx(12 * Fraction(1, 30), abs=0.1)
