"""Looks: colours of places, seeds that are spread as drawings' colours are, and the style head. Device: CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import WeightsError
from engines.weights import COLORS, STYLE_ENCODER, Weights, load_weights, save_weights
from tests.golden import golden_weights, narrow
from tests.random_trunk import random_trunk
from tests.toy_domains import toy_domains, write_domains
from train.data import Domains
from train.finetune.colors import (
    FACE_EYES,
    Effort,
    Warp,
    correlations,
    drawing_colors,
    energy,
    fit_looks,
    fit_warp,
    learn_colors,
    main,
    meet_codes,
    place_colors,
    read_codes,
    read_stems,
    teach_head,
    teach_mapping,
    too_long,
    views,
)
from train.networks import load_networks
from train.trunk import Trunk

ARCHITECTURE = narrow(size=32, num_down=2, latent_dim=4, style_dim=16)
QUICK = Effort(samples=200, probe=30, checks=20, model=150, warp=60, mapping=60, head=40)
BRIEF = Effort(samples=60, probe=10, checks=10, model=20, warp=10, mapping=10, head=10)
"""Where it does not matter how well it is learned."""
HAIR, SKIN, IRIS = (0.6, -0.2, -0.5), (0.9, 0.7, 0.55), (-0.6, 0.1, 0.8)


def face(side: int = 256, eyes: tuple[tuple[float, float], ...] = FACE_EYES) -> torch.Tensor:
    """Hair above a face with round eyes, black pupils and a white background, (1, 3, side, side)."""
    y, x = torch.meshgrid(*2 * (torch.arange(256) + 0.5,), indexing="ij")
    picture = torch.ones(3, 256, 256)

    def fill(where: torch.Tensor, color: tuple[float, float, float]) -> None:
        picture[:, where] = torch.tensor(color)[:, None]

    fill((x - 128) ** 2 + (y - 128) ** 2 < 140**2, HAIR)
    fill((x - 128).abs() + (y - 130).abs() * 0.8 < 100, SKIN)
    for column, row in eyes:
        distance = (x - column) ** 2 + (y - row) ** 2
        fill(distance < 12**2, IRIS)
        fill(distance < 4**2, (-1.0, -1.0, -1.0))
    return F.interpolate(picture[None], size=(side, side), mode="area")


def straight_eyes(count: int) -> torch.Tensor:
    return (torch.tensor(FACE_EYES) / 128 - 1).expand(count, 2, 2)


@pytest.mark.parametrize("side", [128, 256, 320])
def test_colors_are_those_of_skin_hair_and_irises(side):
    found = place_colors(face(side))
    torch.testing.assert_close(found, torch.tensor([[*SKIN, *HAIR, *IRIS, *HAIR]]), atol=0.12, rtol=0)


def test_irises_are_read_where_the_eyes_are():
    low = tuple((column + 6, row + 14) for column, row in FACE_EYES)
    picture = face(eyes=low)
    there = place_colors(picture, torch.tensor([low]) / 128 - 1)
    torch.testing.assert_close(there[0, 6:9], torch.tensor(IRIS), atol=0.06, rtol=0)
    assert not torch.allclose(place_colors(picture)[0, 6:9], torch.tensor(IRIS), atol=0.06)


def test_the_hair_of_a_drawing_is_that_of_its_sides():
    drawings = ((face() + 1) * 127.5).byte().repeat(3, 1, 1, 1)
    drawings[:, :, 100:180, 200:] = 255  # a bright wall
    found = drawing_colors(drawings, straight_eyes(3))
    torch.testing.assert_close(found[:, 9:], found[:, 3:6])
    torch.testing.assert_close(found[0, 9:], torch.tensor(HAIR), atol=0.02, rtol=0)


@given(seed=st.integers(0, 1000), count=st.integers(2, 30))
@settings(max_examples=25, deadline=None)
def test_energy_is_a_distance_of_distributions(seed, count):
    draw = torch.Generator().manual_seed(seed)
    a, b = torch.randn(count, 3, generator=draw), torch.randn(count + 1, 3, generator=draw)
    torch.testing.assert_close(energy(a, b), energy(b, a))
    torch.testing.assert_close(energy(a + 2, b + 2), energy(a, b), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(energy(3 * a, 3 * b), 3 * energy(a, b), atol=1e-4, rtol=1e-4)
    assert float(energy(a, b + 50)) > 80


def test_energy_of_two_halves_of_one_cloud_is_nothing():
    cloud = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    assert abs(float(energy(cloud[:2000], cloud[2000:]))) < 5e-3
    assert float(energy(cloud[:2000], 1.5 * cloud[2000:])) > 0.05


def test_views_hold_every_place_and_how_they_differ():
    colors = torch.arange(12.0)[None]
    whole, *places, difference = views(colors)
    assert torch.equal(whole, colors[:, :9]) and torch.equal(torch.cat(places, 1), whole)
    assert torch.equal(difference, torch.full((1, 3), -3.0))


def test_only_what_is_too_long_costs():
    styles = torch.tensor([[3.0, 0, 0, 0], [0, 5, 0, 0]])
    assert float(too_long(styles, 3)) == 0
    assert float(too_long(styles, 2)) == pytest.approx(0.05 * 0.5)


@pytest.fixture(scope="module")
def scene():
    """Styles, their colours by a formula, a model learned from both, and colours that drawings might have."""
    draw = torch.Generator().manual_seed(0)
    mix = torch.randn(4, 12, generator=draw) / 2
    styles = 1.5 * torch.randn(1500, 4, generator=draw)
    colors = torch.tanh(styles @ mix)
    drawings = torch.tanh((torch.randn(1500, 4, generator=draw) * torch.tensor([0.3, 1, 1, 1.5]) + 0.8) @ mix)
    return styles, colors, learn_colors(styles[:1200], colors[:1200], draw, steps=500), drawings


def test_colors_are_learned_from_styles(scene):
    styles, colors, model, _ = scene
    with torch.no_grad():
        missed = F.mse_loss(model(styles[1200:]), colors[1200:]) / colors.var()
    assert float(missed) < 0.02


def test_seeds_are_laid_where_the_styles_of_drawings_lie(weights, domains):
    before, reader = load_networks(weights)
    stems = read_stems(reader, domains.train_b.images)[:, 0]
    codes = read_codes(reader, stems)
    after, reader = load_networks(meet_codes(weights, codes))
    met = read_codes(reader, stems)
    with torch.no_grad():
        torch.testing.assert_close(after.mapping(met), before.mapping(codes), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(met.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    assert float(codes.std()) < 1 and met.std(0).max() <= 1.001


def test_a_warp_begins_as_nothing():
    seeds = torch.randn(5, 4)
    assert torch.equal(Warp(4)(seeds), seeds)


@pytest.mark.slow
def test_seeds_get_the_colors_of_drawings(scene):
    _, _, model, drawings = scene
    warp = fit_warp(model, drawings, 4, torch.Generator().manual_seed(1), steps=250)
    seeds = torch.randn(1000, 4, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before, after = (float(energy(model(styles), drawings)) for styles in (seeds, warp(seeds)))
        assert after < 0.3 * before
        assert float(warp(seeds).norm(dim=1).mean()) < 4


def test_the_mapping_network_learns_a_warp():
    network, _ = load_networks(golden_weights(ARCHITECTURE, style_encoder=True))
    warp = Warp(4)
    torch.nn.init.constant_(warp.move[-1].bias, 0.5)
    warp.requires_grad_(False)
    seeds = torch.randn(500, 4, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        wanted, before = network.mapping(warp(seeds)), network.mapping(seeds)
    missed = teach_mapping(network.mapping, warp, torch.Generator().manual_seed(4), steps=400)
    with torch.no_grad():
        after = network.mapping(seeds)
    assert F.mse_loss(after, wanted) < 0.2 * F.mse_loss(before, wanted)
    assert float(F.mse_loss(after, wanted) / wanted.var(0).mean()) == pytest.approx(float(missed), rel=0.5)


def test_the_style_head_learns_to_give_a_drawings_colors(scene):
    _, _, model, drawings = scene
    head = torch.nn.Sequential(torch.nn.Linear(12, 32), torch.nn.SiLU(), torch.nn.Linear(32, 4))
    stems = (drawings[:, None] + torch.tensor([0.0, 0.01])[:, None]).half()
    teach_head(head, stems, drawings, model, Warp(4), torch.Generator().manual_seed(5), steps=400)
    with torch.no_grad():
        found = model(head(drawings))
    assert float(correlations(found, drawings)[:3].min()) > 0.9


def test_correlations_are_by_place():
    wanted = torch.randn(200, 12, generator=torch.Generator().manual_seed(6))
    found = wanted.clone()
    found[:, 3:6] *= -2
    found[:, 6:9] = torch.randn(200, 3, generator=torch.Generator().manual_seed(7))
    skin, hair, irises, sides = correlations(found, wanted).tolist()
    assert skin == pytest.approx(1, abs=1e-5) and sides == pytest.approx(1, abs=1e-5)
    assert hair == pytest.approx(-1, abs=1e-5) and abs(irises) < 0.2


@pytest.fixture(scope="module")
def domains() -> Domains:
    return toy_domains()


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Of a random network, its pictures brought within black and white."""
    found = golden_weights(ARCHITECTURE, style_encoder=True)
    tensors = {name: 0.2 * t if name.startswith("to_rgb") else t for name, t in found.tensors.items()}
    return replace(found, tensors=tensors)


