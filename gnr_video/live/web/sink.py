"""WebSink: the server, on a thread of its own, and which request goes where.

Where WebRTC finds no way (an ssh tunnel carries TCP only) the page falls back to JPEG pictures over its WebSocket.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

from engines.errors import EngineError, GnrVideoError
from engines.installation import install_line
from gnr_video.frame import Frame
from gnr_video.live.camera import PushCamera
from gnr_video.live.files import FileTranslations
from gnr_video.live.recorder import Recorder
from gnr_video.live.replay import Replay
from gnr_video.live.session import LiveSession
from gnr_video.live.sinks import LiveSink
from gnr_video.live.web import transfer, webrtc
from gnr_video.live.web.access import OWNER, VIEWER, Access
from gnr_video.live.web.clients import GRACE, Client, Clients
from gnr_video.live.web.pictures import JpegStream, Newest
from gnr_video.live.web.share import LOOPS, Share
from gnr_video.live.web.sheet import Faces
from gnr_video.live.web.source import PageCamera
from gnr_video.web.address import urls_of

log = logging.getLogger(__name__)

_MAX_BODY = 1 << 20


def require_packages() -> None:
    """Raise EngineError where what the browser needs is not installed."""
    try:
        import_module("aiohttp")
        import_module("aiortc")
    except ImportError as error:
        raise EngineError(
            f"the browser needs {error.name}, which is not installed", install_line("web")
        ) from None


class WebSink(LiveSink):
    """The server.

    Args:
        session: whose pictures are shown, and whose controls the page works.
        listener: from `bind`.
        remote: whether other machines may come.
        token: what the owner's address must hold; None: a new one; "": nothing, every user of this machine is an owner.
        recorder: for the record button.
        camera: where a browser's own pictures go.
        server_camera: opens the server's camera again when a browser gives its own back; None: there is none.
        stun: URL of a STUN server ("stun:HOST:PORT") for WebRTC between networks; "": none is asked.

    Attributes:
        urls: where the page is, under each of this machine's names that others may know.
        url: the first of them.
        viewer_urls: the same for those who only watch; none without a token.
    """

    def __init__(
        self,
        session: LiveSession,
        listener: socket.socket,
        *,
        remote: bool = False,
        token: str | None = None,
        recorder: Recorder | None = None,
        camera: PushCamera | None = None,
        server_camera: Callable[[], Any] | None = None,
        stun: str = "",
    ) -> None:
        require_packages()
        super().__init__("browser")
        self._listener = listener
        self._recorder = recorder
        self._stun = stun
        self._files = FileTranslations(session.translator, session.controls)
        self._session = session
        host, port = listener.getsockname()[:2]
        self._page_files = transfer.page_files()
        token = secrets.token_urlsafe(16) if token is None else token
        self._access = Access(token, port, remote=remote, watchable={*self._page_files, "/socket", "/offer"})
        self.urls = [url + self._access.query(OWNER) for url in urls_of(host, port)]
        self.url = self.urls[0]
        self.viewer_urls = [url + self._access.query(VIEWER) for url in urls_of(host, port)] if token else []
        self._newest = Newest(self._is_current)
        self._replay = Replay(lambda: session.capture.since)
        self._share = Share(self._newest, self._replay)
        self._shown_since = session.capture.since
        self._faces = Faces(session, lambda: self._shown_since == session.capture.since)
        self._source = PageCamera(session, camera or PushCamera(), server_camera)
        self._clients = Clients(
            session,
            self._access,
            self._source,
            recorder,
            self._files,
            remote=remote,
            open_jpegs=lambda line: JpegStream(line, self._newest, self.delivered),
            stun=stun,
            on_leave=self._left,
        )
        self._ended: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name="gnr-video browser", daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def url_once(self) -> str:
        """The address with a ticket in place of the token, for one page; see `Access.ticket`."""
        address = self.url.split("?")[0]
        return f"{address}?ticket={self._access.ticket()}" if self._access.token else address

    # -- the session's side

    def show(self, frame: Frame) -> None:
        if not self._is_current(frame):
            return
        since = self._session.capture.since
        if self._shown_since != since:  # the first one of another camera: all before it are through
            self._session.crop = None
            self._replay.forget()
            self._shown_since = since
        self._newest.put(frame)
        if self._clients.owners:
            self._replay.show(frame)

    def _is_current(self, frame: Frame) -> bool:
        """Whether a picture is one of the camera in use: whoever was in front of another one may have gone."""
        captured: float = frame.props["captured"]
        return captured >= self._session.capture.since

    def close(self, timeout: float = 0.9) -> None:
        loop, ended = self._newest.loop, self._ended
        if loop is not None and ended is not None:
            with suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(ended.set)
        self._share.close()
        self._thread.join(timeout)
        self._replay.close()
        self._files.close()

    @property
    def viewers(self) -> int:
        """Pages that are open."""
        return len(self._clients)

    def _left(self, client: Client) -> None:
        self._faces.forget(client.name)
        if not self._clients.owners:
            self._replay.forget()

    # -- the server's thread

    def _work(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            log.debug("the server failed", exc_info=True)
            self.failure = GnrVideoError(f"the server for the browser has failed: {error}")
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        from aiohttp import web

        webrtc.widen_bitrate()
        self._newest.loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        app = web.Application(middlewares=[self._access.guard], client_max_size=_MAX_BODY)
        self._route(app.router)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=GRACE, handle_signals=False)
        await runner.setup()
        await web.SockSite(runner, self._listener).start()
        telling = asyncio.create_task(self._clients.tell())
        self._ready.set()
        await self._ended.wait()
        telling.cancel()
        await self._clients.close()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(runner.cleanup(), GRACE)

    def _route(self, router: Any) -> None:
        for path in self._page_files:
            router.add_get(path, self._page)
        router.add_get("/socket", self._clients.serve)
        router.add_post("/offer", self._offer)
        router.add_get("/face.jpg", self._face)
        router.add_get("/photo.jpg", self._share.photo)
        for suffix in LOOPS:
            router.add_get(f"/loop{suffix}", self._share.loop)
        router.add_get("/recording", self._recording)
        router.add_post("/file", self._take_file)
        router.add_get("/file", self._give_file)

    async def _page(self, request: Any) -> Any:
        return transfer.page_file(self._page_files[request.path])

    async def _face(self, request: Any) -> Any:
        client = self._clients.named(request.query.get("client"), OWNER)
        return await self._faces.answer(request, "" if client is None else client.name)

    async def _recording(self, request: Any) -> Any:
        return transfer.download(
            self._recorder.last if self._recorder else None, "nothing has been recorded yet"
        )

    async def _take_file(self, request: Any) -> Any:
        return await transfer.take_file(request, self._files)

    async def _give_file(self, request: Any) -> Any:
        job = self._files.job
        done = job is not None and job.stage == "done"
        return transfer.download(
            job.target if job is not None and done else None,
            "no file has been translated",
            is_played=request.query.get("play") == "1",
        )

    async def _offer(self, request: Any) -> Any:
        """WebRTC: the page's offer in, our answer out."""
        from aiohttp import web

        try:
            offer = await request.json()
            description = {"sdp": str(offer["sdp"]), "type": str(offer["type"])}
            client = self._clients.named(offer["client"], self._access.role(request))
        except (ValueError, KeyError, TypeError, RecursionError):
            client = None
        if client is None:
            return web.Response(status=400, text="not an offer of an open page\n")
        if client.peer is not None:
            await client.peer.close()

        def on_video(track: Any) -> None:
            if not client.watches:
                client.follow(self._source.take_track(client, track))

        def on_sound(track: Any) -> None:
            if not client.watches:
                client.follow(self._source.voice.take_track(client, track))

        try:
            picture = webrtc.picture_track(self._newest, self.delivered)
            client.peer, answer = await webrtc.connect(description, self._stun, picture, on_video, on_sound)
        except ValueError as error:
            return web.Response(status=400, text=f"offer refused: {error}\n")
        return web.json_response(answer)
