"""How every command runs: its log levels, its errors as one line, Ctrl-C and SIGTERM as clean ends."""

from __future__ import annotations

import logging
import signal
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

from engines.errors import GnrVideoError


@contextmanager
def reported(quiet: bool, debug: bool) -> Iterator[None]:
    """Log as asked for; print one line for what the user can mend, and leave with its exit status."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # What a translation has to say stands in its summary; training has none.
    levels = {"": logging.ERROR, "gnr_video": logging.ERROR, "engines": logging.ERROR, "train": logging.INFO}
    loggers = {logging.getLogger(name): level for name, level in levels.items()}
    before = {logger: logger.level for logger in loggers}
    for logger, level in loggers.items():
        own = logging.DEBUG if debug else logging.ERROR if quiet else level
        logger.setLevel(level if logger is logging.root else own)
    try:
        with _terminable():
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
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


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
