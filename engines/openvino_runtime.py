"""OpenVINO without what its import, its converter and its threads do besides."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineError
from engines.installation import install_line


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
        raise EngineError(f"openvino cannot be imported: {error}", install_line("cpu")) from error
    return openvino


class Request:
    """A model compiled for the CPU, and one inference at a time with it. The result is a list of all outputs.

    It runs on a thread of OpenVINO's own, not on the caller's. What a caller's thread has used, that thread lets go of
    when it ends, which with Python before 3.13 is after it was joined; a model that is destroyed just then is used
    after it is freed (OpenVINO 2026: its ThreadCleaner), and the process crashes, somewhere, later. Waiting for the
    other thread costs 0.2 ms.

    Args:
        core: OpenVINO's Core.
        model: an OpenVINO model.
        config: OpenVINO's options.

    Raises:
        RuntimeError: OpenVINO does not compile it; when called, it fails.
    """

    def __init__(self, core: Any, model: Any, config: dict[str, Any]) -> None:
        self._request = core.compile_model(model, "CPU", config).create_infer_request()

    def __call__(self, *inputs: NDArray[Any], is_view: bool = False) -> list[NDArray[Any]]:
        """All outputs in the model's order; with `is_view` the next call overwrites them."""
        self._request.start_async(list(inputs), share_inputs=True)
        self._request.wait()
        found = [tensor.data for tensor in self._request.output_tensors]
        return found if is_view else [np.array(one) for one in found]


_converting = threading.Lock()


@contextmanager
def root_logger_kept() -> Iterator[None]:
    """Around `openvino.convert_model`: it sets the root logger to ERROR for a while, under which every logger of the
    program without a level of its own falls silent, and it leaves it so when it fails or when two run at once.
    """
    root = logging.getLogger()
    with _converting:
        level, filters, handlers = root.level, root.filters[:], root.handlers[:]
        try:
            yield
        finally:
            root.setLevel(level)
            root.filters[:], root.handlers[:] = filters, handlers
