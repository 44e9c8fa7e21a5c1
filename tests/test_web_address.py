"""Addresses that are served: forms of them, who may come, which is opened. Device: none."""

from __future__ import annotations

import socket

import pytest

from engines.errors import OutputError
from gnr_video.live.browsers import can_open_pages
from gnr_video.web.address import bind, is_local, parse_address, urls_of


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
