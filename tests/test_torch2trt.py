"""Engines move to and from torch2trt's TRTModule files.

Device: CPU. TRTModule itself needs TensorRT and a GPU: it is not run here.
"""

from __future__ import annotations

import os
from collections import OrderedDict

import numpy as np
import pytest
import torch

from engines.errors import EngineError
from engines.torch2trt_engine import NAMES, TrtModule, read_module, write_module
from tests.cli_helpers import call
from tests.golden import golden_weights, narrow

PLAN = bytes(range(256)) * 40


def test_there_and_back(tmp_path):
    for part, (inputs, outputs) in NAMES.items():
        module = TrtModule(PLAN, inputs, outputs)
        write_module(tmp_path / f"{part}.pth", module)
        assert read_module(tmp_path / f"{part}.pth") == module
        assert "10240 bytes" in repr(module)


def test_what_is_written_is_what_trtmodule_loads(tmp_path):
    """The keys and types that TRTModule._load_from_state_dict reads."""
    write_module(tmp_path / "decoder.pth", TrtModule(PLAN, *NAMES["decoder"]))
    with torch.serialization.safe_globals([bytearray]):
        state = torch.load(tmp_path / "decoder.pth", weights_only=True)
    assert isinstance(state["engine"], bytearray) and bytes(state["engine"]) == PLAN
    assert state["input_names"] == ["content", "style"]
    assert state["output_names"] == ["images"]
    assert state["input_flattener"] == {"schema": (0, 1), "size": 2}
    assert state["output_flattener"] == {"schema": 0, "size": 1}


def test_reads_what_older_ones_wrote(tmp_path):
    """A state dict without flatteners, of a whole module, as torch.save(module.state_dict()) makes it."""
    state = OrderedDict(engine=bytearray(PLAN), input_names=["images"], output_names=["content"])
    torch.save(state, tmp_path / "old.pth")
    assert read_module(tmp_path / "old.pth") == TrtModule(PLAN, ("images",), ("content",))


class Evil:
    def __reduce__(self):
        return os.system, ("echo run > /dev/null",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a torch2trt file"),
        (b"no zip", "not a torch2trt file"),
        ({"engine": bytearray(PLAN)}, "no TRTModule"),
        ({"engine": bytearray(), "input_names": ["a"], "output_names": ["b"]}, "empty engine"),
        ([1, 2], "no TRTModule"),
        ({"engine": Evil()}, "not a torch2trt file"),
    ],
)
def test_wrong_files(tmp_path, content, message):
    path = tmp_path / "wrong.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(EngineError, match=message):
        read_module(path)
    with pytest.raises(EngineError, match="no engine file"):
        read_module(tmp_path / "missing.pth")


def test_encoder_and_decoder_changed_places(tmp_path, tiny):
    for part in ("encoder", "decoder"):
        write_module(tmp_path / f"{part}.pth", TrtModule(PLAN, *NAMES[part]))
    done = call("engine", "import", tmp_path / "decoder.pth", tmp_path / "encoder.pth", "--weights", tiny)
    assert done.status == 6
    assert "decoder.pth is no encoder" in done.stderr


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_pictures_are_floats_for_torch2trt(part):
    """It knows no uint8 and no bf16. The graph's pictures are those of the bytes, as whole numbers."""
    pytest.importorskip("onnx", reason="needs onnx")
    ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    from engines.onnx_export import export_part

    weights = golden_weights(narrow(size=64, num_down=3))
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    found = []
    for kind, as_float in ((np.uint8, False), (np.float32, True)):
        graph = export_part(weights, part, "fp32", float_pictures=as_float)
        session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        given = {"images": pictures.astype(kind)}
        if part == "decoder":
            rows = [[d if isinstance(d, int) else 1 for d in value.shape] for value in session.get_inputs()]
            values = np.random.default_rng(1)
            given = {
                value.name: values.standard_normal(shape).astype(np.float32)
                for value, shape in zip(session.get_inputs(), rows, strict=True)
            }
        (result,) = session.run(None, given)
        assert part == "encoder" or result.dtype == kind
        found.append(result)
        assert {p.key: p.value for p in graph.metadata_props}["images"].startswith(np.dtype(kind).name)
    assert np.array_equal(found[0], found[1])


def test_export(tmp_path, monkeypatch):
    """What is written for torch2trt was compiled of graphs with float pictures."""
    pytest.importorskip("onnx", reason="needs onnx")
    from engines.export import export

    graphs = []
    monkeypatch.setattr("engines.tensorrt_build.import_tensorrt", lambda name: None)
    monkeypatch.setattr(
        "engines.tensorrt_engine.build_engine", lambda trt, graph, **_: graphs.append(graph) or PLAN
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    weights = golden_weights(narrow(size=64, num_down=3))
    files = export(weights, tmp_path, name="gnr", form="torch2trt", precision="fp16")
    assert [read_module(file).input_names for file in files] == [("images",), ("content", "style")]
    encoder, decoder = graphs
    floats = [encoder.graph.input[0], decoder.graph.output[0]]
    assert [value.type.tensor_type.elem_type for value in floats] == [1, 1]
    with pytest.raises(EngineError, match="knows no bf16"):
        export(weights, tmp_path, name="gnr", form="torch2trt", precision="bf16")
