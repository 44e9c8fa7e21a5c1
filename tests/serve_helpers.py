"""A service for tests: the real server and worker in this process, a real client, and a gate before the network."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gnr_video.options import EngineOptions
from gnr_video.serve.run import ServeOptions, Serving, serving
from gnr_video.serve.store import ENDED
from tests.live_helpers import until

aiohttp = pytest.importorskip("aiohttp", reason="needs aiohttp")

LONG = 120.0
"""Seconds after which what a busy machine does has not happened."""
QUICK = {"paste": "crop", "end": 0.2}
"""Options with which the clip of the fixtures is four frames."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.data)


@contextmanager
def service(weights: Path, folder: Path, **options: Any) -> Iterator[Serving]:
    """One that runs, on a free port."""
    chosen = ServeOptions(
        host="127.0.0.1:0",
        folder=folder,
        weights=str(weights),
        engine=EngineOptions("torch", precision="fp32"),
        **options,
    )
    with serving(chosen) as running:
        yield running


def at_rest(running: Serving) -> None:
    """Wait until all jobs have ended."""
    until(lambda: all(state in ENDED for state in running.store.states().values()), LONG)


class Gate:
    """Before the network of a service: while it is shut, no frame gets through."""

    def __init__(self, running: Serving) -> None:
        self._engine = running.worker._translator.engine
        self._translate = self._engine.translate
        self._open = threading.Event()

    def __enter__(self) -> Gate:
        def translate(*args: Any) -> Any:
            assert self._open.wait(LONG), "the gate was not opened"
            return self._translate(*args)

        self._engine.translate = translate  # type: ignore[method-assign]
        return self

    def open(self) -> None:
        self._open.set()

    def __exit__(self, *_: object) -> None:
        self.open()
        self._engine.translate = self._translate  # type: ignore[method-assign]


class Client:
    """A program that uses a service."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url.rstrip("/"), token

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> Answer:
        async def go() -> Answer:
            async with (
                aiohttp.ClientSession() as http,
                http.request(
                    method, self.url + path, headers={**self.headers, **(headers or {})}, **options
                ) as answer,
            ):
                return Answer(answer.status, dict(answer.headers), await answer.read())

        return asyncio.run(asyncio.wait_for(go(), LONG))

    def upload(self, file: Path | bytes, name: str = "", **options: Any) -> Answer:
        """Submit a file; `options` are the job's."""
        form = aiohttp.FormData(quote_fields=False)  # names as curl and browsers send them
        if options:
            form.add_field("options", json.dumps(options), content_type="application/json")
        data = file if isinstance(file, bytes) else file.read_bytes()
        form.add_field("file", data, filename=name or getattr(file, "name", "clip.mp4"))
        return self.ask("POST", "/jobs", data=form)

    def submit(self, path: Path | str, **options: Any) -> Answer:
        return self.ask("POST", "/jobs", json={"path": str(path), "options": options})

    def job(self, id: str) -> Any:
        return self.ask("GET", f"/jobs/{id}").json

    def ended(self, id: str) -> Any:
        """The job, once it has ended."""
        return until(lambda: (job := self.job(id))["state"] in ENDED and job, LONG)

    def events(self, id: str) -> list[tuple[str, Any]]:
        """(name, data) of all server-sent events."""
        text = self.ask("GET", f"/jobs/{id}/events").data.decode()
        events = []
        for block in filter(None, text.split("\n\n")):
            if not block.startswith(":"):
                name, data = block.split("\n")
                events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
        return events
