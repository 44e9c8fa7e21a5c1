"""Every engine keeps the contract of engines/base.py, and `auto` never fails for want of an optional one.

Device: CPU; the CUDA test skips without one, the OpenVINO ones without the package.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from importlib.util import find_spec

import numpy as np
import pytest
import torch

import engines
from benchmarks.official import OfficialGenerator, normalise, quantise
from engines.accuracy import psnr
from engines.errors import EngineError, StyleError, WeightsError
from engines.installation import install_line
from tests.golden import golden_weights, narrow, relative_error

ARCHITECTURE = narrow(size=64, num_down=3, latent_dim=8, style_dim=16, coarse=1, place=5)
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="needs openvino")
needs_onnx = pytest.mark.skipif(
    find_spec("onnx") is None or find_spec("onnxruntime") is None, reason="needs onnx and onnxruntime"
)
RUNNABLE = [
    pytest.param(("torch", "fp32"), id="torch-fp32"),
    pytest.param(("torch", "bf16"), id="torch-bf16"),
    pytest.param(("openvino", "fp32"), id="openvino-fp32", marks=needs_openvino),
    pytest.param(("openvino", "bf16"), id="openvino-bf16", marks=needs_openvino),
    pytest.param(("onnx", "fp32"), id="onnx-fp32", marks=needs_onnx),
    pytest.param(("onnx", "fp16"), id="onnx-fp16", marks=needs_onnx),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights():
    return golden_weights(ARCHITECTURE, style_encoder=True)


@pytest.fixture(scope="module", params=RUNNABLE)
def engine(request, weights):
    name, precision = request.param
    with engines.create(weights, engine=name, precision=precision, device="cpu", threads=1) as made:
        yield made


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def styles():
    return np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(weights, crops, styles):
    """The official path's pictures: crop i in style i."""
    official = OfficialGenerator(weights)
    with torch.inference_mode():
        content = official.encode(normalise(torch.from_numpy(crops)))
        return quantise(official.decode(content, official.mapping(torch.from_numpy(styles)))).numpy()


def check(engine, found, expected):
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    if engine.precision == "fp32":
        assert np.abs(found.astype(int) - expected).max() <= 1
    else:
        assert psnr(found, expected) >= 40


def test_attributes(engine):
    assert engine.size == 64
    assert engine.architecture == ARCHITECTURE
    assert engine.device == "cpu"
    assert not engine.fallback
    assert str(engine.fallback) == "no fallback"


def test_set_style(engine, crops, styles, expected):
    for i in (0, 1):
        engine.set_style(styles[i])
        check(engine, engine.translate(crops[i : i + 1]), expected[i : i + 1])


def test_a_style_for_each_picture(engine, crops, styles, expected):
    check(engine, engine.translate(crops, styles), expected)


def test_one_style_serves_all_pictures(engine, crops, styles):
    engine.set_style(styles[2])
    check(engine, engine.translate(crops, styles[2]), engine.translate(crops))


def test_encode_then_decode(engine, crops, styles, expected):
    content = engine.encode(crops)
    check(engine, engine.decode(content, styles), expected)
    engine.set_style(styles[0])
    check(engine, engine.decode(engine.encode(crops[:1])), expected[:1])


def test_w_codes(engine, crops, styles, expected):
    w = engine.to_w(styles)
    assert w.shape == (3, 16)
    assert np.array_equal(engine.to_w(w), w)
    check(engine, engine.translate(crops, w), expected)
    engine.set_style(w[0])
    check(engine, engine.translate(crops[:1]), expected[:1])


def test_warm_up_keeps_the_style(engine, crops, styles, expected):
    engine.set_style(styles[0])
    engine.warm_up()
    check(engine, engine.translate(crops[:1]), expected[:1])


def test_arrays_belong_to_the_caller(engine, crops, styles):
    given = crops[:1].copy()
    given.setflags(write=False)
    engine.set_style(styles[0])
    first = engine.translate(given)
    kept = first.copy()
    engine.translate(crops[1:2], styles[1])
    engine.translate(crops[1:2])
    assert np.array_equal(first, kept)
    assert np.array_equal(given, crops[:1])
    first[:] = 0  # writable


def test_used_from_a_worker_thread(engine, crops, styles, expected):
    found = []
    engine.set_style(styles[0])
    worker = threading.Thread(target=lambda: found.append(engine.translate(crops[:1])))
    worker.start()
    worker.join(60)
    check(engine, found[0], expected[:1])


