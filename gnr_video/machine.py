"""This machine: its processor, memory, GPUs and the versions of what is installed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from gnr_video._version import __version__

VERSIONED = {
    "gnr-video": "gnr-video",
    "torch": "torch",
    "openvino": "openvino",
    "onnxruntime": "onnxruntime",
    "tensorrt": "tensorrt",
    "mediapipe": "mediapipe",
    "av": "av",
    "opencv": "opencv-python",
    "numpy": "numpy",
}
"""Name in the report -> distribution whose version it is."""


_AVX_512F = 13
"""OpenCV's number of it, which has no name in Python."""


def versions() -> dict[str, str]:
    """Versions of Python and of the packages a run depends on; those not installed are left out."""
    found = {"python": platform.python_version()}
    for name, distribution in VERSIONED.items():
        version = distribution_version(distribution)
        if version is not None:
            found[name] = version
    found.setdefault("gnr-video", __version__)
    return found


def distribution_version(name: str) -> str | None:
    """Version of an installed distribution, without importing it; None when it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def hardware() -> dict[str, Any]:
    """This machine: CPU model, cores, memory, GPUs, operating system, and `versions` of the packages.

    `cores_usable` counts the cores that this process may run on. The names of GPUs come from torch, which is
    imported for it.
    """
    return {**this_machine(), "versions": versions()}


def this_machine() -> dict[str, Any]:
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count() or 1,
        "cores_usable": usable_cores(),
        "ram_gb": _ram_gb(),
        "gpu": gpu_names(),
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def cpu_model() -> str:
    """The CPU's marketing name, or the machine type where the system does not tell."""
    if sys.platform.startswith("linux"):
        try:
            for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
                if line.lower().startswith(("model name", "hardware")):
                    return line.split(":", 1)[1].strip()
        except OSError:
            pass
    if sys.platform == "darwin":
        try:
            answer = subprocess.run(
                ["sysctl", "-n", "machdep.cpu.brand_string"],
                capture_output=True,
                text=True,
                timeout=2,
                check=True,
            )
            return answer.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass
    return os.environ.get("PROCESSOR_IDENTIFIER") or platform.processor() or platform.machine()


def gpu_names() -> list[str]:
    """Names of the GPUs that torch can use."""
    try:
        import torch

        if torch.cuda.is_available():
            return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if getattr(torch.backends, "mps", None) and torch.backends.mps.is_available():
            return ["Apple GPU (mps)"]
    except Exception:  # a broken driver must not break a report
        pass
    return []


def has_avx512() -> bool:
    """Whether the processor has AVX-512 (and so AVX2)."""
    import cv2

    return bool(cv2.checkHardwareSupport(_AVX_512F))


def usable_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _ram_gb() -> float | None:
    if sys.platform == "win32":  # has no sysconf
        return None
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None
