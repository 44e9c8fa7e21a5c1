"""Engine `openvino`: the default on x86 CPUs, in bf16 where the CPU computes it natively, or in int8."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from engines import int8, int8_graph, openvino_ir
from engines.base import Crops, Engine
from engines.cache import EngineCache, EngineKey
from engines.devices import native_bf16
from engines.errors import EngineError
from engines.graph import GRAPH_VERSION, ContentEncoder, Decoder, StyleVectors, styled_layers
from engines.openvino_runtime import Request, import_openvino, root_logger_kept
from engines.weights import Weights, weights_hash

PRECISIONS = ("fp32", "bf16", "int8")
KEPT = 4
"""Weights whose converted graphs stay in the cache."""


class OpenVinoEngine(Engine):
    """The folded graphs in OpenVINO.

    The style of `set_style` is baked: the dynamic decoder with its style input replaced by a constant, which
    OpenVINO folds into the weights (0.1 to 0.3 s to compile, then the decoder takes 10 to 14 % less time).
    Styles that come with a call run through the dynamic decoder and cost nothing to change.

    Each side of crops has its own compiled graphs, made when the first such crop comes; the encoder's for `side` at
    once, which finds out whether OpenVINO works here.

    The graphs are converted once and cached. In int8 they are quantised besides (`engines.int8`); what is not
    quantised runs in bf16 where the CPU has it, else in fp32.

    Args:
        device: "cpu".
        precision: "fp32", "bf16" or "int8".
        threads: None: one for each core.
        side: of the crops that will mostly come, pixels; None: the weights' size.
        calibration: faces that int8 is calibrated with.

    Raises:
        EngineError: OpenVINO is missing, or not for this device or precision; int8 without NNCF or faces.
    """

    name = "openvino"

    def __init__(
        self,
        weights: Weights,
        *,
        device: str,
        precision: str,
        threads: int | None = None,
        side: int | None = None,
        calibration: int8.Calibration | None = None,
    ) -> None:
        if device != "cpu":
            raise EngineError(f"openvino runs on the CPU here, not on {device}", "use --device cpu")
        if precision not in PRECISIONS:
            raise EngineError(f"openvino does not run {precision} on the CPU", "use bf16, int8 or fp32")
        ov = import_openvino()
        super().__init__(weights, device=device, precision=precision)
        self._core = ov.Core()
        bf16 = precision == "bf16" or (precision == "int8" and native_bf16())
        self._config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads
        self._graphs = _Graphs(ov, weights, self._style_vectors)
        self._int8: int8.Int8Graphs | None = None
        if precision == "int8":
            self._int8 = self._quantised(ov, calibration)
            self._encoder_model, self._decoder_model = self._int8.encoder, self._int8.decoder
        else:
            self._encoder_model, self._decoder_model = self._converted(ov)
        self._baked_model: Any = None
        # Of the last picture: a new style is made ready for the next one.
        self._content_shape: tuple[int, ...] = ()
        # Compiled, by the side of pictures or content codes.
        self._encoders: dict[int, Request] = {}
        self._dynamic: dict[int, Request] = {}
        self._baked: dict[int, Request] = {}
        side = side or self.size
        self._compiled(self._encoders, self._encoder_model, (1, side, side, 3))

    def _converted(self, ov: Any) -> tuple[Any, Any]:
        """The float encoder and decoder. Converting takes a second or two, so those of files are kept in the cache."""
        graphs, core = self._graphs, self._core
        if not self._check_open().sha256:
            return graphs.encoder(), graphs.decoder()

        def build() -> bytes:
            return openvino_ir.pack({"encoder": graphs.encoder(), "decoder": graphs.decoder()})

        def load(data: bytes) -> tuple[Any, Any]:
            models, _ = openvino_ir.unpack(data, core)
            return models["encoder"], models["decoder"]

        key = self._key(ov, "fp32", f"torch {torch.__version__}")
        cache = EngineCache(precious=False)
        found = cache.get(key, build, load)
        cache.trim(key, KEPT)
        return found

    def _key(self, ov: Any, precision: str, *options: str) -> EngineKey:
        weights = self._check_open()
        return EngineKey(
            part="graphs",
            size=self.architecture.size,
            precision=precision,
            batch=1,
            engine=self.name,
            version=ov.__version__.split("-")[0],
            sm="cpu",
            gpu="",
            weights=weights_hash(weights),
            graph=GRAPH_VERSION,
            options=options,
        )

    def _quantised(self, ov: Any, calibration: int8.Calibration | None) -> int8.Int8Graphs:
        if calibration is None:
            raise EngineError("int8 needs faces to calibrate with", "give a clip: --calibrate FILE")
        a, core = self.architecture, self._core
        key = self._key(
            ov,
            "int8",
            # Not NNCF's version: what is cached runs without it.
            f"int8 {int8.VERSION}",
            ov.__version__,
            self._config["INFERENCE_PRECISION_HINT"],
            *core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
            calibration.key,
            *(["7-bit weights"] if int8_graph.sums_overflow() else []),
        )

        def build() -> bytes:
            def vectors(z: np.ndarray) -> np.ndarray:
                return self._to_vectors(z).numpy()

            rgb = [i for i, layer in enumerate(styled_layers(a)) if layer.is_rgb]
            graphs = int8.FloatGraphs(
                self._graphs.encoder, self._graphs.decoder, self._graphs.baked, vectors, rgb
            )
            crops = self._check_crops(calibration.crops(a.size))
            return int8.pack(int8.quantise(graphs, crops, a.latent_dim, config=self._config, core=core))

        cache = EngineCache()
        found = cache.get(key, build, lambda data: int8.unpack(data, core))
        if "golden_psnr_db" not in cache.about(key):
            in_float = {
                name: [len(found.facts["float_layers"][name]), found.facts["layers"][name]]
                for name in int8.GRAPHS
            }
            cache.note(key, golden_psnr_db=min(found.facts["psnr_db"].values()), float_layers=in_float)
        return found

    @property
    def int8_graphs(self) -> int8.Int8Graphs | None:
        """The quantised OpenVINO models that this engine runs; None in other precisions, and when it is closed.

        They are the engine's own: clone a model before changing it.
        """
        return self._int8

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the int8 graphs (see `Int8Graphs`); empty in other precisions."""
        return dict(self._int8.facts) if self._int8 else {}

    def _compile(self, model: Any) -> Request:
        try:
            return Request(self._core, model, self._config)
        except RuntimeError as error:
            raise EngineError(f"openvino cannot compile the network: {error}") from error

    def _use_style(self, vectors: torch.Tensor) -> None:
        if self._int8 is not None:
            model = int8.bake(self._int8.pattern, self._graphs.baked(vectors.numpy()))
        else:
            import openvino.opset13 as ops

            model = self._decoder_model.clone()
            parameter = model.get_parameters()[1]
            parameter.output(0).replace(ops.constant(vectors.numpy()).output(0))
            model.remove_parameter(parameter)
        self._baked_model, self._baked = model, {}
        if self._content_shape:
            self._compiled(self._baked, model, self._content_shape)

    def _compiled(self, made: dict[int, Request], model: Any, shape: tuple[int, ...]) -> Request:
        """The compiled form of a model for pictures or codes of that shape; made once for each side."""
        side = shape[2]
        if side not in made:
            one = [1, *shape[1:]]
            if list(model.input(0).shape) != one:
                model = model.clone()
                model.reshape({0: one})
            made[side] = self._compile(model)
        return made[side]

    def _infer(self, request: Request, *inputs: np.ndarray) -> np.ndarray:
        try:
            return request(*inputs)[0]
        except RuntimeError as error:
            raise EngineError(f"openvino failed: {error}") from error

    # Batches go one by one: on a CPU four at a time took the same time per picture (17.1 against 17.3 ms).

    def _encode(self, crops: Crops) -> np.ndarray:
        encoder = self._compiled(self._encoders, self._encoder_model, crops.shape)
        return np.concatenate([self._infer(encoder, crop[None]) for crop in crops])

    def _decode(self, content: np.ndarray, vectors: torch.Tensor | None) -> Crops:
        self._content_shape = content.shape
        if vectors is None:
            baked = self._compiled(self._baked, self._baked_model, content.shape)
            return np.concatenate([self._infer(baked, code[None]) for code in content])
        dynamic = self._compiled(self._dynamic, self._decoder_model, content.shape)
        rows = vectors.contiguous().numpy()
        return np.concatenate(
            [self._infer(dynamic, code[None], row[None]) for code, row in zip(content, rows)]
        )

    def _batch(self, content: Any) -> int:
        if not isinstance(content, np.ndarray) or content.ndim != 4:
            raise EngineError(f"content codes of another engine: {type(content).__name__}")
        return len(content)

    def _release(self) -> None:
        for compiled in (self._encoders, self._dynamic, self._baked):
            compiled.clear()
        self._encoder_model = self._decoder_model = self._baked_model = self._int8 = None


