"""The machine: system libraries, processor, GPU and which engines they can run, encoders, the cache folder."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from engines.installation import install_line, pip_install
from gnr_video.doctor.check import Check
from gnr_video.machine import cpu_model, distribution_version
from gnr_video.report import FASTER

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

    from engines.devices import no_cuda

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
        why = no_cuda()
        yield Check("GPU", "warn", f"an NVIDIA driver is here, but {why.message}", why.hint)
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


def check_microphones() -> Iterator[Check]:
    """What `live --microphone` could listen to; none is opened."""
    from gnr_video.live.sound.devices import list_microphones, which_there_are

    devices = list_microphones()
    if devices:
        yield Check("microphones", "ok", ", ".join(f"{device.name} ({device.title})" for device in devices))
    else:
        yield Check("microphones", "off", "none; for gnr-video live --microphone", which_there_are())


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
