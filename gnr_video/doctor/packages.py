"""Python, the packages that every run needs, and the optional parts."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module

from engines.installation import install_line, pip, pip_install
from gnr_video.doctor.check import Check
from gnr_video.machine import distribution_version
from gnr_video.tracking.mediapipe_tasks import ON_ARM, REQUIREMENT

OLDEST_PYTHON = (3, 11)
MEDIAPIPE_RANGE = ((0, 10, 30), (0, 10, 32))
"""Lowest version, and the first that is too new."""
MEDIAPIPE_METRICS = (0, 10, 35)
"""From this version on MediaPipe sends usage metrics to its maker and has no switch for it."""
OPENCV_PACKAGES = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
EXTRAS = {
    "onnx": ("gnr-video export, .onnx files", ("onnx", "onnxruntime")),
    "int8": ("--precision int8", ("openvino", "nncf", "scikit-image")),
    "beat": ("--mode beat", ("librosa",)),
    "live": ("gnr-video live --virtual-camera", ("pyvirtualcam",)),
    "voice": ("gnr-video live --microphone", ("sounddevice",)),
    "web": ("gnr-video live --web", ("aiohttp", "aiortc")),
    "ray": ("gnr-video --ray", ("ray",)),
    "weights": ("gnr-video weights pull", ("gdown",)),
    "train": ("gnr-video train", ("lpips", "tensorboard")),
    "kernels": ("training's CUDA kernels", ("cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc")),
}
"""The optional parts of pyproject.toml, without those of the engines: what each is for, and its packages."""


def check_python() -> Iterator[Check]:
    yield python_check((sys.version_info.major, sys.version_info.minor))


def python_check(version: tuple[int, int]) -> Check:
    """Judge a version of Python."""
    detail = f"{'.'.join(map(str, version))} on {platform.system()} {platform.machine()}"
    if version < OLDEST_PYTHON:
        needed = ".".join(map(str, OLDEST_PYTHON))
        fix = f"make a virtual environment with Python {needed} or newer: python{needed} -m venv .venv"
        return Check("Python", "fail", f"{detail}, needs {needed} or newer", fix)
    return Check("Python", "ok", detail)


def check_packages() -> Iterator[Check]:
    """The packages that every run needs: there, and importable."""
    for distribution, module in (
        ("numpy", "numpy"),
        ("torch", "torch"),
        ("opencv-python", "cv2"),
        ("av", "av"),
        ("click", "click"),
        ("pillow", "PIL"),
        ("pillow-heif", "pillow_heif"),
        ("safetensors", "safetensors"),
    ):
        yield package_check(distribution, module)


def package_check(distribution: str, module: str) -> Check:
    """Whether a package is installed and its module can be imported."""
    version = distribution_version(distribution)
    if module == "cv2" and version is None:
        names = [name for name in OPENCV_PACKAGES if distribution_version(name) is not None]
        version = f"{distribution_version(names[0])} ({names[0]})" if names else None
    try:
        import_module(module)
    except ImportError as error:
        if version is None:
            return Check(distribution, "fail", "not installed", pip_install(distribution))
        if module == "cv2" and "libGL" in str(error):
            other = pip_install("--force-reinstall", "opencv-python-headless")
            fix = f"sudo apt-get install -y libgl1 (or {other})"
            return Check(distribution, "fail", f"{version}, but {error}", fix)
        return Check(
            distribution, "fail", f"{version}, but {error}", pip_install("--force-reinstall", distribution)
        )
    return Check(distribution, "ok", version or "version unknown")


def check_opencv_conflict() -> Iterator[Check]:
    yield opencv_conflict([name for name in OPENCV_PACKAGES if distribution_version(name) is not None])


def opencv_conflict(installed: Sequence[str]) -> Check:
    """Whether several OpenCV packages share the folder `cv2/`: the last one overwrote the others."""
    if len(installed) > 1:
        return Check(
            "OpenCV packages",
            "warn",
            f"{' and '.join(installed)} are installed over each other",
            f"{pip('uninstall', '-y', *installed)}, then {pip_install('opencv-python')}",
        )
    return Check("OpenCV packages", "ok", installed[0] if installed else "none from PyPI")


def check_mediapipe() -> Iterator[Check]:
    version = distribution_version("mediapipe")
    found = mediapipe_version(version)
    if version is not None:
        try:
            import_module("mediapipe.tasks.python.vision")
        except (ImportError, OSError) as error:
            fix = pip_install("--force-reinstall", REQUIREMENT)
            found = Check("mediapipe", "fail", f"{version}, but {error}", fix)
    yield found


def mediapipe_version(version: str | None) -> Check:
    """Judge a version of MediaPipe (None: not installed)."""
    fix = pip_install(REQUIREMENT)
    if version is None:
        return Check("mediapipe", "fail", "not installed", fix)
    number = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    low, high = MEDIAPIPE_RANGE
    if number >= MEDIAPIPE_METRICS:
        if ON_ARM:
            fix = "no other has wheels for this machine: a firewall can stop it"
        return Check("mediapipe", "warn", f"{version} sends usage metrics to play.googleapis.com", fix)
    if number >= high:
        detail = f"{version} brings opencv-contrib-python, which fights with opencv-python"
        return Check("mediapipe", "warn", detail, fix)
    if number < low:
        return Check("mediapipe", "warn", f"{version} is older than what was tested", fix)
    return Check("mediapipe", "ok", version)


def check_extras() -> Iterator[Check]:
    """The optional parts: which are here, and the line that installs the others."""
    from engines.devices import best_device

    for extra, (purpose, packages) in EXTRAS.items():
        versions = {name: distribution_version(name) for name in packages}
        if extra == "voice" and sys.platform.startswith("linux"):
            yield Check(f"extra {extra}", "ok", f"not for this machine: on Linux {purpose} needs no package")
            continue
        if extra == "kernels":
            if best_device() == "cpu":
                yield Check(f"extra {extra}", "ok", f"not for this machine: {purpose} need an NVIDIA GPU")
                continue
            # For a torch of CUDA 12 it is another package of the same library.
            versions["nvidia-cuda-nvrtc"] = versions["nvidia-cuda-nvrtc"] or distribution_version(
                "nvidia-cuda-nvrtc-cu12"
            )
        yield extra_check(extra, purpose, versions)


def extra_check(extra: str, purpose: str, versions: dict[str, str | None]) -> Check:
    """Judge an optional part by the versions of its packages (None: not installed)."""
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        detail = f"{', '.join(missing)} not installed; for {purpose}"
        return Check(f"extra {extra}", "off", detail, install_line(extra))
    return Check(f"extra {extra}", "ok", ", ".join(f"{name} {v}" for name, v in versions.items()))
