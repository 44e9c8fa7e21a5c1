"""The CUDA kernels against memory bandwidth, plain torch and torch.compile: `python -m benchmarks.ops`.

Bandwidth is what the operation must read and write at least, over its time, as a fraction of what a copy on the
same device moves in its own time. Each figure is the median of CUDA events around replayed CUDA graphs, so launch
costs of Python count for nobody. Needs a CUDA GPU; without one it says so and ends with code 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engines.errors import exit_with
from train.ops import kernels
from train.ops.bias_act import bias_act
from train.ops.fir_bias_act import fir_bias_act
from train.ops.upfirdn2d import setup_filter, setup_separable_filter, upfirdn2d

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
REPEATS, INNER = 25, 10


def median_ms(run: Callable[[], Any]) -> float:
    """Milliseconds of one call, without its launch from Python."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()  # compiles, loads, fills the allocator
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(INNER):
            run()
    graph.replay()
    times = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / INNER)
    return statistics.median(times)


def cases(batch: int, dtype: torch.dtype, layout: torch.memory_format) -> list[tuple[str, int, Callable]]:
    """(name, bytes that must move, operation taking impl=) on feature maps of 64 x 256 x 256."""

    def maps(side: int) -> Tensor:
        return torch.randn(batch, 64, side, side, device="cuda", dtype=dtype).to(memory_format=layout)

    b, scale = torch.randn(64, device="cuda"), torch.rand(batch, 64, device="cuda") + 0.5
    taps, full = setup_separable_filter().cuda(), setup_filter().cuda()
    x, odd, half = maps(256), maps(257), maps(128)
    dy = torch.randn_like(x)
    leaf, vector = odd.clone().requires_grad_(True), b.clone().requires_grad_(True)

    def tail(x: Tensor, b: Tensor, impl: str) -> Tensor:
        return fir_bias_act(x, taps, scale, b, (1, 1, 1, 1), gain=1.0, impl=impl)

    def backward(impl: str) -> tuple[Tensor, ...]:
        return torch.autograd.grad(tail(leaf, vector, impl), (leaf, vector), dy)

    def size(*tensors: Tensor) -> int:
        return sum(t.numel() * t.element_size() for t in tensors)

    return [
        ("bias_act, lrelu", size(x, x), lambda impl: bias_act(x, b, impl=impl)),
        ("bias_act, swish", size(x, x), lambda impl: bias_act(x, b, "swish", impl=impl)),
        (
            "blur 4x4, 257 to 256",
            size(odd, x),
            lambda impl: upfirdn2d(odd, full, padding=(1,) * 4, impl=impl),
        ),
        (
            "blur 4+4, 257 to 256",
            size(odd, x),
            lambda impl: upfirdn2d(odd, taps, padding=(1,) * 4, impl=impl),
        ),
        (
            "up 2, 128 to 256",
            size(half, x),
            lambda impl: upfirdn2d(half, taps, 2, 1, (2, 1, 2, 1), impl=impl),
        ),
        ("down 2, 256 to 128", size(x, half), lambda impl: upfirdn2d(x, taps, 1, 2, (1,) * 4, impl=impl)),
        ("fused tail, 257 to 256", size(odd, x), lambda impl: tail(odd, b, impl)),
        # Forward, then dy and y in, the activation's gradient out and in again twice, dx out.
        ("fused tail, forward + backward", size(odd, x, x, x, x, x, x, odd), backward),
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="pictures (default 8: 128 MiB in float32)")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="repeatable (default: all)")
    parser.add_argument("--json", type=Path, help="write the figures and the hardware here")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print(
            "benchmarks.ops measures CUDA kernels and this machine has no usable CUDA GPU "
            f"(torch {torch.__version__}): nothing was measured.",
            file=sys.stderr,
        )
        return 1
    logging.basicConfig(level=logging.WARNING)
    gpu = torch.cuda.get_device_properties(0)
    print(f"{gpu.name}, torch {torch.__version__}, batch {options.batch} x 64 x 256 x 256\n")
    rows: list[dict[str, Any]] = []
    for name in options.dtype or DTYPES:
        dtype = DTYPES[name]
        for layout in (torch.contiguous_format, torch.channels_last):
            source = torch.randn(options.batch, 64, 256, 256, device="cuda", dtype=dtype)
            target = torch.empty_like(source)
            copy_ms = median_ms(partial(target.copy_, source))
            copied = 2 * source.numel() * source.element_size() / copy_ms
            last = "channels_last" if layout == torch.channels_last else "contiguous"
            print(f"{name} {last}: a device copy moves {copied / 1e6:.0f} GB/s")
            print(f"  {'':32}{'ms':>8}{'of copy':>9}{'plain torch':>13}{'torch.compile':>15}")
            for case, size, run in cases(options.batch, dtype, layout):
                torch._dynamo.reset()
                compiled = torch.compile(partial(run, "ref"))
                ms, plain = median_ms(partial(run, "cuda")), median_ms(partial(run, "ref"))
                inductor = None if "backward" in case else median_ms(compiled)
                shown = "-" if inductor is None else f"{inductor / ms:.2f}x"
                print(f"  {case:32}{ms:8.3f}{size / ms / copied:9.0%}{plain / ms:12.2f}x{shown:>15}")
                rows.append(
                    {"case": case, "dtype": name, "layout": last, "ms": ms, "bytes": size}
                    | {"copy_bytes_per_ms": copied, "plain_torch_ms": plain, "torch_compile_ms": inductor}
                )
    if kernels.fallback:
        print(f"not measured: {kernels.fallback}", file=sys.stderr)
        return 1
    if options.json:
        hardware = {"gpu": gpu.name, "capability": f"{gpu.major}.{gpu.minor}", "torch": torch.__version__}
        versions = {"nvrtc": kernels.compiler_version(), "cuda": torch.version.cuda}
        options.json.write_text(json.dumps(hardware | versions | {"rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    exit_with(main)
