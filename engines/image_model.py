"""Any image-to-image ONNX file as an engine: AnimeGAN, CycleGAN, U-GAT-IT, or a user's own.

Such a file has one look, so everything about styles is refused. Layout, size and value range are read off
the graph where it tells them, and can be given where it does not.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from engines.base import Crops, Engine, Fallback
from engines.errors import EngineError, StyleError, WeightsError
from engines.files import file_sha256
from engines.onnx_engine import Session
from engines.onnx_export import import_onnx

Range = tuple[float, float]
Layout = Literal["nchw", "nhwc"]

RANGES: tuple[Range, ...] = ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0))
DEFAULT_SIZE = 256
"""Side of the pictures given to a model that takes any size, pixels."""

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


@dataclass(frozen=True)
class ImageModelOptions:
    """What the user says of a model; None is found out.

    Attributes:
        value_range: values that stand for black and white, in the input and the output.
        size: side of the square input picture, pixels.
        layout: order of the input's and the output's dimensions.
    """

    value_range: Range | None = None
    size: int | None = None
    layout: Layout | None = None

    def __post_init__(self) -> None:
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise EngineError(
                f"a value range goes from black up to white, got {self.value_range}", "try --onnx-range -1,1"
            )


def parse_range(text: str) -> Range:
    """The two numbers of an `--onnx-range` value such as "-1,1".

    Raises:
        EngineError: it is not two numbers.
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise EngineError(f"the value range {text!r} is not two numbers", "try --onnx-range -1,1") from error
    return low, high


