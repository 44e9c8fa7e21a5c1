"""Engines move to and from torch2trt's TRTModule files.

Device: CPU. TRTModule itself needs TensorRT and a GPU: that test skips without them.
"""

from __future__ import annotations

import os
from collections import OrderedDict

import pytest
import torch

from engines.errors import EngineError
from engines.torch2trt_engine import NAMES, TrtModule, own_converter, read_module, write_module
from tests.cli_helpers import call

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


@pytest.mark.skipif(not own_converter(), reason="needs torch2trt and TensorRT 10")
def test_its_own_converter(tmp_path):
    import torch2trt

    from engines.torch2trt_engine import convert
    from tests.golden import golden_weights, narrow

    plan = convert(golden_weights(narrow(size=64, num_down=3)), "encoder", "fp16")
    write_module(tmp_path / "encoder.pth", TrtModule(plan, *NAMES["encoder"]))
    module = torch2trt.TRTModule()
    module.load_state_dict(torch.load(tmp_path / "encoder.pth", weights_only=False))
    assert module(torch.zeros((1, 64, 64, 3), dtype=torch.uint8, device="cuda")).shape[0] == 1
