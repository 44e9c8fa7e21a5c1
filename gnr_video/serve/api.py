"""The operations of the service, answered."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engines.errors import GnrVideoError, OutputError
from gnr_video.serve.access import Access
from gnr_video.serve.description import BY_PATH, JSON, MULTIPART, OPERATIONS, Operation, document
from gnr_video.serve.folder import Folder
from gnr_video.serve.job_options import NotAllowed, allowed_file, job_options
from gnr_video.serve.schema import Malformed, check, read_text
from gnr_video.serve.shown import media_type, shown
from gnr_video.serve.store import ENDED, Busy, NewJob, QueueFull, Record, Store
from gnr_video.serve.uploads import MOST_OPTIONS, Refused, Upload, read_json, soon
from gnr_video.serve.worker import Keeping, Worker

log = logging.getLogger(__name__)

MOST_UPLOADS = 4
"""On their way at a time."""
MOST_LISTENERS = 64
EVENT_SECONDS = 0.25
HEARTBEAT_SECONDS = 15.0
_STATUS = {Malformed: 400, NotAllowed: 403, Busy: 409, QueueFull: 429, OutputError: 507}
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class Limits:
    """What the service bears.

    Attributes:
        queue: jobs that may wait.
        upload_bytes: of one upload.
    """

    queue: int
    upload_bytes: int
    keeping: Keeping


class Api:
    """Answers requests. All but its making is on the thread of the event loop; `closing` is set by whoever ends it."""

    def __init__(
        self,
        store: Store,
        folder: Folder,
        worker: Worker,
        access: Access,
        limits: Limits,
        allowed: Sequence[Path],
    ) -> None:
        self._store = store
        self._folder = folder
        self._worker = worker
        self._access = access
        self._limits = limits
        self._allowed = allowed
        self._document = json.dumps(document(), indent=1)
        self._uploads = 0
        self._listeners = 0
        self.closing = asyncio.Event()

    def application(self) -> Any:
        """What aiohttp serves."""
        from aiohttp import web

        @web.middleware
        async def guard(request: web.Request, handler: Callable[..., Awaitable[Any]]) -> Any:
            return await self._guarded(request, handler)

        async def mark(request: web.Request, response: web.StreamResponse) -> None:
            response.headers.update(_HEADERS)

        app = web.Application(middlewares=[guard], client_max_size=MOST_OPTIONS)
        app.on_response_prepare.append(mark)
        for operation in OPERATIONS:
            app.router.add_route(operation.method, operation.path, self._handler(operation))
        return app

    def _handler(self, operation: Operation) -> Callable[[Any], Awaitable[Any]]:
        answer = getattr(self, operation.name)
        queries = {one.name: one for one in operation.parameters if one.place == "query"}

        async def handle(request: Any) -> Any:
            values = dict(request.match_info)
            for name, text in request.query.items():
                if name not in queries:
                    raise Malformed(f"there is no parameter {name!r}", ", ".join(queries))
                if name in values:
                    raise Malformed(f"{name} is there twice")
                values[name] = read_text(text, queries[name].schema, name)
            return await answer(request, **values)

        return handle

    async def _guarded(self, request: Any, handler: Callable[..., Awaitable[Any]]) -> Any:
        from aiohttp import web

        refused = self._access.refuses(request)
        if refused == 401:
            return _refusal(401, "the token is missing or wrong", "Authorization: Bearer TOKEN")
        if refused is not None:
            return _refusal(refused, "another web site asks, or under a name that is not this server's")
        try:
            return await handler(request)
        except web.HTTPException as error:
            answer = _refusal(error.status, f"{error.reason}: {request.method} {request.path}"[:200])
            if allow := error.headers.get("Allow"):
                answer.headers["Allow"] = allow
            return answer
        except GnrVideoError as error:
            own = error.status if isinstance(error, Refused) else None
            answer = _refusal(own or _STATUS.get(type(error), 422), error.message, error.hint)
            if isinstance(error, Refused) and error.status == 408:
                answer.force_close()
            return answer
        except ConnectionError:  # it has gone
            raise
        except OSError as error:
            return _refusal(507, f"cannot write to the service's folder: {error.strerror or error}")
        except Exception as error:  # one line for whoever asked; the server goes on
            log.debug("%s %s failed", request.method, request.path, exc_info=True)
            return _refusal(500, f"this request has failed: {type(error).__name__}: {error}")

    # -- operations, by their names

    async def submit(self, request: Any) -> Any:
        await asyncio.to_thread(self._store.check_room, self._limits.queue)
        if request.content_type == JSON:
            job = await self._by_path(request)
        elif request.content_type == MULTIPART:
            job = await self._by_upload(request)
        else:
            raise Refused(415, f"{request.content_type} is not taken", f"{JSON} or {MULTIPART}")
        self._worker.wake()
        return self._answer(job, 201, Location=f"/jobs/{job.id}")

    async def list_jobs(
        self, request: Any, state: str | None = None, limit: int = 100, before: int | None = None
    ) -> Any:
        from aiohttp import web

        found = await asyncio.to_thread(self._store.page, limit + 1, before, state)
        jobs = [self._shown(job) for job in found[:limit]]
        following = jobs[-1]["number"] if len(found) > limit else None
        return web.json_response({"jobs": jobs, "next": following})

    async def get_job(self, request: Any, id: str) -> Any:
        return self._answer(await self._found(id))

    async def result(self, request: Any, id: str) -> Any:
        from aiohttp import web

        job = await self._found(id)
        if job.state != "done":
            raise Refused(409, f"the job is {job.state}", "wait until it is done")
        if (path := await asyncio.to_thread(self._folder.result, job)) is None:
            raise Refused(404, "the result is gone")
        return web.FileResponse(
            path,
            headers={
                # As RFC 5987 has names that are not ASCII.
                "Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.name)}",
                "Content-Type": media_type(path.name),
            },
        )

    result_head = result

    async def cancel(self, request: Any, id: str) -> Any:
        if (job := await asyncio.to_thread(self._store.cancel, id)) is None:
            raise _missing()
        if job.state == "cancelling":
            self._worker.cancel(id)
        else:
            await asyncio.to_thread(self._folder.clear, id)
        return self._answer(job)

    async def delete(self, request: Any, id: str) -> Any:
        from aiohttp import web

        if not await asyncio.to_thread(self._store.remove, id):
            raise _missing()
        await asyncio.to_thread(self._folder.clear, id)
        return web.Response(status=204)

    async def server(self, request: Any) -> Any:
        from aiohttp import web

        counts, kept = await asyncio.to_thread(lambda: (self._store.counts(), self._store.kept_bytes()))
        keeping = self._limits.keeping
        return web.json_response(
            {
                "maker": self._worker.maker,
                "jobs": counts,
                "running": self._worker.running,
                "kept_bytes": kept,
                "limits": {
                    "queue": self._limits.queue,
                    "upload_bytes": self._limits.upload_bytes,
                    "keep_bytes": keeping.most_bytes,
                    "keep_seconds": keeping.seconds,
                },
                "notices": [self._worker.notice] if self._worker.notice else [],
            }
        )

    async def openapi(self, request: Any) -> Any:
        from aiohttp import web

        return web.Response(text=self._document, content_type=JSON)

    async def events(self, request: Any, id: str) -> Any:
        from aiohttp import web

        await self._found(id)
        if self._listeners >= MOST_LISTENERS:
            raise Refused(429, f"{MOST_LISTENERS} listen already", "ask for the state now and then instead")
        self._listeners += 1
        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            with suppress(ConnectionError):  # it has gone
                await self._tell(request, response, id)
            return response
        finally:
            self._listeners -= 1

    # --

    async def _tell(self, request: Any, response: Any, id: str) -> None:
        """A job's state whenever it is another, until it has ended, or the client or the server has."""
        last, written = "", time.monotonic()
        while not self.closing.is_set() and request.transport is not None:
            job = await asyncio.to_thread(self._store.get, id)
            if job is None:
                await response.write(b"event: deleted\ndata: {}\n\n")
                return
            text = json.dumps(self._shown(job))
            if text != last:
                await response.write(f"event: state\ndata: {text}\n\n".encode())
                last, written = text, time.monotonic()
            elif time.monotonic() - written > HEARTBEAT_SECONDS:
                await response.write(b": still there\n\n")
                written = time.monotonic()
            if job.state in ENDED:
                return
            try:
                async with asyncio.timeout(EVENT_SECONDS):
                    await self.closing.wait()
            except TimeoutError:
                continue

    async def _by_path(self, request: Any) -> Record:
        body = read_json(await soon(request.read()))
        check(body, BY_PATH)
        options = body.get("options", {})

        def add() -> Record:
            path = allowed_file(body["path"], self._allowed)
            if path.is_relative_to(self._folder.path.resolve()):
                raise NotAllowed(f"{body['path']!r} lies in the service's own folder")
            job_options(options, self._allowed)
            new = NewJob(secrets.token_hex(16), path.name, str(path), False, options, self._worker.maker)
            return self._store.add(new, self._limits.queue)

        return await asyncio.to_thread(add)

    async def _by_upload(self, request: Any) -> Record:
        size = request.content_length or 0
        if size > self._limits.upload_bytes + 2 * MOST_OPTIONS:
            raise Refused(413, f"an upload has {self._limits.upload_bytes / 1e9:g} GB at most")
        if self._uploads >= MOST_UPLOADS:
            raise Refused(429, f"{MOST_UPLOADS} uploads are on their way already", "come again later")
        self._uploads += 1
        id = secrets.token_hex(16)
        try:
            job = await self._received(request, id, size)
        except BaseException:
            # Not in a thread: where the client has gone, this is cancelled, and nothing is awaited any more.
            self._folder.clear(id)
            raise
        finally:
            self._uploads -= 1
        return job

    async def _received(self, request: Any, id: str, size: int) -> Record:
        free = self._folder.free_bytes()
        if 2 * size > free:
            raise OutputError(f"it does not fit on the disk: {free / 1e9:.1f} GB are free")
        upload = Upload(self._folder.make(id), self._limits.upload_bytes)
        await upload.receive(request)
        await asyncio.to_thread(job_options, upload.options, self._allowed)
        new = NewJob(id, upload.name, upload.name, True, upload.options, self._worker.maker)
        # Not in a thread: what is in the store is to stay, and nothing can cancel this request from here on.
        return self._store.add(new, self._limits.queue)

    async def _found(self, id: str) -> Record:
        job = await asyncio.to_thread(self._store.get, id)
        if job is None:
            raise _missing()
        return job

    def _shown(self, job: Record) -> dict[str, Any]:
        return shown(job, self._worker.progress(job.id), self._worker.maker)

    def _answer(self, job: Record, status: int = 200, **headers: str) -> Any:
        from aiohttp import web

        return web.json_response(self._shown(job), status=status, headers=headers)


def _missing() -> Refused:
    return Refused(404, "there is no such job")


def _refusal(status: int, message: str, hint: str = "") -> Any:
    from aiohttp import web

    answer = web.json_response({"error": message, "hint": hint}, status=status)
    if status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    if status == 429:
        answer.headers["Retry-After"] = "30"
    return answer
