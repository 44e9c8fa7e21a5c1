"""Folding is exact: baked and dynamic graphs equal the trainable network for any architecture. Device: CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.official import OfficialGenerator, normalise, quantise
from engines.architecture import Architecture
from engines.graph import ContentEncoder, Decoder, MappingNetwork, StyleEncoder, StyleVectors
from engines.graph_layers import shown_places
from engines.weights import Weights
from gnr_video.tracking.alignment import head_margins, head_side
from tests.golden import fill_tensor, generator_state, golden_weights, narrow, relative_error

TOLERANCE = 1e-5


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tiny networks: threads cost more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    size = draw(st.sampled_from([16, 32]))
    resolutions = [2**i for i in range(2, size.bit_length())]
    num_down = draw(st.integers(1, len(resolutions) - 1))
    coarse = draw(st.integers(0, len(resolutions) - 1 - num_down))
    return Architecture(
        size=size,
        num_down=num_down,
        n_res=draw(st.integers(0, 3)),
        latent_dim=draw(st.integers(1, 9)),
        style_dim=draw(st.integers(1, 20)),
        n_mlp=draw(st.integers(1, 4)),
        content_kernel=draw(st.sampled_from([1, 3])),
        channels={r: draw(st.integers(1, 12)) for r in resolutions},
        coarse=coarse,
        place=draw(st.integers(0, 12)) if coarse else 0,
    )


def pictures(size: int, count: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator(seed))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=12, deadline=None)
@given(architecture=architectures(), seed=st.integers(0, 1000), batch=st.integers(1, 3))
def test_any_architecture_equals_the_official_path(architecture, seed, batch):
    weights = golden_weights(architecture, style_encoder=True, seed=seed)
    official = OfficialGenerator(weights)
    images = pictures(architecture.size, batch, seed)
    z = torch.randn(batch, architecture.latent_dim, generator=generator(seed))
    with torch.inference_mode():
        content = official.encode(normalise(images))
        w = official.mapping(z)
        expected = official.decode(content, w)
        vectors = StyleVectors(weights)(w)
        assert relative_error(MappingNetwork(weights)(z), w) < TOLERANCE
        assert relative_error(ContentEncoder(weights)(images), content) < TOLERANCE
        style = official.encode_style(normalise(images))
        # A code of few numbers may be next to nothing, a sum that cancels itself.
        found = StyleEncoder(weights)(images)
        assert (found - style).abs().max() < TOLERANCE * style.abs().max().clamp(min=0.1)
        for up in ("transposed", "polyphase"):
            dynamic = Decoder(weights, up=up)
            assert relative_error(dynamic.features(content, vectors), expected) < TOLERANCE
            baked = Decoder(weights, vectors[:1], up=up)
            assert relative_error(baked.features(content[:1]), expected[:1]) < TOLERANCE


@pytest.mark.parametrize(("num_down", "coarse", "place"), [(3, 0, 0), (2, 2, 5)])
def test_equals_the_trainable_network(num_down, coarse, place):
    from train.networks import Generator

    architecture = narrow(size=64, num_down=num_down, n_res=2, content_kernel=3, coarse=coarse, place=place)
    state = generator_state(architecture, seed=3)
    trainable = Generator(architecture)
    trainable.load_state_dict(state)
    trainable.eval()
    styled = {f"style_{name}": t for name, t in state.items() if name.startswith("encoder.")}
    weights = Weights(architecture, {**state, **styled})
    images = pictures(64, 2, 5)
    z = torch.randn(2, 8, generator=generator(6))
    with torch.inference_mode():
        content, style = trainable.encode(normalise(images))
        expected = trainable.decode(content, z)
        vectors = StyleVectors(weights)(MappingNetwork(weights)(z))
        assert relative_error(ContentEncoder(weights)(images), content) < TOLERANCE
        assert relative_error(StyleEncoder(weights)(images), style) < TOLERANCE
        assert relative_error(Decoder(weights).features(content, vectors), expected) < TOLERANCE
        for i in range(2):
            baked = Decoder(weights, vectors[i])
            assert relative_error(baked.features(content[i : i + 1]), expected[i : i + 1]) < TOLERANCE


@pytest.mark.parametrize("cells", [8, 16, 64])
def test_a_face_has_the_places_that_it_has_in_its_head(cells):
    pixels = 32  # a cell's, whose number does not matter
    left, _, top, _ = head_margins(cells * pixels)
    architecture = replace(narrow(), coarse=1, place=head_side(cells))
    row, column = architecture.place_start(cells)
    assert abs(row - top / pixels) <= 0.5 and column == left // pixels
    assert architecture.place_start(architecture.place) == (0, 0)

    places = torch.randn(3, architecture.place, architecture.place, generator=generator(0))
    face = shown_places(places, architecture, cells)
    assert torch.equal(face, places[:, row : row + cells, column : column + cells])
    assert torch.equal(shown_places(places, architecture, architecture.place), places)
    wider = shown_places(places, architecture, 2 * cells)
    assert torch.equal(wider[:, 0, 0], places[:, 0, 0])  # beyond it, its outermost cells
    assert torch.equal(wider[:, -1, -1], places[:, -1, -1])


def test_bytes_are_rounded_and_clamped():
    weights = golden_weights(narrow())
    official = OfficialGenerator(weights)
    images = pictures(64, 1, 0)
    z = 3 * torch.randn(1, 8, generator=generator(0))
    with torch.inference_mode():
        w = official.mapping(z)
        expected = quantise(official.decode(official.encode(normalise(images)), w))
        found = Decoder(weights)(ContentEncoder(weights)(images), StyleVectors(weights)(w))
    assert found.dtype == torch.uint8 and found.shape == (1, 64, 64, 3)
    assert (expected == 0).any() and (expected == 255).any()
    difference = (found.int() - expected.int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 1e-3


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_vectors_are_normalised_against_overflow(scale):
    """Demodulation cancels the scale of weights and styles; half precision must not see it in between."""
    architecture = narrow()
    weights = golden_weights(architecture)
    tensors = dict(weights.tensors)
    for name in tensors:
        if ".conv.weight" in name and not name.startswith("to_rgb"):
            tensors[name] = tensors[name] * scale
    scaled = Weights(architecture, tensors)
    w = torch.randn(1, architecture.style_dim, generator=generator(1))
    content = torch.randn(1, architecture.content_channels, 8, 8, generator=generator(2))
    with torch.inference_mode():
        official = OfficialGenerator(scaled)
        expected = official.decode(content, w)
        vectors = StyleVectors(scaled)(w)
        decoder = Decoder(scaled)
        assert relative_error(decoder.features(content, vectors), expected) < TOLERANCE
        assert max(layer.conv.weight.abs().max() for layer in decoder.layers) <= 1
        half = decoder.half().features(content.half(), vectors.half())
        assert torch.isfinite(half).all()


def test_a_style_encoder_is_needed_for_references():
    from engines.errors import WeightsError

    with pytest.raises(WeightsError, match="no style encoder"):
        StyleEncoder(golden_weights(narrow()))


def test_recipe_is_deterministic():
    assert torch.equal(fill_tensor("conv1.conv.weight", (2, 2)), fill_tensor("conv1.conv.weight", (2, 2)))
