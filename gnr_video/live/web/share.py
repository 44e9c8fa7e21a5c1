"""What a page's owner takes away: a photo, and a loop of the last seconds."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from pathlib import Path
from typing import Any

from engines.errors import GnrVideoError
from gnr_video.live.replay import PHOTO_QUALITY, Moment, Replay, Stopped, camera_picture, make_loop
from gnr_video.live.web.pictures import Newest
from gnr_video.media.images import encode_jpeg, wiped

LOOPS = {".mp4": "video/mp4", ".gif": "image/gif"}


class Share:
    """Answers requests for photos and loops; one loop is made at a time.

    Args:
        newest: the picture on show.
        replay: the last seconds.
    """

    def __init__(self, newest: Newest, replay: Replay) -> None:
        self._newest = newest
        self._replay = replay
        self._lock = asyncio.Lock()
        self._stop = threading.Event()

    async def photo(self, request: Any) -> Any:
        """The picture on show as a JPEG; with `wipe=1` its left half, and the camera's right half."""
        from aiohttp import web

        frame = self._newest.frame
        if frame is None:
            return web.Response(status=409, text="there is no picture yet\n")
        image = frame.image
        if request.query.get("wipe") == "1":
            image = wiped(camera_picture(frame), image, 0.5)
        data = await asyncio.to_thread(encode_jpeg, image, PHOTO_QUALITY)
        return web.Response(body=data, content_type="image/jpeg")

    async def loop(self, request: Any) -> Any:
        """The last seconds, as the path's extension says; with `wipe=1` between before and after."""
        from aiohttp import web

        suffix = Path(request.path).suffix
        moments, wipe = self._replay.moments(), request.query.get("wipe") == "1"
        async with self._lock:
            try:
                data = await asyncio.to_thread(self._made, moments, suffix, wipe)
            except GnrVideoError as error:
                return web.Response(status=409, text=f"{error.message}\n")
            except Stopped:
                return web.Response(status=503, text="gnr-video is stopping\n")
        return web.Response(body=data, content_type=LOOPS[suffix])

    def close(self) -> None:
        """Give up a loop that is being made."""
        self._stop.set()

    def _made(self, moments: list[Moment], suffix: str, wipe: bool) -> bytes:
        with tempfile.TemporaryDirectory(prefix="gnr-video-loop-") as folder:
            target = Path(folder) / f"loop{suffix}"
            make_loop(moments, target, wipe=wipe, stopping=self._stop.is_set)
            return target.read_bytes()
