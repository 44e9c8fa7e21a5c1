"""The folded graphs and the baseline give the official networks' outputs (golden_seed7.npz). Device: CPU."""

from __future__ import annotations

import pytest
import torch

from benchmarks.official import OfficialGenerator
from engines.graph import ContentEncoder, Decoder, MappingNetwork, StyleEncoder, StyleVectors
from tests.golden import golden_inputs, golden_outputs, golden_weights, relative_error

TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def weights():
    return golden_weights(style_encoder=True)


@pytest.fixture(scope="module")
def golden():
    x, z = golden_inputs()
    return {"x": x[:1], "z": z[:1], **golden_outputs()}


def test_baseline(weights, golden):
    official = OfficialGenerator(weights)
    content = official.encode(golden["x"])
    w = official.mapping(golden["z"])
    assert relative_error(content, golden["content"]) < TOLERANCE
    assert relative_error(official.encode_style(golden["x"]), golden["style"]) < TOLERANCE
    assert relative_error(w, golden["w"]) < TOLERANCE
    assert relative_error(official.decode(content, w), golden["image"]) < TOLERANCE


def test_content_encoder(weights, golden):
    encoder = ContentEncoder(weights)
    content = encoder.features((golden["x"] + 1) * 127.5)
    assert relative_error(content, golden["content"]) < TOLERANCE


def test_style_encoder(weights, golden):
    encoder = StyleEncoder(weights)
    assert relative_error(encoder.features((golden["x"] + 1) * 127.5), golden["style"]) < TOLERANCE


def test_mapping(weights, golden):
    assert relative_error(MappingNetwork(weights)(golden["z"]), golden["w"]) < TOLERANCE


@pytest.mark.parametrize("form", ["baked", "dynamic"])
def test_decoder(weights, golden, form):
    vectors = StyleVectors(weights)(golden["w"])
    decoder = Decoder(weights, vectors) if form == "baked" else Decoder(weights)
    image = decoder.features(golden["content"], None if form == "baked" else vectors)
    assert relative_error(image, golden["image"]) < TOLERANCE
