"""The baseline of `benchmarks/train_step.py` computes what our step computes, only slower. Device: CPU."""

from __future__ import annotations

import torch

from benchmarks.train_step import plain_layers, verdicts
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


def test_the_bars_are_judged_from_the_figures():
    def judged(**changes: object) -> list[str]:
        report = {"device": "cuda", "size": 256, "batch": 4, "lpips": True, "speedup": 3.2}
        return verdicts({**report, "peak_gb": {"plain": 17.0, "ours": 9.5}, **changes})

    assert judged() == ["bar 3x on cuda: 3.20x, met", "bar 12 GB: 9.5 GB, met"]
    assert judged(speedup=2.9)[0].endswith("missed")
    assert judged(peak_gb={"ours": 12.5})[1].endswith("missed")
    assert judged(device="cpu", speedup=1.6)[0] == "bar 1.5x on cpu: 1.60x, met"
    assert "GPU's memory" in judged(device="cpu")[1]
    assert "official size" in judged(batch=2)[1]
    assert all("LPIPS was left out" in line for line in judged(lpips=False))
