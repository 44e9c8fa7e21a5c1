"""Who may ask the server: whoever has the token, from the page itself; no other web site through the user's browser."""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from gnr_video.web.sites import is_foreign

log = logging.getLogger(__name__)

_POLICY = "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; frame-ancestors 'none'"


class Access:
    """Lets requests in, or refuses them.

    Args:
        token: what a request must hold, in its address or its cookie; "": nothing.
        port: of the server. Cookies know no ports: each server's has a name of its own.
        remote: whether other machines may come, under whatever name they know this one by.
    """

    def __init__(self, token: str, port: int, *, remote: bool = False) -> None:
        self.token = token
        self.cookie = f"gnr-video-token-{port}"
        self._remote = remote
        self._tickets: set[str] = set()

    def ticket(self) -> str:
        """A token that lets one page in, once: programs' arguments can be read by everybody on a machine."""
        ticket = secrets.token_urlsafe(16)
        self._tickets.add(ticket)
        return ticket

    @property
    def guard(self) -> Any:
        """The middleware that asks `allows`, and marks every answer."""
        from aiohttp import web

        @web.middleware
        async def guard(request: web.Request, handler: Callable[..., Awaitable[Any]]) -> Any:
            if not self.allows(request):
                return web.Response(
                    status=403, text="Not allowed: open the address that gnr-video printed.\n"
                )
            try:
                response = await handler(request)
            except web.HTTPException:
                raise
            except Exception as error:  # one line for whoever asked; the server goes on
                log.debug("%s %s failed", request.method, request.path, exc_info=True)
                response = web.Response(status=500, text=f"This request has failed: {error}\n")
            if not response.prepared:
                response.headers["Cache-Control"] = "no-store"
                response.headers["X-Content-Type-Options"] = "nosniff"
                response.headers["Referrer-Policy"] = "no-referrer"
                response.headers["Content-Security-Policy"] = _POLICY
                if self.token and request.path == "/":
                    response.set_cookie(self.cookie, self.token, httponly=True, samesite="Strict")
            return response

        return guard

    def allows(self, request: Any) -> bool:
        """Whether a request comes from the page itself or the address bar, and from somebody who may see it."""
        # A link to the page may be followed from anywhere; nothing else is asked for by other sites.
        if is_foreign(request, remote=self._remote, links=request.path == "/"):
            return False
        return not self.token or self._has_token(request)

    def _has_token(self, request: Any) -> bool:
        ticket = request.query.get("ticket")
        if ticket in self._tickets and request.path == "/":
            self._tickets.discard(ticket)
            return True
        given = request.query.get("token") or request.cookies.get(self.cookie) or ""
        return hmac.compare_digest(given.encode(errors="replace"), self.token.encode())