@pytest.fixture(scope="module")
def fitted(weights, domains):
    lines: list[str] = []
    done = fit_looks(weights, domains, straight_eyes(24), effort=QUICK, log=lines.append)
    return done, lines


@pytest.mark.slow
def test_only_mapping_network_and_style_head_change(weights, fitted):
    after = fitted[0].tensors
    assert {name for name in after if not name.startswith(COLORS)} == weights.tensors.keys()
    assert fitted[0].has_colors and not weights.has_colors
    for name, tensor in weights.tensors.items():
        learns = name.startswith(("mapping.", f"{STYLE_ENCODER}style."))
        assert torch.equal(after[name], tensor) != learns, name
    assert fitted[0].metadata["seeds"] == "spread as the colours of drawings"


@pytest.mark.slow
def test_every_part_says_how_well_it_went(fitted):
    text = "\n".join(fitted[1])
    assert "of 500 faces have hair" in text
    for said, times in {"not the style's": 1, "energy distance": 2, "missed": 1, "correlation": 3}.items():
        assert text.count(said) == times
    assert "nan" not in text


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(weights, domains):
    one, again = (
        fit_looks(weights, domains, straight_eyes(24), effort=BRIEF, log=lambda line: None).tensors
        for _ in range(2)
    )
    assert one.keys() == again.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in one.items())


