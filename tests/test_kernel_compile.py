"""The CUDA kernels compile for every architecture, are kept on disk, and are replaced where they cannot be built.

Device: CPU only; needs NVRTC from PyPI (the extra `kernels`), neither a GPU nor a driver.
"""

from __future__ import annotations

import io
import logging
import re
import sys
from pathlib import Path

import pytest
import torch

from engines.installation import install_line
from train.ops import kernels
from train.ops.bias_act import ACTIVATIONS, bias_act
from train.ops.bias_act import plan as plan_bias_act
from train.ops.fir_bias_act import fir_bias_act
from train.ops.kernels import ARCHITECTURES, Kernel, KernelError, Launch
from train.ops.upfirdn2d import plan as plan_upfirdn2d


@pytest.fixture(scope="module")
def nvrtc() -> str:
    try:
        return kernels.compiler_version()
    except KernelError as error:
        pytest.skip(f"needs NVRTC: {error}")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("GNR_VIDEO_CACHE", str(tmp_path))
    return tmp_path / "kernels"


def elementwise(dtype: torch.dtype, order: int, act: str, inner: int = 65536, clamp: bool = True) -> Kernel:
    aligned = 16 // dtype.itemsize
    return plan_bias_act(dtype, order, act, True, clamp, 8 * 64 * 65536, inner, 64, aligned).kernel


def fir(
    dtype: torch.dtype, size: int, out: int, taps: tuple[int, ...] | None, up: int, down: int, last: bool
) -> Kernel:
    aligned = 16 // dtype.itemsize
    tail = up == down == 1
    launch, *_ = plan_upfirdn2d(
        dtype, (8, 64, size, size), (out, out), last, aligned, taps, up, down, *(1, 1) if taps else (0, 0),
        False, "lrelu" if tail else "linear", tail, tail, False,
    )  # fmt: skip
    return launch.kernel


def of_networks() -> list[Kernel]:
    """What training launches on feature maps of 256 pixels: tails, blurs, down- and upsampling."""
    return [
        fir(dtype, size, out, taps, up, down, last)
        for dtype, last in (
            (torch.float32, False),
            (torch.float32, True),
            (torch.float16, True),
            (torch.bfloat16, False),
        )
        for size, out, taps, up, down in (
            (257, 256, (4,), 1, 1),
            (256, 257, (4, 4), 1, 1),
            (256, 256, None, 1, 1),
            (128, 256, (4,), 2, 1),
            (256, 128, (4,), 1, 2),
        )
    ]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.slow
def test_compiles(nvrtc, arch):
    cases = [
        *of_networks()[ARCHITECTURES.index(arch) % 3 :: 3],
        fir(torch.float64, 17, 19, (3, 2), 3, 2, False),
        elementwise(torch.float32, 0, "lrelu"),
        elementwise(torch.float16, 1, "lrelu", inner=1),
        elementwise(torch.bfloat16, 2, "swish"),
        elementwise(torch.float64, 2, "softplus"),
    ]
    for kernel in cases:
        assert kernels.compile_cubin(kernel, arch).startswith(b"\x7fELF"), kernel


@pytest.mark.parametrize("act", list(ACTIVATIONS))
def test_every_activation_compiles(nvrtc, act):
    orders = (0, 1) if ACTIVATIONS[act].piecewise_linear else (0, 1, 2)
    for order, dtype in zip(orders, (torch.float16, torch.bfloat16, torch.float32)):
        assert kernels.compile_cubin(elementwise(dtype, order, act), 90)


@pytest.mark.parametrize("arch", [75, 90, 120])
def test_sums_stay_in_registers(nvrtc, arch):
    """Sums that leave the registers would cost the memory traffic that the kernels save."""
    import cuda.core

    for kernel in [*of_networks()[arch % 4 :: 5], elementwise(torch.float16, 0, "lrelu")]:
        options = cuda.core.ProgramOptions(
            arch=f"sm_{arch}",
            std="c++17",
            include_path=str(kernels.SOURCES),
            define_macro=kernel.definitions(),
            ptxas_options=["-v"],
        )
        report = io.StringIO()
        text = kernels.source(f"{kernel.name}.cu")
        cuda.core.Program(text, "c++", options).compile("cubin", logs=report)
        (spilled,) = re.findall(r"(\d+) bytes spill stores", report.getvalue())
        assert int(spilled) <= 16, (kernel, report.getvalue())  # two or three scalars of the address, no sums