def test_encode_style(engine, weights, crops):
    z = engine.encode_style(crops[0])
    assert z.dtype == np.float32
    with torch.inference_mode():
        official = OfficialGenerator(weights).encode_style(normalise(torch.from_numpy(crops[:1])))
    assert relative_error(torch.from_numpy(z), official[0]) < 1e-5


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((1, 64, 64, 3), np.float32),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((1, 33, 33, 3), np.uint8),
        np.zeros((1, 64, 80, 3), np.uint8),
        np.zeros((0, 64, 64, 3), np.uint8),
    ],
)
def test_wrong_crops(engine, bad):
    with pytest.raises(EngineError, match="uint8 Nx64x64x3"):
        engine.translate(bad)


def test_crops_of_another_side(engine, weights, crops, styles):
    """The network sees more around the face; a new style is used on the next such crop too."""
    wide = np.stack([np.pad(crop, ((8, 8), (8, 8), (0, 0)), mode="reflect") for crop in crops[:2]])
    assert engine.fits(80) and not engine.fits(81) and not engine.fits(0)
    official = OfficialGenerator(weights)
    for style in styles[:2]:
        engine.set_style(style)
        with torch.inference_mode():
            content = official.encode(normalise(torch.from_numpy(wide)))
            w = official.mapping(torch.from_numpy(np.stack([style, style])))
            wanted = quantise(official.decode(content, w)).numpy()
        check(engine, engine.translate(wide), wanted)
        check(engine, engine.translate(wide, style), wanted)
    content = engine.encode(wide[:1])
    check(engine, engine.decode_styles(content, styles[:2])[1:], wanted[:1])
    with pytest.raises(EngineError, match="uint8 Nx64x64x3"):
        engine.encode_style(wide[0])


def test_wrong_styles(engine, crops, styles, expected):
    engine.set_style(styles[0])
    with pytest.raises(StyleError, match="8 numbers"):
        engine.set_style(np.zeros(7, np.float32))
    with pytest.raises(StyleError, match="finite"):
        engine.set_style(np.full(8, np.nan, np.float32))
    with pytest.raises(StyleError, match="one style"):
        engine.set_style(styles)
    with pytest.raises(StyleError, match="2 style codes for 3"):
        engine.translate(crops, styles[:2])
    check(engine, engine.translate(crops[:1]), expected[:1])  # the style before still holds


def test_foreign_content(engine):
    with pytest.raises(EngineError, match="another engine"):
        engine.decode("content", np.zeros((1, 8), np.float32))


@pytest.mark.parametrize("there", [True, False])
def test_bf16_is_computed_in_float32_where_the_cpu_cannot(monkeypatch, weights, there):
    monkeypatch.setattr("engines.torch_engine._convolves_bf16", lambda: there)
    with engines.create(weights, engine="torch", precision="bf16", device="cpu") as engine:
        content = engine.encode(np.zeros((1, 64, 64, 3), np.uint8))
        kernels = [p for p in engine._encoder.state_dict().values() if p.ndim == 4]
    assert content.dtype == (torch.bfloat16 if there else torch.float32)
    assert all(torch.equal(p, p.bfloat16().to(p.dtype)) for p in kernels) and len(kernels) > 3


def test_no_style_and_closed(weights, crops):
    made = engines.create(weights, engine="torch", device="cpu", precision="fp32")
    with pytest.raises(EngineError, match="no style"):
        made.translate(crops)
    made.close()
    made.close()
    with pytest.raises(EngineError, match="closed"):
        made.set_style(np.zeros(8, np.float32))
    with pytest.raises(EngineError, match="closed"):
        made.translate(crops)


def test_no_style_encoder():
    made = engines.create(golden_weights(ARCHITECTURE), engine="torch", device="cpu", precision="fp32")
    with pytest.raises(WeightsError, match="no style encoder"):
        made.encode_style(np.zeros((64, 64, 3), np.uint8))


def without_openvino(monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "openvino" else find_spec(name))


def test_auto_without_openvino(monkeypatch, weights, crops):
    without_openvino(monkeypatch)
    monkeypatch.setattr(engines, "candidates", lambda device: ["openvino", "torch"])
    made = engines.create(weights, device="cpu")
    assert made.name == "torch"
    assert made.fallback
    assert install_line("cpu") in str(made.fallback)
    assert made.translate(crops, np.zeros(8, np.float32)).shape == crops.shape


def test_auto_when_openvino_is_broken(monkeypatch, weights):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(engines, "candidates", lambda device: ["openvino", "torch"])
    made = engines.create(weights, device="cpu")
    assert made.name == "torch"
    assert "openvino" in str(made.fallback)


