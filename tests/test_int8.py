"""Precision int8: accuracy, styles, layers kept in float, and the cached file. Device: CPU, OpenVINO and NNCF."""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import engines
from benchmarks.official import OfficialGenerator, normalise, quantise
from engines import int8, int8_clipping, int8_graph
from engines.accuracy import psnr
from engines.cache import EngineCache, describe
from engines.errors import EngineError, InputError
from engines.installation import install_line
from engines.int8 import Calibration
from engines.openvino_runtime import root_logger_kept
from gnr_video.samples.calibration import COUNT, clip_faces, sample_crops, sample_faces
from tests.cli_helpers import call
from tests.golden import golden_weights, narrow

MISSING = [name for name in ("openvino", "nncf", "skimage") if find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)}"),
    pytest.mark.slow,
]

ARCHITECTURE = narrow(size=64, num_down=2, latent_dim=8, style_dim=16, coarse=2, place=5)
FACES = Calibration("twelve faces", lambda size: np.stack(list(sample_crops(size, 12))))


def no_crops(size: int) -> np.ndarray:
    raise AssertionError("calibrated again")


def make(folder: Path, calibration: Calibration | None = FACES, precision: str = "int8"):
    weights = golden_weights(ARCHITECTURE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNR_VIDEO_CACHE", str(folder))
        return engines.create(
            weights, engine="openvino", precision=precision, threads=1, calibration=calibration
        )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def quantised(cache):
    with make(cache) as engine:
        yield engine


@pytest.fixture(scope="module")
def exact(cache):
    with make(cache, None, "fp32") as engine:
        yield engine


@pytest.fixture(scope="module")
def faces():
    """Crops that the calibration has not seen."""
    return np.stack(list(sample_crops(64, 15)))[12:]


@pytest.fixture(scope="module")
def styles():
    return np.random.default_rng(123).standard_normal((3, 8)).astype(np.float32)


def only_file(cache: Path) -> Path:
    (file,) = (cache / "engines").glob("*.engine")
    return file


def test_baked_styles_are_accurate_and_can_be_changed(quantised, exact, faces, styles):
    for style in styles:
        for engine in (quantised, exact):
            engine.set_style(style)
        for face in faces:
            found = quantised.translate(face[None])
            assert psnr(found, exact.translate(face[None])) >= 31
    assert psnr(found, quantised.translate(face[None], styles[0])) < 25, "the styles differ"


def test_a_style_for_each_picture_is_accurate(quantised, exact, faces, styles):
    found, expected = quantised.translate(faces, styles), exact.translate(faces, styles)
    assert min(psnr(a, b) for a, b in zip(found, expected)) >= 31
    assert not np.array_equal(found, expected)


def test_crops_of_whole_heads_are_accurate(quantised, exact, faces, styles):
    heads = np.stack([np.pad(face, ((8, 8), (8, 8), (0, 0)), mode="reflect") for face in faces])
    for engine in (quantised, exact):
        engine.set_style(styles[0])
    for rows in (None, styles):
        found, expected = quantised.translate(heads, rows), exact.translate(heads, rows)
        assert min(psnr(a, b) for a, b in zip(found, expected)) >= 30


def test_facts_hold_what_was_checked(quantised):
    facts = quantised.facts
    assert min(facts["psnr_db"].values()) >= int8.BAR > 32
    assert set(facts["float_layers"]) == {"encoder", "decoder", "pattern"}
    assert quantised.precision == "int8"


def test_weights_are_int8_with_a_scale_for_each_output_channel(quantised):
    graphs = quantised.int8_graphs
    for graph in (graphs.encoder, graphs.decoder, graphs.pattern):
        scales = [
            op.input_value(1).get_node().input_value(1).get_node().get_data()
            for op in graph.get_ops()
            if op.get_type_name() == "Convolution"
            and op.input_value(1).get_node().get_type_name() == "Multiply"
        ]
        types = {
            op.get_element_type().get_type_name() for op in graph.get_ops() if "Const" in op.get_type_name()
        }
        assert len(scales) >= 5
        assert all(scale.shape[0] == scale.size > 1 and len(set(scale.ravel())) > 1 for scale in scales)
        assert "i8" in types


def test_bake_takes_the_weights_of_the_style(quantised, exact, styles):
    """With the pattern's ranges taken out, what is left is the float decoder but for the weights' rounding."""
    vectors = quantised._to_vectors(styles[:1]).numpy()
    wanted = quantised._graphs.baked(vectors)
    baked = int8.bake(quantised.int8_graphs.pattern, wanted)
    originals = {op.get_friendly_name(): op for op in wanted.get_ops()}
    checked = 0
    for op in baked.get_ops():
        if "Convolution" in op.get_type_name():
            found = int8_graph.value_of(op.input_value(1))
            value = int8_graph.value_of(originals[op.get_friendly_name()].input_value(1))
            axis = 1 if op.get_type_name() == "ConvolutionBackpropData" else 0
            peak = np.abs(value).max(axis=tuple(i for i in range(value.ndim) if i != axis), keepdims=True)
            levels = int8_graph.HALVED if int8_graph.sums_overflow() else 127
            assert (np.abs(found - value) <= 0.5001 * peak / levels + 1e-9).all()
            checked += 1
    assert checked > 5


def test_no_weight_is_so_large_that_sums_are_cut_off(quantised):
    """Two products of 8 bits, in 16: 2 * 255 * 127 does not fit, 2 * 255 * 64 does."""
    graphs = quantised.int8_graphs
    weights = [
        op.get_data()
        for graph in (graphs.encoder, graphs.decoder, graphs.pattern)
        for op in graph.get_ops()
        if op.get_type_name() == "Constant"
        and op.get_element_type().get_type_name() == "i8"
        and len(op.get_shape()) == 4  # depthwise ones, of five dimensions, are summed in 32 bits
    ]
    largest = max(int(np.abs(array.astype(int)).max()) for array in weights)
    assert largest in ((63, 64) if int8_graph.sums_overflow() else (127, 128))


def test_cached_graphs_are_used_again(quantised, cache, faces, styles):
    file = only_file(cache)
    assert file.name.startswith("gnr64-graphs-int8-b1-openvino")
    with make(cache, Calibration(FACES.key, no_crops)) as again:
        assert again.facts == quantised.facts
        assert np.array_equal(again.translate(faces, styles), quantised.translate(faces, styles))


def test_other_faces_or_weights_are_other_graphs(quantised, cache, monkeypatch):
    for calibration, weights in (
        (Calibration("others", no_crops), golden_weights(ARCHITECTURE)),
        (Calibration(FACES.key, no_crops), golden_weights(ARCHITECTURE, seed=8)),
    ):
        monkeypatch.setenv("GNR_VIDEO_CACHE", str(cache))
        with pytest.raises(AssertionError, match="calibrated again"):
            engines.create(weights, precision="int8", threads=1, calibration=calibration)


@pytest.mark.parametrize("damage", ["cut off", "one bit", "empty", "other archive"])
def test_damage_is_found(quantised, damage):
    import openvino as ov

    data = bytearray(int8.pack(quantised.int8_graphs))
    if damage == "cut off":
        del data[len(data) // 2 :]
    elif damage == "one bit":
        data[len(data) // 2] ^= 1
    elif damage == "empty":
        data.clear()
    else:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("note", "no graphs")
        data = bytearray(stream.getvalue())
    with pytest.raises(EngineError, match="damaged graphs"):
        int8.unpack(bytes(data), ov.Core())


def test_a_broken_file_is_set_aside_and_built_again(tmp_path, quantised, cache, monkeypatch):
    folder = tmp_path / "engines"
    shutil.copytree(cache / "engines", folder)
    file = only_file(tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    built = []
    monkeypatch.setattr(int8, "quantise", lambda *_, **__: built.append(1) or quantised.int8_graphs)
    for _ in range(2):
        with make(tmp_path) as engine:
            assert engine.facts == quantised.facts
    assert built == [1]
    assert (folder / "broken" / file.name).is_file()


def test_the_cache_lists_it(quantised, cache):
    (entry,) = EngineCache(cache / "engines").entries()
    assert entry.about["golden_psnr_db"] == min(quantised.facts["psnr_db"].values())
    assert entry.about["precision"] == "int8"
    facts = quantised.facts
    assert entry.about["float_layers"] == {
        name: [len(facts["float_layers"][name]), facts["layers"][name]] for name in int8.GRAPHS
    }
    kept, count = entry.about["float_layers"]["encoder"]
    assert 0 <= kept < count
    assert f"layers in float: encoder {kept} of {count}, decoder " in describe(entry)


def test_exported_files_run_alone(quantised, cache, styles, tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason="needs onnx")
    from engines.export import export
    from engines.openvino_runtime import import_openvino

    monkeypatch.setenv("GNR_VIDEO_CACHE", str(cache))
    weights = golden_weights(ARCHITECTURE)
    about = {
        "name": "gnr",
        "form": "openvino",
        "precision": "int8",
        "calibration": Calibration(FACES.key, no_crops),
    }
    files = export(weights, tmp_path, **about)
    wide = export(weights, tmp_path / "wide", side=80, **about)
    core = import_openvino().Core()
    models = [core.read_model(f) for f in files if f.suffix == ".xml"]
    assert {op.get_type_name() for op in models[0].get_ops()} & {"FakeQuantize"}
    encoder, decoder, style = (core.compile_model(model, "CPU") for model in models)
    seen = np.stack(list(sample_crops(64, 3)))
    with torch.inference_mode():
        official = OfficialGenerator(weights)
        content = official.encode(normalise(torch.from_numpy(seen)))
        expected = quantise(official.decode(content, official.mapping(torch.from_numpy(styles)))).numpy()
    images = decoder({"content": encoder({"images": seen})[0], "style": style({"z": styles})[0]})[0]
    assert images.shape == expected.shape and images.dtype == np.uint8
    assert 10 * np.log10(255**2 / np.mean((images.astype(float) - expected) ** 2)) >= 30
    shapes = [
        str(v.partial_shape)
        for f in wide[:4:2]
        for v in (*core.read_model(f).inputs, *core.read_model(f).outputs)
    ]
    assert shapes[0] == shapes[-1] == "[?,80,80,3]"
    assert shapes[1] == shapes[2] == f"[?,{ARCHITECTURE.content_channels},20,20]"


def decoder_and_measure(quantised, exact, faces, styles):
    """The int8 decoder, its float original, and the PSNR of its pictures, all else in fp32."""
    import openvino as ov

    runner = int8_graph.Runner(ov.Core(), {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"})
    codes, vectors = exact.encode(faces), exact._to_vectors(styles).numpy()
    expected = exact.decode(codes, styles)

    def measure(model, count, _):
        run = runner(model)
        return [psnr(run(codes[i : i + 1], vectors[i : i + 1])[0], expected[i]) for i in range(min(count, 3))]

    return quantised.int8_graphs.decoder, exact._graphs.decoder(), measure


def test_layers_that_cost_too_much_stay_in_float(quantised, exact, faces, styles):
    model, original, measure = decoder_and_measure(quantised, exact, faces, styles)
    every = int8_graph.quantised_layers(model)
    before = np.mean(measure(model, 3, 1))
    better, taken, reached = int8._keep_accuracy([model], original, before + 3, measure)
    assert 0 < len(taken) < len(every)
    assert reached >= before + 3
    assert reached == pytest.approx(np.mean(measure(better, 3, 1)))
    assert set(int8_graph.quantised_layers(better)) == set(every) - set(taken)
    assert int8_graph.quantised_layers(model) == every, "the model given stays as it is"


def test_with_all_layers_in_float_the_float_model_is_left(quantised, exact, faces, styles):
    model, original, measure = decoder_and_measure(quantised, exact, faces, styles)
    left, _, reached = int8._keep_accuracy([model], original, 98.9, measure)
    assert reached > 60
    assert int8_graph.quantised_layers(left) == []
    assert min(measure(original, 3, 1)) > 60


def test_what_cannot_be_made(monkeypatch, tmp_path):
    with pytest.raises(EngineError, match="--calibrate"):
        make(tmp_path, None)
    with pytest.raises(EngineError, match="does not run int8"):
        engines.create(golden_weights(ARCHITECTURE), engine="torch", precision="int8", calibration=FACES)
    monkeypatch.setattr(int8, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match=re.escape(install_line("int8"))):
        make(tmp_path)


def test_sample_faces_are_always_the_same():
    calibration = sample_faces()
    crops = calibration.crops(32)
    assert crops.shape == (COUNT, 32, 32, 3)
    assert crops.dtype == np.uint8
    assert np.array_equal(crops, sample_faces().crops(32))
    assert calibration.key == sample_faces().key
    means = crops.mean(axis=(1, 2, 3))
    assert means.min() < 70 and means.max() > 130, "dark and bright"


def test_faces_of_a_clip(face_clip, face_model, tmp_path):
    calibration = clip_faces(face_clip, face_model)
    crops = calibration.crops(64)
    assert crops.dtype == np.uint8
    assert crops.shape[1:] == (64, 64, 3)
    assert 4 <= len(crops) <= 7, "five a second of 1.2 seconds"
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(face_clip.read_bytes())
    assert clip_faces(copy).key == calibration.key
    copy.write_bytes(face_clip.read_bytes() + b"1")
    assert clip_faces(copy).key != calibration.key


def test_clips_that_cannot_be_calibrated_with(tmp_path, face_model):
    import cv2

    with pytest.raises(InputError, match="cannot read the clip"):
        clip_faces(tmp_path / "missing.mp4")
    grey = tmp_path / "grey.png"
    cv2.imwrite(str(grey), np.full((90, 160, 3), 128, np.uint8))
    with pytest.raises(InputError, match="no face was found"):
        clip_faces(grey, face_model).crops(64)


def test_command_line(tiny, face_clip, face_model, tmp_path, monkeypatch):
    monkeypatch.setenv("GNR_VIDEO_CACHE", str(tmp_path / "cache"))
    # How well it is calibrated is asked above.
    monkeypatch.setattr(int8, "CALIBRATION_STYLES", 1)
    monkeypatch.setattr(int8, "CHECK_STYLES", 2)
    options = ("--weights", tiny, "--precision", "int8", "--calibrate", face_clip, "--face-model", face_model)
    done = call(face_clip, "-o", tmp_path / "out.mp4", *options)
    assert done.status == 0, done.stderr
    assert "openvino int8 on cpu" in done.stderr
    assert only_file(tmp_path / "cache").stat().st_size > 1000
    done = call(face_clip, "-o", tmp_path / "no.mp4", *options[:-4], "--calibrate", tmp_path / "none.mp4")
    assert done.status == InputError.exit_code
    assert "cannot read the clip to calibrate with" in done.stderr


class Chain(torch.nn.Module):
    """Four convolutions; between two of them one channel is `outlier` times larger, which the next takes back."""

    def __init__(self, after: int, outlier: float) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = torch.nn.ModuleList(torch.nn.Conv2d(16, 16, 3, padding=1) for _ in range(4))
        self.requires_grad_(False)
        bent, back = self.layers[after], self.layers[after + 1]
        bent.weight[5] *= outlier
        bent.bias[5] *= outlier
        back.weight[:, 5] /= outlier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.nn.functional.leaky_relu(layer(x), 0.2)
        return x


@pytest.mark.parametrize("after", [0, 1, 2])
def test_exactly_the_layer_that_is_hard_to_quantise_stays_in_float(after):
    """A channel with huge values makes the steps too coarse for the others, in the layer that reads it."""
    import openvino as ov

    random = np.random.default_rng(0)
    samples = [random.standard_normal((1, 16, 24, 24)).astype(np.float32) for _ in range(6)]
    traced = torch.jit.trace(Chain(after, 2000.0), torch.from_numpy(samples[0]))
    with root_logger_kept():
        model = ov.convert_model(traced, example_input=samples[0])
    model.reshape([1, 16, 24, 24])
    runner = int8_graph.Runner(ov.Core(), {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"})
    expected = [runner(model)(sample) for sample in samples]
    peak = max(float(np.abs(value).max()) for value in expected)

    def measure(candidate, faces, _):
        run = runner(candidate)
        errors = [np.mean((run(s) - e) ** 2) for s, e in zip(samples[:faces], expected)]
        return [float(10 * np.log10(peak**2 / max(error, 1e-12))) for error in errors]

    made = int8._nncf(model, [(sample,) for sample in samples], [])
    clipped = int8_clipping.clip(made, model, [(sample,) for sample in samples], runner)
    before = np.mean(measure(made, 6, 1))
    kept, taken, reached = int8._keep_accuracy([clipped, made], model, 30.0, measure)
    assert before < 20
    assert reached >= 30
    assert len(taken) == 1
    assert f".layers.{after + 1}/" in taken[0]
    assert len(int8_graph.quantised_layers(kept)) == len(int8_graph.quantised_layers(made)) - 1


def test_ranges_are_clipped_where_that_costs_least(quantised):
    """One value in a million far out: what is left of the range serves the others."""
    quantizer = int8_graph.fake_quantizes(quantised.int8_graphs.decoder)[0]
    high = float(int8_graph.range_of(quantizer)[1].max())
    values = np.random.default_rng(0).standard_normal((1, 4, 64, 64)).astype(np.float32)
    small = int8_clipping.clip_errors(values * high / 16, quantizer)
    assert int8_clipping._CLIPS[np.argmin(small)] == pytest.approx(0.25)
    flat = np.random.default_rng(0).uniform(-high, high, (1, 4, 64, 64)).astype(np.float32)
    assert np.argmin(int8_clipping.clip_errors(flat, quantizer)) == 0
