"""Engine `onnx`: ONNX Runtime, which runs where nothing else does. The graphs are those of `onnx_export`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from engines.base import Crops, Engine
from engines.errors import EngineError
from engines.installation import install_line, pip_install
from engines.onnx_export import export_part
from engines.weights import Weights


def import_onnxruntime() -> Any:
    """The `onnxruntime` module.

    Raises:
        EngineError: it is not installed, or broken.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"onnxruntime cannot be imported: {error}", install_line("onnx")) from error
    return onnxruntime


class Session:
    """One ONNX graph in ONNX Runtime; values stay on the device between two of them.

    Args:
        model: a serialised graph, or the path of a file.
        device: "cpu", "cuda" or "cuda:N".
        threads: on the CPU; None: one for each core.

    Raises:
        EngineError: the graph or the device cannot be used.
    """

    def __init__(self, model: bytes | str, *, device: str, threads: int | None = None) -> None:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        # Threads that spin while they wait take the cores from the pipeline's other stages.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        kind, _, index = device.partition(":")
        self._device, self._index = kind, int(index or 0)
        providers: list[Any] = ["CPUExecutionProvider"]
        if kind == "cuda":
            if "CUDAExecutionProvider" not in ort.get_available_providers():
                raise EngineError(
                    f"onnxruntime {ort.__version__} has no CUDA",
                    f"{pip_install('onnxruntime-gpu')}, or use --device cpu",
                )
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": self._index}))
        try:
            self._session = ort.InferenceSession(model, options, providers=providers)
        except Exception as error:  # its own types derive from nothing else
            raise EngineError(f"onnxruntime cannot load the graph: {_first_line(error)}") from error
        # Asked for CUDA, it falls back to the CPU in silence where the driver or cuDNN does not fit.
        if kind == "cuda" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise EngineError("onnxruntime cannot use CUDA here", "its log says why (--debug)")
        self.inputs = self._session.get_inputs()
        self.outputs = self._session.get_outputs()

    def run(self, *values: Any) -> Any:
        """The first output as an OrtValue on the device, of numpy arrays or OrtValues in the graph's order.

        Raises:
            EngineError: the inputs do not fit, or the device failed.
        """
        binding = self._session.io_binding()
        try:
            for info, value in zip(self.inputs, values, strict=True):
                if isinstance(value, np.ndarray):
                    binding.bind_cpu_input(info.name, np.ascontiguousarray(value))
                else:
                    binding.bind_ortvalue_input(info.name, value)
            binding.bind_output(self.outputs[0].name, self._device, self._index)
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise EngineError(f"onnxruntime failed: {_first_line(error)}") from error
        return binding.get_outputs()[0]


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


class OnnxEngine(Engine):
    """The folded graphs in ONNX Runtime, with the decoder in its dynamic form.

    Args:
        device: "cpu", or with onnxruntime-gpu "cuda", "cuda:N".
        precision: "fp32"; "fp16" (on a CPU slower than fp32, which it then computes in).
        threads: None: one for each core.

    Raises:
        EngineError: onnx or onnxruntime is missing, or not for this device or precision.
    """

    name = "onnx"

    def __init__(self, weights: Weights, *, device: str, precision: str, threads: int | None = None) -> None:
        if precision not in ("fp32", "fp16"):
            raise EngineError(f"onnxruntime does not run {precision} on {device}", "use fp32 or fp16")
        super().__init__(weights, device=device, precision=precision)
        self._encoder, self._decoder = (
            Session(
                export_part(weights, part, precision, side="any").SerializeToString(),
                device=device,
                threads=threads,
            )
            for part in ("encoder", "decoder")
        )
        self._style: np.ndarray | None = None

    def _use_style(self, vectors: torch.Tensor) -> None:
        self._style = vectors.numpy()

    def _encode(self, crops: Crops) -> Any:
        return self._encoder.run(crops)

    def _decode(self, content: Any, vectors: torch.Tensor | None) -> Crops:
        rows = self._style if vectors is None else vectors.numpy()
        assert rows is not None
        rows = np.broadcast_to(rows, (self._batch(content), rows.shape[1]))
        return np.array(self._decoder.run(content, rows).numpy())

    def _batch(self, content: Any) -> int:
        if not hasattr(content, "device_name") or len(content.shape()) != 4:
            raise EngineError(f"content codes of another engine: {type(content).__name__}")
        return int(content.shape()[0])

    def _release(self) -> None:
        self._encoder = self._decoder = None  # type: ignore[assignment]
        self._style = None
