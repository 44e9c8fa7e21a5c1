"""Engines `tensorrt` and `tensorrt-rtx`: the default on NVIDIA GPUs. Compiled once, cached, replayed as a CUDA graph.

Encoder and dynamic decoder are engines of their own, for every side of crops. A frame's upload, both networks and the
download are one CUDA graph; two of them, with buffers and streams of their own, take turns, so that one batch travels
while the other is computed.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch

from engines.accuracy import make_accurate
from engines.base import Crops, Engine
from engines.cache import EngineCache, EngineKey
from engines.cuda_graph import Replayable, no_recording
from engines.devices import no_cuda, numbered
from engines.errors import EngineError, GnrVideoError
from engines.files import write_atomically
from engines.graph import GRAPH_VERSION, Upsampling
from engines.onnx_export import OPSETS, TYPES, export_part, picture_shapes
from engines.tensorrt_build import (
    BuildOptions,
    Progress,
    begin,
    build_engine,
    check_target,
    import_tensorrt,
    logger_of,
    what_went_wrong,
)
from engines.weights import Weights

if TYPE_CHECKING:
    from engines.onnx_export import Part

PARTS: tuple[Part, ...] = ("encoder", "decoder")
DTYPES = {"UINT8": torch.uint8, "FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16}
"""TensorRT's names of types."""
MAX_SIDES = 4
"""So many sides of crops are held on the GPU; the one not used for longest makes room."""


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
    side: int | None = None,
) -> EngineKey:
    """The cache's key of one part. Engines of TensorRT for RTX serve every GPU of an `sm`, others one model."""
    return EngineKey(
        part=part,
        size=side or weights.architecture.size,
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
    side: int | None = None,
    float_pictures: bool = False,
    progress: Progress | None = None,
    **options: Unpack[BuildOptions],
) -> bytes:
    """Export and compile one part; other arguments and errors as `engines.tensorrt_build.build_engine`.

    Args:
        side: of the crops, pixels; None: the weights' size.
        float_pictures: see `engines.onnx_export.export_part`.
    """
    side = side or weights.architecture.size
    graph = export_part(
        weights, part, precision, side=side, up=upsampling(precision), float_pictures=float_pictures
    )
    # Parsers know types by themselves: that bf16's newer opset would be another thing to understand.
    graph.opset_import[0].version = OPSETS["fp32"]
    told = None if progress is None else partial(_tell, progress, part, f"{part} {side}x{side} {precision}")
    return build_engine(trt, graph, progress=told, **options)


def _tell(progress: Progress, part: Part, what: str, phase: str, done: float) -> bool:
    half = 0.5 * PARTS.index(part)
    return progress(f"{what}: {phase}", half + done / 2)


