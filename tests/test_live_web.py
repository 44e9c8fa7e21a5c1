"""The live server: who may come, commands, WebRTC and JPEG pictures in both directions. Device: CPU."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engines.errors import OutputError
from gnr_video.live.browsers import can_open_pages
from gnr_video.live.recorder import Recorder
from gnr_video.live.session import LiveSession
from gnr_video.live.web import WebSink
from gnr_video.live.web.pictures import UNDRAWN
from gnr_video.media.images import decode_jpeg, encode_jpeg, even
from gnr_video.web.address import bind, is_local, parse_address, urls_of
from gnr_video.web.measure import jpeg_size, picture_size
from tests.live_helpers import live_session, until
from tests.media_helpers import picture, read_pictures

aiohttp = pytest.importorskip("aiohttp", reason="needs aiohttp")
aiortc = pytest.importorskip("aiortc", reason="needs aiortc")


class TestAddress:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("127.0.0.1:0", ("127.0.0.1", 0)),
            ("", ("127.0.0.1", 8090)),
            ("9000", ("127.0.0.1", 9000)),
            (":9000", ("127.0.0.1", 9000)),
            ("0.0.0.0:80", ("0.0.0.0", 80)),
            ("[::1]:9000", ("::1", 9000)),
            ("localhost", ("localhost", 8090)),
        ],
    )
    def test_forms(self, text: str, expected: tuple[str, int]) -> None:
        assert parse_address(text) == expected

    @pytest.mark.parametrize("text", ["host:port", "1:99999", "127.0.0.1:-1", "99999999"])
    def test_nonsense(self, text: str) -> None:
        with pytest.raises(OutputError, match="no address"):
            parse_address(text)

    def test_local(self) -> None:
        assert all(is_local(host) for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"))
        assert not any(is_local(host) for host in ("0.0.0.0", "192.168.1.2", "example.org", "::"))

    def test_other_machines_must_be_allowed(self) -> None:
        with pytest.raises(OutputError, match="other machines") as caught:
            bind("0.0.0.0", 0)
        assert "--allow-remote" in caught.value.hint
        bind("0.0.0.0", 0, allow_remote=True).close()

    def test_addresses_that_can_be_opened(self) -> None:
        """0.0.0.0 is none: other machines know this one by its address or its name."""
        assert urls_of("127.0.0.1", 80) == ["http://127.0.0.1:80/"]
        assert urls_of("::1", 80) == ["http://[::1]:80/"]
        everywhere = urls_of("0.0.0.0", 80)
        assert f"http://{socket.gethostname()}:80/" in everywhere
        assert not [url for url in everywhere if "0.0.0.0" in url]

    @pytest.mark.parametrize(
        ("platform", "environment", "opened"),
        [
            ("linux", {"DISPLAY": ":0"}, True),
            ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
            ("linux", {}, False),
            ("linux", {"DISPLAY": "localhost:10.0", "SSH_CONNECTION": "1 2 3 4"}, False),
            ("darwin", {}, True),
            ("win32", {"CI": "true"}, False),
        ],
    )
    def test_where_pages_are_opened(self, platform: str, environment: dict[str, str], opened: bool) -> None:
        assert can_open_pages(environment, platform) is opened

    def test_a_port_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            with pytest.raises(OutputError, match="in use") as caught:
                bind("127.0.0.1", port)
        assert f"--web 127.0.0.1:{port + 1 if port < 65535 else 8091}" in caught.value.hint


class TestPictures:
    def test_jpeg_there_and_back(self) -> None:
        image = picture(64, 48)
        back = decode_jpeg(encode_jpeg(image))
        assert back is not None
        assert np.abs(back.astype(int) - image).mean() < 6

    @pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".bmp"])
    @pytest.mark.parametrize("size", [(64, 48), (300, 1001)])
    def test_measured_by_the_header(self, extension: str, size: tuple[int, int]) -> None:
        done, data = cv2.imencode(extension, picture(*size))
        assert done and picture_size(data.tobytes()[:4096]) == size
        assert picture_size(data.tobytes()[:12]) is None

    def test_webp_of_every_kind(self) -> None:
        for quality in (50, 101):  # lossy, and without loss
            _, data = cv2.imencode(".webp", picture(70, 31), [cv2.IMWRITE_WEBP_QUALITY, quality])
            assert picture_size(data.tobytes()) == (70, 31)

    @pytest.mark.parametrize("data", [b"", b"nonsense", b"\xff\xd8\xff"])
    def test_what_is_no_jpeg(self, data: bytes) -> None:
        assert decode_jpeg(data) is None

    def test_even(self) -> None:
        assert even(picture(33, 21)).shape == (20, 32, 3)


@pytest.fixture(scope="module")
def session(tiny: Path, face_clip: Path, face_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("live")
    with live_session(tiny, face_clip, folder=folder) as running:
        until(lambda: running.counts.faces)
        yield running
    assert not [t.name for t in threading.enumerate() if t.name == "gnr-video browser" and t.is_alive()]


@pytest.fixture
def served(session: LiveSession, face_clip: Path, tmp_path: Path) -> Iterator[WebSink]:
    from gnr_video.live.cameras import open_camera

    recorder = Recorder(session, tmp_path / "out.mp4")
    session.controls.on_record = recorder.toggle
    sink = WebSink(
        session,
        bind("127.0.0.1", 0),
        token="",
        recorder=recorder,
        server_camera=lambda: open_camera(str(face_clip)),
    )
    session.add_sink(sink)
    yield sink
    session.remove_sink(sink)
    recorder.stop()
    session.controls.run("style", 1)
    session.controls.run("view", "after")
    assert sink.failure is None


def visit(url: str, work: Callable[[Any], Awaitable[Any]], **options: Any) -> Any:
    """Run `work` with an HTTP session based at `url`."""

    async def go() -> Any:
        jar = aiohttp.CookieJar(unsafe=True)  # cookies of an IP address, as browsers keep them
        async with aiohttp.ClientSession(cookie_jar=jar, **options) as http:
            return await asyncio.wait_for(work(http), 60)

    return asyncio.run(go())


class Visitor:
    """A page without a browser: its socket and what came through it."""

    def __init__(self, http: Any, url: str) -> None:
        self._http, self._url = http, url
        self.hello: dict[str, Any] = {}
        self.state: dict[str, Any] = {}
        self.jpegs: list[Any] = []
        self.error = ""

    async def __aenter__(self) -> Visitor:
        self.socket = await self._http.ws_connect(self._url.split("?")[0] + "socket", max_msg_size=0)
        self._task = asyncio.ensure_future(self._read())
        await self.until(lambda: (self.hello and self.state) or self.error)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await self.socket.close()

    async def _read(self) -> None:
        async for message in self.socket:
            if message.type == aiohttp.WSMsgType.BINARY:
                self.jpegs.append(decode_jpeg(message.data))
                await self.send("drawn")
                continue
            data = json.loads(message.data)
            self.error = data.get("error", "")
            self.state = data.get("state", self.state)
            if "client" in data:
                self.hello = data

    async def send(self, command: str, value: Any = None) -> None:
        await self.socket.send_json({"command": command, "value": value})

    async def until(self, condition: Callable[[], Any], seconds: float = 30) -> Any:
        end = time.perf_counter() + seconds
        while not (value := condition()):
            assert time.perf_counter() < end, f"it did not happen; {self.state} {self.error}"
            await asyncio.sleep(0.02)
        return value


class TestAccess:
    def test_the_page_and_its_files(self, served: WebSink) -> None:
        async def work(http: Any) -> None:
            for path, kind in (("", "text/html"), ("live.js", "text/javascript"), ("live.css", "text/css")):
                async with http.get(served.url + path) as answer:
                    assert answer.status == 200
                    assert answer.content_type == kind
                    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]

        visit(served.url, work)

    @pytest.mark.parametrize(
        "headers",
        [{"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}],
    )
    def test_other_sites_are_refused(self, served: WebSink, headers: dict[str, str]) -> None:
        """Through the user's own browser: by a request from another page, or by a name that leads here."""

        async def work(http: Any) -> None:
            async with http.get(served.url, headers=headers) as answer:
                assert answer.status == 403
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await http.ws_connect(served.url + "socket", headers=headers)

        visit(served.url, work)

    def test_pages_elsewhere_use_seeds_only(self, session: LiveSession) -> None:
        sink = WebSink(session, bind("127.0.0.1", 0), remote=True)

        async def work(http: Any) -> None:
            async with http.get(sink.url) as answer:  # leaves the cookie
                assert answer.status == 200
            async with Visitor(http, sink.url) as page:
                await page.send("style", "ref:/etc/passwd.png")
                await page.until(lambda: "seeds only" in page.state.get("message", ""))
                await page.send("style", "5")
                await page.until(lambda: page.state["style"] == "5")

        visit(sink.url, work)
        sink.close()

    @pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"sdp": "v=0", "type": "offer", "client": "1"}'])
    def test_an_offer_that_is_none(self, served: WebSink, data: bytes) -> None:
        async def work(http: Any) -> None:
            async with http.post(served.url + "offer", data=data) as answer:
                assert answer.status == 400

        visit(served.url, work)


