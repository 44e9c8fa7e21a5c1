"""Milliseconds per frame of the network alone (uint8 crop in, uint8 crop out), against the official eager path.

All executions of a network take turns in the same run, so that whatever else the machine does hits all of
them alike; figures are medians over the rounds and ratios to the official path's median. On a machine that
is busy with other things, `--threads 1` and the CPU time (of all cores together) are the ones to look at.

    python -m benchmarks.network [--rounds 20] [--threads N] [--weights FILE] [--json FILE]
"""

from __future__ import annotations

import engines  # before torch, for how its OpenMP threads wait

# isort: split

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engines.architecture import OFFICIAL_CHANNELS, Architecture
from engines.baseline import OfficialGenerator, normalise, quantise
from engines.errors import EngineError, GnrVideoError
from engines.graph import ContentEncoder, Decoder
from engines.weights import Weights, inference_tensors, load_weights
from gnr_video.report import hardware, versions
from gnr_video.weights import resolve_weights

BASELINE = "official eager fp32"
EXECUTIONS = (("torch", "fp32"), ("torch", "bf16"), ("openvino", "fp32"), ("openvino", "bf16"))
BAR = 5.0
"""Least speed-up over the official path that the best bf16 execution of the official size must reach."""
PSNR_BAR = 40.0
COLUMNS = ("p50 ms", "p95 ms", "min ms", "CPU ms", "faster", "PSNR dB", "setup s")


def random_weights(architecture: Architecture, seed: int = 0) -> Weights:
    """Weights as training starts from them: N(0, 1), modulation biases 1, other biases 0."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in inference_tensors(architecture, style_encoder=False).items():
        if name.endswith("bias"):
            tensors[name] = torch.full(shape, float(name.endswith("modulation.bias")))
        else:
            scale = 100.0 if name.startswith("mapping") else 1.0
            tensors[name] = scale * torch.randn(shape, generator=generator)
    return Weights(architecture, tensors, {"name": "random"})


def half_width() -> Architecture:
    return Architecture(channels={r: c // 2 for r, c in OFFICIAL_CHANNELS.items() if r <= 256})


def gflop(weights: Weights) -> float:
    """Multiplications and additions of one frame's convolutions (folded, transposed form), in 10^9."""
    total = 0

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
        positions = inputs[0] if isinstance(module, torch.nn.ConvTranspose2d) else output
        taps = module.weight.numel() // (module.weight.shape[0] if module.transposed else 1)
        channels = inputs[0].shape[1] if module.transposed else 1
        total += 2 * taps * channels * positions.shape[2] * positions.shape[3]

    a = weights.architecture
    encoder, decoder = ContentEncoder(weights), Decoder(weights)
    for module in [*encoder.modules(), *decoder.modules()]:
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.register_forward_hook(count)
    with torch.inference_mode():
        vectors = torch.ones(1, sum(decoder.widths))
        decoder(encoder(torch.zeros((1, a.size, a.size, 3), dtype=torch.uint8)), vectors)
    return total / 1e9


def demo_crop(size: int) -> NDArray[np.uint8]:
    """The face of scikit-image's astronaut, uint8 (1, size, size, 3); without scikit-image, noise."""
    try:
        from skimage.data import astronaut
    except ImportError:
        return np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    import cv2

    face = np.ascontiguousarray(astronaut()[20:236, 116:332])
    resized = cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, dtype=np.uint8)[None]


