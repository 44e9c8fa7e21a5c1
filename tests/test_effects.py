"""An effect is one file and one entry: the chain, and all places in which an entry is seen. Device: CPU."""

from __future__ import annotations

import importlib
import json
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gnr_video import Translator
from gnr_video.commands import options
from gnr_video.commands import translate as command
from gnr_video.effects import EFFECTS, Entry, table
from gnr_video.effects.base import Effect
from gnr_video.effects.chain import Effects
from gnr_video.effects.steady import share_followed
from gnr_video.frame import Alignment, FaceLayer, Image
from gnr_video.live import keys
from gnr_video.live.controls import Controls
from gnr_video.options import EngineOptions, LookOptions
from gnr_video.samples.portrait import portrait
from tests.cli_helpers import call

DOCS = Path(__file__).resolve().parents[1] / "docs"


class Invert(Effect):
    """A toy: negatives."""

    def drawing(self, picture: Image, before: Image | None, seconds: float) -> Image:
        return 255 - picture


@pytest.fixture
def toy() -> Iterator[Entry]:
    """One entry more than the project has, and its file. Options and keys are made when their modules are read."""
    made = [options, command, keys]
    monkeypatch = pytest.MonkeyPatch()
    module = types.ModuleType("toy_effect")
    module.Invert = Invert  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_effect", module)
    entry = Entry("invert", "v", "Negatives.", "toy_effect:Invert", default=False)
    everywhere = (*EFFECTS, entry)
    for name, module in list(sys.modules.items()):
        if name.startswith("gnr_video") and getattr(module, "EFFECTS", None) is EFFECTS:
            monkeypatch.setattr(module, "EFFECTS", everywhere)
    for module in made:
        importlib.reload(module)
    yield entry
    monkeypatch.undo()
    for module in made:
        importlib.reload(module)


def test_names_and_keys_are_taken_once():
    assert len({entry.name for entry in EFFECTS}) == len({entry.key for entry in EFFECTS}) == len(EFFECTS)
    assert [keys.KEYS[entry.key][0] for entry in EFFECTS] == [entry.name for entry in EFFECTS]


def test_each_is_a_file_of_its_own():
    files = [type(entry.make()).__module__ for entry in EFFECTS]
    assert len(set(files)) == len(EFFECTS)
    assert all(file.startswith("gnr_video.effects.") for file in files)


def test_which_are_on_by_themselves():
    ours, official, foreign = Effects(own=True).state, Effects().state, Effects(own=False, draws=False).state
    assert all(ours.values())
    assert {name for name, on in official.items() if not on} == {"ink", "expression", "light"}
    assert {name for name, on in foreign.items() if on} == {"tint"}
    assert Effects({"ink": True, "tint": False}).state | {} == official | {"ink": True, "tint": False}
    with pytest.raises(ValueError, match="no effect sepia"):
        Effects({"sepia": True})


def test_a_switch_counts_from_the_next_picture_on_and_what_cannot_be_stays_off(toy: Entry):
    effects = Effects()
    picture = np.full((8, 8, 3), 10, np.uint8)
    np.testing.assert_array_equal(effects.drawing(picture), picture)
    effects.switch("invert", True)
    np.testing.assert_array_equal(effects.drawing(picture), 255 - picture)
    assert effects.again()["invert"]
    foreign = Effects(draws=False)
    foreign.switch("invert", True)
    assert not foreign["invert"] and not foreign.possible("invert")


def test_hooks_are_called_in_order_with_what_they_are_promised(monkeypatch: pytest.MonkeyPatch):
    calls: list[str] = []

    class Told(Effect):
        def before(self, faces: Sequence[FaceLayer]) -> None:
            calls.append(f"before {len(faces)}")

        def face(self, faces: Sequence[FaceLayer]) -> None:
            calls.append(f"face {len(faces)}")

        def frame(self, image: Image, faces: Sequence[FaceLayer]) -> None:
            calls.append(f"frame {image.shape}")

        def reset(self) -> None:
            calls.append("reset")

    module = types.ModuleType("told_effect")
    module.Told = Told  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "told_effect", module)
    monkeypatch.setattr("gnr_video.effects.chain.EFFECTS", (Entry("told", "x", "", "told_effect:Told"),))
    effects, faces = Effects(), [FaceLayer(Alignment(0, 0, 0, 1.0, 0.0))]
    effects.before(faces)
    effects.face(faces)
    effects.frame(np.zeros((4, 6, 3), np.uint8), faces)
    effects.reset()
    assert calls == ["before 1", "face 1", "frame (4, 6, 3)", "reset"]


def test_a_new_one_is_seen_everywhere(toy: Entry, tiny: Path):
    face = np.ascontiguousarray(portrait()[:256, 100:356])
    with Translator(
        tiny, 1, engine=EngineOptions("torch", precision="fp32"), look=LookOptions(effects={"invert": True})
    ) as translator:
        inverted = translator.translate_face(face)
        translator.effects.switch("invert", False)
        np.testing.assert_allclose(translator.translate_face(face).astype(int), 255 - inverted, atol=1)
        controls = Controls(translator.engine, effects=translator.effects)
        assert controls.run("invert") == "invert is on" and controls.state()["effects"]["invert"]
        controls.hand_to(translator.effects)
        assert translator.effects["invert"]
    assert "--invert" in table() and "Negatives." in table()
    text = CliRunner().invoke(command.translate, ["--help"]).output
    assert "--invert / --no-invert" in text and "Negatives." in text
    assert keys.KEYS["v"][0] == "invert"


@pytest.mark.parametrize("fps", [15, 60])
def test_what_settles_does_so_by_seconds(fps: int):
    """After a tenth of a second of another picture, it is as far as at 30 frames a second."""

    def after_a_tenth(rate: int) -> float:
        effects, shown = Effects(), np.full((4, 4, 3), 100, np.uint8)
        for _ in range(rate // 10):
            shown = effects.drawing(np.full((4, 4, 3), 120, np.uint8), shown, 1 / rate)
        return float(shown.mean())

    assert after_a_tenth(fps) == pytest.approx(after_a_tenth(30), abs=3)
    assert share_followed(0.25, 2 / fps) == pytest.approx(1 - (1 - share_followed(0.25, 1 / fps)) ** 2)


def test_the_docs_have_the_table():
    assert table() in (DOCS / "effects.md").read_text()


def test_the_report_says_which_were_on(tiny: Path, face_clip: Path, tmp_path: Path):
    report = tmp_path / "report.json"
    done = call(
        face_clip,
        "-o",
        tmp_path / "out.mp4",
        "--weights",
        tiny,
        "--end",
        "0.2",
        "--no-tint",
        "--report",
        report,
    )
    assert done.status == 0, done.stderr
    settings = json.loads(report.read_text())["settings"]
    assert {name: settings[name] for name in Effects().state} == Effects({"tint": False}).state
