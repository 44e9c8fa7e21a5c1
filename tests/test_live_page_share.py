"""What leaves the live page, who may only watch it, and how it looks elsewhere, in headless Chromium. Device: CPU."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gnr_video.live.session import LiveSession
from gnr_video.live.web import WebSink
from gnr_video.web.address import bind
from tests.browser import Page, needs_chromium
from tests.live_helpers import until
from tests.test_live_page import AXE, SHOWN, axe_faults, browse, click, served, session, use_style, violets
from tests.test_live_page_use import key, visible

pytest.importorskip("aiohttp", reason="needs aiohttp")
pytest.importorskip("aiortc", reason="needs aiortc")
pytestmark = [needs_chromium, pytest.mark.slow]
__all__ = ["served", "session"]  # fixtures

DIALOG = "document.getElementById('share-dialog').open"

# A browser that hands things to other programs, as those of phones do.
SHARING = """
  window.shared = [];
  navigator.canShare = () => true;
  navigator.share = async (data) => { window.shared.push(data.url || data.files[0].name + ' ' + data.files[0].type); };
"""


async def wait(condition: Any) -> None:
    await asyncio.to_thread(until, condition)


def test_a_viewers_page_shows_the_picture_and_nothing_to_press(session: LiveSession) -> None:
    sink = WebSink(session, bind("127.0.0.1", 0))
    session.add_sink(sink)

    async def work(page: Page, _: Any) -> None:
        await page.until(SHOWN)
        await violets(page, lambda count: count > 5)
        assert await page.run(visible("watching")) and await page.run(visible("full"))
        for name in ("quit", "style-form", "photo", "mirror", "strip", "file-form", "welcome"):
            assert not await page.run(visible(name)), name
        assert (
            await page.run(
                "[...document.querySelectorAll('button')].filter((b) => b.checkVisibility()).length"
            )
            == 1
        )
        await click(page, "#full")
        await page.until("document.fullscreenElement?.id === 'picture'")
        await key(page, "f")
        await page.until("document.fullscreenElement === null")
        if AXE is not None:
            await page.run(AXE.read_text(encoding="utf-8") + "; 0")
            assert await axe_faults(page) == []

    browse(sink.viewer_urls[0], work)
    session.remove_sink(sink)


def test_photos_loops_and_links(served: WebSink, session: LiveSession) -> None:
    """The page is opened by a link with a look: that is put on, once."""

    async def work(page: Page, _: Any) -> None:
        await page.until(SHOWN)
        await page.until("document.getElementById('style').value === '7+eyes:green'")
        assert await page.run("location.hash") == ""
        await click(page, "#photo")
        await page.until(f"{DIALOG} && document.getElementById('share-picture').naturalWidth === 320")
        assert not await page.run(visible("share-send")), "this browser cannot share"
        assert (await page.run("document.getElementById('share-save').download")).endswith(".jpg")
        await click(page, "#share-close")
        await page.until(f"!{DIALOG}")

        await page.run(SHARING + "0")
        await wait(lambda: len(served._replay.moments()) > 5)
        await click(page, "#wipe")
        await click(page, "#loop")
        await page.until(f"{DIALOG} && document.getElementById('share-video').currentTime > 0")
        assert await page.run("document.getElementById('share-video').videoWidth") == 320
        await click(page, "#share-send")
        await page.until("window.shared.length === 1")
        assert (await page.run("window.shared[0]")).endswith(".mp4 video/mp4")
        await click(page, "#share-close")

        session.controls.run("style", "5+hair:pink")
        await page.until("document.getElementById('style').value === '5+hair:pink'")
        await click(page, "#look-link")
        link = await page.run("document.getElementById('share-link').value")
        assert link == served.url + "#look=5%2Bhair%3Apink"
        await click(page, "#share-send")
        await page.until("window.shared.length === 2")
        assert await page.run("window.shared[1]") == link
        await click(page, "#share-close")
        session.controls.run("style", 1)
        await page.until("document.getElementById('style').value === '1'")
        await use_style(page, link)
        await page.until("document.getElementById('style').value === '5+hair:pink'")
        # What is no style is said, and nothing of it is run.
        await page.run(
            "location.hash = '#look=' + encodeURIComponent('<img src=x onerror=\"window.ran = 1\">'); 0"
        )
        await page.until("document.getElementById('message-text').textContent.includes('does not parse')")
        assert await page.run("window.ran") is None
        assert session.controls.state()["style"] == "5+hair:pink"
        await page.run("location.hash = '#look=%E0%A4%A'; 0")  # not even text
        await page.run("location.hash = '#look=12'; 0")
        await wait(lambda: session.controls.state()["style"] == "12")

    browse(served.url + "#look=7%2Beyes%3Agreen", work)
    session.controls.run("style", 1)
