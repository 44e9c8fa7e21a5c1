"""OpenVINO without what its import and its converter do besides."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
