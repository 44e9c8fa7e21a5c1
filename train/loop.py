"""The loop around training steps: stopped at any time, logged, saved, and ended where a loss is not finite."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engines.installation import install_line
from train.checkpoint import STATE, TrainingDiverged, save
from train.distributed import any_of, mean, rank

if TYPE_CHECKING:
    from train.trainer import Trainer

log = logging.getLogger(__name__)


@dataclass
class Clock:
    """Where the time of a run goes; used for the progress line."""

    started: float = field(default_factory=time.monotonic)
    steps: int = 0

    def seconds_per_step(self) -> float:
        return (time.monotonic() - self.started) / max(self.steps, 1)


class Window:
    """The terms' sums since the last progress line; nothing here waits for the device."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self._bad_since: dict[str, Tensor] = {}

    def add(self, step: int, terms: dict[str, Tensor]) -> None:
        for name, value in terms.items():
            before = self._bad_since.get(name, torch.full((), math.inf, device=value.device))
            self._bad_since[name] = before.where(torch.isfinite(value), before.clamp(max=step))
            self.sums[name] = self.sums.get(name, 0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Over the steps and the processes."""
        if not self.sums:
            return {}
        return dict(zip(self.sums, mean(total / self.counts[name] for name, total in self.sums.items())))

    def first_bad(self) -> tuple[int, list[str]] | None:
        """The first step at which terms of this process were not finite, and which."""
        since = {name: float(step) for name, step in self._bad_since.items()}
        first = min(since.values(), default=math.inf)
        if first == math.inf:
            return None
        return int(first), [name for name, step in since.items() if step == first]


def run(
    trainer: Trainer[Any],
    *,
    minutes: float | None = None,
    steps: int | None = None,
    log_every: int = 50,
    sample_every: int = 500,
    save_every_seconds: float = 300.0,
    progress: Callable[[str], None] = log.info,
    scalars: Callable[[int, dict[str, float]], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train until the recipe's end, `steps` in all, `minutes` of this run, or `stop()` answers true.

    Writes the checkpoint and the weights every `save_every_seconds` and at the end, whatever ends it.

    Raises:
        TrainingDiverged: a loss is not finite. The checkpoint on disk is the last good one.
    """
    end = trainer.recipe.steps if steps is None else steps
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    clock, saved = Clock(), time.monotonic()
    window = Window()
    try:
        while trainer.step < end and not any_of(time.monotonic() >= deadline or stop(), trainer.device):
            window.add(trainer.step + 1, trainer.train_step())
            clock.steps += 1
            if trainer.step % log_every == 0 or trainer.step == end:
                means = _check(trainer, window)
                if rank() == 0:
                    _log(trainer, means, clock, end, deadline, progress)
                    if scalars is not None:
                        scalars(trainer.step, means)
                window = Window()
            if trainer.step % sample_every == 0 and rank() == 0:
                trainer.write_sheet()
            if time.monotonic() - saved > save_every_seconds and rank() == 0:
                _check_own(trainer, window)
                save(trainer)
                saved = time.monotonic()
    except TrainingDiverged:
        raise
    except BaseException:
        _check_own(trainer, window)
        if rank() == 0:
            save(trainer)
        raise
    _check(trainer, window)
    if rank() == 0:
        save(trainer)
        trainer.write_sheet()


def _check(trainer: Trainer[Any], window: Window) -> dict[str, float]:
    """The means, which must be finite in every process."""
    means = window.means()
    bad = [name for name, value in means.items() if not math.isfinite(value)]
    if bad:
        raise _diverged(trainer, *(window.first_bad() or (trainer.step, bad)))
    return means


def _check_own(trainer: Trainer[Any], window: Window) -> None:
    """The same without asking the other processes."""
    if (bad := window.first_bad()) is not None:
        raise _diverged(trainer, *bad)


def _diverged(trainer: Trainer[Any], step: int, names: list[str]) -> TrainingDiverged:
    losses = f"the {names[0]} loss is" if len(names) == 1 else f"the losses {', '.join(names)} are"
    kept = trainer.out / STATE
    return TrainingDiverged(
        f"{losses} not finite at step {step}",
        f"the last good checkpoint is in {trainer.out}: resume from it with a lower --lr or a higher --r1"
        if kept.is_file()
        else "no checkpoint had been written yet: start with a lower --lr or a higher --r1",
    )


def _log(
    trainer: Trainer[Any],
    means: dict[str, float],
    clock: Clock,
    end: int,
    deadline: float,
    progress: Callable[[str], None],
) -> None:
    pace = clock.seconds_per_step()
    left = min((end - trainer.step) * pace, deadline - time.monotonic())
    values = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
    progress(
        f"step {trainer.step}/{end}  {trainer.size}px  {pace:.2f} s/step  "
        f"{max(left, 0) / 60:.0f} min left  {values}"
    )
    record = {"step": trainer.step, "size": trainer.size, "seconds_per_step": round(pace, 4), **means}
    with open(trainer.out / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def tensorboard_scalars(out: Path) -> Callable[[int, dict[str, float]], None] | None:
    """A `scalars` callback for `Trainer.run` that writes TensorBoard events, or None without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        log.info("no TensorBoard scalars: %s (%s)", error, install_line("train"))
        return None
    writer = SummaryWriter(str(out / "tensorboard"))

    def write(step: int, means: dict[str, float]) -> None:
        for name, value in means.items():
            writer.add_scalar(f"loss/{name}", value, step)
        writer.flush()

    return write
