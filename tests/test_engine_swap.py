"""While an engine is built torch runs, and then the new one does, between two pictures.

Device: CPU; the successors are real engines of ONNX Runtime or torch.
"""

from __future__ import annotations

import threading
import time
from importlib.util import find_spec

import numpy as np
import pytest

import engines
from engines.errors import EngineError
from engines.swap import SwapEngine
from tests.golden import golden_weights, narrow

ARCHITECTURE = narrow(size=64, num_down=3, latent_dim=8, style_dim=16)
SUCCESSOR = (
    {"engine": "onnx", "precision": "fp32"}
    if find_spec("onnx") and find_spec("onnxruntime")
    else {"engine": "torch", "precision": "bf16"}
)


@pytest.fixture(scope="module")
def weights():
    return golden_weights(ARCHITECTURE, style_encoder=True)


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)


def torch_engine(weights):
    return engines.create(weights, engine="torch", precision="fp32", device="cpu")


def style(seed):
    return np.random.default_rng(seed).standard_normal(8).astype(np.float32)


def near(found, expected):
    return np.abs(found.astype(int) - expected).max() <= (1 if SUCCESSOR["engine"] == "onnx" else 12)


def test_changes_over_with_the_style(weights, crops):
    go = threading.Event()

    def build(cancelled):
        assert go.wait(30)
        return engines.create(weights, threads=1, **SUCCESSOR)

    with (
        torch_engine(weights) as reference,
        SwapEngine(weights, torch_engine(weights), build, "torch runs meanwhile") as engine,
    ):
        assert str(engine.fallback) == "torch runs meanwhile"
        assert (engine.name, engine.precision) == ("torch", "fp32")
        for one in (engine, reference):
            one.set_style(style(1))
        assert np.array_equal(engine.translate(crops), reference.translate(crops))
        before = engine.encode(crops)
        assert not engine.wait(0)
        go.set()
        assert engine.wait(60)
        assert not engine.fallback
        assert (engine.name, engine.precision) == (SUCCESSOR["engine"], SUCCESSOR["precision"])
        assert near(engine.translate(crops), reference.translate(crops))
        assert np.array_equal(engine.encode_style(crops[0]), reference.encode_style(crops[0]))
        for one in (engine, reference):
            one.set_style(style(2))
        expected = reference.translate(crops)
        assert near(engine.translate(crops), expected)
        assert near(engine.decode(before), expected)  # a code of the engine before, in the style of now
        assert near(engine.decode(engine.encode(crops)), expected)
        rows = np.stack([style(3), style(4)])
        assert near(engine.decode(before, rows), reference.translate(crops, rows))


def test_the_successor_is_warm_for_the_side_asked_for(weights, crops):
    wide = np.pad(crops, ((0, 0), (8, 8), (8, 8), (0, 0)), mode="reflect")
    warmed = []

    def build(cancelled):
        successor = engines.create(weights, threads=1, side=80, **SUCCESSOR)
        warm_up = successor.warm_up
        successor.warm_up = lambda side: warmed.append(side) or warm_up(side)
        return successor

    with (
        torch_engine(weights) as reference,
        SwapEngine(weights, torch_engine(weights), build, side=80) as engine,
    ):
        assert engine.fits(80)
        assert engine.wait(60)
        assert warmed == [80]
        for pictures in (wide, crops):
            assert near(engine.translate(pictures, style(1)), reference.translate(pictures, style(1)))
            assert near(
                engine.decode(engine.encode(pictures), style(1)), reference.translate(pictures, style(1))
            )


def test_styles_set_while_it_changes(weights, crops):
    """Whatever the moment of the change, a picture has the style last set."""
    with torch_engine(weights) as reference:
        expected = []
        for seed in (1, 2):
            reference.set_style(style(seed))
            expected.append(reference.translate(crops[:1]))
        with SwapEngine(
            weights, torch_engine(weights), lambda _: engines.create(weights, threads=1, **SUCCESSOR)
        ) as engine:
            names = set()
            turns, deadline = 0, time.monotonic() + 60
            while len(names) < 2 or turns < 6:
                engine.set_style(style(1 + turns % 2))
                assert near(engine.translate(crops[:1]), expected[turns % 2])
                names.add(engine.name + engine.precision)
                turns += 1
                assert time.monotonic() < deadline, str(engine.fallback)
                time.sleep(0.01)  # as between a camera's pictures: what builds needs the interpreter too
            assert engine.wait(60)


def test_a_build_that_fails_changes_nothing(weights, crops):
    def build(cancelled):
        raise EngineError("the compiler is on strike")

    with SwapEngine(weights, torch_engine(weights), build) as engine:
        assert engine.wait(30)
        assert engine.name == "torch"
        assert "on strike" in str(engine.fallback)
        assert engine.translate(crops, style(1)).shape == crops.shape


def test_closing_cancels_the_build(weights, crops):
    begun, ended = threading.Event(), threading.Event()

    def build(cancelled):
        begun.set()
        while not cancelled():
            threading.Event().wait(0.01)
        ended.set()
        raise EngineError("the build was stopped")

    engine = SwapEngine(weights, torch_engine(weights), build)
    assert begun.wait(30)
    engine.close()
    assert ended.is_set()
    assert engine.wait(0)
    assert not engine.fallback
    with pytest.raises(EngineError, match="closed"):
        engine.translate(crops, style(1))
    engine.close()


def test_foreign_content(weights):
    with (
        SwapEngine(weights, torch_engine(weights), lambda _: torch_engine(weights)) as engine,
        pytest.raises(EngineError, match="another engine"),
    ):
        engine.decode("content", style(1))
