"""Close-ups: windows around eyes and mouth, and the training of a generator on them. Device: CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import GnrVideoError
from engines.weights import STYLE_ENCODER, Weights, load_weights, save_weights
from gnr_video.tracking.alignment import head_side
from tests.golden import golden_weights, narrow
from tests.random_trunk import random_trunk
from tests.toy_domains import toy_domains, write_domains
from train.closeups import (
    CHEEKS,
    DEEP,
    EYES,
    FACE,
    MOUTH,
    OTHERS,
    SHIFT,
    STAYS,
    WINDOWS,
    CloseUps,
    Effort,
    WindowDiscriminator,
    colours,
    halved,
    lines,
    main,
    mirrored_some,
    new_marks,
    train,
)
from train.data import ImagePool
from train.lpips import Lpips
from train.networks import load_networks
from train.recipes import RecipeError

ARCHITECTURE = narrow(size=32, num_down=2, latent_dim=4, style_dim=16)
QUICK = Effort(steps=6, batch=2, lr=5e-3)


def ramp(side: int = 256) -> torch.Tensor:
    """A picture whose first channel is x, and the second y, in pixels of 256."""
    axis = (torch.arange(side) + 0.5) * (256 / side)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y, x + y])[None]


@given(x=st.floats(-40, 296), y=st.floats(-40, 296), window=st.sampled_from(WINDOWS))
@settings(max_examples=60, deadline=None)
def test_a_window_lies_around_its_middle_or_inside_of_the_picture(x, y, window):
    seen = window.around(ramp(), torch.tensor([[x, y]]))
    assert seen.shape == (1, 3, window.height, window.width)
    for channel, middle, length in ((0, x, window.width), (1, y, window.height)):
        nearest = min(max(middle, length / 2), 256 - length / 2)
        assert abs(float(seen[0, channel].mean()) - nearest) <= 1
        assert float(seen[0, channel].min()) % 1 == 0.5  # pixels as they are


@pytest.mark.parametrize("side", [32, 64, 128])
def test_a_smaller_picture_is_seen_at_the_same_size(side):
    seen = EYES.around(ramp(side), torch.tensor([[128.0, 92.0]]))
    assert seen.shape == (1, 3, EYES.height, EYES.width)
    assert abs(float(seen[0, 0].mean()) - 128) < 8 and abs(float(seen[0, 1].mean()) - 92) < 8


def test_windows_hold_the_parts_of_aligned_faces():
    for window, points in ((EYES, [(90, 93), (166, 93)]), (MOUTH, [(128, 165), (128, 183)])):
        for x, y in points:
            assert abs(x - 128) < window.width / 2 - SHIFT and abs(y - window.row) < window.height / 2 - SHIFT


def test_the_whole_face_is_seen_wherever_its_middle_is_said_to_be():
    pictures = ramp().expand(2, -1, -1, -1)
    assert torch.equal(FACE.around(pictures, FACE.middles(2) + 5), pictures)


@pytest.mark.parametrize(("side", "cells"), [(32, 32), (64, 32), (256, 32), (320, 32)])
def test_colours_are_means_over_cells(side, cells):
    seen = colours(ramp(side))
    assert seen.shape == (1, 3, cells, cells)
    torch.testing.assert_close(seen.mean(), ramp(side).mean())
    assert float(seen[0, 0, 0, 1] - seen[0, 0, 0, 0]) == pytest.approx(256 / cells)


def stroke(width: int, contrast: float = 0.5) -> torch.Tensor:
    """A light picture (1, 3, 256, 256) with a dark stroke across its middle."""
    picture = torch.full((1, 3, 256, 256), 0.8)
    picture[:, :, 128 : 128 + width] -= contrast
    return picture


def test_lines_are_where_they_are_drawn():
    """Twice the contrast is twice the lines; hairlines are fine ones, and a flat picture has none."""
    none, faint, dark, broad = (
        lines(x)[:, 0] for x in (stroke(0), stroke(1, 0.3), stroke(1, 0.6), stroke(6))
    )
    assert none.shape == (256, 2) and float(none.max()) < 1e-5
    rows = torch.arange(256) // 16
    assert float(dark[rows == 8].min()) > 0.01 and float(dark[(rows < 7) | (rows > 8)].max()) < 1e-5
    torch.testing.assert_close(dark, 2 * faint, atol=1e-5, rtol=1e-4)
    share = [x[:, 0].sum() / x.sum() for x in (dark, broad)]
    assert share[0] > 1.2 * share[1]


def test_only_marks_that_are_new_count():
    clean, marked = stroke(0), stroke(2)
    assert new_marks(clean, clean) == 0 and new_marks(marked, marked) == 0
    assert new_marks(clean, marked) == 0
    assert 0 < new_marks(stroke(2, 0.1), clean) < new_marks(marked, clean)
    assert new_marks(marked, marked.roll(40, 2)) > 0.9 * new_marks(marked, clean)  # one that moved


def test_cheeks_lie_between_eyes_and_mouth():
    assert CHEEKS.row - CHEEKS.height / 2 > 93 + 25 and CHEEKS.row + CHEEKS.height / 2 < 165 - 5


def test_half_of_the_pictures_are_mirrored():
    pictures = ramp(8).repeat(400, 1, 1, 1)
    seen, flip = mirrored_some(pictures, torch.Generator().manual_seed(0))
    assert 150 < int(flip.sum()) < 250
    assert torch.equal(seen[flip], pictures[flip].flip(-1)) and torch.equal(seen[~flip], pictures[~flip])


def test_the_learning_rate_falls_to_a_twentieth():
    effort = Effort(steps=100)
    rates = [effort.lr_at(step) for step in range(101)]
    assert rates[0] == effort.lr and rates[-1] == pytest.approx(effort.lr / 20)
    assert rates == sorted(rates, reverse=True)


@pytest.fixture(scope="module")
def trunk(tmp_path_factory) -> Lpips:
    return Lpips("vgg", random_trunk(tmp_path_factory.mktemp("trunk")))


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Of a random network, its pictures brought within black and white."""
    found = golden_weights(ARCHITECTURE, style_encoder=True)
    tensors = {name: 0.2 * t if name.startswith("to_rgb") else t for name, t in found.tensors.items()}
    return replace(found, tensors=tensors)


