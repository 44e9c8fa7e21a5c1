"""After a build an engine must give torch's pictures, else the next wider precision is built.

Device: CPU. The engines are real ones of ONNX Runtime, OpenVINO and torch; each test skips without its package.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch

import engines
from engines.accuracy import InaccurateError, golden_frames, golden_psnr, make_accurate
from engines.base import Engine
from engines.errors import BuildCancelled, EngineError
from engines.weights import Weights
from tests.golden import golden_weights, narrow

ARCHITECTURE = narrow(size=64, num_down=3, latent_dim=8, style_dim=16)
needs_onnx = pytest.mark.skipif(
    find_spec("onnx") is None or find_spec("onnxruntime") is None, reason="needs onnx and onnxruntime"
)


@pytest.fixture(scope="module")
def weights():
    return golden_weights(ARCHITECTURE)


@pytest.fixture(scope="module")
def loud():
    """Weights whose content code is out of fp16's range."""
    plain = golden_weights(ARCHITECTURE)
    tensors = dict(plain.tensors)
    for name in ("encoder.content.1.0.weight", "encoder.content.1.1.bias"):
        tensors[name] = tensors[name] * 1e6
    return Weights(ARCHITECTURE, tensors, plain.metadata, "loud")


def maker(weights, log, **options):
    def make(precision):
        log.append(precision)
        return engines.create(weights, precision=precision, device="cpu", threads=1, **options)

    return make


def test_frames():
    crops, styles = golden_frames(64, 8)
    assert crops.shape == (3, 64, 64, 3) and crops.dtype == np.uint8
    assert styles.shape == (3, 8)
    assert all(len(np.unique(crop)) > 1 and crop.min() < 40 and crop.max() > 215 for crop in crops)
    assert np.array_equal(golden_frames(64, 8)[0], crops)


@pytest.mark.parametrize(
    ("name", "precision", "least"),
    [
        pytest.param("torch", "bf16", 40, id="torch-bf16"),
        pytest.param("onnx", "fp32", 55, id="onnx-fp32", marks=needs_onnx),
        pytest.param("onnx", "fp16", 40, id="onnx-fp16", marks=needs_onnx),
    ],
)
def test_good_engines_pass(weights, name, precision, least):
    with engines.create(weights, engine=name, precision=precision, device="cpu", threads=1) as made:
        for side in (None, 80):
            assert golden_psnr(made, weights, side) >= least


@needs_onnx
def test_another_network_does_not(weights):
    other = golden_weights(ARCHITECTURE, seed=8)
    with engines.create(other, engine="onnx", precision="fp32", threads=1) as made:
        assert golden_psnr(made, weights) < 30


@needs_onnx
def test_overflow_steps_up_to_fp32(loud):
    """fp16 overflows, bf16 is not there in ONNX Runtime, fp32 it is; the checks are kept."""
    tried, kept = [], {}
    made = make_accurate(
        maker(loud, tried, engine="onnx"), loud, "fp16", note=lambda p, found: kept.update({p: found})
    )
    assert tried == ["fp16", "bf16", "fp32"]
    assert made.precision == "fp32"
    assert kept["fp16"] < 40 <= kept["fp32"]
    assert "fp16" in str(made.fallback) and "bf16" in str(made.fallback)
    again = []
    made = make_accurate(maker(loud, again, engine="onnx"), loud, "fp16", known=kept.get)
    assert again == ["bf16", "fp32"]  # fp16 is known to be bad: not even made


def test_a_good_precision_is_kept(weights):
    tried = []
    made = make_accurate(maker(weights, tried, engine="torch"), weights, "bf16")
    assert tried == ["bf16"] and made.precision == "bf16" and not made.fallback


def test_nothing_is_good_enough(weights):
    other = golden_weights(ARCHITECTURE, seed=8)
    with pytest.raises(InaccurateError, match="dB from torch"):
        make_accurate(maker(other, [], engine="torch"), weights, "bf16")


def test_a_cancelled_build_does_not_step(weights):
    tried = []

    def make(precision) -> Engine:
        tried.append(precision)
        raise BuildCancelled("the build was stopped")

    with pytest.raises(BuildCancelled):
        make_accurate(make, weights, "fp16")
    assert tried == ["fp16"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_what_cannot_be_built_in_any_precision(weights):
    tried = []

    def make(precision):
        tried.append(precision)
        return engines.create(weights, engine="torch", device="cuda", precision=precision)

    with pytest.raises(EngineError, match="no CUDA device"):
        make_accurate(make, weights, "fp16")
    assert tried == ["fp16", "bf16", "fp32"]
