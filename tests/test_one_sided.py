"""One-way training on pretrained features: the discriminator, its losses, and the trainer. Device: CPU.

The trunk has random weights here (the real ones are a download); what is tested does not depend on them.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.architecture import Architecture
from engines.errors import InputError, ModelFileError
from engines.weights import load_weights
from gnr_video.tracking.alignment import face_part, head_side
from tests.random_trunk import random_trunk
from tests.toy_domains import toy_domains
from train import checkpoint, loop
from train.augment import blur, to_float
from train.data import Domains, ImagePool
from train.facial_parts import FacialPlaces
from train.one_sided import (
    PALETTE_DRAWINGS,
    TEXTURE_PICTURES,
    OneSidedTrainer,
    face_of,
    in_head,
    reproduction_error,
)
from train.projected import (
    TEXTURE_GRID,
    ProjectedDiscriminator,
    content_distance,
    cut_out,
    discriminator_hinge,
    energy_distance,
    generator_hinge,
    palette_cells,
    texture_cells,
    upper_part,
)
from train.recipes import Recipe, RecipeError, Stage, continued, get_recipe
from train.trunk import CHANNELS, TAP_RMS, Trunk

RECIPE = replace(
    get_recipe("cpu"),
    architecture=Architecture(64, 2, style_dim=32, channels={4: 32, 8: 32, 16: 32, 32: 16, 64: 16}),
    stages=(Stage(32, 3, 4), Stage(64, 3, 4, fade_steps=2)),
    styles_each=2,
    motion_every=2,
    warmup_steps=2,
)


@pytest.fixture(scope="module")
def domains() -> Domains:
    return toy_domains(64)


@pytest.fixture(autouse=True)
def short_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a new outer block has learned before training goes on is asked by none of the tests."""
    monkeypatch.setattr("train.one_sided.FIT_STEPS", 20)


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    return random_trunk()


def taps(count: int, seed: int, side: int = 128) -> list[torch.Tensor]:
    """Such as the trunk gives of pictures of that side."""
    generator = torch.Generator().manual_seed(seed)
    sides = [side >> level for level in range(1, 6)]
    return [
        torch.randn(count, c, s, s, generator=generator) * rms for c, s, rms in zip(CHANNELS, sides, TAP_RMS)
    ]


