"""The part that runs where the command was given: inputs go to whichever worker is free, and come back once each."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engines.errors import EngineError, GnrVideoError, InputError
from engines.files import write_atomically
from engines.installation import install_line
from gnr_video.batch.jobs import Job
from gnr_video.batch.ledger import Ledger
from gnr_video.batch.run import Outcome, Progress
from gnr_video.checkpoints import resolve_weights
from gnr_video.cluster.worker import Kit, Setup, Translated, Worker
from gnr_video.options import OutputOptions
from gnr_video.pipeline import Counts
from gnr_video.tracking.model_files import FACE_MODEL, PERSON_MODEL

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Workers that an input may outlive: one that ends them all (out of memory) must not go round for ever."""
POLL_SECONDS = 0.5
HEAD_SECONDS = 20.0
"""How long the cluster's head may be silent. Ray itself would end the process after a minute of that."""
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Cluster:
    """Which workers do the work.

    Attributes:
        address: of a running cluster's head ("auto": the one that this machine is part of); None: this machine alone.
        send: inputs and translations travel through the cluster, instead of lying in folders that all machines have.
        cpus: cores of a worker on machines without GPUs; with GPUs, each has one worker.
    """

    address: str | None = None
    send: bool = False
    cpus: int = 2


@dataclass
class _Work:
    """An input on its way."""

    job: Job
    ledger: Ledger
    before: os.stat_result
    attempts: int = 0
    told: Progress | None = None


@dataclass
class _Hand:
    """A worker and what it does.

    Attributes:
        answer: of what it was last asked; None: it is free.
        work: None while it makes its engine.
    """

    worker: Any
    answer: Any
    work: _Work | None = None
    counted: Any = None
    place: Path = field(default_factory=Path)


