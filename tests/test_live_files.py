"""Files that a browser hands over while it is live: translated, refused, stopped, cleared away. Device: CPU."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engines.errors import InputError, OutputError
from gnr_video.live.files import FileTranslations, Job
from gnr_video.live.session import LiveSession
from gnr_video.live.web import WebSink, transfer
from gnr_video.options import EngineOptions
from gnr_video.translator import Translator
from gnr_video.web.address import bind
from tests.live_helpers import live_session, until
from tests.live_web_fixtures import Visitor, visit
from tests.media_helpers import frame_times, make_clip, picture, read_packets, read_pictures

aiohttp = pytest.importorskip("aiohttp", reason="needs aiohttp")
pytest.importorskip("aiortc", reason="needs aiortc")
pytestmark = pytest.mark.usefixtures("face_model")


@pytest.fixture(scope="module")
def session(tiny: Path, face_clip: Path, face_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with live_session(tiny, face_clip, style=5, folder=tmp_path_factory.mktemp("live")) as running:
        until(lambda: running.counts.faces)
        yield running


@pytest.fixture
def files(session: LiveSession) -> Iterator[FileTranslations]:
    made = FileTranslations(session.translator, session.controls)
    yield made
    made.close(5)
    assert not made._folder.exists()


def hand_over(files: FileTranslations, path: Path, name: str | None = None) -> Any:
    data = path.read_bytes()
    job = files.receive(name or path.name, len(data))
    job.source.write_bytes(data)
    files.start()
    return job


@pytest.mark.slow
def test_it_is_what_the_command_makes_of_it(
    files: FileTranslations, session: LiveSession, tiny: Path, face_clip: Path, tmp_path: Path
) -> None:
    job = hand_over(files, face_clip)
    until(lambda: not job.busy, 60)
    assert job.stage == "done", job.message
    assert job.done == job.frames == 24 and "24 frames" in job.message and "style 5" in job.message
    with Translator(tiny, 5, engine=EngineOptions("torch", precision="fp32")) as translator:
        translator.translate_video(face_clip, tmp_path / "wanted.mp4")
    assert frame_times(job.target) == frame_times(face_clip)
    assert read_packets(job.target, "audio") == read_packets(face_clip, "audio")
    wanted, got = (read_pictures(path) for path in (tmp_path / "wanted.mp4", job.target))
    # Encoded anew, the smallest rounding changes the grain of the background; another style differs by far more.
    assert np.abs(np.array(wanted, int) - np.array(got)).mean() < 3
    # The live picture has gone on, and goes on.
    seen = session.counts.frames
    until(lambda: session.counts.frames > seen)


def test_a_picture(files: FileTranslations, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "still.png"), picture(96, 64))
    job = hand_over(files, tmp_path / "still.png")
    until(lambda: not job.busy, 60)
    assert job.stage == "done", job.message
    assert job.target.name == "still_anime.png" and "no face" in job.message


def test_a_picture_of_too_many_pixels(files: FileTranslations, tmp_path: Path) -> None:
    """Its header is all that is read: decoded, it would take more memory than most machines have."""
    data = cv2.imencode(".png", picture(64, 48))[1].tobytes()
    (tmp_path / "huge.png").write_bytes(data[:16] + b"\x00\x00\x80\x00" * 2 + data[24:])
    job = hand_over(files, tmp_path / "huge.png")
    until(lambda: not job.busy)
    assert job.message == "huge.png is 32768x32768 (64 million pixels are the most)"


def test_messages_name_the_file_and_not_where_it_lay(files: FileTranslations, tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("not a picture")
    job = hand_over(files, tmp_path / "note.png")
    until(lambda: not job.busy)
    assert job.stage == "failed" and job.message.startswith("note.png ")


def test_names_with_letters_that_no_disk_takes(files: FileTranslations) -> None:
    assert files.receive("a\0b\n.mp4", 10).source.name == "ab.mp4"


@pytest.mark.parametrize("name", ["../../evil.mp4", "C:\\evil.mp4", "/evil.mp4", ".evil.mp4", ""])
def test_names_stay_in_the_folder(files: FileTranslations, name: str) -> None:
    job = files.receive(name, 10)
    assert job.source.parent == job.target.parent == files._folder
    assert job.source.name == ("evil.mp4" if name else "video")
    assert job.source != job.target


def test_long_names_are_cut(files: FileTranslations) -> None:
    job = files.receive("語" * 300 + ".mp4", 10)
    job.source.touch()
    job.target.touch()
    assert job.source.suffix == job.target.suffix == ".mp4"


def test_a_file_that_is_named_as_its_result(files: FileTranslations, face_clip: Path) -> None:
    job = hand_over(files, face_clip, "face_anime.mp4")
    until(lambda: not job.busy, 60)
    assert job.stage == "done" and job.target.is_file()


def test_what_is_no_video(files: FileTranslations, tmp_path: Path) -> None:
    (tmp_path / "note.mp4").write_text("not a video")
    job = hand_over(files, tmp_path / "note.mp4")
    until(lambda: not job.busy)
    assert job.stage == "failed" and "note.mp4" in job.message
    assert not job.source.exists()


@pytest.mark.parametrize("kind", ["hls", "concat"])
@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list"])
def test_a_list_of_this_machines_files(files: FileTranslations, tmp_path: Path, kind: str, name: str) -> None:
    """FFmpeg tells such lists by what is in them."""
    own = make_clip(tmp_path / "own.ts", codec="mpeg2video")
    job = files.receive(name, 10)
    if kind == "hls":
        job.source.write_text(
            f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.4,\nfile://{own}\n#EXT-X-ENDLIST\n"
        )
    else:
        shutil.copy(own, files._folder)
        job.source.write_text("ffconcat version 1.0\nfile own.ts\n")
    files.start()
    until(lambda: not job.busy)
    assert job.stage == "failed" and not job.target.exists(), job.message
    # By its name FFmpeg itself refuses some.
    assert name != "list.m3u8" or kind == "concat" or "list of other files" in job.message, job.message


def test_one_at_a_time_and_stopped(
    files: FileTranslations, session: LiveSession, face_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = session.translator.engine
    fast = engine.translate

    def slow(*args: Any) -> Any:
        time.sleep(0.1)
        return fast(*args)

    monkeypatch.setattr(engine, "translate", slow)
    job = hand_over(files, face_clip)
    with pytest.raises(InputError, match=r"face\.mp4 is not finished"):
        files.receive("other.mp4", 10)
    until(lambda: job.done > 2)
    assert job.state()["seconds_left"] is not None
    files.stop()
    until(lambda: not job.busy)
    assert job.stage == "stopped" and not job.target.exists() and not list(files._folder.iterdir())
    files.receive("other.mp4", 10)


def test_more_than_the_disk_holds(files: FileTranslations) -> None:
    with pytest.raises(OutputError, match="does not fit"):
        files.receive("long.mp4", 1 << 60)


class TestServer:
    @pytest.fixture
    def served(self, session: LiveSession) -> Iterator[WebSink]:
        sink = WebSink(session, bind("127.0.0.1", 0), token="")
        session.add_sink(sink)
        yield sink
        session.remove_sink(sink)
        assert sink.failure is None

    def test_there_and_back(self, served: WebSink, face_clip: Path, tmp_path: Path) -> None:
        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as page:
                async with http.get(served.url + "file") as answer:
                    assert answer.status == 404
                data = face_clip.read_bytes()
                async with http.post(served.url + "file?name=f%C3%A4ce.mp4", data=data) as answer:
                    assert answer.status == 200, await answer.text()
                await page.until(lambda: (page.state.get("file") or {}).get("stage") == "done", 60)
                assert page.state["file"]["result"] == "fäce_anime.mp4"
                async with http.get(served.url + "file") as answer:
                    assert "f%C3%A4ce_anime.mp4" in answer.headers["Content-Disposition"]
                    (tmp_path / "got.mp4").write_bytes(await answer.read())

        visit(served.url, work)
        assert len(read_pictures(tmp_path / "got.mp4")) == 24

    def test_refusals(self, served: WebSink, face_clip: Path) -> None:
        async def chunks() -> Any:
            yield b"of unknown length"

        async def work(http: Any) -> None:
            async with http.post(served.url + "file?name=a.mp4", data=chunks()) as answer:
                assert answer.status == 411
            headers = {"Origin": "https://evil.example"}
            async with http.post(served.url + "file?name=a.mp4", data=b"x", headers=headers) as answer:
                assert answer.status == 403
            async with Visitor(http, served.url) as page:
                # Half a file, then silence for ever: the page has gone.
                host, port = served._listener.getsockname()[:2]
                _, writer = await asyncio.open_connection(host, port)
                head = f"POST /file?name=half.mp4 HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 1000\r\n\r\n"
                writer.write(head.encode() + b"x" * 500)
                await writer.drain()
                await page.until(lambda: (page.state.get("file") or {}).get("stage") == "upload")
                async with http.post(served.url + "file?name=b.mp4", data=b"x") as answer:
                    assert answer.status == 409 and "half.mp4" in await answer.text()
                writer.close()
                await page.until(lambda: page.state["file"]["stage"] == "failed")
                assert "did not come whole" in page.state["file"]["message"]

        visit(served.url, work)

    @pytest.mark.parametrize("end", ["stalls", "is stopped", "is lost"])
    def test_an_upload_that_comes_no_further_frees_the_way(
        self, served: WebSink, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, end: str
    ) -> None:
        monkeypatch.setattr(transfer, "STALLED_SECONDS", 1.0 if end == "stalls" else 60.0)

        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as page:
                host, port = served._listener.getsockname()[:2]
                _, writer = await asyncio.open_connection(host, port)
                head = f"POST /file?name=half.mp4 HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 1000\r\n\r\n"
                writer.write(head.encode() + b"x" * 500)
                await writer.drain()
                await page.until(lambda: (page.state.get("file") or {}).get("stage") == "upload")
                assert (page.state["file"]["done"], page.state["file"]["frames"]) == (500, 1000)
                if end == "is stopped":
                    await page.send("stop-file")
                elif end == "is lost":
                    writer.transport.abort()
                wanted = "stopped" if end == "is stopped" else "failed"
                await page.until(lambda: page.state["file"]["stage"] == wanted)
                assert "did not come whole" in page.state["file"]["message"]
                async with http.post(served.url + "file?name=b.mp4", data=b"x") as answer:
                    assert answer.status == 200
                await page.until(lambda: page.state["file"]["stage"] == "failed")
                writer.close()

        visit(served.url, work)
        assert not [record for record in caplog.records if record.exc_info and record.levelno > logging.DEBUG]

    def test_closing_ends_it(self, session: LiveSession, face_clip: Path) -> None:
        sink = WebSink(session, bind("127.0.0.1", 0), token="")
        hand_over(sink._files, face_clip)
        started = time.perf_counter()
        sink.close()
        assert time.perf_counter() - started < 10
        until(lambda: not [t for t in threading.enumerate() if t.name == "gnr-video file"])
        assert not sink._files._folder.exists()

    def test_what_outlasts_closing_leaves_no_files(
        self, session: LiveSession, face_clip: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sink = WebSink(session, bind("127.0.0.1", 0), token="")
        files, closed = sink._files, threading.Event()

        def translate(job: Job) -> str:
            closed.wait(10)
            files._folder.mkdir(exist_ok=True)
            job.target.write_bytes(b"written late")
            return "late"

        monkeypatch.setattr(files, "_translate", translate)
        hand_over(files, face_clip)
        sink.close()
        closed.set()
        until(lambda: not [t for t in threading.enumerate() if t.name == "gnr-video file"])
        assert not files._folder.exists()