def picture(count: int, seed: int, side: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_every_level_is_judged_in_patches_the_palette_too_and_each_group_as_a_whole():
    logits = ProjectedDiscriminator(latent_dim=8, group=2)(taps(4, 1), picture(4, 1), torch.randn(4, 8))
    sides = [(4, 16), (4, 16), (4, 8), (4, 8), (4, 4), (4, 4), (2, 8), (2, 4)]
    assert [tuple(head.shape) for head in logits] == [(count, 1, side, side) for count, side in sides]
    assert all(head.dtype == torch.float32 and torch.isfinite(head).all() for head in logits)


def test_a_picture_is_judged_together_with_its_style():
    critic = ProjectedDiscriminator(latent_dim=8).eval()
    batch, shown, styles = taps(3, 1), picture(3, 1), torch.randn(3, 8)
    with_own, with_others = critic(batch, shown, styles), critic(batch, shown, styles.roll(1, 0))
    assert len(with_own) == 6
    assert not any(torch.allclose(a, b) for a, b in zip(with_own, with_others, strict=True))
    # Linear in the code: nothing is asked of the one in the middle.
    for plain, none in zip(critic(batch, shown), critic(batch, shown, 0 * styles), strict=True):
        torch.testing.assert_close(plain, none)


def places(opened: float = 0.5, shift: float = 0.0) -> FacialPlaces:
    centres = torch.tensor([[-0.3, -0.3], [0.3, -0.3], [0.0, 0.3]]).expand(2, -1, -1)
    return FacialPlaces(centres + shift, torch.full((2,), opened))


def test_eyes_and_mouths_are_judged_where_they_are():
    critic = ProjectedDiscriminator(components=True).eval()
    batch, shown = taps(2, 3), picture(2, 3)
    logits = critic(batch, shown, places=places())
    assert [head.shape[0] for head in logits[6:]] == [4, 2] * 3
    assert len(critic(batch, shown)) == 6
    elsewhere = [torch.where(torch.arange(t.shape[-1]) < t.shape[-1] * 0.95, t, 0) for t in batch]
    for here, there in zip(logits[6:8], critic(elsewhere, shown, places=places())[6:8]):
        torch.testing.assert_close(here[1:2], there[1:2], atol=0.05, rtol=0)
    assert not torch.allclose(logits[6], critic(batch, shown, places=places(shift=0.2))[6])


def test_mouths_alone_are_judged_with_how_far_they_ought_to_be_open():
    critic = ProjectedDiscriminator(components=True).eval()
    shut, half, wide = (
        critic(taps(2, 3), picture(2, 3), places=places(opened)) for opened in (0.0, 0.5, 1.0)
    )
    for i, (a, b) in enumerate(zip(shut, wide, strict=True)):
        assert torch.allclose(a, b) == (i not in (7, 9, 11))
        torch.testing.assert_close((a + b) / 2, half[i])


def test_what_is_around_a_face_is_judged_without_what_is_above_and_below():
    heads = torch.arange(320.0)[None, None, :, None].expand(2, 3, 320, 320)
    upper = upper_part(heads)
    assert upper.shape == (2, 3, 128, 320) and upper[0, 0, 0, 0] == 16
    judge = ProjectedDiscriminator(surroundings=True)
    sides = [(64 >> level, 160 >> level) for level in range(5)]
    seen = [torch.randn(2, count, *side) for count, side in zip(CHANNELS, sides)]
    logits = judge.judge_surroundings(seen, upper)
    assert [logit.shape[1:] for logit in logits] == [(1, 16, 40), (1, 8, 20), (1, 8, 20), (1, 2, 4)]
    assert not ProjectedDiscriminator().surroundings


@settings(max_examples=20, deadline=None)
@given(st.floats(-0.9, 0.9), st.floats(-0.9, 0.9))
def test_what_is_cut_out_lies_around_the_centre(x: float, y: float):
    ramp = torch.linspace(-1, 1, 65)[:64] + 1 / 64
    plane = torch.stack(torch.meshgrid(ramp, ramp, indexing="xy"))[None]
    cut = cut_out(plane, torch.tensor([[x, y]]))
    assert cut.shape == (1, 2, 16, 16)
    if max(abs(x), abs(y)) < 0.7:
        torch.testing.assert_close(cut.mean((2, 3)), torch.tensor([[x, y]]), atol=1e-4, rtol=0)


def test_projections_are_fixed_and_the_same_for_the_same_seed():
    one, two = ProjectedDiscriminator(), ProjectedDiscriminator()
    for a, b in zip(one.project(taps(2, 1)), two.project(taps(2, 1)), strict=True):
        assert torch.equal(a, b)
    assert not any("across" in name for name, _ in one.named_parameters())


def test_projections_keep_the_scale():
    for level in ProjectedDiscriminator().project(taps(4, 2)):
        assert 0.3 < level.square().mean().sqrt() < 3


def test_deviation_heads_see_only_how_much_the_pictures_of_a_group_differ():
    critic = ProjectedDiscriminator(group=2).eval()
    batch, shown = taps(4, 3), picture(4, 3)
    swapped = [1, 0, 3, 2]
    for a, b in zip(critic(batch, shown)[-2:], critic([t[swapped] for t in batch], shown)[-2:], strict=True):
        torch.testing.assert_close(a, b)
    alike = [t[[0, 0, 2, 2]] for t in batch]
    for a, b in zip(critic(batch, shown)[-2:], critic(alike, shown)[-2:], strict=True):
        assert not torch.allclose(a, b)


def test_palette_head_sees_colors_and_where_they_are_but_no_lines():
    critic, same = ProjectedDiscriminator().eval(), taps(2, 3)

    def palette(shown: torch.Tensor) -> torch.Tensor:
        return critic(same, shown)[5]

    blocks = picture(2, 4, 16).repeat_interleave(4, 2).repeat_interleave(4, 3)
    lines = torch.ones(64, 64)
    lines[::2] = -1
    torch.testing.assert_close(palette(blocks), palette(blocks + 0.3 * lines))
    assert not torch.allclose(palette(blocks), palette(blocks.flip(1)))
    assert not torch.allclose(palette(blocks), palette(blocks.flip(2)))


@pytest.mark.slow
def test_it_learns_to_tell_two_kinds_apart():
    critic = ProjectedDiscriminator(latent_dim=8)
    optimiser = torch.optim.Adam(critic.parameters(), 2e-3)
    first, shown = 0.0, picture(4, 0)
    for step in range(60):
        real, fake = taps(4, 2 * step, 64), [2 * tap for tap in taps(4, 2 * step + 1, 64)]
        loss = discriminator_hinge(critic(real, shown), critic(fake, shown))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        first = loss.item() if step == 0 else first
    assert loss.item() < 0.6 * first


@pytest.mark.parametrize("size", [16, 64, 256])
def test_a_face_inside_of_a_head_lies_where_the_pipeline_cuts_it(size):
    faces = picture(2, 5, size)
    heads = in_head(faces)
    assert heads.shape == (2, 3, head_side(size), head_side(size))
    torch.testing.assert_close(face_of(heads), faces)
    as_image = heads[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(face_part(as_image, size), faces[0].permute(1, 2, 0).numpy())


def test_hinge_losses_at_known_values():
    ones = [torch.ones(2, 1, 4, 4), torch.ones(2, 1)]
    minus = [-head for head in ones]
    assert discriminator_hinge(ones, minus).item() == 0
    assert discriminator_hinge(minus, ones).item() == 4
    assert generator_hinge(ones).item() == -1


def test_content_distance_does_not_see_the_look():
    tap = torch.randn(2, 8, 6, 6)
    assert content_distance(tap, 3 * tap + 1).item() < 1e-8
    assert content_distance(tap, tap.flip(-1)).item() > 0.5
    assert content_distance(tap, torch.randn(2, 8, 6, 6)).item() == pytest.approx(2, abs=0.4)


def test_palettes_are_compared_cell_by_cell():
    def plain(*greys: float) -> torch.Tensor:
        return torch.tensor(greys)[:, None, None, None].expand(-1, 3, 64, 64)

    def energy(fake: torch.Tensor, real: torch.Tensor) -> float:
        x, y = palette_cells(fake), palette_cells(real)
        return float(energy_distance(x, y, x))

    unit = 3**0.5
    assert energy(plain(1, 0), plain(1.5, 1.5)) == pytest.approx((2 - 1) * unit, abs=1e-5)
    assert energy(plain(1, 0), plain(0.5, 0.5)) == pytest.approx((1 - 1) * unit, abs=1e-5)
    left = torch.cat([plain(1, 1)[..., :32], plain(0, 0)[..., :32]], 3)
    assert energy(left, left) == pytest.approx(0, abs=1e-5)
    assert energy(left, left.flip(3)) == pytest.approx(2 * unit, abs=1e-5)


def test_colors_are_drawn_to_those_of_drawings_and_kept_apart():
    generator = torch.Generator().manual_seed(0)
    grey, red = torch.zeros(3), torch.tensor([0.5, -0.2, 0.0])

    def some(count: int, mean: torch.Tensor) -> torch.Tensor:
        return mean + 0.3 * torch.randn(4, count, 3, generator=generator)

    assert abs(float(energy_distance(some(300, red), some(300, red), some(300, red)))) < 0.02
    assert float(energy_distance(some(300, grey), some(300, red), some(300, grey))) > 0.2
    painted = some(64, grey).requires_grad_()
    for _ in range(300):
        energy_distance(painted, some(64, red), painted.detach()).backward()
        with torch.no_grad():
            painted -= 10.0 * painted.grad
        painted.grad = None
    torch.testing.assert_close(painted.detach().mean(1), red.expand(4, -1), atol=0.1, rtol=0)
    spread = painted.detach().std(1)
    assert float(spread.min()) > 0.2 and float(spread.max()) < 0.4  # as wide as the drawings' colours


def test_blur_leaves_what_is_coarse_and_takes_what_is_fine():
    generator = torch.Generator().manual_seed(0)
    coarse = F.interpolate(picture(2, 6, 4), 64, mode="bilinear")
    lines = torch.ones(64, 64)
    lines[::2] = -1
    left = [(blur(coarse + lines, generator) - coarse).abs().mean().item() for _ in range(12)]
    assert {round(amount) for amount in left} == {0, 1} and max(left) < 1.01


@pytest.mark.parametrize("side", [32, 128])
def test_a_wrong_hue_counts_more_than_as_much_of_wrong_lines(side):
    x = picture(2, 9, side) * 0.5
    hue = torch.tensor([0.2, -0.1, -0.1]).reshape(3, 1, 1)
    lines = torch.tensor([1.0, -1.0]).repeat(side // 2) * hue
    pixels = 2 * float(hue.abs().mean())
    assert float(reproduction_error(x, x)) == 0
    assert float(reproduction_error(x + lines, x)) == pytest.approx(pixels, rel=1e-4)
    assert float(reproduction_error(x + hue, x)) == pytest.approx(4 * pixels, rel=1e-4)


@pytest.mark.slow
def test_a_style_carries_the_colors_that_the_content_does_not_see(tmp_path, domains, trunk):
    """Reproduced from recoloured pictures, a drawing gets its colours from its style alone."""
    colors = torch.randint(0, 256, (24, 3, 1, 1), generator=torch.Generator().manual_seed(1))
    plain = ImagePool(colors.to(torch.uint8).expand(-1, -1, 64, 64).contiguous())
    data = replace(domains, train_a=plain, train_b=plain)
    recipe = replace(RECIPE, stages=(Stage(32, 200, 4), Stage(64, 1, 4)), warmup_steps=200)
    trainer = OneSidedTrainer(data, recipe, tmp_path, trunk=trunk, bf16=False)
    losses = [float(trainer.train_step()["reproduction"]) for _ in range(120)]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    red, blue = (torch.full((1, 3, 32, 32), -0.5) for _ in range(2))
    red[:, 0], blue[:, 2] = 0.8, 0.8
    net = trainer.networks.g_ab
    with torch.no_grad():
        content = net.content(torch.zeros(1, 3, 32, 32))
        difference = net.decode(content, net.style(red)) - net.decode(content, net.style(blue))
    more_red, _, more_blue = difference.mean((0, 2, 3))
    assert more_red > 0.1 and more_blue < -0.1


def test_trains_grows_and_writes_weights(tmp_path, domains, trunk):
    trainer = OneSidedTrainer(domains, RECIPE, tmp_path, trunk=trunk, bf16=False)
    assert trainer.size == 32
    terms = trainer.train_step()
    assert "adversarial" not in terms
    loop.run(trainer, steps=2, progress=lambda _: None)
    before = {n: p.clone() for n, p in trainer.networks.g_ab.named_parameters()}
    critic = [p.clone() for p in trainer.networks.d_b.parameters()]
    terms = trainer.train_step()
    assert {"adversarial", "content", "parts", "reproduction", "motion", "discriminator"} <= terms.keys()
    assert all(torch.isfinite(value) for value in terms.values())
    live = dict(trainer.networks.g_ab.named_parameters())
    unchanged = [n for n, p in before.items() if torch.equal(p, live[n])]
    assert not unchanged
    assert not all(torch.equal(a, b) for a, b in zip(critic, trainer.networks.d_b.parameters()))
    loop.run(trainer, progress=lambda _: None)
    assert trainer.size == 64
    weights = load_weights(tmp_path / "weights.safetensors")
    assert weights.architecture == RECIPE.architecture
    assert weights.has_style_encoder


def test_all_terms_work_in_bfloat16(tmp_path, domains, trunk):
    """What processors and GPUs that multiply it train in; emulated elsewhere."""
    recipe = replace(RECIPE, stages=(Stage(64, 3, 4),), warmup_steps=1, wide=0.5)
    trainer = OneSidedTrainer(domains, recipe, tmp_path, trunk=copy.deepcopy(trunk), bf16=True)
    assert all(torch.isfinite(value) for value in trainer.train_step().values())
    trainer.train_step()
    terms = trainer.train_step()
    assert {"adversarial", "motion", "reproduction", "palette", "texture"} <= terms.keys()
    assert all(torch.isfinite(value) for value in terms.values())


def test_where_codes_are_is_a_matter_of_the_style_head(tmp_path, domains, trunk):
    recipe = replace(RECIPE, stages=(Stage(64, 3, 4),), warmup_steps=0)
    trainer = OneSidedTrainer(domains, recipe, tmp_path, trunk=trunk, bf16=False)
    terms, _ = trainer._translate(trainer._draw(trainer._enter_step()))
    encoder = trainer.networks.g_ab.encoder

    def reaches(term: str, part: torch.nn.Module) -> bool:
        found = torch.autograd.grad(
            terms[term], list(part.parameters()), retain_graph=True, allow_unused=True
        )
        return any(gradient is not None and gradient.any() for gradient in found)

    assert reaches("latent", encoder.style)
    assert not reaches("latent", encoder.stem)
    assert reaches("reproduction", encoder.stem)


def test_whole_heads_are_seen_with_what_is_around_them(tmp_path, domains, trunk, monkeypatch):
    """Half of the wide steps show the heads, their surroundings as they are."""
    side = head_side(64)
    heads = ImagePool(torch.full((4, 3, side, side), 200, dtype=torch.uint8))
    loss = replace(RECIPE.loss, motion=0.0)
    recipe = replace(RECIPE, stages=(Stage(64, 3, 4),), warmup_steps=0, wide=1.0, loss=loss)
    trainer = OneSidedTrainer(replace(domains, heads=heads), recipe, tmp_path, trunk=trunk, bf16=False)
    seen = []
    monkeypatch.setattr("train.one_sided.overshadow", lambda x, _: seen.append(x) or x)
    for _ in range(8):
        assert all(torch.isfinite(value) for value in trainer.train_step().values())
    shown = [x for x in seen if x.shape == (2, 3, side, side)]
    assert len(shown) == 8
    is_head = [bool(((x - (200 / 127.5 - 1)).abs() < 1e-3).all()) for x in shown]
    assert 0 < sum(is_head) < 8
    with pytest.raises(InputError, match="heads"):
        OneSidedTrainer(replace(domains, heads=domains.train_a), recipe, tmp_path, trunk=trunk)


def test_moved_faces_are_lit_anew(tmp_path, domains, trunk, monkeypatch):
    """The motion term moves faces as they are, and covers them anew: else the light would move along."""
    recipe = replace(RECIPE, stages=(Stage(64, 3, 4),), warmup_steps=0, wide=0.0)
    trainer = OneSidedTrainer(domains, recipe, tmp_path, trunk=trunk, bf16=False)
    seen = []
    monkeypatch.setattr("train.one_sided.overshadow", lambda x, _: seen.append(x) or x * 0)
    assert trainer.recipe.motion_every == 2 and trainer.step == 0  # due at once
    assert float(trainer.train_step()["motion"]) > 0
    bare, moved, _ = seen  # the last are drawings, to be reproduced
    assert bare.shape == moved.shape and not torch.equal(bare, moved)
    assert moved.std() > 0.1 and moved.mean() == pytest.approx(float(bare.mean()), abs=0.2)  # not black


def test_hair_has_to_look_drawn(tmp_path, domains, trunk, monkeypatch):
    """In wide steps the upper part of whole heads is judged beside that of drawn ones; in others it is not."""
    side = head_side(64)
    heads = ImagePool(torch.full((4, 3, side, side), 200, dtype=torch.uint8))
    drawn = ImagePool(torch.full((4, 3, side, side), 90, dtype=torch.uint8))
    recipe = replace(RECIPE, stages=(Stage(64, 3, 4),), warmup_steps=0, wide=1.0)
    data = replace(domains, heads=heads, drawn_heads=drawn)
    trainer = OneSidedTrainer(data, recipe, tmp_path / "wide", trunk=trunk, bf16=False)
    judged: list[torch.Tensor] = []
    judge = trainer.networks.d_b.judge_surroundings
    monkeypatch.setattr(
        trainer.networks.d_b, "judge_surroundings", lambda taps, x: judged.append(x) or judge(taps, x)
    )
    before = [head.logit.weight.detach().clone() for head in trainer.networks.d_b.surroundings]
    while not judged:
        terms = trainer.train_step()
    assert torch.isfinite(terms["surroundings"])
    assert trainer.textures.keys() == {"face", "hair"}
    fake, real, again = judged
    assert fake.shape == (2, 3, round(side * 0.45) - round(side * 0.05), side) and fake.requires_grad
    assert torch.equal(again, fake) and not again.requires_grad
    torch.testing.assert_close(real, torch.full_like(real, 90 / 127.5 - 1))
    after = [head.logit.weight for head in trainer.networks.d_b.surroundings]
    assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    for name, other in (("face", replace(recipe, wide=0.0)), ("ada", replace(recipe, ada=0.6))):
        trainer = OneSidedTrainer(data, other, tmp_path / name, trunk=trunk, bf16=False)
        assert "surroundings" not in trainer.train_step()


def test_texture_is_what_features_are_and_how_far_they_vary_in_each_cell():
    """The left half is even, the right half a chequerboard of the same mean."""

    def tap(channels: int, rms: float, size: int) -> torch.Tensor:
        board = torch.ones(size, size)
        board[::2, ::2] = board[1::2, 1::2] = -1
        board[:, : size // 2] = 0.5
        return (rms * board).expand(2, channels, size, size)

    sizes = (64, 32, 16, 8, 8)
    cells = texture_cells([tap(*of) for of in zip(CHANNELS, TAP_RMS, sizes, strict=True)])
    for x, channels in zip(cells, CHANNELS, strict=True):
        assert x.shape == (TEXTURE_GRID**2, 2, 2 * channels)
        mean, deviation = (x * (2 * channels) ** 0.5).unflatten(0, (TEXTURE_GRID, TEXTURE_GRID)).chunk(2, -1)
        left, right = slice(None, TEXTURE_GRID // 2), slice(TEXTURE_GRID // 2, None)
        assert torch.allclose(mean[:, left], torch.tensor(0.5)) and deviation[:, left].max() < 0.1
        assert mean[:, right].abs().max() < 1e-5
        assert torch.allclose(deviation[:, right], torch.tensor(1.0), atol=1e-3)


def test_textures_are_compared_with_earlier_pictures(tmp_path, domains, trunk):
    recipe = replace(RECIPE, stages=(Stage(64, 40, 4),), warmup_steps=0)
    trainer = OneSidedTrainer(domains, recipe, tmp_path, trunk=trunk, bf16=False)
    generator = torch.Generator().manual_seed(0)

    def noise(size: float) -> list[torch.Tensor]:
        return trainer.trunk.features(size * torch.randn(4, 3, 64, 64, generator=generator))

    def distance(fake: float) -> float:
        trainer.textures = {}
        losses = [float(trainer._texture("face", noise(fake), noise(0.5))) for _ in range(30)]
        assert {cells.shape[1] for kind in trainer.textures["face"] for cells in kind} == {TEXTURE_PICTURES}
        return sum(losses[20:]) / 10

    assert abs(distance(0.5)) < 0.1 * distance(0.1)


def test_the_discriminator_rests_while_it_is_ahead(tmp_path, domains, trunk):
    def learned(name: str, rest: float) -> tuple[bool, float]:
        recipe = replace(RECIPE, stages=(Stage(64, 3, 4),), warmup_steps=0, d_rest=rest)
        trainer = OneSidedTrainer(domains, recipe, tmp_path / name, trunk=trunk, bf16=False, seed=3)
        before = [parameter.detach().clone() for parameter in trainer.networks.d_b.parameters()]
        loss = trainer.train_step()["discriminator"]
        assert not loss.requires_grad
        after = trainer.networks.d_b.parameters()
        return not all(torch.equal(old, new) for old, new in zip(before, after, strict=True)), float(loss)

    learns, loss = learned("never", 0.0)
    assert learns and 0 < loss < 2
    assert learned("above", loss + 1e-4) == (False, loss)
    assert learned("below", loss - 1e-4) == (True, loss)


def test_seeds_and_drawings_styles_are_each_compared_with_drawings(tmp_path, domains, trunk):
    """Black for seeds and white for drawings' styles is not what half black, half white drawings ask for."""
    black, white = (
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
        torch.full((1, 3, 64, 64), 255, dtype=torch.uint8),
    )
    drawings = ImagePool(torch.cat([black, white]).repeat(PALETTE_DRAWINGS // 2, 1, 1, 1))
    recipe = replace(RECIPE, stages=(Stage(64, 40, 4),), warmup_steps=0)

    def distance(name: str, *fake: torch.Tensor) -> float:
        data = replace(domains, train_b=drawings)
        trainer = OneSidedTrainer(data, recipe, tmp_path / name, trunk=trunk, bf16=False)
        for step in range(PALETTE_DRAWINGS):
            loss = trainer._palette(to_float(torch.cat(fake)))
            assert [cells.shape[1] for cells in trainer.painted] == [min(2 * step + 4, PALETTE_DRAWINGS)] * 2
        return float(loss)

    apart = 2 * 3**0.5
    assert distance("apart", black, white, black, white) == pytest.approx(apart / 2, rel=0.03)
    assert distance("alike", black, black, white, white) == pytest.approx(0, abs=0.06)


@pytest.mark.slow
def test_resumes_to_the_bit(tmp_path, domains, trunk):
    recipe = replace(RECIPE, loss=replace(RECIPE.loss, palette=10.0, texture=50.0))

    def trainer(name: str) -> OneSidedTrainer:
        return OneSidedTrainer(domains, recipe, tmp_path / name, trunk=trunk, bf16=False)

    whole = trainer("whole")
    loop.run(whole, progress=lambda _: None)
    loop.run(trainer("parts"), steps=4, progress=lambda _: None)
    again = trainer("parts")
    assert checkpoint.resume(again)
    loop.run(again, progress=lambda _: None)
    for a, b in zip(whole.networks.all().values(), again.networks.all().values(), strict=True):
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
            assert torch.equal(x, y)


@pytest.mark.slow
def test_begins_with_weights_that_are_there(tmp_path, domains, trunk):
    def trainer(recipe: Recipe, name: str) -> OneSidedTrainer:
        return OneSidedTrainer(domains, recipe, tmp_path / name, trunk=trunk, bf16=False)

    first = trainer(RECIPE, "first")
    loop.run(first, progress=lambda _: None)
    weights = load_weights(tmp_path / "first" / "weights.safetensors")
    recipe = continued(RECIPE, weights.architecture)
    assert recipe.stages == RECIPE.stages[1:] and not recipe.warmup_steps
    second = trainer(recipe, "second")
    second.start_from(weights)
    checkpoint.export(second, tmp_path / "again.safetensors")
    again = load_weights(tmp_path / "again.safetensors").tensors
    assert again.keys() == weights.tensors.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.tensors.items())
    assert "adversarial" in second.train_step()
    # Weights of another architecture keep it.
    other = continued(get_recipe("cpu"), weights.architecture)
    assert other.architecture == weights.architecture and [stage.size for stage in other.stages] == [64]
    with pytest.raises(RecipeError, match="both directions"):
        continued(get_recipe("default"), weights.architecture)


def test_says_that_it_needs_the_trunk(tmp_path, domains, monkeypatch):
    monkeypatch.setenv("GNR_VIDEO_TRUNK", str(tmp_path / "nothing"))
    with pytest.raises(ModelFileError, match="GNR_VIDEO_TRUNK"):
        OneSidedTrainer(domains, RECIPE, tmp_path, bf16=False)


def test_the_trunk_stays_as_it_is(domains, trunk, tmp_path):
    trainer = OneSidedTrainer(domains, replace(RECIPE, warmup_steps=0), tmp_path, trunk=trunk, bf16=False)
    before = [t.clone() for t in trainer.trunk.state_dict().values()]
    trainer.train_step()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.trunk.state_dict().values()))


def test_drawings_with_open_mouths_are_drawn_oftener(
    tmp_path, domains: Domains, trunk: Trunk, monkeypatch: pytest.MonkeyPatch
):
    """Because few have one, and faces do."""
    read = iter([torch.full((24,), 0.6), torch.arange(24.0) / 100])  # faces', drawings'
    monkeypatch.setattr("train.one_sided.mouth_openings", lambda logits: next(read))
    trainer = OneSidedTrainer(domains, RECIPE, tmp_path, trunk=trunk)
    weights = trainer._weigh_drawings()
    assert weights is not None and weights is trainer._weigh_drawings()  # read once
    assert weights[0] == 1 and weights[-1] == pytest.approx(8)
    unread = replace(RECIPE, loss=replace(RECIPE.loss, parts=0.0))
    assert OneSidedTrainer(domains, unread, tmp_path, trunk=trunk)._weigh_drawings() is None
