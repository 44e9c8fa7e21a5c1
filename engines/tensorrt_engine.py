"""Engines `tensorrt` and `tensorrt-rtx`: the default on NVIDIA GPUs. Compiled once, cached, replayed as a CUDA graph.

Encoder and dynamic decoder are engines of their own, for every side of crops. A frame's upload, both networks and the
download are one CUDA graph; two of them, with buffers and streams of their own, take turns, so that one batch travels
while the other is computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch

from engines.accuracy import make_accurate
from engines.base import Crops, Engine
from engines.cache import EngineCache, EngineKey
from engines.devices import no_cuda, numbered
from engines.errors import EngineError
from engines.graph import GRAPH_VERSION
from engines.graph_layers import Upsampling
from engines.onnx_export import OPSETS, TYPES, export_part, picture_shapes
from engines.tensorrt_build import (
    BuildOptions,
    Progress,
    build_engine,
    check_target,
    import_tensorrt,
)
from engines.tensorrt_plan import Plan, Slot
from engines.weights import Weights

if TYPE_CHECKING:
    from engines.onnx_export import Part

PARTS: tuple[Part, ...] = ("encoder", "decoder")

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


@dataclass(frozen=True)
class _Side:
    """What translates crops of one side: the parts' engines, and two batches in flight."""

    plans: list[Plan]
    slots: list[Slot]


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
            Slot(
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
        in_flight: deque[Slot] = deque()
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
