"""Engines `tensorrt` and `tensorrt-rtx`: the default on NVIDIA GPUs. Compiled once, cached, replayed as a CUDA graph.

Encoder and dynamic decoder are engines of their own. A frame's upload, both networks and the download are one
CUDA graph; two of them, with buffers and streams of their own, take turns, so that one batch travels while the
other is computed.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engines.base import Crops, Engine
from engines.cache import EngineCache, EngineKey
from engines.errors import EngineError, GnrVideoError
from engines.files import write_atomically
from engines.golden import make_accurate
from engines.graph import GRAPH_VERSION, Upsampling
from engines.onnx_export import TYPES, export_part
from engines.tensorrt_build import (
    Progress,
    build_engine,
    import_tensorrt,
    make_logger,
)
from engines.weights import Weights

if TYPE_CHECKING:
    from engines.onnx_export import Part

log = logging.getLogger(__name__)

PARTS: tuple[Part, ...] = ("encoder", "decoder")


def upsampling(precision: str) -> Upsampling:
    """Matrix units rather do four times the multiplications than a transposed convolution and its blur."""
    return "transposed" if precision == "fp32" else "polyphase"


def engine_key(
    weights: Weights,
    part: str,
    precision: str,
    *,
    name: str,
    version: str,
    sm: str,
    gpu: str = "",
    batch: int = 1,
) -> EngineKey:
    """The cache's key of one part. Engines of TensorRT for RTX serve every GPU of an `sm`, others one model."""
    return EngineKey(
        part=part,
        size=weights.architecture.size,
        precision=precision,
        batch=batch,
        engine=name,
        version=version,
        sm=sm,
        gpu="" if name == "tensorrt-rtx" else gpu,
        weights=weights.sha256,
        graph=GRAPH_VERSION,
        options=(upsampling(precision),),
    )


def build_part(
    trt: Any,
    weights: Weights,
    part: Part,
    precision: str,
    *,
    batch: int = 1,
    targets: Sequence[str] = (),
    timing_cache: Path | None = None,
    progress: Progress | None = None,
) -> bytes:
    """Export and compile one part; arguments and errors as `engines.tensorrt_build.build_engine`."""
    graph = export_part(weights, part, precision, up=upsampling(precision))
    told = None if progress is None else partial(_tell, progress, part, precision)
    return build_engine(trt, graph, batch=batch, targets=targets, timing_cache=timing_cache, progress=told)


def _tell(progress: Progress, part: Part, precision: str, phase: str, done: float) -> bool:
    half = 0.5 * PARTS.index(part)
    return progress(f"{part} {precision}: {phase}", half + done / 2)


