"""The generator as ONNX graphs: content encoder, dynamic decoder, and the path from a style code to its vectors.

What ONNX Runtime runs, TensorRT compiles, and `gnr-video export` writes. Pictures are uint8 NHWC on both
sides; the batch is dynamic, the size fixed or dynamic.
"""

from __future__ import annotations

import io
import json
import threading
import warnings
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from engines.architecture import Architecture
from engines.errors import EngineError
from engines.graph import GRAPH_VERSION, ContentEncoder, Decoder, MappingNetwork, StyleVectors
from engines.graph_layers import Upsampling
from engines.installation import install_line
from engines.weights import Weights, weights_hash

if TYPE_CHECKING:
    import onnx

Part = Literal["encoder", "decoder", "style"]

Side = int | Literal["any"] | None
"""Of the pictures, pixels; "any": a graph takes all that fit (`Architecture.fits`); None: the weights' size."""

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
OPSETS = {"fp32": 18, "fp16": 18, "bf16": 22}
"""bf16 convolutions are in the standard from opset 22 on; everything else is as old as every runtime likes."""

_EXPORTER = threading.Lock()
"""torch's exporter keeps its state for the whole process: a second export meanwhile is an error."""


def import_onnx() -> Any:
    """The `onnx` module.

    Raises:
        EngineError: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise EngineError(f"onnx cannot be imported: {error}", install_line("onnx")) from error
    return onnx


class _Style(nn.Module):
    """Style code z (N, latent_dim) -> the decoder's per-channel vectors (N, V)."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.mapping, self.vectors = MappingNetwork(weights), StyleVectors(weights)

    def forward(self, z: Tensor) -> Tensor:
        return self.vectors(self.mapping(z))


class _FloatPictures(nn.Module):
    """A decoder whose pictures stay float32."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        return self.decoder.pictures(content, style)


def export_part(
    weights: Weights,
    part: Part,
    precision: str = "fp32",
    *,
    side: Side = None,
    up: Upsampling = "transposed",
    float_pictures: bool = False,
) -> onnx.ModelProto:
    """One graph, checked by ONNX's own checker with shape inference.

    | part | input | output |
    |---|---|---|
    | encoder | images: uint8 (batch, S, S, 3) RGB | content: (batch, C, s, s) in `precision` |
    | decoder | content; style: float32 (batch, V) | images: uint8 (batch, S, S, 3) RGB |
    | style | z: float32 (batch, latent_dim) | style: float32 (batch, V) |

    fp16 is safe from overflow in the decoder by its pre-normalised weights and modulations (`StyleVectors`);
    the style path stays float32 in every precision.

    Args:
        precision: "fp32", "fp16" or "bf16" (opset 22) of the convolutions.
        side: S, see `Side`.
        up: how the decoder doubles the resolution, see `engines.graph.Decoder`.
        float_pictures: pictures are float32, of whole numbers from 0 to 255, for callers that know no uint8.

    Raises:
        EngineError: onnx is missing, no such precision or side, or the graph does not pass the checker.
    """
    onnx = import_onnx()
    if precision not in TYPES:
        raise EngineError(f"there is no ONNX graph in {precision}", f"choose {', '.join(TYPES)}")
    a, dtype = weights.architecture, TYPES[precision]
    images, content = picture_shapes(a, side)
    cells = a.least_cells
    tiny = cells << a.num_down
    module: nn.Module
    if part == "encoder":
        module = ContentEncoder(weights).to(dtype)
        pictures = torch.float32 if float_pictures else torch.uint8
        example: tuple[Tensor, ...] = (torch.zeros((1, tiny, tiny, 3), dtype=pictures),)
        shapes: dict[str, tuple[int, ...]] = {"images": images, "content": content}
    elif part == "decoder":
        decoder = Decoder(weights, up=up)
        style = (sum(decoder.widths),)
        module = _FloatPictures(decoder).to(dtype) if float_pictures else decoder.to(dtype)
        example = (torch.zeros((1, a.content_channels, cells, cells), dtype=dtype), torch.zeros((1, *style)))
        shapes = {"content": content, "style": style, "images": images}
    else:
        module, precision = _Style(weights), "fp32"
        example = (torch.zeros((1, a.latent_dim)),)
        shapes = {"z": (a.latent_dim,), "style": (sum(Decoder(weights).widths),)}

    model = _trace(onnx, module, example, list(shapes))
    model.opset_import[0].version = OPSETS[precision]  # none of the operators changed in between
    for value in (*model.graph.input, *model.graph.output):
        for axis, length in enumerate(shapes[value.name], 1):
            dim = value.type.tensor_type.shape.dim[axis]
            if length < 0:
                dim.dim_param = f"{value.name}_{axis}"
            else:
                dim.dim_value = length
    del model.graph.value_info[:]
    if precision == "bf16":
        _bytes_through_fp32(onnx, model)
        _deconvolve_in_fp32(onnx, model)
    model.producer_name = "gnr-video"
    model.doc_string = f"GANs N' Roses, {part} ({a.describe()})"
    kind = "float32" if float_pictures else "uint8"
    onnx.helper.set_model_props(model, _metadata(weights, part, precision, kind))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EngineError(f"the exported {part} is not valid ONNX: {str(error).splitlines()[0]}") from error
    return model


def picture_shapes(a: Architecture, side: Side = None) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Shapes, without the batch, of pictures of that side and of their content codes; -1: dynamic.

    Raises:
        EngineError: no such side.
    """
    if side == "any":
        return (-1, -1, 3), (a.content_channels, -1, -1)
    side = a.size if side is None else side
    if not a.fits(side):
        raise EngineError(f"there is no graph for crops of {side}x{side}", f"try {a.size}")
    return (side, side, 3), (a.content_channels, side >> a.num_down, side >> a.num_down)


