"""OpenVINO models as bytes: what caches hold."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engines.errors import EngineError


def pack(models: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> bytes:
    """Models by name, and facts about them, as one zip archive of IR files (xml and bin) and ``facts.json``."""
    import openvino as ov

    stream = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(stream, "w") as archive:
        for name, model in models.items():
            target = Path(folder) / f"{name}.xml"
            ov.save_model(model, target, compress_to_fp16=False)
            for file in (target, target.with_suffix(".bin")):
                archive.write(file, file.name)
        archive.writestr("facts.json", json.dumps(facts or {}))
    return stream.getvalue()


def unpack(data: bytes, core: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The models and the facts that `pack` wrote.

    Raises:
        EngineError: the data are damaged.
    """
    import openvino as ov

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        facts = json.loads(parts.pop("facts.json"))
        models = {
            Path(name).stem: core.read_model(
                parts[name], ov.Tensor(np.frombuffer(parts[f"{Path(name).stem}.bin"], np.uint8).copy())
            )
            for name in parts
            if name.endswith(".xml")
        }
    except (zipfile.BadZipFile, KeyError, ValueError, RuntimeError, EOFError, NotImplementedError) as error:
        raise EngineError(f"damaged graphs: {error}") from error
    return models, facts
