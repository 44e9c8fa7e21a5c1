"""Subtitles keep their times in every container, also where they overlap. Device: CPU."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnr_video.media.transcode import TextRow
from tests.media_helpers import copy, make_clip

LINES = [(200, 700, "one"), (200, 400, "two"), (500, 1200, "three"), (1500, 1800, "four")]

HEADER = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, Alignment
Style: Default,Arial,20,&H00FFFFFF,2

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def clock(milliseconds: int) -> str:
    return f"0:00:{milliseconds / 1000:05.2f}"


def written(path: Path) -> Path:
    if path.suffix == ".ass":
        events = [
            f"Dialogue: 0,{clock(start)},{clock(end)},Default,,0,0,0,,{text}\n" for start, end, text in LINES
        ]
        path.write_text(HEADER + "".join(events))
    else:
        path.write_text(
            "".join(
                f"{number}\n00:00:{start / 1000:06.3f} --> 00:00:{end / 1000:06.3f}\n{text}\n\n".replace(
                    ".", ","
                )
                for number, (start, end, text) in enumerate(LINES, 1)
            )
        )
    return path


def seen(path: Path) -> dict[int, set[str]]:
    """Which texts are to be seen at each tenth of a second."""
    shown: dict[int, set[str]] = {tenth: set() for tenth in range(20)}
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        for packet in container.demux(stream):
            if not packet.size:
                continue
            texts = stream.codec_context.decode2(packet)
            start = round(float(packet.pts * packet.time_base) * 10)
            end = round(float((packet.pts + packet.duration) * packet.time_base) * 10)
            for text in texts or ():
                words = {word for _, _, word in LINES if word.encode() in text.ass}
                for tenth in range(start, min(end, 20)):
                    shown[tenth] |= words
    return shown


@pytest.mark.parametrize("kind", [".ass", ".srt"])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_overlapping_lines(tmp_path: Path, kind: str, suffix: str) -> None:
    clip = make_clip(tmp_path / "a.mkv", pts=range(60), audio="aac", subtitles=written(tmp_path / f"a{kind}"))
    _, sink = copy(clip, tmp_path / f"b{suffix}")
    expected = {
        tenth: {text for start, end, text in LINES if start <= 100 * tenth < end} for tenth in range(20)
    }
    assert seen(tmp_path / f"b{suffix}") == expected
    assert not any("impossible" in text or "damaged" in text for text in sink.warnings)


def test_a_text_without_an_end_lasts_until_the_next() -> None:
    row = TextRow()
    made = [*row.add(100, 0, [b"0,0,D,,0,0,0,,a"]), *row.add(900, 500, [b"1,0,D,,0,0,0,,b"]), *row.flush()]
    assert made == [(100, 900, b"0,0,D,,0,0,0,,a"), (900, 1400, b"1,0,D,,0,0,0,,b")]
    assert [*row.add(2000, 0, [b"2,0,D,,0,0,0,,c"]), *row.flush()] == [(2000, 6000, b"2,0,D,,0,0,0,,c")]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 30)), max_size=12))
def test_any_overlaps(times: list[tuple[int, int]]) -> None:
    times.sort()
    row = TextRow()
    made = []
    for number, (start, lasts) in enumerate(times):
        made += row.add(start, lasts, [b"%d,0,D,,0,0,0,,<%d>" % (number, number)])
    made += row.flush()
    for (_, end, _), (start, _, _) in pairwise(made):
        assert end <= start
    for moment in range(90):
        expected = {n for n, (start, lasts) in enumerate(times) if start <= moment < start + lasts}
        shown = {
            n for a, b, line in made for n in range(len(times)) if a <= moment < b and b"<%d>" % n in line
        }
        assert shown == expected
