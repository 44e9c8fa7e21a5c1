"""OpenVINO's converted graphs in the cache: the same picture as fresh ones, damage, limits. Device: CPU."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engines
from engines.cache import EngineCache
from engines.weights import load_weights
from tests.golden import golden_weights, narrow
from tests.tiny_weights import make_tiny_weights

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="needs openvino")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the graphs go."""
    monkeypatch.setenv("GNR_VIDEO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "engines"


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One entry for each graph that is converted."""
    from engines.openvino_engine import _Graphs

    convert, made = _Graphs._convert, []

    def counted(*args: Any) -> Any:
        made.append(args)
        return convert(*args)

    monkeypatch.setattr(_Graphs, "_convert", counted)
    return made


def picture(weights: Any) -> np.ndarray:
    """One crop, in a baked style and in one that comes with the call."""
    crop = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    styles = np.random.default_rng(1).standard_normal((2, 8)).astype(np.float32)
    with engines.create(weights, engine="openvino", precision="fp32", threads=1) as engine:
        engine.set_style(styles[0])
        return np.concatenate([engine.translate(crop), engine.translate(crop, styles[1:])])


def test_the_second_time_nothing_is_converted(tiny: Path, folder: Path, conversions: list[Any]) -> None:
    weights = load_weights(tiny)
    fresh = picture(weights)
    assert len(conversions) == 2
    np.testing.assert_array_equal(picture(weights), fresh)
    assert len(conversions) == 2
    assert [entry.about["precision"] for entry in EngineCache(folder).entries()] == ["fp32"]


def test_a_damaged_file_is_set_aside(tiny: Path, folder: Path, conversions: list[Any]) -> None:
    weights = load_weights(tiny)
    fresh = picture(weights)
    (file,) = folder.glob("*.engine")
    file.write_bytes(file.read_bytes()[:-100])
    np.testing.assert_array_equal(picture(weights), fresh)
    assert len(conversions) == 4
    assert (folder / "broken" / file.name).is_file()


@pytest.mark.slow
def test_the_latest_used_stay(tmp_path: Path, folder: Path) -> None:
    from engines.openvino_engine import KEPT

    made = [load_weights(make_tiny_weights(tmp_path / f"{i}.safetensors", seed=i)) for i in range(KEPT + 2)]

    def kept() -> set[str]:
        return {entry.about["weights"] for entry in EngineCache(folder).entries()}

    for i, weights in enumerate(made):
        picture(weights)
        # Their times in the order that they have, but long ago: the next is the latest, however coarse clocks are.
        for age, entry in enumerate(EngineCache(folder).entries()):
            os.utime(entry.path, (1e9 - age, 1e9 - age))
        if i == KEPT - 1:
            picture(made[0])
    assert kept() == {made[i].sha256 for i in (0, *range(3, KEPT + 2))}


def test_weights_that_are_no_file_leave_nothing(folder: Path) -> None:
    picture(golden_weights(narrow(size=64, num_down=3, latent_dim=8, style_dim=16)))
    assert not folder.exists()


def test_a_cache_that_cannot_be_written_is_no_news(
    tiny: Path, folder: Path, conversions: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    folder.parent.mkdir()
    folder.write_text("in the way")
    with caplog.at_level(logging.INFO):
        picture(load_weights(tiny))
    assert len(conversions) == 2
    assert any("cannot be kept" in record.message for record in caplog.records)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