def build_ahead(
    weights: Weights,
    precision: str,
    targets: Sequence[str],
    *,
    sides: Sequence[int] = (),
    batch: int = 1,
    cache: EngineCache | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Compile TensorRT for RTX engines into the cache for GPUs that need not be there.

    They are not compared with golden frames: that happens on the GPU, when they are first used.

    Args:
        targets: of `engines.tensorrt_build.RTX_TARGETS`.
        sides: of the crops, pixels; none: the weights' size.

    Returns:
        The engines' files, encoder and decoder for each side for each target.
    """
    name = "tensorrt-rtx"
    trt, cache = import_tensorrt(name), cache or EngineCache()
    paths = []
    for sm, side, part in product(targets, sides or [weights.architecture.size], PARTS):
        version = trt.__version__
        key = engine_key(weights, part, precision, name=name, version=version, sm=sm, batch=batch, side=side)
        build = partial(
            build_part,
            trt,
            weights,
            part,
            precision,
            side=side,
            batch=batch,
            targets=[sm],
            progress=progress,
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
        raise no_cuda()
    try:
        major, minor = torch.cuda.get_device_capability(device)
        return f"sm{major}{minor}", torch.cuda.get_device_name(device)
    except (RuntimeError, AssertionError) as error:
        raise EngineError(f"torch cannot use {device}: {error}") from error


def check_gpu(trt: Any, name: str, sm: str, gpu: str) -> None:
    """Whether a TensorRT runs on GPUs of that compute capability at all, as far as it says.

    Raises:
        EngineError: it does not.
    """
    if name == "tensorrt-rtx":
        try:
            check_target(trt, sm)
        except EngineError as error:
            raise EngineError(f"{error.message}: {gpu}", error.hint) from error


def create_tensorrt(
    weights: Weights,
    *,
    name: str,
    device: str,
    precision: str,
    side: int | None = None,
    batch: int = 1,
    cache: EngineCache | None = None,
    progress: Progress | None = None,
) -> Engine:
    """The engine from the cache, or built; compared with golden frames once, with fp16 -> bf16 -> fp32.

    Args:
        name: "tensorrt", "tensorrt-rtx" or "torch2trt".
        precision: "fp16", "bf16" or "fp32".
        side: of the crops that it is made and compared for, pixels; None: the weights' size. Others are added when
            the first such crop comes, which may take minutes.
        batch: pictures at a time.
        progress: see `engines.tensorrt_build.Progress`.

    Raises:
        EngineError: no GPU, TensorRT is missing, or no precision can be built. BuildCancelled: by `progress`.
    """
    trt, cache, device = import_tensorrt(name), cache or EngineCache(), numbered(device)
    sm, gpu = device_of(device)
    check_gpu(trt, name, sm, gpu)
    first = side or weights.architecture.size

    def key(part: str, side: int, precision: str) -> EngineKey:
        version = trt.__version__
        return engine_key(
            weights, part, precision, name=name, version=version, sm=sm, gpu=gpu, batch=batch, side=side
        )

    def make(precision: str) -> Engine:
        return TensorRtEngine(
            weights,
            name=name,
            device=device,
            precision=precision,
            side=first,
            batch=batch,
            trt=trt,
            cache=cache,
            key=partial(key, precision=precision),
            progress=progress,
        )

    def known(precision: str) -> float | None:
        return cache.about(key("decoder", first, precision)).get("golden_psnr_db")

    def note(precision: str, found: float) -> None:
        cache.note(key("decoder", first, precision), golden_psnr_db=round(found, 2))

    return make_accurate(make, weights, precision, side=first, known=known, note=note)


def is_cached(
    weights: Weights, *, name: str, device: str, precision: str, side: int | None = None, batch: int = 1
) -> bool:
    """Whether `create_tensorrt` will not have to build.

    Raises:
        EngineError: it will not run here at all.
    """
    trt, cache = import_tensorrt(name), EngineCache()
    sm, gpu = device_of(device)
    check_gpu(trt, name, sm, gpu)
    version = trt.__version__
    keys = (
        engine_key(
            weights, part, precision, name=name, version=version, sm=sm, gpu=gpu, batch=batch, side=side
        )
        for part in PARTS
    )
    return all(cache.has(key) for key in keys)


def import_engines(
    files: Sequence[Path], weights: Weights, precision: str, *, device: str, cache: EngineCache | None = None
) -> list[Path]:
    """Put engines that torch2trt saved (encoder, decoder) into the cache, for this GPU and these weights.

    They are for crops of the side that they were made for. They are tried at once: deserialised, and compared with
    golden frames.

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
    with torch.cuda.device(device):
        side, other = (Plan(trt, module.engine).side for module in modules)
    if side != other or not weights.architecture.fits(side):
        raise EngineError(
            f"the encoder is for crops of {side}x{side}, the decoder of {other}x{other}",
            f"make both for the same, such as {weights.architecture.size}x{weights.architecture.size}",
        )
    paths = []
    for part, module in zip(PARTS, modules, strict=True):
        version = trt.__version__
        key = engine_key(weights, part, precision, name=name, version=version, sm=sm, gpu=gpu, side=side)
        with cache.locked(key):
            cache.write(key, module.engine)
        paths.append(cache.path(key))
    engine = create_tensorrt(weights, name=name, device=device, precision=precision, side=side, cache=cache)
    engine.close()
    if engine.precision != precision:
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
        logger = logger_of(trt)
        since = logger.count
        with no_recording():
            self._runtime = begin(trt, trt.Runtime)
            self.engine = self._runtime.deserialize_cuda_engine(data)
        if self.engine is None:
            raise EngineError(f"the engine does not deserialise: {what_went_wrong(logger, since)}")
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
    def side(self) -> int:
        """Of the pictures that go in or come out, pixels; -1 where it is not fixed."""
        return int(self.engine.get_tensor_shape("images")[1])

    def dtype(self, tensor: str) -> torch.dtype:
        """Of one of its inputs or outputs.

        Raises:
            EngineError: no such tensor, or a type that pictures and codes do not have.
        """
        kind = self.engine.get_tensor_dtype(tensor).name
        if kind not in DTYPES:
            raise EngineError(
                f"the engine's tensor {tensor!r} is of type {kind}", f"it takes {', '.join(DTYPES)}"
            )
        return DTYPES[kind]

    @property
    def captures_itself(self) -> bool:
        return self._config is not None

    def context(self) -> Any:
        """A new execution context: one for each set of buffers."""
        with no_recording():
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
    """Buffers, contexts and a CUDA graph for one batch in flight. Made and used with its device as the current one."""

    def __init__(
        self,
        encoder: Plan,
        decoder: Plan,
        *,
        pictures: tuple[int, ...],
        content: tuple[int, ...],
        vectors: int,
        device: str,
        failed: Callable[[str], None],
    ) -> None:
        batch = pictures[0]
        with torch.inference_mode(False):  # what is made in it, cannot be written outside
            self.pinned = torch.zeros(pictures, dtype=torch.uint8, pin_memory=True)
            self.pinned_style = torch.zeros((batch, vectors), pin_memory=True)
            self.pinned_result = torch.zeros(pictures, dtype=torch.uint8, pin_memory=True)
            self.images = torch.zeros(pictures, dtype=torch.uint8, device=device)
            self.style = torch.zeros((batch, vectors), device=device)
            self.content = torch.zeros(content, dtype=encoder.dtype("content"), device=device)
            self.result = torch.zeros(pictures, dtype=torch.uint8, device=device)
            # Engines for torch2trt take and give floats: then there are buffers of those between.
            self._taken = self.images.to(encoder.dtype("images"))
            self._given = self.result.to(decoder.dtype("images"))
        self.stream = torch.cuda.Stream(device)
        self.stream.wait_stream(torch.cuda.current_stream())
        self.done = torch.cuda.Event()
        self.count = 0
        self._encode, self._decode = encoder.context(), decoder.context()
        _bind(self._encode, images=self._taken, content=self.content)
        _bind(self._decode, content=self.content, style=self.style, images=self._given)
        # TensorRT finishes its set-up in the first run.
        self._frame = Replayable(self.stream, warm_ups=1, recordable=not encoder.captures_itself)
        self._frame.run(self._enqueue, failed)
        self.stream.synchronize()

    def _enqueue(self) -> None:
        self.images.copy_(self.pinned, non_blocking=True)
        self.style.copy_(self.pinned_style, non_blocking=True)
        self.run_encoder()
        self.run_decoder()
        self.pinned_result.copy_(self.result, non_blocking=True)

    def run_encoder(self) -> None:
        """`images` to `content`, on the slot's stream, which has to be the current one."""
        if self._taken.dtype != self.images.dtype:
            self._taken.copy_(self.images)
        _execute(self._encode, self.stream)

    def run_decoder(self) -> None:
        """`content` and `style` to `result`, likewise."""
        _execute(self._decode, self.stream)
        if self._given.dtype != self.result.dtype:
            self.result.copy_(self._given)

    def start(self, crops: Crops, vectors: torch.Tensor, failed: Callable[[str], None]) -> None:
        """Send a batch on its way; `finish` waits for it."""
        self.count = len(crops)
        self.pinned[: self.count].copy_(torch.from_numpy(crops))
        self.pinned_style[: self.count].copy_(vectors)
        self._frame.run(self._enqueue, failed)
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


@dataclass(frozen=True)
class _Side:
    """What translates crops of one side: the parts' engines, and two batches in flight."""

    plans: list[Plan]
    slots: list[_Slot]


class TensorRtEngine(Engine):
    """The generator in TensorRT; made by `create_tensorrt`.

    Args:
        side: of the crops that it is made for at once.
        key: part, side -> the cache's key.
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
        side: int,
        batch: int,
        trt: Any,
        cache: EngineCache,
        key: Callable[[str, int], EngineKey],
        progress: Progress | None = None,
    ) -> None:
        if precision not in TYPES:
            raise EngineError(f"{name} does not run {precision}", f"choose {', '.join(TYPES)}")
        super().__init__(weights, device=device, precision=precision)
        self.name = name
        self._chunk = batch
        self._trt, self._cache, self._key, self._progress = trt, cache, key, progress
        self._sides: dict[int, _Side] = {}
        self._at(side)

    def _at(self, side: int) -> _Side:
        """What translates crops of that side: as it is, or from the cache, or built."""
        made = self._sides.pop(side, None)
        if made is None:
            while len(self._sides) >= MAX_SIDES:
                del self._sides[next(iter(self._sides))]
            with torch.cuda.device(self.device):
                made = self._make(side)
        self._sides[side] = made  # the last used stands last
        return made

    def _make(self, side: int) -> _Side:
        pictures, content = picture_shapes(self.architecture, side)
        plans = [self._plan(part, side) for part in PARTS]
        slots = [
            _Slot(
                *plans,
                pictures=(self._chunk, *pictures),
                content=(self._chunk, *content),
                vectors=self._to_vectors(np.zeros(self.architecture.style_dim, np.float32)).shape[1],
                device=self.device,
                failed=self._slower,
            )
            for _ in range(2)
        ]
        for plan in plans:
            plan.keep_kernels()
        return _Side(plans, slots)

    def _plan(self, part: Part, side: int) -> Plan:
        key, trt, folder = self._key(part, side), self._trt, self._cache.folder
        jit = self._cache.path(key).with_suffix(".jit") if self.name == "tensorrt-rtx" else None

        def build() -> bytes:
            return build_part(
                trt,
                self._check_open(),
                part,
                self.precision,
                side=side,
                batch=self._chunk,
                # By itself TensorRT for RTX leaves Turing out.
                targets=[key.sm] if self.name == "tensorrt-rtx" else [],
                device=self.device,
                timing_cache=folder / f"{self.name}-{trt.__version__}-{key.sm}.timing",
                progress=self._progress,
            )

        return self._cache.get(key, build, partial(Plan, trt, jit=jit))

    def _use_style(self, vectors: torch.Tensor) -> None:
        """Nothing to bake: the style is an input, and `_vectors` holds it."""

    def _rows_of(self, vectors: torch.Tensor | None, count: int) -> torch.Tensor:
        rows = self._vectors if vectors is None else vectors
        assert rows is not None
        return rows.expand(count, -1)

    def _translate(self, crops: Crops, vectors: torch.Tensor | None) -> Crops:
        slots, rows = self._at(crops.shape[1]).slots, self._rows_of(vectors, len(crops))
        results: list[Crops] = []
        in_flight: deque[_Slot] = deque()
        with torch.cuda.device(self.device), torch.inference_mode():
            for number, at in enumerate(range(0, len(crops), self._chunk)):
                if len(in_flight) == len(slots):
                    results.append(in_flight.popleft().finish())
                slot = slots[number % len(slots)]
                slot.start(crops[at : at + self._chunk], rows[at : at + self._chunk], self._slower)
                in_flight.append(slot)
            results += [slot.finish() for slot in in_flight]
        return np.concatenate(results)

    def _encode(self, crops: Crops) -> torch.Tensor:
        slot, codes = self._at(crops.shape[1]).slots[0], []
        with torch.cuda.device(self.device), torch.inference_mode(), torch.cuda.stream(slot.stream):
            for at in range(0, len(crops), self._chunk):
                chunk = torch.from_numpy(crops[at : at + self._chunk])
                slot.images[: len(chunk)].copy_(chunk)
                slot.run_encoder()
                codes.append(slot.content[: len(chunk)].clone())
            joined = torch.cat(codes)
            slot.stream.synchronize()
        return joined

    def _decode(self, content: torch.Tensor, vectors: torch.Tensor | None) -> Crops:
        slot, pictures = self._at(content.shape[2] << self.architecture.num_down).slots[0], []
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
        self._sides.clear()
