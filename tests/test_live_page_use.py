"""What people do with the live page, and what goes wrong meanwhile, in headless Chromium. Device: CPU."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gnr_video.live.camera import PushCamera
from gnr_video.live.session import LiveSession
from gnr_video.live.web import WebSink
from gnr_video.web.address import bind
from tests.browser import Page, needs_chromium
from tests.live_helpers import until
from tests.test_live_page import SHOWN, browse, click, served, session, use_style

pytest.importorskip("aiohttp", reason="needs aiohttp")
pytest.importorskip("aiortc", reason="needs aiortc")
pytestmark = needs_chromium
__all__ = ["served", "session"]  # fixtures

# Every message of the socket takes 80 ms each way.
SLOW_LINE = """
  const Fast = WebSocket;
  window.WebSocket = class extends Fast {
    send(data) { setTimeout(() => { if (this.readyState === 1) super.send(data); }, 80); }
    set onmessage(take) { super.onmessage = (event) => setTimeout(() => take(event), 80); }
    get onmessage() { return super.onmessage; }
  };
"""


@pytest.fixture
def empty(session: LiveSession) -> Iterator[WebSink]:
    """A session that waits for a page's camera, with the token that other users of this machine lack."""
    camera = PushCamera()
    before = session.capture.camera
    session.capture.switch(lambda: camera, camera)
    sink = WebSink(session, bind("127.0.0.1", 0), camera=camera)
    session.add_sink(sink)
    yield sink
    session.remove_sink(sink)
    session.controls.run("mirror", False)
    session.capture.switch(session.capture._reopen if before is camera else lambda: _again(before))
    assert sink.failure is None


def _again(camera: Any) -> Any:
    from gnr_video.live.cameras import open_camera

    return open_camera(camera._path)


async def key(page: Page, *names: str) -> None:
    """Press keys on whatever has the focus, as a keyboard does: Enter presses a button."""
    for name in names:
        text = "\r" if name == "Enter" else name if len(name) == 1 else ""
        code = {"Enter": 13, "Escape": 27}.get(name, ord(name[0].upper()))
        for kind in ("keyDown", "keyUp"):
            await page.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=name,
                windowsVirtualKeyCode=code,
                **({"text": text} if text and kind == "keyDown" else {}),
            )


async def choose(page: Page, source: str) -> None:
    await page.run(
        f"(() => {{ const s = document.getElementById('source'); s.value = '{source}';"
        " s.dispatchEvent(new Event('change')); })()"
    )


def visible(name: str) -> str:
    return f"document.getElementById('{name}').checkVisibility()"


class TestCamera:
    def test_it_stays_on_over_a_slow_line(self, served: WebSink, session: LiveSession) -> None:
        """States that the server sent before it knew of the page's camera do not switch it off."""

        async def work(page: Page, _: Any) -> None:
            await page.send("Page.addScriptToEvaluateOnNewDocument", source=SLOW_LINE)
            await page.reload()
            await page.until("document.querySelectorAll('.look').length")
            await page.run(
                "window.stopped = 0; const all = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);"
                "navigator.mediaDevices.getUserMedia = async (wish) => { const found = await all(wish);"
                "  const track = found.getVideoTracks()[0]; const stop = track.stop.bind(track);"
                "  track.stop = () => { window.stopped += 1; stop(); }; return found; }; 0"
            )
            for turn in range(1, 7):
                await choose(page, "browser")
                await asyncio.to_thread(until, lambda: "browser" in session.status().camera)
                await asyncio.sleep(0.6)
                assert await page.run("window.stopped") == turn - 1
                assert await page.run("document.getElementById('source').value") == "browser"
                await choose(page, "server")
                await asyncio.to_thread(until, lambda: "face.mp4" in session.status().camera)
                await asyncio.sleep(0.3)

        browse(served.url, work)

    def test_a_refusal_stays_until_it_was_read(self, served: WebSink) -> None:
        async def work(page: Page, _: Any) -> None:
            await page.until(SHOWN)
            await page.run(
                "navigator.mediaDevices.getUserMedia = () =>"
                " Promise.reject(new DOMException('Permission denied', 'NotAllowedError')); 0"
            )
            await choose(page, "browser")
            await page.until(visible("message"))
            await asyncio.sleep(1.5)  # six states later
            assert await page.run(visible("message"))
            assert "allow it, and try again" in await page.run(
                "document.getElementById('message-text').textContent"
            )
            await page.until("document.getElementById('source').value === 'server'")
            await click(page, "#message-close")
            assert not await page.run(visible("message"))

        browse(served.url, work)

    def test_the_first_screen(self, empty: WebSink, session: LiveSession) -> None:
        """One click from the opened page to the own picture, mirrored; no face is said in the picture."""

        async def work(page: Page, _: Any) -> None:
            await page.until(visible("welcome"))
            assert not await page.run(visible("faceless")) and not await page.run(visible("notice"))
            await click(page, "#welcome-camera")
            await page.until("!" + visible("welcome"))
            await page.until("document.getElementById('mirror').getAttribute('aria-pressed') === 'true'")
            await page.until(SHOWN)
            await page.until(visible("faceless"))  # Chromium's fake camera shows none
            await choose(page, "sample")
            await page.until("!" + visible("faceless"))
            assert session.controls.mirror

        browse(empty.url, work)


