"""Browser, a sink and a camera when live: one aiohttp server with a small page, pictures through WebRTC.

Where WebRTC finds no way (an ssh tunnel carries TCP only) the page falls back to JPEG pictures over its
WebSocket. Without `--allow-remote` only this machine is served; with it, only those who know the token. Other
web sites cannot reach the server through the user's browser: Host and Origin are checked.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import import_module, resources
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from engines.errors import EngineError, GnrVideoError, InputError, OutputError, StyleError
from engines.installation import install_line
from gnr_video.frame import Frame, Image
from gnr_video.live.address import is_local
from gnr_video.live.camera import PushCamera
from gnr_video.live.files import FileTranslations
from gnr_video.live.keys import HELP, KEYS, Keys
from gnr_video.live.recorder import Recorder
from gnr_video.live.session import LiveSession
from gnr_video.live.sinks import LiveSink
from gnr_video.media.images import decode_jpeg, encode_jpeg, even
from gnr_video.styles.code import Seed
from gnr_video.styles.grammar import parse_expressions

log = logging.getLogger(__name__)

MAX_CLIENTS = 8
STATE_SECONDS = 0.25
SHEET_STYLES = 12

BITRATE = 4_000_000
"""Bits a second that a WebRTC picture may take: aiortc's own 1.5 Mbit/s blurs 720p."""
_CLOCK = 90_000
_COOKIE = "gnr-video-token"
_PAGE = {"/": "index.html", "/live.js": "live.js", "/live.css": "live.css"}
_MAX_MESSAGE = 8 << 20
_GRACE = 0.3  # seconds that peers and sockets have to close


def require_packages() -> None:
    """Raise EngineError where what the browser needs is not installed."""
    try:
        import_module("aiohttp")
        import_module("aiortc")
    except ImportError as error:
        raise EngineError(
            f"the browser needs {error.name}, which is not installed", install_line("web")
        ) from None


