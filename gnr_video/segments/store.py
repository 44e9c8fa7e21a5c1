"""Store: the hidden folder beside an output in which its segments wait for the last one, and a lock."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from filelock import FileLock, Timeout

from engines.errors import OutputError
from engines.files import write_atomically
from gnr_video.media.sink import shortened
from gnr_video.pipeline import Counts
from gnr_video.segments.plan import Plan
from gnr_video.segments.written import from_json, to_json

_SAFE_NAME = 120  # bytes
_LOCK, _SETTINGS, _DELIVERY = "lock", "settings.json", "delivery.json"


@dataclass(frozen=True)
class Segment:
    """A segment that is whole.

    Attributes:
        index: its number, from 0.
        counts: what is in it.
        size: bytes of its file; 0: no frame has such a time, and there is no file.
        pts: of its pictures, in the order in which they are decoded, on the clock of its file.
        codec: the encoder.
        seconds: that it took.
        warnings: what the user should know.
        states: what the stages were like at the warm-up of the next (`Frame.note`); None: it was not reached.
        noted: whether they are in a file of their own.
    """

    index: int
    counts: Counts = field(default_factory=Counts)
    size: int = 0
    pts: tuple[int, ...] = ()
    codec: str = ""
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    states: dict[str, Any] | None = None
    noted: bool = False

    def to_json(self) -> str:
        """All but the states."""
        return json.dumps(
            {name: value for name, value in asdict(replace(self, states=None)).items() if name != "states"}
        )

    @classmethod
    def from_json(cls, text: str) -> Segment:
        """Raises ValueError, TypeError or KeyError where it is none."""
        values = json.loads(text)
        values |= {"counts": Counts(**values["counts"])}
        return cls(**{**values, "pts": tuple(values["pts"]), "warnings": tuple(values["warnings"])})


class Store:
    """The segments of one output. A context manager that holds its lock, and leaves no folder with nothing in it.

    A segment counts when its file is whole and on the disk, so that it is right at any moment; what is under way has a
    temporary name.

    Args:
        target: the output.

    Attributes:
        folder: where the segments are.
        done: those that are whole, by number.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.folder = folder_of(target)
        self._lock = FileLock(self.folder / _LOCK)
        self._begun = False
        self.done: dict[int, Segment] = {}

    def __enter__(self) -> Store:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
            self.folder.mkdir(exist_ok=True)  # whoever held the lock may have removed it
        except Timeout:
            raise OutputError(
                f"another gnr-video is writing {self.target}", "wait for it, end it, or choose another -o"
            ) from None
        except OSError as error:
            raise OutputError(
                f"cannot write to {self.target.parent}: {error.strerror}",
                "check the folder and its permissions",
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._begun and not self.done:
            self.clear()
        # Locked, so that nobody can have begun anew in between; Windows removes no file that is open.
        if sys.platform != "win32":
            self._drop()
        self._lock.release()
        if sys.platform == "win32":
            self._drop()

    def begin(self, settings: dict[str, str], plan: Plan) -> list[str]:
        """Take up what is there, if it was made of the same with the same settings; else throw it away.

        Args:
            settings: name -> the same where it is the same: what decides what segments look like.

        Returns:
            The names of those that have changed; none where there was nothing, or all goes on.
        """
        self._begun = True
        file = self.folder / _SETTINGS
        before: Any = None
        with suppress(OSError, ValueError):
            before = json.loads(file.read_text(encoding="utf-8"))
        if before != settings:
            had_some = isinstance(before, dict) and any(self._read(plan))
            self.clear()
            write_atomically(file, json.dumps(settings).encode())
            return [name for name in settings if before.get(name) != settings[name]] if had_some else []
        self.done = {segment.index: segment for segment in self._read(plan)}
        for index in sorted(self.done, reverse=True):
            is_last = index + 1 not in self.done
            if is_last and self.done[index].noted and self.states(index) is None:
                del self.done[index]  # the next could not go on from it
        return []

    def take_up(self, settings: dict[str, str], plan: Plan, say: Callable[[str], None]) -> int:
        """`begin`, and say what becomes of segments that are there; how many count."""
        if changed := self.begin(settings, plan):
            say(f"starting over: {changed[0]} changed since the last run")
        if kept := len(self.done):
            say(f"going on: {kept} of {plan.count} segments are there")
        return kept

    def add(self, segment: Segment, plan: Plan) -> None:
        """Note that a segment is whole."""
        if segment.size:
            with plan.file(self.folder, segment.index).open("rb+") as stream:
                os.fsync(stream.fileno())
        segment, states = replace(segment, states=None, noted=segment.states is not None), segment.states
        if states is not None:
            packed = zlib.compress(json.dumps(to_json(states)).encode(), 1)
            write_atomically(self.folder / f"{segment.index:05}.states", packed)
        write_atomically(self.folder / f"{segment.index:05}.json", segment.to_json().encode())
        self.done[segment.index] = segment

    def states(self, index: int) -> dict[str, Any] | None:
        """What the stages were like at the warm-up of the segment after this one; None where it is not known."""
        try:
            packed = (self.folder / f"{index:05}.states").read_bytes()
            return cast(dict[str, Any], from_json(json.loads(zlib.decompress(packed))))
        except (OSError, ValueError, KeyError, TypeError, zlib.error):
            return None

    def missing(self, plan: Plan) -> Iterator[range]:
        """The segments to be made, those in a row together."""
        index = 0
        while index < plan.count:
            end = next((i for i in range(index, plan.count) if i in self.done), plan.count)
            if end > index:
                yield range(index, end)
            index = end + 1

    @property
    def counts(self) -> Counts:
        """What is in the segments that are whole."""
        return sum((segment.counts for segment in self.done.values()), Counts())

    def deliver(self, joined: Path) -> None:
        """Give the whole its name, and remove all else."""
        found = joined.stat()
        write_atomically(self.folder / _DELIVERY, json.dumps([found.st_size, found.st_mtime_ns]).encode())
        os.replace(joined, self.target)
        self.clear()

    def clear(self) -> None:
        """Remove everything but the lock."""
        self.done = {}
        with suppress(OSError):
            (self.folder / _SETTINGS).unlink(missing_ok=True)  # first: without it nothing else counts
            for one in self.folder.iterdir():
                if one.name != _LOCK:
                    shutil.rmtree(one) if one.is_dir() else one.unlink()

    def _drop(self) -> None:
        with suppress(OSError):
            if [one.name for one in self.folder.iterdir()] == [_LOCK]:
                (self.folder / _LOCK).unlink()
            self.folder.rmdir()

    def _read(self, plan: Plan) -> Iterator[Segment]:
        for index in range(plan.count):
            with suppress(OSError, ValueError, KeyError, TypeError):  # cut off by a crash: made anew
                segment = Segment.from_json((self.folder / f"{index:05}.json").read_text(encoding="utf-8"))
                if not segment.size or plan.file(self.folder, index).stat().st_size == segment.size:
                    yield segment


def folder_of(target: Path) -> Path:
    """The hidden folder of an output."""
    name, mark = target.name, ""
    if len(os.fsencode(name)) > _SAFE_NAME:
        mark = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
        name = shortened(name, _SAFE_NAME)
    return target.with_name(f".{name}{mark}.segments")


def tidy(target: Path, *, all_of_it: bool = False) -> None:
    """Remove what a run left that was killed when its output was finished.

    Args:
        all_of_it: also segments that wait for a run that goes on.
    """
    if not target.name or not os.path.isdir(
        folder := folder_of(target)
    ):  # unlike pathlib's, whatever the name
        return
    with suppress(OSError, ValueError, OutputError), Store(target) as store:  # it may be somebody else's
        is_finished = not (folder / _SETTINGS).exists()
        if (delivery := folder / _DELIVERY).exists() and target.is_file():
            found = target.stat()
            is_finished |= json.loads(delivery.read_text()) == [found.st_size, found.st_mtime_ns]
        if is_finished or all_of_it:
            store.clear()
