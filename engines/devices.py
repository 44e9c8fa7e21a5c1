"""What this machine can do: which device is best, which precision suits it, which engines are tried there."""

from __future__ import annotations

import os
import platform

from engines.errors import EngineError


def native_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AVX512-BF16 or AMX); emulated, it is slower than fp32."""
    import torch

    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, probe, bool)()) for probe in probes)


def best_device() -> str:
    """ "cuda" where torch sees a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def no_cuda() -> EngineError:
    """Why torch sees no CUDA device, for `raise`."""
    import torch

    if torch.version.cuda is None:
        return EngineError(
            f"torch sees no CUDA device (torch {torch.__version__} is built for the CPU only)",
            "use --device cpu, or install a CUDA build of torch: https://pytorch.org/get-started/locally",
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not visible.strip(" -1"):
        return EngineError(
            f"torch sees no CUDA device: CUDA_VISIBLE_DEVICES={visible} hides all",
            "unset it, or use --device cpu",
        )
    return EngineError(
        f"torch sees no CUDA device: no NVIDIA GPU, or a driver too old for CUDA {torch.version.cuda}",
        "`nvidia-smi` must list the GPU and at least that CUDA; update the driver, or use --device cpu",
    )


def numbered(device: str) -> str:
    """ "cuda" as "cuda:N", N being this thread's current GPU: on another thread "cuda" may be another one."""
    import torch

    if device == "cuda" and torch.cuda.is_available():
        return f"cuda:{torch.cuda.current_device()}"
    return device


def default_precision(device: str, engine: str = "auto") -> str:
    """fp16 on CUDA, bf16 on CPUs that have it (and engines that use it), else fp32."""
    if device == "cpu" and engine == "onnx":
        return "fp32"
    if device.startswith("cuda"):
        return "fp16"
    return "bf16" if device == "cpu" and native_bf16() else "fp32"


def candidates(device: str) -> list[str]:
    """Engines that `auto` tries on a device, fastest first."""
    if device.startswith("cuda"):
        return ["tensorrt", "tensorrt-rtx", "torch"]
    return ["openvino", "torch"] if platform.machine().lower() in ("x86_64", "amd64") else ["torch"]