@dataclass(eq=False)
class Client:
    """One open page.

    Attributes:
        socket: its WebSocket.
        keys: seeds that are being typed belong to one keyboard.
        peer: its WebRTC connection.
        jpeg: whether it wants pictures over the socket.
        drawn: set when it has drawn the last of those.
    """

    socket: Any
    keys: Keys
    peer: Any = None
    jpeg: bool = False
    drawn: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class WebSink(LiveSink):
    """The server, on a thread of its own.

    Args:
        session: whose pictures are shown, and whose controls the page works.
        listener: from `bind`.
        remote: whether other machines may come; then the URL holds a token.
        recorder: for the record button.
        camera: where a browser's own pictures go.
        server_camera: opens the server's camera again when a browser gives its own back; None: there is none.

    Attributes:
        url: to be opened in a browser.
    """

    def __init__(
        self,
        session: LiveSession,
        listener: socket.socket,
        *,
        remote: bool = False,
        recorder: Recorder | None = None,
        camera: PushCamera | None = None,
        server_camera: Callable[[], Any] | None = None,
    ) -> None:
        require_packages()
        super().__init__("browser")
        self._session = session
        self._listener = listener
        self._recorder = recorder
        self._camera = camera or PushCamera()
        self._server_camera = server_camera
        self._files = FileTranslations(session.translator, session.controls)
        self._owner: Client | None = None
        self._clients: set[Client] = set()
        self._token = secrets.token_urlsafe(16) if remote else ""
        host, port = listener.getsockname()[:2]
        shown = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{port}/" + (f"?token={self._token}" if remote else "")
        self._frame: Frame | None = None
        self._wakers: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name="gnr-video browser", daemon=True)
        self._thread.start()
        self._ready.wait(10)

    # -- the session's side

    def show(self, frame: Frame) -> None:
        self._frame = frame
        if self._wakers and self._loop is not None:
            with suppress(RuntimeError):  # the loop has just been closed
                self._loop.call_soon_threadsafe(self._wake)

    def close(self, timeout: float = 0.9) -> None:
        loop, ended = self._loop, self._ended
        if loop is not None and ended is not None:
            with suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(ended.set)
        self._thread.join(timeout)
        self._files.close()

    @property
    def viewers(self) -> int:
        """Pages that are open."""
        return len(self._clients)

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

        _widen_bitrate()
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        app = web.Application(middlewares=[self._guard], client_max_size=1 << 20)
        for path in _PAGE:
            app.router.add_get(path, self._page)
        app.router.add_get("/socket", self._socket)
        app.router.add_post("/offer", self._offer)
        app.router.add_get("/sheet.jpg", self._sheet)
        app.router.add_get("/recording", self._recording)
        app.router.add_post("/file", self._take_file)
        app.router.add_get("/file", self._give_file)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_GRACE, handle_signals=False)
        await runner.setup()
        await web.SockSite(runner, self._listener).start()
        states = asyncio.create_task(self._send_states())
        self._ready.set()
        await self._ended.wait()
        states.cancel()
        leaving = [asyncio.create_task(self._dismiss(client)) for client in list(self._clients)]
        await asyncio.wait([states, *leaving], timeout=_GRACE)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(runner.cleanup(), _GRACE)

    def _wake(self) -> None:
        for waker in self._wakers:
            waker.set()

    async def next_frame(self, last: Frame | None) -> Frame:
        """The newest picture, once there is one newer than `last`."""
        waker = asyncio.Event()
        self._wakers.add(waker)
        try:
            while self._frame is None or self._frame is last:
                waker.clear()
                await waker.wait()
            return self._frame
        finally:
            self._wakers.discard(waker)

    # -- requests

    @property
    def _guard(self) -> Any:
        from aiohttp import web

        @web.middleware
        async def guard(request: web.Request, handler: Callable[..., Awaitable[Any]]) -> Any:
            if not self._may(request):
                return web.Response(
                    status=403, text="Not allowed: open the address that gnr-video printed.\n"
                )
            response = await handler(request)
            if not response.prepared:
                response.headers["Cache-Control"] = "no-store"
                response.headers["X-Content-Type-Options"] = "nosniff"
                response.headers["Content-Security-Policy"] = (
                    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; frame-ancestors 'none'"
                )
                if self._token and request.path == "/":
                    response.set_cookie(_COOKIE, self._token, httponly=True, samesite="Strict")
            return response

        return guard

    def _may(self, request: Any) -> bool:
        """Whether a request comes from the page itself, and from somebody who may see it."""
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            return False
        if not self._token:
            # A name that resolves to 127.0.0.1 but is not ours belongs to another site (DNS rebinding).
            return is_local(urlsplit(f"//{request.host}").hostname or "")
        given = request.query.get("token") or request.cookies.get(_COOKIE) or ""
        return hmac.compare_digest(given.encode(), self._token.encode())

    async def _page(self, request: Any) -> Any:
        from aiohttp import web

        name = _PAGE[request.path]
        text = (resources.files("gnr_video.live") / "page" / name).read_text(encoding="utf-8")
        kind = {"html": "text/html", "js": "text/javascript", "css": "text/css"}[name.rsplit(".", 1)[1]]
        return web.Response(text=text, content_type=kind)

    async def _sheet(self, request: Any) -> Any:
        """The last face under some styles beside each other: a JPEG, or 404 while no face has been seen."""
        from aiohttp import web

        crop = self._session.crop
        try:
            first = int(request.query.get("first", "0"))
        except ValueError:
            return web.Response(status=400, text="first must be a number\n")
        if crop is None:
            return web.Response(status=404, text="no face has been seen yet\n")
        try:
            data = await asyncio.to_thread(self._draw_sheet, crop, first)
        except GnrVideoError as error:
            return web.Response(status=404, text=f"{error.message}\n")
        return web.Response(body=data, content_type="image/jpeg")

    def _draw_sheet(self, crop: Image, first: int) -> bytes:
        translator = self._session.translator
        # One at a time, so that the live picture goes on in between.
        faces = [translator.translate_face(crop, first + i) for i in range(SHEET_STYLES)]
        return encode_jpeg(np.concatenate(faces, axis=1))

    async def _recording(self, request: Any) -> Any:
        from aiohttp import web

        path: Path | None = self._recorder.last if self._recorder else None
        if path is None or not path.is_file():
            return web.Response(status=404, text="nothing has been recorded yet\n")
        return _download(path)

    async def _take_file(self, request: Any) -> Any:
        """A video or picture to translate: its name in the query, its bytes the body."""
        from aiohttp import web

        if request.content_length is None:
            return web.Response(status=411, text="the length of the file is missing\n")
        try:
            job = self._files.receive(request.query.get("name", ""), request.content_length)
        except InputError as error:
            return web.Response(status=409, text=f"{error}\n")
        except OutputError as error:
            return web.Response(status=507, text=f"{error}\n")
        try:
            with job.source.open("wb") as stream:
                async for chunk in request.content.iter_chunked(1 << 20):
                    await asyncio.to_thread(stream.write, chunk)
        except BaseException as error:
            self._files.drop(f"{job.source.name} did not come whole: {str(error) or 'the page was closed'}")
            job.source.unlink(missing_ok=True)
            raise
        self._files.start()
        return web.json_response(job.state())

    async def _give_file(self, request: Any) -> Any:
        from aiohttp import web

        job = self._files.job
        if job is None or job.stage != "done":
            return web.Response(status=404, text="no file has been translated\n")
        return _download(job.target)

    # -- the page's socket

    async def _socket(self, request: Any) -> Any:
        from aiohttp import WSMsgType, web

        ws = web.WebSocketResponse(max_msg_size=_MAX_MESSAGE, heartbeat=10, timeout=_GRACE)
        await ws.prepare(request)
        if len(self._clients) >= MAX_CLIENTS:
            await ws.send_json({"error": f"{MAX_CLIENTS} pages are open already: close one and reload"})
            await ws.close()
            return ws
        client = Client(ws, Keys(self._session.controls))
        self._clients.add(client)
        try:
            await ws.send_json(self._hello(id(client)))
            async for message in ws:
                if message.type == WSMsgType.BINARY:
                    await self._take_jpeg(client, message.data)
                elif message.type == WSMsgType.TEXT:
                    await self._command(client, message.data)
        finally:
            await self._dismiss(client)
        return ws

    def _hello(self, identity: int) -> dict[str, Any]:
        from gnr_video.compositing.compositor import MODES
        from gnr_video.effects import EFFECTS

        return {
            "client": str(identity),
            "paste_modes": list(MODES),
            "effects": [{"name": effect.name, "help": effect.help} for effect in EFFECTS],
            "keys": sorted(KEYS),
            "help": HELP,
            "sheet_styles": SHEET_STYLES,
            "server_camera": self._server_camera is not None,
        }

    async def _command(self, client: Client, text: str) -> None:
        try:
            message = json.loads(text)
            name, value = str(message["command"]), message.get("value")
            if self._token and name in ("style", "other", "blend") and value:
                _check_seeds(str(value))
        except StyleError as error:
            self._session.controls.say(error.message)
            return
        except (ValueError, KeyError, TypeError):
            return
        if name == "drawn":
            client.drawn.set()
        elif name == "jpeg":
            self._start_jpeg(client)
        elif name == "source":
            self._set_source(client, value == "browser")
        elif name == "stop-file":
            self._files.stop()
        elif name == "key":
            await asyncio.to_thread(client.keys.press, str(value)[:1])
        else:
            # In a thread: reading a style off a picture or closing a recording takes a while.
            await asyncio.to_thread(self._session.controls.run, name, value)
        if name != "drawn":
            await self._send_state(client)

    async def _send_states(self) -> None:
        while True:
            for client in list(self._clients):
                await self._send_state(client)
            await asyncio.sleep(STATE_SECONDS)

    async def _send_state(self, client: Client) -> None:
        status = self._session.status()
        state = self._session.controls.state() | {
            "fps": round(status.fps, 1),
            "drawn": round(status.drawn, 1),
            "p50": round(status.p50_ms),
            "p95": round(status.p95_ms),
            "dropped": status.dropped,
            "limit": status.limit,
            "notice": status.notice,
            "camera": status.camera,
            "source": "browser" if self._owner is client else "other" if self._owner else "server",
            "typed": client.keys.typed,
            "viewers": len(self._clients),
            "recording": bool(self._recorder and self._recorder.current),
            "recorded": self._recorder.last.name if self._recorder and self._recorder.last else "",
            "file": self._files.job.state() if self._files.job else None,
        }
        with suppress(ConnectionError, asyncio.TimeoutError, RuntimeError):
            await asyncio.wait_for(client.socket.send_json({"state": state}), 1.0)

    async def _dismiss(self, client: Client) -> None:
        """A page has gone, or has to."""
        self._clients.discard(client)
        for task in client.tasks:
            task.cancel()
        if self._owner is client:
            self._set_source(client, False)
        if client.peer is not None:
            await client.peer.close()
        if not client.socket.closed:
            await client.socket.close()

    # -- pictures to the page

    async def _offer(self, request: Any) -> Any:
        """WebRTC: the page's offer in, our answer out."""
        from aiohttp import web
        from aiortc import RTCPeerConnection, RTCSessionDescription

        try:
            offer = await request.json()
            description = RTCSessionDescription(sdp=offer["sdp"], type=offer["type"])
            client = next(c for c in self._clients if str(id(c)) == offer["client"])
        except (ValueError, KeyError, TypeError, StopIteration):
            return web.Response(status=400, text="not an offer of an open page\n")
        if client.peer is not None:
            await client.peer.close()
        peer = client.peer = RTCPeerConnection()

        @peer.on("track")
        def on_track(track: Any) -> None:
            if track.kind == "video":
                self._follow(client, self._take_track(client, track))

        @peer.on("connectionstatechange")
        async def on_state() -> None:
            if peer.connectionState == "failed":
                await peer.close()

        try:
            await peer.setRemoteDescription(description)
            peer.addTrack(_track(self))
            await peer.setLocalDescription(await peer.createAnswer())
        except Exception as error:  # aiortc raises many kinds for an SDP it does not like
            log.debug("offer refused", exc_info=True)
            await peer.close()
            return web.Response(status=400, text=f"offer refused: {error}\n")
        return web.json_response({"sdp": peer.localDescription.sdp, "type": peer.localDescription.type})

    def _follow(self, client: Client, work: Any) -> None:
        task = asyncio.ensure_future(work)
        client.tasks.add(task)
        task.add_done_callback(client.tasks.discard)

    def _start_jpeg(self, client: Client) -> None:
        if not client.jpeg:
            client.jpeg = True
            client.drawn.set()
            self._follow(client, self._send_jpegs(client))

    async def _send_jpegs(self, client: Client) -> None:
        """Pictures over the socket, the next one when the page has drawn the last: no delay builds up."""
        last: Frame | None = None
        while not client.socket.closed:
            await client.drawn.wait()
            client.drawn.clear()
            if last is not None:
                self.delivered(last)
            last = await self.next_frame(last)
            data = await asyncio.to_thread(encode_jpeg, last.image)
            try:
                await client.socket.send_bytes(data)
            except (ConnectionError, RuntimeError):
                return

    # -- pictures from the page

    def _set_source(self, client: Client, browser: bool) -> None:
        """Use the page's camera, or give the server's back."""
        if browser:
            self._owner = client
            self._session.capture.switch(lambda: self._camera, self._camera)
            self._session.controls.say("the browser's camera is used")
        elif self._owner is client:
            self._owner = None
            if self._server_camera is not None:
                self._session.capture.switch(self._server_camera)
            self._session.controls.say("the browser's camera is no longer used")

    async def _take_track(self, client: Client, track: Any) -> None:
        from aiortc.mediastreams import MediaStreamError

        try:
            while True:
                picture = await track.recv()
                if self._owner is client:
                    self._camera.push(picture.to_ndarray(format="rgb24"))
        except MediaStreamError:
            return

    async def _take_jpeg(self, client: Client, data: bytes) -> None:
        if self._owner is client:
            image = await asyncio.to_thread(decode_jpeg, data)
            if image is not None:
                self._camera.push(image)


