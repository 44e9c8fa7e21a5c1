"""Compiles the CUDA kernels at run time, keeps the result on disk, launches them (training, `train.ops`).

NVRTC compiles for the GPU that is there, through `cuda.core`: no nvcc, C++ compiler, ninja or torch headers. Each
kernel is a source file and a set of macros; what was compiled is kept under the hash of both, the architecture and
the compiler's version. What cannot be compiled or loaded is warned of once and computed by the reference.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from engines.errors import GnrVideoError
from engines.files import write_atomically
from engines.installation import install_line
from engines.paths import cache_dir

log = logging.getLogger(__name__)

SOURCES = Path(__file__).parent
COMMON = "common.cuh"
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
THREADS = 128

Argument = Tensor | ctypes.c_int | ctypes.c_uint | ctypes.c_longlong | ctypes.c_float | ctypes.c_double | None


class KernelError(Exception):
    """A kernel cannot be compiled, loaded or launched here; the message says why in one line."""


@dataclass(frozen=True)
class Kernel:
    """One compiled case: the function `name` of `name`.cu, under these macros."""

    name: str
    macros: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, name: str, macros: Mapping[str, int | bool]) -> Kernel:
        return cls(name, tuple((key, int(value)) for key, value in sorted(macros.items())))

    def definitions(self) -> list[tuple[str, str]]:
        """The macros as a compiler takes them; bracketed, since some are negative."""
        return [(key, f"({value})") for key, value in self.macros]


@dataclass(frozen=True)
class Launch:
    """A kernel and its grid: `blocks` along one axis, of `threads` (x, y, z)."""

    kernel: Kernel
    blocks: int
    threads: tuple[int, int, int]


@dataclass
class Fallback:
    """False until a kernel had to be replaced by the reference; then it prints the first reason."""

    reason: str = ""

    def __bool__(self) -> bool:
        return bool(self.reason)

    def __str__(self) -> str:
        return self.reason or "no CUDA kernel was replaced by its reference"


class Runtime(Protocol):
    """Runs kernels on one kind of device."""

    def launch(self, launch: Launch, arguments: Sequence[Argument], device: torch.device) -> None:
        """Queue `launch` on the device's current stream.

        Raises:
            KernelError: it cannot be compiled or loaded here.
        """


fallback = Fallback()
_failed: dict[tuple[Kernel, torch.device], str] = {}


def chosen(impl: str | None, x: Tensor) -> bool:
    """Whether `x` goes to the kernels: where `impl` is "cuda", and by default (None) for CUDA tensors.

    Raises:
        ValueError: `impl` is not known, or the kernels cannot take `x`.
    """
    if impl is None:
        return x.device.type in runtimes and x.dtype in DTYPES
    if impl not in ("cuda", "ref"):
        raise ValueError(f"impl must be 'cuda' or 'ref', got {impl!r}")
    if impl == "ref":
        return False
    if x.device.type not in runtimes:
        raise ValueError(f"impl='cuda' needs a CUDA tensor, got one on {x.device.type}")
    if x.dtype not in DTYPES:
        raise ValueError(f"impl='cuda' takes float32, float16, bfloat16 or float64, got {x.dtype}")
    return True


def check_float(name: str, x: Tensor) -> None:
    """Raises ValueError unless `x` has a floating dtype and at least two axes."""
    if not x.is_floating_point():
        raise ValueError(f"{name}: x must be floating point, got {x.dtype}")
    if x.ndim < 2:
        raise ValueError(f"{name}: x must be (N, C, ...), got shape {tuple(x.shape)}")


def check_vector(name: str, what: str, v: Tensor | None, shape: tuple[int, ...], x: Tensor) -> None:
    """Raises ValueError unless `v` is None, or floating, of this shape and on the device of `x`."""
    if v is None:
        return
    if tuple(v.shape) != shape:
        raise ValueError(f"{name}: {what} must be of shape {shape}, got {tuple(v.shape)}")
    if v.device != x.device:
        raise ValueError(f"{name}: {what} is on {v.device}, x on {x.device}")
    if not v.is_floating_point():
        raise ValueError(f"{name}: {what} must be floating point, got {v.dtype}")


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """What the kernels compute in, and take biases, scales and filters in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def scalar(value: float, dtype: torch.dtype) -> ctypes.c_float | ctypes.c_double:
    return ctypes.c_double(value) if dtype == torch.float64 else ctypes.c_float(value)


def layout(x: Tensor) -> torch.memory_format:
    """What the kernels read `x` in and write their result in."""
    if x.ndim == 4 and x.stride(1) == 1 and not x.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format


def alignment(*tensors: Tensor) -> int:
    """The number of elements, a power of two and 16 bytes at most, whose size divides every address."""
    size = tensors[0].element_size()
    width = 16 // size
    while any(t.data_ptr() % (width * size) for t in tensors):
        width //= 2
    return width


def common_width(width: int, *counts: int) -> int:
    """The largest power of two up to `width`, itself one, that divides all `counts`."""
    while any(count % width for count in counts):
        width //= 2
    return width


