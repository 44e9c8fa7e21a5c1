"""The newest picture for every page that waits for one, and pictures as JPEGs over a page's socket."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gnr_video.frame import Frame
from gnr_video.media.images import encode_jpeg

UNDRAWN = 4
"""Pictures on their way to a page that it has not drawn yet: one alone would wait for a whole round trip."""


class Newest:
    """The newest picture, put there by the session's thread and waited for on the server's.

    Args:
        is_current: whether a picture may still be shown: one of a camera that is no longer used may not.
    """

    def __init__(self, is_current: Callable[[Frame], bool] = lambda frame: True) -> None:
        self._frame: Frame | None = None
        self._is_current = is_current
        self._wakers: set[asyncio.Event] = set()
        self.loop: asyncio.AbstractEventLoop | None = None

    @property
    def frame(self) -> Frame | None:
        """It; None while there is none."""
        frame = self._frame
        return None if frame is None or not self._is_current(frame) else frame

    def put(self, frame: Frame) -> None:
        self._frame = frame
        if self._wakers and self.loop is not None:
            with suppress(RuntimeError):  # the loop has just been closed
                self.loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for waker in self._wakers:
            waker.set()

    async def after(self, last: Frame | None) -> Frame:
        """The newest picture, once there is one newer than `last`."""
        waker = asyncio.Event()
        self._wakers.add(waker)
        try:
            while (frame := self.frame) is None or frame is last:
                waker.clear()
                await waker.wait()
            return frame
        finally:
            self._wakers.discard(waker)


class JpegStream:
    """Pictures over a socket while few are on their way: no delay builds up, and none waits for the line's.

    Args:
        socket: the page's.
        newest: where the pictures are.
        delivered: told of each picture that the page has drawn.
    """

    def __init__(self, socket: Any, newest: Newest, delivered: Callable[[Frame], None]) -> None:
        self._socket = socket
        self._newest = newest
        self._delivered = delivered
        self._sent: deque[Frame] = deque()
        self._room = asyncio.Event()

    def drawn(self) -> None:
        """The page has drawn the oldest picture that is on its way."""
        if self._sent:
            self._delivered(self._sent.popleft())
            self._room.set()

    async def run(self) -> None:
        last: Frame | None = None
        while not self._socket.closed:
            while len(self._sent) >= UNDRAWN:
                self._room.clear()
                await self._room.wait()
            last = await self._newest.after(last)
            data = await asyncio.to_thread(encode_jpeg, last.image)
            self._sent.append(last)
            try:
                await self._socket.send_bytes(data)
            except (ConnectionError, RuntimeError):
                return