def centres(count: int) -> torch.Tensor:
    return (torch.tensor([[90.0, 93], [166, 93], [128, 174]]) / 128 - 1).expand(count, 3, 2)


def close_ups(weights: Weights, trunk: Lpips, effort: Effort = QUICK) -> CloseUps:
    return CloseUps(weights, toy_domains(), centres(24), trunk, effort=effort)


@pytest.fixture(scope="module")
def worked(weights, trunk):
    lines: list[str] = []
    kept: list[Weights] = []
    train(close_ups(weights, trunk), keep=kept.append, log=lines.append, every=4)
    return kept, lines


def changed(before: Weights, after: Weights) -> set[str]:
    return {name for name, tensor in before.tensors.items() if not torch.equal(after.tensors[name], tensor)}


def test_what_a_style_is_does_not_change(weights, worked):
    after = worked[0][-1]
    assert after.tensors.keys() == weights.tensors.keys()
    stays = (*STAYS, STYLE_ENCODER)
    assert changed(weights, after) == {name for name in weights.tensors if not name.startswith(stays)}
    assert after.metadata["close-ups"] == "6 steps, blended by 0.8"


def test_what_comes_out_is_blended_with_what_was(weights, trunk):
    work = close_ups(weights, trunk)
    work.step()
    work.effort = replace(QUICK, blend=0)
    assert not changed(weights, work.result())
    whole, half = (
        {name: tensor for name, tensor in work.result().tensors.items()}
        for work.effort in (replace(QUICK, blend=1), replace(QUICK, blend=0.5))
    )
    for name, tensor in weights.tensors.items():
        torch.testing.assert_close(half[name], (tensor + whole[name]) / 2)


def test_earlier_rounds_are_told_of(weights, trunk):
    again = replace(weights, metadata={**weights.metadata, "close-ups": "400 steps, blended by 0.6"})
    assert close_ups(again, trunk).result().metadata["close-ups"] == (
        "400 steps, blended by 0.6; 0 steps, blended by 0.8"
    )


def test_where_things_are_can_be_kept(weights, trunk):
    work = close_ups(weights, trunk, replace(QUICK, steps=2, deep=0))
    train(work, keep=lambda made: None, log=lambda line: None)
    stays = (*STAYS, *DEEP, STYLE_ENCODER)
    expected = {name for name in weights.tensors if not name.startswith(stays)}
    assert changed(weights, work.result()) == expected


