"""Perceptual path length, separability, fitted styles and directions, with known answers. Device: CPU."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import engines
from cli import command
from engines.errors import InputError
from engines.weights import load_weights
from gnr_video.styles.saved import load_style
from tests.test_lpips import random_trunk
from train.metrics.pictures import Folder
from train.metrics.style_space import (
    ATTRIBUTES,
    FloatGenerator,
    linear_separability,
    perceptual_path_length,
    picture_attributes,
)
from train.metrics.style_tools import attribute_direction, encode_styles, fit_style


def squared(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b).double().square().flatten(1).sum(1)


def test_path_length_of_a_linear_generator_is_the_formula():
    # G(w) = A w with squared distance: |A (w1 - w0)|^2, wherever on the path.
    generator = torch.Generator().manual_seed(0)
    starts, ends = torch.randn(2, 40, 5, generator=generator, dtype=torch.float64)
    a = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    lengths = ((ends - starts) @ a.T).square().sum(1).numpy()
    low, high = np.percentile(lengths, 1, method="lower"), np.percentile(lengths, 99, method="higher")
    found = perceptual_path_length(lambda i, w: w @ a.T, squared, starts, ends)
    assert found.value == pytest.approx(lengths[(lengths >= low) & (lengths <= high)].mean(), rel=1e-4)
    assert found.low < found.value < found.high
    still = perceptual_path_length(lambda i, w: torch.ones(1, 3), squared, starts, ends)
    assert still.value == 0


def test_path_length_of_a_bend():
    # G(w) = w^2 in one dimension, from 0 to 1: (d/dt t^2)^2 = 4 t^2, on average 4/3.
    starts, ends = torch.zeros(4000, 1, dtype=torch.float64), torch.ones(4000, 1, dtype=torch.float64)
    found = perceptual_path_length(lambda i, w: w.square(), squared, starts, ends)
    assert found.value == pytest.approx(4 / 3, rel=0.05)


def test_separability_of_known_attributes():
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((4000, 8))
    known = linear_separability(codes, codes[:, :2] * 3 + 1)
    assert known.value == pytest.approx(1, abs=0.1)
    unknown = linear_separability(codes, rng.standard_normal((4000, 3)))
    assert unknown.value == pytest.approx(2**3, rel=0.03)
    # Told rightly in 80 of 100 cases: the entropy of a coin of 0.8, for each of two attributes.
    told = np.where(rng.random((4000, 1)) < 0.8, 1, -1)
    sign = np.sign(codes[:, :1]) * told + 1e-3 * rng.standard_normal((4000, 1))
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    partly = linear_separability(codes, np.hstack([sign, sign]))
    assert partly.value == pytest.approx(math.exp(2 * entropy), rel=0.1)
    assert partly.low < partly.value < partly.high
    with pytest.raises(InputError, match="20 style codes"):
        linear_separability(codes[:5], codes[:5])


def test_attributes_of_plain_pictures():
    red = np.zeros((50, 50, 3), np.uint8)
    red[..., 0] = 255
    grey = np.full((50, 50, 3), 51, np.uint8)
    grey[:10] = 255
    found = dict(zip(ATTRIBUTES, picture_attributes([red, grey]).T))
    assert found["brightness"] == pytest.approx([0.299, 0.36])
    assert found["saturation"] == pytest.approx([1, 0])
    assert found["warmth"] == pytest.approx([1, 0])
    assert found["contrast"] == pytest.approx([0, 0.32])
    assert found["hair brightness"] == pytest.approx([1 / 3, 1])


def test_float_pictures_round_to_the_engines(tiny):
    weights = load_weights(tiny)
    generator = FloatGenerator(weights)
    rng = np.random.default_rng(0)
    crop = rng.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    z = rng.standard_normal((1, 8)).astype(np.float32)
    picture = generator.decode(generator.content(crop), generator.mapping(torch.from_numpy(z)))
    with engines.create(weights, engine="torch", precision="fp32") as engine:
        expected = engine.translate(crop, z)[0]
    found = ((picture[0].permute(1, 2, 0) + 1) * 127.5).numpy()
    assert np.abs(found - expected).max() < 0.51 + 1e-3


def test_a_style_is_found_again(tiny):
    """A picture made under a style: fitting on it comes back close to that picture."""
    weights = load_weights(tiny)
    rng = np.random.default_rng(1)
    face = cv2.resize(
        rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), (64, 64), interpolation=cv2.INTER_CUBIC
    )
    z = rng.standard_normal(8).astype(np.float32)
    with engines.create(weights, engine="torch", precision="fp32") as engine:
        target = engine.translate(face[None], z[None])[0]
    fitted = fit_style(weights, target, face=face, start=np.zeros(8), steps=30, lr=0.3, prior=0.0)
    assert fitted.after < 0.1 * fitted.before
    # From the encoder's code, and never worse than it.
    again = fit_style(weights, target, steps=3)
    assert again.after <= again.before
    with pytest.raises(InputError, match="8 numbers"):
        fit_style(weights, target, start=np.zeros(3), steps=1)


def test_direction_between_two_groups():
    rng = np.random.default_rng(2)
    offset = np.array([3.0, 0, -2, 0])
    a, b = rng.standard_normal((400, 4)) + offset, rng.standard_normal((300, 4))
    direction = attribute_direction(a, b)
    assert direction.vector == pytest.approx(offset, abs=0.25)
    # Two unit Gaussians this far apart overlap by the normal distribution's tail.
    expected = 0.5 * (1 + math.erf(math.hypot(3, 2) / 2 / math.sqrt(2)))
    assert direction.accuracy == pytest.approx(expected, abs=0.02)
    assert direction.counts == (400, 300)
    moved = direction.apply(b.mean(0), 1.0)
    assert moved == pytest.approx(a.mean(0), abs=1e-5)
    with pytest.raises(InputError, match="same mean"):
        attribute_direction(a, a)
    with pytest.raises(InputError, match="two groups"):
        attribute_direction(a, b[:, :2])


@pytest.fixture
def groups(tmp_path):
    rng = np.random.default_rng(3)
    for name, level in (("light", 200), ("dark", 60)):
        (tmp_path / name).mkdir()
        for i in range(3):
            picture = np.clip(rng.normal(level, 12, (40, 40, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(tmp_path / name / f"{i}.png"), picture)
    (tmp_path / "light" / "broken.png").write_bytes(b"broken")
    return tmp_path


def test_directions_from_folders(groups, tiny):
    with engines.create(load_weights(tiny), engine="torch", precision="fp32") as engine:
        light, dark = (Folder.open(groups / name) for name in ("light", "dark"))
        direction = attribute_direction(encode_styles(engine, light), encode_styles(engine, dark))
    assert direction.vector.shape == (8,)
    assert direction.accuracy == 1
    assert direction.counts == (3, 3)
    assert len(light.skipped) == 1


def styles(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(command, ["styles", *map(str, arguments)])
    return result.exit_code, result.output


def test_commands(groups, tiny, tmp_path):
    trunk = tmp_path / "vgg.pth"
    torch.save({k: v.half() for k, v in random_trunk("vgg").items()}, trunk)
    out = tmp_path / "fitted.style.json"
    fit = [
        "fit",
        groups / "light" / "0.png",
        "-o",
        out,
        "--steps",
        2,
        "--weights",
        tiny,
        "--lpips-trunk",
        trunk,
    ]
    code, text = styles(*fit)
    assert code == 0, text
    moved = tmp_path / "moved.style.json"
    code, text = styles(
        *("direction", groups / "light", groups / "dark", "--style", out, "-o", moved, "--amount", 2),
        *("--weights", tiny, "--engine", "torch"),
    )
    assert code == 0, text
    assert "3 with, 3 without" in text
    assert "broken.png" in text
    weights = load_weights(tiny)
    with engines.create(weights, engine="torch", precision="fp32") as engine:
        before, after = (load_style(path, engine).array() for path in (out, moved))
        light, dark = (encode_styles(engine, Folder.open(groups / name)) for name in ("light", "dark"))
    assert after - before == pytest.approx(2 * (light.mean(0) - dark.mean(0)), abs=1e-3)
    code, text = styles("fit", groups / "none.png", "-o", out)
    assert code != 0
    assert "error:" in text
