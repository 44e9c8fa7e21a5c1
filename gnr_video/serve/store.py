"""The jobs, in SQLite: what they are, which is next, what became of them. Whatever ends the program, none is lost."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from engines.errors import GnrVideoError, OutputError

State = Literal["queued", "running", "cancelling", "done", "failed", "cancelled"]
STATES: tuple[State, ...] = ("queued", "running", "cancelling", "done", "failed", "cancelled")
AT_WORK = ("running", "cancelling")
ENDED = ("done", "failed", "cancelled")
MOST_STARTS = 3
"""So often a job may take the program down with it."""
_VERSION = 1
_SCHEMA = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    name TEXT NOT NULL,
    source TEXT NOT NULL,
    is_upload INTEGER NOT NULL,
    options TEXT NOT NULL,
    asked_of TEXT NOT NULL,
    created REAL NOT NULL,
    made_by TEXT,
    started REAL,
    ended REAL,
    starts INTEGER NOT NULL DEFAULT 0,
    outcome TEXT NOT NULL DEFAULT '{}',
    bytes INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX jobs_by_state ON jobs (state, number);
"""


class QueueFull(GnrVideoError):
    """So many jobs wait that no more are taken."""


class Busy(GnrVideoError):
    """A job is in a state that does not allow what was asked for."""


@dataclass(frozen=True)
class NewJob:
    """What is known of a job when it comes.

    Attributes:
        id: hexadecimal.
        name: of the input, for people.
        source: the input's path; of an upload within the job's folder.
        options: of the form of `job_options.OPTIONS`.
        asked_of: which server it was given to, see `worker.identity`.
    """

    id: str
    name: str
    source: str
    is_upload: bool
    options: Mapping[str, Any]
    asked_of: Mapping[str, str]


@dataclass(frozen=True)
class Record(NewJob):
    """A job as it stands.

    Attributes:
        number: jobs are numbered as they come.
        created, started, ended: seconds since 1970.
        made_by: the server that began it last.
        starts: how often it was begun and neither ended nor put back.
        outcome: "message", "warnings", "frames", "result": what came of it.
        bytes: of its result.
    """

    number: int
    state: State
    created: float
    made_by: Mapping[str, str] | None
    started: float | None
    ended: float | None
    starts: int
    outcome: Mapping[str, Any]
    bytes: int


