"""The open pages: their sockets, what they ask for, and what they are told.

A page's commands carry numbers, and each state says which of them it already shows. So a page knows what is older
than its own last wish, however long the line is. Pages of viewers see the picture and how it is; nothing that they
send changes anything.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from engines.errors import GnrVideoError, InputError, StyleError
from gnr_video.live.camera import SAMPLE
from gnr_video.live.files import FileTranslations
from gnr_video.live.keys import HELP, KEYS, SEED, Keys
from gnr_video.live.recorder import Recorder
from gnr_video.live.session import LiveSession
from gnr_video.live.web.access import OWNER, VIEWER, Access
from gnr_video.live.web.pictures import JpegStream
from gnr_video.live.web.sheet import check_seeds, linkable
from gnr_video.live.web.source import PageCamera

MAX_CLIENTS = 8
"""Pages of owners that may be open, and of viewers."""
STATE_SECONDS = 0.25
MAX_PICTURE = 8 << 20
MAX_COMMAND = 1 << 16
"""Bytes of a message with a picture, and of one with a command."""
GRACE = 0.3
"""Seconds that peers and sockets have to close."""
WATCHING = frozenset(["jpeg", "drawn"])
"""What viewers may send: how the picture comes to them."""
SEEN = frozenset(
    [
        "request",
        "refused",
        "fps",
        "drawn",
        "p50",
        "p95",
        "dropped",
        "rate",
        "notice",
        "face",
        "viewers",
        "view",
        "style",
    ]
)
"""What viewers are told: not names of files and cameras, nor what was typed and said."""


@dataclass(eq=False)
class Client:
    """One open page.

    Attributes:
        socket: its WebSocket.
        keys: seeds that are being typed belong to one keyboard.
        watches: whether it is a viewer's.
        name: what it calls itself in requests.
        request: number of its last command that was dealt with.
        refused: that command's name, where it could not be carried out.
        peer: its WebRTC connection.
        jpegs: its pictures over the socket, where it wants those.
    """

    socket: Any
    keys: Keys
    watches: bool = False
    name: str = field(default_factory=secrets.token_urlsafe)
    request: int = 0
    refused: str = ""
    peer: Any = None
    jpegs: JpegStream | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def follow(self, work: Any) -> None:
        """Do something on the side, for as long as the page is open."""
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class Clients:
    """All open pages.

    Args:
        session: whose controls they work and whose state they are told.
        access: knows whose they are.
        source: for those that give their own camera.
        recorder: for the record button.
        files: videos that they hand over.
        remote: whether they may be on other machines: then styles that read files are refused.
        open_jpegs: begins pictures over a page's socket.
        stun: URL of a STUN server that pages are to ask; "": none.
        on_leave: told of each page that has gone.
    """

    def __init__(
        self,
        session: LiveSession,
        access: Access,
        source: PageCamera,
        recorder: Recorder | None,
        files: FileTranslations,
        *,
        remote: bool,
        open_jpegs: Callable[[Any], JpegStream],
        stun: str = "",
        on_leave: Callable[[Client], None] = lambda client: None,
    ) -> None:
        self._session = session
        self._access = access
        self._source = source
        self._recorder = recorder
        self._files = files
        self._remote = remote
        self._open_jpegs = open_jpegs
        self._stun = stun
        self._on_leave = on_leave
        self._open: set[Client] = set()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def owners(self) -> int:
        """Pages that may steer."""
        return sum(not client.watches for client in list(self._open))

    def named(self, name: object, role: str | None) -> Client | None:
        """The page of that name, as it was told at its beginning, where it is one of that role."""
        return next((c for c in self._open if c.name == name and c.watches == (role == VIEWER)), None)

    async def serve(self, request: Any) -> Any:
        """A page's socket, from its opening to its end."""
        from aiohttp import WSMsgType, web

        socket = web.WebSocketResponse(max_msg_size=MAX_PICTURE, heartbeat=10, timeout=GRACE)
        await socket.prepare(request)
        watches = self._access.role(request) == VIEWER
        if sum(client.watches == watches for client in self._open) >= MAX_CLIENTS:
            await socket.send_json({"error": f"{MAX_CLIENTS} pages are open already: close one and reload"})
            await socket.close()
            return socket
        client = Client(socket, Keys(self._session.controls), watches)
        self._open.add(client)
        try:
            await socket.send_json(self._hello(client))
            async for message in socket:
                if message.type == WSMsgType.BINARY:
                    if not client.watches:
                        await self._source.take_jpeg(client, message.data)
                elif message.type == WSMsgType.TEXT:
                    await self._take(client, message.data)
        except ConnectionError:
            pass  # it has gone in the middle of a message
        finally:
            await self._dismiss(client)
        return socket

    def _hello(self, client: Client) -> dict[str, Any]:
        from gnr_video.compositing.compositor import MODES
        from gnr_video.effects import EFFECTS

        return {
            "client": client.name,
            "role": VIEWER if client.watches else OWNER,
            "viewer_query": "" if client.watches else self._access.query(VIEWER),
            "paste_modes": list(MODES),
            "effects": [{"name": effect.name, "help": effect.help} for effect in EFFECTS],
            "keys": sorted(KEYS),
            "help": HELP,
            "server_camera": self._source.has_server_camera,
            "ice_servers": [{"urls": self._stun}] if self._stun else [],
        }

    # -- commands

    async def _take(self, client: Client, text: str) -> None:
        """Carry out a message; what is none is passed over."""
        if len(text) > MAX_COMMAND:
            if not client.watches:
                self._session.controls.say(f"a command of {len(text)} letters is too long")
            return
        try:
            message = json.loads(text)
            name, value, number = str(message["command"]), message.get("value"), message.get("request")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        if name == "drawn":
            if client.jpegs is not None:
                client.jpegs.drawn()
            return
        client.refused = ""
        try:
            if client.watches and name not in WATCHING:
                client.refused = name
            else:
                await self._command(client, name, value)
        except GnrVideoError as error:
            client.refused = name
            self._session.controls.say(error.message if isinstance(error, StyleError) else str(error))
        if isinstance(number, int):
            client.request = number
        await self._send_state(client)

    async def _command(self, client: Client, name: str, value: Any) -> None:
        if name == "look":  # out of a link that anybody may have made
            check_seeds(str(value), "in a link")
            name = "style"
        if self._remote and name in ("style", "other", "blend") and value:
            check_seeds(str(value))
        if name == "jpeg":
            self._source.voice.give_back(client)  # sound goes no other way than WebRTC's
            if client.jpegs is None:
                client.jpegs = self._open_jpegs(client.socket)
                client.follow(client.jpegs.run())
        elif name == "source":
            await self._set_source(client, value)
        elif name == "microphone":
            self._set_microphone(client, bool(value))
        elif name == "stop-file":
            self._files.stop()
        elif name == "key":
            key = str(value)[:1]
            # The page asks before it ends the session of everybody else.
            if KEYS.get(key.lower(), ("",))[0] != "quit":
                await asyncio.to_thread(client.keys.press, key)
        else:
            # In a thread: reading a style off a picture or closing a recording takes a while.
            await asyncio.to_thread(self._session.controls.carry_out, name, value)

    async def _set_source(self, client: Client, value: Any) -> None:
        if value == "browser":
            self._source.use(client)
        elif value == SAMPLE:
            await self._source.use_sample()
        elif self._source.owner == SAMPLE:
            self._source.use_server()
        else:
            self._source.give_back(client)

    def _set_microphone(self, client: Client, on: bool) -> None:
        if not on:
            self._source.voice.give_back(client)
        elif client.jpegs is not None:
            raise InputError("there is no sound over the WebSocket: WebRTC found no way from this browser")
        else:
            self._source.voice.use(client)

    # -- what they are told

    async def tell(self) -> None:
        """Send all of them the state, again and again."""
        while True:
            for client in list(self._open):
                await self._send_state(client)
            await asyncio.sleep(STATE_SECONDS)

    async def _send_state(self, client: Client) -> None:
        status = self._session.status()
        recorder, job = self._recorder, self._files.job
        state = self._session.controls.state() | {
            "request": client.request,
            "refused": client.refused,
            "fps": round(status.fps, 1),
            "drawn": round(status.drawn, 1),
            "p50": round(status.p50_ms),
            "p95": round(status.p95_ms),
            "dropped": status.dropped,
            "covers": status.covered,
            "rate": status.sentence(),
            "notice": status.notice,
            "face": status.face,
            "camera": status.camera,
            "source": self._source.said_to(client),
            "microphone": self._source.voice.owner is client,
            "typed": client.keys.typed.removeprefix(SEED),
            "viewers": len(self._open),
            "recording": bool(recorder and recorder.running),
            "recorded": recorder.last.name if recorder and recorder.last else "",
            "file": job.state() if job else None,
        }
        state["look"] = linkable(state["style"])
        if client.watches:
            state = {name: value for name, value in state.items() if name in SEEN}
        with suppress(ConnectionError, asyncio.TimeoutError, RuntimeError):
            await asyncio.wait_for(client.socket.send_json({"state": state}), 1.0)

    async def _dismiss(self, client: Client) -> None:
        """A page has gone, or has to."""
        self._open.discard(client)
        for task in list(client.tasks):
            task.cancel()
        self._source.give_back(client)
        self._source.voice.give_back(client)
        self._on_leave(client)
        if client.peer is not None:
            await client.peer.close()
        if not client.socket.closed:
            await client.socket.close()

    async def close(self) -> None:
        """Dismiss all of them."""
        leaving = [asyncio.create_task(self._dismiss(client)) for client in list(self._open)]
        if leaving:
            await asyncio.wait(leaving, timeout=GRACE)
