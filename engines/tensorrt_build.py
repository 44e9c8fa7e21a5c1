"""ONNX to TensorRT engine: TensorRT 10 and 11 and TensorRT for RTX in one code path. Needs no GPU for RTX.

Networks are strongly typed, so precision is that of the ONNX graph: TensorRT 11 knows nothing else.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from engines.cuda_graph import no_recording
from engines.devices import numbered
from engines.errors import BuildCancelled, EngineError
from engines.files import write_atomically
from engines.installation import install_line

if TYPE_CHECKING:
    import onnx

log = logging.getLogger(__name__)

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx", "torch2trt": "tensorrt"}
EXTRAS = {"tensorrt": "gpu", "tensorrt-rtx": "tensorrt-rtx", "torch2trt": "gpu"}
OLDEST = 10
RTX_TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
"""GPUs that TensorRT for RTX compiles for, where its version knows them: Turing to Blackwell."""

Progress = Callable[[str, float], bool]
"""Called with what is being done and how much of the whole is (0 to 1), from any thread; False cancels."""


class BuildOptions(TypedDict, total=False):
    """What `build_engine` takes besides; see there."""

    batch: int
    targets: Sequence[str]
    device: str
    timing_cache: Path | None


def import_tensorrt(name: str) -> Any:
    """The Python module behind the engine `name`.

    Raises:
        EngineError: not installed, broken, or older than TensorRT 10.
    """
    if find_spec(MODULES[name]) is None:
        raise EngineError(f"{MODULES[name]} is not installed", install_line(EXTRAS[name]))
    try:
        trt = import_module(MODULES[name])
    except Exception as error:  # missing libraries come as anything
        raise EngineError(
            f"{MODULES[name]} cannot be imported: {error}", install_line(EXTRAS[name])
        ) from error
    if name != "tensorrt-rtx" and int(trt.__version__.split(".")[0]) < OLDEST:
        raise EngineError(f"TensorRT {trt.__version__} is too old", f"it takes {OLDEST} or newer")
    return trt


@cache
def logger_of(trt: Any) -> Any:
    """TensorRT's messages to `logging`: one a process, as TensorRT keeps the first that it gets for ever.

    `errors` numbers them, and keeps the latest for exceptions to quote (`what_went_wrong`).
    """

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.count = 0
            self.errors: deque[tuple[int, str]] = deque(maxlen=20)

        def log(self, severity: Any, message: str) -> None:
            bad = severity <= trt.ILogger.Severity.ERROR
            # Not as errors: what counts is whether there is an engine in the end, and that raises.
            log.log(logging.INFO if bad else logging.DEBUG, "%s", message)
            if bad:
                self.count += 1
                self.errors.append((self.count, message))

    return Logger()


def begin(trt: Any, kind: Callable[[Any], Any]) -> Any:
    """A builder or a runtime of TensorRT.

    Raises:
        EngineError: it does not begin here, as with a driver, or a CUDA, that it is not made for.
    """
    logger = logger_of(trt)
    since = logger.count
    try:
        return kind(logger)
    except Exception as error:  # the bindings' own, which says nothing
        import torch

        raise EngineError(
            f"{trt.__name__} {trt.__version__} does not begin: {what_went_wrong(logger, since)}",
            f"it has to be made for the CUDA of the driver; torch's is {torch.version.cuda or 'none'}",
        ) from error


def what_went_wrong(logger: Any, since: int) -> str:
    """First line of TensorRT's latest error after the one of that number (`logger.count`), from any thread."""
    said = [message.strip() for number, message in list(logger.errors) if number > since]
    return said[-1].splitlines()[0][:300] if said and said[-1] else "it does not say why"


