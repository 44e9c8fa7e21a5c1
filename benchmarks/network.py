"""The network alone (uint8 crop in, uint8 crop out): latency, throughput, accuracy, and how near to the ceiling.

The part of `benchmarks.fps` without video. All executions of a network take turns in the same run, so that
whatever else the machine does hits all of them alike; ratios are to the median of the official eager path on the same
device. On a machine that is busy with other things the CPU time (of all cores together) is the one to look at.
"""

from __future__ import annotations

import engines  # before torch, for how its OpenMP threads wait

# isort: split

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.official import OfficialGenerator, normalise, quantise
from engines.accuracy import psnr
from engines.architecture import OFFICIAL_CHANNELS, Architecture
from engines.devices import native_bf16
from engines.errors import EngineError
from engines.graph import ContentEncoder, Decoder
from engines.weights import Weights, inference_tensors
from gnr_video.samples.calibration import sample_crops, sample_faces

if TYPE_CHECKING:
    from engines.base import Engine

BASELINE = "official eager fp32"
TF32 = "fp32 on a GPU: convolutions may use TF32, torch's and TensorRT's default, in the official path too"
COLUMNS = (
    "p50 ms",
    "p95",
    "p99",
    "CPU ms",
    "fps",
    "fps b4",
    "faster",
    "ceiling",
    "PSNR",
    "create s",
    "style s",
)
PSNR_BARS = {"fp32": 55.0, "fp16": 40.0, "bf16": 40.0, "int8": 32.0}
"""Least PSNR in dB between the pictures of two executions, by the less exact one's precision."""
CEILING_SHAPES = ((512, 16), (512, 32), (256, 64), (128, 128))
"""Channels and side of the 3x3 convolutions that the ceiling is measured with: the official network's."""
# The crops up to this one are for the calibration; those after it are compared.
_SAMPLES = 40

Picture = NDArray[np.uint8]


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


def baseline_of(label: str) -> str:
    """The official path on the device of an execution."""
    return f"{BASELINE} cuda" if label.endswith(" cuda") else BASELINE


def official_path(
    weights: Weights, device: str, crop: Picture, z: NDArray[np.float32]
) -> Callable[[], Picture]:
    """The official eager path of one picture, bytes in memory to bytes in memory."""
    official = OfficialGenerator(weights, device)

    def run() -> Picture:
        # On a GPU with the kernels that cuDNN finds the fastest: it is compared with engines that have those too.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=True):
            content = official.encode(normalise(torch.from_numpy(crop).to(device)))
            w = official.mapping(torch.from_numpy(z).to(device))
            return quantise(official.decode(content, w)).cpu().numpy()

    return run


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


