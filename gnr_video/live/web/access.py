"""Who may ask the server: whoever has a token, from the page itself; no other web site through the user's browser.

There are two tokens. The owner's opens everything; the viewer's opens the picture, and changes nothing.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from gnr_video.web.sites import is_foreign

log = logging.getLogger(__name__)

OWNER, VIEWER = "owner", "viewer"

_POLICY = "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; frame-ancestors 'none'"


class Access:
    """Lets requests in, or refuses them.

    Args:
        token: what an owner's request must hold, in its address or its cookie; "": nothing, and all are owners.
        port: of the server. Cookies know no ports: each server's have names of their own.
        remote: whether other machines may come, under whatever name they know this one by.
        watchable: paths that viewers may ask for.

    Attributes:
        token: as given.
        viewer_token: what a viewer's request must hold; "" where there are only owners.
    """

    def __init__(
        self, token: str, port: int, *, remote: bool = False, watchable: Collection[str] = ()
    ) -> None:
        self.token = token
        self.viewer_token = secrets.token_urlsafe(16) if token else ""
        self._cookies = {OWNER: f"gnr-video-token-{port}", VIEWER: f"gnr-video-viewer-{port}"}
        self._remote = remote
        self._watchable = watchable
        self._tickets: set[str] = set()

    def ticket(self) -> str:
        """A token that lets one page in, once: programs' arguments can be read by everybody on a machine."""
        ticket = secrets.token_urlsafe(16)
        self._tickets.add(ticket)
        return ticket

    def query(self, role: str) -> str:
        """What an address must hold for a role: "?token=..."; "" where there is no token."""
        return f"?token={self.token if role == OWNER else self.viewer_token}" if self.token else ""

    @property
    def guard(self) -> Any:
        """The middleware that asks `role`, and marks every answer."""
        from aiohttp import web

        @web.middleware
        async def guard(request: web.Request, handler: Callable[..., Awaitable[Any]]) -> Any:
            role = self.role(request)
            if role is None:
                return web.Response(
                    status=403, text="Not allowed: open the address that gnr-video printed.\n"
                )
            if role == VIEWER and request.path not in self._watchable:
                return web.Response(status=403, text="Not allowed: this link only watches.\n")
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
                    # Lax: a link with a look may be followed from elsewhere. What else such a link could reach is
                    # refused below.
                    token = self.token if role == OWNER else self.viewer_token
                    response.set_cookie(self._cookies[role], token, httponly=True, samesite="Lax")
            return response

        return guard

    def role(self, request: Any) -> str | None:
        """`OWNER` or `VIEWER`; None for what comes from elsewhere than the page or the address bar, or has no token."""
        # A link to the page may be followed from anywhere; nothing else is asked for by other sites.
        if is_foreign(request, remote=self._remote, links=request.path == "/"):
            return None
        if not self.token:
            return OWNER
        ticket = request.query.get("ticket")
        if ticket in self._tickets and request.path == "/":
            self._tickets.discard(ticket)
            return OWNER
        given = request.query.get("token")
        for role, token in ((OWNER, self.token), (VIEWER, self.viewer_token)):
            # An owner who follows the viewers' link sees what they see.
            held = given or request.cookies.get(self._cookies[role]) or ""
            if hmac.compare_digest(held.encode(errors="replace"), token.encode()):
                return role
        return None
