"""The CUDA kernels against float64 references: values, first and second derivatives, every layout and dtype.

Device: each test runs the kernels' source on the CPU, compiled by a C++ compiler (skipped without one), and on a
GPU where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.kernel_shim import COMPILER, Shim
from train.ops import bias_act as bias_act_module
from train.ops import kernels
from train.ops import upfirdn2d as upfirdn2d_module
from train.ops.bias_act import ACTIVATIONS, bias_act
from train.ops.fir_bias_act import fir_bias_act
from train.ops.upfirdn2d import setup_filter, setup_separable_filter, upfirdn2d

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 1e-2}
DTYPES = list(TOLERANCE)
LAYOUTS = ("contiguous", "channels_last", "cropped")


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def device(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[torch.device]:
    """Where the kernels run. All of a test must run in kernels, none in the reference that replaces them."""
    patch = pytest.MonkeyPatch()
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA GPU")
        pytest.importorskip("cuda.core", reason="needs cuda-core: the extra kernels")
        if not kernels.fallback:
            yield torch.device("cuda", torch.cuda.current_device())
    else:
        if COMPILER is None:
            pytest.skip(
                "needs a C++ compiler (g++ or clang++, or $CXX) to run the kernels' source on the CPU"
            )
        patch.setitem(kernels.runtimes, "cpu", Shim(tmp_path_factory.mktemp("shim")))
        yield torch.device("cpu")
    patch.undo()
    assert not kernels.fallback, str(kernels.fallback)


def randn(shape: tuple[int, ...], dtype: torch.dtype, layout: str, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    if layout == "cropped":  # neither dense nor aligned
        wide = torch.randn([s + 1 for s in shape], generator=g)
        return wide.to(dtype)[tuple(slice(1, None) for _ in shape)]
    x = torch.randn(shape, generator=g).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" and x.ndim == 4 else x


def agree(found: Tensor, expected: Tensor, dtype: torch.dtype, what: str) -> None:
    """The largest error over the largest value; the dtype's own range bounds what can be asked."""
    assert found.shape == expected.shape, what
    if expected.numel() == 0:
        return
    assert found.isfinite().all(), what
    error = (found.cpu().double() - expected).abs().max().item()
    assert error <= TOLERANCE[dtype] * max(expected.abs().max().item(), 1.0), f"{what}: {error}"


def all_orders(run, inputs: list[Tensor], seed: int) -> list[tuple[str, Tensor]]:
    """The output, its gradient in each input, and the gradients of those in each input and in the first vector."""
    inputs = [x.detach().requires_grad_(True) for x in inputs]
    y = run(*inputs)

    def vector(like: Tensor, n: int) -> Tensor:
        values = randn(tuple(like.shape), torch.float16, "contiguous", seed + n)
        return values.to(dtype=like.dtype, device=like.device)

    dy = vector(y, 1).requires_grad_(True)
    first = torch.autograd.grad(y, inputs, dy, create_graph=True)
    total = sum((g.double() * vector(g, 2 + i).double()).sum() for i, g in enumerate(first))
    second = torch.autograd.grad(total, [*inputs, dy], allow_unused=True)
    named = [("y", y), *((f"first {i}", g) for i, g in enumerate(first))]
    zeros = [torch.zeros_like(x) if g is None else g for g, x in zip(second, [*inputs, dy])]
    return named + [(f"second {i}", g) for i, g in enumerate(zeros)]


def compare(run, reference, inputs: list[Tensor], device: torch.device, seed: int) -> None:
    dtype = inputs[0].dtype
    found = all_orders(run, [x.to(device) for x in inputs], seed)
    expected = all_orders(reference, [x.double() for x in inputs], seed)
    for (what, a), (_, b) in zip(found, expected, strict=True):
        agree(a.detach(), b.detach(), dtype, what)


def tiles(monkeypatch: pytest.MonkeyPatch, large: bool) -> None:
    """Make even these small inputs take the code of large ones."""
    monkeypatch.setattr(upfirdn2d_module, "MANY_OUTPUTS", 0 if large else 1 << 21)
    monkeypatch.setattr(bias_act_module, "MANY_VECTORS", 0 if large else 1 << 19)
    upfirdn2d_module.plan.cache_clear()
    bias_act_module.plan.cache_clear()


