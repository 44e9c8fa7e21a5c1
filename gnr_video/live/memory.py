"""Keeps the memory of a session flat over hours: glibc's allocator is told to give back what has been freed.

Every thread that allocates gets a heap of its own (up to eight a core), and a freed buffer stays with the heap it came
from: pictures that one thread makes and another lets go, and MediaPipe's views of changing size, leave more and more
holes there. Elsewhere than on Linux with glibc nothing of this is needed or done.
"""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache

_M_ARENA_MAX = -8  # malloc.h
ARENAS = 2


@lru_cache(maxsize=1)
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def share_heaps() -> bool:
    """From now on threads share `ARENAS` heaps; those that exist stay. False where this cannot be asked for."""
    library = _glibc()
    return library is not None and library.mallopt(_M_ARENA_MAX, ARENAS) == 1


def give_back() -> bool:
    """Hand free pages of all heaps back to the system, in a few milliseconds. True if there were any."""
    library = _glibc()
    return library is not None and library.malloc_trim(0) == 1