def _trace(onnx: Any, module: nn.Module, example: tuple[Tensor, ...], names: list[str]) -> onnx.ModelProto:
    buffer = io.BytesIO()
    inputs, outputs = names[: len(example)], names[len(example) :]
    with _EXPORTER, warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # torch announces the retirement of this exporter
        # Its successor (dynamo=True) makes the same graph in 15 s instead of 0.3 s.
        torch.onnx.export(
            module.eval(),
            example,
            buffer,  # type: ignore[arg-type]
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in names},
            opset_version=OPSETS["fp32"],
            dynamo=False,
        )
    return onnx.load_from_string(buffer.getvalue())


def _bytes_through_fp32(onnx: Any, model: onnx.ModelProto) -> None:
    """Cast pictures to float32 first: TensorRT converts bytes to that and to fp16 only."""
    for at, node in enumerate(model.graph.node):
        if node.op_type == "Cast" and node.input[0] == "images":
            node.input[0] = "images/fp32"
            fp32 = onnx.TensorProto.FLOAT
            cast = onnx.helper.make_node("Cast", ["images"], ["images/fp32"], "images/to_fp32", to=fp32)
            model.graph.node.insert(at, cast)
            return


def _deconvolve_in_fp32(onnx: Any, model: onnx.ModelProto) -> None:
    """Cast around transposed convolutions: TensorRT-RTX has none in bf16."""
    cast, bf16, fp32 = onnx.helper.make_node, onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT
    nodes = []
    for node in model.graph.node:
        if node.op_type != "ConvTranspose":
            nodes.append(node)
            continue
        for i, name in enumerate(node.input):
            node.input[i] = f"{node.name}/fp32_{i}"
            nodes.append(cast("Cast", [name], [node.input[i]], f"{node.name}/to_fp32_{i}", to=fp32))
        target = node.output[0]
        node.output[0] = f"{target}/fp32"
        nodes += [node, cast("Cast", [node.output[0]], [target], f"{node.name}/to_bf16", to=bf16)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _metadata(weights: Weights, part: str, precision: str, pictures: str) -> dict[str, str]:
    """What a graph says of itself; values are text, as ONNX wants them."""
    about = {k: weights.metadata[k] for k in ("name", "provenance", "licence") if k in weights.metadata}
    return {
        **about,
        "part": part,
        "precision": precision,
        "graph_version": str(GRAPH_VERSION),
        "weights_sha256": weights_hash(weights),
        "architecture": json.dumps(json.loads(weights.architecture.to_json())),
        "images": f"{pictures} NHWC RGB, 0 to 255",
    }
