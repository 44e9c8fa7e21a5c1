"""Writes the generator for other programs: `gnr-video export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import EngineError, OutputError
from engines.files import write_atomically
from engines.weights import Weights

if TYPE_CHECKING:
    import onnx

    from engines.onnx_export import Part

FORMATS = ("onnx", "openvino")


def export(
    weights: Weights,
    folder: str | Path,
    *,
    name: str,
    form: str = "onnx",
    precision: str = "fp32",
    overwrite: bool = False,
) -> list[Path]:
    """Write content encoder and dynamic decoder, and for the portable formats the style path, as files.

    | format | files |
    |---|---|
    | onnx | `NAME-encoder-PRECISION.onnx`, `NAME-decoder-PRECISION.onnx`, `NAME-style.onnx` |
    | openvino | the same with `.xml` and `.bin` |

    Args:
        weights: the generator.
        folder: where to; made if it is not there.
        name: first part of the files' names.
        form: a name of `FORMATS`.
        precision: "fp32", "fp16" or "bf16".
        overwrite: replace files that exist.

    Returns:
        The files, in the table's order.

    Raises:
        EngineError: a package is missing, or the graph cannot be made so.
        OutputError: a file exists already or cannot be written.
    """
    if form not in FORMATS:
        raise EngineError(f"no export format is called {form!r}", f"choose {', '.join(FORMATS)}")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from error
    parts: list[Part] = ["encoder", "decoder", "style"]
    suffix = {"onnx": ".onnx", "openvino": ".xml"}[form]
    targets = [
        folder / (f"{name}-{part}{suffix}" if part == "style" else f"{name}-{part}-{precision}{suffix}")
        for part in parts
    ]
    for target in targets:
        if target.exists() and not overwrite:
            raise OutputError(f"{target} exists already", "give --overwrite to replace it, or another -o")
    written: list[Path] = []
    for part, target in zip(parts, targets, strict=True):
        if form == "onnx":
            write_atomically(target, _onnx(weights, part, precision).SerializeToString())
            written.append(target)
        else:
            written += _write_openvino(weights, part, precision, target)
    return written


def _onnx(weights: Weights, part: Part, precision: str) -> onnx.ModelProto:
    from engines.onnx_export import export_part

    return export_part(weights, part, precision)


def _write_openvino(weights: Weights, part: Part, precision: str, target: Path) -> list[Path]:
    """OpenVINO's own form; half precision is of the stored weights, what is computed in is chosen when run."""
    from engines.openvino_engine import import_openvino

    if precision == "bf16":
        raise EngineError("OpenVINO stores no bf16 weights", "use fp32 or fp16; run it with bf16 as a hint")
    ov = import_openvino()
    graph = _onnx(weights, part, "fp32")
    partial = target.with_name(f".{target.stem}.part.xml")
    binary, partial_binary = target.with_suffix(".bin"), partial.with_suffix(".bin")
    try:
        model: Any = ov.convert_model(_as_stream(graph))
        for item in graph.metadata_props:
            model.set_rt_info(item.value, ["gnr_video", item.key])
        ov.save_model(model, partial, compress_to_fp16=precision == "fp16" and part != "style")
        partial_binary.replace(binary)
        partial.replace(target)
    except (OSError, RuntimeError) as error:
        raise OutputError(f"cannot write {target}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
        partial_binary.unlink(missing_ok=True)
    return [target, binary]


def _as_stream(graph: onnx.ModelProto) -> Any:
    import io

    return io.BytesIO(graph.SerializeToString())
