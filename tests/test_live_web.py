"""What pages ask of the live server: looks for the last face, commands, recordings. Device: CPU."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gnr_video.live.session import LiveSession
from gnr_video.live.web import WebSink
from gnr_video.media.images import decode_jpeg
from tests.live_helpers import until
from tests.live_web_fixtures import Visitor, served, session, visit
from tests.media_helpers import read_pictures

__all__ = ["served", "session"]  # fixtures


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
