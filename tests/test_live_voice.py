"""A page's microphone: off until it is asked for, heard by WebRTC, and none over the WebSocket. Device: CPU."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnr_video.live.recorder import Recorder
from gnr_video.live.session import LiveSession
from gnr_video.live.sound.hub import Sound
from gnr_video.live.web import WebSink
from gnr_video.live.web.voice import PageMicrophone
from tests.browser import Page, needs_chromium
from tests.live_helpers import until
from tests.live_web_fixtures import Visitor, served, session, visit
from tests.sound_helpers import measure
from tests.test_live_page import browse, click

aiortc = pytest.importorskip("aiortc", reason="needs aiortc")
__all__ = ["served", "session"]  # fixtures


class Whistle(aiortc.mediastreams.AudioStreamTrack):  # type: ignore[misc]
    """500 Hz at 48 kHz, in real time."""

    async def recv(self) -> Any:
        import av

        frame = await super().recv()  # silence at 8 kHz, when it is due
        self._block = getattr(self, "_block", -1) + 1
        at = self._block * 960 + np.arange(960)
        wave = np.asarray(0.5 * 32767 * np.sin(2 * np.pi * 500 * at / 48_000), np.int16)
        whistle = av.AudioFrame.from_ndarray(wave[None], "s16", "mono")
        whistle.sample_rate, whistle.pts = 48_000, self._block * 960
        whistle.time_base = Fraction(1, 48_000)
        del frame
        return whistle


def loudest(sound: Sound) -> float:
    """The pitch of what was heard between one and half a second ago, hertz; 0: silence."""
    import time

    samples, heard = sound.line.read(time.perf_counter() - 1 + np.arange(24_000) / 48_000)
    if not heard.all() or np.abs(samples).max() < 0.1:
        return 0.0
    return 2.0 * float(np.abs(np.fft.rfft(samples[:, 0])).argmax())


@pytest.fixture
def quiet(session: LiveSession) -> Iterator[None]:
    yield
    assert session.sound.current is None, "nothing is heard once the page has gone"


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
class TestWebRTC:
    def test_it_is_heard_when_it_is_turned_on(
        self, served: WebSink, session: LiveSession, tmp_path: Path
    ) -> None:
        """In recordings too; a page that is not asked is not heard, though its track is there."""

        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as page:
                peer = aiortc.RTCPeerConnection()
                peer.addTransceiver("video", direction="sendrecv")
                peer.addTransceiver(Whistle(), direction="sendonly")
                tracks: list[Any] = []
                peer.on("track", tracks.append)
                await peer.setLocalDescription(await peer.createOffer())
                offer = {"sdp": peer.localDescription.sdp, "type": "offer", "client": page.hello["client"]}
                async with http.post(served.url + "offer", json=offer) as answer:
                    await peer.setRemoteDescription(aiortc.RTCSessionDescription(**await answer.json()))
                await page.until(lambda: tracks)
                await tracks[0].recv()
                assert not page.state["microphone"] and session.sound.current is None
                await page.send("microphone", True)
                await page.until(lambda: page.state["microphone"])
                await page.until(lambda: loudest(session.sound) == 500)
                recorder = Recorder(session, tmp_path / "voice.mkv")
                recorder.start()
                await page.until(lambda: recorder.current is not None and recorder.current.seconds > 1, 60)
                await asyncio.to_thread(recorder.stop)
                await page.send("microphone", False)
                await page.until(lambda: not page.state["microphone"] and session.sound.current is None)
                await page.send("microphone", True)
                await page.until(lambda: session.sound.current)
                await peer.close()

        visit(served.url, work)
        until(lambda: session.sound.current is None)
        assert measure(tmp_path / "voice.mkv").heard > 0.7

    def test_there_is_none_over_the_socket(self, served: WebSink, session: LiveSession) -> None:
        async def work(http: Any) -> None:
            async with Visitor(http, served.url) as page:
                await page.send("jpeg")
                await page.until(lambda: page.jpegs)
                await page.send("microphone", True)
                await page.until(lambda: "no sound over the WebSocket" in page.state.get("message", ""))
                assert page.state["refused"] == "microphone" and not page.state["microphone"]

        visit(served.url, work)

    @needs_chromium
    def test_the_button(self, served: WebSink, session: LiveSession) -> None:
        """Nothing is asked before it is pressed; then it is heard, and let go of."""

        async def work(page: Page, _: Any) -> None:
            await page.run(
                "window.asked = 0; const all = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);"
                "navigator.mediaDevices.getUserMedia = (wish) => { window.asked += 1; return all(wish); }; 0"
            )
            pressed = "document.getElementById('microphone').getAttribute('aria-pressed') === 'true'"
            assert not await page.run(pressed) and await page.run("window.asked") == 0
            await page.until("document.getElementById('transport').textContent === 'WebRTC'")
            await click(page, "#microphone")
            await page.until(pressed)
            # Chromium's fake microphone beeps.
            line = session.sound.line
            await asyncio.to_thread(until, lambda: line._segments and line._segments[-1].end > 9600, 60)
            await click(page, "#microphone")
            await page.until(f"!({pressed})")
            await asyncio.to_thread(until, lambda: session.sound.current is None)

        browse(served.url, work)


class TestPages:
    def test_one_at_a_time(self) -> None:
        sound = Sound()
        microphone = PageMicrophone(sound)
        microphone.use("one")
        first = sound.current
        microphone.use("two")
        assert microphone.owner == "two" and sound.current is not first
        microphone.give_back("one")
        assert microphone.owner == "two"
        microphone.give_back("two")
        assert microphone.owner is None and sound.current is None

    def test_packets_that_are_lost_are_silence(self) -> None:
        """What comes after them is in its place."""
        import av

        class Track:
            def __init__(self) -> None:
                self.numbers = [n for n in range(50) if n not in (20, 21)]

            async def recv(self) -> Any:
                if not self.numbers:
                    raise aiortc.mediastreams.MediaStreamError
                number = self.numbers.pop(0)
                frame = av.AudioFrame.from_ndarray(np.full((1, 1920), 8000, np.int16), "s16", "stereo")
                frame.sample_rate, frame.pts = 48_000, number * 960
                return frame

        sound = Sound()
        microphone = PageMicrophone(sound)
        microphone.use("page")
        asyncio.run(microphone.take_track("page", Track()))
        (segment,) = sound.line._segments
        samples, _ = segment.part(0, segment.end)
        assert samples.shape == (50 * 960, 2)
        assert not samples[20 * 960 : 22 * 960].any()
        assert np.allclose(samples[22 * 960 :], 8000 / 32768)
