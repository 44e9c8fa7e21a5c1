"""Engine `torch2trt`: engines in and out of torch2trt's TRTModule files.

A TRTModule's state dict holds a serialised TensorRT engine and the names of its inputs and outputs, so engines
move both ways: `torch2trt.TRTModule().load_state_dict(torch.load(FILE))` reads what is written here.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path

import torch

from engines.errors import EngineError
from engines.files import write_atomically

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
