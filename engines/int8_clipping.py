"""Ranges of quantizers, clipped where that costs least."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.int8_graph import (
    Runner,
    fake_quantizes,
    range_of,
    set_range,
)

_CLIP_FACES = 6
_CLIPS = 0.5 ** (np.arange(11) / 5)
"""Shares of an activation's range that are tried: from all of it to a quarter."""
_CLIP_VALUES = 1 << 16
"""Values of an activation that a clip is judged by, for each face."""


def clip(model: Any, original: Any, samples: Sequence[tuple[NDArray[Any], ...]], runner: Runner) -> Any:
    """The model with each activation's range cut off where rounding and clipping together cost least.

    A few outliers make the steps coarse for all other values. What counts is the mean squared error in the
    face that fares worst, so that no bright or dark one is given up.
    """
    model = model.clone()
    quantizers = {
        source.get_friendly_name(): op
        for op in fake_quantizes(model)
        if (source := op.input_value(0).get_node()).get_output_size() == 1
    }
    worst: dict[str, NDArray[np.float64]] = {}
    chosen = np.linspace(0, len(samples) - 1, min(len(samples), _CLIP_FACES)).astype(int)
    names = list(quantizers)
    # Some at a time: all activations of a large network at once are hundreds of megabytes.
    for start in range(0, len(names), 8):
        probe = original.clone()
        there = {op.get_friendly_name(): op for op in probe.get_ops()}
        tapped = [name for name in names[start : start + 8] if name in there]
        if not tapped:
            continue
        probe.add_outputs([there[name].output(0) for name in tapped])
        run = runner.all_outputs(probe)
        for face in chosen:
            for name, values in zip(tapped, run(*samples[face])[-len(tapped) :], strict=True):
                found = clip_errors(values, quantizers[name])
                worst[name] = np.maximum(worst.get(name, found), found)
    for name, errors in worst.items():
        low, high = range_of(quantizers[name])
        share = _CLIPS[int(np.argmin(errors))].astype(np.float32)
        set_range(quantizers[name], low * share, high * share)
    return model


def clip_errors(values: NDArray[Any], quantizer: Any) -> NDArray[np.float64]:
    """Mean squared error of quantising `values` with each share `_CLIPS` of the quantizer's range."""
    if values.ndim == 4:
        step = math.ceil(math.sqrt(max(1.0, values.size / _CLIP_VALUES)))
        values = values[:, :, ::step, ::step]
    low, high = range_of(quantizer)
    steps = quantizer.get_attributes()["levels"] - 1
    errors = []
    for share in _CLIPS.astype(np.float32):
        step_size = np.maximum((high - low) * share / steps, 1e-30)
        rounded = np.round((np.clip(values, low * share, high * share) - low * share) / step_size)
        errors.append(np.mean(np.square(rounded * step_size + low * share - values), dtype=np.float64))
    return np.array(errors)
