"""How the generator is executed. `create` picks the fastest engine that runs here, or the one asked for."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

from engines.devices import best_device, candidates, default_precision, numbered
from engines.errors import EngineError
from engines.installation import install_line

if TYPE_CHECKING:
    from pathlib import Path

    from engines.base import Engine
    from engines.image_model import ImageModel, ImageModelOptions
    from engines.int8 import Calibration
    from engines.tensorrt_build import Progress
    from engines.weights import Weights

log = logging.getLogger(__name__)

# Torch's OpenMP threads spin at every barrier, and while they do, a thread that holds the result waits for a
# core: with one other busy thread on two cores a frame took 900 ms, and 44 ms when they sleep instead. The
# pipeline always has other busy threads. It is read when torch is first imported, so it has to stand here.
_WAITING = "OMP_WAIT_POLICY"
_is_ours = _WAITING not in os.environ
os.environ.setdefault(_WAITING, "PASSIVE")

ENGINES = ("openvino", "tensorrt", "tensorrt-rtx", "torch2trt", "torch", "onnx")
TENSORRT = ("tensorrt", "tensorrt-rtx", "torch2trt")
"""Engines that are compiled for one GPU and cached."""
PRECISIONS = ("fp32", "bf16", "fp16", "int8")


def let_threads_spin() -> None:
    """Let OpenMP's threads wait as they do by themselves, for work that has the processor to itself: a training step of
    thousands of small operations takes two thirds of the time. To be called before torch is imported."""
    if _is_ours:
        os.environ.pop(_WAITING, None)


def unavailable(name: str) -> str:
    """Why an engine cannot be made here, with the line that installs it; empty when nothing is missing."""
    if name not in ENGINES:
        return f"no engine is called {name!r}; there are {', '.join(ENGINES)}"
    if name == "openvino" and find_spec("openvino") is None:
        return f"openvino is not installed ({install_line('cpu')})"
    if name in TENSORRT:
        module = "tensorrt_rtx" if name == "tensorrt-rtx" else "tensorrt"
        if find_spec(module) is None:
            extra = "tensorrt-rtx" if name == "tensorrt-rtx" else "gpu"
            return f"{module} is not installed ({install_line(extra)})"
    if name == "onnx":
        missing = [module for module in ("onnx", "onnxruntime") if find_spec(module) is None]
        if missing:
            return f"{missing[0]} is not installed ({install_line('onnx')})"
    return ""


def create(
    weights: Weights,
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    calibration: Calibration | None = None,
    progress: Progress | None = None,
    side: int | None = None,
) -> Engine:
    """Make an engine.

    With "auto", a GPU whose TensorRT engine is not in the cache yet starts with torch and changes over when it
    is built (`engines.swap`).

    Args:
        weights: the generator.
        engine: a name of `ENGINES`, or "auto": the fastest that works; it never fails for want of an
            optional one.
        device: "auto", "cpu", "cuda", "cuda:1".
        precision: "auto", "fp32", "bf16", "fp16" (CUDA), "int8" (OpenVINO).
        threads: CPU threads; None: the runtime's own choice.
        calibration: the faces that int8 is calibrated with.
        progress: told of an engine that is being built, see `engines.tensorrt_build.Progress`.
        side: of the crops that will mostly come, pixels: what is compiled, is compiled for it first, and for
            others when the first such crop comes. None: the weights' size.

    Returns:
        The engine, with `fallback` saying which faster ones were passed over, and why.

    Raises:
        EngineError: unknown name, or the engine asked for by name cannot run here.
    """
    if engine not in ("auto", *ENGINES):
        raise EngineError(f"no engine is called {engine!r}", f"choose auto, {', '.join(ENGINES)}")
    if precision not in ("auto", *PRECISIONS):
        raise EngineError(f"no precision is called {precision!r}", f"choose auto, {', '.join(PRECISIONS)}")
    chosen_here = device == "auto" and engine == "auto"
    if device == "auto":
        device = "cpu" if engine in ("openvino", "onnx") or precision == "int8" else best_device()
        if engine in TENSORRT:
            device = "cuda"
    if device != "cpu" and not device.startswith("cuda"):
        raise EngineError(f"no device is called {device!r}", "choose auto, cpu, cuda or cuda:N")
    device = numbered(device)
    side = side or weights.architecture.size
    if not weights.architecture.fits(side):
        raise EngineError(f"these weights take no crops of {side}x{side}")
    on_cpu = default_precision("cpu") if precision == "auto" else precision
    if precision == "auto":
        precision = default_precision(device, engine)
    if engine == "auto" and precision == "int8":
        engine = "openvino"  # no other has it, and it was asked for by name
    if engine != "auto":
        return _make(
            engine, weights, device, precision, threads, side, calibration=calibration, progress=progress
        )

    from engines.base import Fallback

    passed_over = []
    tried = [(name, device, precision) for name in candidates(device)]
    if device != "cpu" and chosen_here:  # a GPU that nobody asked for, and that may be full or broken
        tried += [(name, "cpu", on_cpu) for name in candidates("cpu")]
    for name, where, how in tried:
        try:
            make = _make_behind if name in TENSORRT else _make
            made = make(name, weights, where, how, threads, side)
        except (EngineError, RuntimeError, ImportError, OSError) as error:
            if (name, where, how) == tried[-1]:
                raise
            log.info("engine %s on %s passed over: %s", name, where, error)
            passed_over.append(f"{name}: {error}" if where == device else f"{name} on {where}: {error}")
        else:
            break
    if passed_over:
        made.fallback = Fallback().plus(*passed_over, made.fallback.reason)
    log.info("engine %s, %s on %s", made.name, made.precision, made.device)
    return made


def _make_behind(
    name: str, weights: Weights, device: str, precision: str, threads: int | None, side: int
) -> Engine:
    """A TensorRT engine from the cache; else torch, until it (or the next one) is built."""
    if reason := unavailable(name):
        raise EngineError(reason)
    from engines.errors import BuildCancelled
    from engines.swap import Cancelled, SwapEngine
    from engines.tensorrt_ahead import is_cached

    if is_cached(weights, name=name, device=device, precision=precision, side=side):
        return _make(name, weights, device, precision, threads, side)

    def build(cancelled: Cancelled) -> Engine:
        names = [n for n in candidates(device) if n in TENSORRT]
        reasons = []
        for candidate in names[names.index(name) :]:
            try:
                return _make(
                    candidate, weights, device, precision, threads, side, progress=lambda *_: not cancelled()
                )
            except BuildCancelled:
                raise
            except EngineError as error:
                reasons.append(f"{candidate}: {error}")
        raise EngineError("; ".join(reasons))

    waiting = f"torch ran while {name} was being built; `gnr-video engine build` does that beforehand"
    now = _make("torch", weights, device, precision, threads, side)
    now.warm_up(side)  # while TensorRT compiles, no CUDA graph can be recorded
    return SwapEngine(weights, now, build, waiting, side=side)


def _make(
    name: str,
    weights: Weights,
    device: str,
    precision: str,
    threads: int | None,
    side: int,
    calibration: Calibration | None = None,
    progress: Progress | None = None,
) -> Engine:
    reason = unavailable(name)
    if reason:
        raise EngineError(reason)
    if name in TENSORRT:
        if not device.startswith("cuda"):
            raise EngineError(
                f"{name} runs on NVIDIA GPUs, not on {device}", "use --engine openvino or torch"
            )
        from engines.tensorrt_engine import create_tensorrt

        return create_tensorrt(
            weights, name=name, device=device, precision=precision, side=side, progress=progress
        )
    if name == "openvino":
        from engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(
            weights, device=device, precision=precision, threads=threads, side=side, calibration=calibration
        )
    if name == "onnx":
        from engines.onnx_engine import OnnxEngine

        return OnnxEngine(weights, device=device, precision=precision, threads=threads)
    from engines.torch_engine import TorchEngine

    return TorchEngine(weights, device=device, precision=precision, threads=threads)


def create_image_model(
    path: str | Path,
    options: ImageModelOptions | None = None,
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> ImageModel:
    """Make an engine of any image-to-image ONNX file; see `engines.image_model`.

    Raises:
        EngineError: asked for in another engine or precision than its own, or ONNX Runtime is missing.
        WeightsError: the file is no such model.
    """
    if engine not in ("auto", "onnx"):
        raise EngineError(f"an ONNX file runs in the engine onnx, not in {engine}", "leave --engine out")
    if precision != "auto":
        raise EngineError("an ONNX file runs in its own precision", "leave --precision out")
    if reason := unavailable("onnx"):
        raise EngineError(reason)
    from engines.image_model import ImageModel

    return ImageModel(path, options, device="cpu" if device == "auto" else device, threads=threads)
