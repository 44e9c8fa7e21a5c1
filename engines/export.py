"""Writes the generator for other programs: `gnr-video export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.errors import EngineError, OutputError
from engines.files import write_atomically
from engines.weights import Weights, weights_hash

if TYPE_CHECKING:
    import onnx

    from engines.int8 import Calibration
    from engines.onnx_export import Part, Side
    from engines.tensorrt_build import Progress

FORMATS = ("onnx", "openvino", "tensorrt", "torch2trt")
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "tensorrt": ".engine", "torch2trt": ".pth"}


def export(
    weights: Weights,
    folder: str | Path,
    *,
    name: str,
    form: str = "onnx",
    precision: str = "fp32",
    side: Side = None,
    overwrite: bool = False,
    targets: Sequence[str] = (),
    progress: Progress | None = None,
    calibration: Calibration | None = None,
) -> list[Path]:
    """Write content encoder and dynamic decoder, and for the portable formats the style path, as files.

    | format | files |
    |---|---|
    | onnx | `NAME-encoder-PRECISION.onnx`, `NAME-decoder-PRECISION.onnx`, `NAME-style.onnx` |
    | openvino | the same with `.xml` and `.bin` |
    | tensorrt | `NAME-encoder-PRECISION.engine`, `NAME-decoder-PRECISION.engine`, for this GPU; with `targets`
      by TensorRT for RTX, which then stands in the name: `NAME-encoder-PRECISION-rtx-sm86-sm89.engine` |
    | torch2trt | `.pth` instead of `.engine`: state dicts of torch2trt's TRTModule, which knows no bytes: pictures are
      float32 there, of whole numbers from 0 to 255 |

    Where `side` is given it stands behind the precision.

    Args:
        weights: the generator.
        folder: where to; made if it is not there.
        name: first part of the files' names.
        form: a name of `FORMATS`.
        precision: "fp32", "fp16", "bf16", or for OpenVINO "int8".
        side: of the pictures, see `engines.onnx_export.Side`. Fixed by default: compilers for other devices want it so.
        overwrite: replace files that exist.
        targets: GPUs to compile for that need not be there, of `engines.tensorrt_build.RTX_TARGETS`.
        progress: told of an engine that is being compiled, see `engines.tensorrt_build.Progress`.
        calibration: the faces that int8 is calibrated with.

    Returns:
        The files, in the table's order.

    Raises:
        EngineError: a package is missing, or the graph cannot be made so.
        OutputError: a file exists already or cannot be written. The style path of the same weights may exist: it is
            the same in every precision and for every side.
    """
    if form not in FORMATS:
        raise EngineError(f"no export format is called {form!r}", f"choose {', '.join(FORMATS)}")
    if precision == "int8" and form != "openvino":
        raise EngineError(f"{form} is not exported in int8", "use --format openvino")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from error
    compiled = form in ("tensorrt", "torch2trt")
    parts: list[Part] = ["encoder", "decoder"] if compiled else ["encoder", "decoder", "style"]
    if compiled and side == "any":
        raise EngineError(
            f"{form} engines are compiled for one side", "give it in pixels, such as --side 320"
        )
    sides = [] if side is None else [str(side)]
    kind = "-".join([precision, *sides, *(["rtx", *targets] if targets and compiled else [])])
    targeted = [name_of(folder, name, part, kind, SUFFIXES[form]) for part in parts]
    for part, target in zip(parts, targeted, strict=True):
        if target.exists() and not (overwrite or (part == "style" and _is_of(weights, target))):
            raise OutputError(f"{target} exists already", "give --overwrite to replace it, or another -o")
    written: list[Path] = []
    int8 = _int8_graphs(weights, calibration, side) if precision == "int8" else {}
    for part, target in zip(parts, targeted, strict=True):
        if form == "openvino":
            written += _write_openvino(weights, part, precision, side, target, int8.get(part))
            continue
        if form == "onnx":
            write_atomically(target, _onnx(weights, part, precision, side).SerializeToString())
        else:
            assert side != "any"
            _write_compiled(weights, part, precision, side, target, form, targets, progress)
        written.append(target)
    return written


def name_of(folder: Path, name: str, part: str, kind: str, suffix: str) -> Path:
    """File of a part; the style path is the same in every precision."""
    return folder / (f"{name}-{part}{suffix}" if part == "style" else f"{name}-{part}-{kind}{suffix}")


def _is_of(weights: Weights, file: Path) -> bool:
    """Whether an ONNX or OpenVINO file was made of these weights, by its metadata."""
    try:
        return weights_hash(weights).encode() in file.read_bytes()
    except OSError:
        return False


def _write_compiled(
    weights: Weights,
    part: Part,
    precision: str,
    side: int | None,
    target: Path,
    form: str,
    targets: Sequence[str],
    progress: Progress | None,
) -> None:
    import torch

    from engines.tensorrt_build import import_tensorrt
    from engines.tensorrt_engine import build_part
    from engines.torch2trt_engine import NAMES, TrtModule, write_module

    if form == "torch2trt" and targets:
        raise EngineError("torch2trt does not read engines of TensorRT for RTX", "leave --target out")
    if form == "torch2trt" and precision == "bf16":
        raise EngineError("torch2trt knows no bf16", "use --precision fp16")
    trt = import_tensorrt("tensorrt-rtx" if targets else form)
    if not targets and not torch.cuda.is_available():
        raise EngineError(
            "an engine is compiled for the GPU that is there, and torch sees none",
            "run this on the GPU, or compile ahead with TensorRT for RTX: --target sm86",
        )
    plan = build_part(
        trt,
        weights,
        part,
        precision,
        side=side,
        targets=targets,
        float_pictures=form == "torch2trt",
        progress=progress,
    )
    if form == "tensorrt":
        write_atomically(target, plan)
    else:
        write_module(target, TrtModule(plan, *NAMES[part]))


def _onnx(weights: Weights, part: Part, precision: str, side: Side) -> onnx.ModelProto:
    from engines.onnx_export import export_part

    return export_part(weights, part, precision, side=side)


def _int8_graphs(weights: Weights, calibration: Calibration | None, side: Side) -> dict[str, Any]:
    """What the engine `openvino` runs in int8, for any batch."""
    from engines.onnx_export import picture_shapes
    from engines.openvino_engine import OpenVinoEngine

    pictures, content = picture_shapes(weights.architecture, side)

    engine = OpenVinoEngine(weights, device="cpu", precision="int8", calibration=calibration)
    with engine:
        assert engine.int8_graphs is not None
        # Clones: they get other shapes and names.
        graphs = {
            "encoder": engine.int8_graphs.encoder.clone(),
            "decoder": engine.int8_graphs.decoder.clone(),
        }
    graphs["encoder"].reshape([-1, *pictures])
    style = graphs["decoder"].inputs[1].partial_shape[1]
    graphs["decoder"].reshape({0: [-1, *content], 1: [-1, style]})
    for model, names in ((graphs["encoder"], ["images"]), (graphs["decoder"], ["content", "style"])):
        for value, name in zip(model.inputs, names, strict=True):
            value.get_tensor().set_names({name})
    return graphs


def _write_openvino(
    weights: Weights, part: Part, precision: str, side: Side, target: Path, int8: Any = None
) -> list[Path]:
    """OpenVINO's own form; half precision is of the stored weights, what is computed in is chosen when run."""
    from engines.openvino_runtime import import_openvino, root_logger_kept

    if precision == "bf16":
        raise EngineError("OpenVINO stores no bf16 weights", "use fp32 or fp16; run it with bf16 as a hint")
    ov = import_openvino()
    graph = _onnx(weights, part, "fp32", side)
    partial = target.with_name(f".{target.stem}.part.xml")
    binary, partial_binary = target.with_suffix(".bin"), partial.with_suffix(".bin")
    try:
        with root_logger_kept():
            model: Any = int8 or ov.convert_model(_as_stream(graph))
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
