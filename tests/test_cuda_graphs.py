"""The engines for GPUs, run on a stand-in for CUDA's streams and graphs (`tests.cuda_stub`).

Device: CPU. TensorRT's own part is played by the graphs in torch, which read and write the addresses that are bound.
"""

from __future__ import annotations

import ctypes
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import engines
from engines.cache import EngineCache
from engines.cuda_graph import no_recording
from engines.graph import ContentEncoder, Decoder
from engines.torch_engine import TorchEngine
from tests.cuda_fixtures import ARCHITECTURE, STYLE, alike, crops, cuda, expected, weights


class Network:
    """An execution context: one part of the generator, at the addresses that are bound to its tensors."""

    def __init__(self, cuda, module, shapes, dtypes):
        self.cuda, self.module, self.shapes, self.dtypes = cuda, module, shapes, dtypes
        self.addresses = {}

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return name in self.shapes

    def _tensor(self, name):
        dtype, shape = self.dtypes[name], self.shapes[name]
        size = int(np.prod(shape)) * torch.empty((), dtype=dtype).element_size()
        memory = (ctypes.c_char * size).from_address(self.addresses[name])
        return torch.frombuffer(memory, dtype=dtype).view(shape)

    def execute_async_v3(self, stream):
        assert stream == self.cuda.current().cuda_stream
        *inputs, output = map(self._tensor, self.shapes)

        def run():
            with torch.no_grad():
                output.copy_(self.module(*inputs))

        run()
        if graph := self.cuda.graph():
            graph.operations.append(run)
        return True


class FakePlan:
    """As `engines.tensorrt_plan.Plan`, for pictures of 64x64, of bytes or of floats."""

    captures_itself = False

    def __init__(self, cuda, weights, part, batch, pictures):
        decoder = Decoder(weights)
        picture, content = (batch, 64, 64, 3), (batch, ARCHITECTURE.content_channels, 8, 8)
        self.shapes = {"images": picture, "content": content}
        self.module = ContentEncoder(weights)
        if part == "decoder":
            self.shapes = {"content": content, "style": (batch, sum(decoder.widths)), "images": picture}
            self.module = decoder if pictures == torch.uint8 else decoder.pictures
        self.dtypes = {"images": pictures, "content": torch.float32, "style": torch.float32}
        self.cuda = cuda

    def dtype(self, name):
        return self.dtypes[name]

    def context(self):
        return Network(self.cuda, self.module, self.shapes, self.dtypes)

    def keep_kernels(self):
        pass


@pytest.fixture
def tensorrt_engine(cuda, weights, tmp_path, monkeypatch):
    from engines.tensorrt_engine import TensorRtEngine

    def make(batch=2, pictures=torch.uint8):
        monkeypatch.setattr(
            TensorRtEngine,
            "_plan",
            lambda self, part, side: FakePlan(cuda, weights, part, batch, pictures),
        )
        return TensorRtEngine(
            weights,
            name="tensorrt",
            device="cuda:0",
            precision="fp32",
            side=64,
            batch=batch,
            trt=None,
            cache=EngineCache(tmp_path),
            key=None,
        )

    return make


def torch_engine(weights):
    return TorchEngine(weights, device="cuda:0", precision="fp32")


def test_torch_replays_graphs_of_one_and_two_pictures(cuda, weights, crops, expected):
    """Whatever the number of faces: no other graph is recorded when a third person comes."""
    with torch_engine(weights) as engine:
        engine.warm_up()
        assert len(cuda.graphs) == 2
        for count in (1, 2, 3, 5, 4):
            assert alike(engine.translate(crops[:count], STYLE), expected[:count])
        engine.set_style(STYLE)
        assert alike(engine.translate(crops[:1]), expected[:1])
        assert len(cuda.graphs) == 2 and not engine.fallback
        assert all(graph.replays and graph.benchmarked for graph in cuda.graphs)
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("pictures", [torch.uint8, torch.float32])
def test_tensorrt(cuda, tensorrt_engine, crops, expected, pictures):
    """Batches in two slots, content codes, and engines that take and give floats (torch2trt)."""
    with tensorrt_engine(pictures=pictures) as engine:
        for count in (1, 2, 3, 5):
            assert alike(engine.translate(crops[:count], STYLE), expected[:count])
        assert alike(engine.decode(engine.encode(crops), STYLE), expected)
        assert len(cuda.graphs) == 2 and all(graph.replays for graph in cuda.graphs)
        assert not engine.fallback


