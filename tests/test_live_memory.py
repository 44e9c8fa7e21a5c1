"""Freed memory goes back to the system, also from the heaps of other threads. Device: CPU, Linux with glibc."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.cli_helpers import REPOSITORY, TIMEOUT

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")

HOLES = """
import ctypes, sys, threading
from pathlib import Path
from gnr_video.live.memory import give_back, share_heaps

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

def fill(size=50_000, count=1000):
    "48 MiB in buffers of which, in the end, every hundredth is kept: the heap cannot shrink from its end."
    buffers = [bytearray(b"x" * size) for _ in range(count)]
    kept.extend(buffers[99::100])

kept = []
if "share" in sys.argv:
    assert share_heaps()
for _ in range(4):
    thread = threading.Thread(target=fill)
    thread.start()
    thread.join()
before = resident()
returned = give_back()
print(before, resident(), returned)
"""


@needs_glibc
def test_freed_memory_is_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLES],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=REPOSITORY,
        check=True,
    )
    before, after, returned = done.stdout.split()
    assert returned == "True"
    assert float(before) - float(after) > 20


@needs_glibc
def test_threads_share_heaps() -> None:
    """Sixteen threads that live at once make no more heaps than are allowed."""
    code = """
import sys, threading
from pathlib import Path
from gnr_video.live.memory import share_heaps

def heaps():
    "Heaps of threads are mappings of their own: 64 MiB, so aligned, of which the end is not in use yet."
    maps = [line.split()[:2] for line in Path("/proc/self/maps").read_text().splitlines()]
    spans = [(*(int(end, 16) for end in span.split("-")), how) for span, how in maps]
    return sum(
        start % 2**26 == 0 and how == "rw-p" and rest == "---p" and end == begin and stop >= start + 2**26
        for (start, end, how), (begin, stop, rest) in zip(spans, spans[1:])
    )

if sys.argv[1] == "share":
    assert share_heaps()
everyone = threading.Barrier(17)
def work():
    buffers = [bytearray(2000) for _ in range(1000)]
    everyone.wait(60)
    everyone.wait(60)
threads = [threading.Thread(target=work, daemon=True) for _ in range(16)]
for thread in threads:
    thread.start()
everyone.wait(60)
print(heaps())
everyone.wait(60)
"""
    found = []
    for mode in ("each", "share"):
        done = subprocess.run(
            [sys.executable, "-c", code, mode],
            capture_output=True, text=True, timeout=TIMEOUT, cwd=REPOSITORY, check=True,
        )  # fmt: skip
        found.append(int(done.stdout))
    assert found[1] <= 2 < found[0]
