"""Training: it learns, grows, resumes to the bit, stops cleanly and says why it stopped. Device: CPU."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from engines.errors import GnrVideoError
from engines.weights import load_weights
from tests.toy_domains import toy_domains
from train import checkpoint, loop
from train.data import Domains
from train.losses import OFFICIAL, PAPER
from train.networks import Generator, Upsample
from train.recipes import RECIPES, Stage, get_recipe
from train.trainer import Trainer
from train.two_sided import TwoSidedTrainer

TINY = replace(get_recipe("tiny"), loss=replace(get_recipe("tiny").loss, cycle_lpips=0.0))


@pytest.fixture(scope="module")
def domains() -> Domains:
    return toy_domains()


def same(a: Trainer, b: Trainer) -> bool:
    return all(
        torch.equal(x, y)
        for one, two in zip(a.networks.all().values(), b.networks.all().values(), strict=True)
        for x, y in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )


def test_losses_fall_and_everything_is_written(tmp_path, domains):
    recipe = replace(TINY, stages=(Stage(32, 60, 4),), warmup_steps=40)
    trainer = TwoSidedTrainer(domains, recipe, tmp_path, bf16=False)
    lines: list[str] = []
    seen: dict[int, dict[str, float]] = {}
    loop.run(trainer, log_every=20, sample_every=30, progress=lines.append, scalars=seen.__setitem__)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [20, 40, 60] == list(seen)
    assert records[1]["identity"] < 0.85 * records[0]["identity"]
    assert "cycle_l2" not in records[1]
    assert "cycle_l2" in records[2]
    assert "60/60" in lines[-1]
    assert (tmp_path / "samples" / "0000060.png").stat().st_size > 500
    weights = load_weights(tmp_path / "weights.safetensors")
    assert weights.architecture == recipe.architecture
    assert weights.has_style_encoder
    assert "research" in weights.metadata["licence"]


def test_both_directions_start_from_the_autoencoder(tmp_path, domains):
    trainer = TwoSidedTrainer(domains, replace(TINY, warmup_steps=2), tmp_path, bf16=False)
    for _ in range(2):
        assert "adversarial" not in trainer.train_step()
    trainer._end_warmup()
    nets = trainer.networks
    expected = nets.g_ab.state_dict()
    for net in (nets.g_ba, nets.ema_ab, nets.ema_ba):
        assert all(torch.equal(tensor, expected[name]) for name, tensor in net.state_dict().items())
    assert "adversarial" in trainer.train_step()


def test_grows_without_a_jump(tmp_path, domains):
    recipe = replace(TINY, stages=(Stage(16, 3, 4), Stage(32, 20, 4, fade_steps=10)))
    trainer = TwoSidedTrainer(domains, recipe, tmp_path, bf16=False)
    for _ in range(3):
        trainer.train_step()
    small = trainer.networks.g_ab
    content = torch.randn(2, recipe.architecture.content_channels, 8, 8)
    style = torch.randn(2, 8)
    picture = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        before = small.decode(content, style)
        code_before, _ = small.encode(torch.nn.functional.avg_pool2d(picture, 2))
        states = len(trainer.g_optimiser.state)
        trainer._grow_to(32)
        grown = trainer.networks.g_ab
        after = grown.decode(content, style)
        code_after, _ = grown.encode(picture)
    assert trainer.size == 32
    # The new stage adds nothing yet: the picture is the old one, upsampled.
    torch.testing.assert_close(after, Upsample()(before))
    torch.testing.assert_close(code_after, code_before)
    assert 0 < len(trainer.g_optimiser.state) <= states
    for _ in range(12):
        trainer.train_step()
    checkpoint.export(trainer, tmp_path / "grown.safetensors")
    assert load_weights(tmp_path / "grown.safetensors").architecture.size == 32


@pytest.mark.parametrize("stop_at", [2, 5], ids=["small", "grown"])
@pytest.mark.slow
def test_resumes_to_the_bit(tmp_path, domains, stop_at):
    recipe = replace(TINY, stages=(Stage(16, 3, 4), Stage(32, 5, 4, fade_steps=4)))
    straight = TwoSidedTrainer(domains, recipe, tmp_path / "a", bf16=False)
    for _ in range(8):
        straight.train_step()
    first = TwoSidedTrainer(domains, recipe, tmp_path / "b", bf16=False)
    for _ in range(stop_at):
        first.train_step()
    checkpoint.save(first)
    second = TwoSidedTrainer(domains, recipe, tmp_path / "b", bf16=False, seed=99)
    assert checkpoint.resume(second)
    assert second.step == stop_at
    for _ in range(8 - stop_at):
        second.train_step()
    assert same(straight, second)


def test_stops_on_time_and_on_request(tmp_path, domains):
    trainer = TwoSidedTrainer(domains, TINY, tmp_path, bf16=False)
    loop.run(trainer, minutes=0.0)
    assert trainer.step == 0
    loop.run(trainer, stop=lambda: trainer.step >= 2, progress=lambda _: None)
    assert trainer.step == 2
    assert (tmp_path / "state.pt").is_file()


def test_an_interrupt_saves_first(tmp_path, domains):
    trainer = TwoSidedTrainer(domains, TINY, tmp_path, bf16=False)

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.run(trainer, log_every=2, progress=interrupt)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 2


def test_nothing_to_resume(tmp_path, domains):
    assert not checkpoint.resume(TwoSidedTrainer(domains, TINY, tmp_path, bf16=False))


@pytest.mark.parametrize("loss", [OFFICIAL, PAPER], ids=["official", "paper"])
def test_the_sources_losses_run(tmp_path, domains, loss):
    recipe = replace(
        TINY,
        stages=(Stage(32, 2, 4),),
        contents=1,
        loss=replace(loss, cycle_lpips=0.0),
        shared_branch=False,
        cycle_share=1.0,
        augment_reals=False,
    )
    terms = TwoSidedTrainer(domains, recipe, tmp_path, bf16=False).train_step()
    assert all(torch.isfinite(value) for value in terms.values())
    assert ("latent" in terms) == (loss.latent > 0)
    assert "identity" not in terms


def test_recipes_are_consistent():
    assert {"official", "paper", "default", "cpu", "tiny"} <= set(RECIPES)
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        for stage in recipe.stages:
            inner = recipe.architecture_at(stage.size)
            assert inner.content_size == recipe.architecture.content_size
            assert inner.content_channels == recipe.architecture.content_channels
            assert stage.size // recipe.local_size >= 2
    with pytest.raises(GnrVideoError, match="no recipe 'nope'"):
        get_recipe("nope")


def test_the_official_recipe_is_the_official_architecture():
    names = {name for name, _ in Generator(get_recipe("official").architecture).named_parameters()}
    assert "encoder.stem.5.conv2.1.bias" in names