def _make_monitor(trt: Any, progress: Progress, stop: threading.Event) -> Any:
    class Monitor(trt.IProgressMonitor):
        """Phases are nested: a phase's share of the whole is its step's share of its parent."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, tuple[str | None, int, int]] = {}
            self.shown = 0.0
            self.lock = threading.Lock()

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            with self.lock:
                self.phases[name] = (parent, max(steps, 1), 0)
            self._tell(name)

        def phase_finish(self, name: str) -> None:
            with self.lock:
                self.phases.pop(name, None)

        def step_complete(self, name: str, step: int) -> bool:
            with self.lock:
                if name in self.phases:
                    parent, steps, _ = self.phases[name]
                    self.phases[name] = (parent, steps, min(step + 1, steps))
            return self._tell(name)

        def _tell(self, name: str) -> bool:
            with self.lock:
                done, at = 0.0, name
                while at in self.phases:
                    parent, steps, complete = self.phases[at]
                    done = min((complete + done) / steps, 1.0)
                    at = parent or ""
                self.shown = max(self.shown, done)
            try:
                if not progress(name, self.shown):
                    stop.set()
            except Exception as error:  # must not travel through TensorRT's own code
                log.warning("the build is stopped, its progress cannot be told: %s", error)
                stop.set()
            return not stop.is_set()

    return Monitor()


def build_engine(
    trt: Any,
    graph: onnx.ModelProto,
    *,
    batch: int = 1,
    targets: Sequence[str] = (),
    device: str = "",
    timing_cache: Path | None = None,
    progress: Progress | None = None,
) -> bytes:
    """Compile a graph of `engines.onnx_export`.

    TensorRT works on a thread of its own, so that Ctrl-C is heard at once: it then ends at its next step.

    Args:
        trt: from `import_tensorrt`.
        graph: strongly typed; its dynamic batch becomes the fixed `batch`.
        targets: compute capabilities to compile for ahead of time, of `RTX_TARGETS` (TensorRT for RTX only,
            needs no GPU); none: the GPU that is there.
        device: "cuda:N" of the GPU that it is compiled and timed on; "": the caller's current one, if any.
        timing_cache: file that TensorRT's kernel timings are kept in; the next build is quicker.
        progress: see `Progress`.

    Returns:
        The serialised engine.

    Raises:
        EngineError: it cannot be compiled; the message quotes TensorRT. BuildCancelled: by `progress`.
        KeyboardInterrupt: Ctrl-C, after TensorRT has ended.
    """
    begun, stop, ended = threading.Event(), threading.Event(), threading.Event()
    outcome: list[bytes | BaseException] = []
    on_device = _on_device(device)

    def work() -> None:
        begun.wait()
        try:
            with on_device, no_recording():
                outcome.append(_build(trt, graph, batch, targets, timing_cache, progress, stop))
        except BaseException as error:
            outcome.append(error)
        finally:
            ended.set()

    worker = threading.Thread(target=work, name="gnr-video tensorrt", daemon=True)
    # Not by joining: a thread whose join was interrupted counts as stopped, running or not (Python 3.11).
    try:
        worker.start()
        begun.set()
        while not ended.wait(0.1):
            pass
    except BaseException:
        stop.set()
        begun.set()
        # An interrupt in `start` may have come before there was a thread, or before it said so.
        while not ended.wait(1.0) and worker.ident is not None:
            pass
        raise
    finally:
        if worker.ident is not None:
            worker.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _on_device(device: str) -> AbstractContextManager[Any]:
    """CUDA's current device is each thread's own, and the first GPU on a new thread: for TensorRT's to enter."""
    import torch

    if not torch.cuda.is_available():
        return nullcontext()
    return torch.cuda.device(numbered(device or "cuda"))


def _build(
    trt: Any,
    graph: onnx.ModelProto,
    batch: int,
    targets: Sequence[str],
    timing_cache: Path | None,
    progress: Progress | None,
    stop: threading.Event,
) -> bytes:
    logger = logger_of(trt)
    since = logger.count

    def fail(what: str) -> EngineError:
        if stop.is_set():
            return BuildCancelled("the build was stopped")
        return EngineError(
            f"{trt.__name__} {trt.__version__} cannot {what}: {what_went_wrong(logger, since)}"
        )

    builder = network = parser = config = monitor = timings = None
    try:
        builder = begin(trt, trt.Builder)
        # From TensorRT 11 on every network is strongly typed and the flag is on its way out.
        flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        network = builder.create_network(0 if flag is None else 1 << int(flag))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(graph.SerializeToString()):
            raise fail("read the graph")
        for i in range(network.num_inputs):
            tensor = network.get_input(i)
            tensor.shape = (batch, *tuple(tensor.shape)[1:])
        config = builder.create_builder_config()
        if targets:
            _set_targets(trt, config, targets)
        monitor = _make_monitor(trt, progress or (lambda *_: True), stop)
        config.progress_monitor = monitor
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # in TensorRT for RTX timings do nothing
            timings = _set_timings(config, timing_cache)
            plan = builder.build_serialized_network(network, config)
            if plan is None:
                raise fail("compile the network")
            if timing_cache is not None and timings is not None:
                try:
                    timing_cache.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(timing_cache, bytes(config.get_timing_cache().serialize()))
                except Exception as error:  # it only saves time
                    log.info("timings are not kept: %s", error)
        return bytes(plan)
    finally:
        # Users before what they use. Left to a traceback's frames and the garbage collector, which knows no
        # order, a cancelled build could crash the process.
        del timings, config, monitor, parser, network, builder


def check_target(trt: Any, target: str) -> None:
    """Whether TensorRT for RTX knows GPUs of that compute capability, "sm86".

    Raises:
        EngineError: it does not, or `trt` is another TensorRT.
    """
    known = getattr(trt, "ComputeCapability", None)
    if known is None:
        raise EngineError("only TensorRT for RTX compiles ahead of time", "use --engine tensorrt-rtx")
    if not hasattr(known, target.upper()):
        targets = [name for name in RTX_TARGETS if hasattr(known, name.upper())]
        raise EngineError(
            f"TensorRT for RTX {trt.__version__} does not compile for {target}",
            f"it does for {', '.join(targets)}; for other GPUs there is --engine tensorrt",
        )


def _set_targets(trt: Any, config: Any, targets: Sequence[str]) -> None:
    known = trt.ComputeCapability
    for target in targets:
        check_target(trt, target)
    config.num_compute_capabilities = len(targets)
    for i, target in enumerate(targets):
        config.set_compute_capability(getattr(known, target.upper()), i)


def _set_timings(config: Any, path: Path | None) -> Any:
    if path is None:
        return None
    blob = path.read_bytes() if path.is_file() else b""
    timings = config.create_timing_cache(blob)
    if timings is None or not config.set_timing_cache(timings, False):
        timings = config.create_timing_cache(b"")  # of another version, or damaged
        if timings is not None:
            config.set_timing_cache(timings, False)
    return timings
