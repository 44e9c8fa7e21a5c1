"""How a program ends while threads of its own still run (CPU)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli_helpers import REPOSITORY, TIMEOUT

BUSY = """
import sys, threading, time
import torch
from engines import errors

torch.set_num_threads(1)
errors.LEAVING_SECONDS = 0.2
begun = threading.Event()

def work():
    a = torch.rand(2000, 2000)
    begun.set()
    while True:
        a @ a  # without the interpreter's lock, which it takes back in C++

threading.Thread(target=work, name="gnr-video work", daemon=True).start()
begun.wait()
print("done")
"""
SLOW = """
import threading, time
from engines import errors

threading.Thread(target=lambda: (time.sleep(0.5), print("whole")), name="gnr-video work", daemon=True).start()
"""


def program(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text], cwd=REPOSITORY, capture_output=True, text=True, timeout=TIMEOUT
    )


@pytest.mark.parametrize(
    ("end", "status", "words"),
    [
        ("errors.exit_with(lambda: 3)", 3, ""),
        ("errors.exit_with(lambda: None)", 0, ""),
        ("with errors.leaving():\n    sys.exit('what was wrong')", 1, "what was wrong\n"),
        ("with errors.leaving():\n    pass", 0, ""),
    ],
)
def test_a_thread_within_a_library_does_not_abort_it(end: str, status: int, words: str) -> None:
    done = program(BUSY + end)
    assert (done.returncode, done.stdout, done.stderr) == (status, "done\n", words)


def test_a_thread_that_is_about_to_end_is_waited_for() -> None:
    done = program(SLOW + "errors.exit_with(lambda: 5)")
    assert (done.returncode, done.stdout, done.stderr) == (5, "whole\n", "")


def test_without_threads_an_end_is_as_ever() -> None:
    done = program(
        "import atexit; from engines import errors\natexit.register(print, 'last')\nerrors.exit_with(lambda: 4)"
    )
    assert (done.returncode, done.stdout) == (4, "last\n")
