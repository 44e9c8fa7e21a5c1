"""Pictures of the live server: WebRTC and JPEG in both directions. Device: CPU."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import numpy as np
import pytest

from gnr_video.live.session import LiveSession
from gnr_video.live.web import WebSink
from gnr_video.live.web.pictures import UNDRAWN
from gnr_video.media.images import decode_jpeg, encode_jpeg
from gnr_video.web.address import bind
from gnr_video.web.measure import jpeg_size
from tests.live_helpers import until
from tests.live_web_fixtures import Visitor, served, session, visit
from tests.media_helpers import picture

aiortc = pytest.importorskip("aiortc", reason="needs aiortc")

__all__ = ["served", "session"]  # fixtures


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
