"""8-bit integer form of the OpenVINO graphs: post-training quantisation with NNCF, checked against fp32.

Activations get one symmetric range per tensor, weights one per output channel; where the CPU adds up products in 16
bits they have 7 bits (`sums_overflow`). Three graphs come of it: the content encoder, the dynamic decoder, and a
*pattern* of the baked decoder. The pattern holds the activations' ranges over several styles; `bake` puts the
weights of one style into it, so that a new style costs what it costs in float and needs no calibration. Ranges end
where clipping and rounding together cost least; the fewest layers that the accuracy asks for, those that cost most,
stay in float, in each graph by itself.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import openvino_ir
from engines.accuracy import psnr
from engines.base import Crops
from engines.errors import EngineError
from engines.installation import install_line
from engines.int8_clipping import clip
from engines.int8_graph import (
    Runner,
    fake_quantizes,
    in_float,
    quantised_layers,
    range_of,
    set_range,
    sums_overflow,
    take_constant,
)

log = logging.getLogger(__name__)

VERSION = 3
"""Raised whenever the same inputs would give other graphs, so that those in caches are built again."""

BAR = 34.5
"""Mean PSNR in dB that the checked pictures must reach, so that the worst of others has the 32 that are promised."""
ENCODER_BAR = BAR + 3.0
"""The same for the encoder alone, followed by a float decoder: half of the error is the encoder's."""
CALIBRATION_STYLES, CHECK_STYLES, CHECK_FACES = 4, 5, 10
_RANK_FACES, _SEARCH_FACES = 2, 4

GRAPHS = ("encoder", "decoder", "pattern")
_TO_RGB = r"__module\.layers\.{}[./].*"


@dataclass(frozen=True)
class Calibration:
    """The faces that ranges are measured on, and accuracy checked with.

    Attributes:
        key: names them in caches: the same key stands for the same crops.
        crops: side S in pixels -> uint8 (N, S, S, 3); only called when something has to be built.
    """

    key: str
    crops: Callable[[int], Crops] = field(repr=False)


@dataclass(frozen=True)
class FloatGraphs:
    """The float OpenVINO models that are to be quantised; each call gives a new one.

    Attributes:
        encoder: uint8 pictures -> content code.
        decoder: content code and style vectors -> uint8 pictures.
        baked: style vectors, float32 (1, V) -> a model from content code to uint8 pictures.
        vectors: style codes z, float32 (N, latent_dim) -> style vectors, float32 (N, V).
        rgb_layers: places of the to-RGB layers among the decoder's layers.
    """

    encoder: Callable[[], Any]
    decoder: Callable[[], Any]
    baked: Callable[[NDArray[np.float32]], Any]
    vectors: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    rgb_layers: Sequence[int]


@dataclass(frozen=True)
class Int8Graphs:
    """Quantised OpenVINO models, and what is known of them.

    Attributes:
        encoder, decoder, pattern: see the module.
        facts: mean "psnr_db" of the checked pictures ("dynamic", "baked"); by graph the names of the
            "float_layers" and the number of all "layers" that can be quantised; the "seconds" it took.
    """

    encoder: Any
    decoder: Any
    pattern: Any
    facts: dict[str, Any]