@st.composite
def resampling(draw: st.DrawFn) -> dict:
    taps = draw(st.one_of(st.tuples(st.integers(1, 6)), st.tuples(st.integers(1, 5), st.integers(1, 5))))
    up, down = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    padding = draw(st.tuples(*[st.integers(-3, 5)] * 4))
    h, w = draw(st.integers(1, 13)), draw(st.sampled_from([1, 2, 3, 7, 8, 16, 24]))
    if h * up + padding[2] + padding[3] < taps[0] or w * up + padding[0] + padding[1] < taps[-1]:
        padding = (taps[-1], 2, taps[0], 1)
    return {
        "shape": (draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 3, 4, 8])), h, w),
        "f": randn(taps, torch.float32, "contiguous", draw(st.integers(0, 999))).double(),
        "up": up,
        "down": down,
        "padding": padding,
        "dtype": draw(st.sampled_from(DTYPES)),
        "layout": draw(st.sampled_from(LAYOUTS)),
        "seed": draw(st.integers(0, 999)),
    }


COMMON = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


@given(case=resampling(), flip=st.booleans(), large=st.booleans())
@settings(max_examples=30, **COMMON)
@pytest.mark.slow
def test_upfirdn2d(device, monkeypatch, case, flip, large):
    tiles(monkeypatch, large)
    x = randn(case["shape"], case["dtype"], case["layout"], case["seed"])
    f, options = case["f"], (case["up"], case["down"], case["padding"])

    def run(t: Tensor, impl: str = "cuda") -> Tensor:
        return upfirdn2d(t, f.to(t.device), *options, flip=flip, gain=1.5, impl=impl)

    compare(run, lambda t: run(t, "ref"), [x], device, case["seed"])
    y = run(x.to(device))
    assert y.dtype == x.dtype
    if case["layout"] == "channels_last":
        assert y.is_contiguous(memory_format=torch.channels_last)


@given(
    case=resampling(),
    act=st.sampled_from(["linear", "relu", "lrelu", "swish"]),
    clamp=st.booleans(),
    scaled=st.booleans(),
    filtered=st.booleans(),
    large=st.booleans(),
)
@settings(max_examples=25, **COMMON)
@pytest.mark.slow
def test_fir_bias_act(device, monkeypatch, case, act, clamp, scaled, filtered, large):
    tiles(monkeypatch, large)
    dtype, seed = case["dtype"], case["seed"]
    n, c = case["shape"][:2]
    x = randn(case["shape"], dtype, case["layout"], seed)
    vector_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    b = randn((c,), vector_dtype, "contiguous", seed + 10)
    scale = randn((n, c), vector_dtype, "contiguous", seed + 11)
    options = {"up": case["up"], "down": case["down"], "padding": case["padding"]} if filtered else {}
    # In half precision a value may be rounded onto the bound, where the derivative jumps.
    bound = 1.0 if clamp and dtype in (torch.float32, torch.float64) else None

    def run(t: Tensor, bias: Tensor, s: Tensor | None = None, impl: str = "cuda") -> Tensor:
        f = case["f"].to(t.device) if filtered else None
        return fir_bias_act(t, f, s, bias, act=act, clamp=bound, impl=impl, **options)

    inputs = [x, b, scale] if scaled else [x, b]
    compare(run, lambda *i: run(*i, impl="ref"), inputs, device, seed)


@given(
    shape=st.one_of(
        st.tuples(st.integers(1, 5), st.integers(1, 9)),
        st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9)),
        st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
        st.tuples(st.integers(1, 2), st.integers(1, 3), *[st.integers(1, 3)] * 3),
    ),
    act=st.sampled_from(list(ACTIVATIONS)),
    gain=st.sampled_from([None, 0.5, -2.0]),
    clamp=st.booleans(),
    biased=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
    large=st.booleans(),
    seed=st.integers(0, 999),
)
@settings(max_examples=30, **COMMON)
@pytest.mark.slow
def test_bias_act(device, monkeypatch, shape, act, gain, clamp, biased, dtype, layout, large, seed):
    tiles(monkeypatch, large)
    inputs = [randn(shape, dtype, layout, seed)]
    if biased:
        inputs.append(
            randn(shape[1:2], torch.float64 if dtype == torch.float64 else torch.float32, "", seed + 7)
        )
    bound = 0.8 if clamp and dtype in (torch.float32, torch.float64) else None

    def run(t: Tensor, b: Tensor | None = None, impl: str = "cuda") -> Tensor:
        return bias_act(t, b, act, gain=gain, clamp=bound, impl=impl)

    compare(run, lambda *i: run(*i, impl="ref"), inputs, device, seed)


