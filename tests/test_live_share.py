"""Who may do what on the live page, and what it gives away: viewers, photos, loops of the last seconds. Device: CPU."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gnr_video.frame import Image
from gnr_video.live.camera import PushCamera
from gnr_video.live.session import LiveSession
from gnr_video.live.web import WebSink
from gnr_video.live.web.clients import SEEN, WATCHING, Client
from gnr_video.live.web.sheet import linkable
from gnr_video.media.images import decode_jpeg, encode_jpeg
from gnr_video.web.address import bind
from tests.live_helpers import until
from tests.live_web_fixtures import Visitor, served, session, visit
from tests.media_helpers import picture, read_pictures
from tests.test_live_replay import RED, plain

aiohttp = pytest.importorskip("aiohttp", reason="needs aiohttp")
aiortc = pytest.importorskip("aiortc", reason="needs aiortc")
__all__ = ["served", "session"]  # fixtures


def is_red(image: Image | None) -> bool:
    assert image is not None
    red, _, blue = image.reshape(-1, 3).mean(0)
    return bool(red > blue + 50)


@pytest.fixture
def guarded(session: LiveSession) -> Iterator[WebSink]:
    """With tokens, and so with viewers."""
    sink = WebSink(session, bind("127.0.0.1", 0))
    session.add_sink(sink)
    yield sink
    session.remove_sink(sink)
    assert sink.failure is None


async def enter(http: Any, url: str) -> None:
    """Open a page, for its cookie."""
    async with http.get(url) as answer:
        assert answer.status == 200


def requests_of(sink: WebSink) -> list[tuple[str, str]]:
    """Every (method, path) that the server answers."""
    from aiohttp import web

    router = web.UrlDispatcher()
    sink._route(router)
    return [(route.method, route.resource.canonical) for route in router.routes() if route.resource]


class TestViewers:
    def test_two_links(self, guarded: WebSink, served: WebSink) -> None:
        (viewer,) = guarded.viewer_urls
        assert viewer.split("=")[0] == guarded.url.split("=")[0] and viewer != guarded.url
        assert served.viewer_urls == [], "without a token all are owners"

    def test_every_request_but_the_picture_is_refused(self, guarded: WebSink) -> None:
        bare = guarded.url.split("?")[0]
        allowed = {"/socket", "/offer"} | {path for path in guarded._page_files}

        async def work(http: Any) -> None:
            await enter(http, guarded.viewer_urls[0])
            seen, refused = set(), set()
            for method, path in requests_of(guarded):
                async with http.request(method, bare.rstrip("/") + path) as answer:
                    (refused if answer.status == 403 else seen).add(path)
            assert seen == allowed and not seen & refused
            assert {"/photo.jpg", "/loop.mp4", "/loop.gif", "/file", "/recording", "/face.jpg"} <= refused
            async with http.get(bare + "nowhere") as answer:
                assert answer.status == 403

        visit(bare, work)

    def test_every_command_is_refused(
        self, guarded: WebSink, session: LiveSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever a page can send: none of it reaches the controls, the keys or the camera."""
        called: list[Any] = []
        for name in ("run", "carry_out", "say"):
            monkeypatch.setattr(session.controls, name, lambda *args, **_: called.append(args))
        monkeypatch.setattr(session.capture, "switch", lambda *args: called.append(args))
        commands = {*session.controls._commands, "source", "stop-file", "key", "look", "nonsense"}
        assert not commands & WATCHING

        async def work(http: Any) -> None:
            await enter(http, guarded.viewer_urls[0])
            async with Visitor(http, guarded.url) as page:
                assert page.hello["role"] == "viewer" and not page.hello["viewer_query"]
                for number, name in enumerate(sorted(commands), 1):
                    await page.socket.send_json({"command": name, "value": "7", "request": number})
                    await page.until(lambda n=number: page.state.get("request") == n)
                    assert page.state["refused"] == name
                await page.socket.send_json({"command": "source", "value": "browser"})
                await page.socket.send_bytes(encode_jpeg(plain(RED)))
                await page.socket.send_str("7" * 100_000)
                await page.send("jpeg")  # the last of them: all before it are dealt with
                await page.until(lambda: page.jpegs)
                assert set(page.state) <= SEEN

        visit(guarded.url, work)
        assert called == []

    def test_the_picture_comes_and_neither_camera_nor_voice_goes(
        self, guarded: WebSink, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By WebRTC, for its own page only: an offer in an owner's name would take that page's place."""

        heard: list[Any] = []
        follow = Client.follow
        monkeypatch.setattr(Client, "follow", lambda client, work: heard.append(work) or follow(client, work))

        async def offer(http: Any, client: str, query: str = "") -> Any:
            peer = aiortc.RTCPeerConnection()
            peer.addTransceiver("video", direction="sendrecv")
            peer.addTransceiver("audio", direction="sendonly")
            tracks: list[Any] = []
            peer.on("track", tracks.append)
            await peer.setLocalDescription(await peer.createOffer())
            data = {"sdp": peer.localDescription.sdp, "type": "offer", "client": client}
            async with http.post(guarded.url.split("?")[0] + "offer" + query, json=data) as answer:
                if answer.status == 200:
                    await peer.setRemoteDescription(aiortc.RTCSessionDescription(**await answer.json()))
                    while not tracks:
                        await asyncio.sleep(0.02)
                    assert (await tracks[0].recv()).width == 320
                status = answer.status
            await peer.close()
            return status

        async def work(http: Any) -> None:
            await enter(http, guarded.url)
            async with Visitor(http, guarded.url) as owner:
                assert owner.hello["role"] == "owner"
                query = owner.hello["viewer_query"]
                assert guarded.viewer_urls[0].endswith(query)
                async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as other:
                    await enter(other, guarded.viewer_urls[0])
                    async with Visitor(other, guarded.url) as viewer:
                        assert await offer(other, viewer.hello["client"]) == 200
                        assert await offer(other, owner.hello["client"]) == 400
                        assert not heard, "its tracks are not listened to"

        visit(guarded.url, work)

    def test_an_owner_may_look_as_a_viewer_does(self, guarded: WebSink) -> None:
        """The token of the address goes before cookies; and a viewer's cookie does not take the owner's away."""
        bare = guarded.url.split("?")[0]

        async def work(http: Any) -> None:
            for url in (guarded.url, guarded.viewer_urls[0]):
                await enter(http, url)
            for query, status in (
                ("", 409),
                (guarded.url[len(bare) :], 409),
                (guarded.viewer_urls[0][len(bare) :], 403),
            ):
                async with http.get(bare + "loop.mp4" + query) as answer:
                    assert answer.status == status, query

        visit(guarded.url, work)

    def test_viewers_take_no_owners_place(self, guarded: WebSink, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gnr_video.live.web.clients.MAX_CLIENTS", 1)

        async def work(http: Any) -> None:
            await enter(http, guarded.viewer_urls[0])
            async with Visitor(http, guarded.url), Visitor(http, guarded.url) as second:
                assert "open already" in second.error
                await enter(http, guarded.url)
                async with Visitor(http, guarded.url) as owner:
                    assert owner.hello["role"] == "owner"

        visit(guarded.url, work)


class TestLooksInLinks:
    def test_they_are_put_on(self, served: WebSink) -> None:
        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as page:
                await page.send("look", "77")
                await page.until(lambda: page.state.get("style") == page.state.get("look") == "77")

        visit(served.url, work)

    @pytest.mark.parametrize(
        "style",
        [
            "ref:/etc/passwd.png",
            "look.style.json",
            "nonsense",
            "<img src=x onerror=alert(1)>",
            "9" * 3000,
            "",
            7.5,
            None,
        ],
    )
    def test_they_read_no_file_and_run_nothing(self, served: WebSink, style: Any) -> None:
        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as page:
                await page.send("look", style)
                await page.until(lambda: page.state.get("refused") == "look")
                assert page.state["style"] == "1"

        visit(served.url, work)

    def test_which_styles_can_be_in_a_link(self) -> None:
        assert linkable("5+hair:pink") == "5+hair:pink" and linkable("3,4") == "3,4"
        assert linkable("ref:girl.png") == linkable("my.style.json") == linkable("") == ""


class TestTakenAway:
    def test_a_photo(self, served: WebSink, session: LiveSession) -> None:
        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as page:
                await page.send("jpeg")
                await page.until(lambda: page.jpegs)
                images = []
                for query in ("", "?wipe=1"):
                    async with http.get(served.url + "photo.jpg" + query) as answer:
                        assert answer.status == 200 and answer.content_type == "image/jpeg"
                        images.append(decode_jpeg(await answer.read()))
                assert all(image is not None and image.shape == (180, 320, 3) for image in images)
                assert images[1][:, 160].min() > 240 and images[0][:, 160].min() < 240  # the line

        visit(served.url, work)

    def test_the_last_seconds(self, served: WebSink, tmp_path: Path) -> None:
        async def work(http: Any) -> None:
            async with http.get(served.url + "loop.mp4") as answer:
                assert answer.status == 409, "nothing is kept while no page is open"
            async with Visitor(http, served.url):
                await asyncio.to_thread(until, lambda: len(served._replay.moments()) > 5)
                for name, kind in (("loop.mp4", "video/mp4"), ("loop.gif", "image/gif")):
                    async with http.get(served.url + name, params={"wipe": "1"}) as answer:
                        assert answer.status == 200 and answer.content_type == kind
                        (tmp_path / name).write_bytes(await answer.read())

        visit(served.url, work)
        assert len(read_pictures(tmp_path / "loop.mp4")) > 5
        assert len(read_pictures(tmp_path / "loop.gif")) > 1
        until(lambda: served.viewers == 0 and not served._replay.moments())  # the last page has gone

    def test_a_translation_is_played(self, served: WebSink, tmp_path: Path) -> None:
        """Asked for so, it is shown by the browser, and can be sought in."""
        from gnr_video.live.files import Job

        done = Job(tmp_path / "a.mp4", tmp_path / "a_anime.mp4", stage="done")
        done.target.write_bytes(bytes(range(100)))
        served._files.job = done

        async def work(http: Any) -> None:
            for query, how in (("", "attachment"), ("?play=1", "inline")):
                async with http.get(served.url + "file" + query, headers={"Range": "bytes=10-19"}) as answer:
                    assert answer.status == 206 and await answer.read() == bytes(range(10, 20))
                    assert answer.headers["Content-Disposition"].startswith(
                        f"{how}; filename*=UTF-8''a_anime.mp4"
                    )

        visit(served.url, work)
        served._files.job = None


class TestTheNextVisitor:
    """Nobody sees the pictures of whoever was here before."""

    @pytest.fixture
    def empty(self, session: LiveSession) -> Iterator[WebSink]:
        """A session whose only cameras are those of pages."""
        camera, before, reopen = PushCamera(), session.capture.camera, session.capture._reopen
        session.capture.switch(lambda: camera, camera)
        sink = WebSink(session, bind("127.0.0.1", 0), token="", camera=camera)
        session.add_sink(sink)
        yield sink
        session.remove_sink(sink)
        session.capture.switch(reopen)
        until(lambda: session.capture.camera is not camera and session.capture.camera is not before)
        assert sink.failure is None

    def test_nothing_of_the_last_one_is_left(self, empty: WebSink, session: LiveSession) -> None:
        red = encode_jpeg(plain(RED, (320, 180)))

        async def feed(page: Visitor, stop: asyncio.Event) -> None:
            while not stop.is_set():
                await page.socket.send_bytes(red)
                await asyncio.sleep(0.03)

        async def work(http: Any) -> None:
            async with Visitor(http, empty.url) as first, Visitor(http, empty.url) as other:
                await first.send("source", "browser")
                await first.send("jpeg")
                stop = asyncio.Event()
                feeding = asyncio.ensure_future(feed(first, stop))
                await first.until(lambda: first.jpegs and is_red(first.jpegs[-1]))
                await asyncio.to_thread(until, empty._replay.moments)
                await other.until(lambda: other.state.get("source") == "other")
                session.crop = plain(RED, (64, 64))  # as a face there would have been
                session.controls.run("freeze", True)
                shown = len(first.jpegs)
                await first.until(lambda: len(first.jpegs) > shown + 3)  # two may have been on their way
                stop.set()
                await feeding
                await first.send("source", "server")
                await other.until(lambda: other.state.get("source") == "server")
                # From here on everything of it is gone, whatever is still on its way.
                assert empty._newest.frame is None or not is_red(empty._newest.frame.image)
                assert not [m for m in empty._replay.moments() if is_red(decode_jpeg(m.before))]
                async with http.get(empty.url + "face.jpg?style=3") as answer:
                    assert answer.status == 204
            async with Visitor(http, empty.url) as second:
                await second.send("jpeg")
                await second.until(lambda: second.jpegs)
                assert all(image.max() < 60 for image in second.jpegs), "a blank picture"
                assert session.crop is None

        visit(empty.url, work)

    def test_a_picture_is_not_repeated_for_another_camera(self, session: LiveSession) -> None:
        from gnr_video.live.camera import Shot
        from gnr_video.live.capture import Capture

        capture = Capture(PushCamera(), PushCamera)
        shot = Shot(picture(32, 24), time.perf_counter())
        capture._lost = "it is gone"
        assert capture.may_repeat(shot)
        capture.switch(PushCamera)
        assert not capture.may_repeat(shot)
        capture._take(shot, capture.camera)  # read while the other one was chosen
        assert not len(capture.latest)
