"""Examines the installation: every part that a run needs, and the line that mends what is missing.

Nothing is downloaded and nothing is changed.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engines.errors import GnrVideoError
from engines.installation import install_line, pip, pip_install
from gnr_video.machine import cpu_model, distribution_version
from gnr_video.report import FASTER
from gnr_video.tracking.mediapipe_tasks import ON_ARM, REQUIREMENT

if TYPE_CHECKING:
    from gnr_video.tracking.model_files import ModelFile

Status = Literal["ok", "off", "warn", "fail"]

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
    "web": ("gnr-video live --web", ("aiohttp", "aiortc")),
    "weights": ("gnr-video weights pull", ("gdown",)),
    "train": ("gnr-video train", ("lpips", "tensorboard", "pillow")),
    "kernels": ("training's CUDA kernels", ("cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc")),
}
"""The optional parts of pyproject.toml, without those of the engines: what each is for, and its packages."""

_GRAPHICS_LIBRARIES = ("libEGL.so.1", "libGLESv2.so.2")
_PACKAGE_LINES = {
    "debian": "sudo apt-get install -y libegl1 libgles2",
    "fedora": "sudo dnf install -y libglvnd-egl libglvnd-gles",
    "arch": "sudo pacman -S --needed libglvnd",
    "suse": "sudo zypper install -y libglvnd",
}
_FAMILIES = {
    "debian": ("debian", "ubuntu", "linuxmint", "raspbian"),
    "fedora": ("fedora", "rhel", "centos", "rocky", "almalinux", "amzn"),
    "arch": ("arch", "manjaro"),
    "suse": ("suse", "opensuse", "sles"),
}
_CACHE_FILES_COUNTED = 10_000


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        status: "ok"; "off": optional and not installed; "warn": a run works, but not as well as it could;
            "fail": a run does not work.
        detail: what was found, one line.
        fix: what to do about it (a command where there is one); empty only when there is nothing to do.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""

    def __post_init__(self) -> None:
        if self.status not in ("ok", "off", "warn", "fail"):
            raise ValueError(f"status must be ok, off, warn or fail, got {self.status!r}")
        if self.status == "fail" and not self.fix:
            raise ValueError(f"the failing check {self.name!r} names no fix")


def run_doctor() -> list[Check]:
    """All checks, in the order of the pipeline. Takes a few seconds, most of it for importing torch."""
    checks: list[Check] = []
    for examine in CHECKS:
        try:
            checks += examine()
        except Exception as error:  # a broken part must not hide the others
            name = examine.__name__.removeprefix("check_").replace("_", " ")
            checks.append(
                Check(
                    name,
                    "fail",
                    f"{type(error).__name__}: {error}",
                    f"reinstall: {install_line('', '--force-reinstall', '--no-deps')}",
                )
            )
    return checks


def healthy(checks: Iterable[Check]) -> bool:
    """Whether a run can work: no check failed."""
    return all(check.status != "fail" for check in checks)


def format_checks(checks: Sequence[Check]) -> str:
    """The findings as aligned text, each fix below its finding, and a summary at the end."""
    width = max((len(check.name) for check in checks), default=0)
    mark = {"ok": "ok  ", "off": "-   ", "warn": "warn", "fail": "FAIL"}
    lines = []
    for check in checks:
        lines.append(f"{mark[check.status]}  {check.name:<{width}}  {check.detail}")
        if check.fix:
            lines.append(f"{'':{width + 6}}  -> {check.fix}")
    count = {status: sum(check.status == status for check in checks) for status in mark}
    if count["fail"]:
        summary = f"{count['fail']} failed, {count['warn']} warnings: mend what is marked FAIL"
    elif count["warn"]:
        summary = f"ready to run, {count['warn']} warnings"
    else:
        summary = "ready to run"
    return "\n".join([*lines, "", summary])


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


def check_graphics_libraries() -> Iterator[Check]:
    """MediaPipe on Linux loads libEGL and libGLESv2 even when it runs on the CPU."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    missing = []
    for library in _GRAPHICS_LIBRARIES:
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(library)
    if missing:
        try:
            release = Path("/etc/os-release").read_text(errors="replace")
        except OSError:
            release = ""
        yield Check(
            "system libraries",
            "fail",
            f"MediaPipe needs {' and '.join(missing)}",
            system_package_line(release),
        )
    else:
        yield Check("system libraries", "ok", ", ".join(_GRAPHICS_LIBRARIES))


