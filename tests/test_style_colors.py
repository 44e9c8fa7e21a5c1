"""Styles of wanted colours: the search, the weights file, the language. Device: CPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import engines
from engines.base import Engine
from engines.errors import StyleError, WeightsError
from engines.weights import COLORS, PLACES, Weights, load_weights, save_weights
from gnr_video.checkpoints import describe_weights, resolve_weights
from gnr_video.samples.calibration import sample_crops
from gnr_video.styles.code import Seed, style_from_seed
from gnr_video.styles.color_names import NAMES, SPELLINGS, rgb_of
from gnr_video.styles.grammar import COLORED, StyleExpression, parse_expression, parse_expressions, parse_keys
from gnr_video.styles.looks import Look, Looks, parse_style
from gnr_video.styles.saved import FORMAT
from tests.tiny_weights import TINY, with_colors
from train.finetune.colors import place_colors


@pytest.fixture(scope="module")
def weights(tiny: Path) -> Weights:
    return with_colors(load_weights(tiny))


@pytest.fixture(scope="module")
def engine(weights: Weights) -> Engine:
    return engines.create(weights, engine="torch", device="cpu", precision="fp32")


def colors_of(engine: Engine, text: str) -> np.ndarray:
    """RGB by place (4, 3), as the model says."""
    code = parse_style(text, engine).array()[None]
    return engine.style_colors()(torch.from_numpy(code))[0].numpy().reshape(4, 3)


@settings(max_examples=15, deadline=None)
@given(start=st.integers(0, 99), other=st.integers(100, 199), place=st.sampled_from(COLORED))
def test_a_color_that_some_style_has_is_found(engine: Engine, start: int, other: int, place: str) -> None:
    model = engine.style_colors()
    first, donor = (style_from_seed(seed).array() for seed in (start, other))
    row = PLACES.index(place)
    with torch.no_grad():
        before, wanted = model(torch.from_numpy(np.stack([first, donor]))).numpy().reshape(2, 4, 3)
    asked = {place, "sides"} if place == "hair" else {place}
    found = model.find(first, {one: wanted[PLACES.index(one)].tolist() for one in asked})
    after = model(torch.from_numpy(found[None]))[0].numpy().reshape(4, 3)
    left = np.abs(after[row] - wanted[row]).max()
    assert left < max(0.25, 0.75 * np.abs(before[row] - wanted[row]).max())
    assert np.linalg.norm(found) < max(np.linalg.norm(first), 3.5) + 1.5


def test_what_it_has_already_leaves_a_style_where_it_is(engine: Engine) -> None:
    start = style_from_seed(3).array()
    has = colors_of(engine, "3")
    found = engine.style_colors().find(start, {place: has[i].tolist() for i, place in enumerate(PLACES)})
    np.testing.assert_allclose(found, start, atol=0.05)


def test_the_same_question_has_the_same_answer(engine: Engine) -> None:
    start = style_from_seed(5).array()
    wanted = {"hair": [0.5, -0.5, 0.0]}
    model = engine.style_colors()
    np.testing.assert_array_equal(model.find(start, wanted), model.find(start, wanted))


def test_other_places_keep_their_colors_where_they_can(engine: Engine) -> None:
    before, after = colors_of(engine, "7"), colors_of(engine, "7+hair:black")
    moved = np.abs(after - before).max(1)
    assert np.abs(after[1] - np.array(NAMES["black"]) / 127.5 + 1).max() < np.abs(before[1] + 0.7).max()
    assert moved[1] > 2 * max(moved[0], moved[2])


def test_weights_files_keep_them(weights: Weights, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, weights.architecture, weights.tensors, weights.metadata)
    again = load_weights(path)
    assert again.has_colors
    names = [name for name in weights.tensors if name.startswith(COLORS)]
    for name in names:
        torch.testing.assert_close(again.tensors[name], weights.tensors[name], atol=1e-3, rtol=1e-3)
    assert "hair, eyes and skin can be asked for" in describe_weights(path)
    broken = {**weights.tensors, names[0]: torch.zeros(2, 2)}
    with pytest.raises(WeightsError, match="tensors do not fit"):
        save_weights(path, weights.architecture, broken)
    missing = {name: t for name, t in weights.tensors.items() if name != names[0]}
    with pytest.raises(WeightsError, match="missing"):
        save_weights(path, weights.architecture, missing)


def test_weights_without_them_say_so(tiny: Path) -> None:
    bare = engines.create(load_weights(tiny), engine="torch", device="cpu", precision="fp32")
    with pytest.raises(StyleError, match="do not say which colours") as caught:
        parse_style("42+hair:pink", bare)
    assert "train.finetune.colors" in caught.value.hint


# The language


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("42+hair:pink", StyleExpression(((Seed(42), 1.0),), colors=(("hair", "pink"),))),
        ("hair:Pink", StyleExpression(((Seed(42), 1.0),), colors=(("hair", "pink"),))),
        ("7 + eyes : #C0FFEE", StyleExpression(((Seed(7), 1.0),), colors=(("eyes", "#c0ffee"),))),
        (
            "hair:blonde+skin:tan",
            StyleExpression(((Seed(42), 1.0),), colors=(("hair", "blonde"), ("skin", "tan"))),
        ),
        ("7~0.5+hair:red+sefa1:2", StyleExpression(((Seed(7), 1.0),), 0.5, ((1, 2.0),), (("hair", "red"),))),
    ],
)
def test_meaning(text: str, expression: StyleExpression) -> None:
    found = parse_expression(text)
    assert found == expression
    assert parse_expression(str(found)) == found


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("42+hair:", 8, "a colour (amber, auburn"),
        ("42+hair:magic", 8, "a colour (amber, auburn"),
        ("hair:#12345", 5, "a colour (amber, auburn"),
        ("hair:red+hair:blue", 14, "one colour only for the hair"),
        ("42+nose:red", 3, "a seed (42)"),
        ("42+hair:red+7", 11, "a mix before its '~'"),
        ("hair:red*2", 8, "'+' and a look"),
    ],
)
def test_mistakes_are_pointed_at(text: str, at: int, message: str) -> None:
    with pytest.raises(StyleError) as caught:
        parse_expression(text)
    assert message in caught.value.message
    assert caught.value.hint == f"{text}\n{' ' * at}^"


def test_lists_and_schedules() -> None:
    assert [str(e) for e in parse_expressions("hair:red,7+eyes:blue")] == ["42+hair:red", "7+eyes:blue"]
    assert [str(e) for _, e in parse_keys("0=42,5s=hair:green")] == ["42", "42+hair:green"]


def test_colors_are_given_to_each_look_of_a_mix(engine: Engine) -> None:
    a, b = (engine.to_w(parse_style(f"{seed}+hair:red", engine).array())[0] for seed in (3, 4))
    mixed = parse_style("3*0.25+4*0.75+hair:red", engine)
    np.testing.assert_allclose(mixed.z, 0.25 * a + 0.75 * b, atol=1e-5)
    assert mixed.label == "3*0.25+4*0.75+hair:red"
    assert len(parse_style("3+hair:red", engine).z) == TINY.latent_dim


def test_further_draws_are_others_with_the_same_colors(engine: Engine) -> None:
    look = Look("3+hair:red", engine)
    one, other = look.code(0), look.code(1)
    assert other.label == "3#1+hair:red" and one.z != other.z
    looks = Looks("3+hair:red", engine)
    np.testing.assert_array_equal(looks.w(1), engine.to_w(other.array())[0])


def test_a_saved_mix_has_no_colors_to_change(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "a.style.json"
    for space, length in (("z", TINY.latent_dim), ("w", TINY.style_dim)):
        content = {"format": FORMAT, "label": "", "weights": "", "space": space, "code": [0.1] * length}
        path.write_text(json.dumps(content))
        if space == "z":
            assert len(parse_style(f"{path}+hair:red", engine).z) == length
        else:
            with pytest.raises(StyleError, match=r"a\.style\.json is a mix or edited"):
                parse_style(f"{path}+hair:red", engine)


def test_names_and_numbers_are_colors() -> None:
    assert rgb_of("#c0ffee") == rgb_of("C0FFEE") == (192, 255, 238)
    assert rgb_of("Gray") == rgb_of("grey") == NAMES["grey"]
    assert set(SPELLINGS.values()) <= NAMES.keys() and list(NAMES) == sorted(NAMES)
    assert all(0 <= value <= 255 for rgb in NAMES.values() for value in rgb)
    with pytest.raises(StyleError, match="no colour is called 'magic'"):
        rgb_of("magic")


# The default weights


def test_the_default_weights_paint_the_colors_asked_for() -> None:
    weights = load_weights(resolve_weights("default"))
    face = np.stack(list(sample_crops(weights.architecture.size, 1)))
    with engines.create(weights, engine="torch", device="cpu", precision="fp32") as engine:

        def painted(text: str) -> np.ndarray:
            """RGB by place (4, 3), 0..255."""
            picture = engine.translate(face, parse_style(text, engine).array()[None])
            x = torch.from_numpy(picture).permute(0, 3, 1, 2).float() / 127.5 - 1
            return (place_colors(x)[0].numpy().reshape(4, 3) + 1) * 127.5

        hair = {name: painted(f"hair:{name}")[1] for name in ("black", "blond", "blue", "red")}
        eyes = {name: painted(f"eyes:{name}")[2] for name in ("blue", "crimson")}
        skin = {name: painted(f"skin:{name}")[0] for name in ("pale", "dark")}
    assert hair["blond"].mean() > hair["black"].mean() + 60
    warmth = {
        name: rgb[0] - rgb[2] for name, rgb in {**hair, **{f"eyes {k}": v for k, v in eyes.items()}}.items()
    }
    assert warmth["red"] > warmth["blue"] + 60
    assert warmth["eyes crimson"] > warmth["eyes blue"] + 40
    assert skin["pale"].mean() > skin["dark"].mean() + 40
