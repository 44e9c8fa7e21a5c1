"""The folder of a service: its lock, its token, its database, and a folder for each job."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from engines.errors import OutputError
from gnr_video.batch.ledger import FOLDER as LEDGER
from gnr_video.serve.store import ENDED, Record, State

SOURCE, RESULT = "source", "result"
"""What is in a job's folder."""
_SHORTEST_TOKEN = 16


class Folder:
    """A folder, which is made, for this user alone; a context manager that holds its lock.

    Raises:
        OutputError: another server works in it, or it cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock = FileLock(self.path / "lock")

    def __enter__(self) -> Folder:
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._jobs.mkdir(exist_ok=True, mode=0o700)
            self._lock.acquire(blocking=False)
        except Timeout:
            raise OutputError(
                f"another gnr-video serves from {self.path}", "end it, or choose another --folder"
            ) from None
        except OSError as error:
            raise OutputError(
                f"cannot write to {self.path}: {error.strerror}", "check the folder and its permissions"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    @property
    def database(self) -> Path:
        return self.path / "jobs.sqlite3"

    @property
    def token_file(self) -> Path:
        return self.path / "token"

    def token(self) -> str:
        """What a request must hold: the same after a restart. Only this user can read its file.

        Raises:
            OutputError: the file cannot be read or written, or holds none.
        """
        try:
            if not self.token_file.exists():
                self._write_token(secrets.token_urlsafe(24))
            token = self.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeError) as error:
            raise OutputError(f"cannot use {self.token_file}: {error}", "check its permissions") from None
        if len(token) < _SHORTEST_TOKEN:
            raise OutputError(
                f"{self.token_file} holds no token of {_SHORTEST_TOKEN} letters or more",
                "delete it, and a new one is made",
            )
        return token

    def _write_token(self, token: str) -> None:
        partial = self.token_file.with_suffix(".part")
        partial.unlink(missing_ok=True)
        number = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(number, "w", encoding="ascii") as stream:
            stream.write(f"{token}\n")
        partial.replace(self.token_file)

    @property
    def _jobs(self) -> Path:
        return self.path / "jobs"

    def of(self, id: str) -> Path:
        """The folder of a job; it may not exist."""
        return self._jobs / id

    def results(self, id: str) -> Path:
        """Where a job's result is written; it may not exist."""
        return self.of(id) / RESULT

    def source(self, job: Record) -> Path:
        """The input of a job that was uploaded."""
        return self.of(job.id) / SOURCE / job.source

    def result(self, job: Record) -> Path | None:
        """The file that a job has come to; None where there is none (any more)."""
        name = job.outcome.get("result")
        path = None if name is None else self.results(job.id) / name
        return path if path is not None and path.is_file() else None

    def make(self, id: str) -> Path:
        """A new job's folder, and where its upload is put."""
        path = self.of(id) / SOURCE
        path.mkdir(mode=0o700, parents=True)
        return path

    def clear(self, id: str) -> None:
        """Remove a job's folder, as far as nobody has files of it open."""
        shutil.rmtree(self.of(id), ignore_errors=True)

    def clear_after(self, id: str, state: State) -> None:
        """Remove what a job that has ended so has no use for any more."""
        if state == "done":
            shutil.rmtree(self.of(id) / SOURCE, ignore_errors=True)
            shutil.rmtree(self.results(id) / LEDGER, ignore_errors=True)
        else:
            self.clear(id)

    def clear_others(self, jobs: Mapping[str, State]) -> None:
        """Remove what a program that ended without a word has left: all that these jobs have no use for."""
        for path in self._jobs.iterdir():
            state = jobs.get(path.name)
            if state is None:  # an upload that never ended, a job that was forgotten
                self.clear(path.name)
            elif state in ENDED:
                self.clear_after(path.name, state)

    def free_bytes(self) -> int:
        """Of the disk."""
        return shutil.disk_usage(self.path).free
