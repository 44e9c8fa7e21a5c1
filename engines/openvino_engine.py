"""Engine `openvino`: the default on x86 CPUs, in bf16 where the CPU computes it natively."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines.base import Crops, Engine
from engines.errors import EngineError
from engines.graph import ContentEncoder, Decoder
from engines.weights import Weights

INSTALL = 'pip install "gnr-video[cpu]"'
PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoEngine(Engine):
    """The folded graphs in OpenVINO, with the dynamic decoder: a style change costs nothing.

    Args:
        precision: "fp32" or "bf16".
        threads: None: one per core.
        cache: folder for compiled models, or None.

    Raises:
        EngineError: OpenVINO is missing, or not for this device or precision.
    """

    name = "openvino"

    def __init__(
        self,
        weights: Weights,
        *,
        device: str,
        precision: str,
        threads: int | None = None,
        cache: Path | None = None,
    ) -> None:
        if device != "cpu":
            raise EngineError(f"openvino runs on the CPU here, not on {device}", "use --device cpu")
        if precision not in PRECISIONS:
            raise EngineError(f"openvino does not run {precision}", "use bf16 or fp32")
        try:
            import openvino as ov
        except ImportError as error:
            raise EngineError(f"openvino cannot be imported: {error}", INSTALL) from error
        super().__init__(weights, device=device, precision=precision)
        self._core = ov.Core()
        config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        if cache is not None:
            config["CACHE_DIR"] = str(cache)
        a = self.architecture
        images = torch.zeros((1, a.size, a.size, 3), dtype=torch.uint8)
        with torch.inference_mode():
            content = torch.zeros((1, a.content_channels, a.content_size, a.content_size))
            vectors = self._style_vectors(torch.zeros(1, a.style_dim))
            models = [
                self._convert(ov, ContentEncoder(weights), (images,)),
                self._convert(ov, Decoder(weights), (content, vectors)),
            ]
        try:
            self._requests: list[Any] = [
                self._core.compile_model(model, "CPU", config).create_infer_request() for model in models
            ]
        except RuntimeError as error:
            raise EngineError(f"openvino cannot compile the network: {error}") from error
        self._style: np.ndarray | None = None

    @staticmethod
    def _convert(ov: Any, module: torch.nn.Module, example: tuple[torch.Tensor, ...]) -> Any:
        model = ov.convert_model(module.eval(), example_input=example)
        model.reshape({i: list(tensor.shape) for i, tensor in enumerate(example)})
        return model

    def _use_style(self, vectors: torch.Tensor) -> None:
        self._style = vectors.numpy()

    def _infer(self, request: Any, inputs: list[np.ndarray]) -> np.ndarray:
        try:
            return next(iter(request.infer(inputs, share_inputs=True).values()))
        except RuntimeError as error:
            raise EngineError(f"openvino failed: {error}") from error

    def _encode(self, crops: Crops) -> np.ndarray:
        # One by one: on a CPU a batch is no faster than its pictures in turn.
        return np.concatenate([self._infer(self._requests[0], [crops[i : i + 1]]) for i in range(len(crops))])

    def _decode(self, content: np.ndarray, vectors: torch.Tensor | None) -> Crops:
        rows = self._style if vectors is None else vectors.numpy()
        assert rows is not None
        images = []
        for i in range(len(content)):
            row = rows[i : i + 1] if len(rows) > 1 else rows
            images.append(self._infer(self._requests[1], [content[i : i + 1], np.ascontiguousarray(row)]))
        return np.concatenate(images)

    def _batch(self, content: Any) -> int:
        if not isinstance(content, np.ndarray) or content.ndim != 4:
            raise EngineError(f"content codes of another engine: {type(content).__name__}")
        return len(content)

    def _release(self) -> None:
        self._requests = []