class _Graphs:
    """The folded graphs as OpenVINO models, float32.

    They are the same for any size, so they are traced on a tiny picture and then reshaped.
    """

    def __init__(self, ov: Any, weights: Weights, style_vectors: StyleVectors) -> None:
        self.ov, self.weights, self.style_vectors = ov, weights, style_vectors
        a = weights.architecture
        self._images = torch.zeros((1, *[a.least_cells << a.num_down] * 2, 3), dtype=torch.uint8)
        self._content = torch.zeros((1, a.content_channels, *[a.least_cells] * 2))
        self._content_shape = [1, a.content_channels, a.content_size, a.content_size]

    def encoder(self) -> Any:
        size = self.weights.architecture.size
        return self._convert(ContentEncoder(self.weights), [1, size, size, 3], self._images)

    def decoder(self) -> Any:
        with torch.inference_mode():
            vectors = self.style_vectors(torch.zeros(1, self.weights.architecture.style_dim))
        return self._convert(Decoder(self.weights), self._content_shape, self._content, vectors)

    def baked(self, vectors: np.ndarray) -> Any:
        with torch.inference_mode():
            decoder = Decoder(self.weights, torch.from_numpy(vectors))
        return self._convert(decoder, self._content_shape, self._content)

    def _convert(self, module: torch.nn.Module, shape: list[int], *example: torch.Tensor) -> Any:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # torch.jit.trace announces its retirement
            traced = torch.jit.trace(module.eval(), example, check_trace=False)
            with root_logger_kept():
                model = self.ov.convert_model(traced, example_input=example)
        model.reshape({0: shape, **{i: list(one.shape) for i, one in enumerate(example) if i}})
        return model
