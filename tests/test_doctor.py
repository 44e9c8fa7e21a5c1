"""The doctor: real checks on this machine, and its judgement of broken installations. Device: CPU."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
import tomllib
import types
from dataclasses import replace
from pathlib import Path

import pytest

from engines.installation import install_line, pip, pip_install
from gnr_video import doctor
from gnr_video.doctor import machine, models, packages
from gnr_video.doctor.check import Check, format_checks, healthy
from gnr_video.tracking import model_files

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def checks():
    start = time.process_time()
    found = doctor.run_doctor()
    return found, time.process_time() - start


def test_every_part_is_examined_and_every_failure_has_a_fix(checks):
    found, seconds = checks
    names = [check.name for check in found]
    assert len(names) == len(set(names))
    for part in (
        "Python",
        "torch",
        "mediapipe",
        "face model",
        "person model",
        "CPU",
        "engine torch",
        "engine openvino",
    ):
        assert part in names
    for part in ("default weights", "FFmpeg in av", "video encoders", "cache", "OpenCV packages"):
        assert part in names
    assert all(check.fix for check in found if check.status != "ok")
    assert all("\n" not in check.detail + check.fix for check in found)
    assert seconds < 20  # of CPU; about 2


def test_what_the_tests_themselves_need_is_found(checks):
    status = {check.name: check.status for check in checks[0]}
    for part in (
        "Python",
        "numpy",
        "torch",
        "av",
        "click",
        "safetensors",
        "engine torch",
        "FFmpeg in av",
        "CPU",
    ):
        assert status[part] == "ok"


def test_nothing_is_fetched_and_the_cache_is_not_made(tmp_path):
    environment = {**os.environ, "GNR_VIDEO_CACHE": str(tmp_path / "cache")}
    for model in (model_files.FACE_MODEL, model_files.PERSON_MODEL):
        environment.pop(model.variable, None)
    code = (
        "from gnr_video.doctor import run_doctor\nfor c in run_doctor(): print(c.status, c.name, '|', c.fix)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "cache").exists()
    for name, constant in (("face model", "FACE_MODEL"), ("person model", "PERSON_MODEL")):
        line = next(line for line in done.stdout.splitlines() if name in line)
        assert line.startswith("warn")
        assert f"import {constant} " in line


def test_importing_the_doctor_loads_nothing_heavy():
    heavy = {"torch", "cv2", "av", "mediapipe", "openvino"}
    code = f"import sys, gnr_video.doctor; print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "set()"


def test_a_check_that_breaks_does_not_hide_the_others(monkeypatch):
    def check_something_odd():
        raise RuntimeError("driver exploded")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (check_something_odd, packages.check_python))
    found = doctor.run_doctor()
    assert [check.name for check in found] == ["something odd", "Python"]
    assert found[0].status == "fail"
    assert "driver exploded" in found[0].detail


def test_format_aligns_and_sums_up():
    found = [Check("Python", "ok", "3.11"), Check("face model", "warn", "missing", "fetch it")]
    text = format_checks(found).splitlines()
    assert text[0].index("3.11") == text[1].index("missing") == text[2].index("-> fetch it")
    assert text[-1] == "ready to run, 1 warnings"
    assert healthy(found)
    broken = [*found, Check("torch", "fail", "not installed", "pip install torch")]
    assert not healthy(broken)
    assert "FAIL  torch" in format_checks(broken)
    assert format_checks(broken).splitlines()[-1].startswith("1 failed, 1 warnings")
    assert format_checks([]).strip() == "ready to run"


def test_a_failure_without_a_fix_is_refused():
    with pytest.raises(ValueError, match="names no fix"):
        Check("torch", "fail", "gone")


def test_every_extra_is_examined(checks):
    names = [check.name for check in checks[0]]
    assert [name for name in names if name.startswith("extra ")] == [
        f"extra {name}" for name in packages.EXTRAS
    ]


def test_extras_are_those_of_the_package():
    """What an installed extra consists of is said in pyproject.toml; the doctor looks for the same."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    theirs = {
        extra: tuple(re.match(r"[\w-]+", line).group() for line in lines)
        for extra, lines in project["optional-dependencies"].items()
    }
    for_engines = {"cpu", "tensorrt", "tensorrt-rtx"}
    of_others = {"all", "gpu", "gpu-cu12"}
    for_developers = {"bench", "demo", "dev"}
    assert theirs.pop("kernels-cu12")
    assert set(theirs) - for_engines - of_others - for_developers == set(packages.EXTRAS)
    for extra, (_, ours) in packages.EXTRAS.items():
        assert ours == theirs[extra]


