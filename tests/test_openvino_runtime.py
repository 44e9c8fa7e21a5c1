"""OpenVINO's requests: where they run, what they return, how they fail. Device: CPU, OpenVINO."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import engines
from engines.openvino_runtime import Request
from tests.golden import golden_weights, narrow

ov = pytest.importorskip("openvino", reason="needs openvino")


def twice() -> Any:
    """A model that doubles pictures and takes one from them."""
    import openvino.opset13 as ops

    x = ops.parameter([1, 3, 8, 8], np.float32)
    two, one = ops.constant(np.float32(2)), ops.constant(np.float32(1))
    return ov.Model([ops.multiply(x, two), ops.subtract(x, one)], [x], "twice")


@pytest.fixture
def request_() -> Request:
    return Request(ov.Core(), twice(), {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"})


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_that_end_have_run_nothing(threads: int) -> None:
    """A caller's thread that OpenVINO has run on takes part in freeing the model when it ends: see `Request`."""
    crops = np.random.default_rng(0).integers(0, 255, (6, 256, 256, 3), np.uint8)
    weights = golden_weights(narrow(size=256, num_down=3, latent_dim=8, style_dim=16))
    with engines.create(weights, engine="openvino", precision="fp32", threads=threads) as engine:
        engine.set_style(np.zeros(8, np.float32))
        engine.translate(crops[:1])
        own, all_threads = time.thread_time(), time.process_time()
        engine.translate(crops)
        own, all_threads = time.thread_time() - own, time.process_time() - all_threads
    assert own < 0.25 * all_threads


def test_all_outputs_in_their_order(request_: Request) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    double, less = request_(x)
    np.testing.assert_array_equal(double, 2 * x)
    np.testing.assert_array_equal(less, x - 1)


def test_only_views_are_overwritten(request_: Request) -> None:
    x = np.ones((1, 3, 8, 8), np.float32)
    kept, view = request_(x)[0], request_(x, is_view=True)[0]
    request_(3 * x)
    assert (kept == 2).all()
    assert (view == 6).all()


def test_a_picture_of_another_shape_is_refused(request_: Request) -> None:
    with pytest.raises(RuntimeError, match="shape"):
        request_(np.ones((1, 3, 4, 4), np.float32))
    assert (request_(np.ones((1, 3, 8, 8), np.float32))[0] == 2).all(), "it goes on"
