"""The GNR losses on inputs with known answers. Device: CPU."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.losses import (
    discriminator_adversarial,
    generator_adversarial,
    r1_penalty,
    shuffle_within,
    style_consistency,
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