def test_an_extra_that_is_not_installed():
    check = packages.extra_check("web", "gnr-video live --web", {"aiohttp": "3.9", "aiortc": None})
    assert (check.status, check.fix) == ("off", install_line("web"))
    assert check.detail == "aiortc not installed; for gnr-video live --web"
    assert healthy([check])
    text = format_checks([check])
    assert check.fix in text
    assert text.endswith("ready to run"), "what is optional is no warning"
    check = packages.extra_check("web", "gnr-video live --web", {"aiohttp": "3.9", "aiortc": "1.9"})
    assert (check.status, check.detail, check.fix) == ("ok", "aiohttp 3.9, aiortc 1.9", "")


def test_kernels_are_only_for_gpus(monkeypatch):
    monkeypatch.setattr("engines.devices.best_device", lambda: "cpu")
    found = {check.name: check for check in packages.check_extras()}
    assert found["extra kernels"].status == "ok"
    assert "NVIDIA GPU" in found["extra kernels"].detail
    monkeypatch.setattr("engines.devices.best_device", lambda: "cuda")
    monkeypatch.setattr(packages, "distribution_version", {"cuda-core": "1.2", "cuda-bindings": "12.9"}.get)
    found = {check.name: check for check in packages.check_extras()}
    assert found["extra kernels"].fix == install_line("kernels")
    installed = {"cuda-core": "1.2", "cuda-bindings": "12.9", "nvidia-cuda-nvrtc-cu12": "12.9"}
    monkeypatch.setattr(packages, "distribution_version", installed.get)
    found = {check.name: check for check in packages.check_extras()}
    assert found["extra kernels"].status == "ok"
    assert found["extra live"].status == "off"


@pytest.mark.parametrize(
    ("version", "status", "word"),
    [
        (None, "fail", "not installed"),
        ("0.10.21", "warn", "older"),
        ("0.10.30", "ok", "0.10.30"),
        ("0.10.31", "ok", "0.10.31"),
        ("0.10.32", "warn", "opencv-contrib-python"),
        ("0.10.35", "warn", "metrics"),
        ("0.11.0", "warn", "metrics"),
        ("1.0", "warn", "metrics"),
    ],
)
def test_mediapipe_versions(version, status, word):
    check = packages.mediapipe_version(version)
    assert check.status == status
    assert word in check.detail
    assert (check.fix == pip_install("mediapipe>=0.10.30,<0.10.32")) == (status != "ok")


def test_mediapipe_on_arm(monkeypatch):
    """There every version with wheels sends metrics: the doctor says so, and asks for no other."""
    monkeypatch.setattr(packages, "ON_ARM", True)
    check = packages.mediapipe_version("1.2.3")
    assert (check.status, "metrics" in check.detail) == ("warn", True)
    assert "firewall" in check.fix


def test_old_python_fails():
    assert packages.python_check((3, 10)).status == "fail"
    assert packages.python_check((3, 11)).status == "ok"


def test_two_opencv_packages_are_a_conflict():
    assert packages.opencv_conflict(["opencv-python"]).status == "ok"
    check = packages.opencv_conflict(["opencv-python", "opencv-contrib-python"])
    assert check.status == "warn"
    removed = pip("uninstall", "-y", "opencv-python", "opencv-contrib-python")
    assert check.fix == f"{removed}, then {pip_install('opencv-python')}"


def test_missing_and_broken_packages(monkeypatch):
    check = packages.package_check("gnr-video-test-absent", "gnr_video_test_absent")
    assert (check.status, check.fix) == ("fail", pip_install("gnr-video-test-absent"))
    monkeypatch.setitem(sys.modules, "click", None)
    check = packages.package_check("click", "click")
    assert check.status == "fail"
    assert check.fix == pip_install("--force-reinstall", "click")


@pytest.mark.parametrize(
    ("release", "word"),
    [
        ('NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n', "apt-get"),
        ("ID=debian\n", "apt-get"),
        ("ID=fedora\n", "dnf"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "dnf"),
        ("ID=arch\n", "pacman"),
        ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n', "zypper"),
    ],
)
def test_system_packages_are_named_for_the_distribution(release, word):
    assert word in machine.system_package_line(release)


