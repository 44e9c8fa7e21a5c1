"""The style language: what it means, and that mistakes are pointed at. Device: CPU."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engines
from engines.base import Engine
from engines.errors import OutputError, StyleError
from engines.weights import load_weights
from gnr_video.styles.code import Reference, Saved, Seed, StyleCode, style_from_seed
from gnr_video.styles.grammar import (
    StyleExpression,
    parse_expression,
    parse_expressions,
    parse_keys,
    parse_seconds,
)
from gnr_video.styles.looks import Look, Looks, parse_style
from gnr_video.styles.saved import save_style
from tests.tiny_weights import TINY, make_tiny_weights


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Engine:
    return engines.create(load_weights(tiny), engine="torch", device="cpu", precision="fp32")


def w(engine: Engine, text: str) -> np.ndarray:
    return engine.to_w(parse_style(text, engine).array())[0]


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("42", StyleExpression(((Seed(42), 1.0),))),
        (" -7 ", StyleExpression(((Seed(-7), 1.0),))),
        ("42#3", StyleExpression(((Seed(42, 3), 1.0),))),
        ("42*0.75 + 7*0.25", StyleExpression(((Seed(42), 0.75), (Seed(7), 0.25)))),
        ("42*3+7", StyleExpression(((Seed(42), 0.75), (Seed(7), 0.25)))),
        ("42*1.5+7*-.5", StyleExpression(((Seed(42), 1.5), (Seed(7), -0.5)))),
        ("42~0.7", StyleExpression(((Seed(42), 1.0),), 0.7)),
        ("42+sefa3:2.5", StyleExpression(((Seed(42), 1.0),), 1.0, ((3, 2.5),))),
        ("1+2~0+sefa0:-1+sefa1:2", StyleExpression(((Seed(1), 0.5), (Seed(2), 0.5)), 0.0, ((0, -1), (1, 2)))),
        ("ref:a b.PNG", StyleExpression(((Reference(Path("a b.PNG")), 1.0),))),
        ("x/a+b~c.jpeg~0.5", StyleExpression(((Reference(Path("x/a+b~c.jpeg")), 1.0),), 0.5)),
        ("ref:picture+7", StyleExpression(((Reference(Path("picture")), 0.5), (Seed(7), 0.5)))),
        ('ref:"a+b"', StyleExpression(((Reference(Path("a+b")), 1.0),))),
        ("my.style.json*2", StyleExpression(((Saved(Path("my.style.json")), 1.0),))),
    ],
)
def test_meaning(text: str, expression: StyleExpression) -> None:
    assert parse_expression(text) == expression


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("", 0, "a seed (42), a picture"),
        ("blue", 0, "a seed (42), a picture"),
        ("4.2", 0, "a seed (42), a picture"),
        ("42x", 0, "a seed (42), a picture"),
        ("42*x", 3, "a number after '*'"),
        ("42*", 3, "a number after '*' is wanted, and the end"),
        ("42~", 3, "a number after '~'"),
        ("42+", 3, "a seed (42)"),
        ("42+sefa:2", 7, "the number of a direction"),
        ("42+sefa3", 8, "':' and an amount"),
        ("42+sefa3:", 9, "a number after ':'"),
        ("42~0.5~0.5", 6, "'+' and a look"),
        ("42~0.5+7", 6, "a mix before its '~'"),
        ("42 7", 0, "a seed (42)"),
        ("42*1+7*-1", 0, "shares do not cancel out"),
        ("ref:", 4, "a picture's name"),
    ],
)
def test_mistakes_are_pointed_at(text: str, at: int, message: str) -> None:
    with pytest.raises(StyleError) as caught:
        parse_expression(text)
    assert message in caught.value.message
    assert f"character {at + 1}:" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint == f"{text}\n{' ' * at}^"


@settings(deadline=None, max_examples=60)
@given(st.text("0123456789.*+~:#,= sefarjpng'\"", max_size=24))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    hints = []
    for parse in (parse_expressions, parse_keys):
        try:
            parse(text)
        except StyleError as error:
            hints.append(error.hint)
    assert all(hint.startswith(text) for hint in hints)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(-99, 99), st.integers(1, 9)), min_size=1, max_size=4),
    st.integers(0, 10),
    st.lists(st.tuples(st.integers(0, 20), st.integers(-5, 5)), max_size=2),
)
def test_labels_can_be_parsed_again(terms: list[tuple[int, int]], tenths: int, edits: list) -> None:
    text = "+".join(f"{seed}*{share}" for seed, share in terms) + f"~{tenths / 10}"
    text += "".join(f"+sefa{i}:{a}" for i, a in edits)
    expression = parse_expression(text)
    again = parse_expression(str(expression))
    assert [atom for atom, _ in again.terms] == [atom for atom, _ in expression.terms]
    np.testing.assert_allclose([s for _, s in again.terms], [s for _, s in expression.terms], atol=1e-3)
    assert (again.truncation, again.edits) == (expression.truncation, expression.edits)


def test_lists_and_keys() -> None:
    assert [str(e) for e in parse_expressions("42, 7~0.5,ref:a,b.png")] == ["42", "7~0.5", "ref:a,b.png"]
    keys = parse_keys("5s=7+8, 0=42,1:30=ref:a.png,500ms=1,2min=3")
    assert [(t, str(e)) for t, e in keys] == [
        (0, "42"), (0.5, "1"), (5, "7*0.5+8*0.5"), (90, "ref:a.png"), (120, "3"),
    ]  # fmt: skip
    assert [parse_seconds(t) for t in ("0.5", "2s", "250ms", "1:05")] == [0.5, 2.0, 0.25, 65.0]
    for text, at in (("0=42,0=7", 5), ("42", 2), ("0=42,x=7", 5), ("-1=42", 0), ("0=42,", 5), ("0=blue", 2)):
        with pytest.raises(StyleError, match=rf"character {at + 1}:"):
            parse_keys(text)
    with pytest.raises(StyleError, match="end of a time"):
        parse_seconds("5 apples")


# Codes


def test_mixes_truncation_and_edits_act_in_w_space(engine: Engine) -> None:
    a, b, space = w(engine, "42"), w(engine, "7"), engine.style_space()
    np.testing.assert_allclose(w(engine, "42*0.7+7*0.3"), 0.7 * a + 0.3 * b, atol=1e-5)
    np.testing.assert_allclose(w(engine, "42~0.25"), space.mean + 0.25 * (a - space.mean), atol=1e-5)
    np.testing.assert_allclose(w(engine, "42~0"), space.mean, atol=1e-5)
    np.testing.assert_allclose(w(engine, "42~1"), a, atol=0)
    np.testing.assert_allclose(w(engine, "42+sefa3:2.5"), a + 2.5 * space.directions[3], atol=1e-5)
    mixed = parse_style("42*0.7+7*0.3~0.5+sefa0:1", engine)
    assert len(mixed.z) == TINY.style_dim
    assert mixed.label == "42*0.7+7*0.3~0.5+sefa0:1"
    with pytest.raises(StyleError, match="no direction sefa32"):
        parse_style("42+sefa32:1", engine)


def test_style_space_is_what_it_says(engine: Engine, tiny: Path) -> None:
    space = engine.style_space()
    assert engine.style_space() is space
    draws = np.random.default_rng(1).standard_normal((4000, TINY.latent_dim)).astype(np.float32)
    rows = engine.to_w(draws)
    error = np.linalg.norm(rows.mean(0) - space.mean)
    assert error < 0.1 * space.spread
    assert np.sqrt(np.square(rows - space.mean).sum(1).mean()) == pytest.approx(space.spread, rel=0.05)
    np.testing.assert_allclose(space.directions @ space.directions.T, np.eye(TINY.style_dim), atol=1e-5)
    tensors = load_weights(tiny).tensors
    moved = [
        sum(
            float(np.square(t.numpy() @ direction).sum())
            for name, t in tensors.items()
            if name.endswith("modulation.weight")
        )
        for direction in space.directions
    ]
    # Each moves the modulations less than the one before.
    assert all(x >= y * (1 - 1e-5) for x, y in itertools.pairwise(moved))
    assert (space.directions.max(1) >= -space.directions.min(1)).all()


def test_codes_are_the_same_on_every_engine(engine: Engine, tiny: Path) -> None:
    pytest.importorskip("openvino")
    other = engines.create(load_weights(tiny), engine="openvino", device="cpu", precision="fp32")
    for text in ("42", "42#5", "42*0.7+7*0.3~0.8+sefa2:1.5"):
        np.testing.assert_array_equal(w(engine, text), w(other, text))


def test_further_draws(engine: Engine) -> None:
    draws = [style_from_seed(42, 8, draw) for draw in range(4)]
    assert draws[0] == style_from_seed(42)
    assert len({d.z for d in draws}) == 4
    assert draws[3] == parse_style("42#3", engine) == parse_style("42#3")
    assert draws[3].label == "42#3"
    # As numbers that other machines must give too.
    np.testing.assert_allclose(draws[1].z[:3], (1.5891567, -1.2764702, 0.8616776), atol=1e-6)
    assert parse_style("-3#1").z != parse_style("3#1").z


def test_saved_styles(engine: Engine, tmp_path: Path) -> None:
    for text in ("42", "42*0.7+7*0.3~0.8"):
        code = parse_style(text, engine)
        path = tmp_path / "my look.style.json"
        save_style(path, code, engine)
        again = parse_style(str(path), engine)
        assert again.z == code.z
        assert again.label == "my look.style.json"
        assert not again.warnings
    half = 0.5 * w(engine, str(path)) + 0.5 * w(engine, "7")
    np.testing.assert_allclose(w(engine, f"{path}+7"), half, atol=1e-5)
    content = json.loads(path.read_text())
    assert content["weights"] == engine.weights_hash != ""
    assert content["label"] == "42*0.7+7*0.3~0.8"
    with pytest.raises(OutputError, match=r"\.style\.json"):
        save_style(tmp_path / "a.txt", code, engine)


def test_a_style_saved_with_other_weights_warns(engine: Engine, tmp_path: Path) -> None:
    other = engines.create(
        load_weights(make_tiny_weights(tmp_path / "b.safetensors", seed=5)), engine="torch", device="cpu"
    )
    save_style(tmp_path / "a.style.json", parse_style("42", other), other)
    code = parse_style(f"{tmp_path / 'a.style.json'}~0.5", engine)
    assert code.warnings == (
        f"a.style.json was made with other weights ({other.weights_hash[:12]}): the look will be another",
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"format": "x"}', b"\xff\xfe", b"[" * 100000, b'{"format": "gnr-video-style-1"}'],
)
def test_files_that_are_no_saved_styles(engine: Engine, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.style.json"
    path.write_bytes(content)
    with pytest.raises(StyleError, match="not a saved style"):
        parse_style(str(path), engine)


def test_saved_styles_of_another_length(engine: Engine, tmp_path: Path) -> None:
    save_style(tmp_path / "a.style.json", StyleCode((1.0, 2.0)), engine)
    with pytest.raises(StyleError, match="holds 2 numbers in w space; these weights need 32"):
        parse_style(str(tmp_path / "a.style.json"), engine)
    with pytest.raises(StyleError, match="no saved style"):
        parse_style(str(tmp_path / "b.style.json"), engine)


def test_styles_of_several_people(engine: Engine) -> None:
    looks = Looks("42,7", engine)
    for track_id, text in enumerate(["42", "7", "42#1", "7#1", "42#2"]):
        np.testing.assert_array_equal(looks.w(track_id), w(engine, text))
    assert looks.label == "42,7"
    assert Looks([42, "7", style_from_seed(3)], engine).label == "42,7,3"
    alone = Looks("42*0.5+7*0.5", engine)
    np.testing.assert_array_equal(alone.w(1), w(engine, "42#1*0.5+7#1*0.5"))
    np.testing.assert_array_equal(alone.w(0, step=2), w(engine, "42#128*0.5+7#128*0.5"))
    # A code of one's own has no draws; a walk from it goes to seed 0's.
    own = Looks(StyleCode(tuple(np.linspace(-1, 1, 8))), engine)
    np.testing.assert_array_equal(own.w(0), own.w(3))
    np.testing.assert_array_equal(own.w(0, step=1), w(engine, "0#64"))
    with pytest.raises(ValueError, match="read-only"):
        looks.w(0)[0] = 1
    with pytest.raises(StyleError, match="empty list"):
        Looks([], engine)
    assert Look("42~0.5", engine).code(3).label == "42#3~0.5"
