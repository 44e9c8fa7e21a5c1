"""Data-parallel training: two processes do what one does with the whole batch. Device: CPU (gloo)."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from engines.architecture import Architecture
from tests.random_trunk import random_trunk
from tests.toy_domains import toy_domains
from train import distributed, loop, one_sided
from train.one_sided import OneSidedTrainer
from train.recipes import Recipe, Stage, get_recipe
from train.trainer import Trainer
from train.two_sided import TwoSidedTrainer

pytestmark = pytest.mark.slow

STEPS = 4
RECIPE = replace(
    get_recipe("tiny"),
    loss=replace(get_recipe("tiny").loss, cycle_lpips=0.0),
    stages=(Stage(16, 2, 4), Stage(32, 2, 4, fade_steps=1)),
    warmup_steps=1,
)
OPTIONS = replace(
    RECIPE,
    loss=replace(RECIPE.loss, motion=2.0, path_length=0.1),
    warmup_steps=0,
    path_every=1,
    style_mixing=0.5,
    motion_flow=0.03,
    ada=0.6,
)
RECIPES = {"plain": RECIPE, "options": OPTIONS}
ONE_WAY = replace(
    get_recipe("cpu"),
    architecture=Architecture(64, 2, style_dim=32, channels={4: 32, 8: 32, 16: 32, 32: 16, 64: 16}),
    stages=(Stage(32, 1, 4), Stage(64, 2, 4)),
    styles_each=2,
    warmup_steps=0,
)


def whole(recipe: Recipe) -> Recipe:
    """For one process with the batch of two."""
    stages = tuple(replace(stage, batch=2 * stage.batch) for stage in recipe.stages)
    return replace(recipe, stages=stages, contents=2 * recipe.contents)


def train(recipe: Recipe, out: Path) -> Trainer:
    trainer = TwoSidedTrainer(toy_domains(), recipe, out, bf16=False)
    for ada in trainer.ada.values():
        ada.p = 0.5  # as after a while
    loop.run(trainer, steps=STEPS, log_every=1, progress=lambda _: None)
    return trainer


def train_one_way(out: Path) -> Trainer:
    one_sided.FIT_STEPS = 20
    # d_rest where its first losses lie: the processes have to agree on whether the discriminator learns.
    recipe = replace(ONE_WAY, d_rest=1.98, loss=replace(ONE_WAY.loss, palette=10.0))
    trainer = OneSidedTrainer(toy_domains(64), recipe, out, trunk=random_trunk(), bf16=False)
    loop.run(trainer, log_every=1, progress=lambda _: None)
    return trainer


def enter(number: int, port: int) -> None:
    import os

    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def worker(number: int, out: Path, port: int) -> None:
    enter(number, port)
    for name, recipe in RECIPES.items():
        save(train(recipe, out / name), out / name / f"rank{number}.pt")
    save(train_one_way(out / "one way"), out / "one way" / f"rank{number}.pt")
    x = torch.arange(3.0, requires_grad=True)
    y = distributed.gather(x + 10 * number)
    (gradient,) = torch.autograd.grad((y**3).sum() * (number + 1), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    torch.save((y.detach(), gradient.detach(), second), out / f"gather{number}.pt")
    distributed.leave()


def save(trainer: Trainer, file: Path) -> None:
    torch.save({name: net.state_dict() for name, net in trainer.networks.all().items()}, file)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes made: a folder for each training. It takes them longer to start than to train."""
    out = tmp_path_factory.mktemp("together")
    for name in (*RECIPES, "one way"):
        (out / name).mkdir()
    mp.spawn(worker, (out, free_port()), nprocs=2)
    return out


@pytest.fixture(scope="module", params=RECIPES)
def together(request: pytest.FixtureRequest, processes: Path) -> Path:
    return processes / str(request.param)


@pytest.fixture(scope="module")
def alone(together: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """The same training in this process, with the batches of both."""
    return train(whole(RECIPES[together.name]), tmp_path_factory.mktemp("alone"))


def test_two_processes_train_as_one_with_the_whole_batch(together, alone):
    ranks = [torch.load(together / f"rank{number}.pt", weights_only=True) for number in (0, 1)]
    for name, net in alone.networks.all().items():
        for key, expected in net.state_dict().items():
            assert torch.equal(ranks[0][name][key], ranks[1][name][key]), (name, key)
            # Adam's steps are about as long as the learning rate, whatever the gradient's size: where that is rounding
            # noise, so is the step. Hence the median.
            error = (ranks[0][name][key] - expected).abs()
            assert error.median() < 0.05 * RECIPE.lr, (name, key)


def test_losses_are_the_global_batchs(together, alone):
    def losses(folder: Path) -> list[dict[str, float]]:
        return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]

    expected, got = losses(alone.out), losses(together)
    assert len(got) == len(expected) == STEPS  # one process writes
    for one, two in zip(expected, got, strict=True):
        assert one.keys() == two.keys()
        for name in one.keys() - {"seconds_per_step"}:
            assert two[name] == pytest.approx(one[name], rel=2e-3, abs=1e-5), name


def test_one_way_training_stays_together(processes):
    """Which half of a batch a term looks at depends on the process; what is learned is the same in both."""
    folder = processes / "one way"
    ranks = [torch.load(folder / f"rank{number}.pt", weights_only=True) for number in (0, 1)]
    for name, one in ranks[0].items():
        for key, tensor in one.items():
            # Power iteration sees each process's own weights, which are the same.
            assert torch.equal(tensor, ranks[1][name][key]), (name, key)
    losses = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 3 and all(0 < line["palette"] < 4 for line in losses)


def test_gather_is_differentiable_twice(processes):
    # Process r: L_r = (r + 1) sum y^3 over all six values; d/dx sums both processes' losses.
    whole_batch = torch.tensor([0.0, 1, 2, 10, 11, 12])
    for number in (0, 1):
        y, gradient, second = torch.load(processes / f"gather{number}.pt", weights_only=True)
        assert torch.equal(y, whole_batch)
        own = whole_batch[3 * number : 3 * number + 3]
        assert torch.allclose(gradient, 3 * 3 * own**2)
        assert torch.allclose(second, 3 * 6 * own)


def test_alone_nothing_changes():
    x = torch.randn(4, 2)
    assert distributed.world() == 1
    assert distributed.rank() == 0
    assert distributed.gather(x) is x
    assert torch.equal(distributed.mine(x), x)
    assert not distributed.any_of(False, x.device)
    assert distributed.mean([x[0, 0]]) == [pytest.approx(float(x[0, 0]))]
