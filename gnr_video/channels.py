"""Threads and what joins them: bounded queues, slots that keep only the newest, and work that can be left waiting."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

DEPTH = 2
"""Items a channel holds: enough to keep both sides busy, few enough for 4K frames."""

TURN_SECONDS = 0.2
"""On some systems a wait without end cannot be interrupted."""


class LeftWaiting(Exception):
    """Work has taken too long, and is left to itself."""


def interruptibly(
    work: Callable[[], T],
    thread_name: str,
    *,
    seconds: float = math.inf,
    undo: Callable[[], object] = lambda: None,
) -> T:
    """`work()` on a thread of its own, because Ctrl-C is not heard inside foreign code that waits.

    Interrupted, or not done after `seconds`, it is left to itself; `undo()` is called if it ever succeeds.

    Raises:
        LeftWaiting: it was not done in time.
    """
    ended, lock = threading.Event(), threading.Lock()
    results: list[T] = []
    failures: list[BaseException] = []
    abandoned = False

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            failures.append(error)
        with lock:
            ended.set()
            if abandoned and results:
                undo()

    deadline = time.monotonic() + seconds
    try:
        threading.Thread(target=run, name=thread_name, daemon=True).start()
        while not ended.wait(TURN_SECONDS):
            if time.monotonic() >= deadline:
                raise LeftWaiting(thread_name)
    except BaseException:
        with lock:
            abandoned = True
            if results:
                undo()
        raise
    if failures:
        raise failures[0]
    return results[0]


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


class Cancelled(Exception):
    """The consumer has gone; the producer should stop."""


class Channel(Generic[T]):
    """Bounded queue from one thread to another that also carries the end, a failure, and a cancellation."""

    def __init__(self, depth: int = DEPTH) -> None:
        self._items: deque[T] = deque()
        self._depth = depth
        self._changed = threading.Condition()
        self._ended = False
        self._cancelled = False
        self._failure: BaseException | None = None

    def put(self, item: T) -> None:
        """Wait for room and append. Raises `Cancelled` once the consumer has gone."""
        with self._changed:
            while len(self._items) >= self._depth and not self._cancelled:
                self._changed.wait()
            if self._cancelled:
                raise Cancelled
            self._items.append(item)
            self._changed.notify_all()

    def end(self, failure: BaseException | None = None) -> None:
        """No more items; `failure` is raised in the consumer, after the items before it."""
        with self._changed:
            self._ended = True
            self._failure = failure
            self._changed.notify_all()

    def cancel(self) -> None:
        """The consumer wants no more."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()

    def get(self) -> T:
        """Wait for the next item.

        Raises:
            StopIteration: there are no more.
            Cancelled: `cancel` was called.
            BaseException: what the producer failed with.
        """
        with self._changed:
            while not (self._items or self._ended or self._cancelled):
                # A time-out lets Ctrl-C through on systems where a plain wait cannot be interrupted.
                self._changed.wait(0.5)
            if self._cancelled:
                raise Cancelled
            if not self._items:
                if self._failure is not None:
                    raise self._failure
                raise StopIteration
            item = self._items.popleft()
            self._changed.notify_all()
        return item


class Threaded(Iterator[T]):
    """Run a generator on a thread of its own, up to `depth` items ahead; same items, same exceptions.

    The thread starts with the first item that is asked for. It ends, and closes `stage`, when `stage` ends
    or raises, and after `close`, which must be called.
    """

    def __init__(self, stage: Generator[T, None, None], name: str, depth: int = DEPTH) -> None:
        self._stage = stage
        self._channel: Channel[T] = Channel(depth)
        self._thread = threading.Thread(target=self._work, name=f"gnr-video {name}", daemon=True)

    def _work(self) -> None:
        failure: BaseException | None = None
        try:
            for item in self._stage:
                self._channel.put(item)
        except Cancelled:
            pass
        except BaseException as error:
            failure = error
        try:
            self._stage.close()
        except BaseException as error:
            failure = failure or error
        self._channel.end(failure)

    def __next__(self) -> T:
        if self._thread.ident is None:
            self._thread.start()
        return self._channel.get()

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def cancel(self) -> None:
        """Tell the thread and its consumer to stop, without waiting for them."""
        self._channel.cancel()

    def close(self, timeout: float | None = None) -> None:
        """Stop the thread and wait for it, at most `timeout` seconds. May be called twice."""
        self.cancel()
        if self._thread.ident is None:
            self._stage.close()
        else:
            self._thread.join(timeout)