def system_package_line(os_release: str) -> str:
    """The command that installs libEGL and libGLESv2, for the text of an /etc/os-release."""
    words = (
        " ".join(re.findall(r"^(?:ID|ID_LIKE)=(.*)$", os_release, re.MULTILINE))
        .replace('"', " ")
        .lower()
        .split()
    )
    for family, names in _FAMILIES.items():
        if any(word.startswith(name) for word in words for name in names):
            return _PACKAGE_LINES[family]
    return f"{_PACKAGE_LINES['debian']} (Debian, Ubuntu) or {_PACKAGE_LINES['fedora']} (Fedora, RHEL)"


def check_face_model() -> Iterator[Check]:
    """The face landmark model; only looked for, never fetched here."""
    from gnr_video.tracking import model_files

    yield _model_check("face model", model_files.FACE_MODEL, "FACE_MODEL")


def check_person_model() -> Iterator[Check]:
    """The person segmentation model, likewise. Videos are translated without it, so nothing here fails."""
    from gnr_video.tracking import model_files

    check = _model_check("person model", model_files.PERSON_MODEL, "PERSON_MODEL")
    if check.status != "ok":
        check = replace(check, status="warn", detail=f"{check.detail}; hair stays human without it")
    yield check


def _model_check(name: str, model: ModelFile, constant: str) -> Check:
    """Where `model_files.<constant>` is, or how it gets there."""
    from gnr_video.tracking.model_files import file_sha256

    fetch = (
        f'{_python()} -c "from gnr_video.tracking.model_files import {constant} as m; print(m.resolve())"'
        f" (or set {model.variable} to a copy of {model.url})"
    )
    chosen = os.environ.get(model.variable)
    path = Path(chosen).expanduser() if chosen else model.cached
    if not path.is_file():
        if chosen:
            return Check(name, "fail", f"${model.variable} names no file: {path}", f"unset {model.variable}")
        size = f"{model.size / 1e6:.1f} MB"
        return Check(name, "warn", f"not here yet; the first run fetches it ({size})", fetch)
    if file_sha256(path) != model.sha256:
        if chosen:
            fix = f"unset {model.variable}, or point it to a copy of {model.url}"
            return Check(name, "fail", f"{path} is another file than the expected one", fix)
        return Check(name, "warn", f"{path} is damaged; the next run fetches it again", fetch)
    return Check(name, "ok", str(path))


def check_processor() -> Iterator[Check]:
    import torch

    from engines.devices import native_bf16

    detail = f"{cpu_model()}, {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"
    if platform.machine().lower() not in ("x86_64", "amd64"):
        yield Check("CPU", "ok", detail)
    elif native_bf16():
        yield Check("CPU", "ok", f"{detail}, bf16 in hardware")
    else:
        yield Check(
            "CPU",
            "ok",
            f"{detail}, no bf16 in hardware, so fp32 (half as fast)",
            f"{FASTER} ({install_line('int8')})",
        )


def check_gpu() -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(i)
            yield Check(
                f"GPU cuda:{i}",
                "ok",
                f"{device.name}, compute capability {device.major}.{device.minor}, "
                f"{device.total_memory / 2**30:.0f} GB, CUDA {torch.version.cuda}",
            )
    elif shutil.which("nvidia-smi"):
        if torch.version.cuda is None:
            fix = "install a CUDA build of torch: https://pytorch.org/get-started/locally"
            yield Check(
                "GPU",
                "warn",
                f"an NVIDIA driver is here, but torch {torch.__version__} is built for CPU only",
                fix,
            )
        else:
            fix = "update the NVIDIA driver: nvidia-smi must list a GPU and at least that CUDA version"
            yield Check("GPU", "warn", f"torch for CUDA {torch.version.cuda} finds no usable NVIDIA GPU", fix)
    else:
        yield Check("GPU", "ok", "none; the CPU is used")


def check_engines() -> Iterator[Check]:
    """Every engine: whether it can be made here. Only torch has to."""
    from engines import ENGINES, TENSORRT, unavailable
    from engines.devices import best_device

    for name in ENGINES:
        if name in TENSORRT and best_device() == "cpu":
            yield Check(f"engine {name}", "ok", "not for this machine: needs an NVIDIA GPU that torch sees")
            continue
        reason = unavailable(name)
        if not reason and name != "torch":
            reason = _import_error("tensorrt" if name == "torch2trt" else name)
        yield engine_check(name, reason)


def engine_check(name: str, reason: str) -> Check:
    """Judge an engine by why it is unavailable ("": it is not)."""
    if not reason:
        return Check(f"engine {name}", "ok", distribution_version(name) or "available")
    told = re.fullmatch(r"(.*) \((.*pip install .*)\)", reason)
    detail, fix = told.groups() if told else (reason, f"see docs: engine {name}")
    return Check(f"engine {name}", "fail" if name == "torch" else "warn", detail, fix)


