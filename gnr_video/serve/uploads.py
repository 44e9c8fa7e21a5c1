"""Files on their way in: multipart bodies, written down as they come, with an end to their size and patience."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from engines.errors import GnrVideoError, OutputError
from gnr_video.media.sink import writing
from gnr_video.serve.description import BY_UPLOAD
from gnr_video.serve.schema import Malformed, check, parse
from gnr_video.web.handed import safe_name

T = TypeVar("T")

STALLED_SECONDS = 30.0
"""How long a request may stand still on its way."""
MOST_OPTIONS = 1 << 16
"""Bytes of a job's options, and of all else that is no file."""
_PIECE = 1 << 20


class Refused(GnrVideoError):
    """A request that gets a status of its own."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.status = status


async def soon(work: Awaitable[T]) -> T:
    """What a request brings next.

    Raises:
        Refused: nothing has come for `STALLED_SECONDS`, or it cannot come any more.
        Malformed: it is not what its headers say.
    """
    from aiohttp import web

    try:
        return await asyncio.wait_for(work, STALLED_SECONDS)
    except TimeoutError:
        raise Refused(408, f"nothing has come for {STALLED_SECONDS:.0f} s", "send it again") from None
    except (web.RequestPayloadError, ConnectionError) as error:
        raise Refused(400, f"it did not come whole: {error}", "send it again") from None
    except (ValueError, AssertionError, LookupError) as error:  # aiohttp's, of bodies that are no multipart
        raise Malformed(f"the body is no multipart/form-data: {error}") from None


class Upload:
    """One upload.

    Args:
        folder: where its file is put; it exists.
        most: bytes that it may have.

    Attributes:
        name: of its file, without folders.
        options: of the job, of their declared form; {} where none have come.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        self.name = ""
        self.options: dict[str, Any] = {}

    async def receive(self, request: Any) -> None:
        """Read a request to its end. What has been written where it fails is the caller's to remove.

        Raises:
            Refused: too large, or it has stalled.
            Malformed: it is not of the form of `BY_UPLOAD`.
            OutputError: the disk is full.
        """
        reader = await soon(_opened(request))
        seen: set[str] = set()
        while (part := await soon(reader.next())) is not None:
            name = str(getattr(part, "name", None))
            if name not in BY_UPLOAD["properties"] or name in seen:
                raise Malformed(
                    f"a part named {name!r} is {'there twice' if name in seen else 'not known'}",
                    "there are options and file",
                )
            seen.add(name)
            if name == "options":
                self.options = await _options(part)
            else:
                self.name = safe_name(part.filename or "")
                await self._write(part)
        if "file" not in seen:
            raise Malformed("the body lacks 'file'")

    async def _write(self, part: Any) -> None:
        """Write the file down, so that it outlasts a power cut."""
        path, size = self._folder / self.name, 0
        held = bytearray()
        with writing(path):
            stream = path.open("wb")
        try:
            while data := await soon(part.read_chunk(_PIECE)):
                held += data
                size += len(data)
                if size > self._most:
                    raise Refused(413, f"{self.name} has more than {self._most / 1e9:g} GB")
                if len(held) >= _PIECE:
                    await asyncio.to_thread(_append, stream, path, bytes(held))
                    held.clear()
            await asyncio.to_thread(_append, stream, path, bytes(held), True)
        finally:
            with suppress(OSError):  # what a full disk did not take is still held back
                stream.close()


def _append(stream: Any, path: Path, data: bytes, is_last: bool = False) -> None:
    try:
        with writing(path):
            stream.write(data)
            if is_last:
                stream.flush()
                os.fsync(stream.fileno())
    except OutputError as error:
        raise OutputError(error.message.replace(str(path), path.name), error.hint) from error


async def _opened(request: Any) -> Any:
    return await request.multipart()


async def _options(part: Any) -> dict[str, Any]:
    text = bytearray()
    while data := await soon(part.read_chunk(MOST_OPTIONS)):
        text += data
        if len(text) > MOST_OPTIONS:
            raise Refused(413, f"the options have more than {MOST_OPTIONS} bytes")
    options = read_json(bytes(text))
    check(options, BY_UPLOAD["properties"]["options"], "options")
    return dict(options)


def read_json(data: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        Malformed: it is none.
    """
    try:
        return parse(data.decode())
    except UnicodeDecodeError as error:
        raise Malformed(f"that is no UTF-8: {error}") from None