@pytest.mark.parametrize("act", list(ACTIVATIONS))
def test_gradcheck_bias_act(device, act):
    x = torch.linspace(-2.1, 2.3, 8, dtype=torch.float64, device=device).reshape(2, 2, 2).requires_grad_(True)
    b = torch.tensor([0.3, -0.2], dtype=torch.float64, device=device, requires_grad=True)
    for clamp in (None, 0.77):

        def run(x: Tensor, b: Tensor, clamp: float | None = clamp) -> Tensor:
            return bias_act(x, b, act, clamp=clamp, impl="cuda")

        assert torch.autograd.gradcheck(run, (x, b))
        assert torch.autograd.gradgradcheck(run, (x, b))


@pytest.mark.parametrize(
    ("up", "down", "padding", "taps", "layout"),
    [
        (1, 1, (1, 1, 1, 1), (4, 4), "channels_last"),
        (2, 1, (2, 1, 2, 1), (4,), "contiguous"),
        (1, 2, (2, -1, 0, 3), (3, 2), "cropped"),
        (3, 2, (2, 1, 2, 0), (4,), "channels_last"),
    ],
)
def test_gradcheck_fir(device, up, down, padding, taps, layout):
    x = randn((1, 2, 3, 4), torch.float64, layout, 0).to(device).requires_grad_(True)
    f = randn(taps, torch.float64, "", 1).to(device)
    scale = randn((1, 2), torch.float64, "", 2).to(device).requires_grad_(True)
    b = randn((2,), torch.float64, "", 3).to(device).requires_grad_(True)

    def resampled(x: Tensor) -> Tensor:
        return upfirdn2d(x, f, up, down, padding, impl="cuda")

    def tail(x: Tensor, scale: Tensor, b: Tensor) -> Tensor:
        return fir_bias_act(x, f, scale, b, padding, up=up, down=down, impl="cuda")

    assert torch.autograd.gradcheck(resampled, x)
    assert torch.autograd.gradgradcheck(resampled, x)
    assert torch.autograd.gradcheck(tail, (x, scale, b))
    assert torch.autograd.gradgradcheck(tail, (x, scale, b))


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4), (1, 1, 1, 1)])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_empty_and_one_pixel(device, shape, layout):
    x = randn(shape, torch.float32, layout, 0)
    f = setup_filter()
    b, scale = torch.ones(shape[1]), torch.ones(shape[:2])

    def fir(t: Tensor, impl: str = "cuda") -> Tensor:
        return upfirdn2d(t, f.to(t.device), 2, 1, (2, 2, 2, 2), impl=impl)

    def tail(t: Tensor, s: Tensor, bias: Tensor, impl: str = "cuda") -> Tensor:
        return fir_bias_act(t, f.to(t.device), s, bias, (3, 3, 3, 3), impl=impl)

    compare(fir, lambda t: fir(t, "ref"), [x], device, 0)
    compare(tail, lambda *i: tail(*i, impl="ref"), [x, scale, b], device, 0)
    compare(
        lambda t, v: bias_act(t, v, impl="cuda"), lambda t, v: bias_act(t, v, impl="ref"), [x, b], device, 0
    )


def test_a_filter_too_large_to_unroll(device):
    x = randn((1, 1, 6, 8), torch.float32, "contiguous", 0)
    f = randn((66, 63), torch.float32, "", 1)
    sides = (31, 31, 33, 32)
    launch, *_ = upfirdn2d_module.plan(
        x.dtype, (1, 1, 6, 8), (6, 8), False, 4, (66, 63), 1, 1, 31, 33, False, "linear", False, False, False
    )
    assert dict(launch.kernel.macros)["UNROLL"] == 0

    def run(t: Tensor, impl: str = "cuda") -> Tensor:
        return upfirdn2d(t, f.to(t.device), padding=sides, impl=impl)

    agree(run(x.to(device)), run(x.double(), "ref"), torch.float32, "y")


def test_64_bit_indices(device, monkeypatch):
    """The code for 2^31 elements and more, on a few."""
    plain = bias_act_module.plan

    def wide(*args):
        launch = plain(*args)
        macros = {**dict(launch.kernel.macros), "WIDE": 1}
        return replace(launch, kernel=kernels.Kernel.of("bias_act", macros))

    monkeypatch.setattr(bias_act_module, "plan", wide)
    x, b = randn((2, 3, 5, 8), torch.float32, "contiguous", 0), torch.randn(3)
    agree(
        bias_act(x.to(device), b.to(device), impl="cuda"),
        bias_act(x.double(), b.double()),
        torch.float32,
        "y",
    )


def test_nan_and_infinity_pass_through(device):
    x = torch.tensor([[float("nan"), float("inf"), -float("inf"), 1.0]], device=device)
    for act in ("linear", "relu", "lrelu", "softplus"):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            found = bias_act(x.to(dtype), act=act, gain=1.0, impl="cuda")
            expected = bias_act(x.to(dtype), act=act, gain=1.0, impl="ref")
            torch.testing.assert_close(found, expected, equal_nan=True)


