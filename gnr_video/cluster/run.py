"""Inputs on a cluster: whichever worker is free does the next work, and each input comes back once."""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import EngineError, GnrVideoError
from engines.installation import install_line
from gnr_video.batch.jobs import Job
from gnr_video.batch.ledger import Ledger
from gnr_video.batch.run import Outcome, Progress
from gnr_video.checkpoints import resolve_weights
from gnr_video.cluster.crew import Crew
from gnr_video.cluster.head import Head
from gnr_video.cluster.inputs import Input, Work, why
from gnr_video.cluster.worker import Kit, Setup
from gnr_video.options import OutputOptions
from gnr_video.tracking.model_files import FACE_MODEL, PERSON_MODEL

ATTEMPTS = 3
"""Workers that may be lost at some work: what ends them all (out of memory) must not go round for ever."""


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


def import_ray() -> Any:
    """Ray, which sends nobody statistics of its use and shows a token where there is one, as `ray start` does.

    Raises:
        EngineError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "ray" not in sys.modules and _has_token():  # it reads that once
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError as error:
        raise EngineError(f"ray cannot be imported: {error}", install_line("ray")) from error
    return ray


def _has_token() -> bool:
    """Whether there is a token where Ray's documentation of its token authentication has it."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token").is_file()


def run(
    jobs: Sequence[Job],
    weights: str | os.PathLike[str] | None,
    setup: Setup,
    output: OutputOptions,
    cluster: Cluster = Cluster(),
    *,
    out: Path | None = None,
    progress: Callable[[Job], Progress | None] = lambda job: None,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Outcome]:
    """Translate inputs on the workers of a cluster. What is done already is passed over, as `batch.run.run` does.

    The segments of a long video go to several workers. A worker that is lost costs its work another attempt; a machine
    that joins is used. Only this process puts translations under their names and notes them, so that nothing is there
    twice or half.

    Args:
        weights: as for `Translator`.
        out: the folder that all targets are in; None: each is beside its input.
        progress: asked before each translation for what is told of its frames.
        say: told what becomes of segments of earlier runs.

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
        is_joined = ray.is_initialized()
        if not is_joined:
            _join(ray, cluster.address)
        head = Head(ray)
        if not is_joined:
            held.callback(head.leave)
        ledgers: dict[Path, Ledger] = {}

        def take(job: Job, settings: str) -> Input:
            folder = out or job.target.parent
            if folder not in ledgers:
                ledgers[folder] = held.enter_context(Ledger(folder))
            one = Input(job, ledgers[folder], output, settings, send=cluster.send, say=say)
            one.told = progress(job)
            held.callback(one.close)
            return one

        crew = Crew(ray, head, cluster.cpus, setup, kit, output)
        try:
            yield from _work_through(deque(jobs), crew, take)
        finally:
            crew.end()


def _work_through(jobs: deque[Job], crew: Crew, take: Callable[[Job, str], Input]) -> Iterator[Outcome]:
    queue: deque[Work] = deque()

    def settled(one: Input, step: Callable[[], Outcome | list[Work]]) -> Iterator[Outcome]:
        """What a step makes of an input: further work, or its outcome."""
        try:
            made = step()
        except (GnrVideoError, OSError) as error:
            made = one.failed(str(error))
        if isinstance(made, Outcome):
            yield made
        else:
            queue.extendleft(reversed(made))  # what is begun comes before what is not

    while jobs or queue or crew.busy:
        queue = deque(work for work in queue if not work.input.ended)
        crew.hire(len(jobs) + len(queue) + crew.busy)
        while crew.has_free and (jobs or queue):
            if not queue:
                one = take(jobs.popleft(), crew.settings)
                yield from settled(one, one.begin)
                continue
            work = queue.popleft()
            try:
                crew.give(work, *work.input.call(work))
            except (GnrVideoError, OSError) as error:
                yield work.input.failed(str(error))
        for work, found in crew.answers():
            if work.input.ended:
                continue
            if found is None:
                work.attempts += 1
                if work.attempts < ATTEMPTS:
                    queue.append(work)
                else:
                    yield work.input.failed(f"{work.attempts} workers were lost at it (out of memory?)")
            elif isinstance(found, BaseException):
                yield work.input.failed(why(found))
            else:
                yield from settled(work.input, lambda: work.input.answered(work, found[0]))  # noqa: B023


def _join(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    try:
        if address is None:
            ray.init(address="local", include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except Exception as error:  # Ray raises it as such when it does not start
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        where = f"the cluster at {address}" if address else "a Ray of this machine's own"
        raise EngineError(
            f"{where} cannot be had: {first}",
            "`ray start --head` starts one, --ray=ADDRESS names its head; a cluster's token lies in ~/.ray/auth_token",
        ) from error
