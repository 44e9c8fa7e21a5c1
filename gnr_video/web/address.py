"""Where a server serves: addresses parsed, told local from remote, and bound."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from engines.errors import OutputError

DEFAULT_ADDRESS = "127.0.0.1:8090"
"""Of the live page."""


def parse_address(text: str, default: str = DEFAULT_ADDRESS, option: str = "--web") -> tuple[str, int]:
    """(host, port) of "HOST:PORT", "HOST", ":PORT" or "PORT"; "[::1]:8090" for IPv6.

    Args:
        default: for what is left out.
        option: of the command, for messages.

    Raises:
        OutputError: it does not parse.
    """
    host, port = default.split(":")
    text = text.strip()
    if text.isdigit():
        port = text
    elif text:
        parts = urlsplit(f"//{text}")
        try:
            host, port = parts.hostname or host, port if parts.port is None else str(parts.port)
        except ValueError:
            port = ""
    if not port.isdigit() or int(port) > 65535:
        raise OutputError(f"{text!r} is no address to serve at", f"{option} HOST:PORT, such as {default}")
    return host, int(port)


def is_local(host: str) -> bool:
    """Whether only this machine can reach a server bound to `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind(host: str, port: int, *, allow_remote: bool = False, option: str = "--web") -> socket.socket:
    """A listening socket.

    Args:
        option: of the command, for messages.

    Raises:
        OutputError: the port is in use, the address is not of this machine, or remote without `allow_remote`.
    """
    if not is_local(host) and not allow_remote:
        free = port or 8090
        raise OutputError(
            f"{host} can be reached from other machines",
            f"give --allow-remote if you want that, or tunnel: ssh -L {free}:127.0.0.1:{free} THIS_MACHINE",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise OutputError(
            f"cannot serve at {host}:{port}: {(error.strerror or str(error)).lower()}",
            f"another program, or another gnr-video, may use it: {option} {host}:{port + 1 if port < 65535 else 8091}",
        ) from None


def urls_of(host: str, port: int) -> list[str]:
    """Addresses for a browser of a server that is bound to `host`; of one bound to all, this machine's own."""
    if host not in ("0.0.0.0", "::"):
        names = [f"[{host}]" if ":" in host else host]
    else:
        names = [*filter(None, [own_address()]), socket.gethostname()]
    return [f"http://{name}:{port}/" for name in names]


def own_address() -> str | None:
    """The address under which this machine's network knows it; None without a network. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1: only the way there is looked up
            return str(probe.getsockname()[0])
        except OSError:
            return None