def run(launch: Launch, arguments: Sequence[Argument], device: torch.device) -> bool:
    """Launch on `device`; False where the caller has to compute the reference instead."""
    runtime = runtimes.get(device.type)
    if runtime is None or (launch.kernel, device) in _failed:
        return False
    try:
        runtime.launch(launch, arguments, device)
    except KernelError as error:
        _failed[launch.kernel, device] = str(error)
        if not fallback:
            fallback.reason = f"the CUDA kernel {launch.kernel.name} cannot run here: {error}"
            log.warning("%s; the slower reference in plain torch is used instead", fallback)
        return False
    return True


# --- compiling


@lru_cache(maxsize=1)
def _compiler() -> Any:
    """The module cuda.core, once it is known that NVRTC can be loaded."""
    try:
        import cuda.core
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise KernelError(f"{error} ({install_line('kernels')})") from None
    try:
        nvrtc.nvrtcVersion()
    except Exception as error:  # the loader of the shared library raises several kinds
        raise KernelError(f"NVRTC cannot be loaded: {_line(error)} ({install_line('kernels')})") from None
    return cuda.core


def compiler_version() -> str:
    """Of NVRTC, as "13.0".

    Raises:
        KernelError: cuda-core or NVRTC is missing.
    """
    _compiler()
    from cuda.bindings import nvrtc

    _, major, minor = nvrtc.nvrtcVersion()
    return f"{major}.{minor}"


@lru_cache(maxsize=16)
def source(name: str) -> str:
    return (SOURCES / name).read_text(encoding="utf-8")


def cache_name(kernel: Kernel, arch: int, compiler: str) -> str:
    """The cubin's file name: readable, and another one whenever source, macros, GPU or compiler differ."""
    parts = (source(COMMON), source(f"{kernel.name}.cu"), repr(kernel.macros), str(arch), compiler)
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"{kernel.name}-sm{arch}-nvrtc{compiler}-{digest[:16]}.cubin"


def cache_path(kernel: Kernel, arch: int) -> Path:
    return cache_dir() / "kernels" / cache_name(kernel, arch, compiler_version())


def compile_cubin(kernel: Kernel, arch: int) -> bytes:
    """Compile for compute capability `arch` (90 is 9.0); needs neither a GPU nor a driver.

    Raises:
        KernelError: the compiler is missing, does not know `arch`, or refuses the source.
    """
    core = _compiler()
    options = core.ProgramOptions(
        arch=f"sm_{arch}",
        std="c++17",
        include_path=str(SOURCES),
        define_macro=list(kernel.definitions()),
    )
    try:
        return bytes(core.Program(source(f"{kernel.name}.cu"), "c++", options).compile("cubin").code)
    except Exception as error:
        raise KernelError(f"NVRTC {compiler_version()} fails for sm_{arch}: {_line(error)}") from error


def cached_cubin(kernel: Kernel, arch: int) -> bytes:
    """As `compile_cubin`, from disk where it was compiled before."""
    path = cache_path(kernel, arch)
    with suppress(OSError):
        if (found := path.read_bytes()).startswith(b"\x7fELF"):
            return found
    log.info("compiling the CUDA kernel %s for sm_%d", kernel.name, arch)
    code = compile_cubin(kernel, arch)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, code)
    except (OSError, GnrVideoError) as error:
        log.info("the compiled kernel is not kept: %s", error)
    return code


def _line(error: BaseException) -> str:
    """The first line of a compiler's message that names an error, else the first one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if "error:" in line), lines[0])[:300]


class Nvrtc:
    """Kernels on NVIDIA GPUs."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[Kernel, int], Any] = {}
        self._lock = threading.Lock()

    def launch(self, launch: Launch, arguments: Sequence[Argument], device: torch.device) -> None:
        index = torch.cuda.current_device() if device.index is None else device.index
        with torch.cuda.device(index):
            function = self._loaded.get((launch.kernel, index)) or self._load(launch.kernel, index)
            core = _compiler()
            stream = core.Stream.from_handle(torch.cuda.current_stream(index).cuda_stream)
            config = core.LaunchConfig(grid=launch.blocks, block=launch.threads)
            values = [
                a.data_ptr() if isinstance(a, Tensor) else 0 if a is None else a for a in arguments
            ]  # an int is a pointer to cuda.core
            core.launch(stream, config, function, *values)

    def _load(self, kernel: Kernel, index: int) -> Any:
        with self._lock:
            if (found := self._loaded.get((kernel, index))) is not None:
                return found
            core = _compiler()
            major, minor = torch.cuda.get_device_capability(index)
            arch = 10 * major + minor
            try:
                core.Device(index).set_current()
            except Exception as error:
                raise KernelError(f"cuda.core cannot use the GPU: {_line(error)}") from error
            try:
                function = self._function(kernel, cached_cubin(kernel, arch))
            except KernelError:  # perhaps a damaged file: once more, from the source
                cache_path(kernel, arch).unlink(missing_ok=True)
                function = self._function(kernel, cached_cubin(kernel, arch))
            self._loaded[kernel, index] = function
            return function

    @staticmethod
    def _function(kernel: Kernel, cubin: bytes) -> Any:
        try:
            return _compiler().ObjectCode.from_cubin(cubin).get_kernel(kernel.name)
        except Exception as error:
            raise KernelError(f"the driver refuses the compiled code: {_line(error)}") from error


runtimes: dict[str, Runtime] = {"cuda": Nvrtc()}