def psnr(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    error = float(np.mean((found.astype(np.float64) - expected) ** 2))
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


def measure(weights: Weights, rounds: int, threads: int | None) -> dict[str, Any]:
    """Times and precision of all executions of one network, taken in turns."""
    a = weights.architecture
    crop = demo_crop(a.size)
    z = torch.randn((1, a.latent_dim), generator=torch.Generator().manual_seed(42))
    official = OfficialGenerator(weights)

    def official_path() -> NDArray[np.uint8]:
        with torch.inference_mode():
            content = official.encode(normalise(torch.from_numpy(crop)))
            return quantise(official.decode(content, official.mapping(z))).numpy()

    runs: dict[str, Callable[[], NDArray[np.uint8]]] = {BASELINE: official_path}
    setup: dict[str, float] = {}
    passed_over: dict[str, str] = {}
    for name, precision in EXECUTIONS:
        label = f"{name} {precision}"
        if precision == "bf16" and not engines.native_bf16():
            passed_over[label] = "this CPU emulates bf16"
            continue
        try:
            started = time.perf_counter()
            engine = engines.create(weights, engine=name, precision=precision, device="cpu", threads=threads)
            engine.set_style(z[0].numpy())
            engine.warm_up()
            setup[label] = time.perf_counter() - started
        except EngineError as error:
            passed_over[label] = str(error)
            continue
        runs[label] = lambda engine=engine: engine.translate(crop)  # type: ignore[misc]

    expected = official_path()
    precision_db = {label: psnr(run(), expected) for label, run in runs.items()}
    times: dict[str, list[float]] = {label: [] for label in runs}
    cpu_times: dict[str, list[float]] = {label: [] for label in runs}
    for _ in range(rounds):
        for label, run in runs.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            run()
            times[label].append(1e3 * (time.perf_counter() - started))
            cpu_times[label].append(1e3 * (time.process_time() - cpu_started))
    base = float(np.median(times[BASELINE]))
    return {
        "architecture": a.describe(),
        "parameters": weights.parameters,
        "gflop": round(gflop(weights), 2),
        "executions": {
            label: {
                "p50_ms": round(float(np.percentile(values, 50)), 2),
                "p95_ms": round(float(np.percentile(values, 95)), 2),
                "min_ms": round(min(values), 2),
                "cpu_ms": round(float(np.median(cpu_times[label])), 2),
                "times_faster": round(base / float(np.median(values)), 2),
                "psnr_db": round(precision_db[label], 1),
                "setup_s": round(setup.get(label, 0.0), 2),
            }
            for label, values in times.items()
        },
        "passed_over": passed_over,
    }


def table(name: str, result: dict[str, Any]) -> str:
    lines = [
        f"{name}: {result['architecture']}, {result['parameters'] / 1e6:.1f} M parameters, "
        f"{result['gflop']:.1f} GFLOP",
        f"  {'execution':<20}" + "".join(f"{title:>9}" for title in COLUMNS),
    ]
    for label, row in result["executions"].items():
        lines.append(
            f"  {label:<20}{row['p50_ms']:>9.1f}{row['p95_ms']:>9.1f}{row['min_ms']:>9.1f}{row['cpu_ms']:>9.1f}"
            f"{row['times_faster']:>8.1f}x{row['psnr_db']:>9.1f}{row['setup_s']:>9.1f}"
        )
    lines += [f"  {label}: {reason}" for label, reason in result["passed_over"].items()]
    return "\n".join(lines)


def bars(results: dict[str, Any]) -> list[tuple[str, bool]]:
    """What must hold, and whether it does."""
    rows = results["official size"]["executions"]
    best = max((row["times_faster"] for label, row in rows.items() if "bf16" in label), default=0.0)
    worst = min(
        (
            row["psnr_db"]
            for result in results.values()
            for label, row in result["executions"].items()
            if "bf16" in label
        ),
        default=0.0,
    )
    return [
        (f"official size, bf16: {best:.1f} times the official path's speed (bar {BAR:g})", best >= BAR),
        (f"bf16 against fp32: at least {worst:.1f} dB (bar {PSNR_BAR:g})", worst >= PSNR_BAR),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, help="CPU threads of every execution (default: all cores)")
    parser.add_argument("--weights", help="a weights file to measure too (default: the package's own)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    networks = {"official size": random_weights(Architecture()), "half width": random_weights(half_width())}
    try:
        path = resolve_weights(options.weights)
        networks[path.name] = load_weights(path)
    except GnrVideoError as error:
        if options.weights:
            raise
        print(f"no default weights to measure: {error}")
    results = {}
    for name in list(networks):
        results[name] = measure(networks.pop(name), options.rounds, options.threads)
        print(table(name, results[name]), flush=True)
    for line, holds in bars(results):
        print(f"{'ok  ' if holds else 'FAIL'} {line}")
    if options.json:
        report = {
            "hardware": hardware(),
            "versions": versions(),
            "rounds": options.rounds,
            "networks": results,
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