def import_ray() -> Any:
    """Ray, which sends nobody statistics of its use.

    Raises:
        EngineError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise EngineError(f"ray cannot be imported: {error}", install_line("ray")) from error
    return ray


def run(
    jobs: Sequence[Job],
    weights: str | os.PathLike[str] | None,
    setup: Setup,
    output: OutputOptions,
    cluster: Cluster = Cluster(),
    *,
    out: Path | None = None,
    progress: Callable[[Job], Progress | None] = lambda job: None,
) -> Iterator[Outcome]:
    """Translate inputs on the workers of a cluster. What is done already is passed over, as `batch.run.run` does.

    A worker that is lost costs its input another attempt; a machine that joins is used. Only this process puts
    translations under their names and notes them, so that nothing is there twice or half.

    Args:
        weights: as for `Translator`.
        out: the folder that all targets are in; None: each is beside its input.
        progress: asked before each translation for what is told of its frames.

    Yields:
        What became of each, in the order in which they end.

    Raises:
        EngineError: Ray is not installed, there is no cluster at the address, its head is lost, or no worker can
            translate.
        OutputError: another run works on a folder.
    """
    ray = import_ray()
    path, model = resolve_weights(weights), setup.look.face_model
    kit = Kit(
        (path.name, path.read_bytes()),
        FACE_MODEL.resolve(None if model is None else Path(model)).read_bytes(),
        PERSON_MODEL.resolve().read_bytes(),
    )
    with ExitStack() as held:
        ours = not ray.is_initialized()
        if ours:
            _join(ray, cluster)
            held.callback(ray.shutdown)
        crew = _Crew(ray, cluster, setup, kit, output)
        held.callback(crew.end)
        yield from crew.run(jobs, out, progress, held)


def _join(ray: Any, cluster: Cluster) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    try:
        if cluster.address is None:
            ray.init(address="local", include_dashboard=False, **quiet)
        else:
            ray.init(address=cluster.address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        where = f"the cluster at {cluster.address}" if cluster.address else "a Ray of this machine's own"
        raise EngineError(
            f"{where} cannot be had: {first}", "`ray start --head` starts one, --ray=ADDRESS names its head"
        ) from error


class _Crew:
    """The workers of a run."""

    def __init__(self, ray: Any, cluster: Cluster, setup: Setup, kit: Kit, output: OutputOptions) -> None:
        self._ray, self._cluster, self._setup, self._output = ray, cluster, setup, output
        self._kit = ray.put(kit)
        self._hands: list[_Hand] = []
        self._refused: list[str] = []
        self._died = 0
        self._settings: str | None = None
        self._head_seen = time.monotonic()

    def run(
        self,
        jobs: Sequence[Job],
        out: Path | None,
        progress: Callable[[Job], Progress | None],
        held: ExitStack,
    ) -> Iterator[Outcome]:
        waiting = deque(jobs)
        again: deque[_Work] = deque()
        ledgers: dict[Path, Ledger] = {}
        while waiting or again or any(hand.work for hand in self._hands):
            self._hire(len(waiting) + len(again) + sum(hand.work is not None for hand in self._hands))
            for hand in self._hands:
                while hand.answer is None and (waiting or again):
                    if again:
                        work = again.popleft()
                    else:
                        job = waiting.popleft()
                        folder = out or job.target.parent
                        if folder not in ledgers:
                            ledgers[folder] = held.enter_context(Ledger(folder))
                        ended = self._begin(job, ledgers[folder])
                        if isinstance(ended, Outcome):
                            yield ended
                            continue
                        work = ended
                    try:
                        self._give(hand, work, progress)
                    except (GnrVideoError, OSError) as error:
                        yield Outcome(work.job, "failed", str(error))
            for hand in self._wait():
                outcome = self._take(hand, again)
                if outcome is not None:
                    yield outcome

    def end(self) -> None:
        """Let go of all workers; what they are at is given up."""
        ray = self._ray
        if not ray.is_initialized():
            return
        stopping = [hand.worker.stop.remote() for hand in self._hands]
        busy = [hand.answer for hand in self._hands if hand.answer is not None]
        try:
            if busy:
                ray.wait(busy, num_returns=len(busy), timeout=STOP_SECONDS)
            for hand in self._hands:
                ray.kill(hand.worker)
        except ray.exceptions.RayError as error:
            log.info("workers were not ended: %s", error)
        self._hands = []
        del stopping

    def _hire(self, wanted: int) -> None:
        """Have as many workers as there is work and room for."""
        ray = self._ray
        there = ray.cluster_resources()
        gpus = int(there.get("GPU", 0))
        room = gpus or int(there.get("CPU", 0) // self._cluster.cpus)
        if room == 0:
            raise EngineError(
                f"the cluster has {there.get('CPU', 0):.0f} cores, a worker takes {self._cluster.cpus}",
                "give --ray-cpus 1",
            )
        if self._refused and not self._hands and len(self._refused) >= room:
            raise EngineError(self._refused[0])
        actor = ray.remote(
            num_gpus=1 if gpus else 0, num_cpus=1 if gpus else self._cluster.cpus, max_concurrency=3
        )(Worker)
        threads = None if gpus else self._cluster.cpus
        while len(self._hands) < min(wanted, room - len(self._refused)):
            worker = actor.remote()
            self._hands.append(
                _Hand(worker, worker.open.remote(self._setup, self._kit, self._output, threads))
            )

    def _begin(self, job: Job, ledger: Ledger) -> _Work | Outcome:
        try:
            assert self._settings is not None
            if ledger.is_done(job.source, job.target, self._settings):
                return Outcome(job, "skipped")
            if not self._output.overwrite and job.target.exists() and not ledger.is_ours(job.target):
                return Outcome(job, "failed", f"{job.target} exists already (give --overwrite to replace it)")
            if not job.source.exists():
                raise InputError(f"no such file: {job.source}")
            return _Work(job, ledger, job.source.stat())
        except OSError as error:
            return Outcome(job, "failed", str(error))

    def _give(self, hand: _Hand, work: _Work, progress: Callable[[Job], Progress | None]) -> None:
        """Have an input translated into a place of its own, which no other attempt writes to."""
        data = self._ray.put(work.job.source.read_bytes()) if self._cluster.send else None
        work.told = progress(work.job)
        hand.work, hand.place = work, work.ledger.aside(work.job.target)
        hand.answer = hand.worker.translate.remote(
            str(work.job.source.absolute()),
            str(hand.place.absolute()),
            replace(self._output, overwrite=True),
            data,
        )

    def _wait(self) -> list[_Hand]:
        """Those who have answered, after a while at most; the others say how far they are."""
        ray = self._ray
        busy = {hand.answer: hand for hand in self._hands if hand.answer is not None}
        if not busy:
            return []
        ready, _ = ray.wait(list(busy), num_returns=1, timeout=POLL_SECONDS)
        if not ready:
            self._check_head()
        for hand in busy.values():
            if hand.work is None or hand.work.told is None or hand.answer in ready:
                continue
            if hand.counted is None:
                hand.counted = hand.worker.done.remote()
            elif ray.wait([hand.counted], timeout=0)[0]:
                try:
                    frames, expected = ray.get(hand.counted)
                    hand.work.told(Counts(frames), expected)
                except ray.exceptions.RayError:
                    pass  # what it was to translate says so too
                hand.counted = None
        return [busy[answer] for answer in ready]

    def _take(self, hand: _Hand, again: deque[_Work]) -> Outcome | None:
        """What a worker has answered; None: it is ready, or its input goes to another."""
        ray = self._ray
        work, answer, hand.work, hand.answer, hand.counted = hand.work, hand.answer, None, None, None
        try:
            found = ray.get(answer)
        except ray.exceptions.RayTaskError as error:
            if work is not None:  # the worker catches everything: this is Ray's own
                return Outcome(work.job, "failed", str(error.cause))
            self._hands.remove(hand)
            self._refused.append(_refusal(error))
            log.warning("a worker is left out: %s", self._refused[-1])
            ray.kill(hand.worker)
            return None
        except ray.exceptions.RayError as error:
            self._hands.remove(hand)
            return self._lost(hand, work, error, again)
        if work is None:
            self._settings = self._settings or found
            return None
        return self._put(work, hand.place, found)

    def _lost(self, hand: _Hand, work: _Work | None, error: Exception, again: deque[_Work]) -> Outcome | None:
        log.info("a worker is lost: %s", error)
        try:
            self._ray.kill(hand.worker)  # one that is only cut off must not go on
        except self._ray.exceptions.RayError:
            log.debug("it is dead already")
        if work is None:
            self._died += 1
            if self._died >= ATTEMPTS and self._settings is None:
                reason = (str(error).strip().splitlines() or ["no reason given"])[0]
                raise EngineError(f"workers die before they translate: {reason}", "look into Ray's logs")
            return None
        work.attempts += 1
        if work.attempts >= ATTEMPTS:
            return Outcome(work.job, "failed", f"{work.attempts} workers died of it (out of memory?)")
        again.append(work)
        return None

    def _put(self, work: _Work, place: Path, found: Translated) -> Outcome:
        """The translation under its name, and noted."""
        job = work.job
        if found.report is None:
            return Outcome(job, "failed", found.why)
        try:
            job.target.parent.mkdir(parents=True, exist_ok=True)
            if found.data is not None:
                write_atomically(job.target, found.data)
            elif not place.exists():
                raise InputError(
                    f"what a worker wrote to {place.parent} is not there on this machine",
                    "name a folder that all machines have, or --ray-send",
                )
            else:
                place.replace(job.target)
            assert self._settings is not None
            work.ledger.add(job.source, job.target, self._settings, work.before)
        except (GnrVideoError, OSError) as error:
            return Outcome(job, "failed", str(error))
        return Outcome(
            job, "done", report=replace(found.report, source=str(job.source), target=str(job.target))
        )

    def _check_head(self) -> None:
        """Raise EngineError when the cluster's head has not been reached for a while."""
        address = self._ray.get_runtime_context().gcs_address
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2.0).close()
            self._head_seen = time.monotonic()
        except OSError:
            if time.monotonic() - self._head_seen > HEAD_SECONDS:
                raise EngineError(
                    f"the head of the cluster at {address} is lost",
                    "start it again, and give the same command: what is done is passed over",
                ) from None


def _refusal(error: Any) -> str:
    cause = error.cause
    if isinstance(cause, ModuleNotFoundError):
        return f"a machine of the cluster lacks a package: {cause} (install gnr-video on all of them)"
    return str(cause) if isinstance(cause, GnrVideoError) else f"{type(cause).__name__}: {cause}"