def test_stems_are_read_of_drawings_and_of_their_mirror_images(weights, domains):
    _, reader = load_networks(weights)
    stems = read_stems(reader, domains.train_b.images[:10])
    mirrored = read_stems(reader, domains.train_b.images[:10].flip(-1))
    assert stems.shape[:2] == (10, 2) and stems.dtype == torch.float16
    torch.testing.assert_close(stems.flip(1), mirrored)


def test_weights_without_a_style_head_are_refused(weights, domains):
    bare = {name: t for name, t in weights.tensors.items() if not name.startswith(STYLE_ENCODER)}
    with pytest.raises(WeightsError, match="no style encoder"):
        fit_looks(replace(weights, tensors=bare), domains, straight_eyes(24), effort=QUICK)


@pytest.mark.slow
def test_command_writes_weights_that_load(weights, domains, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fit_looks, "__kwdefaults__", {**fit_looks.__kwdefaults__, "effort": BRIEF})
    write_domains(domains, tmp_path)
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_weights(source, weights.architecture, weights.tensors, weights.metadata)
    monkeypatch.setattr(Trunk, "load", lambda *_: random_trunk())
    assert main([str(source), str(tmp_path), "-o", str(target)]) == 0
    assert "eyes of 24 drawings found" in capsys.readouterr().out
    written = load_weights(target)
    assert written.metadata["seeds"] == "spread as the colours of drawings"
    assert not torch.equal(
        written.tensors["mapping.0.weight"], load_weights(source).tensors["mapping.0.weight"]
    )
