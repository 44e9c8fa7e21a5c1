"""Whether an engine gives torch's pictures: golden frames, compared once after an engine was built."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engines.base import Crops, Fallback, Styles
from engines.errors import BuildCancelled, EngineError

if TYPE_CHECKING:
    from engines.base import Engine
    from engines.weights import Weights

log = logging.getLogger(__name__)

EQUAL = 99.0
"""PSNR of pictures that are the same, dB."""
BAR_DB = 40.0
"""Least PSNR from torch in fp32 that an engine must reach, dB."""

STEPS = {"fp16": "bf16", "bf16": "fp32"}
"""What to build next when a precision is not accurate enough: range first, then everything."""


class InaccurateError(EngineError):
    """An engine does not give torch's pictures."""


def golden_frames(size: int, latent_dim: int) -> tuple[Crops, Styles]:
    """Three pictures, uint8 (3, size, size, 3), and a style code for each, float32 (3, latent_dim).

    A soft one, a hard-edged one and one between, in all brightnesses.
    """
    random = np.random.default_rng(20)
    y, x = np.mgrid[0:size, 0:size] / size
    phases = random.uniform(0, 2 * np.pi, (3, 3, 4))
    pictures = np.stack(
        [
            [
                sum(np.sin(2 * np.pi * (k * x + (3 - k) * y) + phases[n, c, k]) for k in range(4)) / 4
                for c in range(3)
            ]
            for n in range(3)
        ]
    )
    pictures[1] = np.sign(pictures[1])
    pictures[2] = np.clip(3 * pictures[2], -1, 1)
    crops = np.rint(pictures.transpose(0, 2, 3, 1) * 127.5 + 127.5).astype(np.uint8)
    return np.ascontiguousarray(crops), random.standard_normal((3, latent_dim)).astype(np.float32)


def psnr(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of uint8 pictures, dB; `EQUAL` if they are."""
    error = float(np.mean((found.astype(np.float64) - expected) ** 2))
    return EQUAL if error == 0 else float(10 * np.log10(255**2 / error))


def golden_psnr(engine: Engine, weights: Weights, side: int | None = None) -> float:
    """The worst golden frame's PSNR from torch in fp32 on the CPU, dB.

    Values that are not finite become black or saturated on their way to bytes, and so show.

    Args:
        side: of the frames, pixels; None: the weights' size.
    """
    from engines.torch_engine import TorchEngine

    crops, styles = golden_frames(side or engine.size, engine.architecture.latent_dim)
    with TorchEngine(weights, device="cpu", precision="fp32") as reference:
        expected = reference.translate(crops, styles)
    found = engine.translate(crops, styles)
    return min(psnr(f, e) for f, e in zip(found, expected, strict=True))


def make_accurate(
    make: Callable[[str], Engine],
    weights: Weights,
    precision: str,
    *,
    side: int | None = None,
    known: Callable[[str], float | None] = lambda _: None,
    note: Callable[[str, float], None] = lambda *_: None,
    bar: float = BAR_DB,
) -> Engine:
    """Make an engine, checked against golden frames; else fp16 -> bf16 -> fp32.

    Args:
        make: makes the engine in a precision; an EngineError moves on to the next one too.
        side: of the golden frames, see `golden_psnr`.
        known, note: read and keep what the check of a precision gave, so that it is done once.

    Returns:
        The engine, with `fallback` saying which precisions were passed over, and why.

    Raises:
        InaccurateError: not even fp32 passes. EngineError: not even fp32 can be made. BuildCancelled: as it
            says.
    """
    passed_over: list[str] = []
    while True:
        try:
            found = known(precision)
            if found is not None and found < bar:
                raise InaccurateError(f"{found:.1f} dB from torch (at least {bar:g})")
            engine = make(precision)
            if found is None:
                found = golden_psnr(engine, weights, side)
                note(precision, found)
                if found < bar:
                    engine.close()
                    raise InaccurateError(f"{found:.1f} dB from torch (at least {bar:g})")
        except BuildCancelled:
            raise
        except EngineError as error:
            log.info("%s passed over: %s", precision, error)
            if precision not in STEPS:
                raise
            passed_over.append(f"{precision}: {error.message}")
            precision = STEPS[precision]
        else:
            engine.fallback = Fallback().plus(*passed_over, engine.fallback.reason)
            return engine
