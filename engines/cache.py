"""Compiled engines on disk: found again by what they depend on, whole or not there, set aside when broken."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from filelock import BaseFileLock, FileLock, Timeout

from engines.errors import EngineError, GnrVideoError
from engines.files import write_atomically
from engines.paths import cache_dir

log = logging.getLogger(__name__)

T = TypeVar("T")

SHORT = {"tensorrt": "trt", "tensorrt-rtx": "rtx", "torch2trt": "t2t"}
LOCK_SECONDS = 1800.0
"""How long to wait for another process that builds the same engine."""


@dataclass(frozen=True)
class EngineKey:
    """Everything a compiled engine depends on.

    Attributes:
        part: "encoder" or "decoder"; "graphs" where one file holds all.
        size: side of the pictures, pixels; of the weights' where the engine takes any.
        precision: "fp16", "bf16", "fp32" or "int8".
        batch: pictures at a time.
        engine, version: "tensorrt", "11.4.0.106".
        sm: compute capability, "sm90"; or "cpu".
        gpu: name of the GPU; "" where an engine serves all of an `sm`.
        weights: sha256 of the weights file.
        graph: `engines.graph.GRAPH_VERSION`.
        options: whatever else changes what is built.
    """

    part: str
    size: int
    precision: str
    batch: int
    engine: str
    version: str
    sm: str
    gpu: str
    weights: str
    graph: int
    options: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """sha256 of all of it, hexadecimal."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def filename(self) -> str:
        """For instance ``gnr256-encoder-fp16-b1-trt11.4.0.106-sm90-0123456789ab.engine``."""
        tool = f"{SHORT.get(self.engine, self.engine)}{self.version}"
        return f"gnr{self.size}-{self.part}-{self.precision}-b{self.batch}-{tool}-{self.sm}-{self.digest[:12]}.engine"


@dataclass(frozen=True)
class CacheEntry:
    """A compiled engine on disk.

    Attributes:
        path: the file.
        size_bytes: of the file.
        about: its sidecar: the key's fields, "sha256", "built" (ISO 8601, UTC), "golden_psnr_db", for int8
            "float_layers" (by graph: [in float, all]), ...; empty if it has none.
    """

    path: Path
    size_bytes: int
    about: dict[str, Any] = field(default_factory=dict)


def describe(entry: CacheEntry) -> str:
    """One line about an engine: file, size, when it was built, for which crops, its PSNR from torch."""
    about = entry.about
    parts = [
        f"{entry.size_bytes / 1e6:6.1f} MB",
        datetime.fromtimestamp(entry.path.stat().st_mtime).strftime("%Y-%m-%d %H:%M"),
        str(about.get("gpu") or about.get("sm") or ""),
    ]
    if about.get("part") in ("encoder", "decoder"):  # int8 graphs take crops of any side
        parts.append(f"crops of {about['size']}x{about['size']}")
    if entry.path.parent.name == "broken":
        parts.append("broken, set aside")
    elif "golden_psnr_db" in about:
        parts.append(f"{about['golden_psnr_db']:.1f} dB")
    elif about.get("part") == "decoder":
        parts.append("not compared yet")
    if isinstance(in_float := about.get("float_layers"), dict):
        counts = ", ".join(f"{name} {kept} of {count}" for name, (kept, count) in in_float.items())
        parts.append(f"layers in float: {counts}")
    return f"{entry.path.name}  {', '.join(filter(None, parts))}"


