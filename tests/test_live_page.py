"""The page of `gnr-video live --web` in headless Chromium with its fake camera. Device: CPU; needs Chromium.

axe-core is no part of the repository: `make test` installs a package that brings it. Without it the basics of
accessibility are checked here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from engines.weights import load_weights, save_weights
from gnr_video.live.session import LiveSession
from gnr_video.live.web import WebSink
from tests.browser import Page, chromium, needs_chromium
from tests.cli_helpers import REPOSITORY
from tests.live_helpers import live_session, until
from tests.live_web_fixtures import served
from tests.tiny_weights import with_colors

__all__ = ["served"]  # fixture
pytestmark = [needs_chromium, pytest.mark.slow]

# A picture is drawn small and read back: 16x12 RGB values.
PIXELS = """(() => {
  const c = document.createElement('canvas'); c.width = 16; c.height = 12;
  const shown = document.getElementById('canvas').hidden ? document.getElementById('video')
                                                         : document.getElementById('canvas');
  const context = c.getContext('2d');
  context.drawImage(shown, 0, 0, 16, 12);
  return Array.from(context.getImageData(0, 0, 16, 12).data);
})()"""
SHOWN = "document.getElementById('video').videoWidth > 0 || document.getElementById('canvas').width > 300"


@pytest.fixture(scope="module")
def session(tiny: Path, face_clip: Path, face_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("live")
    known = with_colors(load_weights(tiny))
    save_weights(folder / "tiny.safetensors", known.architecture, known.tensors)
    with live_session(folder / "tiny.safetensors", face_clip, folder=folder) as running:
        until(lambda: running.counts.faces)
        yield running


def browse(url: str, work: Callable[[Page, Any], Awaitable[Any]]) -> Any:
    async def go() -> Any:
        async with chromium() as new_page:
            page = await new_page(url)
            done = await asyncio.wait_for(work(page, new_page), 120)
            assert page.errors == []
            return done

    return asyncio.run(go())


def violet(pixels: list[int]) -> int:
    """How many of the pixels have the colour that the tests' network gives to every face."""
    cells = zip(pixels[::4], pixels[1::4], pixels[2::4])
    return sum(r > g + 40 and b > g + 40 for r, g, b in cells)


async def violets(page: Page, wanted: Callable[[int], bool]) -> None:
    for _ in range(200):
        if wanted(count := violet(await page.run(PIXELS))):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{count} violet cells in the end")


async def moves(page: Page) -> None:
    """Wait until five different pictures have been seen."""
    seen: set[str] = set()
    for _ in range(600):
        seen.add(str(await page.run(PIXELS)))
        if len(seen) > 4:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{len(seen)} pictures in the end")


async def click(page: Page, selector: str) -> None:
    await page.run(f"document.querySelector({selector!r}).click()")


async def use_style(page: Page, text: str) -> None:
    """Type a style and press Enter; in one go, as a state between the two would put the field back."""
    await page.run(
        f"document.getElementById('style').value = {text!r};"
        "document.getElementById('style-form').requestSubmit()"
    )


@pytest.mark.parametrize("transport", ["webrtc", "jpeg"])
def test_it_shows_moving_translated_pictures(served: WebSink, transport: str) -> None:
    async def work(page: Page, _: Any) -> None:
        await page.until(SHOWN)
        expected = {"webrtc": "WebRTC", "jpeg": "WebSocket"}[transport]
        await page.until(f"document.getElementById('transport').textContent === '{expected}'")
        await violets(page, lambda count: count > 5)
        await moves(page)
        await page.until("parseFloat(document.getElementById('fps').textContent) > 1")
        await page.until("parseFloat(document.getElementById('p95').textContent) > 0")

    browse(served.url + ("?transport=jpeg" if transport == "jpeg" else ""), work)


