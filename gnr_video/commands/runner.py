"""How every command runs: its log levels, its errors as one line, Ctrl-C and other signals as clean ends."""

from __future__ import annotations

import logging
import signal
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NoReturn

import click

from engines.errors import GnrVideoError, interrupts


@contextmanager
def reported(quiet: bool, debug: bool) -> Iterator[None]:
    """Log as asked for; print one line for what the user can mend, and leave with its exit status."""
    # What a translation has to say stands in its summary; training has none.
    levels = {"gnr_video": logging.ERROR, "engines": logging.ERROR, "train": logging.INFO}
    if debug or quiet:
        levels = dict.fromkeys(levels, logging.DEBUG if debug else logging.ERROR)
    try:
        with logged(levels), _terminable(), interrupts():
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
        with suppress(OSError):  # the terminal may be gone
            kept = getattr(interrupt, "__notes__", None) or ["nothing unfinished was left behind"]
            click.echo(f"{below}stopped; {kept[0]}", err=True)
        # 128 + the signal's number, as a shell has it.
        number = interrupt.number if isinstance(interrupt, _Terminated) else signal.SIGINT
        raise click.exceptions.Exit(128 + number) from None
    except BrokenPipeError:
        raise click.exceptions.Exit(141) from None


@contextmanager
def logged(levels: Mapping[str, int]) -> Iterator[None]:
    """Messages of these loggers from their levels on, and of all others from ERROR on, to standard error.

    What is not wanted is held back here, not by the loggers: they are only opened, for as long as this lasts, and
    the root is left alone, because OpenVINO puts its level back whenever a conversion ends, on whichever thread.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    handler.addFilter(lambda record: record.levelno >= levels.get(record.name.split(".")[0], logging.ERROR))
    before = {logging.getLogger(name): logging.getLogger(name).level for name in levels}
    try:
        logging.getLogger().addHandler(handler)
        for logger in before:
            logger.setLevel(min(levels[logger.name], logger.getEffectiveLevel()))
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        for logger, level in before.items():
            logger.setLevel(level)


class _Terminated(KeyboardInterrupt):
    """A signal asked for the end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, and the end of the terminal or its window, end a run as Ctrl-C does: cleanly."""

    def stop(number: int, frame: object) -> NoReturn:
        raise _Terminated(number)

    before = {}
    try:
        for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            # nohup has the end of the terminal ignored.
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    except ValueError:  # not on the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
