"""Runs the CUDA kernels' sources on the CPU, compiled by a C++ compiler through kernel_shim.h. Test only."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from train.ops import kernels
from train.ops.kernels import Argument, Kernel, KernelError, Launch

COMPILER = next(
    (c for c in (os.environ.get("CXX"), "g++", "clang++", "c++") if c and shutil.which(c.split()[0])), None
)
OPTIONS = ("-std=c++17", "-O0", "-w", "-shared", "-fPIC")
ENTRY = """
#include "{shim}"
#include "{source}"
extern "C" long long run(unsigned blocks, unsigned x, unsigned y, unsigned z, void** arguments,
                         const Range* given, int count) {{
    ranges = given, range_count = count, violations = 0;
    on_every_thread({name}, blocks, Place{{x, y, z}}, arguments);
    return violations;
}}
"""


class Shim:
    """A `kernels.Runtime` for CPU tensors; counts what was launched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.launched: list[str] = []
        self._functions: dict[Kernel, ctypes._CFuncPtr] = {}

    def launch(self, launch: Launch, arguments: Sequence[Argument], device: torch.device) -> None:
        run = self._functions.get(launch.kernel) or self._compile(launch.kernel)
        tensors = [a for a in arguments if isinstance(a, Tensor)]
        spans = [(t.data_ptr(), t.data_ptr() + t.numel() * t.element_size()) for t in tensors]
        ranges = (ctypes.c_ulonglong * (2 * len(spans)))(*[end for span in spans for end in span])
        values = [
            ctypes.c_void_p(a.data_ptr() if isinstance(a, Tensor) else None)
            if a is None or isinstance(a, Tensor)
            else a
            for a in arguments
        ]
        pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(v) for v in values])
        violations = run(launch.blocks, *launch.threads, pointers, ranges, len(spans))
        assert not violations, f"{violations} bad accesses by {launch}"
        self.launched.append(launch.kernel.name)

    def _compile(self, kernel: Kernel) -> ctypes._CFuncPtr:
        stem = self.folder / f"{kernel.name}-{len(self._functions)}"
        code = ENTRY.format(
            shim=Path(__file__).with_suffix(".h"),
            source=kernels.SOURCES / f"{kernel.name}.cu",
            name=kernel.name,
        )
        stem.with_suffix(".cpp").write_text(code)
        macros = [f"-D{key}={value}" for key, value in kernel.definitions()]
        assert COMPILER
        done = subprocess.run(
            [*COMPILER.split(), *OPTIONS, *macros, f"{stem}.cpp", "-o", f"{stem}.so"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode:
            raise KernelError(done.stderr)
        run = ctypes.CDLL(f"{stem}.so").run
        run.restype = ctypes.c_longlong
        run.argtypes = [ctypes.c_uint] * 4 + [ctypes.c_void_p] * 2 + [ctypes.c_int]
        self._functions[kernel] = run
        return run
