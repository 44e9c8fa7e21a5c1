"""Time and memory of a GNR training step, part by part, against the official step re-expressed plainly.

Both run the official losses on the same batch with the same network. The plain one is what the official code
does: float32, NCHW, grouped modulated convolutions, blurs by padding and single-channel convolution, gains as
passes of their own, LPIPS as separate operations. Each measurement is a process of its own, in turns.

    python -m benchmarks.train_step            the official size, batch 4 (on two cores: hours, most of them plain)
    python -m benchmarks.train_step --size 64 --steps 1 --rounds 1    a quicker look (on two cores: four minutes)

The last lines judge the bars: speed-up of the whole step, LPIPS included, and on a GPU the memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from pathlib import Path
from statistics import median
from typing import Any

from engines.errors import exit_with

KINDS = ("plain", "ours")
BARS = {"cpu": 1.5, "cuda": 3.0}
MEMORY_BAR_GB = 12.0
"""For the official size and batch 4 on a GPU."""


def plain_layers() -> list[tuple[type, str, Callable[..., Any]]]:
    """(class, method, function) of the official order of operations, to be set on the classes."""
    import torch
    import torch.nn.functional as F

    from benchmarks.official import upfirdn2d
    from train import lpips, networks

    def activate(self: Any, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(x + self.bias[:, None, None], 0.2) * sqrt(2)

    def blur(self: Any, x: torch.Tensor) -> torch.Tensor:
        return upfirdn2d(x, self.kernel, pad=(self.pad[0], self.pad[1]))

    def conv_layer(self: Any, x: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        return torch.nn.Sequential.forward(self, x)

    def res_block(self: Any, x: torch.Tensor) -> torch.Tensor:
        return (self.conv2(self.conv1(x)) + self.skip(x)) / sqrt(2)

    def modulated(self: Any, x: torch.Tensor, w: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        n, c, h, side = x.shape
        style = self.modulation(w).view(n, 1, c, 1, 1)
        weight = self.scale * self.weight * style
        if self.demodulate:
            weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        out = weight.shape[1]
        x = x.reshape(1, n * c, h, side)
        if self.up:
            weight = weight.transpose(1, 2).reshape(n * c, out, self.kernel, self.kernel)
            y = F.conv_transpose2d(x, weight, stride=2, groups=n)
        else:
            y = F.conv2d(x, weight.flatten(0, 1), padding=self.kernel // 2, groups=n)
        return self.blur(y.view(n, out, *y.shape[2:]))

    def styled(self: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return self.activate(self.conv(x, w))

    def upsample(self: Any, x: torch.Tensor) -> torch.Tensor:
        return upfirdn2d(x, self.kernel, up=2, pad=(2, 1))

    def distance(self: Any, a: Any, b: Any) -> torch.Tensor:
        total = torch.zeros(())
        for level, (one, two) in enumerate(zip(a, b)):
            u = one / (one.square().sum(1, keepdim=True).sqrt() + 1e-10)
            v = two / (two.square().sum(1, keepdim=True).sqrt() + 1e-10)
            head = self.get_buffer(f"head{level}")[None, :, None, None]
            total = total.to(u.device) + F.conv2d((u - v).square(), head).mean((1, 2, 3))
        return total

    return [
        (networks.FusedLeakyReLU, "forward", activate),
        (networks.Blur, "forward", blur),
        (networks.ConvLayer, "forward", conv_layer),
        (networks.ResBlock, "forward", res_block),
        (networks.ModulatedConv2d, "forward", modulated),
        (networks.StyledConv, "forward", styled),
        (networks.Upsample, "forward", upsample),
        (lpips.Lpips, "distance", distance),
    ]


def verdicts(report: dict[str, Any]) -> list[str]:
    """A line for each bar: met, missed, or why this run cannot tell."""
    kind = report["device"].split(":")[0]
    official = report["size"] == 256 and report["batch"] == 4

    def line(name: str, found: str, met: bool, unless: str) -> str:
        answer = f"cannot be judged: {unless}" if unless else "met" if met else "missed"
        return f"bar {name}: {found}, {answer}"

    no_lpips = "" if report["lpips"] else "LPIPS was left out, give --lpips-trunk"
    speedup = report["speedup"]
    bar = BARS[kind]
    lines = [line(f"{bar:g}x on {kind}", f"{speedup:.2f}x", speedup >= bar, no_lpips)]
    peak = report["peak_gb"]["ours"]
    unless = "" if kind == "cuda" else "it is about a GPU's memory"
    unless = unless or ("" if official else "it is about the official size, 256, and batch 4") or no_lpips
    lines.append(line(f"{MEMORY_BAR_GB:g} GB", f"{peak:.1f} GB", peak <= MEMORY_BAR_GB, unless))
    return lines


def measure(
    kind: str, size: int, batch: int, steps: int, device: str, trunk: Path | None, compiled: bool = False
) -> dict[str, Any]:
    """One process's figures: seconds per step (median), of every part (mean), and the peak memory in GB."""
    import tempfile

    import torch

    from train.data import Domains, ImagePool
    from train.recipes import Stage, get_recipe
    from train.two_sided import TwoSidedTrainer

    recipe = get_recipe("official")
    recipe = replace(
        recipe,
        architecture=recipe.architecture_at(size) if size < 256 else recipe.architecture,
        stages=(Stage(size, 1_000, batch),),
        local_size=max(size // 8, 8),
        global_size=max(size // 32, 4),
        compile=compiled and kind == "ours",
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 3, size, size), dtype=torch.uint8, generator=generator)
    pool = ImagePool(images)
    if kind == "plain":
        for owner, name, function in plain_layers():
            setattr(owner, name, function)
    with tempfile.TemporaryDirectory() as out:
        trainer = TwoSidedTrainer(
            Domains(pool, pool, pool, pool),
            recipe,
            Path(out),
            device=device,
            lpips_trunk=trunk,
            bf16=False if kind == "plain" else None,
        )
        if kind == "plain":
            trainer.memory_format = torch.contiguous_format
        parts: dict[str, float] = {}
        last = 0.0

        def done(part: str) -> None:
            nonlocal last
            if device == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            parts[part] = parts.get(part, 0.0) + now - last
            last = now

        last = time.perf_counter()
        trainer.on_part = done
        trainer.train_step()  # warms up, and so does the next
        trainer.step = recipe.r1_every
        parts.clear()
        last = time.perf_counter()
        trainer.train_step()  # holds the R1 penalty of sixteen steps
        r1 = parts.get("R1", 0.0)
        parts.clear()
        times = []
        for _ in range(steps):
            last = started = time.perf_counter()
            trainer.train_step()
            times.append(time.perf_counter() - started)
    parts = {name: seconds / steps for name, seconds in parts.items()}
    parts["R1 / 16"] = r1 / 16
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e9
    elif sys.platform == "win32":
        peak = float("nan")
    else:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {
        "seconds": median(times) + r1 / 16,
        "parts": parts,
        "peak_gb": peak,
        "lpips": trainer.lpips is not None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256, choices=(64, 128, 256))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3, help="timed steps per process")
    parser.add_argument("--rounds", type=int, default=2, help="processes per kind, in turns")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--lpips-trunk", type=Path, help="VGG16 weights; without them LPIPS is left out")
    parser.add_argument("--compile", action="store_true", help="our step with the recipe's compile=true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    from engines.devices import best_device

    device = best_device() if options.device == "auto" else options.device
    arguments = (options.size, options.batch, options.steps, device, options.lpips_trunk, options.compile)
    if options.one:
        print(json.dumps(measure(options.one, *arguments)))
        return
    from gnr_video.machine import hardware, versions

    results: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for _ in range(options.rounds):
        for kind in KINDS:
            command = [sys.executable, "-m", "benchmarks.train_step", "--one", kind, "--device", device]
            command += ["--size", str(options.size), "--batch", str(options.batch)]
            command += ["--steps", str(options.steps)]
            if options.compile:
                command.append("--compile")
            if options.lpips_trunk:
                command += ["--lpips-trunk", str(options.lpips_trunk)]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            results[kind].append(json.loads(run.stdout.splitlines()[-1]))
    seconds = {kind: median(r["seconds"] for r in results[kind]) for kind in KINDS}
    peaks = {kind: max(r["peak_gb"] for r in results[kind]) for kind in KINDS}
    speedup = seconds["plain"] / seconds["ours"]
    report = {
        "hardware": hardware(),
        "versions": versions(),
        "device": device,
        "size": options.size,
        "batch": options.batch,
        "compile": options.compile,
        "lpips": results["ours"][0]["lpips"],
        "seconds": seconds,
        "peak_gb": peaks,
        "speedup": speedup,
        "parts": {
            kind: {
                part: median(r["parts"].get(part, 0.0) for r in results[kind])
                for part in results[kind][0]["parts"]
            }
            for kind in KINDS
        },
    }
    machine = report["hardware"]
    print(f"{', '.join(machine['gpu']) or machine['cpu']}, {machine['cores_usable']} cores, on {device}")
    print(f"official widths at {options.size} px, batch {options.batch}")
    print(f"{'part':<24}{'plain':>10}{'ours':>10}{'faster':>9}")
    for part, plain in report["parts"]["plain"].items():
        ours = report["parts"]["ours"].get(part, 0.0)
        print(f"{part:<24}{plain:9.3f}s{ours:9.3f}s{plain / max(ours, 1e-9):8.1f}x")
    print(f"{'whole step':<24}{seconds['plain']:9.3f}s{seconds['ours']:9.3f}s{speedup:8.1f}x")
    print(f"{'peak memory':<24}{peaks['plain']:8.1f}GB{peaks['ours']:8.1f}GB")
    report["bars"] = verdicts(report)
    print("\n".join(report["bars"]))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    exit_with(main)
