"""Which requests another web site has made through somebody's browser."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from gnr_video.web.address import is_local


def is_foreign(request: Any, *, remote: bool, links: bool = False) -> bool:
    """Whether a request comes from another site, or under a name that is not this server's.

    Args:
        request: aiohttp's.
        remote: whether other machines may come, under whatever name they know this one by.
        links: whether it may be a link that somebody follows from anywhere.
    """
    headers = request.headers
    origin = headers.get("Origin")
    if origin is not None and (not request.host or _netloc(origin) != request.host):
        return True
    followed = links and headers.get("Sec-Fetch-Mode") == "navigate"
    if headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none") and not followed:
        return True
    # A name that resolves to 127.0.0.1 but is not ours belongs to another site (DNS rebinding).
    return not remote and not is_local(_hostname(request.host))


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # brackets that hold no address
        return ""


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