def test_every_engine_hears_of_the_side(monkeypatch, weights):
    asked = []

    def make(name, weights, device, precision, threads, side, **_):
        asked.append((name, side))
        if name.startswith("tensorrt"):
            raise EngineError("no GPU")
        return real("torch", weights, "cpu", "fp32", 1, side)

    real = engines._make
    monkeypatch.setattr(engines, "candidates", lambda device: ["tensorrt", "tensorrt-rtx", "torch"])
    monkeypatch.setattr(engines, "_make", make)
    monkeypatch.setattr(engines, "_make_behind", make)
    for side in (80, None):
        assert engines.create(weights, device="cpu", side=side).fallback
    names = ["tensorrt", "tensorrt-rtx", "torch"]
    assert asked == [(name, side) for side in (80, 64) for name in names]


@needs_openvino
def test_openvino_compiles_for_the_side_asked_for(weights, crops, styles, monkeypatch):
    from engines.openvino_engine import OpenVinoEngine

    compiled = []
    real = OpenVinoEngine._compile

    def compile(self, model):
        compiled.append(tuple(model.input(0).shape))
        return real(self, model)

    monkeypatch.setattr(OpenVinoEngine, "_compile", compile)
    with engines.create(weights, engine="openvino", precision="fp32", threads=1, side=80) as engine:
        assert compiled == [(1, 80, 80, 3)]
        engine.set_style(styles[0])
        engine.warm_up(80)
        assert compiled[1:] == [(1, ARCHITECTURE.content_channels, 10, 10)]
        engine.translate(crops[:1])
        assert compiled[2:] == [(1, 64, 64, 3), (1, ARCHITECTURE.content_channels, 8, 8)]


@needs_openvino
def test_an_openvino_that_cannot_compile_is_found_out_at_once(monkeypatch, weights):
    from engines.openvino_engine import OpenVinoEngine

    def fail(self, model):
        raise EngineError("openvino cannot compile the network: no such instruction")

    monkeypatch.setattr(OpenVinoEngine, "_compile", fail)
    monkeypatch.setattr(engines, "candidates", lambda device: ["openvino", "torch"])
    made = engines.create(weights, device="cpu", side=80)
    assert made.name == "torch"
    assert "no such instruction" in str(made.fallback)


def test_openvino_by_name_fails_loudly(monkeypatch, weights):
    without_openvino(monkeypatch)
    with pytest.raises(EngineError, match=re.escape(install_line("cpu"))):
        engines.create(weights, engine="openvino")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"engine": "tensorflow"}, "no engine is called 'tensorflow'"),
        ({"precision": "fp8"}, "no precision is called 'fp8'"),
        ({"engine": "torch", "device": "cpu", "precision": "fp16"}, "does not run fp16"),
        ({"device": "tpu"}, "no device is called 'tpu'"),
        ({"side": 81}, "no crops of 81x81"),
        pytest.param({"engine": "onnx", "precision": "bf16"}, "does not run bf16", marks=needs_onnx),
        pytest.param({"engine": "openvino", "device": "cuda"}, "not on cuda", marks=needs_openvino),
        pytest.param({"engine": "openvino", "precision": "fp16"}, "does not run fp16", marks=needs_openvino),
    ],
)
def test_what_cannot_be_made(weights, choice, message):
    with pytest.raises(EngineError, match=message):
        engines.create(weights, **choice)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none(weights):
    with pytest.raises(EngineError, match="no CUDA device"):
        engines.create(weights, device="cuda")


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_cuda(weights, crops, styles, expected, precision):
    made = engines.create(weights, engine="torch", device="cuda", precision=precision)
    bar = 50 if precision == "fp32" else 40
    for count in (1, 3):
        for _ in range(2):  # captured, then replayed
            assert psnr(made.translate(crops[:count], styles[:count]), expected[:count]) >= bar
    made.set_style(styles[1])
    assert psnr(made.translate(crops[1:2]), expected[1:2]) >= bar
    assert psnr(made.decode(made.encode(crops), styles), expected) >= bar


@needs_openvino
def test_openvino_sends_no_statistics():
    code = (
        "import sys; from engines.openvino_runtime import import_openvino; ov = import_openvino();"
        "ov.convert_model; print(sys.modules.get('openvino_telemetry'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "None", done.stderr


def test_importing_the_package_is_light():
    code = (
        "import os, sys, engines; assert os.environ['OMP_WAIT_POLICY'];"
        "print([m for m in ('torch', 'openvino', 'gnr_video', 'train') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(("own", "then"), [({}, None), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_training_lets_threads_spin_before_torch_reads_it(tmp_path, own, then):
    """The command, up to its data that is not there: torch has been imported by then."""
    code = (
        "import importlib.abc, os, sys\n"
        "class Watch(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch': print(os.environ.get('OMP_WAIT_POLICY'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        "from cli import main\n"
        f"sys.argv[1:] = ['train', {str(tmp_path / 'none')!r}]\n"
        "main()"
    )
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | own
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=env)
    assert "no such data set folder" in done.stderr
    assert done.stdout.split() == [str(then)]