def convolution_ceiling(device: str, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """The most that torch's 3x3 convolutions reach here, in 10^9 operations a second: best shape, best run."""
    best = 0.0
    for channels, side in CEILING_SHAPES:
        with torch.inference_mode():
            conv = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            conv = conv.to(device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            x = torch.randn(1, channels, side, side).to(device, dtype).to(memory_format=torch.channels_last)
            operations = 2 * 9 * channels**2 * side**2
            end = time.perf_counter() + seconds
            while True:
                started = time.perf_counter()
                for _ in range(4):
                    conv(x)
                if device != "cpu":
                    torch.cuda.synchronize()
                now = time.perf_counter()
                best = max(best, 4 * operations / (now - started) / 1e9)
                if now > end:
                    break
    return best


def candidates(only: list[str] | None = None) -> Iterator[tuple[str, str, str, str]]:
    """(label, engine, precision, device) of all that might run here; `only`: labels that contain one of these."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for name in engines.ENGINES:
        for device in devices:
            for precision in engines.PRECISIONS:
                label = f"{name} {precision}" + ("" if device == "cpu" else f" {device}")
                if not only or any(text in label for text in only):
                    yield label, name, precision, device


def why_not(name: str, precision: str, device: str) -> str:
    """Why this is not tried; empty when it is."""
    if reason := engines.unavailable(name):
        return reason
    if device == "cpu" and precision == "bf16" and not native_bf16():
        return "this CPU emulates bf16"
    return ""


def create(
    weights: Weights, name: str, precision: str, device: str, threads: int | None
) -> tuple[Engine, dict[str, float]]:
    """An engine with style 0, and how long it took: to create, to set a style, the first frame (ms)."""
    started = time.perf_counter()
    engine = engines.create(
        weights, engine=name, precision=precision, device=device, threads=threads, calibration=sample_faces()
    )
    created = time.perf_counter()
    engine.set_style(styles(weights, 1)[0])
    styled = time.perf_counter()
    engine.translate(faces(engine.size, 1))
    first = time.perf_counter()
    engine.warm_up()
    return engine, {
        "create_s": round(created - started, 3),
        "style_s": round(styled - created, 3),
        "first_ms": round(1e3 * (first - styled), 2),
    }


def faces(size: int, count: int) -> Picture:
    """Real faces that int8 is not calibrated on, uint8 (count, size, size, 3)."""
    return np.stack(list(sample_crops(size, _SAMPLES + count)))[_SAMPLES:]


def styles(weights: Weights, count: int) -> NDArray[np.float32]:
    shape = (count, weights.architecture.latent_dim)
    return np.random.default_rng(42).standard_normal(shape).astype(np.float32)


def throughput(run: Callable[[], object], pictures: int, seconds: float) -> float:
    """Pictures a second of calls back to back."""
    started, count = time.perf_counter(), 0
    while True:
        run()
        count += pictures
        passed = time.perf_counter() - started
        if passed >= seconds:
            return count / passed


def measure(
    weights: Weights,
    *,
    rounds: int,
    threads: int | None,
    only: list[str] | None = None,
    seconds: float = 2.0,
    compared: tuple[int, int] = (10, 5),
) -> dict[str, Any]:
    """Times and precision of all executions of one network.

    Args:
        rounds: turns in which every execution runs once, for latency.
        seconds: for which each execution then runs alone, for throughput.
        compared: faces and styles whose pictures all executions are compared on, pairwise.
    """
    if threads:
        torch.set_num_threads(threads)
    a = weights.architecture
    crop, z = faces(a.size, 1), styles(weights, 1)
    work = gflop(weights)
    ceilings = {"bf16": convolution_ceiling("cpu", torch.bfloat16)} if native_bf16() else {}
    ceilings["fp32"] = convolution_ceiling("cpu", torch.float32)
    if torch.cuda.is_available():
        ceilings["fp16 cuda"] = convolution_ceiling("cuda", torch.float16)
    runs: dict[str, Callable[[], Picture]] = {BASELINE: official_path(weights, "cpu", crop, z)}
    if torch.cuda.is_available():
        runs[f"{BASELINE} cuda"] = official_path(weights, "cuda", crop, z)
    expected = runs[BASELINE]()
    rows: dict[str, dict[str, Any]] = {
        label: {"psnr_db": round(psnr(run(), expected), 1)} if label != BASELINE else {}
        for label, run in runs.items()
    }
    made: dict[str, Engine] = {}
    passed_over: dict[str, str] = {}
    pictures: dict[str, Picture] = {}
    with ExitStack() as stack:
        for label, name, precision, device in candidates(only):
            try:
                if reason := why_not(name, precision, device):
                    raise EngineError(reason)
                engine, setup = create(weights, name, precision, device, threads)
            except EngineError as error:
                passed_over[label] = error.message
                continue
            made[label] = stack.enter_context(engine)
            runs[label] = lambda engine=engine: engine.translate(crop)  # type: ignore[misc]
            rows[label] = {**setup, "psnr_db": round(psnr(engine.translate(crop), expected), 1)}
            pictures[label] = _pictures(engine, weights, *compared)
            engine.set_style(z[0])
        times: dict[str, list[float]] = {label: [] for label in runs}
        cpu_times: dict[str, list[float]] = {label: [] for label in runs}
        for run in runs.values():
            run()
        for _ in range(rounds):
            for label, run in runs.items():
                started, cpu_started = time.perf_counter(), time.process_time()
                run()
                times[label].append(1e3 * (time.perf_counter() - started))
                cpu_times[label].append(1e3 * (time.process_time() - cpu_started))
        for label, row in rows.items():
            p50, p95, p99 = np.percentile(times[label], [50, 95, 99])
            row |= {
                "p50_ms": round(float(p50), 3),
                "p95_ms": round(float(p95), 3),
                "p99_ms": round(float(p99), 3),
                "min_ms": round(min(times[label]), 3),
                "cpu_ms": round(float(np.median(cpu_times[label])), 2),
                "times_faster": round(float(np.median(times[baseline_of(label)])) / float(p50), 2),
                "gflops": round(work / float(p50) * 1e3, 1),
                "fps": round(throughput(runs[label], 1, seconds), 2),
            }
            kind = next((k for k in ceilings if label.endswith(k)), None)
            if kind is not None and label != baseline_of(label):
                row["over_ceiling"] = round(float(p50) / 1e3 / (work / ceilings[kind]), 2)
            if label in made:
                four = np.repeat(crop, 4, axis=0)
                engine = made[label]
                row["fps_batch4"] = round(throughput(lambda: engine.translate(four), 4, seconds), 2)  # noqa: B023
    return {
        "architecture": a.describe(),
        "parameters": weights.parameters,
        "gflop": round(work, 2),
        "ceiling_gflops": {kind: round(value, 1) for kind, value in ceilings.items()},
        "executions": rows,
        "pairwise_psnr_db": pairwise(pictures),
        "passed_over": passed_over,
    }


def _pictures(engine: Engine, weights: Weights, count: int, looks: int) -> Picture:
    """Of `count` faces in `looks` styles, each style set as the engine's own: (looks * count, S, S, 3)."""
    crops = faces(engine.size, count)
    found = []
    for style in styles(weights, looks):
        engine.set_style(style)
        found += [engine.translate(crop[None])[0] for crop in crops]
    return np.stack(found)


def pairwise(pictures: dict[str, Picture]) -> dict[str, float]:
    """ "one | other" -> PSNR over all their pictures, dB."""
    return {
        f"{one} | {other}": round(psnr(pictures[one], pictures[other]), 1)
        for one, other in combinations(pictures, 2)
    }


def table(name: str, result: dict[str, Any]) -> str:
    ceilings = ", ".join(f"{kind} {value / 1e3:.2f}" for kind, value in result["ceiling_gflops"].items())
    lines = [
        f"{name}: {result['architecture']}, {result['parameters'] / 1e6:.1f} M parameters, "
        f"{result['gflop']:.1f} GFLOP; convolution ceiling in TFLOP/s: {ceilings}",
        f"  {'execution':<24}" + "".join(f"{title:>9}" for title in COLUMNS),
    ]
    keys = ("p50_ms", "p95_ms", "p99_ms", "cpu_ms", "fps", "fps_batch4", "times_faster", "over_ceiling")
    for label, row in result["executions"].items():
        cells = [row.get(key) for key in (*keys, "psnr_db", "create_s", "style_s")]
        lines.append(f"  {label:<24}" + "".join(f"{'' if c is None else f'{c:.1f}':>9}" for c in cells))
    if any(label.endswith("fp32 cuda") for label in result["executions"]):
        lines.append(f"  {TF32}")
    lines += [f"  {label}: {reason}" for label, reason in result["passed_over"].items()]
    return "\n".join(lines)


def bars(results: dict[str, Any]) -> list[tuple[str, bool]]:
    """What must hold, and whether it does."""
    found: list[tuple[str, bool]] = []
    rows = results.get("official size", {}).get("executions", {})
    for precision, bar in (("bf16", 7.0), ("int8", 10.0)):
        values = [row["times_faster"] for label, row in rows.items() if label.endswith(precision)]
        if values:
            text = f"official size, {precision}: {max(values):.1f} times the official path's speed"
            found.append((f"{text} (bar {bar:g})", max(values) >= bar))
    over = [row["over_ceiling"] for label, row in rows.items() if label.endswith("bf16")]
    if over:
        text = f"official size, bf16: {min(over):.2f} times what the convolutions' ceiling takes (bar 1.25)"
        found.append((text, min(over) <= 1.25))
    gpu = [row["p50_ms"] for label, row in rows.items() if label.endswith("fp16 cuda")]
    if gpu:
        found.append((f"official size, fp16 on the GPU: {min(gpu):.2f} ms (bar 1)", min(gpu) < 1))
    for name, result in results.items():
        for precision in ("fp16", "bf16", "int8"):
            worst = [
                value
                for pair, value in result["pairwise_psnr_db"].items()
                if precision in pair and _bar(pair) == PSNR_BARS[precision]
            ]
            if worst:
                text = f"{name}: {precision} and other engines' pictures at least {min(worst):.1f} dB alike"
                found.append((f"{text} (bar {PSNR_BARS[precision]:g})", min(worst) >= PSNR_BARS[precision]))
    return found


def _bar(pair: str) -> float:
    return min(bar for precision, bar in PSNR_BARS.items() if precision in pair)