def test_kept_on_disk(nvrtc, cache, monkeypatch):
    kernel = elementwise(torch.float32, 0, "relu")
    first = kernels.cached_cubin(kernel, 80)
    (file,) = cache.iterdir()
    assert file.name.startswith(f"bias_act-sm80-nvrtc{nvrtc}-")
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "compile_cubin", lambda *_: pytest.fail("compiled a second time"))
        assert kernels.cached_cubin(kernel, 80) == first
    file.write_bytes(b"")  # a disk that was full
    assert kernels.cached_cubin(kernel, 80) == first
    assert file.read_bytes() == first


def test_a_cache_that_cannot_be_written_is_no_error(nvrtc, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GNR_VIDEO_CACHE", str(tmp_path / "file"))
    assert kernels.cached_cubin(elementwise(torch.float32, 0, "relu"), 80)


def test_the_cache_knows_source_macros_gpu_and_compiler(monkeypatch):
    kernel = elementwise(torch.float32, 0, "relu")
    other = elementwise(torch.float32, 1, "relu")
    name = kernels.cache_name(kernel, 90, "13.0")
    others = [
        kernels.cache_name(other, 90, "13.0"),
        kernels.cache_name(kernel, 80, "13.0"),
        kernels.cache_name(kernel, 90, "13.1"),
    ]
    original = kernels.source
    for changed in ("common.cuh", "bias_act.cu"):
        with monkeypatch.context() as patch:
            patch.setattr(kernels, "source", lambda n, changed=changed: original(n) + "//" * (n == changed))
            others.append(kernels.cache_name(kernel, 90, "13.0"))
    assert len({name, *others}) == 6


def test_errors_say_why_in_one_line(nvrtc, monkeypatch):
    kernel = elementwise(torch.float32, 0, "relu")
    with pytest.raises(KernelError, match="for sm_12345") as caught:
        kernels.compile_cubin(kernel, 12345)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(kernels, "source", lambda _: "this is not C++")
    with pytest.raises(KernelError, match=r"fails for sm_90: .*error") as caught:
        kernels.compile_cubin(kernel, 90)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    kernels._compiler.cache_clear()
    with pytest.raises(KernelError, match=re.escape(install_line("kernels"))):
        kernels.compiler_version()
    kernels._compiler.cache_clear()


class BrokenCompiler:
    """A runtime whose source does not compile: what a GPU unknown to NVRTC looks like."""

    def __init__(self) -> None:
        self.attempts = 0

    def launch(self, launch: Launch, arguments: object, device: torch.device) -> None:
        self.attempts += 1
        kernels.compile_cubin(launch.kernel, 12345)


@pytest.fixture
def broken(nvrtc, monkeypatch: pytest.MonkeyPatch) -> BrokenCompiler:
    runtime = BrokenCompiler()
    monkeypatch.setitem(kernels.runtimes, "cpu", runtime)
    monkeypatch.setattr(kernels, "_failed", {})
    monkeypatch.setattr(kernels, "fallback", kernels.Fallback())
    return runtime


def test_a_failed_compile_warns_once_and_runs_the_reference(broken, caplog):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    b = torch.randn(3, dtype=torch.float64, requires_grad=True)
    f = torch.randn(4, dtype=torch.float64)
    with caplog.at_level(logging.WARNING, logger="train.ops.kernels"):
        for _ in range(2):
            bias_act(x, b, "tanh", impl="cuda")
        assert broken.attempts == 1  # not tried again
        for act in ACTIVATIONS:

            def run(x: torch.Tensor, b: torch.Tensor, impl: str, act: str = act) -> torch.Tensor:
                y = fir_bias_act(x, f, None, b, (1, 1, 1, 1), act=act, clamp=2.0, impl=impl)
                return bias_act(y, b, act, gain=-1.5, impl=impl)

            def derivatives(impl: str, run=run) -> list[torch.Tensor]:
                y = run(x, b, impl)
                first = torch.autograd.grad(y.square().sum(), (x, b), create_graph=True)
                return [y, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), (x, b))]

            for found, expected in zip(derivatives("cuda"), derivatives("ref")):
                torch.testing.assert_close(found, expected)
    assert len(caplog.records) == 1
    assert "fails for sm_12345" in caplog.text and "reference" in caplog.text
    assert kernels.fallback and "bias_act cannot run here" in str(kernels.fallback)