def test_every_half_value_survives(device):
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).reshape(256, 256)
    for dtype in (torch.float16, torch.bfloat16):
        x = bits.view(dtype).to(device)
        torch.testing.assert_close(bias_act(x, act="linear", impl="cuda"), x, rtol=0, atol=0, equal_nan=True)
        wide = torch.randn(1 << 14, generator=torch.Generator().manual_seed(0)).reshape(128, 128) * 1e-6
        x, b = wide.to(dtype).to(device), wide[0].to(device)  # sums round, some to subnormal numbers
        expected = (x.float() + b).to(dtype)
        torch.testing.assert_close(bias_act(x, b, act="linear", impl="cuda"), expected, rtol=0, atol=0)


def test_separable_and_full_filter_are_the_same(device):
    x = randn((1, 3, 9, 8), torch.float32, "contiguous", 0).to(device)
    full, taps = setup_filter(gain=4.0).to(device), setup_separable_filter(gain=4.0).to(device)
    y = [upfirdn2d(x, f, 2, 1, (2, 1, 2, 1), impl="cuda") for f in (full, taps)]
    torch.testing.assert_close(*y, rtol=0, atol=1e-6)


def test_third_derivative(device):
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64, device=device, requires_grad=True)

    def third(act: str) -> Tensor:
        y = bias_act(x, act=act, impl="cuda").square().sum()
        for _ in range(3):
            (g,) = torch.autograd.grad(y, x, create_graph=True)
            y = g.square().sum()
        return g

    assert torch.isfinite(third("lrelu")).all()
    with pytest.raises(NotImplementedError, match="no third derivative for act='tanh'"):
        third("tanh")


OPERATORS = ["bias_act", "bias_act_grad", "bias_act_grad2", "upfirdn2d", "fir_bias_act"]


@pytest.mark.parametrize("layout", ["channels_last", "cropped"])
@pytest.mark.parametrize("name", OPERATORS)
def test_operator_registration(device, name, layout):
    """Schema, fake tensors, autograd and what torch.compile asks, as torch itself checks it."""
    x = randn((2, 4, 5, 8), torch.float32, layout, 0).to(device)
    b = torch.randn(4, device=device, requires_grad=True)
    f = torch.randn(4, device=device)
    scale = torch.randn(2, 4, device=device, requires_grad=True)
    options = ("tanh", 0.2, 1.5, None)
    y, z = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    x.requires_grad_(True)
    arguments = {
        "bias_act": (x, b, *options),
        "bias_act_grad": (x, y, b, *options),
        "bias_act_grad2": (x.detach(), y.detach(), z.detach(), b.detach(), *options),
        "upfirdn2d": (x, f, 2, 1, [2, 1, 2, 1], False, 1.0),
        "fir_bias_act": (x, f, scale, b, [1, 1, 1, 1], 1, 1, "lrelu", 0.2, 1.0, None),
    }
    torch.library.opcheck(getattr(torch.ops.gnr_video, name).default, arguments[name])


def tail_of_everything(x: Tensor, f: Tensor, scale: Tensor, b: Tensor) -> Tensor:
    y = fir_bias_act(x, f, scale, b, (1, 1, 1, 1), impl="cuda")
    return bias_act(upfirdn2d(y, f, 2, 1, (2, 1, 2, 1), impl="cuda"), b, "swish", impl="cuda")


def test_torch_compile_and_export(device):
    x = randn((2, 4, 6, 6), torch.float32, "channels_last", 0).to(device).requires_grad_(True)
    f, scale, b = (torch.randn(s, device=device) for s in ((4,), (2, 4), (4,)))
    eager = tail_of_everything(x, f, scale, b)
    (expected,) = torch.autograd.grad(eager.square().sum(), x)
    compiled = torch.compile(tail_of_everything, backend="aot_eager", fullgraph=True)
    y = compiled(x, f, scale, b)
    torch.testing.assert_close(y, eager)
    torch.testing.assert_close(torch.autograd.grad(y.square().sum(), x)[0], expected)

    class Tail(torch.nn.Module):
        def forward(self, *inputs: Tensor) -> Tensor:
            return tail_of_everything(*inputs)

    program = torch.export.export(Tail(), (x.detach(), f, scale, b))
    names = [str(node.target) for node in program.graph.nodes]
    assert sum(name.startswith("gnr_video.") for name in names) == 3
    torch.testing.assert_close(program.module()(x.detach(), f, scale, b), eager.detach())


