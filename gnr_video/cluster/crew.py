"""The workers of a run: hired as there is work and room for them, asked, waited for, lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engines.errors import EngineError
from gnr_video.cluster.head import Head
from gnr_video.cluster.inputs import Work, why
from gnr_video.cluster.worker import Kit, Setup, Worker
from gnr_video.options import OutputOptions

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
STOP_SECONDS = 10.0
OPENING_DEATHS = 3
"""Workers that may die, one after the other, before they are ready."""


@dataclass(eq=False)
class _Hand:
    """A worker and what it does.

    Attributes:
        answer: of what it was last asked; None: it is free.
        work: None while it makes its engine.
        counted: the answer to how far it is, if it was asked.
    """

    worker: Any
    answer: Any
    work: Work | None = None
    counted: Any = None


class Crew:
    """Workers of a cluster.

    Args:
        ray: the module, which has joined a cluster.
        head: of that cluster.
        cpus: cores of a worker on machines without GPUs; with GPUs, each has one worker.
        setup, kit, output: what they translate with.

    Attributes:
        settings: the fingerprint of their translations, once one is ready.
    """

    def __init__(
        self, ray: Any, head: Head, cpus: int, setup: Setup, kit: Kit, output: OutputOptions
    ) -> None:
        self._ray, self._head, self._cpus, self._setup, self._output = ray, head, cpus, setup, output
        self._kit = ray.put(kit)
        self._hands: list[_Hand] = []
        self._refused: list[str] = []
        self._died = 0
        self.settings = ""

    @property
    def busy(self) -> int:
        """Workers at work."""
        return sum(hand.work is not None for hand in self._hands)

    @property
    def has_free(self) -> bool:
        return any(hand.answer is None for hand in self._hands)

    def hire(self, wanted: int) -> None:
        """Have as many workers as there is work and room for.

        Raises:
            EngineError: no machine has room for one, all refuse, or the cluster's head is lost.
        """
        if len(self._hands) >= wanted:
            return
        there = self._head.ask(self._ray.cluster_resources)
        gpus = int(there.get("GPU", 0))
        room = gpus or int(there.get("CPU", 0) // self._cpus)
        if room == 0 and not self._hands:
            raise EngineError(
                f"the cluster has {there.get('CPU', 0):.0f} cores, a worker takes {self._cpus}",
                "give --ray-cpus 1",
            )
        if not self._hands and len(self._refused) >= room:
            raise EngineError(self._refused[0])
        cpus, threads = (1, None) if gpus else (self._cpus, self._cpus)
        actor = self._ray.remote(num_gpus=1 if gpus else 0, num_cpus=cpus, max_concurrency=3)(Worker)
        while len(self._hands) < min(wanted, room - len(self._refused)):
            worker = actor.remote()
            self._hands.append(
                _Hand(worker, worker.open.remote(self._setup, self._kit, self._output, threads))
            )

    def give(self, work: Work, method: str, arguments: tuple[Any, ...]) -> None:
        """Have a free worker do something."""
        hand = next(hand for hand in self._hands if hand.answer is None)
        hand.work, hand.answer = work, getattr(hand.worker, method).remote(*arguments)

    def answers(self) -> Iterator[tuple[Work, Any]]:
        """Work that is answered, after a while at most: with what came back, alone in a tuple; with what was raised; or
        with None, where its worker was lost. Meanwhile inputs are told how far they are.

        Raises:
            EngineError: the cluster's head is lost, or workers die before they are ready.
        """
        busy = {hand.answer: hand for hand in self._hands if hand.answer is not None}
        if not busy:
            time.sleep(POLL_SECONDS)
            return
        ready, _ = self._ray.wait(list(busy), num_returns=1, timeout=POLL_SECONDS)
        if not ready:
            self._head.ask(self._ray.cluster_resources)
        for answer, hand in busy.items():
            if answer not in ready and hand.work is not None:
                self._count(hand, hand.work)
        for answer in ready:
            hand = busy[answer]
            work, hand.work, hand.answer, hand.counted = hand.work, None, None, None
            found = self._found(hand, answer, is_opening=work is None)
            if work is not None:
                yield work, found
            elif isinstance(found, tuple):
                self._is_ready(hand, found[0])
            elif found is not None:
                self._refuse(hand, why(found))

    def end(self) -> None:
        """Let go of all workers; what they are at is given up, without anything half-written."""
        ray, hands, self._hands = self._ray, self._hands, []
        if not ray.is_initialized():  # Ray ends them without their driver
            return
        asked = [hand.worker.stop.remote() for hand in hands]
        busy = [hand.answer for hand in hands if hand.work is not None]
        try:
            if busy:
                ray.wait([*busy, *asked], num_returns=len(busy) + len(asked), timeout=STOP_SECONDS)
            for hand in hands:
                self._kill(hand)
        except (EngineError, ray.exceptions.RayError) as error:
            log.info("workers were not ended: %s", error)

    def _found(self, hand: _Hand, answer: Any, *, is_opening: bool) -> Any:
        ray = self._ray
        try:
            return (ray.get(answer),)
        except ray.exceptions.RayTaskError as error:
            return error.cause or error
        except ray.exceptions.RayError as error:
            log.info("a worker is lost: %s", error)
            self._let_go(hand)
            self._died += is_opening
            if self._died >= OPENING_DEATHS and not self._hands:
                first = (str(error).strip().splitlines() or ["no reason given"])[0]
                raise EngineError(
                    f"workers die before they are ready: {first}", "look into Ray's logs"
                ) from error
            return None

    def _is_ready(self, hand: _Hand, settings: str) -> None:
        self._died = 0
        self.settings = self.settings or settings
        if settings != self.settings:  # seams would be seen, and nothing would be known again
            self._refuse(
                hand, "a machine of the cluster translates otherwise than the first: give --precision"
            )

    def _refuse(self, hand: _Hand, reason: str) -> None:
        self._let_go(hand)
        self._refused.append(reason)
        log.warning("a worker is left out: %s", reason)

    def _let_go(self, hand: _Hand) -> None:
        self._hands.remove(hand)
        try:
            self._kill(hand)  # one that is only cut off must not go on
        except self._ray.exceptions.RayError:
            log.debug("it is dead already")

    def _kill(self, hand: _Hand) -> None:
        self._head.ask(lambda: self._ray.kill(hand.worker))  # who waits to have it registered first

    def _count(self, hand: _Hand, work: Work) -> None:
        ray = self._ray
        if work.input.told is None:
            return
        if hand.counted is None:
            hand.counted = hand.worker.done.remote()
        elif ray.wait([hand.counted], timeout=0)[0]:
            try:
                work.input.counted(work, *ray.get(hand.counted))
            except ray.exceptions.RayError:
                log.debug("a worker does not say how far it is")
            hand.counted = None