def quantise(
    graphs: FloatGraphs, crops: Crops, latent_dim: int, *, config: dict[str, Any], core: Any
) -> Int8Graphs:
    """Quantise the three graphs and keep in float what the accuracy asks for.

    Every fourth crop (ten at most) is kept for the check, in five styles that the calibration has not seen.

    Args:
        graphs: the float models.
        crops: uint8 (N, S, S, 3), real faces.
        latent_dim: length of a style code.
        config: OpenVINO's options under which the result is to run.
        core: OpenVINO's Core.

    Raises:
        EngineError: NNCF is missing or failed.
    """
    started = time.perf_counter()
    check, rest = _held_out(crops)
    random = np.random.default_rng(0)
    styles = graphs.vectors(random.standard_normal((CALIBRATION_STYLES, latent_dim)).astype(np.float32))
    unseen = graphs.vectors(random.standard_normal((CHECK_STYLES, latent_dim)).astype(np.float32))
    runner = Runner(core, config)

    encoder, decoder = graphs.encoder(), graphs.decoder()
    exact_encoder, exact_decoder = runner.exact(encoder), runner.exact(decoder)
    content = [exact_encoder(crop[None]) for crop in rest]
    rgb = [_TO_RGB.format(place) for place in graphs.rgb_layers]
    pairs = [(code, styles[i % len(styles)][None]) for i, code in enumerate(content)]
    exact_content = [exact_encoder(crop[None]) for crop in check]
    expected = [[exact_decoder(code, style[None]) for style in unseen] for code in exact_content]
    float_decoder = runner(decoder)
    facts: dict[str, Any] = {"float_layers": {}, "layers": {}, "psnr_db": {}}

    def keep(name: str, made: Any, clipped: Any, original: Any, bar: float, measure: _Measure) -> Any:
        kept, layers, reached = _keep_accuracy([clipped, made], original, bar, measure)
        count = len(quantised_layers(made))
        log.info("int8 %s: %.1f dB with %d of %d layers in float", name, reached, len(layers), count)
        facts["float_layers"][name], facts["layers"][name] = layers, count
        if name != "encoder":
            facts["psnr_db"]["dynamic" if name == "decoder" else "baked"] = round(reached, 2)
        return kept

    def encoder_psnr(model: Any, faces: int, count: int) -> list[float]:
        run = runner(model)
        codes = [run(crop[None]) for crop in check[:faces]]
        return [
            psnr(float_decoder(code, unseen[j][None]), expected[i][j])
            for i, code in enumerate(codes)
            for j in range(min(count, 2))
        ]

    samples = [(crop[None],) for crop in rest]
    made = _nncf(encoder, samples, [])
    clipped = clip(made, encoder, samples, runner)
    encoder = keep("encoder", made, clipped, encoder, ENCODER_BAR, encoder_psnr)
    run_encoder = runner(encoder)
    codes = [run_encoder(crop[None]) for crop in check]

    def decoder_psnr(model: Any, faces: int, count: int) -> list[float]:
        run = runner(model)
        return [
            psnr(run(codes[i], unseen[j][None]), expected[i][j])
            for i in range(min(faces, len(codes)))
            for j in range(count)
        ]

    made = _nncf(decoder, pairs, rgb)
    clipped = clip(made, decoder, pairs, runner)
    decoder = keep("decoder", made, clipped, decoder, BAR, decoder_psnr)

    unseen_float = [graphs.baked(style[None]) for style in unseen]

    def pattern_psnr(model: Any, faces: int, count: int) -> list[float]:
        found = []
        for j in range(count):
            run = runner(bake(model, unseen_float[j]))
            found += [psnr(run(code), expected[i][j]) for i, code in enumerate(codes[:faces])]
        return found

    made, clipped = _patterns(graphs, content, styles, rgb, runner)
    pattern = keep("pattern", made, clipped, graphs.baked(styles[:1]), BAR, pattern_psnr)
    facts["seconds"] = round(time.perf_counter() - started, 1)
    return Int8Graphs(encoder, decoder, pattern, facts)


def _held_out(crops: Crops) -> tuple[Crops, Crops]:
    """Those for the check, and the rest for the calibration: all of them where there is one only."""
    chosen = np.arange(0, len(crops), 4)[:CHECK_FACES]
    rest = np.delete(crops, chosen, axis=0)
    return crops[chosen], rest if len(rest) else crops


def bake(pattern: Any, baked: Any) -> Any:
    """The pattern with the weights and biases of another style.

    Args:
        pattern: quantised baked decoder, left as it is.
        baked: the float baked decoder of the style wanted.

    Returns:
        A new OpenVINO model. Weights are quantised per output channel where the pattern's are, to 8 bits, or to 7 if
        `sums_overflow`.
    """
    model = pattern.clone()
    names = {op.get_friendly_name(): op for op in baked.get_ops()}
    for op in model.get_ordered_ops():
        kind = op.get_type_name()
        twin = names.get(op.get_friendly_name())
        if twin is not None and ("Convolution" in kind or kind == "Add"):
            take_constant(op, twin)
    model.validate_nodes_and_infer_types()
    return model


# Calibration and accuracy

_Measure = Callable[[Any, int, int], list[float]]
"""(model, number of faces, number of styles) -> PSNR of each picture, dB."""


def _nncf(model: Any, samples: Sequence[tuple[NDArray[Any], ...]], ignored: Sequence[str]) -> Any:
    """Quantise one model with ranges from `samples`; `ignored` are patterns of names that stay float."""
    if find_spec("nncf") is None:
        raise EngineError("int8 needs NNCF, which is not installed", install_line("int8"))
    # Its progress bars are of no use in a program's output.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            import nncf
            from nncf.quantization.range_estimator import RangeEstimatorParametersSet

            # Not nncf.set_log_level, which changes handlers too: those of others may be among them.
            logging.getLogger("nncf").setLevel(logging.ERROR)
            return nncf.quantize(
                model.clone(),
                nncf.Dataset([list(sample) for sample in samples]),
                subset_size=len(samples),
                # Symmetric activations: with zero points convolutions took a third longer (AMX, bf16 around).
                preset=nncf.QuantizationPreset.PERFORMANCE,
                # Between a style's vector and the convolution it belongs to, and in the map of places, rounding costs
                # and saves nothing.
                ignored_scope=nncf.IgnoredScope(
                    patterns=list(ignored), types=["Multiply", "Gather"], validate=False
                ),
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    # The mean of the pictures' extremes, NNCF's default, cut off bright faces: 29 against 37 dB.
                    activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
                    # A corrected bias would be lost when another style is baked, and gained nothing.
                    disable_bias_correction=True,
                    overflow_fix=nncf.OverflowFix.ENABLE if sums_overflow() else nncf.OverflowFix.DISABLE,
                ),
            )
        except (RuntimeError, ImportError, AttributeError, TypeError, ValueError) as error:
            raise EngineError(f"NNCF cannot quantise the network: {error}", install_line("int8")) from error