class TestKeys:
    def test_enter_ends_a_seed_and_presses_no_button(self, served: WebSink, session: LiveSession) -> None:
        async def work(page: Page, _: Any) -> None:
            await page.until(SHOWN)
            await page.run("document.querySelector('[data-command=next]').focus()")
            await key(page, ".", "4", "2", "Enter")
            await page.until("document.getElementById('style').value === '42'")
            await asyncio.sleep(0.5)
            assert session.controls.state()["style"] == "42"
            await key(page, "Enter")  # nothing has been typed: the button's
            await page.until("document.getElementById('style').value === '43'")

        browse(served.url, work)

    def test_quitting_asks(self, served: WebSink, session: LiveSession) -> None:
        async def work(page: Page, _: Any) -> None:
            await page.until(SHOWN)
            await key(page, "q")
            await page.until("document.getElementById('quit-dialog').open")
            await key(page, "Escape")
            await page.until("!document.getElementById('quit-dialog').open")
            await asyncio.sleep(0.3)
            assert not session.controls.quitting.is_set()
            await click(page, "#quit")
            await click(page, "#quit-yes")
            await asyncio.to_thread(until, session.controls.quitting.is_set)

        try:
            browse(served.url, work)
        finally:
            session.controls.quitting.clear()


class TestStyles:
    def test_what_was_mistyped_stays(self, served: WebSink) -> None:
        async def work(page: Page, _: Any) -> None:
            await page.until(SHOWN)
            await use_style(page, "hair:pnik")
            await page.until("document.getElementById('style').getAttribute('aria-invalid') === 'true'")
            await asyncio.sleep(0.6)
            assert await page.run("document.getElementById('style').value") == "hair:pnik"
            await use_style(page, "12")
            await page.until("document.getElementById('style').getAttribute('aria-invalid') === null")
            await page.until("document.getElementById('style').value === '12'")

        browse(served.url, work)

    def test_the_strip_marks_the_look_on_show_and_keeps_favourites(self, served: WebSink) -> None:
        pressed = "[...document.querySelectorAll('.look[aria-pressed=true]')].map((b) => b.dataset.style)"

        async def work(page: Page, _: Any) -> None:
            await page.until("document.querySelectorAll('.look').length === 12")
            await page.until("[...document.querySelectorAll('.look canvas')].every((c) => c.width > 8)")
            await click(page, ".look:nth-child(4)")
            await page.until(f"{pressed}.join() === '3'")
            await click(page, "#strip-more")
            await page.until("document.querySelector('.look').dataset.style === '12'")
            await click(page, "#favourite")
            await page.until("document.querySelector('.look').dataset.style === '3'")
            assert await page.run(f"{pressed}.join()") == "3"
            await page.reload()
            await page.until("document.querySelectorAll('.look').length > 11")
            assert await page.run("document.querySelector('.look').dataset.style") == "3"
            before = await page.run("document.getElementById('style').value")
            await click(page, "#surprise")
            await page.until(f"document.getElementById('style').value !== '{before}'")
            await click(page, "#favourite")

        browse(served.url, work)

    def test_a_row_that_is_left_in_the_middle(self, served: WebSink) -> None:
        """A picture that arrives for a row of looks of before disturbs nobody."""

        async def work(page: Page, _: Any) -> None:
            await page.run(
                "window.late = 0; const make = createImageBitmap;"
                "window.createImageBitmap = async (data) => { const made = await make(data);"
                "  await new Promise((done) => setTimeout(done, 200)); window.late += 1; return made; }; 0"
            )
            await page.until("document.querySelectorAll('.look').length === 12")
            for way in ("more", "back", "refresh"):
                late = await page.run("window.late")
                await click(page, f"#strip-{way}")
                await asyncio.sleep(0.05)
                await click(page, "#strip-refresh")
                await page.until(f"window.late > {late} + 1")
            await page.until("[...document.querySelectorAll('.look canvas')].every((c) => c.width > 8)")

        browse(served.url, work)


def test_a_file_dropped_beside_its_box(served: WebSink, face_clip: Path) -> None:
    """On the picture, say: it is taken, and the browser does not open it in place of the page."""

    async def work(page: Page, _: Any) -> None:
        await page.until(SHOWN)
        taken = await page.run(
            "(() => { const data = new DataTransfer(); data.items.add(new File(['no video'], 'note.mp4'));"
            " const at = document.getElementById('video');"
            " const over = new DragEvent('dragover', { dataTransfer: data, bubbles: true, cancelable: true });"
            " const drop = new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true });"
            " return [!at.dispatchEvent(over), !at.dispatchEvent(drop)]; })()"
        )
        assert taken == [True, True]
        await page.until("document.getElementById('file-note').textContent.includes('note.mp4')")
        note = await page.until(
            "(() => { const note = document.getElementById('file-note').textContent;"
            " return note.includes('sending') || note.endsWith('%') ? '' : note; })()"
        )
        assert "gnr-video-files" not in note, "where it lay is nobody's business"

    browse(served.url, work)


def test_controls_are_dead_when_the_server_is(session: LiveSession) -> None:
    sink = WebSink(session, bind("127.0.0.1", 0))
    session.add_sink(sink)

    async def work(page: Page, _: Any) -> None:
        await page.until(SHOWN)
        assert not await page.run("document.getElementById('main').inert")
        await asyncio.to_thread(session.remove_sink, sink)
        await page.until(visible("dead"))
        assert await page.run("document.getElementById('main').inert")
        page.errors.clear()  # the browser's own words on the lost connection

    browse(sink.url, work)
