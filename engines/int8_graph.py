"""OpenVINO graphs with quantizers in them: found, read, changed, taken out again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineError
from engines.openvino_runtime import Request

HALVED = 63
"""Largest weight where `sums_overflow`."""


# Graph surgery


def fake_quantizes(model: Any) -> list[Any]:
    return [op for op in model.get_ordered_ops() if op.get_type_name() == "FakeQuantize"]


def range_of(quantizer: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Lowest and highest value that come out of a FakeQuantize."""
    low, high = (quantizer.input_value(i).get_node().get_data() for i in (1, 2))
    return low, high


def set_range(quantizer: Any, low: NDArray[Any], high: NDArray[Any]) -> None:
    for i in range(1, 5):
        set_input(quantizer, i, low if i % 2 else high)


def quantised_layers(model: Any) -> list[str]:
    """Names of the operations that read quantised activations or have quantised weights."""
    return [
        op.get_friendly_name()
        for op in model.get_ordered_ops()
        if op.get_type_name() != "ShapeOf"
        if any(port.get_source_output().get_node().get_type_name() == "FakeQuantize" for port in op.inputs())
        or ("Convolution" in op.get_type_name() and has_int8_weights(op))
    ]


def has_int8_weights(convolution: Any) -> bool:
    return convolution.input_value(1).get_node().get_type_name() == "Multiply"


def in_float(model: Any, original: Any, names: Sequence[str]) -> Any:
    """The model with the operations called `names` reading float activations and having float weights."""
    model = model.clone()
    originals = {op.get_friendly_name(): op for op in original.get_ops()}
    for op in model.get_ordered_ops():
        if op.get_friendly_name() not in names:
            continue
        for port in op.inputs():
            source = port.get_source_output().get_node()
            if source.get_type_name() == "FakeQuantize":
                port.replace_source_output(source.input_value(0))
        twin = originals.get(op.get_friendly_name())
        if twin is not None and "Convolution" in op.get_type_name():
            set_input(op, 1, value_of(twin.input_value(1)))
    model.validate_nodes_and_infer_types()
    return model


def take_constant(op: Any, twin: Any) -> None:
    """Give `op` the constant second input of `twin`, quantised if its own is."""
    value = value_of(twin.input_value(1))
    own = op.input_value(1).get_node()
    if value is None or value_of(op.input_value(1)) is None:
        return
    if own.get_type_name() != "Multiply":
        set_input(op, 1, value)
        return
    scale_shape = [int(n) for n in own.input_value(1).get_shape()]
    axes = tuple(i for i, n in enumerate(scale_shape) if n == 1)
    peak = HALVED if sums_overflow() else 127
    scale = np.maximum(np.abs(value).max(axis=axes, keepdims=True), 1e-12) / peak
    set_input(own.input_value(0).get_node(), 0, np.round(value / scale).astype(np.int8))
    set_input(own, 1, scale.astype(np.float32))


def value_of(output: Any) -> NDArray[Any] | None:
    """What a constant part of the graph amounts to, float32; None where it is not constant."""
    node = output.get_node()
    kind = node.get_type_name()
    if kind == "Constant":
        return np.array(node.get_data())
    if kind not in ("Convert", "Multiply", "Reshape"):
        return None
    parts = [value_of(node.input_value(i)) for i in range(node.get_input_size())]
    if any(part is None for part in parts):
        return None
    first: NDArray[Any] = parts[0]  # type: ignore[assignment]
    if kind == "Convert":
        return first.astype(np.float32)
    return first * parts[1] if kind == "Multiply" else first.reshape(output.get_shape())


def set_input(op: Any, index: int, value: NDArray[Any] | None) -> None:
    import openvino.opset13 as ops

    if value is None:
        raise EngineError(f"int8: {op.get_friendly_name()} has no constant input {index}")
    op.input(index).replace_source_output(ops.constant(np.ascontiguousarray(value)).output(0))


class Runner:
    """Compiles models; what it gives is called with arrays and returns the first output, a copy."""

    def __init__(self, core: Any, config: dict[str, Any]) -> None:
        self.core, self.config = core, config

    def __call__(self, model: Any, **options: str) -> Callable[..., NDArray[Any]]:
        request = Request(self.core, model, {**self.config, **options})
        return lambda *inputs: request(*inputs)[0]

    def all_outputs(self, model: Any) -> Callable[..., list[NDArray[Any]]]:
        """The same with all outputs, in the model's order; they are overwritten by the next call."""
        return partial(Request(self.core, model, self.config), is_view=True)

    def exact(self, model: Any) -> Callable[..., NDArray[Any]]:
        return self(model, INFERENCE_PRECISION_HINT="f32")


@lru_cache(maxsize=1)
def sums_overflow() -> bool:
    """Whether this CPU adds up 8-bit products in 16 bits (x86 without VNNI), where two large ones are cut off.

    Found out by a convolution whose sum is known, in 30 ms. Weights of 7 bits avoid it.
    """
    import openvino as ov
    import openvino.opset13 as ops

    channels = 16
    low, high = ops.constant(np.float32(0)), ops.constant(np.float32(1))
    x = ops.parameter([1, channels, 8, 8], np.float32)
    weights = ops.convert(ops.constant(np.full((channels, channels, 3, 3), 127, np.int8)), np.float32)
    weights = ops.multiply(weights, ops.constant(np.full((channels, 1, 1, 1), 1 / 127, np.float32)))
    read = ops.fake_quantize(x, low, high, low, high, 256)
    y = ops.convolution(read, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    run = Runner(ov.Core(), {"INFERENCE_NUM_THREADS": 1})(ov.Model([y], [x], "sum"))
    return bool(run(np.ones((1, channels, 8, 8), np.float32)).mean() < 0.9 * 9 * channels)
