"""How every command runs: its log levels, its errors as one line, Ctrl-C and SIGTERM as clean ends."""

from __future__ import annotations

import logging
import signal
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

import click

from engines.errors import GnrVideoError


@contextmanager
def reported(quiet: bool, debug: bool) -> Iterator[None]:
    """Log as asked for; print one line for what the user can mend, and leave with its exit status."""
    # What a translation has to say stands in its summary; training has none.
    levels = {"gnr_video": logging.ERROR, "engines": logging.ERROR, "train": logging.INFO}
    if debug or quiet:
        levels = dict.fromkeys(levels, logging.DEBUG if debug else logging.ERROR)
    try:
        with log_levels({"": logging.ERROR, **levels}), _terminable():
            yield
    except GnrVideoError as error:
        if debug:
            raise
        click.secho(f"error: {error.message}", fg="red", err=True)
        if error.hint:
            click.echo(textwrap.indent(error.hint, "  "), err=True)
        raise click.exceptions.Exit(error.exit_code) from None
    except KeyboardInterrupt as interrupt:
        below = "\n" if sys.stderr.isatty() else ""  # the terminal has written ^C
        click.echo(f"{below}stopped; nothing unfinished was left behind", err=True)
        # 128 + the signal's number, as a shell has it.
        number = signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT
        raise click.exceptions.Exit(128 + number) from None
    except BrokenPipeError:
        raise click.exceptions.Exit(141) from None


@contextmanager
def log_levels(levels: Mapping[str, int]) -> Iterator[None]:
    """Loggers ("": the root's) at other levels, messages on standard error; all is put back at the end.

    Nothing else in the commands sets a level.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    before = {name: logging.getLogger(name).level for name in levels}
    try:
        if not root.handlers:  # a program around this one has its own way
            root.addHandler(handler)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        yield
    finally:
        root.removeHandler(handler)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


class _Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: cleanly."""

    def stop(*_: object) -> NoReturn:
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not on the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
