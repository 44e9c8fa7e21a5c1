"""CUDA graphs, recorded one at a time in a process and never beside a compiler.

While a stream is recorded, CUDA lets no thread synchronise the device; TensorRT may do so while it compiles and loads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


class _Recorder:
    """Who may record now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held_off = 0

    @contextmanager
    def held_off(self) -> Iterator[None]:
        with self._lock:
            self._held_off += 1
        try:
            yield
        finally:
            with self._lock:
                self._held_off -= 1

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Whether this thread may record until the end of the block; it does not wait for its turn."""
        if not self._lock.acquire(blocking=False):
            yield False
            return
        try:
            yield not self._held_off
        finally:
            self._lock.release()


_recorder = _Recorder()


def no_recording() -> AbstractContextManager[None]:
    """No CUDA graph is recorded meanwhile; one that is being recorded is waited for. May be nested, on many threads."""
    return _recorder.held_off()


class Replayable:
    """Work on a stream: launched kernel by kernel until it could be recorded, from then on as one CUDA graph.

    Args:
        stream: of the device that is current whenever it runs.
        warm_ups: so many runs come before the recording: libraries choose their kernels in them.
        recordable: False for work that never is recorded.
    """

    def __init__(self, stream: torch.cuda.Stream, *, warm_ups: int, recordable: bool = True) -> None:
        self._stream, self._warm_ups, self._recordable = stream, warm_ups, recordable
        self._graph: torch.cuda.CUDAGraph | None = None

    def run(self, work: Callable[[], None], failed: Callable[[str], None]) -> None:
        """Enqueue it. While another thread records, compiles or loads, it is not recorded yet.

        Args:
            work: enqueues on the current stream: the same every time, in memory that stays where it is.
            failed: told, once, why it cannot be recorded; it goes on without.
        """
        if self._recordable:
            with _recorder.turn() as mine:
                if mine:
                    self._recordable = False
                    self._record(work, failed)
        if self._graph is None:
            self._launch(work)
        else:
            with torch.cuda.stream(self._stream):
                self._graph.replay()

    def _launch(self, work: Callable[[], None]) -> None:
        with torch.inference_mode(False), torch.no_grad(), torch.cuda.stream(self._stream):
            work()

    def _record(self, work: Callable[[], None], failed: Callable[[str], None]) -> None:
        try:
            # Also while it records: the kernels that cuDNN found the fastest are only looked up under this flag.
            with torch.backends.cudnn.flags(enabled=True, benchmark=True):
                for _ in range(self._warm_ups):
                    self._launch(work)
                self._stream.synchronize()
                graph = torch.cuda.CUDAGraph()
                # Outside of inference mode: torch writes to tensors of its own in every recording, which would fail
                # after a first one within. Only this thread's calls count: others may allocate memory meanwhile.
                with (
                    torch.inference_mode(False),
                    torch.no_grad(),
                    torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
                ):
                    work()
        except RuntimeError as error:
            failed(f"no CUDA graph: {str(error).strip().partition(chr(10))[0]}")
        else:
            self._graph = graph
