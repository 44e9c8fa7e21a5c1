"""The GNR losses on inputs with known answers. Device: CPU."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.losses import (
    SMALLEST_VARIANCE,
    discriminator_adversarial,
    generator_adversarial,
    latent_divergence,
    r1_penalty,
    shuffle_within,
    style_consistency,
    style_moments,
)


def test_adversarial_at_indifference():
    heads = [torch.zeros(4, 1, 8, 8), torch.zeros(4, 1)]
    assert generator_adversarial(heads).item() == pytest.approx(2 * math.log(2))
    assert discriminator_adversarial(heads, heads).item() == pytest.approx(4 * math.log(2))


def test_adversarial_rewards_the_right_side():
    sure = [torch.full((4, 1), 20.0)]
    assert generator_adversarial(sure).item() < 1e-6
    assert discriminator_adversarial(sure, [-sure[0]]).item() < 1e-6
    assert generator_adversarial([-sure[0]]).item() == pytest.approx(20.0, abs=1e-3)


def test_r1_of_a_linear_head():
    weight = torch.randn(3 * 4 * 4)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    logits = [(images.flatten(1) @ weight)[:, None]]
    norm = weight.square().sum().item()
    assert r1_penalty(logits, images, "sample").item() == pytest.approx(norm, rel=1e-5)
    assert r1_penalty(logits, images, "mean").item() == pytest.approx(norm / 25, rel=1e-5)


def test_style_consistency_is_the_variance_within_an_image():
    one = torch.randn(1, 8).expand(4, 8)
    other = torch.randn(1, 8).expand(4, 8)
    assert style_consistency(torch.cat([one, other]), 2).item() == pytest.approx(0.0, abs=1e-9)
    codes = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert style_consistency(codes, 1).item() == pytest.approx(1.0)


@given(st.integers(1, 4), st.integers(2, 5), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_shuffling_stays_within_an_image(contents, copies, seed):
    codes = torch.arange(contents * copies).float()[:, None]
    shuffled = shuffle_within(codes, contents, torch.Generator().manual_seed(seed))
    for before, after in zip(codes.split(copies), shuffled.split(copies), strict=True):
        assert sorted(before.flatten().tolist()) == sorted(after.flatten().tolist())


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def divergence(codes: torch.Tensor) -> torch.Tensor:
    """KL of a Gaussian with the codes' own moments from N(0, I), by torch's formula; differentiable."""
    mean = codes.mean(0)
    unit = torch.eye(codes.shape[1])
    covariance = (codes - mean).T @ (codes - mean) / len(codes) + SMALLEST_VARIANCE * unit
    found = torch.distributions.MultivariateNormal(mean, covariance)
    return torch.distributions.kl_divergence(
        found, torch.distributions.MultivariateNormal(torch.zeros_like(mean), unit)
    )


@given(st.integers(2, 40), st.integers(1, 9), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_latent_divergence_is_that_of_two_gaussians(count, axes, seed):
    codes = normal(count, axes, seed=seed) @ normal(axes, axes, seed=seed + 1) + 0.5
    one, other = codes.clone().requires_grad_(), codes.clone().requires_grad_()
    found, expected = latent_divergence(one, one), divergence(other)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    found.backward()
    expected.backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-2, atol=1e-3)


def test_codes_along_one_line_are_spread_over_all_directions():
    """A deviation of 1 along each axis does not do: all codes may lie along the diagonal."""
    codes = normal(64, 1, seed=0).expand(-1, 8) + 0.05 * normal(64, 8, seed=1)
    assert style_moments(codes).item() < 0.2
    recent = codes
    for step in range(400):
        # Eight of them at a time, as in training: too few for a covariance of their own.
        mine = torch.randperm(64, generator=torch.Generator().manual_seed(step))[:8]
        batch = codes[mine].requires_grad_()
        recent = torch.cat([recent, batch.detach()])[-128:]
        (gradient,) = torch.autograd.grad(latent_divergence(batch, recent), batch)
        codes = codes.index_add(0, mine, -0.3 * gradient)
    deviations = torch.linalg.eigvalsh(codes.T.cov()).sqrt()
    assert deviations.min() > 0.8 and deviations.max() < 1.25, deviations
    assert codes.mean(0).abs().max() < 0.15


def test_codes_that_are_not_finite_are_no_error_here():
    assert latent_divergence(torch.full((4, 8), math.nan), torch.full((4, 8), math.nan)).isnan()
