"""DASH manifests: the best variant with its sound, in the forms in which segments are named. Device: none."""

from __future__ import annotations

import io
import re
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import av
import pytest

from engines.errors import InputError
from gnr_video.media.dash import write_playlists
from gnr_video.media.open import open_source
from tests.media_helpers import copy, frame_times, make_clip, read_packets
from tests.test_streams import combined, size

MUXER = {"seg_duration": "0.5"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("dash")
    options = {"bf": "0", "g": "15"}
    return [
        make_clip(folder / "small.mkv", size=(64, 48), pts=range(60), audio="aac", options=options),
        make_clip(folder / "large.mkv", size=(128, 96), pts=range(60), options=options),
    ]


@pytest.fixture(scope="module")
def manifest(clips: list[Path]) -> Path:
    """By FFmpeg's muxer: numbers and a timeline."""
    return combined(clips[0].with_name("a.mpd"), *clips, muxer_options=MUXER)


def checked(path: Path | str, target: Path) -> None:
    source, _ = copy(path, target, overwrite=True)
    assert size(target) == (128, 96)
    assert frame_times(target) == pytest.approx([Fraction(i, 30) for i in range(60)], abs=0.03)
    sound = read_packets(target)
    assert float(sound[0][0]) == pytest.approx(0, abs=0.03)
    assert float(sound[-1][0]) == pytest.approx(2, abs=0.06)
    with av.open(str(target)) as made:
        assert len(made.streams.audio) == 1
    assert any("2 video streams" in text and "--stream" in text for text in source.warnings)


def test_numbers_and_a_timeline(manifest: Path, tmp_path: Path) -> None:
    checked(manifest, tmp_path / "b.mp4")
    assert size(manifest, stream=0) == (64, 48)


def test_over_http(manifest: Path, tmp_path: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(manifest.parent))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            checked(f"http://127.0.0.1:{server.server_port}/a.mpd?token=1", tmp_path / "b.mp4")
        finally:
            server.shutdown()


@pytest.mark.parametrize("form", ["repeats", "durations", "list", "whole files"])
def test_other_forms(clips: list[Path], manifest: Path, tmp_path: Path, form: str) -> None:
    text = manifest.read_text()
    if form == "whole files":
        text = re.sub(r"<SegmentTemplate.*?</SegmentTemplate>", "<BaseURL>@.mp4</BaseURL>", text, flags=re.S)
        for number in range(3):
            parts = sorted(manifest.parent.glob(f"chunk-stream{number}-*.m4s"))
            whole = [manifest.parent / f"init-stream{number}.m4s", *parts]
            (tmp_path / f"{number}.mp4").write_bytes(b"".join(part.read_bytes() for part in whole))
            text = text.replace("@", str(number), 1)
    else:
        parts = [file for file in manifest.parent.glob("*.m4s")]
        for file in parts:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    if form == "repeats":
        text = re.sub(r"<SegmentTimeline>.*?</SegmentTimeline>", "@", text, flags=re.S)
        text = re.sub(
            r'timescale="(\d+)"([^>]*)>\s*@',
            lambda m: f'{m[0][:-1]}<SegmentTimeline><S t="0" d="{int(m[1]) // 2}" r="-1"/></SegmentTimeline>',
            text,
        )
    elif form == "durations":
        text = re.sub(r"<SegmentTimeline>.*?</SegmentTimeline>", "", text, flags=re.S)
        text = re.sub(r'timescale="(\d+)"', lambda m: f'{m[0]} duration="{int(m[1]) // 2}"', text)
    elif form == "list":
        text = re.sub(r"<SegmentTemplate.*?</SegmentTemplate>", "@", text, flags=re.S)
        for number in range(3):
            names = sorted(p.name for p in manifest.parent.glob(f"chunk-stream{number}-*.m4s"))
            urls = "".join(f'<SegmentURL media="{name}"/>' for name in names)
            init = f'<Initialization sourceURL="init-stream{number}.m4s"/>'
            text = text.replace("@", f'<SegmentList duration="1" timescale="2">{init}{urls}</SegmentList>', 1)
    (tmp_path / "b.mpd").write_text(text)
    checked(tmp_path / "b.mpd", tmp_path / "b.mp4")


def test_two_periods(manifest: Path, tmp_path: Path) -> None:
    """As with an advertisement before a film: the second goes on after the first."""
    text = manifest.read_text()
    period = text[text.index("<Period") : text.index("</Period>") + len("</Period>")]
    two = period.replace(">", ' duration="PT2S">', 1)
    base = f"<BaseURL>{manifest.parent.as_uri()}/</BaseURL>"
    (tmp_path / "b.mpd").write_text(text.replace(period, base + two + two))
    copy(tmp_path / "b.mpd", tmp_path / "b.mp4")
    times = frame_times(tmp_path / "b.mp4")
    assert len(times) == 120
    assert float(times[-1]) == pytest.approx(4, abs=0.1)


def test_what_is_not_read_is_said(manifest: Path, tmp_path: Path) -> None:
    text = manifest.read_text()
    for changed, message in (
        (text.replace('type="static"', 'type="dynamic"'), "live stream"),
        ("no manifest", "no DASH manifest"),
        (text.replace("<Representation ", "<ContentProtection/><Representation ", 1), "copy-protected"),
        (text.replace("chunk-stream", "gopher://a/", 1), "gopher"),
        (text.replace("init-stream$RepresentationID$", "init-$Number$", 1), "damaged"),
        (re.sub(r'timescale="\d+"', 'timescale="zero"', text), "damaged"),
    ):
        (tmp_path / "b.mpd").write_text(changed)
        with pytest.raises(InputError, match=message) as caught:
            open_source(tmp_path / "b.mpd")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot read"):
        write_playlists("a.mpd", "http://127.0.0.1:9/a.mpd", tmp_path)


def test_an_address_reads_no_files(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer(io.BytesIO):
        def geturl(self) -> str:
            return "http://example.com/a.mpd"

    text = manifest.read_bytes().replace(b"<Period", b"<BaseURL>file:///etc/</BaseURL><Period", 1)
    monkeypatch.setattr("gnr_video.media.dash.urlopen", lambda *_, **__: Answer(text))
    with pytest.raises(InputError, match="a file of this machine"):
        write_playlists("a.mpd", "http://example.com/a.mpd", tmp_path)
