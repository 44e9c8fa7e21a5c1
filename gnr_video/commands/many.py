"""What the translation of many inputs shows, and the options of a cluster that does it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gnr_video.commands.options import grouped
from gnr_video.commands.progress import batch_progress

if TYPE_CHECKING:
    from gnr_video.batch.jobs import Job
    from gnr_video.batch.run import Outcome, Progress
    from gnr_video.cluster.run import Cluster

HERE = "here"
"""--ray without an address: workers on this machine alone."""


def _cluster(*, ray: str | None, ray_send: bool, ray_cpus: int) -> Cluster | None:
    if ray is None:
        if ray_send:
            raise click.UsageError("--ray-send sends to the workers of --ray.")
        return None
    if os.path.exists(ray):  # what comes after a bare --ray is taken for its address
        raise click.UsageError(
            f"{ray} is no address of a cluster: put inputs before --ray, or give --ray=ADDRESS."
        )
    from gnr_video.cluster.run import Cluster

    return Cluster(None if ray == HERE else ray, ray_send, ray_cpus)


cluster_options = grouped(
    "cluster",
    _cluster,
    click.option(
        "--ray",
        is_flag=False,
        flag_value=HERE,
        metavar="[ADDRESS]",
        help="Spread the inputs over the workers of a Ray cluster: HOST:PORT of its head, auto for the one of this "
        "machine; nothing for workers on this machine alone.",
    ),
    click.option("--ray-send", is_flag=True, help="Send inputs and results: the machines share no folders."),
    click.option(
        "--ray-cpus",
        type=click.IntRange(1),
        default=2,
        show_default=True,
        metavar="N",
        help="Cores of a worker; where there are GPUs, each has one worker.",
    ),
)
"""On which machines: the command takes `cluster`, a `Cluster` or None."""


def tell(
    jobs: Sequence[Job],
    work: Callable[[Callable[[Job], Progress | None]], Iterator[Outcome]],
    report: Path | None,
    quiet: bool,
) -> None:
    """Say what becomes of each of many inputs, and end with status 1 if any has failed.

    Args:
        work: does it; it is given what is asked before each for whom to tell of its frames.
        report: takes a line of JSON for each.
    """
    outcomes = []
    if report is not None:
        report.unlink(missing_ok=True)
    with batch_progress(quiet, jobs) as progress:
        for outcome in work(progress.begin):
            progress.end(outcome.job)
            outcomes.append(outcome)
            if report is not None:
                with report.open("a", encoding="utf-8") as stream:
                    stream.write(f"{outcome.to_json()}\n")
            if not quiet:
                click.echo(_line(outcome, f"{len(outcomes)}/{len(jobs)}"), err=True)
    failed = [one for one in outcomes if one.status == "failed"]
    counts = ", ".join(
        f"{sum(one.status == status for one in outcomes)} {status}"
        for status in ("done", "skipped", "failed")
    )
    click.echo(counts, err=True)
    for one in failed:
        click.secho(f"failed: {one.job.source}: {one.why}", fg="red", err=True)
    if failed:
        raise click.exceptions.Exit(1)


def _line(outcome: Outcome, number: str) -> str:
    job, report = outcome.job, outcome.report
    if report is not None:
        warned = "".join(f"\n  warning: {text}" for text in [*report.fallbacks, *report.warnings])
        return f"{number} {job.target}: {report.frames} frames in {report.seconds:.1f} s{warned}"
    return f"{number} {job.source}: {'done before' if outcome.status == 'skipped' else outcome.why}"
