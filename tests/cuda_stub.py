"""CUDA's streams, events and graphs on the CPU, so that the engines for GPUs run where there is none.

Tensors "on the GPU" are in the CPU's memory. Which stream every operation was enqueued on is written down, a graph
holds the operations of its recording and does them again in the same memory, and, as torch does, every recording
writes to tensors that belong to all graphs of the process. Kernels and their asynchrony are not imitated.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Stream:
    def __init__(self, stub: CudaStub, number: int) -> None:
        self.stub, self.cuda_stream = stub, number

    def synchronize(self) -> None:
        self.stub.forbid_while_recording("a stream is synchronised", by_others=False)

    def wait_stream(self, other: Stream) -> None:
        pass

    def record_event(self, *_: object) -> None:
        pass

    def __repr__(self) -> str:
        return f"stream {self.cuda_stream}"


class Event:
    def __init__(self, **_: object) -> None:
        pass

    def record(self, stream: Stream) -> None:
        pass

    def synchronize(self) -> None:
        pass


class Graph:
    def __init__(self) -> None:
        self.operations: list = []
        self.replays = 0
        self.benchmarked = False
        """Whether cuDNN took the kernels that it found the fastest."""

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad():
            for operation in self.operations:
                operation()


class CudaStub:
    """What the tests look at.

    Attributes:
        streams_of: thread's name -> streams that its operations ran on, as far as within `torch.cuda.stream`.
        graphs: those that were recorded.
        devices: (thread's name, device) of every `torch.cuda.device` that was entered.
        refuse: a RuntimeError's text that recordings end in; "" for none.
        capability, name: of the GPU.
    """

    def __init__(self) -> None:
        self.default = Stream(self, 0)
        self.here = threading.local()
        self.streams_of: dict[str, set[Stream]] = {}
        self.graphs: list[Graph] = []
        self.devices: list[tuple[str, str]] = []
        self.recording: list[threading.Thread] = []
        self.refuse = ""
        self.capability, self.name = (8, 6), "a stand-in"
        self.philox: torch.Tensor | None = None
        self.count = 0

    def current(self) -> Stream:
        return getattr(self.here, "stream", self.default)

    def graph(self) -> Graph | None:
        """The graph that this thread records."""
        return getattr(self.here, "graph", None)

    def forbid_while_recording(self, what: str, *, by_others: bool = True) -> None:
        if self.graph() is not None or (by_others and self.recording):
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing: {what}")

    def new_stream(self, *_: object) -> Stream:
        self.count += 1
        return Stream(self, self.count)

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.here.stream = self.current(), stream
        watched, self.here.watched = getattr(self.here, "watched", False), True
        try:
            with contextlib.nullcontext() if watched else _Watch(self):
                yield
        finally:
            self.here.stream, self.here.watched = before, watched

    @contextlib.contextmanager
    def device(self, device: object) -> Iterator[None]:
        self.devices.append((threading.current_thread().name, str(device)))
        yield

    @contextlib.contextmanager
    def capture(self, graph: Graph, *, stream: Stream, capture_error_mode: str = "global") -> Iterator[None]:
        if capture_error_mode != "thread_local":
            raise RuntimeError("another thread's cudaMalloc ends a recording in this mode")
        if self.philox is None:
            self.philox = torch.empty(1)
        self.philox.fill_(0)  # as torch's random number generator does
        self.recording.append(threading.current_thread())
        self.here.graph, graph.benchmarked = graph, torch.backends.cudnn.benchmark
        try:
            with self.stream(stream):
                yield
            if self.refuse:
                raise RuntimeError(self.refuse)
            self.graphs.append(graph)
        finally:
            self.here.graph = None
            self.recording.remove(threading.current_thread())


class _Watch(TorchDispatchMode):
    def __init__(self, stub: CudaStub) -> None:
        super().__init__()
        self.stub = stub

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.stub.streams_of.setdefault(threading.current_thread().name, set()).add(self.stub.current())
        graph = self.stub.graph()
        if graph is not None:

            def again() -> None:
                found = func(*args, **kwargs)
                if isinstance(out, torch.Tensor) and found.data_ptr() != out.data_ptr():
                    out.copy_(found)

            graph.operations.append(again)
        return out


def install(monkeypatch) -> CudaStub:
    """Put it in torch's place until the test ends."""
    stub = CudaStub()

    def on_cpu(function):
        def call(*args, **kwargs):
            kwargs.pop("pin_memory", None)
            if str(kwargs.get("device", "")).startswith("cuda"):
                kwargs["device"] = "cpu"
            args = ["cpu" if isinstance(a, str | torch.device) and str(a)[:4] == "cuda" else a for a in args]
            return function(*args, **kwargs)

        return call

    for owner, name in ((torch, "zeros"), (torch.Tensor, "to"), (torch.nn.Module, "to")):
        monkeypatch.setattr(owner, name, on_cpu(getattr(owner, name)))
    monkeypatch.setattr(torch.Tensor, "cpu", torch.Tensor.clone)  # what is fetched is the caller's own
    cuda = {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "current_device": lambda: 0,
        "get_device_capability": lambda *_: stub.capability,
        "get_device_name": lambda *_: stub.name,
        "device": stub.device,
        "stream": stub.stream,
        "current_stream": lambda *_: stub.current(),
        "Stream": stub.new_stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "graph": stub.capture,
        "synchronize": lambda *_: stub.forbid_while_recording("the device is synchronised"),
    }
    for name, value in cuda.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return stub
