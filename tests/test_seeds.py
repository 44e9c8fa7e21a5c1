"""The default seed takes over the look of another. Device: CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import engines
from benchmarks.official import OfficialGenerator
from engines.style_colors import StyleColors
from engines.weights import STYLE_ENCODER, Weights, load_weights, save_weights
from gnr_video.styles.code import style_from_seed
from tests.golden import golden_weights, narrow
from tests.tiny_weights import with_colors
from train.finetune.seeds import main, turn_seeds
from train.metrics.pictures import Folder
from train.metrics.style_tools import encode_styles


@pytest.fixture(scope="module")
def weights() -> Weights:
    return with_colors(
        golden_weights(narrow(size=64, num_down=2, latent_dim=4, style_dim=16), style_encoder=True)
    )


@pytest.fixture(scope="module")
def seeds() -> tuple[torch.Tensor, torch.Tensor]:
    """42 and 7."""
    a, b = (torch.from_numpy(style_from_seed(seed, 4).array())[None] for seed in (42, 7))
    return a, b


def test_a_seed_gets_the_look_and_the_colors_of_another(weights, seeds):
    turned = turn_seeds(weights, 42, 7)
    a, b = seeds
    scaled = b * a.norm() / b.norm()
    with torch.inference_mode():
        before, after = OfficialGenerator(weights).mapping, OfficialGenerator(turned).mapping
        torch.testing.assert_close(after(a), before(scaled), rtol=1e-3, atol=1e-4)
        assert not torch.allclose(after(a), before(a), rtol=0.05)
        colors = StyleColors.load(turned)(a)
    torch.testing.assert_close(colors, StyleColors.load(weights)(scaled), rtol=1e-3, atol=1e-4)


def test_styles_of_pictures_stay_what_they_are(weights, tmp_path):
    random = np.random.default_rng(0)
    for number in range(4):
        colors = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(colors).resize((80, 80)).save(tmp_path / f"{number}.png")
    codes = []
    for one in (weights, turn_seeds(weights, 42, 7)):
        with engines.create(one, engine="torch", device="cpu") as engine:
            codes.append(torch.from_numpy(encode_styles(engine, Folder.open(tmp_path))))
        with torch.inference_mode():
            codes[-1] = OfficialGenerator(one).mapping(codes[-1])
    torch.testing.assert_close(codes[0], codes[1], rtol=1e-3, atol=1e-4)


def test_weights_without_a_style_head_and_colors_can_be_turned(weights, seeds):
    bare = replace(
        weights,
        tensors={n: t for n, t in weights.tensors.items() if not n.startswith((STYLE_ENCODER, "colours."))},
    )
    turned = turn_seeds(bare, 42, 7)
    assert turned.tensors.keys() == bare.tensors.keys()
    assert not torch.equal(turned.tensors["mapping.0.weight"], bare.tensors["mapping.0.weight"])


def test_command_writes_weights_that_load(weights, tmp_path):
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_weights(source, weights.architecture, weights.tensors, weights.metadata)
    assert main([str(source), "7", "-o", str(target)]) == 0
    stored = load_weights(source)
    expected = turn_seeds(stored, 42, 7).tensors["mapping.0.weight"]
    torch.testing.assert_close(
        load_weights(target).tensors["mapping.0.weight"], expected, rtol=2e-3, atol=1e-3
    )
