"""Where a GPU fails the CPU goes on: out of memory, lost in mid-video, not to be used at all.

Device: CPU; the GPU is `tests.cuda_stub`, on which the engine `torch` runs.
"""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
import torch

import engines
from engines.errors import BuildCancelled, EngineError
from engines.failover import FailoverEngine
from engines.swap import SwapEngine
from engines.torch_engine import TorchEngine
from tests.cuda_fixtures import STYLE, alike, crops, cuda, expected, weights

LOST = "CUDA error: unspecified launch failure\nCUDA kernel errors might be reported later"
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."


def failover(weights, gpu=None):
    def spare():
        return TorchEngine(weights, device="cpu", precision="fp32")

    return FailoverEngine(weights, gpu or TorchEngine(weights, device="cuda:0", precision="fp32"), spare)


def break_gpu(monkeypatch, *, after=0, error=lambda count: RuntimeError(LOST)):
    """The engine on the GPU raises from that call on."""
    translate, calls = TorchEngine._translate_on_gpu, []

    def broken(self, crops, vectors):
        calls.append(len(crops))
        if len(calls) > after and (found := error(len(crops))) is not None:
            raise found
        return translate(self, crops, vectors)

    monkeypatch.setattr(TorchEngine, "_translate_on_gpu", broken)
    return calls


def test_while_the_gpu_works_it_works(cuda, weights, crops, expected):
    with failover(weights) as engine:
        engine.warm_up()
        assert alike(engine.translate(crops, STYLE), expected)
        assert alike(engine.decode(engine.encode(crops), STYLE), expected)
        assert (engine.name, engine.device, engine.fallback.reason) == ("torch", "cuda:0", "")


def test_a_lost_card(cuda, weights, crops, expected, monkeypatch, caplog, no_threads_left):
    """Every picture comes, in the style that was set; it is said once."""
    break_gpu(monkeypatch, after=2)
    with failover(weights) as engine, caplog.at_level(logging.WARNING):
        engine.set_style(STYLE)
        for i in range(5):
            assert alike(engine.translate(crops[i : i + 1]), expected[i : i + 1])
            assert engine.device == ("cuda:0" if i < 2 else "cpu")
        assert len(caplog.records) == 1
        assert engine.fallback.reason == (
            "torch on cuda:0 failed (CUDA error: unspecified launch failure): torch on the CPU went on"
        )


def test_codes_of_the_lost_card(cuda, weights, crops, expected, monkeypatch):
    with failover(weights) as engine:
        mine = crops.copy()
        codes = engine.encode(mine)
        one = engine.encode(crops[:1])
        mine[:] = 0
        break_gpu(monkeypatch)
        assert alike(engine.translate(crops, STYLE), expected)
        assert engine.device == "cpu"
        assert alike(engine.decode(codes, STYLE), expected)
        assert alike(engine.decode_styles(one, np.stack([STYLE, STYLE])), expected[[0, 0]])
        with pytest.raises(EngineError, match="another engine"):
            engine.decode("a code", STYLE)


def test_out_of_memory_smaller_batches_come_first(cuda, weights, crops, expected, monkeypatch, caplog):
    calls = break_gpu(
        monkeypatch, error=lambda count: torch.cuda.OutOfMemoryError(FULL) if count > 1 else None
    )
    with failover(weights) as engine, caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert alike(engine.translate(crops[:4], STYLE), expected[:4])
        assert engine.device == "cuda:0"
        assert engine.fallback.reason == "cuda:0 is short of memory: smaller batches"
        assert len(caplog.records) == 1
        assert calls[-4:] == [1, 1, 1, 1]  # it is not tried again for every frame


def test_out_of_memory_with_one_picture(cuda, weights, crops, expected, monkeypatch):
    break_gpu(monkeypatch, error=lambda count: torch.cuda.OutOfMemoryError(FULL))
    with failover(weights) as engine:
        assert alike(engine.translate(crops, STYLE), expected)
        assert engine.device == "cpu"
        assert engine.fallback.reason.endswith(f"failed ({FULL}): torch on the CPU went on")


def test_where_the_cpu_fails_too_the_gpus_error_is_told(cuda, weights, crops, monkeypatch):
    def spare():
        raise EngineError("no memory either")

    break_gpu(monkeypatch)
    gpu = TorchEngine(weights, device="cuda:0", precision="fp32")
    with FailoverEngine(weights, gpu, spare) as engine, pytest.raises(RuntimeError, match="launch failure"):
        engine.translate(crops, STYLE)


