"""The project's exceptions (one line saying what was wrong, one hint the user can act on), and how programs end."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

THREADS = "gnr-video "
"""What the names of the project's threads begin with."""
LEAVING_SECONDS = 2.0
"""How long a program that ends waits for its threads."""


class GnrVideoError(Exception):
    """Something the user can mend. The command line prints it without a traceback.

    Args:
        message: what was wrong and what was found, one line.
        hint: what to do about it, one line (a command, an option, a place to look).
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InputError(GnrVideoError):
    """The input cannot be read: missing, not a video, truncated, no picture in it."""

    exit_code = 3


class OutputError(GnrVideoError):
    """The output cannot be written: exists already, no permission, full disk, no encoder."""

    exit_code = 4


class WeightsError(GnrVideoError):
    """A weights file or checkpoint is missing, damaged, or of another architecture."""

    exit_code = 5


class EngineError(GnrVideoError):
    """An engine that was asked for by name cannot run here."""

    exit_code = 6


class BuildCancelled(EngineError):
    """Somebody stopped the build of an engine."""


class ModelFileError(GnrVideoError):
    """A model file of MediaPipe's is missing or damaged."""

    exit_code = 7


class FaceModelError(ModelFileError):
    """The face landmark model or MediaPipe itself is missing or damaged."""


class StyleError(GnrVideoError):
    """A style does not parse, or these weights cannot encode it."""

    exit_code = 2


@contextmanager
def interrupts() -> Iterator[None]:
    """An interrupt that struck within a lock of `threading` comes out of this as itself.

    There it makes Python's own clean-up fail ("release unlocked lock"), and that error would come out in its place.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise


@contextmanager
def leaving() -> Iterator[None]:
    """The end of a program, also while a thread of its own is still within a library.

    Python ends such a thread where it comes back for the interpreter's lock; within C++ that aborts the process,
    whose work is done ("terminate called without an active exception").
    """
    try:
        yield
    except SystemExit as end:
        _leave(end.code)
        raise
    _leave(0)


def _leave(code: str | int | None) -> None:
    """Return once all threads have ended, or end the process without them."""
    until = time.monotonic() + LEAVING_SECONDS
    threads = [one for one in threading.enumerate() if one.daemon and one.name.startswith(THREADS)]
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    if not any(thread.is_alive() for thread in threads):
        return
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or nobody reads it
            stream.flush()
    os._exit(code or 0)


def exit_with(main: Callable[[], int | None]) -> NoReturn:
    """End a program with what `main` returns, or with one line for what the user can mend."""
    with leaving():
        try:
            sys.exit(main())
        except GnrVideoError as error:
            sys.exit(f"error: {error}")
