"""Files: hashed, and small ones written whole or not at all, under a temporary name beside the target, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from pathlib import Path

from engines.errors import OutputError


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write `data` to `path`, replacing what is there.

    Raises:
        OutputError: the folder does not exist, no permission, disk full.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with partial.open("wb") as stream:
            stream.write(data)
        partial.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}",
            "check the folder, its permissions and the free space",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