def test_what_tensorrt_encodes_is_joined_on_its_own_stream(cuda, tensorrt_engine, crops):
    """The stream that is waited for afterwards; on another the codes could be read before they are there."""
    with tensorrt_engine() as engine:
        cuda.streams_of.clear()
        with torch.cuda.stream(cuda.default):
            engine.encode(crops)
        assert cuda.streams_of["MainThread"] == {engine._sides[64].slots[0].stream}


@pytest.mark.parametrize("first", ["torch", "tensorrt"])
def test_recorded_within_inference_mode_and_outside(cuda, weights, tensorrt_engine, crops, expected, first):
    """torch's own tensors, made in the first recording, can be written in the second."""
    make = [lambda: torch_engine(weights), tensorrt_engine]
    if first == "tensorrt":
        make.reverse()
    with torch.inference_mode(), make[0]() as engine:
        assert alike(engine.translate(crops[:1], STYLE), expected[:1])
        assert not engine.fallback
    recorded = len(cuda.graphs)
    with make[1]() as engine:
        assert alike(engine.translate(crops[:1], STYLE), expected[:1])
        assert not engine.fallback
    assert len(cuda.graphs) > recorded


def test_buffers_made_in_inference_mode_serve_outside(cuda, weights, crops, expected):
    with torch_engine(weights) as engine:
        with torch.inference_mode():
            engine.warm_up()
        assert alike(engine.translate(crops, STYLE), expected)


@pytest.mark.parametrize("name", ["torch", "tensorrt"])
def test_without_a_graph_it_runs_and_says_so(cuda, weights, tensorrt_engine, crops, expected, name):
    cuda.refuse = "CUDA error: operation not supported\nCompile with TORCH_USE_CUDA_DSA"
    with torch_engine(weights) if name == "torch" else tensorrt_engine() as engine:
        for count in (1, 3, 1):
            assert alike(engine.translate(crops[:count], STYLE), expected[:count])
        assert engine.fallback.reason == "no CUDA graph: CUDA error: operation not supported"
        assert not cuda.graphs


def test_nothing_is_recorded_while_tensorrt_compiles(cuda, weights, crops, expected):
    """The pictures come all the same, and the graph later."""
    with torch_engine(weights) as engine:
        with no_recording():
            assert alike(engine.translate(crops[:1], STYLE), expected[:1])
            assert not cuda.graphs
        assert alike(engine.translate(crops[:1], STYLE), expected[:1])
        assert len(cuda.graphs) == 1 and not engine.fallback


def test_a_compiler_waits_for_a_recording(cuda, weights, crops, expected, monkeypatch):
    """It would synchronise the device, which a recording forbids."""
    compiled = []

    def compiles():
        with no_recording():
            torch.cuda.synchronize()
            compiled.append(True)

    compiler = threading.Thread(target=compiles)
    capture = cuda.capture

    @contextmanager
    def slow_capture(*args, **kwargs):
        with capture(*args, **kwargs):
            compiler.start()
            compiler.join(0.1)
            yield

    monkeypatch.setattr(torch.cuda, "graph", slow_capture)
    with torch_engine(weights) as engine:
        assert alike(engine.translate(crops[:1], STYLE), expected[:1])
        compiler.join(10)
        assert compiled and len(cuda.graphs) == 1 and not engine.fallback
