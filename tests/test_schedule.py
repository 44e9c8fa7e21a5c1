"""Style schedules: the code of each person at each time. Device: CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engines
from engines.base import Engine
from engines.errors import StyleError
from engines.weights import load_weights
from gnr_video.styles.looks import parse_style
from gnr_video.styles.schedule import BeatTimes, Metronome, StylePlan, make_schedule


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Engine:
    return engines.create(load_weights(tiny), engine="torch", device="cpu", precision="fp32")


def w(engine: Engine, text: str) -> np.ndarray:
    return engine.to_w(parse_style(text, engine).array())[0]


def test_fixed(engine: Engine) -> None:
    schedule = make_schedule(engine, "42,7")
    assert schedule.constant
    for time in (-1.0, 0.0, 1e6):
        np.testing.assert_array_equal(schedule.code_at(time), w(engine, "42"))
        np.testing.assert_array_equal(schedule.codes_at(time, [1, 0]), [w(engine, "7"), w(engine, "42")])


def test_timeline(engine: Engine) -> None:
    schedule = make_schedule(engine, 1, StylePlan("0=42,5s=7,10s=42~0.5", transition=0.5))
    assert not schedule.constant
    a, b, c = w(engine, "42"), w(engine, "7"), w(engine, "42~0.5")
    for time, expected in ((0, a), (4.999, a), (5.0, a), (5.25, (a + b) / 2), (5.5, b), (9.9, b), (11, c)):
        np.testing.assert_allclose(schedule.code_at(time), expected, atol=1e-5)
    np.testing.assert_array_equal(schedule.code_at(0, 1), w(engine, "42#1"))
    hard = make_schedule(engine, 1, StylePlan("0=42,5s=7", transition=0))
    np.testing.assert_array_equal(hard.code_at(5.0), b)
    np.testing.assert_array_equal(hard.code_at(4.99), a)


def test_transitions_longer_than_the_gap_are_cut_short(engine: Engine) -> None:
    schedule = make_schedule(engine, 1, StylePlan("0=42,1=7,1.2=3", transition=5))
    np.testing.assert_allclose(schedule.code_at(1.2 - 1e-9), w(engine, "7"), atol=1e-3)
    np.testing.assert_array_equal(schedule.code_at(6.2), w(engine, "3"))


@settings(deadline=None, max_examples=25)
@given(st.floats(0, 30), st.integers(0, 3), st.sampled_from(["blend", "beat", "sefa", "normal"]))
def test_no_schedule_jumps(engine: Engine, time: float, track_id: int, mode: str) -> None:
    keys = "0=42,3=7,9=1" if mode == "normal" else ""
    schedule = make_schedule(
        engine, 42, StylePlan(keys, mode=mode, bpm=90 if mode in ("beat", "sefa") else None, transition=0.4)
    )
    spread = engine.style_space().spread
    step = np.linalg.norm(schedule.code_at(time + 0.01, track_id) - schedule.code_at(time, track_id))
    # Two looks lie about 1.4 spreads apart; the steepest of a transition of 0.4 s is 1.5 times its mean.
    assert step < 0.25 * spread
    np.testing.assert_array_equal(schedule.code_at(time, track_id), schedule.code_at(time, track_id))


def test_blend_is_a_walk_over_draws_of_the_seed(engine: Engine) -> None:
    schedule = make_schedule(engine, 42, StylePlan(mode="blend", every=2.0))
    np.testing.assert_allclose(schedule.code_at(0), w(engine, "42"), atol=1e-5)
    np.testing.assert_allclose(schedule.code_at(2), w(engine, "42#64"), atol=1e-5)
    np.testing.assert_allclose(schedule.code_at(2, 1), w(engine, "42#65"), atol=1e-5)
    # The speed does not jump at a look either.
    codes = [schedule.code_at(t) for t in (1.98, 1.99, 2.0, 2.01, 2.02)]
    speeds = np.diff(codes, axis=0) / 0.01
    turn = np.linalg.norm(np.diff(speeds, axis=0), axis=1)
    assert turn.max() < 0.2 * np.linalg.norm(speeds, axis=1).max()
    other = make_schedule(engine, 43, StylePlan(mode="blend"))
    assert np.abs(other.code_at(3.0) - schedule.code_at(3.0)).max() > 0.1


def test_beats_bring_new_looks(engine: Engine) -> None:
    schedule = make_schedule(
        engine, 42, StylePlan(mode="beat", transition=0), beats=BeatTimes((0.5, 1.1, 1.6))
    )
    expected = ["42", "42#64", "42#64", "42#128", "42#192", "42#192"]
    for time, text in zip((0.49, 0.5, 1.0, 1.1, 1.7, 99), expected):
        np.testing.assert_array_equal(schedule.code_at(time), w(engine, text))


def test_sefa_edits_on_beats_keep_the_look_near(engine: Engine) -> None:
    schedule = make_schedule(
        engine, 42, StylePlan(mode="sefa", transition=0, amount=3.0), beats=BeatTimes((1, 2, 3))
    )
    base = w(engine, "42")
    np.testing.assert_array_equal(schedule.code_at(0.5), base)
    edits = [schedule.code_at(t) - base for t in (1, 2, 3)]
    directions = engine.style_space().directions[:8]
    for edit in edits:
        shares = directions @ edit
        assert 1.5 <= np.abs(shares).max() <= 3.0
        assert np.linalg.norm(edit) == pytest.approx(np.abs(shares).max(), rel=1e-4)
    assert np.abs(edits[0] - edits[1]).max() > 0.1
    assert np.abs(schedule.code_at(1, 1) - w(engine, "42#1") - edits[0]).max() > 1e-3


def test_metronome() -> None:
    beats = Metronome(120)
    assert [beats.count_before(t) for t in (-1, 0, 0.49, 0.5, 1.0, 1.5, 60)] == [0, 0, 0, 1, 2, 3, 120]
    assert [beats.time_of(i) for i in (0, 1, 2)] == [0.5, 1.0, 1.5]
    odd = Metronome(97.3)
    assert [odd.count_before(odd.time_of(i)) for i in range(500)] == list(range(1, 501))


def test_schedules_are_the_same_on_every_engine(engine: Engine, tiny: Path) -> None:
    pytest.importorskip("openvino")
    other = engines.create(load_weights(tiny), engine="openvino", device="cpu", precision="fp32")
    for plan in (StylePlan("0=42,1=7*0.4+3*0.6"), StylePlan(mode="blend"), StylePlan(mode="sefa", bpm=100)):
        one, two = make_schedule(engine, 42, plan), make_schedule(other, 42, plan)
        for time in (0.0, 0.7, 1.2, 5.3):
            np.testing.assert_array_equal(one.codes_at(time, [0, 1]), two.codes_at(time, [0, 1]))


def test_plans_that_contradict_themselves(engine: Engine) -> None:
    with pytest.raises(StyleError, match="exclude each other"):
        StylePlan("0=42", mode="blend")
    with pytest.raises(StyleError, match="no style mode is called 'dance'"):
        StylePlan(mode="dance")  # type: ignore[arg-type]
    for wrong in ({"every": 0.0}, {"bpm": -1.0}, {"transition": -1.0}, {"every": float("nan")}):
        with pytest.raises(StyleError, match="must be"):
            StylePlan(**wrong)  # type: ignore[arg-type]
    with pytest.raises(StyleError, match="no beats") as caught:
        make_schedule(engine, 42, StylePlan(mode="beat"))
    assert "--bpm" in caught.value.hint
    assert StylePlan(mode="beat").needs_beats
    assert not StylePlan(mode="beat", bpm=100).needs_beats


# The engine


def test_one_content_under_several_styles(engine: Engine, tiny: Path) -> None:
    crop = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    codes = make_schedule(engine, 42).codes_at(0, range(5))
    for name in [n for n in ("torch", "openvino", "onnx") if not engines.unavailable(n)]:
        made = engines.create(load_weights(tiny), engine=name, device="cpu", precision="fp32")
        pictures = made.decode_styles(made.encode(crop), codes)
        assert pictures.shape == (5, 64, 64, 3)
        for picture, code in zip(pictures, codes):
            alone = made.translate(crop, code)[0]
            assert np.abs(picture.astype(int) - alone).max() <= 1
    with pytest.raises(engines.EngineError, match="one picture"):
        engine.decode_styles(engine.encode(np.concatenate([crop, crop])), codes)
