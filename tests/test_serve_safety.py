"""What the service lets in, and what it refuses: strangers, paths, options, uploads without end. Device: CPU."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.errors import OutputError
from gnr_video.serve import uploads
from gnr_video.serve.folder import Folder
from gnr_video.serve.run import Serving
from tests.cli_helpers import call
from tests.live_helpers import until
from tests.serve_helpers import LONG, QUICK, Answer, Client, at_rest, service

pytestmark = pytest.mark.usefixtures("face_model")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, face_clip: Path) -> Path:
    """`allowed` with a clip and links, and what lies beside it."""
    place = tmp_path_factory.mktemp("place")
    (place / "allowed" / "sub").mkdir(parents=True)
    for name in ("allowed/clip.mp4", "allowed/sub/clip.mp4", "secret.mp4"):
        (place / name).write_bytes(face_clip.read_bytes())
    (place / "secret.png").write_bytes(b"secret")
    (place / "allowed" / "out.mp4").symlink_to(place / "secret.mp4")
    (place / "allowed" / "in.mp4").symlink_to(place / "allowed" / "sub" / "clip.mp4")
    (place / "allowed" / "circle").symlink_to(place / "allowed" / "circle")
    return place


@pytest.fixture(scope="module")
def running(tiny: Path, face_model: Path, place: Path) -> Iterator[Serving]:
    # The service's own folder lies in the one that may be read.
    with service(tiny, place / "allowed" / "jobs", allow=(place / "allowed",), max_upload=0.0005) as made:
        yield made


@pytest.fixture
def client(running: Serving) -> Iterator[Client]:
    yield Client(running.urls[0], running.token)
    at_rest(running)


def nothing_left(running: Serving) -> None:
    """No upload has left a folder behind."""
    until(
        lambda: (
            {path.name for path in (running.folder.path / "jobs").iterdir()} <= running.store.states().keys()
        )
    )


class TestAccess:
    @pytest.mark.parametrize("path", ["/server", "/jobs", "/openapi.json", "/nowhere"])
    def test_the_token(self, running: Serving, client: Client, path: str) -> None:
        stranger = Client(client.url, "")
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {running.token}"}):
            answer = stranger.ask("GET", path, headers=given)
            assert answer.status == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
        assert stranger.ask("GET", f"{path}?token={running.token}").status == 401
        given = {"Authorization": f"bearer {running.token}"}
        assert stranger.ask("GET", path, headers=given).status == (404 if path == "/nowhere" else 200)

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://[evil"},
            {"Host": "evil.example"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        ],
    )
    def test_other_web_sites(self, client: Client, headers: dict[str, str]) -> None:
        """Through a browser of this machine, whose requests could hold the token."""
        assert client.ask("GET", "/server", headers=headers).status == 403
        assert client.ask("POST", "/jobs", headers=headers, json={"path": "/x"}).status == 403

    def test_answers_are_not_kept_nor_guessed_at(self, client: Client) -> None:
        for path in ("/server", "/nowhere"):
            headers = client.ask("GET", path).headers
            assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"

    def test_the_token_is_this_users_and_stays(self, running: Serving) -> None:
        if sys.platform != "win32":
            assert running.folder.token_file.stat().st_mode & 0o077 == 0
            assert running.folder.database.stat().st_mode & 0o077 == 0
        assert running.folder.token() == running.token and len(running.token) >= 20

    def test_a_token_that_is_none(self, tmp_path: Path) -> None:
        with Folder(tmp_path) as folder:
            folder.token_file.write_text("\n")
            with pytest.raises(OutputError, match="holds no token"):
                folder.token()


class TestPaths:
    @pytest.mark.parametrize("name", ["clip.mp4", "sub/clip.mp4", "sub/../clip.mp4", "in.mp4"])
    def test_below_an_allowed_folder(self, client: Client, place: Path, name: str) -> None:
        answer = client.submit(f"{place}/allowed/{name}", **QUICK)
        assert answer.status == 201 and answer.json["name"] == "clip.mp4"
        client.ask("POST", f"/jobs/{answer.json['id']}/cancel")

    @pytest.mark.parametrize(
        "name",
        [
            "{place}/secret.mp4",
            "{place}/allowed/../secret.mp4",
            "{place}/allowed/out.mp4",
            "{place}/allowed/circle",
            "{place}/allowed/missing.mp4",
            "{place}/allowed/sub",
            "{place}/allowed/jobs/token",
            "{place}/allowed/a\0b.mp4",
            "allowed/clip.mp4",
            "file://{place}/allowed/clip.mp4",
            "/dev/zero",
            "-",
        ],
    )
    def test_all_others(self, client: Client, place: Path, name: str) -> None:
        """What there is elsewhere is not told."""
        answer = client.submit(name.format(place=place))
        assert answer.status == 403, answer.data

    @pytest.mark.parametrize(
        "options",
        [
            {"style": "ref:{place}/secret.png"},
            {"style": "42*0.5+ref:{place}/secret.png*0.5"},
            {"style": "ref:secret.png"},
            {"style": "{place}/secret.style.json"},
            {"styles": "0=42,5s=ref:{place}/secret.png"},
            {"background": "{place}/secret.png"},
        ],
    )
    def test_styles_and_backgrounds_read_allowed_files_only(
        self, client: Client, place: Path, options: dict[str, str]
    ) -> None:
        options = {name: value.format(place=place) for name, value in options.items()}
        answer = client.submit(place / "allowed" / "clip.mp4", **options)
        assert answer.status == 403, answer.data

    def test_a_backdrop_of_an_allowed_folder(self, client: Client, place: Path) -> None:
        import cv2
        import numpy as np

        picture = place / "allowed" / "red.png"
        cv2.imwrite(str(picture), np.full((20, 20, 3), (0, 0, 255), np.uint8))
        clip = place / "allowed" / "clip.mp4"
        assert client.submit(clip, background=str(picture), **QUICK).status == 201
        assert client.submit(clip, background="red.png").status == 422, "which folder's?"


class TestOptions:
    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b"", "no JSON"),
            (b"[]", "must be object"),
            (b"{}", "lacks 'path'"),
            (b'{"path": 1}', "must be string"),
            (b'{"path": "/a", "more": 1}', 'no \\"more\\"'),
            (b'{"path": "/a", "options": {"hold": 0}}', "at least 1"),
            (b'{"path": "/a", "options": {"hold": 1.5}}', "must be integer"),
            (b'{"path": "/a", "options": {"hold": true}}', "must be integer"),
            (b'{"path": "/a", "options": {"start": NaN}}', "no JSON"),
            (b'{"path": "/a", "options": {"start": 1e999}}', "must be number"),
            (b'{"path": "/a", "options": {"crf": ' + b"9" * 5000 + b"}}", "no JSON"),
            (b'{"path": "/a", "options": {"paste": "nose"}}', "must be one of"),
            (b'{"path": "/a", "options": {"effects": {"ink": 1}}}', "must be boolean"),
            (b'{"path": "/a", "options": {"effects": {"blink": true}}}', 'no \\"blink\\"'),
            (b'{"path": "/a", "options": {"style": "\\ud800"}}', "half of a letter"),
            (b'{"path": "\xff"}', "no UTF-8"),
            (b'{"path": ' + b"[" * 10_000, "no JSON"),
        ],
    )
    def test_not_of_their_form(self, client: Client, body: bytes, words: str) -> None:
        answer = client.ask("POST", "/jobs", data=body, headers={"Content-Type": "application/json"})
        assert answer.status == 400 and words in answer.data.decode(), answer.data

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"style": "nonsense"}, "does not parse"),
            ({"styles": "5s"}, "does not parse"),
            ({"styles": "0=1,5s=2", "mode": "blend"}, "exclude each other"),
            ({"faces": "everybody"}, "chooses no faces"),
            ({"background": "plaid"}, "no background"),
            ({"grid": "3x3", "hold": 2}, "every frame"),
            ({"start": 2, "end": 1}, "is empty"),
            ({"background": "transparent", "output": "mp4"}, "cannot be transparent"),
        ],
    )
    def test_what_cannot_be(self, client: Client, place: Path, options: dict[str, Any], words: str) -> None:
        answer = client.submit(place / "allowed" / "clip.mp4", **options)
        assert answer.status == 422 and words in answer.json["error"], answer.data

    @pytest.mark.parametrize(
        "query", ["limit=0", "limit=x", "limit=1.0", "before=0", "state=odd", "more=1", "limit=1&limit=2"]
    )
    def test_of_the_list(self, client: Client, query: str) -> None:
        assert client.ask("GET", f"/jobs?{query}").status == 400

    def test_ids_and_methods_that_are_none(self, client: Client) -> None:
        for id in ("x", "0" * 32, "%00", "..%2f..%2ftoken"):
            assert client.ask("GET", f"/jobs/{id}").status == 404
        answer = client.ask("PUT", "/jobs")
        assert answer.status == 405 and answer.headers["Allow"] == "GET,POST" and answer.json["error"]


class TestUploads:
    def raw(self, client: Client, data: bytes, kind: str) -> Answer:
        return client.ask("POST", "/jobs", data=data, headers={"Content-Type": kind})

    def test_bodies_that_are_none(self, client: Client, running: Serving) -> None:
        form = "multipart/form-data; boundary=x"
        file = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\nabc\r\n'
        options = file.replace(b'name="file"; filename="a.mp4"', b'name="options"')
        for data, kind, status in (
            (b"abc", "text/plain", 415),
            (b"abc", "multipart/form-data", 400),
            (b"abc", form, 400),
            (b"--x--\r\n", form, 400),
            (file, form, 400),
            (file + file + b"--x--\r\n", form, 400),
            (file.replace(b'"file"', b'"other"') + b"--x--\r\n", form, 400),
            (options + b"--x--\r\n", form, 400),
            (options.replace(b"abc", b" " * 70_000), form, 413),
        ):
            assert self.raw(client, data, kind).status == status, (data[:80], kind)
        nothing_left(running)

    @pytest.mark.parametrize("name", ["../../evil.mp4", "C:\\evil.mp4", "/evil.mp4", ".evil.mp4"])
    def test_names_stay_in_the_folder(self, client: Client, running: Serving, name: str) -> None:
        job = client.upload(b"no video", name).json
        assert job["name"] == "evil.mp4"
        assert client.ended(job["id"])["state"] == "failed"
        nothing_left(running)

    def test_too_large(self, client: Client, running: Serving) -> None:
        assert client.upload(b"x" * 700_000).status == 413

        async def pieces() -> Any:  # of no length that is told
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
            for _ in range(7):
                yield b"x" * 100_000
            yield b"\r\n--x--\r\n"

        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        assert client.ask("POST", "/jobs", data=pieces(), headers=kind).status == 413
        nothing_left(running)

    def test_more_than_the_disk_holds(
        self, client: Client, running: Serving, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(running.folder, "free_bytes", lambda: 1000)
        answer = client.upload(b"x" * 2000)
        assert answer.status == 507 and "does not fit" in answer.json["error"]
        monkeypatch.undo()

        def make(id: str) -> Path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(running.folder, "make", make)
        answer = client.upload(b"x")
        assert answer.status == 507 and os.strerror(errno.ENOSPC) in answer.json["error"]
        nothing_left(running)

    def test_a_full_database(self, client: Client, running: Serving) -> None:
        """SQLite itself says that there is no room; then there is."""
        db = running.store._db
        (pages,), (most,) = (
            db.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "max_page_count")
        )
        db.execute(f"PRAGMA max_page_count = {pages}")
        try:
            answers = [client.upload(b"no video", f"{'x' * 50}") for _ in range(30)]
        finally:
            db.execute(f"PRAGMA max_page_count = {most}")
        full = [answer for answer in answers if answer.status == 507]
        assert full and "full" in full[0].json["error"]
        assert all(client.ended(answer.json["id"]) for answer in answers if answer.status == 201)
        assert client.upload(b"no video").status == 201
        nothing_left(running)

    @pytest.mark.parametrize("end", ["stalls", "is lost"])
    def test_one_that_comes_no_further(
        self,
        client: Client,
        running: Serving,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        end: str,
    ) -> None:
        monkeypatch.setattr(uploads, "STALLED_SECONDS", 0.5 if end == "stalls" else 60.0)
        host, port = client.url.removeprefix("http://").split(":")
        head = (
            f"POST /jobs HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {client.token}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000\r\n\r\n"
            '--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
        )
        before = len(running.store.states())
        with socket.create_connection((host, int(port)), timeout=LONG) as line:
            line.sendall(head.encode() + b"x" * 50_000)
            if end == "stalls":
                assert line.recv(100).startswith(b"HTTP/1.1 408")
            else:
                until(lambda: list((running.folder.path / "jobs").glob("*/source/a.mp4")))
        nothing_left(running)
        assert len(running.store.states()) == before
        assert client.upload(b"no video").status == 201
        assert not [one for one in caplog.records if one.exc_info and one.levelno > logging.DEBUG]

    def test_so_many_at_a_time(self, running: Serving, client: Client) -> None:
        async def go() -> None:
            host, port = client.url.removeprefix("http://").split(":")
            head = (
                f"POST /jobs HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {client.token}\r\n"
                "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000\r\n\r\n"
            )
            lines = [await asyncio.open_connection(host, int(port)) for _ in range(4)]
            for _, writer in lines:
                writer.write(head.encode())
                await writer.drain()
            await asyncio.to_thread(until, lambda: running.service._api._uploads == 4)
            assert await asyncio.to_thread(self.refused, client)
            for _, writer in lines:
                writer.close()

        asyncio.run(asyncio.wait_for(go(), LONG))
        until(lambda: not self.refused(client))
        nothing_left(running)

    def refused(self, client: Client) -> bool:
        answer = client.upload(b"no video")
        return answer.status == 429 and "4 uploads" in answer.json["error"]


class TestCommand:
    """Each is one line and a hint, before anything slow is loaded."""

    @pytest.mark.parametrize(
        ("arguments", "status", "words"),
        [
            (["--host", "0.0.0.0:0"], 4, ["other machines", "--allow-remote"]),
            (["--host", "nonsense:x"], 4, ["no address", "--host HOST:PORT"]),
            (["--allow", "no/such/folder"], 3, ["is no folder"]),
            (["--host", "0.0.0.0:0", "--allow-remote", "--no-token"], 4, ["every machine"]),
            (["--queue", "0"], 2, ["--queue"]),
        ],
    )
    def test_it_is_said(self, tmp_path: Path, arguments: list[str], status: int, words: list[str]) -> None:
        done = call("serve", "--folder", tmp_path / "jobs", *arguments)
        assert done.status == status, done.stderr
        for word in words:
            assert word in done.stderr

    def test_two_on_one_folder(self, running: Serving) -> None:
        done = call("serve", "--folder", running.folder.path, "--host", "127.0.0.1:0")
        assert done.status == 4 and "another gnr-video serves from" in done.stderr

    def test_a_port_in_use(self, running: Serving, tmp_path: Path) -> None:
        port = int(running.urls[0].rstrip("/").split(":")[-1])
        done = call("serve", "--folder", tmp_path / "jobs", "--host", f"127.0.0.1:{port}")
        assert done.status == 4 and "in use" in done.stderr and "--host 127.0.0.1:" in done.stderr

    def test_a_database_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "jobs.sqlite3").write_bytes(b"nonsense" * 1000)
        done = call("serve", "--folder", tmp_path, "--host", "127.0.0.1:0")
        assert done.status == 4 and "not a database" in done.stderr


def test_remote_servers_take_any_name(tiny: Path, tmp_path: Path) -> None:
    from gnr_video.serve.access import Access
    from gnr_video.web.sites import is_foreign

    class Request:
        host, headers = "gpu-machine:8091", {"Authorization": "Bearer secret"}

    assert not is_foreign(Request, remote=True) and is_foreign(Request, remote=False)
    assert Access("secret", remote=True).refuses(Request) is None