def test_an_unknown_distribution_gets_both_lines():
    line = machine.system_package_line("ID=plan9\n")
    assert "apt-get" in line
    assert "dnf" in line


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux: others ship these libraries")
def test_missing_system_libraries(monkeypatch):
    monkeypatch.setattr(machine, "_GRAPHICS_LIBRARIES", ("libgnr_video_absent.so.9",))
    (check,) = machine.check_graphics_libraries()
    assert check.status == "fail"
    assert "libgnr_video_absent.so.9" in check.detail
    assert re.search("apt-get|dnf|pacman|zypper", check.fix)


@pytest.mark.parametrize(
    ("name", "constant", "worst"),
    [("face model", "FACE_MODEL", "fail"), ("person model", "PERSON_MODEL", "warn")],
)
def test_model_files_in_every_state(monkeypatch, tmp_path, name, constant, worst):
    model = getattr(model_files, constant)
    examine = {"FACE_MODEL": models.check_face_model, "PERSON_MODEL": models.check_person_model}[constant]
    monkeypatch.setenv("GNR_VIDEO_CACHE", str(tmp_path))
    monkeypatch.delenv(model.variable, raising=False)
    (check,) = examine()
    assert check.status == "warn"
    assert f"import {constant} " in check.fix
    file = tmp_path / model.file_name
    file.write_bytes(b"half a model")
    (check,) = examine()
    assert (check.status, "damaged" in check.detail) == ("warn", True)
    monkeypatch.setattr(
        model_files, constant, replace(model, sha256=hashlib.sha256(b"half a model").hexdigest())
    )
    assert list(examine()) == [Check(name, "ok", str(file))]
    monkeypatch.setenv(model.variable, str(tmp_path / "absent.task"))
    (check,) = examine()
    assert check.status == worst
    assert model.variable in check.fix
    other = tmp_path / "other.task"
    other.write_bytes(b"something else")
    monkeypatch.setenv(model.variable, str(other))
    (check,) = examine()
    assert check.status == worst
    assert ("hair stays human" in check.detail) == (constant == "PERSON_MODEL")


def test_engines():
    assert machine.engine_check("torch", "").status == "ok"
    check = machine.engine_check("openvino", f"openvino is not installed ({install_line('cpu')})")
    assert check == Check("engine openvino", "warn", "openvino is not installed", install_line("cpu"))
    assert machine.engine_check("torch", "torch is broken").status == "fail"


def test_a_gpu_that_torch_cannot_use(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    for cuda, word in ((None, "pytorch.org"), ("12.8", "driver")):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        (check,) = machine.check_gpu()
        assert check.status == "warn"
        assert word in check.fix


def test_gpus_are_listed(monkeypatch):
    import torch

    card = types.SimpleNamespace(name="Test GPU", major=9, minor=0, total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: card)
    found = list(machine.check_gpu())
    assert [check.name for check in found] == ["GPU cuda:0", "GPU cuda:1"]
    assert "Test GPU, compute capability 9.0, 80 GB" in found[0].detail


def test_encoders():
    assert machine.encoders_check({"libx264": True, "h264_nvenc": False}) == Check(
        "video encoders", "ok", "libx264"
    )
    assert machine.encoders_check({"libx264": False, "libvpx-vp9": True}).status == "warn"
    assert machine.encoders_check({"libx264": False}).status == "fail"


def test_weights_that_are_missing_or_damaged(tmp_path):
    absent = models.weights_check("weights", str(tmp_path / "absent.safetensors"))
    assert absent.status == "warn"
    assert absent.fix
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"garbage")
    assert models.weights_check("weights", str(broken)).status == "warn"


def test_cache_folder(tmp_path):
    missing = machine.cache_check(tmp_path / "a" / "b")
    assert missing.status == "ok"
    assert not (tmp_path / "a").exists()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(bytes(2_000_000))
    assert machine.cache_check(tmp_path) == Check("cache", "ok", f"{tmp_path}, 2.0 MB in 1 files")
    file = tmp_path / "sub" / "file"
    for folder in (file, file / "below"):
        check = machine.cache_check(folder)
        assert check.status == "fail"
        assert "GNR_VIDEO_CACHE" in check.fix
