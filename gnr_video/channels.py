"""Threads and what joins them: bounded queues, and slots that keep only the newest."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """A slot between two threads that keeps the newest `depth` items; older ones are dropped and counted."""

    def __init__(self, depth: int = 1) -> None:
        self._items: deque[T] = deque()
        self._depth = depth
        self._changed = threading.Condition()
        self.closed = False
        self.dropped = 0

    def put(self, item: T) -> None:
        """Never waits. After `close` nothing is taken any more."""
        with self._changed:
            if self.closed:
                return
            if len(self._items) == self._depth:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._changed.notify()

    def get(self, timeout: float | None = None) -> T | None:
        """The oldest item kept; None when there was none for `timeout` seconds, or none is left after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self.closed, timeout)
            return self._items.popleft() if self._items else None

    def close(self) -> None:
        """No more items; whoever waits gets None. What is in the slot can still be taken."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._items)
