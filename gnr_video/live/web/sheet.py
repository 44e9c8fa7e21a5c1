"""The last face in other styles: one drawing at a time, each page's newest wish first, the live picture in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from engines.errors import GnrVideoError, StyleError
from gnr_video.frame import Image
from gnr_video.live.session import LiveSession
from gnr_video.live.styles import check_text
from gnr_video.media.images import encode_jpeg
from gnr_video.styles.code import Seed
from gnr_video.styles.grammar import parse_expressions


class Faces:
    """Draws the session's last face in the style that a request names.

    Args:
        session: knows the face.
        may_show: whether that face is one of the camera in use; else it is nobody's business any more.
    """

    def __init__(self, session: LiveSession, may_show: Callable[[], bool] = lambda: True) -> None:
        self._session = session
        self._may_show = may_show
        self._lock = asyncio.Lock()
        self._wishes: dict[str, int] = {}
        self._rest_until = 0.0

    async def answer(self, request: Any, page: str) -> Any:
        """A JPEG, or 204 while no face has been seen; 409 where the page has wished for another one since."""
        from aiohttp import web

        style = request.query.get("style", "")
        wish = self._wishes[page] = self._wishes.get(page, 0) + 1

        def is_unwanted() -> bool:
            gone = request.transport is None or request.transport.is_closing()
            return gone or self._wishes.get(page) != wish

        async with self._lock:
            await asyncio.sleep(max(0.0, self._rest_until - time.perf_counter()))
            if is_unwanted():
                return web.Response(status=409, text="another style has been asked for since\n")
            crop = self._session.crop
            if crop is None or not self._may_show():
                return web.Response(status=204)
            begun = time.perf_counter()
            try:
                check_seeds(style)
                data = await asyncio.to_thread(self._draw, crop, style)
            except GnrVideoError as error:
                return web.Response(status=400, text=f"{error.message}\n")
            # As long as it took, everything is the live picture's.
            self._rest_until = 2 * time.perf_counter() - begun
        return web.Response(body=data, content_type="image/jpeg")

    def forget(self, page: str) -> None:
        """The page has gone: what it wished for is not drawn any more."""
        self._wishes.pop(page, None)

    def _draw(self, crop: Image, style: str) -> bytes:
        return encode_jpeg(self._session.translator.translate_face(crop, style))


def check_seeds(text: str, whence: str = "from another machine") -> None:
    """Raise StyleError for a style that reads a file: this machine's files are nobody's business who is elsewhere."""
    check_text(text)
    for expression in parse_expressions(text):
        if not all(isinstance(atom, Seed) for atom, _ in expression.terms):
            raise StyleError(f"{whence}, styles are made of seeds only")


@lru_cache(maxsize=16)
def linkable(text: str) -> str:
    """A style that may stand in a link, as `check_seeds` has it; "" for others."""
    try:
        check_seeds(text)
    except StyleError:
        return ""
    return text
