"""A live session served to pages, for tests, and a page without a browser."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gnr_video.live.cameras import open_camera
from gnr_video.live.recorder import Recorder
from gnr_video.live.session import LiveSession
from gnr_video.live.web import WebSink
from gnr_video.media.images import decode_jpeg
from gnr_video.web.address import bind
from tests.live_helpers import live_session, until

aiohttp = pytest.importorskip("aiohttp", reason="needs aiohttp")
pytest.importorskip("aiortc", reason="needs aiortc")


@pytest.fixture(scope="module")
def session(tiny: Path, face_clip: Path, face_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("live")
    with live_session(tiny, face_clip, folder=folder) as running:
        until(lambda: running.counts.faces)
        yield running
    assert not [t.name for t in threading.enumerate() if t.name == "gnr-video browser" and t.is_alive()]


@pytest.fixture
def served(session: LiveSession, face_clip: Path, tmp_path: Path) -> Iterator[WebSink]:
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