def _track(sink: WebSink) -> Any:
    """A video track of aiortc that sends the newest picture whenever it is asked for one."""
    import av
    from aiortc import MediaStreamTrack

    class LiveTrack(MediaStreamTrack):
        kind = "video"

        def __init__(self) -> None:
            super().__init__()
            self._last: Frame | None = None
            self._first = 0.0

        async def recv(self) -> Any:
            # It is asked again once the last picture is encoded and sent.
            if self._last is not None:
                sink.delivered(self._last)
            frame = self._last = await sink.next_frame(self._last)
            captured: float = frame.props["captured"]
            self._first = self._first or captured
            picture = av.VideoFrame.from_ndarray(even(frame.image), "rgb24")
            picture.pts, picture.time_base = round((captured - self._first) * _CLOCK), Fraction(1, _CLOCK)
            return picture

    return LiveTrack()


def _download(path: Path) -> Any:
    from aiohttp import web

    # As RFC 5987 has names that are not ASCII.
    name = f"attachment; filename*=UTF-8''{quote(path.name)}"
    return web.FileResponse(path, headers={"Content-Disposition": name})


def _check_seeds(text: str) -> None:
    """Raise StyleError for a style that reads a file: this machine's files are none of a remote page's business."""
    for expression in parse_expressions(text):
        if not all(isinstance(atom, Seed) for atom, _ in expression.terms):
            raise StyleError("from another machine, styles are made of seeds only")


def _widen_bitrate() -> None:
    """aiortc has no option for its encoders' rates; they read these when they are made."""
    from aiortc.codecs import h264, vpx

    for module in (h264, vpx):
        vars(module).update(DEFAULT_BITRATE=BITRATE // 2, MAX_BITRATE=BITRATE)
