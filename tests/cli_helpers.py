"""Runs the gnr-video command: in this process, or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import CliRunner

REPOSITORY = Path(__file__).resolve().parents[1]
TIMEOUT = 120
"""Seconds after which a process counts as hung: far more than it takes on a busy machine."""

# Shells start processes in the background with SIGINT ignored, nohup with SIGHUP, and Python leaves both so.
START = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "hasattr(signal, 'SIGHUP') and signal.signal(signal.SIGHUP, signal.SIG_DFL); from cli import main; "
)


class Done(NamedTuple):
    """How a command ended and what it wrote."""

    status: int
    stdout: str
    stderr: str


def call(*args: object) -> Done:
    """Run the command in this process. A bug's exception is raised, not turned into an exit status."""
    from cli import command

    try:
        runner = CliRunner(mix_stderr=False)  # type: ignore[call-arg]
    except TypeError:  # click 8.2 and later always keep them apart
        runner = CliRunner()
    result = runner.invoke(command, [str(a) for a in args], prog_name="gnr-video")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


def start(args: Sequence[object], *, before: str = "", cwd: Path | None = None, **options: Any) -> Any:
    """Start the command as a process of its own; its standard streams are pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", f"{START}{before}; main()" if before else f"{START}main()", *map(str, args)],
        stdin=options.pop("stdin", subprocess.DEVNULL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | options.pop("env", {}),
        cwd=cwd or REPOSITORY,
        **options,
    )


def run(*args: object, before: str = "", cwd: Path | None = None, **options: Any) -> Done:
    """Run the command as a process of its own, to its end."""
    process = start(args, before=before, cwd=cwd, **options)
    return finish(process)


def finish(process: Any) -> Done:
    """Wait for a process from `start`; one that hangs is killed, and the test fails."""
    try:
        stdout, stderr = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Done(process.returncode, stdout.decode(), stderr.decode())