class Store:
    """The jobs of one folder. A context manager; may be used by several threads.

    Args:
        file: of the database; it is made.

    Raises:
        OutputError: it cannot be used; so every method, where the disk is full.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.RLock()
        with self._reported():
            file.touch(mode=0o600)
            self._db = sqlite3.connect(file, timeout=10, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        try:
            self._open()
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        with self._reported():
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")  # a job that was taken outlasts a power cut
            (found,) = self._db.execute("PRAGMA user_version").fetchone()
            if found == 0:
                self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        if found > _VERSION:
            raise OutputError(
                f"{self._file} was written by a newer gnr-video", "use that one, or another --folder"
            )

    def close(self) -> None:
        """May be called twice."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- what clients ask for

    def add(self, job: NewJob, most: int) -> Record:
        """A new job, at the end of the queue.

        Args:
            most: jobs that may wait.

        Raises:
            QueueFull: as many do.
        """
        with self._writing():
            self._check_room(most)
            self._db.execute(
                "INSERT INTO jobs (id, state, name, source, is_upload, options, asked_of, created) "
                "VALUES (?, 'queued', ?, ?, ?, ?, ?, ?)",
                (
                    job.id,
                    job.name,
                    job.source,
                    job.is_upload,
                    json.dumps(job.options),
                    json.dumps(job.asked_of),
                    time.time(),
                ),
            )
            return self._known(job.id)

    def check_room(self, most: int) -> None:
        """Raise QueueFull where `add` would."""
        with self._reading():
            self._check_room(most)

    def get(self, id: str) -> Record | None:
        with self._reading():
            row = self._db.execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone()
        return None if row is None else _record(row)

    def page(self, limit: int, before: int | None = None, state: str | None = None) -> list[Record]:
        """Jobs, the newest first.

        Args:
            before: only those with lower numbers.
            state: only those in it.
        """
        wanted, values = ["1"], list[Any]()
        if before is not None:
            wanted, values = ["number < ?"], [before]
        if state is not None:
            wanted, values = [*wanted, "state = ?"], [*values, state]
        query = f"SELECT * FROM jobs WHERE {' AND '.join(wanted)} ORDER BY number DESC LIMIT ?"
        with self._reading():
            return [_record(row) for row in self._db.execute(query, (*values, limit))]

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        with self._reading():
            found = dict(self._db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
        return {state: found.get(state, 0) for state in STATES}

    def kept_bytes(self) -> int:
        """Of all results."""
        with self._reading():
            (total,) = self._db.execute("SELECT coalesce(sum(bytes), 0) FROM jobs").fetchone()
        return int(total)

    def cancel(self, id: str) -> Record | None:
        """A job that waits is cancelled; one at work is "cancelling" until `end` is told. None: there is none.

        Raises:
            Busy: it has ended.
        """
        with self._writing():
            if (job := self._found(id)) is None:
                return None
            if job.state in ENDED:
                raise Busy(f"the job is {job.state} already")
            if job.state == "queued":
                self._end(id, "cancelled", {"message": "cancelled before it began"}, 0)
            else:
                self._db.execute("UPDATE jobs SET state = 'cancelling' WHERE id = ?", (id,))
            return self._known(id)

    def remove(self, id: str) -> bool:
        """Forget a job; whether there was one.

        Raises:
            Busy: it is at work.
        """
        with self._writing():
            if (job := self._found(id)) is None:
                return False
            if job.state in AT_WORK:
                raise Busy(f"the job is {job.state}", "cancel it, and delete it once it is cancelled")
            self._db.execute("DELETE FROM jobs WHERE id = ?", (id,))
            return True

    # -- what the worker says

    def take(self, made_by: Mapping[str, str]) -> Record | None:
        """The job that has waited longest, from now on running; None where none waits."""
        with self._reading():
            row = self._db.execute(
                "SELECT id FROM jobs WHERE state = 'queued' ORDER BY number LIMIT 1"
            ).fetchone()
        if row is None:
            return None
        with self._writing():
            changed = self._db.execute(
                "UPDATE jobs SET state = 'running', made_by = ?, started = ?, starts = starts + 1 "
                "WHERE id = ? AND state = 'queued'",
                (json.dumps(made_by), time.time(), row["id"]),
            ).rowcount
            return self._known(row["id"]) if changed else None

    def end(self, id: str, state: State, outcome: Mapping[str, Any], size: int = 0) -> Record:
        """A job at work has ended; one that was to be cancelled is so, whatever came of it."""
        with self._writing():
            if self._known(id).state == "cancelling":
                state, outcome, size = "cancelled", {"message": "cancelled"}, 0
            self._end(id, state, outcome, size)
            return self._known(id)

    def put_back(self, id: str) -> Record:
        """A job at work waits again, before all others; one that was to be cancelled is cancelled."""
        with self._writing():
            if self._known(id).state == "cancelling":
                self._end(id, "cancelled", {"message": "cancelled"}, 0)
            else:
                self._db.execute(
                    "UPDATE jobs SET state = 'queued', started = NULL, starts = starts - 1 WHERE id = ?",
                    (id,),
                )
            return self._known(id)

    def recover(self) -> list[Record]:
        """After a program that ended without a word: its job waits again, unless it is to blame.

        Returns:
            Those that have ended by this.
        """
        with self._writing():
            rows = self._db.execute("SELECT * FROM jobs WHERE state IN ('running', 'cancelling')").fetchall()
            ended = []
            for job in map(_record, rows):
                if job.state == "cancelling":
                    self._end(job.id, "cancelled", {"message": "cancelled"}, 0)
                elif job.starts >= MOST_STARTS:
                    message = f"gnr-video ended without a word {job.starts} times while it was at this job"
                    self._end(job.id, "failed", {"message": message}, 0)
                else:
                    self._db.execute(
                        "UPDATE jobs SET state = 'queued', started = NULL WHERE id = ?", (job.id,)
                    )
                    continue
                ended.append(self._known(job.id))
            return ended

    def forget(self, before: float, most_bytes: int) -> list[str]:
        """Forget jobs that ended before a time, and the oldest results while all have more than so many bytes.

        Returns:
            Their ids.
        """
        with self._writing():
            rows = self._db.execute(
                "SELECT id, ended, bytes FROM jobs WHERE state IN ('done', 'failed', 'cancelled') ORDER BY ended"
            ).fetchall()
            total = sum(row["bytes"] for row in rows)
            gone = []
            for row in rows:
                if row["ended"] < before or (total > most_bytes and row["bytes"]):
                    gone.append(row["id"])
                    total -= row["bytes"]
            self._db.executemany("DELETE FROM jobs WHERE id = ?", [(id,) for id in gone])
            return gone

    def states(self) -> dict[str, State]:
        """Of all jobs, by their ids."""
        with self._reading():
            return {row["id"]: row["state"] for row in self._db.execute("SELECT id, state FROM jobs")}

    # --

    def _found(self, id: str) -> Record | None:
        row = self._db.execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone()
        return None if row is None else _record(row)

    def _known(self, id: str) -> Record:
        found = self._found(id)
        assert found is not None, f"job {id} is gone"
        return found

    def _check_room(self, most: int) -> None:
        (waiting,) = self._db.execute("SELECT count(*) FROM jobs WHERE state = 'queued'").fetchone()
        if waiting >= most:
            raise QueueFull(f"{waiting} jobs wait already, the most that may", "come again later")

    def _end(self, id: str, state: State, outcome: Mapping[str, Any], size: int) -> None:
        self._db.execute(
            "UPDATE jobs SET state = ?, outcome = ?, bytes = ?, ended = ? WHERE id = ?",
            (state, json.dumps(outcome), size, time.time(), id),
        )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, self._reported():
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """All of it or nothing."""
        with self._lock, self._reported():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Errors of SQLite as one line."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise OutputError(
                f"cannot use {self._file}: {error}", "check the folder, its permissions and the free space"
            ) from error


def _record(row: sqlite3.Row) -> Record:
    values = dict(row)
    for name in ("options", "asked_of", "made_by", "outcome"):
        values[name] = None if values[name] is None else json.loads(values[name])
    return Record(**values | {"is_upload": bool(values["is_upload"])})
