"""Ledger: what an output folder holds already, and a lock, in a hidden folder of it."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from engines.errors import OutputError
from engines.files import file_sha256

FOLDER = ".gnr-video"


@dataclass(frozen=True)
class Entry:
    """A translation that is done.

    Attributes:
        target: its name in the folder.
        size, mtime_ns, sha256: of its input. Where size and time are the same, the hash is taken for granted; it is ""
            as long as it is not known.
        settings: hash of everything else that decides what it looks like.
        written: bytes of the translation; another number is another file.
    """

    target: str
    size: int
    mtime_ns: int
    sha256: str
    settings: str
    written: int


class Ledger:
    """The account of one output folder, which is made; a context manager that holds the folder's lock.

    Lines are appended as translations are done, so that it is right at any moment; the last of a name counts.

    Raises:
        OutputError: another run works on the folder, or it cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / FOLDER / "done.jsonl"
        self._lock = FileLock(folder / FOLDER / "lock")
        self._aside = folder / FOLDER / "unfinished"
        self._entries: dict[str, Entry] = {}

    def __enter__(self) -> Ledger:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
        except Timeout:
            raise OutputError(
                f"another gnr-video is writing to {self.folder}", "wait for it, end it, or choose another -o"
            ) from None
        except OSError as error:
            raise OutputError(
                f"cannot write to {self.folder}: {error.strerror}", "check the folder and its permissions"
            ) from None
        self._entries = _read(self._file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._aside, ignore_errors=True)
        self._lock.release()

    def aside(self, target: Path) -> Path:
        """A place for `target` until it is whole: on the folder's disk, another at every call, and gone in the end."""
        return self._aside / uuid.uuid4().hex / target.name

    def is_done(self, source: Path, target: Path, settings: str) -> bool:
        """Whether `target` is the translation of `source`, as it is now, with these settings."""
        entry = self._entries.get(self._name(target))
        if entry is None or entry.settings != settings or not self.is_ours(target):
            return False
        found = source.stat()
        if (found.st_size, found.st_mtime_ns) == (entry.size, entry.mtime_ns):
            return True
        return found.st_size == entry.size and file_sha256(source) == entry.sha256

    def is_ours(self, target: Path) -> bool:
        """Whether `target` is what a run has written, with whatever settings."""
        entry = self._entries.get(self._name(target))
        return entry is not None and _size(target) == entry.written

    def add(self, source: Path, target: Path, settings: str, before: os.stat_result) -> None:
        """Note that `target` is done.

        Args:
            before: of `source` before it was read; one that has changed since is not noted.
        """
        if (now := source.stat()).st_mtime_ns != before.st_mtime_ns or now.st_size != before.st_size:
            return
        self._note(target, now, "", settings)  # at once: a hash takes its time, and a run may be killed in it
        self._note(target, now, file_sha256(source), settings)

    def _note(self, target: Path, source: os.stat_result, sha256: str, settings: str) -> None:
        entry = Entry(self._name(target), source.st_size, source.st_mtime_ns, sha256, settings, _size(target))
        self._entries[entry.target] = entry
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(entry)) + "\n")

    def _name(self, target: Path) -> str:
        return target.relative_to(self.folder).as_posix()


def _size(path: Path) -> int:
    """Bytes of a file, -1 where there is none; of a folder of pictures, all of theirs."""
    if path.is_dir():
        return sum(one.stat().st_size for one in path.iterdir())
    return path.stat().st_size if path.is_file() else -1


def _read(file: Path) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return entries
    for line in lines:
        try:
            entry = Entry(**json.loads(line))
        except (ValueError, TypeError):  # cut off by a crash, or of another version: done anew
            continue
        entries[entry.target] = entry
    return entries