def test_a_build_that_the_user_stopped_is_no_failure(cuda, weights, crops, monkeypatch):
    break_gpu(monkeypatch, error=lambda count: BuildCancelled("the build was stopped"))
    with failover(weights) as engine:
        with pytest.raises(BuildCancelled):
            engine.translate(crops, STYLE)
        assert engine.device == "cuda:0"


def test_the_users_mistakes_change_nothing(cuda, weights, crops):
    with failover(weights) as engine:
        for wrong in (lambda: engine.translate(crops), lambda: engine.translate(crops[:, :9], STYLE)):
            with pytest.raises(EngineError):
                wrong()
        assert engine.device == "cuda:0"
    with pytest.raises(EngineError, match="closed"):
        engine.translate(crops, STYLE)


def test_a_card_lost_while_its_engine_is_built(cuda, weights, crops, expected, monkeypatch, no_threads_left):
    stopped = threading.Event()

    def build(cancelled):
        while not cancelled():
            stopped.wait(0.01)
        stopped.set()
        raise EngineError("the build was stopped")

    break_gpu(monkeypatch, after=1)
    gpu = SwapEngine(weights, TorchEngine(weights, device="cuda:0", precision="fp32"), build)
    with failover(weights, gpu) as engine:
        for _ in range(3):
            assert alike(engine.translate(crops[:1], STYLE), expected[:1])
        assert engine.device == "cpu"
        assert stopped.wait(10)


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_that_cannot_be_used_at_all(cuda, weights, crops, expected, monkeypatch, device):
    """Chosen by the program, the CPU takes its place; asked for, it is an error."""

    def place(self, module):
        if self.device.startswith("cuda"):
            raise EngineError(f"torch cannot use {self.device}: {FULL}")
        return module.eval()

    monkeypatch.setattr(TorchEngine, "_place", place)
    if device == "cuda":
        with pytest.raises(EngineError, match="out of memory"):
            engines.create(weights, device=device, precision="fp32")
        return
    with engines.create(weights, device=device, precision="fp32") as engine:
        assert engine.device == "cpu"
        assert "torch: torch cannot use cuda:0" in str(engine.fallback)
        assert np.abs(engine.translate(crops, STYLE).astype(int) - expected).max() <= 2


def test_a_file_goes_on(cuda, tiny, face_clip, face_model, tmp_path, monkeypatch):
    """A card lost in mid-video: all frames are there, and the report says what happened."""
    from gnr_video import Translator
    from gnr_video.media.open import open_source
    from gnr_video.options import EngineOptions, LookOptions

    calls = break_gpu(monkeypatch, after=9)
    with Translator(
        tiny,
        engine=EngineOptions("torch", device="cuda", precision="fp32"),
        look=LookOptions(face_model=face_model),
    ) as translator:
        assert translator.engine.device == "cuda:0"
        report = translator.translate_video(face_clip, tmp_path / "out.mp4")
    assert report.frames == 24 and len(calls) == 10
    with open_source(str(tmp_path / "out.mp4")) as source:
        assert len(list(source)) == 24
    assert report.engine.endswith(" on cpu")
    assert (
        len(report.fallbacks) == 1
        and "failed (CUDA error: unspecified launch failure)" in report.fallbacks[0]
    )


@pytest.mark.parametrize(
    ("version", "visible", "message"),
    [
        (None, None, "is built for the CPU only"),
        ("13.0", "", "CUDA_VISIBLE_DEVICES= hides all"),
        ("13.0", "-1", "CUDA_VISIBLE_DEVICES=-1 hides all"),
        ("13.0", "0", "a driver too old for CUDA 13.0"),
        ("13.0", None, "a driver too old for CUDA 13.0"),
    ],
)
def test_why_there_is_no_cuda(weights, monkeypatch, version, visible, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(EngineError) as caught:
        engines.create(weights, engine="torch", device="cuda")
    assert message in caught.value.message and "\n" not in str(caught.value)


def test_a_tensorrt_of_another_cuda(monkeypatch):
    """Its builder and its runtime do not begin: pybind11 raises a TypeError that says nothing."""
    from engines.tensorrt_build import build_engine
    from engines.tensorrt_plan import Plan

    class Other:
        __name__, __version__ = "tensorrt", "10.9.0"

        class ILogger:
            Severity = type("Severity", (), {"ERROR": 1})

        def Builder(self, logger):
            logger.log(1, "CUDA initialization failure with error: 35. Please check your CUDA installation")
            raise TypeError("pybind11::init(): factory function returned nullptr")

        Runtime = Builder

    for work in (lambda: build_engine(Other(), None), lambda: Plan(Other(), b"")):
        with pytest.raises(EngineError, match="does not begin: CUDA initialization failure") as caught:
            work()
        assert "torch's is" in caught.value.hint
