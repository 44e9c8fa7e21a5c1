"""The person in a crop, and whole heads in the pipeline.

Device: CPU. MediaPipe's models are fetched on first use; where that fails, the tests that need them are skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from engines import unavailable
from engines.errors import ModelFileError
from engines.weights import save_weights
from gnr_video import Translator
from gnr_video.frame import Alignment, Frame
from gnr_video.options import EngineOptions, LookOptions
from gnr_video.tracking import matte
from gnr_video.tracking.alignment import bust, crop_face
from gnr_video.tracking.matte import PersonMatte, try_matte
from gnr_video.tracking.model_files import PERSON_MODEL
from tests.golden import golden_weights, narrow

FACE = (slice(60, 170), slice(180, 270))
HAIR = (slice(30, 60), slice(180, 260))
ROCKET = (slice(0, 180), slice(390, 500))


@pytest.fixture(scope="module")
def person(person_model: Path) -> Iterator[PersonMatte]:
    with PersonMatte(person_model) as made:
        yield made


@pytest.fixture(autouse=True)
def forgotten(request: pytest.FixtureRequest) -> None:
    if "person" in request.fixturenames:
        request.getfixturevalue("person").reset()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    made = golden_weights(narrow(size=64, num_down=3, latent_dim=8, style_dim=16))
    save_weights(path, made.architecture, made.tensors, {})
    return str(path)


def test_the_person_is_told_from_the_background(person: PersonMatte) -> None:
    [found] = person.mattes([astronaut()], [0], 0.0)
    assert found.dtype == np.uint8
    assert found.shape == (512, 512)
    for place in (FACE, HAIR):
        assert found[place].mean() > 230
    assert found[ROCKET].mean() < 25


@pytest.mark.parametrize("side", [256, 300])
def test_openvino_and_mediapipes_graph_see_the_same_person(person_model: Path, side: int) -> None:
    pytest.importorskip("openvino", reason="needs OpenVINO")
    crop = cv2.resize(astronaut()[:300, 60:360], (side, side), interpolation=cv2.INTER_AREA)
    found = []
    for graph in (False, True):
        with PersonMatte(person_model, graph=graph) as made:
            found.append(made.mattes([crop], [0], 0.0)[0].astype(int))
    apart = np.abs(found[0] - found[1])
    # Another size is scaled by OpenCV here and by MediaPipe there.
    assert apart.max() <= (1 if side == 256 else 60)
    assert apart.mean() < (0.01 if side == 256 else 1)


def test_a_matte_settles_with_time_and_people_are_kept_apart(person: PersonMatte) -> None:
    there = astronaut()[:300, 60:360]
    gone = np.full_like(there, 128)
    shown, empty = person.mattes([there, gone], [0, 1], 0.0)
    first, other = person.mattes([gone, there], [0, 1], 1 / 30)
    [second] = person.mattes([gone], [0], 2 / 30)
    [late] = person.mattes([gone], [0], 9.0)
    face = (slice(80, 130), slice(130, 200))
    means = [float(m[face].mean()) for m in (shown, first, second, late)]
    assert means == sorted(means, reverse=True)
    assert means[1] == pytest.approx(means[0] * np.exp(-2 / 3) + means[3] * (1 - np.exp(-2 / 3)), abs=3)
    assert empty[face].mean() < 25
    assert 100 < other[face].mean() < 200
    # Person 1 was not in the frame before.
    [again] = person.mattes([there], [1], 9.1)
    assert again[face].mean() > 230


def test_after_a_reset_nothing_is_left_of_the_frame_before(person: PersonMatte) -> None:
    person.mattes([astronaut()], [0], 0.0)
    person.reset()
    [found] = person.mattes([np.full((512, 512, 3), 128, np.uint8)], [0], 0.01)
    assert found[FACE].mean() < 25


def test_busts_are_cut_anew_twenty_times_a_second_and_lie_where_the_heads_are(person: PersonMatte) -> None:
    image = astronaut()
    head = Alignment(3, 225.0, 110.0, 1.0, 0.1)
    [first] = person.busts(image, [head], 0.0)
    assert first.picture.shape == (256, 256, 3)
    np.testing.assert_array_equal(first.picture, crop_face(image, bust(head), 256))
    assert first.matte[80:130, 105:150].mean() > 230
    moved = Alignment(3, 229.0, 112.0, 1.0, 0.1)
    [second] = person.busts(np.roll(image, 4, 1), [moved], 1 / 30)
    assert second.picture is first.picture
    assert second.alignment == bust(moved)
    [third] = person.busts(np.roll(image, 8, 1), [moved], 2 / 30)
    assert third.picture is not first.picture
    assert third.seconds == 2 / 30
    # Somebody new is looked at at once, and so is everybody in a video that begins anew.
    both = person.busts(image, [moved, Alignment(4, 300.0, 200.0, 1.0, 0.0)], 2.5 / 30)
    assert [b.seconds for b in both] == [2.5 / 30] * 2
    [earlier] = person.busts(image, [moved], 0.0)
    assert earlier.seconds == 0.0
    person.reset()
    [again] = person.busts(image, [moved], 0.01)
    assert again.picture is not earlier.picture


def test_a_closed_matte_says_so(person: PersonMatte) -> None:
    with PersonMatte() as made:
        pass
    made.close()
    with pytest.raises(RuntimeError, match="closed"):
        made.mattes([], [], 0.0)


def test_without_its_model_hair_stays_human_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, weights: str
) -> None:
    monkeypatch.setenv(PERSON_MODEL.variable, "/nowhere/selfie.tflite")
    with caplog.at_level(logging.WARNING):
        assert try_matte() is None
    assert "hair stays human" in caplog.text
    assert "/nowhere/selfie.tflite" in caplog.text
    with Translator(weights, engine=EngineOptions("torch", precision="fp32")) as translator:
        result = translator.translate_frame(astronaut())
    assert (result[100:140, 200:250] != astronaut()[100:140, 200:250]).mean() > 0.9
    np.testing.assert_array_equal(result[:25], astronaut()[:25])


def test_a_download_that_failed_is_not_tried_for_every_video(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = []

    def resolve(self: object, path: object = None) -> Path:
        tried.append(path)
        raise ModelFileError("no network")

    monkeypatch.delenv(PERSON_MODEL.variable, raising=False)
    monkeypatch.setattr(type(PERSON_MODEL), "resolve", resolve)
    monkeypatch.setattr(matte, "_gave_up", False)
    with caplog.at_level(logging.WARNING):
        assert [try_matte(), try_matte()] == [None, None]
    assert len(tried) == caplog.text.count("hair stays human") == 1


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_all_the_hair_is_translated_and_nothing_beside_the_head(
    person: PersonMatte, weights: str, engine: str
) -> None:
    if reason := unavailable(engine):
        pytest.skip(reason)
    image = astronaut()
    changed = {}
    for paste in ("head", "face"):
        with Translator(
            weights, engine=EngineOptions(engine, precision="fp32"), look=LookOptions(paste=paste)
        ) as translator:
            assert translator.crop_side == (80 if paste == "head" else 64)
            result = translator.translate_frame(image)
            assert translator.translate_face(image[:64, :64]).shape == (64, 64, 3), "other sides still work"
        changed[paste] = np.abs(result.astype(int) - image).max(axis=2) > 2
    assert changed["head"][HAIR].mean() > 0.8
    assert changed["face"][HAIR].mean() < 0.1
    assert changed["head"][FACE].mean() > 0.95
    assert not changed["head"][ROCKET].any()
    assert not changed["head"][300:].any(), "shoulders"


def test_frames_of_a_stream_share_their_matte(
    person: PersonMatte, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[float] = []
    mattes = PersonMatte.mattes

    def counted(self, crops, ids, seconds):  # type: ignore[no-untyped-def]
        times.append(seconds)
        return mattes(self, crops, ids, seconds)

    monkeypatch.setattr(matte.PersonMatte, "mattes", counted)
    image = cv2.resize(astronaut(), (320, 320), interpolation=cv2.INTER_AREA)
    with Translator(weights, engine=EngineOptions("torch", precision="fp32")) as translator:
        for i in range(3):
            translator.translate_frame(Frame(image, i, Fraction(1, 25), i))
        assert times == [0.0, 0.08]
        translator.compositor.mode = "square"  # as when live
        translator.translate_frame(Frame(image, 3, Fraction(1, 25), 3))
        assert len(times) == 2
