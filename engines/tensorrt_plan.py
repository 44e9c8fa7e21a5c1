"""TensorRT's compiled parts: loaded, given memory, run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from engines.base import Crops
from engines.cuda_graph import Replayable, no_recording
from engines.errors import EngineError, GnrVideoError
from engines.files import write_atomically
from engines.tensorrt_build import (
    begin,
    logger_of,
    what_went_wrong,
)

DTYPES = {"UINT8": torch.uint8, "FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16}
"""TensorRT's names of types."""


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


class Slot:
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
        bind(self._encode, images=self._taken, content=self.content)
        bind(self._decode, content=self.content, style=self.style, images=self._given)
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
        execute(self._encode, self.stream)

    def run_decoder(self) -> None:
        """`content` and `style` to `result`, likewise."""
        execute(self._decode, self.stream)
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


def bind(context: Any, **tensors: torch.Tensor) -> None:
    for name, tensor in tensors.items():
        if not context.set_tensor_address(name, tensor.data_ptr()):
            raise EngineError(f"the engine has no tensor {name!r}", "`gnr-video engine clean` removes it")


def execute(context: Any, stream: torch.cuda.Stream) -> None:
    if not context.execute_async_v3(stream.cuda_stream):
        raise EngineError("TensorRT failed to run the network")
