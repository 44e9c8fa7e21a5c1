"""Engine `openvino`: the default on x86 CPUs, in bf16 where the CPU computes it natively."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import torch

from engines.base import Crops, Engine
from engines.errors import EngineError
from engines.graph import ContentEncoder, Decoder
from engines.weights import Weights

INSTALL = 'pip install "gnr-video[cpu]"'
PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


def import_openvino() -> Any:
    """The `openvino` module, without the usage statistics it would send when imported and when converting.

    Raises:
        EngineError: it is not installed, or broken.
    """
    # A None here makes `import openvino_telemetry` fail, and OpenVINO then takes its own silent stand-in.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise EngineError(f"openvino cannot be imported: {error}", INSTALL) from error
    return openvino


class OpenVinoEngine(Engine):
    """The folded graphs in OpenVINO.

    The style of `set_style` is baked: the dynamic decoder with its style input replaced by a constant, which
    OpenVINO folds into the weights (0.1 to 0.3 s to compile, then the decoder takes 10 to 14 % less time).
    Styles that come with a call run through the dynamic decoder and cost nothing to change.

    Args:
        device: "cpu".
        precision: "fp32" or "bf16".
        threads: None: one for each core.

    Raises:
        EngineError: OpenVINO is missing, or not for this device or precision.
    """

    name = "openvino"

    def __init__(self, weights: Weights, *, device: str, precision: str, threads: int | None = None) -> None:
        if device != "cpu":
            raise EngineError(f"openvino runs on the CPU here, not on {device}", "use --device cpu")
        if precision not in PRECISIONS:
            raise EngineError(f"openvino does not run {precision} on the CPU", "use bf16 or fp32")
        ov = import_openvino()
        super().__init__(weights, device=device, precision=precision)
        self._core = ov.Core()
        self._config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads
        a = self.architecture
        # The graphs are the same for any size, so they are traced on a tiny picture.
        side = 2 * a.size // a.content_size
        with torch.inference_mode():
            images = torch.zeros((1, side, side, 3), dtype=torch.uint8)
            content = torch.zeros((1, a.content_channels, 2, 2))
            vectors = self._style_vectors(torch.zeros(1, a.style_dim))
            encoder = _convert(ov, ContentEncoder(weights), (images,))
            self._decoder_model: Any = _convert(ov, Decoder(weights), (content, vectors))
        encoder.reshape({0: [1, a.size, a.size, 3]})
        shape = [1, a.content_channels, a.content_size, a.content_size]
        self._decoder_model.reshape({0: shape, 1: list(vectors.shape)})
        self._encoder: Any = self._compile(encoder)
        self._dynamic: Any = None
        self._baked: Any = None

    def _compile(self, model: Any) -> Any:
        try:
            return self._core.compile_model(model, "CPU", self._config).create_infer_request()
        except RuntimeError as error:
            raise EngineError(f"openvino cannot compile the network: {error}") from error

    def _use_style(self, vectors: torch.Tensor) -> None:
        import openvino.opset13 as ops

        model = self._decoder_model.clone()
        parameter = model.get_parameters()[1]
        parameter.output(0).replace(ops.constant(vectors.numpy()).output(0))
        model.remove_parameter(parameter)
        self._baked = self._compile(model)

    def _infer(self, request: Any, *inputs: np.ndarray) -> np.ndarray:
        try:
            result: np.ndarray = next(iter(request.infer(list(inputs), share_inputs=True).values()))
        except RuntimeError as error:
            raise EngineError(f"openvino failed: {error}") from error
        return result

    # Batches go one by one: on a CPU four at a time took the same time per picture (17.1 against 17.3 ms).

    def _encode(self, crops: Crops) -> np.ndarray:
        return np.concatenate([self._infer(self._encoder, crop[None]) for crop in crops])

    def _decode(self, content: np.ndarray, vectors: torch.Tensor | None) -> Crops:
        if vectors is None:
            return np.concatenate([self._infer(self._baked, code[None]) for code in content])
        if self._dynamic is None:
            self._dynamic = self._compile(self._decoder_model)
        rows = vectors.contiguous().numpy()
        return np.concatenate(
            [self._infer(self._dynamic, code[None], row[None]) for code, row in zip(content, rows)]
        )

    def _batch(self, content: Any) -> int:
        if not isinstance(content, np.ndarray) or content.ndim != 4:
            raise EngineError(f"content codes of another engine: {type(content).__name__}")
        return len(content)

    def _release(self) -> None:
        self._encoder = self._dynamic = self._baked = self._decoder_model = None


def _convert(ov: Any, module: torch.nn.Module, example: tuple[torch.Tensor, ...]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.trace announces its retirement
        traced = torch.jit.trace(module.eval(), example, check_trace=False)
        return ov.convert_model(traced, example_input=example)
