"""The head of a cluster, asked on threads: Ray waits for one that is silent, and after a minute ends the process."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable
from typing import Any

from engines.errors import EngineError
from gnr_video.channels import LeftWaiting, interruptibly

log = logging.getLogger(__name__)

SILENT_SECONDS = 20.0
"""How long the head may be silent."""


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
        try:
            if not self._is_lost:
                return interruptibly(question, "gnr-video cluster", seconds=SILENT_SECONDS)
        except LeftWaiting:
            self._is_lost = True
        raise EngineError(
            f"the head of the cluster at {self._address} is lost",
            "start it again, and give the same command: what is done is passed over",
        )

    def leave(self) -> None:
        """Leave the cluster. To a lost head Ray would say goodbye for ever; its own processes end anyway."""
        try:
            self.ask(self._ray.shutdown)
        except EngineError as error:
            log.info("without goodbye: %s", error)
            atexit.unregister(self._ray.shutdown)