class TestToken:
    """On a machine that people share, its other users come to 127.0.0.1 too."""

    @pytest.fixture(params=[False, True], ids=["here", "remote"])
    def guarded(self, session: LiveSession, request: pytest.FixtureRequest) -> Iterator[WebSink]:
        sink = WebSink(session, bind("127.0.0.1", 0), remote=request.param)
        yield sink
        sink.close()

    def test_it_is_asked_for_on_this_machine_too(self, guarded: WebSink) -> None:
        bare, token = guarded.url.split("?token=")
        assert len(token) >= 20

        async def work(http: Any) -> None:
            for path in ("", "live.js", "face.jpg?style=3", "recording", "?token=wrong", "?token="):
                async with http.get(bare + path) as answer:
                    assert answer.status == 403, path
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await http.ws_connect(bare + "socket")
            async with http.get(guarded.url) as answer:
                assert answer.status == 200
                assert f"gnr-video-token-{bare.split(':')[2].strip('/')}" in answer.cookies
            async with http.get(bare + "live.js") as answer:
                assert answer.status == 200

        visit(bare, work)

    def test_two_servers_of_one_machine_keep_their_cookies(
        self, session: LiveSession, guarded: WebSink
    ) -> None:
        """Cookies belong to a host, whatever the port."""
        other = WebSink(session, bind("127.0.0.1", 0))

        async def work(http: Any) -> None:
            for sink in (guarded, other):
                await (await http.get(sink.url)).read()
            for sink in (guarded, other):
                async with http.get(sink.url.split("?")[0]) as answer:
                    assert answer.status == 200

        visit(guarded.url, work)
        other.close()

    def test_a_ticket_lets_one_page_in(self, guarded: WebSink) -> None:
        address = guarded.url_once()
        assert guarded.url.split("=")[1] not in address

        async def first(http: Any) -> None:
            async with http.get(address) as answer:
                assert answer.status == 200
            async with http.get(address.split("?")[0] + "live.js") as answer:  # by its cookie
                assert answer.status == 200

        async def second(http: Any) -> None:
            async with http.get(address) as answer:
                assert answer.status == 403

        visit(address, first)
        visit(address, second)

    @pytest.mark.parametrize(
        ("path", "site", "mode", "status"),
        [
            ("face.jpg?style=3", "cross-site", "no-cors", 403),
            ("face.jpg?style=3", "same-site", "no-cors", 403),  # another port of this machine
            ("recording", "cross-site", "navigate", 403),
            ("", "cross-site", "navigate", 200),  # a link that somebody follows
            ("live.js", "same-origin", "cors", 200),
            ("live.js", "none", "navigate", 200),
        ],
    )
    def test_what_other_sites_ask_for(
        self, served: WebSink, path: str, site: str, mode: str, status: int
    ) -> None:
        """An image of another site's page has no Origin, but the browser says where it is from."""

        async def work(http: Any) -> None:
            headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
            async with http.get(served.url + path, headers=headers) as answer:
                assert answer.status == status

        visit(served.url, work)


