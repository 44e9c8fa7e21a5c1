"""Drives a headless Chromium through its DevTools protocol; nothing is downloaded."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import pytest

CHROMIUM = next(
    filter(
        None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))
    ),
    None,
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
SECONDS = 60


class Page:
    """One tab."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.errors: list[str] = []
        self._reader = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            data = json.loads(message.data)
            if data.get("id") in self._answers:
                self._answers.pop(data["id"]).set_result(data)
            elif data.get("method") == "Runtime.exceptionThrown":
                details = data["params"]["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description") or details["text"])
            elif data.get("method") == "Log.entryAdded" and data["params"]["entry"]["level"] == "error":
                self.errors.append(data["params"]["entry"]["text"])

    async def send(self, method: str, **params: Any) -> Any:
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        data = await asyncio.wait_for(answer, SECONDS)
        assert "error" not in data, data["error"]
        return data["result"]

    async def open(self, url: str) -> None:
        await self.send("Runtime.enable")
        await self.send("Log.enable")
        await self.send("Page.enable")
        await self.send("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && document.body.children.length > 0")

    async def reload(self) -> None:
        """Load the page again; what is asked next is answered by the new document."""
        await self.run("window.isOld = true")
        await self.send("Page.reload")
        for _ in range(10 * SECONDS):
            with contextlib.suppress(AssertionError):  # the document may go while it is asked
                if await self.run("!window.isOld && document.readyState === 'complete'"):
                    return
            await asyncio.sleep(0.1)
        raise AssertionError("the page does not come back")

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        done = await self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    async def until(self, script: str, seconds: float = 30) -> Any:
        """Wait until an expression is true; its value."""
        end = asyncio.get_running_loop().time() + seconds
        while not (value := await self.run(script)):
            assert asyncio.get_running_loop().time() < end, f"not within {seconds:g} s: {script}"
            await asyncio.sleep(0.1)
        return value


@contextlib.asynccontextmanager
async def chromium(*arguments: str) -> AsyncIterator[Any]:
    """A browser with a fake camera; yields a function that opens a page."""
    import aiohttp

    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(prefix="gnr-video-chromium-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                CHROMIUM,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-quic",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
                "--autoplay-policy=no-user-gesture-required",
                "--window-size=1280,900",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                *arguments,
                "about:blank",
            ],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        try:
            assert process.stderr is not None
            address = await asyncio.wait_for(asyncio.to_thread(_devtools, process.stderr), SECONDS)
            drain = asyncio.get_running_loop().run_in_executor(None, process.stderr.read)
            async with aiohttp.ClientSession() as http, contextlib.AsyncExitStack() as stack:

                async def new_page(url: str) -> Page:
                    async with http.put(f"http://{address}/json/new?about:blank") as answer:
                        target = (await answer.json(content_type=None))["webSocketDebuggerUrl"]
                    socket = await stack.enter_async_context(http.ws_connect(target, max_msg_size=0))
                    page = Page(socket)
                    await page.open(url)
                    return page

                yield new_page
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(drain, 5)


def _devtools(stream: Any) -> str:
    for line in stream:
        found = re.search(rb"DevTools listening on ws://([^/]+)/", line)
        if found:
            return found.group(1).decode()
    raise AssertionError("Chromium has ended by itself")
