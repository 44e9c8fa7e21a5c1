"""The baseline of `benchmarks/train_step.py` computes what our step computes, only slower. Device: CPU."""

from __future__ import annotations

import torch

from benchmarks.train_step import plain_layers
from train.networks import Discriminator, Generator
from train.recipes import get_recipe


def test_plain_layers_compute_the_same(monkeypatch):
    torch.manual_seed(0)
    architecture = get_recipe("tiny").architecture
    generator = Generator(architecture)
    judge = Discriminator(32, dict(architecture.channels), local_downs=2, global_downs=3)
    for parameter in [*generator.parameters(), *judge.parameters()]:
        parameter.data += 0.1 * torch.randn_like(parameter)
    x, style = torch.randn(3, 3, 32, 32), torch.randn(3, architecture.latent_dim)

    def run() -> list[torch.Tensor]:
        picture, content, own = generator(x, style)
        (gradient,) = torch.autograd.grad(picture.square().mean(), generator.conv1.conv.weight)
        return [picture, content, own, gradient, *judge(picture)]

    ours = run()
    for owner, name, function in plain_layers():
        monkeypatch.setattr(owner, name, function)
    for one, two in zip(ours, run(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