def _import_error(module: str) -> str:
    try:
        import_module(module.replace("-", "_"))
    except ImportError as error:
        return f"{module} is installed, but {error} ({pip_install('--force-reinstall', module)})"
    return ""


def check_extras() -> Iterator[Check]:
    """The optional parts: which are here, and the line that installs the others."""
    from engines.devices import best_device

    for extra, (purpose, packages) in EXTRAS.items():
        versions = {name: distribution_version(name) for name in packages}
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


def check_weights() -> Iterator[Check]:
    """The default weights, and the official ones where they were fetched."""
    from gnr_video.checkpoints import official_file

    yield weights_check("default weights", None)
    if official_file().is_file():
        yield weights_check("official weights", "official")


def weights_check(name: str, which: str | None) -> Check:
    """Whether weights are there and whole."""
    from engines.weights import load_weights
    from gnr_video.checkpoints import resolve_weights

    try:
        path = resolve_weights(which)
        weights = load_weights(path)
    except GnrVideoError as error:
        again = install_line("", "--force-reinstall", "--no-deps")
        fix = error.hint or f"{again}, or give a file with --weights"
        return Check(name, "fail" if which is None else "warn", error.message, fix)
    megabytes = path.stat().st_size / 1e6
    styles = "takes styles from pictures" if weights.has_style_encoder else "no style encoder"
    side = weights.architecture.size
    size = f"{side}x{side}, {weights.parameters / 1e6:.1f} M parameters, {megabytes:.0f} MB"
    return Check(name, "ok", f"{path.name}, {size}, {styles}")


def check_ffmpeg() -> Iterator[Check]:
    import av

    libraries = ", ".join(
        f"{name} {'.'.join(map(str, av.library_versions[name]))}"
        for name in ("libavcodec", "libavformat", "libswscale")
        if name in av.library_versions
    )
    version = getattr(av, "ffmpeg_version_info", "")
    yield Check("FFmpeg in av", "ok", f"{version} ({libraries})".strip())


def check_encoders() -> Iterator[Check]:
    """Which encoders really encode a frame here: hardware encoders are in every build and fail only then."""
    from gnr_video.media.encoders import list_encoders

    yield encoders_check(list_encoders())


def encoders_check(works: dict[str, bool]) -> Check:
    """Judge the result of `list_encoders`."""
    able = [name for name, ok in works.items() if ok]
    if works.get("libx264"):
        return Check("video encoders", "ok", ", ".join(able))
    fix = f"{pip_install('--force-reinstall', 'av')} (its wheels carry libx264)"
    if able:
        return Check(
            "video encoders", "warn", f"no libx264, the default for mp4; these work: {', '.join(able)}", fix
        )
    return Check("video encoders", "fail", "none works", fix)


def check_cache() -> Iterator[Check]:
    from engines.paths import cache_dir

    yield cache_check(cache_dir())


def cache_check(folder: Path) -> Check:
    """Whether the cache folder can be written to, and how much is in it."""
    from engines.paths import CACHE_VARIABLE

    fix = f"set {CACHE_VARIABLE} to a folder you can write to"
    if not folder.exists():
        parent = next(p for p in folder.absolute().parents if p.exists())
        if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
            return Check("cache", "ok", f"{folder} (not made yet)")
        return Check("cache", "fail", f"{folder} cannot be made: {parent} is not writable", fix)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Check("cache", "fail", f"{folder} cannot be written to: {error.strerror or error}", fix)
    total, count = 0, 0
    for base, _, names in os.walk(folder):
        for name in names:
            count += 1
            if count > _CACHE_FILES_COUNTED:
                return Check("cache", "ok", f"{folder}, more than {total / 1e6:.0f} MB")
            try:
                total += os.lstat(os.path.join(base, name)).st_size
            except OSError:  # removed meanwhile
                continue
    return Check("cache", "ok", f"{folder}, {total / 1e6:.1f} MB in {count} files")


CHECKS: tuple[Callable[[], Iterator[Check]], ...] = (
    check_python,
    check_packages,
    check_opencv_conflict,
    check_mediapipe,
    check_graphics_libraries,
    check_face_model,
    check_person_model,
    check_processor,
    check_gpu,
    check_engines,
    check_extras,
    check_weights,
    check_ffmpeg,
    check_encoders,
    check_cache,
)
"""What `run_doctor` goes through."""


def _python() -> str:
    """How the user most likely calls this interpreter."""
    return Path(sys.executable).name or "python"
