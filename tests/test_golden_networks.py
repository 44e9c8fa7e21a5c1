"""The trainable networks give the official networks' outputs. Device: CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engines.architecture import OFFICIAL_CHANNELS, Architecture, detect, generator_tensors
from engines.errors import WeightsError
from tests.golden import GOLDEN_FILE, fill_
from train.losses import r1_penalty
from train.networks import Discriminator, Generator, LatentDiscriminator

RELATIVE = 1e-4


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN_FILE)


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.RandomState(10)
    x = rng.uniform(-1, 1, (4, 3, 256, 256)).astype(np.float32)
    return torch.from_numpy(x), torch.from_numpy(rng.standard_normal((4, 8)).astype(np.float32))


@pytest.fixture(scope="module")
def discriminator():
    network = Discriminator(256, {r: c for r, c in OFFICIAL_CHANNELS.items() if r <= 256})
    fill_(network.state_dict(), 8)
    return network


def check(found: torch.Tensor, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found.detach().numpy() - expected).max() <= RELATIVE * np.abs(expected).max()


@torch.no_grad()
def test_generator(golden, inputs):
    x, z = inputs
    network = Generator(Architecture())
    fill_(network.state_dict(), 7)
    content, style = network.encode(x[:1])
    check(content, golden["content"])
    check(style, golden["style"])
    check(network.mapping(z[:1]), golden["w"])
    check(network.decode(torch.from_numpy(golden["content"]), z[:1]), golden["image"])


@pytest.mark.slow
def test_discriminator_and_its_r1(golden, inputs, discriminator):
    x = inputs[0].clone().requires_grad_(True)
    heads = discriminator(x)
    for head, name in zip(heads, ("d_local", "d_global", "d_std"), strict=True):
        check(head, golden[name])
    penalties = torch.stack([r1_penalty([head], x, "mean") for head in heads])
    check(penalties, golden["d_r1"])


@torch.no_grad()
def test_latent_discriminator(golden, inputs):
    network = LatentDiscriminator()
    fill_(network.state_dict(), 9)
    check(network(inputs[1]), golden["latent"])


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(),
        Architecture(num_down=3),
        Architecture(content_kernel=3),
        Architecture(64, 2, 2, 4, 24, 3, 1, {4: 8, 8: 12, 16: 20, 32: 16, 64: 8}),
        Architecture(64, 2, 1, 4, 24, 3, 3, {4: 8, 8: 12, 16: 20, 32: 16, 64: 8}, coarse=2),
        Architecture(64, 2, 1, 4, 24, 3, 3, {4: 8, 8: 12, 16: 20, 32: 16, 64: 8}, coarse=1, place=10),
    ],
    ids=lambda a: a.describe()[:40],
)
def test_names_and_shapes_are_the_architecture_s(architecture):
    shapes = {name: tuple(t.shape) for name, t in Generator(architecture).state_dict().items()}
    assert shapes == generator_tensors(architecture)
    assert detect(shapes) == architecture


@pytest.mark.parametrize("wrong", [{"place": 5}, {"coarse": 1, "place": -1}, {"coarse": 3}])
def test_what_makes_no_network(wrong):
    with pytest.raises(ValueError, match=r"map of places|place must be|coarse must leave"):
        Architecture(**wrong)


def test_detection_names_what_does_not_fit():
    shapes = generator_tensors(Architecture())
    shapes["convs.3.conv.weight"] = (1, 7, 7, 3, 3)
    with pytest.raises(
        WeightsError, match=r"convs\.3\.conv\.weight: expected \[1, 256, 256, 3, 3\], found \[1, 7"
    ):
        detect(shapes)
    with pytest.raises(WeightsError, match="not a GNR generator"):
        detect({"conv.weight": (3, 3)})