def _patterns(
    graphs: FloatGraphs,
    content: Sequence[NDArray[Any]],
    styles: NDArray[np.float32],
    rgb: Sequence[str],
    runner: Runner,
) -> tuple[Any, Any]:
    """The first style's baked decoder, with the widest range that any of the styles gives each activation.

    Returns:
        It, and the same with the ranges clipped (see `clip`).
    """
    found: list[tuple[Any, Any]] = []
    for i, style in enumerate(styles):
        samples = [(code,) for code in content[i :: len(styles)] or content]
        baked = graphs.baked(style[None])
        made = _nncf(baked, samples, rgb)
        found.append((made, clip(made, baked, samples, runner)))
    for models in zip(*found, strict=True):
        widest: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
        for op in (op for model in models for op in fake_quantizes(model)):
            low, high = range_of(op)
            before = widest.get(op.get_friendly_name(), (low, high))
            widest[op.get_friendly_name()] = np.minimum(low, before[0]), np.maximum(high, before[1])
        for op in fake_quantizes(models[0]):
            set_range(op, *widest[op.get_friendly_name()])
    return found[0]


def _keep_accuracy(
    models: Sequence[Any], original: Any, bar: float, measure: _Measure
) -> tuple[Any, list[str], float]:
    """Keep the fewest layers in float with which the mean PSNR is at `bar`.

    Layers are ranked by their own damage: the error of the picture with all others in float, on two faces in
    one style. How many of the worst must stay in float is found by bisection; with all of them the float model
    is left.

    Args:
        models: forms of the quantised model: the first that is at `bar` as it is, else the best, is taken.
        original: the float model.

    Returns:
        The model, the names of its layers in float, worst first, and the mean PSNR.
    """
    tried: list[tuple[float, Any]] = []
    for model in models:
        reached = float(np.mean(measure(model, CHECK_FACES, CHECK_STYLES)))
        log.debug("int8: %.1f dB with all layers quantised", reached)
        if reached >= bar:
            return model, [], reached
        tried.append((reached, model))
    model = max(tried, key=lambda pair: pair[0])[1]
    layers = quantised_layers(model)

    def damage(name: str) -> float:
        alone = in_float(model, original, [other for other in layers if other != name])
        return float(np.mean([10 ** (-value / 10) for value in measure(alone, _RANK_FACES, 1)]))

    damages = {name: damage(name) for name in layers}
    ranked = sorted(layers, key=lambda name: -damages[name])
    too_few, enough = 0, len(ranked)
    while enough - too_few > 1:
        count = (too_few + enough) // 2
        reached = float(np.mean(measure(in_float(model, original, ranked[:count]), _SEARCH_FACES, 2)))
        log.debug("int8: %.1f dB with %d of %d layers in float", reached, count, len(layers))
        too_few, enough = (too_few, count) if reached >= bar else (count, enough)
    # The search saw few pictures.
    while True:
        candidate = in_float(model, original, ranked[:enough])
        reached = float(np.mean(measure(candidate, CHECK_FACES, CHECK_STYLES)))
        if reached >= bar or enough == len(ranked):
            return candidate, ranked[:enough], reached
        enough += 1


# In caches: one file, whose checksums find damage.


def pack(graphs: Int8Graphs) -> bytes:
    """The graphs and their facts as `engines.openvino_ir` writes them."""
    return openvino_ir.pack({name: getattr(graphs, name) for name in GRAPHS}, graphs.facts)


def unpack(data: bytes, core: Any) -> Int8Graphs:
    """Read what `pack` wrote.

    Raises:
        EngineError: the data are damaged.
    """
    models, facts = openvino_ir.unpack(data, core)
    if missing := [name for name in GRAPHS if name not in models]:
        raise EngineError(f"damaged graphs: no {missing[0]}")
    return Int8Graphs(**models, facts=facts)
