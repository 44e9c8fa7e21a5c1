"""The CPU goes on where a GPU fails: out of memory, or lost in the middle of a video. No picture is lost for it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from engines.base import Crops, Engine, Fallback
from engines.errors import THREADS, BuildCancelled, EngineError
from engines.swap import give_style
from engines.weights import Weights

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class _Content:
    crops: Crops
    engine: Engine
    code: Any


class FailoverEngine(Engine):
    """Runs an engine for as long as it can, then another.

    Out of the GPU's memory, batches are halved first. Either is said once, by a warning and in `fallback`. Content
    codes stay good after the change. `name`, `precision` and `device` are those of the engine that ran last.

    Args:
        weights: of both.
        now: a working engine; it is owned from here on.
        spare: makes the other.
    """

    def __init__(self, weights: Weights, now: Engine, spare: Callable[[], Engine]) -> None:
        super().__init__(weights, device=now.device, precision=now.precision)
        self._current: Engine | None = now
        self._spare: Callable[[], Engine] | None = spare
        self._reasons: list[str] = []
        self._most = 0
        self.prepared_batches = now.prepared_batches
        self._mirror()

    def _mirror(self) -> None:
        if (current := self._current) is not None:
            self.name, self.precision, self.device = current.name, current.precision, current.device
            self.fallback = Fallback().plus(*self._reasons, current.fallback.reason)

    def _run(self, work: Callable[[Engine], T]) -> T:
        """`work` by the engine that runs, else by the spare one."""
        if self._current is None:
            raise EngineError("the engine is closed")
        try:
            with self._current._lock:
                return work(self._current)
        except (EngineError, RuntimeError) as error:
            if self._spare is None or isinstance(error, BuildCancelled):
                raise
            self._change(self._current, self._spare, error)
            return work(self._current)
        finally:
            self._mirror()

    def _change(self, failed: Engine, spare: Callable[[], Engine], error: Exception) -> None:
        self._spare, self._most = None, 0
        try:
            self._current = spare()
        except EngineError:
            raise error from None
        if self._vectors is not None:
            give_style(self._current, self._vectors)
        why = str(error).strip().partition("\n")[0]
        self._tell(
            f"{failed.name} on {failed.device} failed ({why}): {self._current.name} on the CPU went on"
        )
        # It may wait for what never comes: a lost device, a build.
        threading.Thread(
            target=_close, args=(failed,), name=f"{THREADS}closes a failed engine", daemon=True
        ).start()

    def _tell(self, reason: str) -> None:
        log.warning("%s", reason)
        self._reasons.append(reason)

    def _use_style(self, vectors: torch.Tensor) -> None:
        self._run(lambda engine: give_style(engine, vectors))

    def _translate(self, crops: Crops, vectors: torch.Tensor | None) -> Crops:
        return self._run(lambda engine: self._in_batches(engine, crops, vectors))

    def _in_batches(self, engine: Engine, crops: Crops, vectors: torch.Tensor | None) -> Crops:
        most = min(self._most or len(crops), len(crops))
        try:
            parts = [
                engine._translate(crops[at : at + most], None if vectors is None else vectors[at : at + most])
                for at in range(0, len(crops), most)
            ]
        except torch.cuda.OutOfMemoryError:
            if most == 1:
                raise
            if not self._most:
                self._tell(f"{engine.device} is short of memory: smaller batches")
            self._most = most // 2
            torch.cuda.empty_cache()
            return self._in_batches(engine, crops, vectors)
        return np.concatenate(parts)

    def _encode(self, crops: Crops) -> _Content:
        crops = crops.copy()  # the caller's may change before the code is needed
        return self._run(lambda engine: _Content(crops, engine, engine._encode(crops)))

    def _decode(self, content: _Content, vectors: torch.Tensor | None) -> Crops:
        return self._run(lambda engine: engine._decode(_code(content, engine), vectors))

    def _decode_styles(self, content: _Content, vectors: torch.Tensor) -> Crops:
        return self._run(lambda engine: engine._decode_styles(_code(content, engine), vectors))

    def _batch(self, content: Any) -> int:
        if not isinstance(content, _Content):
            raise EngineError(f"content codes of another engine: {type(content).__name__}")
        return len(content.crops)

    def _release(self) -> None:
        if self._current is not None:
            self._current.close()
            self._current = None


def with_failover(engine: Engine, weights: Weights, *, threads: int | None, side: int) -> Engine:
    """An engine on a GPU with the CPU's fastest behind it; others as they are.

    Args:
        threads, side: of the CPU's, see `engines.create`.
    """
    if not engine.device.startswith("cuda"):
        return engine
    from engines import create

    return FailoverEngine(weights, engine, lambda: create(weights, device="cpu", threads=threads, side=side))


def _code(content: _Content, engine: Engine) -> Any:
    return content.code if content.engine is engine else engine._encode(content.crops)


def _close(engine: Engine) -> None:
    with contextlib.suppress(Exception):  # nothing of it is needed any more
        engine.close()
