"""Engine `torch`: always there. CPU in bf16 or fp32, CUDA in fp16 as a CUDA graph, all channels_last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from engines.base import Crops, Engine
from engines.cuda_graph import Replayable
from engines.devices import no_cuda
from engines.errors import EngineError
from engines.graph import ContentEncoder, Decoder
from engines.graph_layers import Upsampling
from engines.weights import Weights

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MAX_CUDA_GRAPHS = 4
WARM_UPS = 3
"""Runs in which cuDNN chooses its kernels, before a graph is recorded."""


def _convolves_bf16() -> bool:
    """Whether oneDNN has bf16 convolutions for this CPU (x86: from AVX-512 on). Torch's own take 14 times as long as
    fp32."""
    found = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return found is not None and bool(found())


class TorchEngine(Engine):
    """The folded graphs in torch. On CPUs without bf16 convolutions bf16 is that of the weights: sums and what lies
    between the layers are float32, at the speed of fp32.

    Args:
        device: "cpu", "cuda" or "cuda:N".
        precision: "fp32", "bf16" or (CUDA only) "fp16".
        threads: of torch on the CPU, for the whole process; None: as it is.

    Raises:
        EngineError: no such device, or not in this precision.
    """

    name = "torch"

    def __init__(self, weights: Weights, *, device: str, precision: str, threads: int | None = None) -> None:
        super().__init__(weights, device=device, precision=precision)
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise no_cuda()
        if precision not in TYPES or (precision == "fp16" and device == "cpu"):
            raise EngineError(f"torch does not run {precision} on {device}", "use bf16 or fp32")
        if threads is not None and device == "cpu":
            torch.set_num_threads(threads)
        self._dtype = TYPES[precision]
        self._wide = precision == "bf16" and device == "cpu" and not _convolves_bf16()
        # Matrix units do the four times larger polyphase convolution in less time than a transposed
        # convolution and its blur take (AMX: 10 % less for the decoder); plain vector units do not.
        self._up: Upsampling = "polyphase" if self._matrix_units() else "transposed"
        self._encoder: Any = self._place(ContentEncoder(weights))
        self._dynamic: Any = None
        self._baked: Any = None
        self._buffers: dict[tuple[int, ...], _Buffers] = {}
        if device.startswith("cuda"):
            self.prepared_batches = (1, 2)

    def _place(self, module: torch.nn.Module) -> torch.nn.Module:
        try:
            module = module.eval().to(self.device, self._dtype)
            module = module.float() if self._wide else module
            return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        except RuntimeError as error:
            raise EngineError(f"torch cannot use {self.device}: {error}") from error

    def _matrix_units(self) -> bool:
        if self._dtype == torch.float32:
            return False
        return self.device != "cpu" or bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())

    def _use_style(self, vectors: torch.Tensor) -> None:
        # On the CPU a baked decoder saves a third of the time, and takes a few frames' time to make. A CUDA
        # graph reads its vectors from a buffer instead: baking would mean capturing again.
        if self.device.startswith("cuda"):
            return
        with torch.inference_mode():
            self._baked = self._place(Decoder(self._check_open(), vectors, up=self._up))

    def _decoder(self) -> Any:
        if self._dynamic is None:
            self._dynamic = self._place(Decoder(self._check_open(), up=self._up))
        return self._dynamic

    def _encode(self, crops: Crops) -> torch.Tensor:
        with torch.inference_mode():
            content: torch.Tensor = self._encoder(torch.from_numpy(crops).to(self.device))
        return content

    def _decode(self, content: torch.Tensor, vectors: torch.Tensor | None) -> Crops:
        with torch.inference_mode():
            if vectors is None and self._baked is not None:
                images = self._baked(content)
            else:
                if vectors is None:
                    assert self._vectors is not None
                    vectors = self._vectors.expand(content.shape[0], -1)
                images = self._decoder()(content, vectors.to(self.device))
            return images.contiguous().cpu().numpy()

    def _translate(self, crops: Crops, vectors: torch.Tensor | None) -> Crops:
        if not self.device.startswith("cuda"):
            return super()._translate(crops, vectors)
        if vectors is None:
            assert self._vectors is not None
            vectors = self._vectors.expand(len(crops), -1)
        most = max(self.prepared_batches)
        # No other batches than those: each is tuned and recorded at first, which would stall a video.
        parts = [
            self._translate_on_gpu(crops[at : at + most], vectors[at : at + most])
            for at in range(0, len(crops), most)
        ]
        return np.concatenate(parts)

    def _translate_on_gpu(self, crops: Crops, vectors: torch.Tensor) -> Crops:
        buffers = self._buffers.get(crops.shape)
        if buffers is None:
            if len(self._buffers) >= MAX_CUDA_GRAPHS:
                return super()._translate(crops, vectors)
            buffers = _Buffers(self._encoder, self._decoder(), crops.shape, self.device)
            self._buffers[crops.shape] = buffers
        return buffers.translate(crops, vectors, self._slower)

    def _batch(self, content: Any) -> int:
        if not isinstance(content, torch.Tensor) or content.ndim != 4:
            raise EngineError(f"content codes of another engine: {type(content).__name__}")
        return content.shape[0]

    def _release(self) -> None:
        self._encoder = self._dynamic = self._baked = None
        self._buffers.clear()


class _Buffers:
    """Encoder and dynamic decoder on the GPU for one shape of crops: buffers of fixed places, and a CUDA graph."""

    def __init__(self, encoder: Any, decoder: Any, shape: tuple[int, ...], device: str) -> None:
        self._encoder, self._decoder, self._device = encoder, decoder, device
        vectors = sum(decoder.widths)
        with torch.inference_mode(False), torch.cuda.device(device):
            self._pinned = torch.zeros(shape, dtype=torch.uint8, pin_memory=True)
            self._pinned_vectors = torch.zeros((shape[0], vectors), pin_memory=True)
            self._pinned_result = torch.zeros(shape, dtype=torch.uint8, pin_memory=True)
            self._images = torch.zeros(shape, dtype=torch.uint8, device=device)
            self._vectors = torch.zeros((shape[0], vectors), device=device)
            self._result = torch.zeros(shape, dtype=torch.uint8, device=device)
            self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream())
        self._networks = Replayable(self._stream, warm_ups=WARM_UPS)

    def translate(self, crops: Crops, vectors: torch.Tensor, failed: Callable[[str], None]) -> Crops:
        self._pinned.copy_(torch.from_numpy(crops))
        self._pinned_vectors.copy_(vectors)
        with torch.cuda.device(self._device):
            with torch.cuda.stream(self._stream):
                self._images.copy_(self._pinned, non_blocking=True)
                self._vectors.copy_(self._pinned_vectors, non_blocking=True)
            self._networks.run(self._run, failed)
            with torch.cuda.stream(self._stream):
                self._pinned_result.copy_(self._result, non_blocking=True)
            self._stream.synchronize()
        return np.array(self._pinned_result.numpy())

    def _run(self) -> None:
        self._result.copy_(self._decoder(self._encoder(self._images), self._vectors))