def test_faces_and_whole_heads_are_seen_by_turns(weights, trunk):
    """Without heads, faces are mirrored outwards; with some, they are what is seen."""
    side = head_side(32)
    head = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    for heads in (None, ImagePool(head)):
        data, effort = replace(toy_domains(), heads=heads), replace(QUICK, batch=4)
        work = CloseUps(weights, data, centres(24), trunk, effort=effort)
        sides = []
        for work.steps in range(4):
            pictures, faces, around, within = work._faces()
            assert faces.shape == (2, 3, 32, 32) and torch.equal(within(pictures), faces)
            assert around(faces).shape == pictures.shape
            sides.append(pictures.shape[-1])
            assert bool((pictures == -1).all()) == (heads is not None and sides[-1] == side)
        assert sides == [32, side] * 2


def test_drawings_are_seen_around_their_own_parts(weights, trunk):
    """A dark picture with light eyes and a red mouth, off to one side, mirrored or not."""
    drawing = torch.zeros(3, 256, 256, dtype=torch.uint8)
    drawing[:, 110:114, 60:180] = 255
    drawing[0, 190:194, 118:122] = 255
    points = (torch.tensor([[60.0, 112], [180, 112], [120, 192]]) / 128 - 1).expand(4, 3, 2)
    data = replace(toy_domains(), train_b=ImagePool(drawing.expand(4, -1, -1, -1)))
    work = CloseUps(weights, data, points, trunk, effort=replace(QUICK, batch=8))
    face, eyes, mouth = work._drawn_windows()
    as_drawn = drawing.float() / 127.5 - 1
    mirrored = (face == as_drawn.flip(-1)).flatten(1).all(1)
    assert 0 < int(mirrored.sum()) < 8
    assert torch.equal(face[~mirrored], as_drawn.expand(8 - int(mirrored.sum()), -1, -1, -1))
    for seen, part in ((eyes, 1), (mouth, 0)):
        light = (seen[:, part] > 0.9).float()
        rows = (light.sum(2) * torch.arange(seen.shape[2])).sum(1) / light.sum((1, 2))
        columns = (light.sum(1) * torch.arange(seen.shape[3])).sum(1) / light.sum((1, 2))
        assert bool((rows - seen.shape[2] / 2).abs().le(SHIFT + 1).all())
        assert bool((columns - seen.shape[3] / 2).abs().le(SHIFT + 1).all())


def test_weights_are_kept_and_told_of_on_the_way(worked):
    kept, lines = worked
    assert [one.metadata["close-ups"] for one in kept] == [f"{n} steps, blended by 0.8" for n in (4, 6)]
    assert lines[0].startswith("step 4 of 6, 0 min left: ") and lines[1].startswith("step 6 of 6")
    for name in (
        "adversarial",
        "content",
        "parts",
        "motion",
        "stay",
        "lines",
        "marks",
        "spread",
        "discriminator",
    ):
        assert f"{name} " in lines[0] and "nan" not in lines[0]


def test_the_same_seed_gives_the_same_weights(weights, trunk, worked):
    again: list[Weights] = []
    train(close_ups(weights, trunk), keep=again.append, log=lambda line: None, every=4)
    for name, tensor in worked[0][-1].tensors.items():
        assert torch.equal(again[-1].tensors[name], tensor), name


