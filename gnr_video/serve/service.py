"""The server, on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from engines.errors import GnrVideoError
from gnr_video.serve.api import Api

log = logging.getLogger(__name__)

GRACE = 1.0
"""Seconds that requests have to end."""


class Service:
    """Serves until it is closed.

    Args:
        listener: a listening socket, see `gnr_video.web.address.bind`.
        make_api: called on the server's thread.

    Attributes:
        ended: set when it has, by itself or by `close`.
        failure: why it has by itself; None where it has not.
    """

    def __init__(self, listener: socket.socket, make_api: Callable[[], Api]) -> None:
        self._listener = listener
        self._make_api = make_api
        self._api: Api | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self.ended = threading.Event()
        self.failure: GnrVideoError | None = None
        self._thread = threading.Thread(target=self._work, name="gnr-video service", daemon=True)
        self._thread.start()
        self._ready.wait()

    def close(self, timeout: float = 5.0) -> None:
        """End all requests, and the server. May be called twice."""
        if self._loop is not None and self._api is not None:
            with suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._api.closing.set)
        self._thread.join(timeout)

    def _work(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            log.debug("the server failed", exc_info=True)
            self.failure = GnrVideoError(f"the server has failed: {error}")
        finally:
            self.ended.set()
            self._ready.set()

    async def _serve(self) -> None:
        from aiohttp import web

        self._loop, self._api = asyncio.get_running_loop(), self._make_api()
        runner = web.AppRunner(
            self._api.application(), access_log=None, shutdown_timeout=GRACE, handle_signals=False
        )
        await runner.setup()
        await web.SockSite(runner, self._listener).start()
        self._ready.set()
        await self._api.closing.wait()
        await runner.cleanup()