def test_networks_with_the_kernels(device):
    """A generator and a discriminator, R1 included: the kernels' gradients are the reference's."""
    from engines.architecture import Architecture
    from train.networks import Discriminator, Generator

    torch.manual_seed(0)
    channels = {4: 8, 8: 8, 16: 8, 32: 4}
    architecture = Architecture(size=32, num_down=2, n_res=1, channels=channels, style_dim=8, n_mlp=2)
    nets = torch.nn.ModuleList(
        [Generator(architecture), Discriminator(32, channels, local_downs=2, global_downs=3)]
    ).to(device)
    x = torch.randn(2, 3, 32, 32).to(device)

    def gradients() -> list[Tensor]:
        generator, discriminator = nets
        picture, _, _ = generator(x)
        loss = sum(part.mean() for part in discriminator(picture))
        (g,) = torch.autograd.grad(loss, picture, create_graph=True)
        loss = loss + g.square().sum()
        return [picture, *torch.autograd.grad(loss, list(nets.parameters()), allow_unused=True)]

    found = gradients()
    patch = pytest.MonkeyPatch()
    patch.delitem(kernels.runtimes, device.type)
    expected = gradients()
    patch.undo()
    assert sum(g is not None for g in expected) > 30
    for a, b in zip(found, expected, strict=True):
        if b is not None:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.cuda
def test_cuda_graph():
    """One capture, replayed on new input."""
    x, f = torch.randn(2, 64, 65, 65, device="cuda"), setup_separable_filter().cuda()
    scale, b = torch.rand(2, 64, device="cuda"), torch.randn(64, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        fir_bias_act(x, f, scale, b, (1, 1, 1, 1), impl="cuda")  # compiles and loads
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = fir_bias_act(x, f, scale, b, (1, 1, 1, 1), impl="cuda")
    x.copy_(torch.randn_like(x))
    graph.replay()
    torch.testing.assert_close(y, fir_bias_act(x, f, scale, b, (1, 1, 1, 1), impl="ref"))
    assert not kernels.fallback


def wrong_calls() -> list[tuple[str, dict]]:
    x, f = torch.zeros(1, 3, 4, 4), torch.ones(4, 4)
    return [
        ("must be floating point, got torch.int64", {"call": upfirdn2d, "x": x.long(), "f": f}),
        (r"x must be \(N, C, H, W\), got shape \(3, 4\)", {"call": upfirdn2d, "x": x[0, :, 0], "f": f}),
        ("does not fit into 4 x 4 pixels", {"call": upfirdn2d, "x": x, "f": torch.ones(9, 9)}),
        ("up and down must be at least 1, got 0 and 1", {"call": upfirdn2d, "x": x, "f": f, "up": 0}),
        ("padding must be", {"call": upfirdn2d, "x": x, "f": f, "padding": (1, 2)}),
        ("f is on meta, x on cpu", {"call": upfirdn2d, "x": x, "f": f.to("meta")}),
        ("f must be a floating", {"call": upfirdn2d, "x": x, "f": torch.ones(2, 2, 2)}),
        ("impl must be 'cuda' or 'ref', got 'opencl'", {"call": bias_act, "x": x, "impl": "opencl"}),
        ("b must be of shape", {"call": bias_act, "x": x, "b": torch.zeros(4)}),
        ("b must be floating point", {"call": bias_act, "x": x, "b": torch.zeros(3).long()}),
        ("b is on meta, x on cpu", {"call": bias_act, "x": x, "b": torch.zeros(3, device="meta")}),
        ("act must be one of linear, relu", {"call": bias_act, "x": x, "act": "gelu"}),
        ("clamp must not be negative", {"call": bias_act, "x": x, "clamp": -1.0}),
        (r"x must be \(N, C, ...\)", {"call": bias_act, "x": torch.zeros(3)}),
        (
            r"scale must be of shape \(1, 3\), got \(3,\)",
            {"call": fir_bias_act, "x": x, "scale": torch.ones(3)},
        ),
        ("without a filter", {"call": fir_bias_act, "x": x, "padding": (1, 1, 1, 1)}),
        ("needs a CUDA tensor, got one on meta", {"call": bias_act, "x": x.to("meta"), "impl": "cuda"}),
        ("impl='cuda' takes", {"call": bias_act, "x": x.to(torch.float8_e4m3fn), "impl": "cuda"}),
    ]


@pytest.mark.parametrize(
    ("message", "arguments"), wrong_calls(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_wrong_arguments_give_one_clear_error(device, message, arguments):
    arguments = dict(arguments)
    call = arguments.pop("call")
    with pytest.raises(ValueError, match=message) as caught:
        call(**arguments)
    assert "\n" not in str(caught.value)