def colour_change(weights: Weights, work: CloseUps) -> float:
    """How far the colours of what `work` makes are from those of before."""
    train(work, keep=lambda made: None, log=lambda line: None)
    before, _ = load_networks(weights)
    after, _ = load_networks(work.result())
    faces = toy_domains().test_a.images.float() / 127.5 - 1
    seeds = torch.randn(4, 4, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        pictures = [colours(net.decode(net.content(faces), seeds)) for net in (before, after)]
    return float((pictures[0] - pictures[1]).abs().mean())


def test_colours_stay_what_they_were(weights, trunk):
    effort = replace(QUICK, steps=8, lr=5e-2, deep=0, parts=0)
    free = colour_change(weights, close_ups(weights, trunk, replace(effort, stay=0)))
    held = colour_change(weights, close_ups(weights, trunk, replace(effort, stay=100)))
    assert 0 < held < free / 3


def test_two_looks_of_a_face_come_to_differ_more(weights, trunk):
    apart = {}
    for spread in (0.0, 30.0):
        effort = replace(QUICK, batch=4, steps=10, lr=4e-2, spread=spread, apart=2, stay=0)
        work = close_ups(weights, trunk, effort)
        assert 1 < work.apart / work._looks_apart() < 4  # of other faces and looks
        losses = [float(work.step()["spread"]) for _ in range(10)]
        apart[spread] = 1 - sum(losses[-3:]) / 3
    assert apart[30.0] > 1.2 * apart[0.0], apart


def test_lines_are_compared_with_drawings_and_earlier_pictures(weights, trunk):
    work = close_ups(weights, trunk)
    assert work.drawn_lines.shape == (256, len(toy_domains().train_b), 2)
    pictures = toy_domains().train_b.images[:2].float() / 127.5 - 1
    for count in (1, 20, 40):
        for _ in range(count):
            distance = float(work._lines(pictures))
        assert work.made_lines.shape[1] <= OTHERS
    far = float(work._lines(torch.rand(2, 3, 32, 32) * 2 - 1))
    assert far > 0.1 > abs(distance)


def test_a_discriminator_that_is_ahead_rests(weights, trunk):
    """Its loss is at most 2 at the start: asked to rest below 4 it learns nothing, below 0 it does."""
    for rest, learns in ((4.0, False), (0.0, True)):
        work = close_ups(weights, trunk, replace(QUICK, rest=rest))
        before = [parameter.detach().clone() for parameter in work.judges.parameters()]
        work.step()
        same = [torch.equal(a, b) for a, b in zip(before, work.judges.parameters(), strict=True)]
        assert all(same) != learns


def test_a_discriminator_learns_to_tell_windows_apart(trunk):
    torch.manual_seed(1)
    judge = WindowDiscriminator(16)
    light, dark = (torch.full((2, 3, MOUTH.height, MOUTH.width), value) for value in (0.7, -0.7))
    optimiser = torch.optim.Adam(judge.parameters(), 2e-3)

    taps = [trunk.features(halved(x)) for x in (light, dark)]

    def margin() -> torch.Tensor:
        logits = (judge(seen, x) for seen, x in zip(taps, (light, dark)))
        # Without the head of the batch's spread: all pictures are alike here.
        return torch.stack([a.mean() - b.mean() for a, b in zip(*logits)][:6]).mean()

    before = float(margin().detach())
    for _ in range(15):
        optimiser.zero_grad()
        (-margin()).backward()
        optimiser.step()
    assert float(margin().detach()) > before + 0.2


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--steps", "0", "steps is 0"),
        ("--batch", "1", "batch is 1, outside 2"),
        ("--batch", "5", "batch is 5, not even"),
        ("--blend", "1.5", "blend"),
    ],
)
def test_an_effort_that_makes_no_sense_is_refused_before_anything_is_loaded(option, value, said):
    with pytest.raises(RecipeError, match=said):
        main(["missing", "missing", "-o", "missing", option, value])


def test_a_loss_that_is_not_finite_ends_it(weights, trunk):
    broken = dict(weights.tensors)
    broken["to_rgbs.0.bias"] = torch.full_like(broken["to_rgbs.0.bias"], torch.nan)
    kept: list[Weights] = []
    with pytest.raises(GnrVideoError, match="step 1: the loss 'stay' is nan"):
        train(close_ups(replace(weights, tensors=broken), trunk), keep=kept.append, log=lambda line: None)
    assert not kept


def test_command_writes_weights_that_load(weights, tmp_path, capsys):
    write_domains(toy_domains(), tmp_path)
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_weights(source, weights.architecture, weights.tensors, weights.metadata)
    options = ["--lpips-trunk", str(random_trunk(tmp_path)), "--steps", "2", "--batch", "2"]
    assert main([str(source), str(tmp_path), "-o", str(target), *options]) == 0
    assert "eyes and mouths of 24 drawings found" in capsys.readouterr().out
    found = load_weights(target)
    assert found.metadata["close-ups"] == "2 steps, blended by 0.8" and found.architecture == ARCHITECTURE
