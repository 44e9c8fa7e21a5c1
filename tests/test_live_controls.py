"""Commands and keys of live use: styles, blends, views, and what users get wrong. Device: CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import engines
from engines.base import Engine
from engines.weights import load_weights
from gnr_video.effects import EFFECTS
from gnr_video.live import controls as controls_module
from gnr_video.live import styles as styles_module
from gnr_video.live.controls import Controls
from gnr_video.live.keys import KEYS, Keys, split_keys, window_key
from gnr_video.styles.looks import parse_style
from tests.live_helpers import until
from tests.tiny_weights import with_colors


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Iterator[Engine]:
    with engines.create(load_weights(tiny), engine="torch", precision="fp32") as created:
        yield created


@pytest.fixture
def controls(engine: Engine, tmp_path: Path) -> Controls:
    return Controls(engine, 7, folder=tmp_path)


@pytest.fixture
def colored(tiny: Path, tmp_path: Path) -> Iterator[Controls]:
    weights = with_colors(load_weights(tiny))
    with engines.create(weights, engine="torch", precision="fp32") as created:
        yield Controls(created, 7, folder=tmp_path)


def codes(controls: Controls, *track_ids: int) -> np.ndarray:
    assert controls.styles is not None
    return controls.styles.codes_at(0.0, track_ids or (0,))


def w(engine: Engine, style: int | str) -> np.ndarray:
    return engine.to_w(parse_style(style, engine).array())


class TestStyle:
    def test_next_and_previous(self, controls: Controls, engine: Engine) -> None:
        controls.run("next")
        assert controls.state()["style"] == "8"
        controls.run("previous")
        controls.run("previous")
        assert controls.state()["style"] == "6"
        np.testing.assert_array_equal(codes(controls), w(engine, 6))

    def test_colors_stay_from_seed_to_seed(self, colored: Controls) -> None:
        shown = colored.state()["colours"]
        assert shown.keys() == {"skin", "hair", "eyes"}
        assert colored.run("colour", "hair:#c03060") == "style 7+hair:#c03060"
        assert colored.state()["colours"]["hair"] != shown["hair"]
        colored.run("next")
        assert colored.state()["style"] == "8+hair:#c03060"
        colored.run("colour", "hair:black")
        colored.run("colour", "eyes:green")
        assert colored.state()["style"] == "8+hair:black+eyes:green"

    @pytest.mark.parametrize("value", ["hair", "nose:red", "hair:magic", "hair:red+7", None, 3])
    def test_colors_that_are_none_change_nothing(self, colored: Controls, value: object) -> None:
        assert "is wanted" in colored.run("colour", value)
        assert colored.state()["style"] == "7"

    def test_weights_that_know_no_colors_say_so(self, controls: Controls) -> None:
        assert controls.state()["colours"] == {}
        assert "do not say which colours" in controls.run("colour", "hair:red")
        assert controls.state()["style"] == "7"

    def test_text_that_does_not_parse_keeps_the_style(self, controls: Controls) -> None:
        said = controls.run("style", "nonsense")
        assert "nonsense" in said
        assert controls.state()["style"] == "7"
        assert controls.message == said

    def test_mix(self, controls: Controls, engine: Engine) -> None:
        controls.run("other", "9")
        controls.run("mix", 0.25)
        expected = 0.75 * w(engine, 7) + 0.25 * w(engine, 9)
        np.testing.assert_allclose(codes(controls), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("value", [2, -1, "x", None, float("nan")])
    def test_a_mix_that_is_none(self, controls: Controls, value: object) -> None:
        before = codes(controls)
        assert "0 to 1" in controls.run("mix", value)
        np.testing.assert_array_equal(codes(controls), before)

    def test_blend_ends_at_the_next_style(
        self, controls: Controls, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(styles_module, "BLEND_SECONDS", 0.3)
        controls.run("blend")
        assert controls.state()["other"] == "8"
        between = codes(controls)
        assert not np.array_equal(between, w(engine, 8))
        until(lambda: controls.state()["other"] == "", 5)
        assert controls.state()["style"] == "8"
        np.testing.assert_array_equal(codes(controls), w(engine, 8))

    def test_blend_does_not_jump(self, controls: Controls, monkeypatch: pytest.MonkeyPatch) -> None:
        """The mix at each moment of a blend is proportional to the time since it began."""
        now = [100.0]
        monkeypatch.setattr(styles_module.time, "perf_counter", lambda: now[0])
        controls.run("blend")
        shares = []
        for _ in range(5):
            shares.append(controls.state()["mix"])
            now[0] += styles_module.BLEND_SECONDS / 5
        np.testing.assert_allclose(shares, [0, 0.2, 0.4, 0.6, 0.8], atol=1e-6)

    def test_saved_styles_can_be_used_again(self, controls: Controls, engine: Engine, tmp_path: Path) -> None:
        controls.run("mix", 0.25)
        mixed = codes(controls)
        assert "*0.75+8*0.25" in controls.run("save")
        controls.run("style", "9")
        for _ in range(2):
            controls.run("save")
        assert {f.name for f in tmp_path.iterdir()} == {
            "7_0.75_8_0.25.style.json",
            "9.style.json",
            "9-2.style.json",
        }
        controls.run("style", str(tmp_path / "7_0.75_8_0.25.style.json"))
        np.testing.assert_allclose(codes(controls), mixed, rtol=1e-5, atol=1e-6)

    def test_saving_where_nothing_can_be_written(self, engine: Engine, tmp_path: Path) -> None:
        controls = Controls(engine, 7, folder=tmp_path / "missing")
        assert "cannot write" in controls.run("save")

    def test_grid(self, controls: Controls) -> None:
        assert [looks.label for looks in controls.grid_styles()] == [str(i) for i in range(7, 15)]

    def test_a_list_of_styles(self, controls: Controls, engine: Engine) -> None:
        controls.run("style", "3,4")
        np.testing.assert_allclose(codes(controls, 0, 1), np.concatenate([w(engine, 3), w(engine, 4)]))

    def test_an_engine_without_styles(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(engine), "takes_styles", False)
        controls = Controls(engine)
        for command in ("next", "blend", "save", "grid"):
            assert "one look only" in controls.run(command)
        assert controls.styles is None
        assert controls.state()["style"] == ""
        assert "another network" in controls.run("ink")
        assert not controls.effects["ink"]
        assert "another network" in controls.run("expression")


class TestViews:
    def test_compare_goes_round(self, controls: Controls) -> None:
        seen = []
        for _ in range(3):
            controls.run("compare")
            seen.append(controls.view)
        assert seen == ["both", "before", "after"]

    def test_grid_and_back(self, controls: Controls) -> None:
        controls.run("grid")
        assert controls.view == "grid"
        controls.run("grid")
        assert controls.view == "after"

    def test_mirror(self, controls: Controls) -> None:
        assert controls.run("mirror") == "mirrored" and controls.state()["mirror"]
        assert controls.run("mirror", False) == "not mirrored" and not controls.state()["mirror"]

    @pytest.mark.parametrize("effect", [entry.name for entry in EFFECTS])
    def test_effects(self, controls: Controls, effect: str) -> None:
        before = controls.state()["effects"][effect]
        assert controls.run(effect)
        assert controls.state()["effects"][effect] is not before
        controls.run(effect, before)
        assert controls.state()["effects"][effect] is before

    @pytest.mark.parametrize(("command", "value"), [("paste", "x"), ("view", "x"), ("dance", None)])
    def test_what_does_not_exist(self, controls: Controls, command: str, value: object) -> None:
        assert "there is no" in controls.run(command, value)

    def test_no_recorder(self, controls: Controls) -> None:
        assert "cannot record" in controls.run("record")


class TestKeys:
    def test_a_seed_is_typed(self, controls: Controls) -> None:
        keys = Keys(controls)
        for key in ".123":
            keys.press(key)
        keys.press("\x7f")
        assert keys.typed == ".12"
        keys.press("\r")
        assert controls.state()["style"] == "12"
        assert keys.typed == ""

    def test_escape_forgets_what_was_typed(self, controls: Controls) -> None:
        keys = Keys(controls)
        for key in ".5\x1b\r":
            keys.press(key)
        assert controls.state()["style"] == "7"

    def test_very_long_seeds_fit(self, controls: Controls) -> None:
        keys = Keys(controls)
        for key in "." + "9" * 40 + "\r":
            keys.press(key)
        assert controls.state()["style"] == "9" * 18

    def test_number_keys_recall_saved_styles(self, controls: Controls) -> None:
        keys = Keys(controls)
        assert "no style is saved for key 1" in keys.press("1")
        for style in ("9", "3"):
            controls.run("style", style)
            said = controls.run("save")
        assert said.endswith("key 2")
        assert keys.press("1") == "style 9.style.json"
        np.testing.assert_allclose(codes(controls), w(controls._engine, 9), atol=1e-5)
        keys.press("2")
        np.testing.assert_allclose(codes(controls), w(controls._engine, 3), atol=1e-5)
        for key in ("3", "0"):
            assert f"no style is saved for key {key}" in keys.press(key)
        assert controls.state()["style"] == "3.style.json"

    def test_still_and_covered(self, controls: Controls) -> None:
        keys = Keys(controls)
        assert keys.press(" ") == "still" and controls.frozen and "space" in controls.notice
        assert keys.press("x") == "covered" and controls.covered and "x shows" in controls.notice
        keys.press("X")
        keys.press(" ")
        assert not (controls.frozen or controls.covered or controls.notice)

    def test_every_key_does_something(self, controls: Controls) -> None:
        for key, (command, _) in KEYS.items():
            assert "there is no command" not in Keys(controls).press(key), command
        assert controls.quitting.is_set()
        assert controls.help

    def test_other_keys_do_nothing(self, controls: Controls) -> None:
        before = controls.state()
        for key in ("z", "é", "\xff", "²", "\t"):
            Keys(controls).press(key)
        assert controls.state() == before


class TestTerminal:
    @pytest.mark.parametrize(
        "sent",
        ["\x1bOQ", "\x1b[12~", "\x1b[[B", "\x1b[A", "\x1bOD", "\x1b[1;5Q", "\x1b[24;2~", "\x1bq"],
    )
    def test_function_and_arrow_keys_are_no_letters(self, sent: str) -> None:
        """F2 of xterm ends in Q, and arrows in A to D."""
        assert split_keys(f"n{sent}7\r") == (["n", "7", "\r"], "")

    @pytest.mark.parametrize("begun", ["\x1b", "\x1b[", "\x1bO", "\x1b[1;", "\x1b[["])
    def test_what_has_only_begun_waits(self, begun: str) -> None:
        assert split_keys(f"n{begun}") == (["n"], begun)

    def test_a_sequence_in_two_pieces(self) -> None:
        keys, begun = split_keys("p\x1b[1")
        assert split_keys(begun + "2~n") == (["n"], "") and keys == ["p"]


class TestWindowKeys:
    """Codes of `cv2.waitKeyEx` under GTK, Qt, Win32 and Cocoa."""

    @pytest.mark.parametrize("code", [ord("q"), ord("q") | 0x100000, 0x110000 | ord("Q"), 0x20000 | ord("q")])
    def test_letters_with_what_locks_are_on(self, code: int) -> None:
        assert window_key(code).lower() == "q"

    @pytest.mark.parametrize(
        "code",
        [-1, 0xFF51, 0xFFBF, 0x10FF51, 0x1000012, 0x1000031, 0x250000, 0x710000, 0xF702, 0x40000 | ord("q")],
    )
    def test_others_are_none(self, code: int) -> None:
        assert window_key(code) == ""


class TestMessages:
    def test_failures_stay_and_news_pass(self, controls: Controls, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [100.0]
        monkeypatch.setattr(controls_module.time, "perf_counter", lambda: now[0])
        controls.say("the disk is full", stays=True)
        now[0] += 3600
        assert controls.message == "the disk is full" and controls.state()["stays"]
        controls.run("next")
        assert controls.message == "style 8"
        now[0] += 5
        assert controls.message == ""
        assert controls.state()["message"] == "style 8" and controls.state()["said"] == 2