def build_ahead(
    weights: Weights,
    precision: str,
    targets: Sequence[str],
    *,
    batch: int = 1,
    cache: EngineCache | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Compile TensorRT for RTX engines into the cache for GPUs that need not be there.

    They are not compared with golden frames: that happens on the GPU, when they are first used.

    Args:
        targets: of `engines.tensorrt_build.RTX_TARGETS`.

    Returns:
        The engines' files, encoder and decoder for each target.
    """
    name = "tensorrt-rtx"
    trt, cache = import_tensorrt(name), cache or EngineCache()
    paths = []
    for sm in targets:
        for part in PARTS:
            key = engine_key(weights, part, precision, name=name, version=trt.__version__, sm=sm, batch=batch)
            build = partial(
                build_part, trt, weights, part, precision, batch=batch, targets=[sm], progress=progress
            )
            cache.get(key, build, len)
            paths.append(cache.path(key))
    return paths


def device_of(device: str) -> tuple[str, str]:
    """Compute capability ("sm90") and name of a CUDA device.

    Raises:
        EngineError: torch sees no such device.
    """
    if not torch.cuda.is_available():
        raise EngineError(
            f"torch sees no CUDA device (torch {torch.__version__})",
            "TensorRT needs an NVIDIA GPU and a CUDA build of torch; on a CPU use --engine openvino",
        )
    try:
        major, minor = torch.cuda.get_device_capability(device)
        return f"sm{major}{minor}", torch.cuda.get_device_name(device)
    except (RuntimeError, AssertionError) as error:
        raise EngineError(f"torch cannot use {device}: {error}") from error


def create_tensorrt(
    weights: Weights,
    *,
    name: str,
    device: str,
    precision: str,
    batch: int = 1,
    cache: EngineCache | None = None,
    progress: Progress | None = None,
) -> Engine:
    """The engine from the cache, or built; compared with golden frames once, with fp16 -> bf16 -> fp32.

    Args:
        name: "tensorrt", "tensorrt-rtx" or "torch2trt".
        precision: "fp16", "bf16" or "fp32".
        batch: pictures at a time.
        progress: see `engines.tensorrt_build.Progress`.

    Raises:
        EngineError: no GPU, TensorRT is missing, or no precision can be built. BuildCancelled: by `progress`.
    """
    trt, cache = import_tensorrt(name), cache or EngineCache()
    sm, gpu = device_of(device)

    def key(part: str, precision: str) -> EngineKey:
        return engine_key(
            weights, part, precision, name=name, version=trt.__version__, sm=sm, gpu=gpu, batch=batch
        )

    def make(precision: str) -> Engine:
        return TensorRtEngine(
            weights,
            name=name,
            device=device,
            precision=precision,
            batch=batch,
            trt=trt,
            cache=cache,
            key=partial(key, precision=precision),
            progress=progress,
        )

    def known(precision: str) -> float | None:
        return cache.about(key("decoder", precision)).get("golden_psnr_db")

    def note(precision: str, found: float) -> None:
        cache.note(key("decoder", precision), golden_psnr_db=round(found, 2))

    return make_accurate(make, weights, precision, known=known, note=note)


def is_cached(weights: Weights, *, name: str, device: str, precision: str, batch: int = 1) -> bool:
    """Whether `create_tensorrt` will not have to build."""
    trt, cache = import_tensorrt(name), EngineCache()
    sm, gpu = device_of(device)
    keys = (
        engine_key(weights, p, precision, name=name, version=trt.__version__, sm=sm, gpu=gpu, batch=batch)
        for p in PARTS
    )
    return all(cache.has(key) for key in keys)


def import_engines(
    files: Sequence[Path], weights: Weights, precision: str, *, device: str, cache: EngineCache | None = None
) -> list[Path]:
    """Put engines that torch2trt saved (encoder, decoder) into the cache, for this GPU and these weights.

    They are tried at once: deserialised, and compared with golden frames.

    Returns:
        Their places in the cache, from where the engine `torch2trt` takes them.

    Raises:
        EngineError: not such files, or not for this GPU, TensorRT or weights.
    """
    from engines.torch2trt_engine import NAMES, read_module

    name = "torch2trt"
    modules = [read_module(file) for file in files]
    for part, file, module in zip(PARTS, files, modules, strict=True):
        if (set(module.input_names), set(module.output_names)) != tuple(map(set, NAMES[part])):
            raise EngineError(
                f"{file} is no {part}: it takes {', '.join(module.input_names)} "
                f"and gives {', '.join(module.output_names)}",
                f"expected {', '.join(NAMES[part][0])} and {', '.join(NAMES[part][1])}",
            )
    trt, cache = import_tensorrt(name), cache or EngineCache()
    sm, gpu = device_of(device)
    paths = []
    for part, module in zip(PARTS, modules, strict=True):
        Plan(trt, module.engine)
        key = engine_key(weights, part, precision, name=name, version=trt.__version__, sm=sm, gpu=gpu)
        with cache.locked(key):
            cache.write(key, module.engine)
        paths.append(cache.path(key))
    engine = create_tensorrt(weights, name=name, device=device, precision=precision, cache=cache)
    engine.close()
    if engine.fallback:
        raise EngineError(f"these engines do not give the weights' pictures: {engine.fallback}")
    return paths


class Plan:
    """A deserialised TensorRT engine.

    Args:
        trt: from `import_tensorrt`.
        data: the serialised engine.
        jit: file that TensorRT for RTX keeps its kernels for this very GPU in; other TensorRTs need none.

    Raises:
        EngineError: it does not deserialise here.
    """

    def __init__(self, trt: Any, data: bytes, jit: Path | None = None) -> None:
        self._logger = make_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self.engine = self._runtime.deserialize_cuda_engine(data)
        if self.engine is None:
            said = self._logger.errors[-1].strip().splitlines()[0] if self._logger.errors else "unknown"
            raise EngineError(f"the engine does not deserialise: {said[:300]}")
        self._config: Any = None
        self._jit_cache: Any = None
        self._jit = jit
        if jit is not None and hasattr(trt, "IRuntimeConfig"):
            self._config = self.engine.create_runtime_config()
            self._jit_cache = self._config.create_runtime_cache()
            if jit.is_file():
                self._jit_cache.deserialize(jit.read_bytes())  # of no effect where it does not fit
            self._config.set_runtime_cache(self._jit_cache)
            # TensorRT for RTX knows when its kernels are final, so it captures its graphs itself.
            self._config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE

    @property
    def captures_itself(self) -> bool:
        return self._config is not None

    def context(self) -> Any:
        """A new execution context: one for each set of buffers."""
        context = (
            self.engine.create_execution_context()
            if self._config is None
            else self.engine.create_execution_context(self._config)
        )
        if context is None:
            raise EngineError(
                "TensorRT has no memory for an execution context", "free GPU memory, or use a smaller batch"
            )
        return context

    def keep_kernels(self) -> None:
        """Store what TensorRT for RTX compiled just in time; the next start is quicker."""
        if self._jit is not None and self._jit_cache is not None:
            with contextlib.suppress(GnrVideoError, OSError, RuntimeError):
                write_atomically(self._jit, bytes(self._jit_cache.serialize()))


class _Slot:
    """Buffers, contexts and a CUDA graph for one batch in flight."""

    def __init__(
        self,
        encoder: Plan,
        decoder: Plan,
        *,
        batch: int,
        size: int,
        content: tuple[int, ...],
        vectors: int,
        dtype: torch.dtype,
        device: str,
    ) -> None:
        pictures = (batch, size, size, 3)
        self.pinned = torch.zeros(pictures, dtype=torch.uint8, pin_memory=True)
        self.pinned_style = torch.zeros((batch, vectors), pin_memory=True)
        self.pinned_result = torch.zeros(pictures, dtype=torch.uint8, pin_memory=True)
        self.images = torch.zeros(pictures, dtype=torch.uint8, device=device)
        self.style = torch.zeros((batch, vectors), device=device)
        self.content = torch.zeros((batch, *content), dtype=dtype, device=device)
        self.result = torch.zeros(pictures, dtype=torch.uint8, device=device)
        self.stream = torch.cuda.Stream(device)
        self.done = torch.cuda.Event()
        self.count = 0
        self._encode, self._decode = encoder.context(), decoder.context()
        _bind(self._encode, images=self.images, content=self.content)
        _bind(self._decode, content=self.content, style=self.style, images=self.result)
        self._graph: torch.cuda.CUDAGraph | None = None
        if not encoder.captures_itself:
            self._capture()

    def _capture(self) -> None:
        """Record a frame's way; a driver that cannot is no reason to fail."""
        self._enqueue()  # TensorRT finishes its set-up in the first run
        self.stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            # Only this thread's calls: another engine may be at work on the GPU meanwhile.
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self._enqueue()
        except RuntimeError as error:
            log.info("no CUDA graph: %s", error)
        else:
            self._graph = graph

    def _enqueue(self) -> None:
        with torch.cuda.stream(self.stream):
            self.images.copy_(self.pinned, non_blocking=True)
            self.style.copy_(self.pinned_style, non_blocking=True)
            self.run_encoder()
            self.run_decoder()
            self.pinned_result.copy_(self.result, non_blocking=True)

    def run_encoder(self) -> None:
        _execute(self._encode, self.stream)

    def run_decoder(self) -> None:
        _execute(self._decode, self.stream)

    def start(self, crops: Crops, vectors: torch.Tensor) -> None:
        """Send a batch on its way; `finish` waits for it."""
        self.count = len(crops)
        self.pinned[: self.count].copy_(torch.from_numpy(crops))
        self.pinned_style[: self.count].copy_(vectors)
        with torch.cuda.stream(self.stream):
            if self._graph is None:
                self._enqueue()
            else:
                self._graph.replay()
            self.done.record(self.stream)

    def finish(self) -> Crops:
        self.done.synchronize()
        return self.pinned_result[: self.count].numpy().copy()


def _bind(context: Any, **tensors: torch.Tensor) -> None:
    for name, tensor in tensors.items():
        if not context.set_tensor_address(name, tensor.data_ptr()):
            raise EngineError(f"the engine has no tensor {name!r}", "`gnr-video engine clean` removes it")


def _execute(context: Any, stream: torch.cuda.Stream) -> None:
    if not context.execute_async_v3(stream.cuda_stream):
        raise EngineError("TensorRT failed to run the network")


class TensorRtEngine(Engine):
    """The generator in TensorRT; made by `create_tensorrt`.

    Args:
        key: part -> the cache's key.
        progress: see `engines.tensorrt_build.Progress`.

    Raises:
        EngineError: it can neither be loaded nor built.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        name: str,
        device: str,
        precision: str,
        batch: int,
        trt: Any,
        cache: EngineCache,
        key: Callable[[str], EngineKey],
        progress: Progress | None = None,
    ) -> None:
        if precision not in TYPES:
            raise EngineError(f"{name} does not run {precision}", f"choose {', '.join(TYPES)}")
        super().__init__(weights, device=device, precision=precision)
        self.name = name
        self._chunk = batch
        timings = cache.folder / f"{name}-{trt.__version__}-{key('encoder').sm}.timing"
        with torch.cuda.device(device):
            self._plans = [
                cache.get(
                    key(part),
                    partial(
                        _build,
                        name,
                        trt,
                        weights,
                        part,
                        precision,
                        batch=batch,
                        timings=timings,
                        progress=progress,
                    ),
                    partial(Plan, trt, jit=self._jit(cache.path(key(part)))),
                )
                for part in PARTS
            ]
            a = self.architecture
            self._slots = [
                _Slot(
                    *self._plans,
                    batch=batch,
                    size=a.size,
                    content=(a.content_channels, a.content_size, a.content_size),
                    vectors=self._to_vectors(np.zeros(a.style_dim, np.float32)).shape[1],
                    dtype=TYPES[precision],
                    device=device,
                )
                for _ in range(2)
            ]

    def _jit(self, path: Path) -> Path | None:
        return path.with_suffix(".jit") if self.name == "tensorrt-rtx" else None

    def warm_up(self, side: int | None = None) -> None:
        super().warm_up(side)
        for plan in self._plans:
            plan.keep_kernels()

    def _use_style(self, vectors: torch.Tensor) -> None:
        """Nothing to bake: the style is an input, and `_vectors` holds it."""

    def _rows_of(self, vectors: torch.Tensor | None, count: int) -> torch.Tensor:
        rows = self._vectors if vectors is None else vectors
        assert rows is not None
        return rows.expand(count, -1)

    def _translate(self, crops: Crops, vectors: torch.Tensor | None) -> Crops:
        rows = self._rows_of(vectors, len(crops))
        results: list[Crops] = []
        in_flight: deque[_Slot] = deque()
        with torch.cuda.device(self.device), torch.inference_mode():
            for number, at in enumerate(range(0, len(crops), self._chunk)):
                if len(in_flight) == len(self._slots):
                    results.append(in_flight.popleft().finish())
                slot = self._slots[number % len(self._slots)]
                slot.start(crops[at : at + self._chunk], rows[at : at + self._chunk])
                in_flight.append(slot)
            results += [slot.finish() for slot in in_flight]
        return np.concatenate(results)

    def _encode(self, crops: Crops) -> torch.Tensor:
        slot, codes = self._slots[0], []
        with torch.cuda.device(self.device), torch.inference_mode(), torch.cuda.stream(slot.stream):
            for at in range(0, len(crops), self._chunk):
                chunk = torch.from_numpy(crops[at : at + self._chunk])
                slot.images[: len(chunk)].copy_(chunk)
                slot.run_encoder()
                codes.append(slot.content[: len(chunk)].clone())
            slot.stream.synchronize()
        return torch.cat(codes)

    def _decode(self, content: torch.Tensor, vectors: torch.Tensor | None) -> Crops:
        slot, pictures = self._slots[0], []
        rows = self._rows_of(vectors, len(content))
        with torch.cuda.device(self.device), torch.inference_mode(), torch.cuda.stream(slot.stream):
            for at in range(0, len(content), self._chunk):
                chunk = content[at : at + self._chunk]
                slot.content[: len(chunk)].copy_(chunk)
                slot.style[: len(chunk)].copy_(rows[at : at + self._chunk])
                slot.run_decoder()
                pictures.append(slot.result[: len(chunk)].cpu().numpy())
        return np.concatenate(pictures)

    def _batch(self, content: Any) -> int:
        if not isinstance(content, torch.Tensor) or content.ndim != 4:
            raise EngineError(f"content codes of another engine: {type(content).__name__}")
        return content.shape[0]

    def _release(self) -> None:
        self._slots, self._plans = [], []


def _build(
    name: str,
    trt: Any,
    weights: Weights,
    part: Part,
    precision: str,
    *,
    batch: int,
    timings: Path,
    progress: Progress | None,
) -> bytes:
    if name == "torch2trt":
        from engines.torch2trt_engine import convert, own_converter

        if own_converter():
            return convert(weights, part, precision, batch=batch)
    return build_part(trt, weights, part, precision, batch=batch, timing_cache=timings, progress=progress)
