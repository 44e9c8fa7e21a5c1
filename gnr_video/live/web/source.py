"""Pages that give their own camera: whose it is just now, and its pictures on their way into the session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from gnr_video.live.camera import SAMPLE, PushCamera
from gnr_video.live.cameras import open_camera
from gnr_video.live.session import LiveSession
from gnr_video.live.web.voice import PageMicrophone
from gnr_video.media.images import decode_jpeg
from gnr_video.web.measure import jpeg_size

MAX_PIXELS = 3840 * 2160
"""Of a page's picture; a JPEG of two megabytes can hold hundreds of millions."""
BLANK = 24
"""Grey of the picture that is shown once a page's camera has gone."""


class PageCamera:
    """The camera whose pictures pages bring; one of them at a time.

    Args:
        session: gets the pictures.
        camera: takes them.
        server_camera: opens the server's own again when no page gives any more; None: there is none.

    Attributes:
        owner: the page whose pictures are used, `SAMPLE`, or None: the server's camera.
        voice: the microphone that pages bring.
    """

    def __init__(
        self, session: LiveSession, camera: PushCamera, server_camera: Callable[[], Any] | None
    ) -> None:
        self.owner: object | None = None
        self.voice = PageMicrophone(session.sound)
        self.has_server_camera = server_camera is not None
        self._session = session
        self._camera = camera
        self._server_camera = server_camera

    def use(self, page: object) -> None:
        """Take this page's pictures from now on."""
        self._wait_for(page)
        self._session.controls.say("the browser's camera is used")

    async def use_sample(self) -> None:
        """Show the sample clip; InputError where it cannot be had."""
        sample = await asyncio.to_thread(open_camera, SAMPLE)
        self._give_to(SAMPLE)
        self._session.capture.switch(lambda: open_camera(SAMPLE), sample)
        self._session.controls.say("the sample clip is used")

    def use_server(self) -> None:
        """Use the server's own camera again; where there is none, a blank picture until the next page's comes."""
        if self._server_camera is not None:
            self._give_to(None)
            self._session.capture.switch(self._server_camera)
            return
        self._wait_for(None)
        width, height = self._session.size
        self._camera.push(np.full((height, width, 3), BLANK, np.uint8))

    def _wait_for(self, page: object | None) -> None:
        """The next picture is this page's: what another one has brought is not shown any more."""
        self._give_to(page)
        self._camera.forget()
        self._session.capture.switch(lambda: self._camera, self._camera)

    def _give_to(self, owner: object | None) -> None:
        """Its pictures are shown from now on: not a still of whoever was here before."""
        self.owner = owner
        self._session.controls.frozen = False

    def give_back(self, page: object) -> None:
        """This page has no more pictures; the server's camera, where there is one, is back."""
        if self.owner is not page:
            return
        self.use_server()
        self._session.controls.say("the browser's camera is no longer used")

    def said_to(self, page: object) -> str:
        """Whose camera it is, for this page: "browser" (its own), "other" (another page's), "sample" or "server"."""
        if self.owner == SAMPLE:
            return SAMPLE
        return "browser" if self.owner is page else "other" if self.owner else "server"

    async def take_track(self, page: object, track: Any) -> None:
        """Take the pictures of a video track of aiortc, until it ends."""
        from aiortc.mediastreams import MediaStreamError

        try:
            while True:
                picture = await track.recv()
                if self.owner is page and picture.width * picture.height <= MAX_PIXELS:
                    self._camera.push(picture.to_ndarray(format="rgb24"))
        except MediaStreamError:
            return

    async def take_jpeg(self, page: object, data: bytes) -> None:
        """Take a picture; one that is none, or too large, is left out."""
        size = jpeg_size(data)
        if self.owner is not page or size is None or size[0] * size[1] > MAX_PIXELS:
            return
        image = await asyncio.to_thread(decode_jpeg, data)
        if image is not None and self.owner is page:  # and not another one meanwhile
            self._camera.push(image)