def test_controls_change_the_picture(served: WebSink, session: LiveSession, tmp_path: Path) -> None:
    async def work(page: Page, _: Any) -> None:
        await page.until(SHOWN)
        await violets(page, lambda count: count > 5)
        await click(page, "[data-view=before]")
        await violets(page, lambda count: count == 0)
        await page.until(
            "document.querySelector('[data-view=before]').getAttribute('aria-pressed') === 'true'"
        )
        await click(page, "[data-view=after]")
        await violets(page, lambda count: count > 5)

        await use_style(page, "77")
        await page.until("document.getElementById('style').value === '77'")
        await asyncio.to_thread(until, lambda: session.controls.style_label == "77", 30)
        await click(page, "[data-command=next]")
        await page.until("document.getElementById('style').value === '78'")
        await page.until("document.querySelectorAll('#strip .look').length === 12")
        await click(page, "#strip .look:nth-child(6)")
        await page.until("document.getElementById('style').value === '5'")
        await page.until("!document.getElementById('colours').hidden")
        await page.run(
            "(() => { const h = document.getElementById('hair'); h.value = '#c03060';"
            " h.dispatchEvent(new Event('change')); })()"
        )
        await page.until("document.getElementById('style').value === '5+hair:#c03060'")
        await click(page, "[data-command=next]")
        await page.until("document.getElementById('style').value === '6+hair:#c03060'")
        await click(page, "#strip .look:nth-child(6)")
        await page.until("document.getElementById('style').value === '5'")
        await page.run(
            "(() => { const m = document.getElementById('mix'); m.value = 0.5;"
            " m.dispatchEvent(new Event('input')); })()"
        )
        await page.until("document.getElementById('other').value === '6'")
        await page.run(
            "(() => { const p = document.getElementById('paste'); p.value = 'square';"
            " p.dispatchEvent(new Event('change')); })()"
        )
        await asyncio.to_thread(until, lambda: session.controls.paste == "square")

        await click(page, "#tint")
        await page.until("document.getElementById('tint').getAttribute('aria-pressed') === 'false'")
        await asyncio.to_thread(until, lambda: not session.translator.effects["tint"])

        for key in (".", "4", "2", "Enter", "m", " ", "x"):
            await page.run(
                f"document.body.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}', bubbles: true}}))"
            )
        await page.until("document.getElementById('style').value === '42'")
        for pressed in ("mirror", "frozen", "covered"):
            await page.until(f"document.getElementById('{pressed}').getAttribute('aria-pressed') === 'true'")
        await click(page, "#frozen")
        await click(page, "#covered")
        await page.until("document.getElementById('covered').getAttribute('aria-pressed') === 'false'")

        await click(page, "#record")
        await page.until("document.getElementById('record').textContent === 'Stop recording'")
        await asyncio.to_thread(until, lambda: served._recorder.current.frames_written > 3)  # type: ignore[union-attr]
        await click(page, "#record")
        await page.until("!document.getElementById('recorded').hidden")

    browse(served.url, work)
    assert (tmp_path / "out.mp4").stat().st_size > 1000
    for command in (("mirror", False), ("tint", True), ("paste", "head"), ("style", 1)):
        session.controls.run(*command)


@pytest.mark.parametrize("transport", ["webrtc", "jpeg"])
def test_the_browsers_own_camera(served: WebSink, session: LiveSession, transport: str) -> None:
    """Chromium's fake camera is a green picture with a disc that turns; the clip has no such green."""

    def green(pixels: list[int]) -> int:
        return sum(g > r + 60 and g > b + 60 for r, g, b in zip(pixels[::4], pixels[1::4], pixels[2::4]))

    async def work(page: Page, _: Any) -> None:
        await page.until(SHOWN)
        await page.run(
            "(() => { const s = document.getElementById('source'); s.value = 'browser';"
            " s.dispatchEvent(new Event('change')); })()"
        )
        for _ in range(200):
            if green(await page.run(PIXELS)) > 60:
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError("the fake camera's picture did not come back")
        await moves(page)
        assert "browser" in session.status().camera

    browse(served.url + ("?transport=jpeg" if transport == "jpeg" else ""), work)
    until(lambda: "face.mp4" in session.status().camera and not session.status().notice)


def test_closing_and_two_pages(served: WebSink, session: LiveSession) -> None:
    """A page that goes in the middle of its stream leaves the other one as it was."""

    async def work(page: Page, new_page: Any) -> None:
        await page.until(SHOWN)
        other = await new_page(served.url)
        await other.until(SHOWN)
        await page.until("document.getElementById('status').textContent.includes('2 pages open')")
        await other.send("Page.navigate", url="about:blank")
        await page.until("!document.getElementById('status').textContent.includes('pages open')")
        before = session.counts.frames
        await violets(page, lambda count: count > 5)
        for _ in range(100):
            if session.counts.frames > before:
                break
            await asyncio.sleep(0.1)
        assert session.counts.frames > before

    browse(served.url, work)
    until(lambda: served.viewers == 0)


def axe_core() -> Path | None:
    """axe's script: `$AXE_CORE`, of node_modules in this folder, or of a package for Python."""
    package = find_spec("axe_playwright_python")
    folders = package.submodule_search_locations if package else None
    places = [
        Path(os.environ.get("AXE_CORE", "nowhere")),
        REPOSITORY / "node_modules" / "axe-core" / "axe.min.js",
        *(Path(folder) / "axe.min.js" for folder in folders or ()),
    ]
    return next((path for path in places if path.is_file()), None)


AXE = axe_core()

