"""TensorRT engines ahead of their use: built for GPUs that are not here, found in the cache, imported."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

import torch

from engines.cache import EngineCache
from engines.errors import EngineError
from engines.tensorrt_build import (
    Progress,
    import_tensorrt,
)
from engines.tensorrt_engine import PARTS, build_part, check_gpu, create_tensorrt, device_of, engine_key
from engines.tensorrt_plan import Plan
from engines.weights import Weights


def build_ahead(
    weights: Weights,
    precision: str,
    targets: Sequence[str],
    *,
    sides: Sequence[int] = (),
    batch: int = 1,
    cache: EngineCache | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Compile TensorRT for RTX engines into the cache for GPUs that need not be there.

    They are not compared with golden frames: that happens on the GPU, when they are first used.

    Args:
        targets: of `engines.tensorrt_build.RTX_TARGETS`.
        sides: of the crops, pixels; none: the weights' size.

    Returns:
        The engines' files, encoder and decoder for each side for each target.
    """
    name = "tensorrt-rtx"
    trt, cache = import_tensorrt(name), cache or EngineCache()
    paths = []
    for sm, side, part in product(targets, sides or [weights.architecture.size], PARTS):
        version = trt.__version__
        key = engine_key(weights, part, precision, name=name, version=version, sm=sm, batch=batch, side=side)
        build = partial(
            build_part,
            trt,
            weights,
            part,
            precision,
            side=side,
            batch=batch,
            targets=[sm],
            progress=progress,
        )
        cache.get(key, build, len)
        paths.append(cache.path(key))
    return paths


def is_cached(
    weights: Weights, *, name: str, device: str, precision: str, side: int | None = None, batch: int = 1
) -> bool:
    """Whether `create_tensorrt` will not have to build.

    Raises:
        EngineError: it will not run here at all.
    """
    trt, cache = import_tensorrt(name), EngineCache()
    sm, gpu = device_of(device)
    check_gpu(trt, name, sm, gpu)
    version = trt.__version__
    keys = (
        engine_key(
            weights, part, precision, name=name, version=version, sm=sm, gpu=gpu, batch=batch, side=side
        )
        for part in PARTS
    )
    return all(cache.has(key) for key in keys)


def import_engines(
    files: Sequence[Path], weights: Weights, precision: str, *, device: str, cache: EngineCache | None = None
) -> list[Path]:
    """Put engines that torch2trt saved (encoder, decoder) into the cache, for this GPU and these weights.

    They are for crops of the side that they were made for. They are tried at once: deserialised, and compared with
    golden frames.

    Returns:
        Their places in the cache, from where the engine `torch2trt` takes them.

    Raises:
        EngineError: not such files, or not for this GPU, TensorRT or weights.
    """
    from engines.torch2trt_engine import NAMES, read_module

    name = "torch2trt"
    modules = [read_module(file) for file in files]
    for part, file, module in zip(PARTS, files, modules, strict=True):
        if (set(module.input_names), set(module.output_names)) != tuple(map(set, NAMES[part])):
            raise EngineError(
                f"{file} is no {part}: it takes {', '.join(module.input_names)} "
                f"and gives {', '.join(module.output_names)}",
                f"expected {', '.join(NAMES[part][0])} and {', '.join(NAMES[part][1])}",
            )
    trt, cache = import_tensorrt(name), cache or EngineCache()
    sm, gpu = device_of(device)
    with torch.cuda.device(device):
        side, other = (Plan(trt, module.engine).side for module in modules)
    if side != other or not weights.architecture.fits(side):
        raise EngineError(
            f"the encoder is for crops of {side}x{side}, the decoder of {other}x{other}",
            f"make both for the same, such as {weights.architecture.size}x{weights.architecture.size}",
        )
    paths = []
    for part, module in zip(PARTS, modules, strict=True):
        version = trt.__version__
        key = engine_key(weights, part, precision, name=name, version=version, sm=sm, gpu=gpu, side=side)
        with cache.locked(key):
            cache.write(key, module.engine)
        paths.append(cache.path(key))
    engine = create_tensorrt(weights, name=name, device=device, precision=precision, side=side, cache=cache)
    engine.close()
    if engine.precision != precision:
        raise EngineError(f"these engines do not give the weights' pictures: {engine.fallback}")
    return paths
