"""Exported graphs are valid, say what they are, and give the official path's pictures in any runtime.

Device: CPU. Needs onnx; running them onnxruntime or openvino, which skip where missing.
"""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import torch

from benchmarks.official import OfficialGenerator, normalise, quantise
from engines.architecture import Architecture
from engines.errors import EngineError, OutputError
from engines.export import export
from tests.cli_helpers import call
from tests.golden import golden_weights, narrow

onnx = pytest.importorskip("onnx", reason="needs onnx")

ARCHITECTURE = narrow(size=64, num_down=3, latent_dim=8, style_dim=16, coarse=1, place=5)


@pytest.fixture(scope="module")
def weights():
    return golden_weights(ARCHITECTURE)


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def z():
    return np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(weights, crops, z):
    official = OfficialGenerator(weights)
    with torch.inference_mode():
        content = official.encode(normalise(torch.from_numpy(crops)))
        return quantise(official.decode(content, official.mapping(torch.from_numpy(z)))).numpy()


def tensors(values):
    """name -> (element type, shape) of a graph's inputs or outputs."""
    return {
        v.name: (
            onnx.TensorProto.DataType.Name(v.type.tensor_type.elem_type),
            tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim),
        )
        for v in values
    }


@pytest.mark.parametrize(
    ("precision", "kind", "opset"), [("fp32", "FLOAT", 18), ("fp16", "FLOAT16", 18), ("bf16", "BFLOAT16", 22)]
)
@pytest.mark.parametrize("up", ["transposed", "polyphase"])
def test_inputs_and_outputs(weights, precision, kind, opset, up):
    from engines.onnx_export import export_part

    encoder = export_part(weights, "encoder", precision)
    decoder = export_part(weights, "decoder", precision, up=up)
    pictures = ("UINT8", ("batch", 64, 64, 3))
    content = (kind, ("batch", ARCHITECTURE.content_channels, 8, 8))
    assert tensors(encoder.graph.input) == {"images": pictures}
    assert tensors(encoder.graph.output) == {"content": content}
    style = tensors(decoder.graph.input)["style"]
    assert tensors(decoder.graph.input) == {"content": content, "style": style}
    assert style[0] == "FLOAT" and style[1][0] == "batch"
    assert tensors(decoder.graph.output) == {"images": pictures}
    for graph in (encoder, decoder):
        assert [item.version for item in graph.opset_import] == [opset]
        stored = {i.data_type for i in graph.graph.initializer if len(i.dims) == 4}
        assert stored == {onnx.TensorProto.DataType.Value(kind)}
    assert ("DepthToSpace" in {n.op_type for n in decoder.graph.node}) == (up == "polyphase")


def test_metadata(weights):
    from engines.onnx_export import export_part

    about = {p.key: p.value for p in export_part(weights, "decoder", "fp16").metadata_props}
    assert about["part"] == "decoder" and about["precision"] == "fp16"
    assert Architecture.from_json(json.dumps(json.loads(about["architecture"]))) == ARCHITECTURE
    assert about["name"] == weights.metadata["name"]


@pytest.mark.parametrize("up", ["transposed", "polyphase"])
def test_of_any_side(weights, z, up):
    """One graph for faces and for whole heads, with the pictures of the graphs that have one size."""
    ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    from engines.onnx_export import export_part

    def run(part, side, **inputs):
        graph = export_part(weights, part, side=side, up=up).SerializeToString()
        return ort.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, inputs)[0]

    vectors = run("style", None, z=z[:1])
    for side in (64, 80, 32):
        pictures = np.random.default_rng(side).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
        content = run("encoder", "any", images=pictures)
        np.testing.assert_array_equal(content, run("encoder", side, images=pictures))
        images = run("decoder", "any", content=content, style=vectors)
        assert images.shape == pictures.shape
        np.testing.assert_array_equal(images, run("decoder", side, content=content, style=vectors))
    fixed = export_part(weights, "encoder", side=80)
    assert tensors(fixed.graph.input) == {"images": ("UINT8", ("batch", 80, 80, 3))}
    with pytest.raises(EngineError, match="no graph for crops of 81x81"):
        export_part(weights, "encoder", side=81)


def test_no_int8_graph(weights):
    from engines.onnx_export import export_part

    with pytest.raises(EngineError, match="no ONNX graph in int8"):
        export_part(weights, "encoder", "int8")


@pytest.mark.parametrize("up", ["transposed", "polyphase"])
def test_bf16_in_the_reference_evaluator(weights, up):
    """No CPU runtime computes bf16 convolutions: ONNX's own evaluator tells whether the graph is right."""
    import ml_dtypes
    from onnx.reference import ReferenceEvaluator

    from engines.graph import Decoder
    from engines.onnx_export import export_part

    random = np.random.default_rng(2)
    decoder = Decoder(weights, up=up)
    vectors = random.uniform(0.2, 1, (1, sum(decoder.widths))).astype(np.float32)
    content = random.standard_normal((1, ARCHITECTURE.content_channels, 8, 8)).astype(ml_dtypes.bfloat16)
    graph = ReferenceEvaluator(export_part(weights, "decoder", "bf16", up=up))
    found = graph.run(None, {"content": content, "style": vectors})[0]
    reference = decoder(torch.from_numpy(content.astype(np.float32)), torch.from_numpy(vectors)).numpy()
    error = np.mean((found.astype(float) - reference) ** 2)
    assert reference.std() > 10
    assert 10 * np.log10(255**2 / error) >= 40


