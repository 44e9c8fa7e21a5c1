"""Who may ask the service: whoever has the token, and no other web site through somebody's browser."""

from __future__ import annotations

import hmac
from typing import Any

from gnr_video.web.sites import is_foreign


class Access:
    """Lets requests in, or refuses them.

    Args:
        token: what a request's ``Authorization: Bearer`` must be; "": nothing.
        remote: whether other machines may come, under whatever name they know this one by.
    """

    def __init__(self, token: str, *, remote: bool = False) -> None:
        self._token = token.encode()
        self._remote = remote

    def refuses(self, request: Any) -> int | None:
        """403 for another web site's request, 401 for one without the token; None for one that is let in."""
        if is_foreign(request, remote=self._remote):
            return 403
        return 401 if self._token and not self._has_token(request) else None

    def _has_token(self, request: Any) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        is_same = hmac.compare_digest(given.strip().encode(errors="replace"), self._token)
        return scheme.lower() == "bearer" and is_same