class EngineCache:
    """A folder of compiled engines, shared by processes.

    Each file has a sidecar ``NAME.json`` that describes it and holds its hash. One process builds an engine
    while others that want it wait; a file appears under its name only when it is whole.

    Args:
        folder: None: ``engines`` in the user's cache folder.
        lock_seconds: how long to wait for another process.
        precious: whether the user is to know of a folder that cannot be written.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        lock_seconds: float = LOCK_SECONDS,
        precious: bool = True,
    ) -> None:
        self.folder = Path(folder) if folder is not None else cache_dir() / "engines"
        self.lock_seconds = lock_seconds
        self._severity = logging.WARNING if precious else logging.INFO

    def path(self, key: EngineKey) -> Path:
        return self.folder / key.filename

    def has(self, key: EngineKey) -> bool:
        """Whether it is there, as far as its name tells."""
        return self.path(key).is_file()

    def get(self, key: EngineKey, build: Callable[[], bytes], load: Callable[[bytes], T]) -> T:
        """The loaded engine: from disk, or built and stored.

        One that does not load is set aside and built anew, once.

        Args:
            build: makes the engine's bytes; may take minutes.
            load: makes the engine of its bytes; raises EngineError if it cannot.

        Raises:
            EngineError: it does not load even when fresh, or another process has been building it for too long;
                and whatever `build` raises.
        """
        with self.locked(key):
            for fresh in (False, True):
                data = None if fresh else self.read(key)
                if data is None:
                    started = time.perf_counter()
                    data, fresh = build(), True
                    self.write(key, data, seconds=round(time.perf_counter() - started, 1))
                try:
                    return load(data)
                except EngineError as error:
                    self.quarantine(self.path(key), error.message)
                    if fresh:
                        raise EngineError(
                            f"a fresh {key.engine} engine does not load: {error.message}", error.hint
                        ) from error
        raise AssertionError("unreachable")

    def read(self, key: EngineKey) -> bytes | None:
        """Bytes of an engine; None if it is not there. A damaged one is set aside."""
        path = self.path(key)
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            log.warning("%s cannot be read: %s", path, error)
            return None
        about = self.about(key)
        if about.get("sha256") != hashlib.sha256(data).hexdigest():
            self.quarantine(path, "its hash is not the one in its sidecar")
            return None
        return data

    def write(self, key: EngineKey, data: bytes, **about: Any) -> None:
        """Store an engine. A folder that cannot be written is only worth a warning."""
        facts = {
            **asdict(key),
            "sha256": hashlib.sha256(data).hexdigest(),
            "built": datetime.now(UTC).isoformat(timespec="seconds"),
            **about,
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # The sidecar first: an engine without one is taken for broken.
            write_atomically(self._sidecar(self.path(key)), json.dumps(facts, indent=2).encode())
            write_atomically(self.path(key), data)
        except (GnrVideoError, OSError) as error:
            log.log(self._severity, "the engine was built but cannot be kept: %s", error)

    def about(self, key: EngineKey) -> dict[str, Any]:
        """The sidecar of an engine; empty if there is none that can be read."""
        return self._read_sidecar(self.path(key))

    def note(self, key: EngineKey, **facts: Any) -> None:
        """Add to the sidecar of a stored engine."""
        if about := self.about(key):
            with contextlib.suppress(GnrVideoError):
                write_atomically(
                    self._sidecar(self.path(key)), json.dumps({**about, **facts}, indent=2).encode()
                )

    def quarantine(self, path: Path, reason: str) -> None:
        """Set a broken engine aside, as ``broken/NAME``; a later one of that name replaces it."""
        log.warning("%s is set aside: %s", path.name, reason)
        aside = self.folder / "broken"
        with contextlib.suppress(OSError):
            aside.mkdir(parents=True, exist_ok=True)
            for file in (path, self._sidecar(path)):
                if file.exists():
                    os.replace(file, aside / file.name)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)  # where it could not be moved

    def entries(self) -> list[CacheEntry]:
        """What is there, the latest written or used first: engines, graphs, and broken ones (in ``broken``)."""
        folders = (self.folder, self.folder / "broken")
        found = [p for folder in folders for p in folder.glob("*.engine")]
        found.sort(key=lambda p: p.stat().st_mtime, reverse=True)
        return [CacheEntry(p, p.stat().st_size, self._read_sidecar(p)) for p in found]

    def trim(self, key: EngineKey, count: int) -> None:
        """Keep this engine and the latest used of its kind, `count` in all: for what is quick to build."""
        with contextlib.suppress(OSError):
            self.path(key).touch()
            alike = [
                entry
                for entry in self.entries()
                if entry.path.parent == self.folder
                and all(
                    entry.about.get(name) == getattr(key, name) for name in ("engine", "part", "precision")
                )
            ]
            for entry in alike[count:]:
                self._delete(entry)

    def clean(self) -> tuple[int, int]:
        """Delete everything of this cache; returns the number of engines and of bytes."""
        entries = self.entries()
        for entry in entries:
            self._delete(entry)
        for pattern in ("*.timing", "*.jit"):
            for file in self.folder.glob(pattern):
                file.unlink(missing_ok=True)
        return len(entries), sum(entry.size_bytes for entry in entries)

    def _delete(self, entry: CacheEntry) -> None:
        for file in (entry.path, self._sidecar(entry.path)):
            file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self, key: EngineKey) -> Iterator[None]:
        """Hold an engine's lock, across processes and threads; the system frees it if a process dies.

        Raises:
            EngineError: another process kept it for longer than `lock_seconds`.
        """
        folder = self.folder / "locks"
        lock = FileLock(folder / f"{key.digest[:12]}.lock")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout:
            log.info("another process builds %s; waiting", key.filename)
            self._wait_for(lock, key)
        except (OSError, NotImplementedError) as error:  # read-only, or a file system without locks
            log.log(self._severity, "no locks in %s: %s", folder, error)
        try:
            yield
        finally:
            lock.release()

    def _wait_for(self, lock: BaseFileLock, key: EngineKey) -> None:
        try:
            lock.acquire(timeout=self.lock_seconds)
        except Timeout:
            raise EngineError(
                f"another process has been building {key.filename} for {self.lock_seconds:.0f} s",
                "end it, or wait for it",
            ) from None

    @staticmethod
    def _sidecar(path: Path) -> Path:
        return path.with_name(path.name + ".json")

    def _read_sidecar(self, path: Path) -> dict[str, Any]:
        try:
            about = json.loads(self._sidecar(path).read_text())
        except (OSError, ValueError):
            return {}
        return about if isinstance(about, dict) else {}