def test_onnx_files_run_alone(weights, crops, z, expected, tmp_path):
    """From z to the picture with nothing but the three files."""
    ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    files = export(weights, tmp_path / "new", name="gnr")
    assert [f.name for f in files] == ["gnr-encoder-fp32.onnx", "gnr-decoder-fp32.onnx", "gnr-style.onnx"]
    encoder, decoder, style = (
        ort.InferenceSession(str(f), providers=["CPUExecutionProvider"]) for f in files
    )
    for count in (1, 3):
        content = encoder.run(["content"], {"images": crops[:count]})[0]
        vectors = style.run(["style"], {"z": z[:count]})[0]
        images = decoder.run(["images"], {"content": content, "style": vectors})[0]
        assert images.dtype == np.uint8
        assert np.abs(images.astype(int) - expected[:count]).max() <= 1


@pytest.mark.parametrize(("precision", "side"), [("fp32", None), ("fp16", None), ("fp32", "any")])
def test_openvino_files_run_alone(weights, crops, z, expected, tmp_path, precision, side):
    pytest.importorskip("openvino", reason="needs openvino")
    from engines.openvino_runtime import import_openvino

    files = export(weights, tmp_path, name="gnr", form="openvino", precision=precision, side=side)
    assert ("-any." in files[0].name) == (side == "any")
    core = import_openvino().Core()
    encoder, decoder, style = (
        core.compile_model(f, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}) for f in files if f.suffix == ".xml"
    )
    images = decoder([encoder([crops])[0], style([z])[0]])[0]
    error = np.abs(images.astype(int) - expected)
    assert error.max() <= (1 if precision == "fp32" else 6)
    assert core.read_model(files[0]).get_rt_info(["gnr_video", "part"]).astype(str) == "encoder"


def test_refuses(weights, tmp_path):
    with pytest.raises(EngineError, match="no export format"):
        export(weights, tmp_path, name="gnr", form="caffe")
    (tmp_path / "gnr-decoder-fp32.onnx").touch()
    with pytest.raises(OutputError, match="exists already"):
        export(weights, tmp_path, name="gnr")
    assert [p.name for p in tmp_path.iterdir()] == ["gnr-decoder-fp32.onnx"]  # nothing was begun
    export(weights, tmp_path, name="gnr", overwrite=True)
    beside = export(weights, tmp_path, name="gnr", side=80)  # the style path is there already, and the same
    assert len(beside) == 3
    (tmp_path / "gnr-style.onnx").write_bytes(b"of other weights")
    with pytest.raises(OutputError, match=r"gnr-style\.onnx exists already"):
        export(weights, tmp_path, name="gnr", side=96)
    with pytest.raises(EngineError, match="onnx is not exported in int8"):
        export(weights, tmp_path, name="gnr", precision="int8")
    with pytest.raises(EngineError, match="compiled for one side"):
        export(weights, tmp_path, name="gnr", form="tensorrt", side="any")
    with pytest.raises(EngineError, match="no bf16"):
        export(weights, tmp_path, name="gnr", form="openvino", precision="bf16")


def test_command(tiny, tmp_path):
    done = call("export", tiny, "-o", tmp_path, "--precision", "fp16")
    assert done.status == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "tiny-decoder-fp16.onnx",
        "tiny-encoder-fp16.onnx",
        "tiny-style.onnx",
    ]
    assert done.stdout.split() == [
        str(tmp_path / f"tiny-{n}.onnx") for n in ("encoder-fp16", "decoder-fp16", "style")
    ]
    done = call("export", tiny, "-o", tmp_path / "wide", "--side", "80")
    assert done.status == 0, done.stderr
    assert (tmp_path / "wide" / "tiny-encoder-fp32-80.onnx").is_file()
    assert call("export", tiny, "-o", tmp_path / "wide", "--side", "wide").status == 2
    again = call("export", tiny, "-o", tmp_path, "--precision", "fp16")
    assert again.status == 4
    assert "--overwrite" in again.stderr


@pytest.fixture
def while_exporting(weights, monkeypatch):
    """Export a decoder; `work` runs on a thread of its own in the middle of it, for `seconds` at most."""
    from engines.graph import Decoder
    from engines.onnx_export import export_part

    def run(work, seconds):
        found, features = [], Decoder.features
        thread = threading.Thread(target=lambda: found.append(work()))

        def traced(self, *inputs):
            if torch.jit.is_tracing() and not thread.ident:
                thread.start()
                thread.join(seconds)
            return features(self, *inputs)

        monkeypatch.setattr(Decoder, "features", traced)
        graph = export_part(weights, "decoder", "fp32", up="polyphase")
        thread.join(60)
        assert found, "it failed, see above"
        return graph, found[0]

    return run


def test_an_engine_runs_on_while_a_graph_is_exported(weights, while_exporting):
    from engines.graph import Decoder

    decoder = Decoder(weights, up="polyphase").eval()
    content = torch.randn(1, ARCHITECTURE.content_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    vectors = torch.ones(1, sum(decoder.widths))

    @torch.inference_mode()
    def picture():
        return decoder(content, vectors)

    graph, found = while_exporting(picture, 60)
    assert torch.equal(found, picture())
    assert "DepthToSpace" in {node.op_type for node in graph.graph.node}


def test_two_exports_at_once(weights, while_exporting):
    from engines.onnx_export import export_part

    _, found = while_exporting(lambda: export_part(weights, "encoder", "fp32"), 0.2)
    assert found == export_part(weights, "encoder", "fp32")
