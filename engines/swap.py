"""One engine now, a better one when it is built: frames do not wait for a compiler."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engines.base import Crops, Engine, Fallback
from engines.errors import EngineError
from engines.weights import Weights

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Cancelled = Callable[[], bool]
"""Asked now and then by a build: whether nobody wants it any more."""

JOIN_SECONDS = 10.0


@dataclass(frozen=True)
class _Content:
    engine: Engine
    code: Any


class SwapEngine(Engine):
    """Runs `now` until `build` has made its successor, then that one, from one picture to the next.

    `name`, `precision` and `device` are those of the engine that runs. A build that fails changes nothing but
    `fallback`. Content codes belong to the engine that made them and stay good after the change.

    Args:
        weights: of both.
        now: a working engine; it is owned from here on.
        build: makes the successor, on a thread of its own.
        waiting: `fallback` until then.
        side: of the crops that the successor is warmed up for before it takes over; None: the weights' size. It
            compiles for others when the first such crop comes, and that one waits.
    """

    def __init__(
        self,
        weights: Weights,
        now: Engine,
        build: Callable[[Cancelled], Engine],
        waiting: str = "",
        *,
        side: int | None = None,
    ) -> None:
        super().__init__(weights, device=now.device, precision=now.precision)
        self.name = now.name
        self.fallback = Fallback(waiting).plus(now.fallback.reason)
        self._side = side
        self._current: Engine | None = now
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._build, args=(build,), name="gnr-video engine build", daemon=True
        )
        self._thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the build to end, one way or the other; False if it has not by then."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _build(self, build: Callable[[Cancelled], Engine]) -> None:
        try:
            successor = build(self._stop.is_set)
            vectors = self._vectors
            if vectors is not None:
                give_style(successor, vectors)
            successor.warm_up(self._side)
        except Exception as error:  # whatever it is, the engine that runs goes on
            if not self._stop.is_set():
                log.warning("the engine that was to follow %s cannot be built: %s", self.name, error)
                self.fallback = self.fallback.plus(str(error))
            return
        with self._lock:
            if self._current is None:
                successor.close()
                return
            if self._vectors is not None and self._vectors is not vectors:
                give_style(successor, self._vectors)
            log.info("engine %s takes over from %s", successor.name, self.name)
            self._current = successor
            self.name, self.precision, self.device = successor.name, successor.precision, successor.device
            self.fallback = successor.fallback

    def _engine(self) -> Engine:
        if self._current is None:
            raise EngineError("the engine is closed")
        return self._current

    def _use_style(self, vectors: torch.Tensor) -> None:
        give_style(self._engine(), vectors)

    def _encode(self, crops: Crops) -> _Content:
        engine = self._engine()
        return _Content(engine, engine._encode(crops))

    def _decode(self, content: _Content, vectors: torch.Tensor | None) -> Crops:
        if vectors is None and content.engine is not self._current:
            assert self._vectors is not None
            vectors = self._vectors.expand(self._batch(content), -1)
        return content.engine._decode(content.code, vectors)

    def _decode_styles(self, content: _Content, vectors: torch.Tensor) -> Crops:
        return content.engine._decode_styles(content.code, vectors)

    def _translate(self, crops: Crops, vectors: torch.Tensor | None) -> Crops:
        return self._engine()._translate(crops, vectors)

    def _batch(self, content: Any) -> int:
        if not isinstance(content, _Content):
            raise EngineError(f"content codes of another engine: {type(content).__name__}")
        return content.engine._batch(content.code)

    def close(self) -> None:
        self._stop.set()
        super().close()
        if self._thread is not threading.current_thread():
            self._thread.join(JOIN_SECONDS)

    def _release(self) -> None:
        if self._current is not None:
            self._current.close()
            self._current = None


def give_style(engine: Engine, vectors: torch.Tensor) -> None:
    """Make style vectors, float32 CPU (1, V), the style of an engine that another one stands before."""
    with engine._lock:
        engine._vectors = vectors
        engine._use_style(vectors)
