"""The head of a cluster, asked on threads: Ray waits for one that is silent, and after a minute ends the process."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from engines.errors import EngineError

log = logging.getLogger(__name__)

SILENT_SECONDS = 20.0
"""How long the head may be silent."""
TURN_SECONDS = 0.2
"""On some systems a wait without end cannot be interrupted."""


class Head:
    """The head of a cluster, of Ray's tables of machines and workers.

    Args:
        ray: the module, which has joined the cluster.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._address = ray.get_runtime_context().gcs_address
        self._is_lost = False

    def ask(self, question: Callable[[], Any]) -> Any:
        """`question()`, which waits for the head.

        Raises:
            EngineError: it has not been answered for a while, or the head was lost before.
        """
        answers: list[Any] = []
        failures: list[BaseException] = []
        ended = threading.Event()

        def run() -> None:
            try:
                answers.append(question())
            except BaseException as error:
                failures.append(error)
            ended.set()

        deadline = time.monotonic() + SILENT_SECONDS
        if not self._is_lost:
            threading.Thread(target=run, name="gnr-video cluster", daemon=True).start()
            while not ended.wait(TURN_SECONDS) and time.monotonic() < deadline:
                pass
            self._is_lost = not ended.is_set()
        if self._is_lost:
            raise EngineError(
                f"the head of the cluster at {self._address} is lost",
                "start it again, and give the same command: what is done is passed over",
            )
        if failures:
            raise failures[0]
        return answers[0]

    def leave(self) -> None:
        """Leave the cluster. To a lost head Ray would say goodbye for ever; its own processes end anyway."""
        try:
            self.ask(self._ray.shutdown)
        except EngineError as error:
            log.info("without goodbye: %s", error)
            atexit.unregister(self._ray.shutdown)
