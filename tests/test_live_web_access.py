"""Who may come to the live server: pages, other sites, tokens and tickets. Device: CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gnr_video.live.session import LiveSession
from gnr_video.live.web import WebSink
from gnr_video.web.address import bind
from tests.live_web_fixtures import Visitor, served, session, visit

aiohttp = pytest.importorskip("aiohttp", reason="needs aiohttp")

__all__ = ["served", "session"]  # fixtures


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