class TestFaces:
    def test_the_last_face_in_a_style(self, served: WebSink) -> None:
        async def work(http: Any) -> None:
            async with http.get(served.url + "face.jpg?style=3") as answer:
                image = decode_jpeg(await answer.read())
                assert image is not None
                assert image.shape == (64, 64, 3)
            for style in ("", "nonsense", "ref:girl.png", "9" * 5000):
                async with http.get(served.url + "face.jpg", params={"style": style}) as answer:
                    assert answer.status == 400
                    assert len((await answer.text()).splitlines()) == 1

        visit(served.url, work)

    @pytest.fixture
    def slow(
        self, served: WebSink, session: LiveSession, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[SlowFaces]:
        """Drawings that wait for the test."""
        until(lambda: session.crop is not None)
        faces = SlowFaces(served)
        monkeypatch.setattr(session.translator, "translate_face", faces.draw)
        monkeypatch.setattr(served._faces, "answer", faces.answer)
        yield faces
        faces.go.set()

    def test_the_newest_wish_wins(self, served: WebSink, slow: SlowFaces) -> None:
        """Ten quick clicks draw the first, which is under way, and the last."""

        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as page:
                asked = [await slow.ask(http, page, str(style)) for style in range(10)]
                slow.go.set()
                answers = await asyncio.gather(*asked)
                assert [answer.status for answer in answers] == [200, *[409] * 8, 200]

        visit(served.url, work)
        assert slow.drawn == ["0", "9"]

    @pytest.mark.parametrize("leaving", ["request", "page"])
    def test_who_has_gone_gets_none(self, served: WebSink, slow: SlowFaces, leaving: str) -> None:
        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as one:
                async with Visitor(http, served.url) as two:
                    first, second = await slow.ask(http, one, "1"), await slow.ask(http, two, "2")
                    await one.until(lambda: one.state.get("viewers") == 2)
                    if leaving == "request":
                        second.cancel()
                        await two.until(lambda: slow.requests[1].transport is None)
                await one.until(lambda: one.state["viewers"] == 1)
                slow.go.set()
                assert (await first).status == 200
                await asyncio.wait([second])

        visit(served.url, work)
        assert slow.drawn == ["1"]


class SlowFaces:
    """Stands before the server's drawings of looks: they begin at once, and end when `go` is set."""

    def __init__(self, sink: WebSink) -> None:
        self.drawn: list[str] = []
        self.requests: list[Any] = []
        self.go = threading.Event()
        self._url = sink.url
        self._answer = sink._faces.answer

    def draw(self, crop: Any, style: str) -> Any:
        self.drawn.append(style)
        assert self.go.wait(60)
        return crop

    async def answer(self, request: Any, page: str) -> Any:
        self.requests.append(request)
        return await self._answer(request, page)

    async def ask(self, http: Any, page: Visitor, style: str) -> asyncio.Task[Any]:
        """Wish for a look; once this returns, the server knows of it, and draws it if nothing else is drawn."""
        before = len(self.requests)
        query = {"style": style, "client": page.hello["client"]}
        task = asyncio.ensure_future(http.get(self._url + "face.jpg", params=query))
        await page.until(lambda: len(self.requests) > before and self.drawn)
        return task


class TestCommands:
    def test_they_change_the_session_and_every_page_sees_it(
        self, served: WebSink, session: LiveSession
    ) -> None:
        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as one, Visitor(http, served.url) as two:
                await one.send("style", "77")
                await two.until(lambda: two.state.get("style") == "77")
                await two.send("view", "before")
                await one.until(lambda: one.state["view"] == "before")
                for key in (".", "1", "2", "\r"):
                    await one.send("key", key)
                await two.until(lambda: two.state["style"] == "12")
                await one.send("style", "nonsense")
                await one.until(lambda: "nonsense" in one.state["message"])
                await one.until(lambda: one.state["viewers"] == 2)
                assert one.state["style"] == "12"

        visit(served.url, work)
        until(lambda: served.viewers == 0)

    def test_nonsense_does_no_harm(self, served: WebSink) -> None:
        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as page:
                for text in ("", "{", "[]", "7", "null", '{"command": []}', '{"command": "key"}'):
                    await page.socket.send_str(text)
                await page.socket.send_bytes(b"no picture")
                await page.send("mix", {"a": 1})
                await page.send("style", "31")
                await page.until(lambda: page.state.get("style") == "31")

        visit(served.url, work)

    def test_a_state_says_which_command_it_shows(self, served: WebSink) -> None:
        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as page:
                await page.until(lambda: page.state)
                assert page.state["request"] == 0
                await page.socket.send_json({"command": "style", "value": "21", "request": 7})
                await page.until(lambda: page.state["request"] == 7)
                assert page.state["style"] == "21" and not page.state["refused"]
                await page.socket.send_json({"command": "style", "value": "nonsense", "request": 8})
                await page.until(lambda: page.state["request"] == 8)
                assert page.state["refused"] == "style" and page.state["style"] == "21"

        visit(served.url, work)

    @pytest.mark.parametrize(
        ("style", "words"),
        [("7" * 2_000, "64 bits"), ("7" * 60_000, "2000 letters"), ("ref:a\0.png", "control characters")],
    )
    def test_styles_that_are_none_are_one_line(self, served: WebSink, style: str, words: str) -> None:
        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as page:
                await page.send("style", style)
                await page.until(lambda: page.state.get("refused") == "style")
                assert words in page.state["message"] and len(page.state["message"].splitlines()) == 1
                await page.send("style", "31")
                await page.until(lambda: page.state["style"] == "31")

        visit(served.url, work)

    def test_messages_that_are_too_much(self, served: WebSink, caplog: pytest.LogCaptureFixture) -> None:
        deep = "[" * 50_000
        huge = json.dumps({"command": "style", "value": "7" * (1 << 20)})

        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as page:
                for text in (deep, huge, json.dumps({"command": "style", "value": [[]] * 100})):
                    await page.socket.send_str(text)
                await page.until(
                    lambda: "too long" in page.state.get("message", "") or page.state.get("refused")
                )
                await page.send("style", "32")
                await page.until(lambda: page.state["style"] == "32")
                async with http.post(served.url + "offer", data=deep) as answer:
                    assert answer.status == 400

        visit(served.url, work)
        assert not [record for record in caplog.records if record.exc_info]

    def test_a_pages_q_does_not_end_the_session_of_all(self, served: WebSink, session: LiveSession) -> None:
        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as page:
                for key in ("q", "Q", "n"):
                    await page.send("key", key)
                await page.until(lambda: page.state.get("style") == "2")

        session.controls.run("style", 1)
        visit(served.url, work)
        assert not session.controls.quitting.is_set()

    def test_too_many_pages(self, served: WebSink, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gnr_video.live.web.clients.MAX_CLIENTS", 1)

        async def work(http: Any) -> None:
            async with Visitor(http, served.url), Visitor(http, served.url) as second:
                assert "open already" in second.error

        visit(served.url, work)

    def test_recording(self, served: WebSink, tmp_path: Path) -> None:
        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as page:
                async with http.get(served.url + "recording") as answer:
                    assert answer.status == 404
                await page.send("jpeg")
                await page.send("record")
                await page.until(lambda: page.state.get("recording"))
                before = len(page.jpegs)
                await page.until(lambda: len(page.jpegs) > before + 5)
                await page.send("record")
                await page.until(lambda: page.state["recorded"] == "out.mp4")
                async with http.get(served.url + "recording") as answer:
                    (tmp_path / "fetched.mp4").write_bytes(await answer.read())

        visit(served.url, work)
        assert len(read_pictures(tmp_path / "fetched.mp4")) >= 2


class TestTransport:
    def test_jpegs_over_the_socket(self, served: WebSink) -> None:
        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as page:
                await page.send("jpeg")
                await page.until(lambda: len(page.jpegs) > 5)
                assert all(image.shape == (180, 320, 3) for image in page.jpegs)
                assert not np.array_equal(page.jpegs[0], page.jpegs[5])

        visit(served.url, work)

    def test_webrtc(self, served: WebSink, session: LiveSession) -> None:
        """A WebRTC peer that is no browser: pictures that move arrive."""
        session.times.reset()

        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as page:
                peer = aiortc.RTCPeerConnection()
                peer.addTransceiver("video", direction="sendrecv")
                tracks: list[Any] = []
                peer.on("track", tracks.append)
                await peer.setLocalDescription(await peer.createOffer())
                offer = {"sdp": peer.localDescription.sdp, "type": "offer", "client": page.hello["client"]}
                async with http.post(served.url + "offer", json=offer) as answer:
                    data = await answer.json()
                assert re.search(r"a=fmtp:\d+ (.*;)?x-google-start-bitrate=3000;", data["sdp"])
                await peer.setRemoteDescription(aiortc.RTCSessionDescription(**data))
                await page.until(lambda: tracks)
                frames = [(await tracks[0].recv()) for _ in range(8)]
                assert {(f.width, f.height) for f in frames} == {(320, 180)}
                first, last = (frames[i].to_ndarray(format="rgb24").astype(int) for i in (0, -1))
                assert np.abs(first - last).mean() > 0.5
                await peer.close()

        visit(served.url, work)
        assert session.times.summary()["to browser"].count > 3

    def test_pictures_from_the_page(self, served: WebSink, session: LiveSession) -> None:
        """A page gives its camera; another takes over; when both are gone, the server's camera is back."""
        red, blue = np.zeros((180, 320, 3), np.uint8), np.zeros((180, 320, 3), np.uint8)
        red[..., 0], blue[..., 2] = 250, 250

        async def give(page: Visitor, image: Any, stop: asyncio.Event) -> None:
            while not stop.is_set():
                await page.socket.send_bytes(encode_jpeg(image))
                await asyncio.sleep(0.03)

        def color(page: Visitor) -> int | None:
            return int(page.jpegs[-1].mean((0, 1)).argmax()) if page.jpegs else None

        async def work(http: Any) -> None:
            stop = asyncio.Event()
            async with Visitor(http, served.url) as one:
                await one.send("source", "browser")
                await one.send("jpeg")
                feeding = asyncio.ensure_future(give(one, red, stop))
                await one.until(lambda: one.jpegs and one.jpegs[-1][..., 0].min() > 200)
                assert one.state["source"] == "browser"
                async with Visitor(http, served.url) as two:
                    await two.send("source", "browser")
                    await two.send("jpeg")
                    other = asyncio.ensure_future(give(two, blue, stop))
                    await two.until(lambda: two.jpegs and two.jpegs[-1][..., 2].min() > 200)
                    await one.until(lambda: one.state["source"] == "other")
                    stop.set()
                    await asyncio.gather(feeding, other)
                await one.until(lambda: one.state["source"] == "server" and one.jpegs[-1].std() > 20)

        visit(served.url, work)

    @pytest.mark.parametrize("stun", ["", "stun:192.0.2.1:3478"])
    def test_stun_servers_are_those_asked_for(self, session: LiveSession, stun: str) -> None:
        sink = WebSink(session, bind("127.0.0.1", 0), token="", stun=stun)

        async def work(http: Any) -> None:
            async with Visitor(http, sink.url) as page:
                assert page.hello["ice_servers"] == ([{"urls": stun}] if stun else [])
                peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
                peer.addTransceiver("video", direction="recvonly")
                await peer.setLocalDescription(await peer.createOffer())
                offer = {"sdp": peer.localDescription.sdp, "type": "offer", "client": page.hello["client"]}
                async with http.post(sink.url + "offer", json=offer) as answer:
                    assert answer.status == 200
                client = sink._clients.named(page.hello["client"], "owner")
                assert client is not None
                transport = client.peer.getTransceivers()[0].sender.transport.transport
                asked = transport.iceGatherer._connection.stun_server
                assert asked == (("192.0.2.1", 3478) if stun else None)
                await peer.close()

        visit(sink.url, work)
        sink.close()

    def test_pictures_are_measured_before_they_are_decoded(
        self, served: WebSink, session: LiveSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        small = encode_jpeg(picture(64, 48))
        at = next(i for i in range(2, len(small)) if small[i] == 0xFF and small[i + 1] == 0xC0)
        huge = small[: at + 5] + bytes([0x2A, 0xF8, 0x2A, 0xF8]) + small[at + 9 :]
        assert jpeg_size(small) == (64, 48) and jpeg_size(huge) == (11000, 11000)
        sizes: list[int] = []

        def counted(data: bytes) -> Any:
            sizes.append(len(data))
            return decode_jpeg(data)

        monkeypatch.setattr("gnr_video.live.web.source.decode_jpeg", counted)

        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as page:
                await page.send("source", "browser")
                for data in (huge, b"\xff\xd8\xff", b"\x89PNG", small):
                    await page.socket.send_bytes(data)
                await page.until(lambda: "64x48" in page.state.get("camera", ""))

        visit(served.url, work)
        assert sizes == [len(small)]

    def test_the_sample_clip(self, served: WebSink) -> None:
        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as page:
                await page.send("source", "sample")
                await page.until(lambda: page.state.get("source") == "sample")
                await page.until(lambda: "sample clip" in page.state["camera"] and page.state["fps"] > 1)
                await page.send("source", "server")
                await page.until(lambda: "face.mp4" in page.state["camera"])

        visit(served.url, work)

    def test_a_few_pictures_are_on_their_way_and_no_more(self, served: WebSink) -> None:
        """One alone would wait for the line there and back; more would pile up for a page that is slow or asleep."""

        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as page:
                drawn = page.send

                async def asleep(command: str, value: Any = None) -> None:
                    if command != "drawn":
                        await drawn(command, value)

                page.send = asleep  # type: ignore[method-assign]
                await page.send("jpeg")
                await page.until(lambda: len(page.jpegs) == UNDRAWN)
                await asyncio.sleep(1.0)
                assert len(page.jpegs) == UNDRAWN
                await drawn("drawn")
                await page.until(lambda: len(page.jpegs) == UNDRAWN + 1)
                await asyncio.sleep(0.5)
                assert len(page.jpegs) == UNDRAWN + 1

        visit(served.url, work)

    def test_closing_with_pages_open_is_quick(self, session: LiveSession) -> None:
        sink = WebSink(session, bind("127.0.0.1", 0), token="")
        session.add_sink(sink)

        async def work(http: Any) -> float:
            async with Visitor(http, sink.url) as page:
                await page.send("jpeg")
                await page.until(lambda: page.jpegs)
                start = time.perf_counter()
                await asyncio.to_thread(session.remove_sink, sink)
                return time.perf_counter() - start

        # A tenth of a second where nothing else runs; peers and sockets that do not close would be waited for.
        assert visit(sink.url, work) < 8.0
        until(lambda: not sink._thread.is_alive(), 5)