# What axe would call serious, as far as this page has it.
BASICS = """(() => {
  const faults = [];
  if (!document.documentElement.lang) faults.push('no language');
  if (!document.title) faults.push('no title');
  if (document.querySelectorAll('main').length !== 1) faults.push('not one main');
  if (document.querySelectorAll('h1').length !== 1) faults.push('not one h1');
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  if (new Set(ids).size !== ids.length) faults.push('an id twice');
  const name = (e) => (e.getAttribute('aria-label') || e.textContent || '').trim()
    || [...(e.labels || [])].map((l) => l.textContent.trim()).join('');
  for (const e of document.querySelectorAll('button, input, select, a, video, [role=img]'))
    if (!e.hidden && !name(e)) faults.push('no name: ' + e.outerHTML);
  for (const e of document.querySelectorAll('[tabindex]')) if (e.tabIndex > 0) faults.push('tabindex ' + e.id);
  const light = (css) => {
    const [r, g, b] = css.match(/[0-9.]+/g).slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const css = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$/.test(css)) return css;
    }
    return 'rgb(255, 255, 255)';
  };
  const texts = 'button, input, select, label, legend, dt, dd, p, h1, h2, a, summary, li';
  for (const e of document.querySelectorAll(texts)) {
    const pair = [light(getComputedStyle(e).color), light(ground(e))].sort((a, b) => b - a);
    if ((pair[0] + 0.05) / (pair[1] + 0.05) < 4.5) faults.push('contrast: ' + e.outerHTML.slice(0, 80));
  }
  return faults;
})()"""


def test_widths_themes_and_the_basics_of_accessibility(served: WebSink) -> None:
    async def work(page: Page, _: Any) -> list[str]:
        await page.until(SHOWN)
        await page.until("document.querySelectorAll('#strip .look').length === 12")
        faults: list[str] = []
        grounds = set()
        for theme, width in (("dark", 390), ("light", 1280), ("light", 2560)):
            await appear(page, theme, width)
            await page.until(f"innerWidth === {width}")
            faults += await page.run(BASICS)
            assert await page.run("document.documentElement.scrollWidth <= innerWidth"), width
            assert await page.run("document.getElementById('picture').clientWidth > 0.6 * innerWidth")
            grounds.add(await page.run("getComputedStyle(document.body).backgroundColor"))
        assert len(grounds) == 2, "a theme each"
        return faults

    assert browse(served.url, work) == []


async def appear(page: Page, theme: str, width: int) -> None:
    """Give the page another width and theme, as another device would."""
    await page.send(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
    )
    features = [{"name": "prefers-color-scheme", "value": theme}]
    await page.send("Emulation.setEmulatedMedia", features=features)


async def axe_faults(page: Page) -> list[str]:
    faults: list[str] = await page.run(
        "axe.run().then((r) => r.violations.map((v) => v.id + ': ' + v.nodes.map((n) => n.html).join(' ')))"
    )
    return faults


@pytest.mark.skipif(AXE is None, reason="needs axe-core: pip install --no-deps axe-playwright-python")
def test_axe_finds_nothing(served: WebSink) -> None:
    """As it opens, with everything unfolded, with a dialog open; wide and narrow, dark and light."""
    assert AXE is not None
    script = AXE.read_text(encoding="utf-8") + "; 0"

    async def work(page: Page, _: Any) -> list[str]:
        await page.until(SHOWN)
        await page.until("document.querySelectorAll('#strip .look').length === 12")
        await page.run(script)
        faults = []
        for theme, width in (("dark", 1280), ("light", 390)):
            await appear(page, theme, width)
            await page.run("for (const e of document.querySelectorAll('details')) e.open = true; 0")
            faults += await axe_faults(page)
            await click(page, "#photo")
            await page.until("document.getElementById('share-dialog').open")
            faults += await axe_faults(page)
            await click(page, "#share-close")
        return faults

    assert browse(served.url, work) == []


def test_a_file(served: WebSink, face_clip: Path) -> None:
    async def work(page: Page, _: Any) -> Any:
        await page.until("document.getElementById('status').textContent !== 'connecting …'")
        await click(page, "#file-form [type=submit]")
        await page.until("document.getElementById('file-note').textContent.startsWith('Choose')")
        document = await page.send("DOM.getDocument")
        found = await page.send("DOM.querySelector", nodeId=document["root"]["nodeId"], selector="#file")
        await page.send("DOM.setFileInputFiles", files=[str(face_clip)], nodeId=found["nodeId"])
        await click(page, "#file-form [type=submit]")
        await page.until("document.getElementById('file-result').checkVisibility()", 60)
        await page.until("document.getElementById('file-video').videoWidth === 320")
        assert await page.run("document.getElementById('file-picture').hidden")
        assert "24 frames" in await page.run("document.getElementById('file-note').textContent")
        assert await page.run("document.getElementById('file-progress').hidden")
        return await page.run("fetch('/file').then((r) => r.arrayBuffer()).then((b) => b.byteLength)")

    assert browse(served.url, work) > 10_000
