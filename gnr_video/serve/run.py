"""Puts the service together from the command's options: lock and address first, the network last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from engines.errors import EngineError, InputError, OutputError, interrupts
from engines.installation import install_line
from gnr_video.live.memory import share_heaps
from gnr_video.options import EngineOptions, LookOptions
from gnr_video.serve.access import Access
from gnr_video.serve.api import Api, Limits
from gnr_video.serve.folder import Folder
from gnr_video.serve.service import Service
from gnr_video.serve.store import Store
from gnr_video.serve.worker import Keeping, Worker
from gnr_video.web.address import bind, parse_address, urls_of

if TYPE_CHECKING:
    from gnr_video.translator import Translator

DEFAULT_ADDRESS = "127.0.0.1:8091"
DEFAULT_FOLDER = Path("gnr-video-jobs")
_DAY = 86400


@dataclass(frozen=True)
class ServeOptions:
    """The options of `gnr-video serve`; see its help.

    Attributes:
        host: "HOST:PORT".
        folder: of jobs, results, token.
        allow: folders whose files may be translated by their path.
        no_token: whether everybody on this machine may come.
        queue: jobs that may wait.
        max_upload, keep: GB of one upload, and of all results.
        keep_days: of results.
    """

    host: str = DEFAULT_ADDRESS
    folder: Path = DEFAULT_FOLDER
    allow: tuple[Path, ...] = ()
    allow_remote: bool = False
    no_token: bool = False
    queue: int = 100
    max_upload: float = 10.0
    keep: float = 50.0
    keep_days: float = 7.0
    weights: str | None = None
    engine: EngineOptions = EngineOptions()
    face_model: Path | None = None

    @property
    def limits(self) -> Limits:
        keeping = Keeping(round(self.keep * 1e9), round(self.keep_days * _DAY))
        return Limits(self.queue, round(self.max_upload * 1e9), keeping)


@dataclass(frozen=True)
class Serving:
    """A service that runs.

    Attributes:
        urls: where, under each of this machine's names that others may know.
        token: what requests must hold; "": nothing.
    """

    folder: Folder
    store: Store
    worker: Worker
    service: Service
    urls: list[str]
    token: str


def run_serve(options: ServeOptions, say: Callable[[str], None] = lambda text: None) -> None:
    """Serve until Ctrl-C, or another signal that ends programs.

    Args:
        say: told what the user should know, one line at a time.

    Raises:
        GnrVideoError: the folder is in use, the port, ...; each says what to do.
    """
    share_heaps()  # before there are threads
    with serving(options, say) as running:
        say("serving at " + " or ".join(running.urls))
        if running.token:
            say(f"token: in {running.folder.token_file}")
        _stay(running, say)
    _tell(running.worker, say)
    if running.service.failure is not None:
        raise running.service.failure


@contextmanager
def serving(options: ServeOptions, say: Callable[[str], None] = lambda text: None) -> Iterator[Serving]:
    """A service, for as long as the context lasts; then the job at work goes back into the queue."""
    _require_package()
    allowed = _allowed(options)
    host, port = parse_address(options.host, DEFAULT_ADDRESS, "--host")
    with ExitStack() as stack:
        folder = stack.enter_context(Folder(options.folder))
        listener = stack.enter_context(bind(host, port, allow_remote=options.allow_remote, option="--host"))
        store = stack.enter_context(Store(folder.database))
        token = "" if options.no_token else folder.token()
        worker = Worker(store, folder, _translator(options, stack), allowed, options.limits.keeping)
        access = Access(token, remote=options.allow_remote)
        worker.start()
        try:
            service = Service(listener, lambda: Api(store, folder, worker, access, options.limits, allowed))
            stack.callback(service.close)
            yield Serving(folder, store, worker, service, urls_of(*listener.getsockname()[:2]), token)
            service.close()
        finally:
            if not worker.stop():
                say("the job at work does not end; it begins again with the next start")
                stack.pop_all()  # what it works with, and the lock, stay until the program has ended


def _require_package() -> None:
    try:
        import_module("aiohttp")
    except ImportError:
        raise EngineError("the service needs aiohttp, which is not installed", install_line("web")) from None


def _allowed(options: ServeOptions) -> list[Path]:
    if options.no_token and options.allow_remote:
        raise OutputError("--no-token would let every machine in", "leave out --no-token or --allow-remote")
    for folder in options.allow:
        if not folder.is_dir():
            raise InputError(f"--allow {folder} is no folder", "name one that exists")
    return [folder.resolve() for folder in options.allow]


def _translator(options: ServeOptions, stack: ExitStack) -> Translator:
    """Slow: the network is loaded."""
    from gnr_video.translator import Translator

    look = LookOptions(face_model=options.face_model)
    return stack.enter_context(Translator(options.weights, engine=options.engine, look=look))


def _stay(running: Serving, say: Callable[[str], None]) -> None:
    """Say what happens, until it is over."""
    try:
        with interrupts():
            while not running.service.ended.wait(0.5):
                _tell(running.worker, say)
    except KeyboardInterrupt:
        say("")


def _tell(worker: Worker, say: Callable[[str], None]) -> None:
    while worker.messages:
        say(worker.messages.popleft())
