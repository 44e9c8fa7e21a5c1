"""Recipe fields set by text, and recipes that make no sense. Device: CPU."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.recipes import (
    RECIPES,
    Recipe,
    RecipeError,
    Stage,
    get_recipe,
    setting_kinds,
    with_settings,
)

TINY = get_recipe("tiny")


def as_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "none"
    if isinstance(value, tuple) and value and isinstance(value[0], Stage):
        return ",".join(f"{s.size}:{s.steps}:{s.batch}:{s.fade_steps}" for s in value)
    if isinstance(value, tuple):
        return ",".join(map(repr, value))
    return str(value)


def value_of(recipe: Recipe, name: str) -> object:
    return getattr(recipe.loss, name[5:]) if name.startswith("loss.") else getattr(recipe, name)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_setting_reads_what_it_writes(recipe):
    texts = [f"{name}={as_text(value_of(recipe, name))}" for name in setting_kinds()]
    assert with_settings(recipe, texts) == recipe


def test_settings_of_every_kind():
    texts = ["lr=1e-3", "loss.r1=5", "scale=0.9,1.1", "one_way=false", "lpips_size=none"]
    texts += ["lr_schedule=cosine", "stages=16:7:8,32:9:4:3", "contents=2", "loss.r1_form=mean"]
    made = with_settings(TINY, texts)
    assert made == replace(
        TINY,
        lr=1e-3,
        loss=replace(TINY.loss, r1=5.0, r1_form="mean"),
        scale=(0.9, 1.1),
        stages=(Stage(16, 7, 8), Stage(32, 9, 4, 3)),
        lr_schedule="cosine",
    )
    assert with_settings(TINY, []) == TINY


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=12))
@pytest.mark.slow
def test_no_text_does_more_than_be_refused(text):
    for name in setting_kinds():
        with contextlib.suppress(RecipeError):
            assert isinstance(with_settings(TINY, [f"{name}={text}"]), Recipe)


@pytest.mark.parametrize(
    "setting", ["learning_rate=1", "name=x", "architecture=1", "loss=3", "", "loss.r2=1"]
)
def test_unknown_names_are_answered_with_the_known(setting):
    with pytest.raises(RecipeError, match="no setting") as caught:
        with_settings(TINY, [setting])
    assert "lr" in caught.value.hint
    assert "loss.cycle_lpips" in caught.value.hint


@pytest.mark.parametrize(
    ("setting", "example"),
    [
        ("lr", "lr=0.5"),
        ("lr=fast", "lr=0.5"),
        ("lr=nan", "lr=0.5"),
        ("contents=2.5", "contents=16"),
        ("one_way=maybe", "one_way=true"),
        ("scale=1", "scale=0.8,1.2"),
        ("stages=32:10", "stages=64:2000:8"),
        ("lpips_size=small", "lpips_size=128 or none"),
    ],
)
def test_values_of_another_kind_are_answered_with_an_example(setting, example):
    with pytest.raises(RecipeError, match="cannot set") as caught:
        with_settings(TINY, [setting])
    assert example in caught.value.hint


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stages=16:10:4", "stages must grow to 32"),
        ("stages=32:10:4,16:10:4", "stages must grow to 32"),
        ("stages=8:10:4,32:10:4", "8 pixels does not fit the architecture"),
        ("stages=24:10:4,32:10:4", "24 pixels does not fit the architecture"),
        ("stages=32:10:3", "batch 3 does not hold 2 images twice"),
        ("stages=32:0:4", "needs a step"),
        ("lr_schedule=linear", "lr_schedule is 'linear'"),
        ("loss.r1_form=both", "r1_form is 'both'"),
        ("loss.latent_form=both", "latent_form is 'both'"),
        ("lr=-1", "lr is -1"),
        ("contents=0", "contents is 0"),
        ("ema=1", "ema is 1"),
        ("r1_every=0", "r1_every is 0"),
        ("local_size=12", "not a power of two"),
        ("global_size=16", "larger than local_size"),
        ("local_size=16", "16 pixels does not fit"),
        ("scale=1.2,0.8", "range of enlargements"),
        ("loss.motion=-1", "loss.motion is -1"),
        ("lpips_size=8", "LPIPS needs 32"),
    ],
)
def test_recipes_that_make_no_sense(setting, message):
    with pytest.raises(RecipeError, match=message):
        with_settings(TINY, [setting])
