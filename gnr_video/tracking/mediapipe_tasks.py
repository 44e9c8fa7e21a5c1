"""MediaPipe's tasks: importing them, their errors in words, and their chatter kept off the terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

from engines.errors import FaceModelError
from engines.installation import pip_install

log = logging.getLogger(__name__)

ON_ARM = sys.platform == "linux" and platform.machine() == "aarch64"
REQUIREMENT = "mediapipe>=1.2,<1.3" if ON_ARM else "mediapipe>=0.10.30,<0.10.32"
"""That of pyproject.toml for this machine."""

_warned_of_metrics = False


def import_mediapipe() -> tuple[Any, Any]:
    """(the vision tasks, mediapipe itself)."""
    global _warned_of_metrics
    try:
        with quiet_stderr():
            import mediapipe
            from mediapipe.tasks.python import vision
    except (ImportError, OSError) as error:
        raise explained(error) from error
    version = tuple(int(n) for n in re.findall(r"\d+", getattr(mediapipe, "__version__", "0"))[:3])
    if version >= (0, 10, 35) and not _warned_of_metrics:
        _warned_of_metrics = True
        log.warning(
            "mediapipe %s sends usage metrics to play.googleapis.com and has no switch for it: see gnr-video doctor",
            mediapipe.__version__,
        )
    return vision, mediapipe


def explained(error: Exception, what: str = "'s face landmarker") -> FaceModelError:
    """What keeps MediaPipe (its part `what`) from starting, and what to do."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if re.search(r"lib(EGL|GLES|GL)", text):
        return FaceModelError(
            f"MediaPipe needs a system library that is missing: {text}",
            "sudo apt-get install libegl1 libgles2",
        )
    if isinstance(error, ImportError):
        return FaceModelError(f"MediaPipe cannot be imported: {text}", pip_install(REQUIREMENT))
    return FaceModelError(f"MediaPipe{what} does not start: {text}", "gnr-video doctor says more")


_CHATTER = re.compile(
    rb"WARNING: (All log messages before absl|Logging before InitGoogle)|[IW]\d{4} \d\d:\d\d"
    rb"|INFO: Created TensorFlow Lite"
)
_stderr_lock = threading.Lock()


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep MediaPipe's native log lines off the terminal while a graph is built.

    Its library obeys none of the logging variables (GLOG_minloglevel, TF_CPP_MIN_LOG_LEVEL), so the file
    descriptor itself is turned aside; whatever is not such chatter is written on afterwards.
    """
    with _stderr_lock, contextlib.ExitStack() as stack:
        try:
            spare = os.dup(2)
        except OSError:
            spare = -1
        if spare < 0:
            yield
            return
        stack.callback(os.close, spare)
        aside = stack.enter_context(tempfile.TemporaryFile())
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            if sys.stderr is not None:
                sys.stderr.flush()
            os.dup2(spare, 2)
            aside.seek(0)
            for line in aside:
                if _CHATTER.match(line):
                    log.debug("mediapipe: %s", line.decode(errors="replace").rstrip())
                else:
                    os.write(2, line)
