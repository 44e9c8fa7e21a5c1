"""What commands show while they work: progress bars and warnings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gnr_video.batch.jobs import Job
    from gnr_video.pipeline import Counts


@contextmanager
def frame_progress(quiet: bool) -> Iterator[Callable[[Counts, int | None], None] | None]:
    """Progress bar with frames per second and time left; none where nobody looks."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(unit=" frames", dynamic_ncols=True, smoothing=0.1, leave=False) as bar:

        def update(counts: Counts, total: int | None) -> None:
            if bar.total != total:
                bar.total = total
            if bar.n == 0:
                bar.initial = bar.n = counts.frames  # what was there before has taken no time
            bar.update(counts.frames - bar.n)

        yield update


class BatchProgress:
    """Progress bar over the bytes of many inputs, of which several may be in work; silent without a bar.

    Args:
        bar: tqdm's, or None.
        sizes: bytes of each input.
    """

    def __init__(self, bar: Any, sizes: Mapping[Job, int]) -> None:
        self._bar, self._sizes = bar, sizes
        self._reached = dict.fromkeys(sizes, 0.0)
        self._ended = 0

    def begin(self, job: Job) -> Callable[[Counts, int | None], None] | None:
        """What is to be told of a job's frames from now on."""
        if self._bar is None:
            return None
        self._bar.set_description_str(f"{job.source.name} ({self._ended + 1} of {len(self._sizes)}) ")

        def update(counts: Counts, total: int | None) -> None:
            if total:
                self._show(job, min(counts.frames / total, 1.0))

        return update

    def end(self, job: Job) -> None:
        """A job is done, or will not be."""
        self._ended += 1
        if self._bar is not None:
            self._show(job, 1.0)

    def _show(self, job: Job, reached: float) -> None:
        self._reached[job] = reached
        done = sum(size * self._reached[one] for one, size in self._sizes.items())
        self._bar.update(round(done) - self._bar.n)


@contextmanager
def batch_progress(quiet: bool, jobs: Sequence[Job]) -> Iterator[BatchProgress]:
    """Progress of many inputs; a bar only where somebody looks."""
    if quiet or not sys.stderr.isatty():
        yield BatchProgress(None, {})
        return
    from tqdm import tqdm

    sizes = {job: job.source.stat().st_size if job.source.exists() else 0 for job in jobs}
    layout = "{desc}{percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
    with tqdm(total=sum(sizes.values()), bar_format=layout, dynamic_ncols=True, leave=False) as bar:
        yield BatchProgress(bar, sizes)


@contextmanager
def build_progress(quiet: bool) -> Iterator[Callable[[str, float], bool] | None]:
    """Progress bar of an engine that is being built; it shows up when there is one."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    bar: Any = None

    def update(phase: str, done: float) -> bool:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=100, bar_format="building the engine {percentage:3.0f}%|{bar}| {elapsed} {desc}")
        bar.set_description_str(phase, refresh=False)
        bar.update(round(100 * done, 1) - bar.n)
        return True

    try:
        yield update
    finally:
        if bar is not None:
            bar.close()


@contextmanager
def stages(quiet: bool, total: int) -> Iterator[Callable[[str], None]]:
    """Progress bar over units of work, with the name of the stage."""
    from tqdm import tqdm

    with tqdm(total=total, disable=quiet or not sys.stderr.isatty(), dynamic_ncols=True, leave=False) as bar:

        def advance(stage: str) -> None:
            bar.set_description_str(stage, refresh=False)
            bar.update()

        yield advance


def speaker(quiet: bool) -> Callable[[str], None]:
    """What says a line at once, beside a progress bar too."""

    def say(text: str) -> None:
        from tqdm import tqdm

        if not quiet:
            with tqdm.external_write_mode(file=sys.stderr):
                click.echo(text, err=True)

    return say


def warn(texts: Sequence[str]) -> None:
    for text in texts:
        click.secho(f"warning: {text}", fg="yellow", err=True)
