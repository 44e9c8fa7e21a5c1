"""The service for other programs, asked by a real client: jobs in, states and results out. Device: CPU."""

from __future__ import annotations

import json
import logging
import socket
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gnr_video.serve import worker as work
from gnr_video.serve.run import Serving
from gnr_video.serve.store import Store
from tests.live_helpers import until
from tests.media_helpers import make_clip, picture, read_packets, read_pictures
from tests.serve_helpers import LONG, QUICK, Client, Gate, at_rest, service

pytestmark = pytest.mark.usefixtures("face_model")


@pytest.fixture(scope="module")
def allowed(tmp_path_factory: pytest.TempPathFactory, face_clip: Path) -> Path:
    folder = tmp_path_factory.mktemp("allowed")
    (folder / "clip.mp4").write_bytes(face_clip.read_bytes())
    return folder


@pytest.fixture(scope="module")
def running(
    tiny: Path, face_model: Path, allowed: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("service") / "jobs"
    with service(tiny, folder, allow=(allowed,), queue=3, max_upload=0.001) as made:
        yield made


@pytest.fixture
def client(running: Serving) -> Iterator[Client]:
    made = Client(running.urls[0], running.token)
    yield made
    at_rest(running)


class TestJobs:
    def test_an_upload_there_and_back(self, client: Client, running: Serving, face_clip: Path) -> None:
        answer = client.upload(face_clip, "fäce.mp4", **QUICK, style=7)
        assert answer.status == 201, answer.data
        job = answer.json
        assert answer.headers["Location"] == f"/jobs/{job['id']}"
        events = client.events(job["id"])
        assert {name for name, _ in events} == {"state"}
        states = [data["state"] for _, data in events]
        assert states == sorted(states, key=("queued", "running", "done").index) and states[-1] == "done"
        done = client.job(job["id"])
        assert done == events[-1][1]
        assert done["frames"] == 4 and "style 7" in done["message"] and done["notices"] == []
        assert done["made_by"] == done["asked_of"] == running.worker.maker

        whole = client.ask("GET", f"/jobs/{job['id']}/result")
        assert whole.status == 200 and whole.headers["Content-Type"] == "video/mp4"
        assert "f%C3%A4ce_anime.mp4" in whole.headers["Content-Disposition"]
        assert len(whole.data) == done["result"]["bytes"]
        # Neither the upload nor the account of the work is kept.
        until(lambda: len(list(running.folder.of(job["id"]).rglob("*"))) == 2)

    def test_it_is_what_the_command_makes(
        self, client: Client, tiny: Path, face_clip: Path, tmp_path: Path
    ) -> None:
        from tests.cli_helpers import call

        id = client.upload(face_clip, **QUICK, style=5, effects={"ink": True}).json["id"]
        (tmp_path / "got.mp4").write_bytes(self.result(client, id))
        done = call(
            face_clip, "-o", tmp_path / "wanted.mp4", "--end", 0.2, "--paste", "crop", "--style", 5, "--ink",
            "--weights", tiny, "--engine", "torch", "--precision", "fp32",
        )  # fmt: skip
        assert done.status == 0, done.stderr
        got, wanted = (read_pictures(tmp_path / name) for name in ("got.mp4", "wanted.mp4"))
        assert len(got) == 4 and all((a == b).all() for a, b in zip(got, wanted, strict=True))
        assert read_packets(tmp_path / "got.mp4", "audio") == read_packets(tmp_path / "wanted.mp4", "audio")

    def result(self, client: Client, id: str) -> bytes:
        assert client.ended(id)["state"] == "done", client.job(id)["message"]
        return client.ask("GET", f"/jobs/{id}/result").data

    def test_parts_of_a_result(self, client: Client, allowed: Path) -> None:
        id = client.submit(allowed / "clip.mp4", **QUICK, output="gif").json["id"]
        whole, path = self.result(client, id), f"/jobs/{id}/result"
        assert whole.startswith(b"GIF89a")
        part = client.ask("GET", path, headers={"Range": "bytes=10-19"})
        assert part.status == 206 and part.data == whole[10:20]
        assert part.headers["Content-Range"] == f"bytes 10-19/{len(whole)}"
        assert client.ask("GET", path, headers={"Range": f"bytes={len(whole)}-"}).status == 416
        head = client.ask("HEAD", path)
        assert (head.headers["Content-Length"], head.data) == (str(len(whole)), b"")
        same = client.ask("GET", path, headers={"If-None-Match": head.headers["Etag"]})
        assert (same.status, same.data) == (304, b"")

    def test_a_picture_stays_one(self, client: Client, tmp_path: Path) -> None:
        import cv2

        cv2.imwrite(str(tmp_path / "still.png"), picture(96, 64))
        job = client.ended(client.upload(tmp_path / "still.png").json["id"])
        assert job["state"] == "done" and job["result"]["name"] == "still_anime.png"
        assert "no face" in " ".join(job["warnings"])

    def test_cancelled_while_it_waits_and_while_it_is_at_work(
        self, client: Client, running: Serving, allowed: Path
    ) -> None:
        with Gate(running) as gate:
            first = client.submit(allowed / "clip.mp4", **QUICK).json["id"]
            until(lambda: client.job(first)["state"] == "running", LONG)
            assert client.ask("GET", "/server").json["running"] == first
            second = client.submit(allowed / "clip.mp4", **QUICK).json["id"]
            assert client.ask("POST", f"/jobs/{second}/cancel").json["state"] == "cancelled"
            assert client.ask("DELETE", f"/jobs/{first}").status == 409
            assert client.ask("GET", f"/jobs/{first}/result").status == 409
            assert client.ask("POST", f"/jobs/{first}/cancel").json["state"] == "cancelling"
            gate.open()
            assert client.ended(first)["state"] == "cancelled"
        assert client.ask("POST", f"/jobs/{first}/cancel").status == 409
        until(lambda: not running.folder.of(first).exists())
        for id in (first, second):
            assert client.ask("DELETE", f"/jobs/{id}").status == 204
            assert client.ask("GET", f"/jobs/{id}").status == 404
            assert client.ask("DELETE", f"/jobs/{id}").status == 404

    def test_deleted_while_somebody_listens(self, client: Client, running: Serving, allowed: Path) -> None:
        import asyncio

        import aiohttp

        async def listen(id: str) -> bytes:
            async with (
                aiohttp.ClientSession(headers=client.headers) as http,
                http.get(f"{client.url}/jobs/{id}/events") as answer,
            ):
                first = await answer.content.readuntil(b"\n\n")
                assert b'"queued"' in first
                assert (await http.delete(f"{client.url}/jobs/{id}")).status == 204
                return await answer.read()

        with Gate(running):
            ahead = client.submit(allowed / "clip.mp4", **QUICK).json["id"]
            until(lambda: client.job(ahead)["state"] == "running", LONG)
            waits = client.submit(allowed / "clip.mp4", **QUICK).json["id"]
            assert b"event: deleted" in asyncio.run(asyncio.wait_for(listen(waits), LONG))

    def test_a_full_queue(self, client: Client, running: Serving, allowed: Path, face_clip: Path) -> None:
        with Gate(running):
            first = client.submit(allowed / "clip.mp4", **QUICK).json["id"]
            until(lambda: client.job(first)["state"] == "running", LONG)
            ids = [client.submit(allowed / "clip.mp4", **QUICK).json["id"] for _ in range(3)]
            for answer in (client.submit(allowed / "clip.mp4"), client.upload(face_clip)):
                assert answer.status == 429 and "3 jobs wait" in answer.json["error"]
                assert answer.headers["Retry-After"]
            for id in [*ids, first]:
                client.ask("POST", f"/jobs/{id}/cancel")
        assert client.ended(first)["state"] == "cancelled"


class TestFailures:
    def failed(self, client: Client, answer: Any) -> str:
        assert answer.status == 201, answer.data
        job = client.ended(answer.json["id"])
        assert job["state"] == "failed" and job["result"] is None
        return str(job["message"])

    def test_what_is_no_video(self, client: Client, running: Serving) -> None:
        message = self.failed(client, client.upload(b"not a video", "note.mp4"))
        assert message.startswith("note.mp4 ") and str(running.folder.path) not in message

    def test_a_list_of_this_machines_files(self, client: Client, tmp_path: Path) -> None:
        own = make_clip(tmp_path / "own.ts", codec="mpeg2video")
        text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.4,\nfile://{own}\n#EXT-X-ENDLIST\n"
        assert "list of other files" in self.failed(client, client.upload(text.encode(), "a.m3u8"))
        assert "list of other files" in self.failed(client, client.upload(b"<MPD/>", "a.MPD"))

    def test_a_picture_of_too_many_pixels(self, client: Client) -> None:
        import cv2

        data = cv2.imencode(".png", picture(64, 48))[1].tobytes()
        data = data[:16] + b"\x00\x00\x80\x00" * 2 + data[24:]
        assert "huge.png is 32768x32768" in self.failed(client, client.upload(data, "huge.png"))

    def test_a_file_that_is_gone_when_its_turn_comes(
        self, client: Client, running: Serving, allowed: Path
    ) -> None:
        import shutil

        shutil.copy(allowed / "clip.mp4", allowed / "soon gone.mp4")
        with Gate(running):
            first = client.submit(allowed / "clip.mp4", **QUICK).json["id"]
            until(lambda: client.job(first)["state"] == "running", LONG)
            second = client.submit(allowed / "soon gone.mp4")
            (allowed / "soon gone.mp4").unlink()
        assert "soon gone.mp4" in self.failed(client, second)
        assert client.ended(first)["state"] == "done"

    @pytest.mark.slow
    @pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
    def test_a_full_disk(
        self, client: Client, running: Serving, allowed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No file may grow beyond so many bytes: neither the result nor, at some point, the database is written."""
        import resource

        monkeypatch.setattr(work, "RETRY_SECONDS", 0.05)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        with Gate(running) as gate:
            id = client.submit(allowed / "clip.mp4", output="apng").json["id"]
            until(lambda: client.job(id)["state"] == "running", LONG)
            resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, hard))
            try:
                gate.open()
                until(lambda: running.worker.notice or client.job(id)["state"] == "failed", LONG)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        job = client.ended(id)
        assert job["state"] == "failed" and "no room left" in job["message"]
        assert client.ended(client.submit(allowed / "clip.mp4", **QUICK).json["id"])["state"] == "done"
        assert client.ask("GET", "/server").json["notices"] == []

    def test_a_result_that_was_not_noted_any_more(
        self, client: Client, running: Serving, allowed: Path
    ) -> None:
        """The program was ended between the two."""
        with Gate(running):
            id = client.submit(allowed / "clip.mp4", **QUICK).json["id"]
            until(lambda: client.job(id)["state"] == "running", LONG)
            running.folder.results(id).mkdir(parents=True, exist_ok=True)
            (running.folder.results(id) / "clip_anime.mp4").write_bytes(b"half, or of another version")
        assert client.ended(id)["state"] == "done"
        assert len(client.ask("GET", f"/jobs/{id}/result").data) > 100

    def test_an_upload_with_a_name_of_the_folders(self, client: Client, face_clip: Path) -> None:
        for name in ("result", "source"):
            job = client.ended(client.upload(face_clip, name, **QUICK).json["id"])
            assert job["state"] == "done" and job["result"]["name"] == f"{name}_anime.mp4"

    def test_a_listener_that_goes(
        self, client: Client, running: Serving, allowed: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Gate(running):
            id = client.submit(allowed / "clip.mp4", **QUICK).json["id"]
            host, port = client.url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port)), timeout=LONG) as line:
                line.sendall(
                    f"GET /jobs/{id}/events HTTP/1.1\r\nHost: {host}\r\n"
                    f"Authorization: Bearer {client.token}\r\n\r\n".encode()
                )
                assert line.recv(10) == b"HTTP/1.1 2"
                api = running.service._api
                until(lambda: api._listeners == 1)
        assert client.ended(id)["state"] == "done"
        until(lambda: api._listeners == 0)
        assert not [one for one in caplog.records if one.exc_info and one.levelno > logging.DEBUG]


class TestMany:
    @pytest.mark.slow
    def test_ten_thousand_are_listed_in_pages(self, tiny: Path, tmp_path: Path, face_model: Path) -> None:
        (tmp_path / "jobs").mkdir()
        Store(tmp_path / "jobs" / "jobs.sqlite3").close()
        rows = [
            (f"{i:032x}", "failed" if i % 10 else "done", f"{i}.mp4", "", 0, "{}", "{}", float(i), float(i))
            for i in range(10_000)
        ]
        with sqlite3.connect(tmp_path / "jobs" / "jobs.sqlite3") as db:
            db.executemany(
                "INSERT INTO jobs (id, state, name, source, is_upload, options, asked_of, created, ended) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
        db.close()
        with service(tiny, tmp_path / "jobs", no_token=True, keep_days=36_500) as running:
            client = Client(running.urls[0], "")
            numbers, before = list[int](), ""
            while True:
                page = client.ask("GET", f"/jobs?limit=1000{before}").json
                numbers += [job["number"] for job in page["jobs"]]
                if page["next"] is None:
                    break
                before = f"&before={page['next']}"
            assert numbers == list(range(10_000, 0, -1))
            done = client.ask("GET", "/jobs?state=done&limit=1000").json
            assert len(done["jobs"]) == 1000 and done["next"] is None
            assert client.ask("GET", "/server").json["jobs"]["failed"] == 9000

    def test_results_go_when_they_are_old_or_too_many(
        self, client: Client, running: Serving, allowed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = [client.submit(allowed / "clip.mp4", **QUICK).json["id"] for _ in range(2)]
        assert [client.ended(id)["state"] for id in ids] == ["done", "done"]
        kept = running.store.kept_bytes()
        monkeypatch.setattr(running.worker, "_keeping", work.Keeping(kept - 1, 1000))
        third = client.submit(allowed / "clip.mp4", **QUICK).json["id"]
        assert client.ended(third)["state"] == "done"
        until(lambda: running.store.kept_bytes() < kept and not running.worker.running)
        assert client.ask("GET", f"/jobs/{third}/result").status == 200, "the newest are kept"
        monkeypatch.setattr(running.worker, "_keeping", work.Keeping(1 << 40, 0))
        monkeypatch.setattr(running.worker, "_tidied", -work.TIDY_SECONDS)
        running.worker.wake()
        until(lambda: client.ask("GET", f"/jobs/{third}").status == 404)
        until(lambda: not running.folder.of(third).exists())


def test_another_version_says_so(running: Serving, client: Client, allowed: Path) -> None:
    with Gate(running):
        ahead = client.submit(allowed / "clip.mp4", **QUICK).json["id"]
        until(lambda: client.job(ahead)["state"] == "running", LONG)
        id = client.submit(allowed / "clip.mp4", **QUICK).json["id"]
        other = running.worker.maker | {"version": "0.0.9", "weights": "older", "weights_sha256": "ab" * 32}
        with running.store._writing():
            running.store._db.execute("UPDATE jobs SET asked_of = ? WHERE id = ?", (json.dumps(other), id))
        assert len(client.job(id)["notices"]) == 2, "while it waits"
    job = client.ended(id)
    assert f"submitted to version 0.0.9, translated by {running.worker.maker['version']}" in job["notices"]
    assert any("submitted to weights older (abababababab)" in text for text in job["notices"])
