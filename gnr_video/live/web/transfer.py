"""Files that pages fetch and hand over: the page itself, recordings, videos to translate and their translations."""

from __future__ import annotations

import asyncio
import time
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engines.errors import InputError, OutputError
from gnr_video.live.files import FileTranslations, Job

KINDS = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
STALLED_SECONDS = 30.0
"""How long a file may stand still on its way before another one may come."""
_LOOK_SECONDS = 0.25  # how often an upload asks whether it was stopped
_PIECE = 1 << 20


def page_files() -> dict[str, str]:
    """What the page is made of: path in its address -> name of the file."""
    names = (entry.name for entry in (resources.files("gnr_video.live") / "page").iterdir())
    return {"/" if name == "index.html" else f"/{name}": name for name in names if kind(name) in KINDS}


def kind(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def page_file(name: str) -> Any:
    from aiohttp import web

    text = (resources.files("gnr_video.live") / "page" / name).read_text(encoding="utf-8")
    return web.Response(text=text, content_type=KINDS[kind(name)])


def download(path: Path | None, missing: str, *, is_played: bool = False) -> Any:
    """A file for the browser to save, or to show in the page; 404 saying what is missing."""
    from aiohttp import web

    if path is None or not path.is_file():
        return web.Response(status=404, text=f"{missing}\n")
    # As RFC 5987 has names that are not ASCII.
    name = f"filename*=UTF-8''{quote(path.name)}"
    how = "inline" if is_played else "attachment"
    return web.FileResponse(path, headers={"Content-Disposition": f"{how}; {name}"})


async def take_file(request: Any, files: FileTranslations) -> Any:
    """A video or picture to translate: its name in the query, its bytes the body."""
    from aiohttp import web

    if request.content_length is None:
        return web.Response(status=411, text="the length of the file is missing\n")
    try:
        job = files.receive(request.query.get("name", ""), request.content_length)
    except InputError as error:
        return web.Response(status=409, text=f"{error}\n")
    except OutputError as error:
        return web.Response(status=507, text=f"{error}\n")
    try:
        await _receive(request, job, files)
    except asyncio.CancelledError:
        files.drop("the page was closed")
        raise
    except (OSError, InputError, web.RequestPayloadError) as error:
        files.drop(str(error) or "the line was lost")
        answer = web.Response(status=400, text=f"{job.message}\n")
        answer.force_close()  # the rest of it would be read otherwise
        return answer
    except BaseException as error:
        files.drop(str(error))
        raise
    files.start()
    return web.json_response(job.state())


async def _receive(request: Any, job: Job, files: FileTranslations) -> None:
    """Write the body to the job's file.

    Raises:
        InputError: it was stopped, or nothing has come for `STALLED_SECONDS`.
        OSError: the line was lost, or the disk is full.
    """
    last = time.perf_counter()
    held = bytearray()
    with job.source.open("wb") as stream:
        while True:
            if files.stopping:
                raise InputError("it was stopped")
            try:
                data = await asyncio.wait_for(request.content.readany(), _LOOK_SECONDS)
            except TimeoutError:
                if time.perf_counter() - last > STALLED_SECONDS:
                    raise InputError(f"nothing has come for {STALLED_SECONDS:.0f} s") from None
                continue
            last = time.perf_counter()
            held += data
            job.done += len(data)
            if len(held) >= _PIECE or not data:
                await asyncio.to_thread(stream.write, bytes(held))
                held.clear()
            if not data:
                return