class ImageModel(Engine):
    """One ONNX file that takes a picture and gives a picture; RGB.

    Pictures go through one at a time: files of this kind often have a fixed batch of 1.

    Args:
        path: the file.
        options: what is not to be found out.
        device: "cpu", "cuda" or "cuda:N" (with onnxruntime-gpu).
        threads: CPU threads; None: one for each core.

    Attributes:
        value_range, layout: what was found or given.

    Raises:
        WeightsError: not an ONNX file, or not one that makes a picture of a picture.
        EngineError: something cannot be found out and has to be given; ONNX Runtime is missing.
    """

    name = "onnx"
    takes_styles = False

    def __init__(
        self,
        path: str | Path,
        options: ImageModelOptions | None = None,
        *,
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        options = options or ImageModelOptions()
        self.path = Path(path)
        self.device = device
        self.fallback = Fallback()
        self._lock = threading.RLock()
        model = _load(self.path)
        self.weights_hash = file_sha256(self.path)
        self._session: Session | None = Session(str(self.path), device=device, threads=threads)
        self._input, self._output = (
            self._picture(self._session.inputs),
            self._picture(self._session.outputs[:1]),
        )
        self.precision = "fp16" if TYPES[self._input.type] is np.float16 else "fp32"
        self.layout: Layout = options.layout or self._find_layout()
        self.size = self._find_size(options.size)
        self.value_range = options.value_range or self._find_range(model)

    def _picture(self, values: Sequence[Any]) -> Any:
        """The one input or output, if it is of a picture's kind."""
        described = ", ".join(f"{value.name}: {value.type} {value.shape}" for value in values)
        if len(values) != 1 or len(values[0].shape) != 4 or values[0].type not in TYPES:
            raise WeightsError(
                f"{self.path.name} does not make a picture of one picture: it has {described or 'nothing'}",
                "it must take and give one float or uint8 tensor of four dimensions",
            )
        return values[0]

    def _find_layout(self) -> Layout:
        for value in (self._input, self._output):
            channels_first, channels_last = value.shape[1] == 3, value.shape[3] == 3
            if channels_first != channels_last:
                return "nchw" if channels_first else "nhwc"
        raise EngineError(
            f"{self.path.name} does not say which dimension of {self._input.shape} are the colours",
            "give it with --onnx-layout nchw or nhwc",
        )

    def _find_size(self, given: int | None) -> int:
        height, width = self._input.shape[2:] if self.layout == "nchw" else self._input.shape[1:3]
        fixed = [side for side in (height, width) if isinstance(side, int)]
        if not fixed:
            return given or DEFAULT_SIZE
        if len(set(fixed)) > 1:
            raise WeightsError(f"{self.path.name} takes {width}x{height} pictures; faces are square here")
        if given not in (None, fixed[0]):
            raise EngineError(
                f"{self.path.name} takes {fixed[0]}x{fixed[0]} pictures, not {given}x{given}",
                "leave --onnx-size out",
            )
        return fixed[0]

    def _find_range(self, model: Any) -> Range:
        """From the last layer's function, else by trial: the range in which a picture comes back as one."""
        types = {TYPES[self._input.type], TYPES[self._output.type]}
        stated = range_of_last_layer(model)
        if stated is not None and types != {np.uint8}:
            return stated
        if np.uint8 in types:
            return (0.0, 255.0)
        picture = _probe(self.size)
        for candidate in RANGES:
            low, high = candidate
            given = picture.astype(np.float32) / 255 * (high - low) + low
            p1, p99 = np.percentile(self._run(given), (1, 99))
            span = high - low
            if p1 >= low - 0.05 * span and p99 <= high + 0.05 * span and p99 - p1 >= 0.2 * span:
                return candidate
        raise EngineError(
            f"the value range of {self.path.name} cannot be found out",
            "give it, for example --onnx-range -1,1",
        )

    def _run(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """One picture (S, S, 3) in the model's range -> what comes out, float32 (H, W, 3) in that range."""
        if self._session is None:
            raise EngineError("the engine is closed")
        kind = TYPES[self._input.type]
        if kind is np.uint8:
            values = np.clip(np.rint(values), 0, 255)
        batch = values[None].transpose(0, 3, 1, 2) if self.layout == "nchw" else values[None]
        result = np.asarray(self._session.run(batch.astype(kind)).numpy(), np.float32)
        if result.ndim == 4 and self.layout == "nchw":
            result = result.transpose(0, 2, 3, 1)
        if result.ndim != 4 or result.shape[3] != 3:
            raise WeightsError(f"{self.path.name} gives {result.shape}, not an RGB picture")
        return result[0]

    def translate(self, crops: Crops, styles: Any = None) -> Crops:
        """Pictures, uint8 (N, S, S, 3), of crops of that shape.

        Raises:
            StyleError: styles were given.
            EngineError: wrong shape or type, or the device failed.
        """
        if styles is not None:
            self._refuse()
        crops = self._check_crops(crops)
        with self._lock:
            return np.stack([self._picture_of(crop) for crop in crops])

    def _picture_of(self, crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
        low, high = self.value_range
        # Where the input is bytes and the output is not (or the other way round), the range is the floats'.
        into = (0.0, 255.0) if TYPES[self._input.type] is np.uint8 else (low, high)
        out_of = (0.0, 255.0) if TYPES[self._output.type] is np.uint8 else (low, high)
        result = self._run(crop.astype(np.float32) / 255 * (into[1] - into[0]) + into[0])
        scaled = (result - out_of[0]) * (255 / (out_of[1] - out_of[0]))
        picture = np.clip(np.rint(np.nan_to_num(scaled)), 0, 255).astype(np.uint8)
        if picture.shape != crop.shape:
            import cv2

            how = cv2.INTER_AREA if picture.shape[0] > self.size else cv2.INTER_CUBIC
            picture = np.asarray(cv2.resize(picture, (self.size, self.size), interpolation=how), np.uint8)
        return picture

    def fits(self, side: int) -> bool:
        return side == self.size

    def warm_up(self, side: int | None = None) -> None:
        self.translate(np.full((1, self.size, self.size, 3), 127, np.uint8))

    def close(self) -> None:
        self._release()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise StyleError(
            f"{self.path.name} translates in one look only: it takes no style", "leave the style options out"
        )

    to_w = set_style = style_space = style_colors = encode_style = encode = decode = _refuse
    _encode = _decode = _use_style = _batch = _refuse

    def _release(self) -> None:
        self._session = None


def _load(path: Path) -> Any:
    onnx = import_onnx()
    try:
        return onnx.load(path, load_external_data=False)
    except FileNotFoundError as error:
        raise WeightsError(f"no ONNX file at {path}") from error
    except Exception as error:  # protobuf's own type, which moves between its versions
        raise WeightsError(f"{path} is not an ONNX file: {str(error).partition(chr(10))[0]}") from error


def range_of_last_layer(model: Any) -> Range | None:
    """Range of a graph's first output where its last function bounds it (tanh, sigmoid, clip); else None.

    Moves of data and changes of type after that function are looked through.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {value.name: value for value in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    name = graph.output[0].name
    while (node := makers.get(name)) is not None:
        if node.op_type in ("Transpose", "Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Round"):
            name = node.input[0]
            continue
        if node.op_type == "Tanh":
            return (-1.0, 1.0)
        if node.op_type == "Sigmoid":
            return (0.0, 1.0)
        if node.op_type == "Clip":
            return _clip_range(node, constants)
        return None
    return None


def _clip_range(node: Any, constants: dict[str, Any]) -> Range | None:
    from onnx.numpy_helper import to_array

    bounds = {attribute.name: attribute.f for attribute in node.attribute}  # before opset 11
    for key, name in zip(("min", "max"), node.input[1:]):
        if name in constants:
            bounds[key] = float(to_array(constants[name]))
    found = bounds.get("min"), bounds.get("max")
    for low, high in RANGES:
        if None not in found and isclose(found[0], low) and isclose(found[1], high):  # type: ignore[arg-type]
            return low, high
    return None


def _probe(size: int) -> NDArray[np.uint8]:
    """A picture with all brightnesses and colours, soft and hard edges: uint8 (size, size, 3)."""
    y, x = np.mgrid[0:size, 0:size] / max(size - 1, 1)
    red = np.where((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1, 0.95, x)
    return np.rint(255 * np.stack([red, y, (1 - x) * y + 0.5 * x], -1)).astype(np.uint8)
