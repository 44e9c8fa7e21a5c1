"""Engine `torch2trt`: engines in and out of torch2trt's TRTModule files, and its own converter where it is installed.

A TRTModule's state dict holds a serialised TensorRT engine and the names of its inputs and outputs, so engines
move both ways: `torch2trt.TRTModule().load_state_dict(torch.load(FILE))` reads what is written here.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engines.errors import EngineError
from engines.files import write_atomically
from engines.weights import Weights

if TYPE_CHECKING:
    from engines.onnx_export import Part

NAMES = {"encoder": (("images",), ("content",)), "decoder": (("content", "style"), ("images",))}
"""Inputs and outputs of the two parts."""


@dataclass(frozen=True)
class TrtModule:
    """What a TRTModule's state dict holds.

    Attributes:
        engine: the serialised engine.
        input_names, output_names: its tensors, in the order of the module's arguments and results.
    """

    engine: bytes
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    def __repr__(self) -> str:
        return f"TrtModule({len(self.engine)} bytes, {self.input_names} -> {self.output_names})"


def write_module(path: str | Path, module: TrtModule) -> None:
    """Write a state dict as TRTModule saves it.

    Raises:
        OutputError: the file cannot be written.
    """
    count = len(module.input_names)
    several = len(module.output_names) > 1
    state = {
        "engine": bytearray(module.engine),
        "input_names": list(module.input_names),
        "output_names": list(module.output_names),
        # How torch2trt finds tensors in nested arguments; here they are not nested.
        "input_flattener": {"schema": tuple(range(count)), "size": count},
        "output_flattener": {
            "schema": tuple(range(len(module.output_names))) if several else 0,
            "size": len(module.output_names),
        },
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def read_module(path: str | Path) -> TrtModule:
    """Read a state dict that TRTModule (or `write_module`) saved. No code in the file is run.

    Raises:
        EngineError: missing, damaged, or no such state dict.
    """
    path = Path(path)
    hint = "expected what torch.save(TRTModule.state_dict(), FILE) writes"
    if not path.is_file():
        raise EngineError(f"no engine file at {path}")
    try:
        with torch.serialization.safe_globals([bytearray]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch gives a page on what it would take to run it
        raise EngineError(
            f"{path} is not a torch2trt file: it holds other things than tensors", hint
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        said = str(error).strip().partition("\n")[0][:160] or type(error).__name__
        raise EngineError(f"{path} is not a torch2trt file: {said}", hint) from error
    try:
        engine = bytes(state["engine"])
        names = [tuple(map(str, state[key])) for key in ("input_names", "output_names")]
    except (KeyError, TypeError) as error:
        raise EngineError(f"{path} holds no TRTModule: {error} is missing", hint) from error
    if not engine:
        raise EngineError(f"{path} holds an empty engine", hint)
    return TrtModule(engine, *names)


def own_converter() -> bool:
    """Whether torch2trt's own converter can be used: it knows TensorRT 10 and nothing newer."""
    if find_spec("torch2trt") is None or find_spec("tensorrt") is None:
        return False
    import tensorrt

    return int(tensorrt.__version__.split(".")[0]) == 10


def convert(
    weights: Weights, part: Part, precision: str, *, side: int | None = None, batch: int = 1
) -> bytes:
    """Compile one part with torch2trt's converter, by way of its ONNX path.

    Args:
        side: of the crops, pixels; None: the weights' size.

    Raises:
        EngineError: it fails.
    """
    import torch2trt

    from engines.graph import ContentEncoder, Decoder
    from engines.onnx_export import TYPES, picture_shapes

    dtype = TYPES[precision]
    pictures, content = picture_shapes(weights.architecture, side)
    module: torch.nn.Module
    if part == "encoder":
        module = ContentEncoder(weights)
        inputs = [torch.zeros((batch, *pictures), dtype=torch.uint8)]
    else:
        decoder = Decoder(weights)
        module = decoder
        inputs = [
            torch.zeros((batch, *content), dtype=dtype),
            torch.zeros((batch, sum(decoder.widths))),
        ]
    input_names, output_names = NAMES[part]
    try:
        converted: Any = torch2trt.torch2trt(
            module.eval().to("cuda", dtype),
            [value.cuda() for value in inputs],
            input_names=list(input_names),
            output_names=list(output_names),
            fp16_mode=precision == "fp16",
            use_onnx=True,
            onnx_opset=18,
        )
        return bytes(converted.engine.serialize())
    except Exception as error:  # its failures come as anything
        raise EngineError(f"torch2trt cannot convert the {part}: {error}") from error
