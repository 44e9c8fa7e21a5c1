"""Options of a recipe that are off by default: what each does, and that training goes on with them. Device: CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from engines.errors import WeightsError
from tests.test_one_sided import RECIPE as ONE_WAY
from tests.test_one_sided import trunk  # noqa: F401
from tests.test_trainer import TINY, same
from tests.toy_domains import toy_domains
from train import checkpoint
from train.data import Domains
from train.losses import masked_mse, path_lengths
from train.networks import Generator
from train.one_sided import OneSidedTrainer
from train.recipes import RECIPES, Recipe, RecipeError, Stage, with_settings
from train.trainer import Trainer
from train.trunk import Trunk
from train.two_sided import TwoSidedTrainer

OPTIONS = ["ada=0.6", "ada_images=40", "style_mixing=0.5", "motion_flow=0.04", "path_every=2"]
LOSSES = ["loss.path_length=0.1", "loss.motion=2"]


@pytest.fixture(scope="module")
def domains() -> Domains:
    return toy_domains()


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(TINY.architecture)


def everything(recipe: Recipe, *more: str) -> Recipe:
    return with_settings(recipe, [*OPTIONS, *LOSSES, *more])


def test_they_are_off_by_default():
    for recipe in RECIPES.values():
        assert not (recipe.ada or recipe.style_mixing or recipe.motion_flow or recipe.compile)
        assert not (recipe.loss.path_length or recipe.loss.cyclegan_identity)


# -- style mixing


def test_mixing_takes_the_second_style_from_the_crossover_on(generator):
    style, other = torch.randn(2, 3, 8)
    stages = generator.stages
    assert stages == 1 + 1 + TINY.architecture.num_down
    w = generator.mixed(style, other, torch.tensor([1, stages - 1, stages]))
    own, second = generator.mapping(style), generator.mapping(other)
    for n, crossover in enumerate((1, stages - 1, stages)):
        for stage in range(stages):
            assert torch.equal(w[n, stage], (own if stage < crossover else second)[n])


def test_one_w_for_every_stage_is_a_plain_style(generator):
    content, style = torch.randn(2, 32, 8, 8), torch.randn(2, 8)
    w = generator.mapping(style)
    expected = generator.decode(content, style)
    assert torch.equal(generator.synthesise(content, w), expected)
    assert torch.equal(generator.synthesise(content, w[:, None].repeat(1, generator.stages, 1)), expected)
    mixed = generator.mixed(style, torch.randn(2, 8), torch.full((2,), generator.stages - 1))
    assert not torch.allclose(generator.synthesise(content, mixed), expected)


def test_mixed_pictures_have_no_style_to_reconstruct():
    a, b = torch.zeros(2, 4), torch.ones(2, 4)
    assert masked_mse(a, b, torch.ones(2, 1)) == torch.nn.functional.mse_loss(a, b)
    assert masked_mse(a, b, torch.tensor([[1.0], [0.0]])) == 0.5


def test_as_many_are_mixed_as_asked_for(tmp_path, domains):
    trainer = TwoSidedTrainer(domains, replace(TINY, style_mixing=0.25), tmp_path, bf16=False)
    _, kept = trainer._mapped(trainer.networks.g_ab, torch.randn(2000, 8))
    assert kept.mean() == pytest.approx(0.75, abs=0.04)


# -- path length


def test_the_path_length_of_a_linear_map_is_known():
    torch.manual_seed(0)
    matrix = torch.randn(3 * 4 * 4, 2 * 5)
    w = torch.randn(6, 2, 5, requires_grad=True)
    noise = torch.randn(6, 3, 4, 4)
    picture = (w.flatten(1) @ matrix.t()).view(6, 3, 4, 4)
    along = (noise.flatten(1) @ matrix / 4).view(6, 2, 5)
    expected = along.square().sum(2).mean(1).sqrt()
    torch.testing.assert_close(path_lengths(picture, w, noise), expected)


def test_the_path_length_has_a_gradient_in_the_networks(generator):
    w = generator.mapping(torch.randn(2, 8))[:, None].repeat(1, generator.stages, 1)
    picture = generator.synthesise(torch.randn(2, 32, 8, 8), w)
    lengths = path_lengths(picture, w, torch.randn_like(picture))
    weights = [generator.conv1.conv.weight, generator.mapping[0].weight, generator.to_rgbs[0].conv.weight]
    for gradient in torch.autograd.grad(lengths.square().sum(), weights):
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0


def test_the_path_length_mean_follows_and_the_penalty_is_lazy(tmp_path, domains):
    recipe = with_settings(TINY, ["loss.path_length=0.1", "path_every=2", "stages=32:9:4"])
    trainer = TwoSidedTrainer(domains, recipe, tmp_path, bf16=False)
    had = ["path_length" in trainer.train_step() for _ in range(3)]
    assert had == [True, False, True]
    assert all(mean > 0 for mean in trainer.path_means.values())
    assert trainer._weight("path_length") == 0.2


# -- identity


def test_cyclegans_identity_passes_the_translator(tmp_path, domains):
    recipe = with_settings(TINY, ["loss.cyclegan_identity=5", "loss.identity=0", "stages=32:9:4"])
    trainer = TwoSidedTrainer(domains, recipe, tmp_path, bf16=False)
    terms = trainer.train_step()
    assert 0 < terms["cyclegan_identity"] < 4
    assert "identity" not in terms
    with pytest.raises(RecipeError, match="CycleGAN's identity already"):
        with_settings(ONE_WAY, ["loss.cyclegan_identity=5"])


# -- all of them


def run_all(make: Callable[[str], Trainer]) -> None:
    """Steps with everything on, across a growth; stopped and gone on with, to the bit."""
    straight = make("straight")
    terms: dict[str, torch.Tensor] = {}
    for _ in range(5):
        terms |= straight.train_step()
    assert all(torch.isfinite(value) for value in terms.values())
    assert {"motion", "path_length", "augmentation_d_b"} <= terms.keys()
    assert straight.ada["d_b"].p > 0  # small target images: it has moved
    stopped = make("stopped")
    for _ in range(3):
        stopped.train_step()
    checkpoint.save(stopped)
    again = make("stopped")
    assert checkpoint.resume(again)
    for _ in range(2):
        again.train_step()
    assert same(straight, again)
    assert again.path_means == straight.path_means
    assert again.ada["d_b"].state_dict() == straight.ada["d_b"].state_dict()


@pytest.mark.slow
def test_all_of_them_train_grow_and_resume(tmp_path, domains):
    recipe = everything(TINY, "loss.cyclegan_identity=1", "stages=16:2:4,32:5:4:2", "ada=0.01")

    def make(name: str) -> Trainer:
        trainer = TwoSidedTrainer(domains, recipe, tmp_path / name, bf16=False)
        for ada in trainer.ada.values():
            ada.p = 0.5
        return trainer

    run_all(make)


@pytest.mark.slow
def test_all_of_them_one_way(tmp_path, trunk: Trunk):  # noqa: F811
    domains = toy_domains(64)
    recipe = everything(replace(ONE_WAY, stages=(Stage(64, 9, 4),), warmup_steps=0), "ada=0.01")

    def make(name: str) -> Trainer:
        trainer = OneSidedTrainer(domains, recipe, tmp_path / name, trunk=trunk, bf16=False)
        trainer.ada["d_b"].p = 0.5
        return trainer

    run_all(make)


def test_a_checkpoint_from_before_an_option_goes_on_with_it(tmp_path, domains):
    checkpoint.save(TwoSidedTrainer(domains, TINY, tmp_path, bf16=False))
    trainer = TwoSidedTrainer(domains, everything(TINY), tmp_path, bf16=False)
    assert checkpoint.resume(trainer)
    assert trainer.ada["d_a"].p == 0
    with pytest.raises(WeightsError):
        checkpoint.resume(
            TwoSidedTrainer(domains, replace(everything(TINY), shared_branch=False), tmp_path, bf16=False)
        )


@pytest.mark.slow
def test_what_is_compiled_computes_the_same(tmp_path, domains, monkeypatch):
    """Without torch.compile's code generator, which needs a C++ compiler: its graphs, run as they are."""
    graphs = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(TwoSidedTrainer, "compile_backend", graphs)
    plain = TwoSidedTrainer(domains, TINY, tmp_path, bf16=False).networks
    trainer = TwoSidedTrainer(domains, replace(TINY, compile=True), tmp_path, bf16=False)
    trainer._grow_to(32)
    nets = trainer.networks
    assert trainer.size == 32
    for net in (nets.g_ab.encoder, nets.g_ba.encoder, *nets.discriminators()):
        assert net._compiled_call_impl is not None
    assert not any("orig_mod" in name for name in nets.g_ab.state_dict())
    assert plain.d_latent.state_dict().keys() == nets.d_latent.state_dict().keys()
    content, w, codes = torch.randn(2, 32, 8, 8), torch.randn(2, 32), torch.randn(2, 8)
    weight = nets.g_ab.conv1.conv.weight
    expected = Generator.synthesise(nets.g_ab, content, w)
    got = nets.g_ab.synthesise(content, w)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        torch.autograd.grad(got.square().sum(), weight),
        torch.autograd.grad(expected.square().sum(), weight),
        rtol=1e-3,
        atol=1e-4,
    )
    torch.testing.assert_close(nets.d_latent(codes), nets.d_latent.forward(codes))
    assert graphs.frame_count == 2  # neither was passed over
