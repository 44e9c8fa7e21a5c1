"""Puts a live session together from the command's options: camera first, then sinks, and the network last.

What is cheap to check and may fail comes before what is slow to load.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from engines.errors import GnrVideoError, InputError, OutputError, interrupts
from gnr_video.live.browsers import can_open_pages, open_page
from gnr_video.live.camera import BROWSER, Camera, PushCamera
from gnr_video.live.cameras import open_camera
from gnr_video.live.capture import Capture
from gnr_video.live.controls import Controls
from gnr_video.live.keys import HELP, TerminalKeys
from gnr_video.live.memory import share_heaps
from gnr_video.live.preview import PreviewSink, check_window, why_no_window
from gnr_video.live.recorder import Recorder, check_recording
from gnr_video.live.session import LiveSession
from gnr_video.live.sinks import LiveSink
from gnr_video.live.sound import Sound
from gnr_video.live.sound.virtual_microphone import VirtualMicrophone, check_virtual_microphone, picture_delay
from gnr_video.live.sound.voice import AUTO, NONE, Voice
from gnr_video.live.stream_cameras import without_secrets
from gnr_video.live.web import WebSink, require_packages
from gnr_video.options import EngineOptions, LookOptions
from gnr_video.report import Report
from gnr_video.styles.grammar import parse_expressions
from gnr_video.tracking.selection import FaceChoice
from gnr_video.web.address import bind, parse_address

STATUS_SECONDS = 10.0
BROWSER_SIZE = (1280, 720)


@dataclass(frozen=True)
class LiveOptions:
    """The options of `gnr-video live`; see its help.

    Attributes:
        virtual_camera: a device, "auto", or None for none.
        web: "HOST:PORT", "" for the default address, or None for none.
        no_token: whether everybody on this machine may open the page.
        open_page: whether the page is opened in the user's browser.
        stun: a STUN server for the page, "stun:HOST:PORT"; None: none is asked.
        microphone: see `Voice`.
        virtual_microphone: whether other programs get the sound, as late as the picture.
        backend: what reads the camera, see `open_camera`.
    """

    camera: str = "0"
    size: tuple[int, int] | None = None
    fps: float | None = None
    style: str | None = None
    virtual_camera: str | None = None
    preview: bool = False
    web: str | None = None
    allow_remote: bool = False
    no_token: bool = False
    open_page: bool = True
    stun: str | None = None
    record: str | None = None
    microphone: str | None = None
    virtual_microphone: bool = False
    mirror: bool = False
    weights: str | None = None
    engine: EngineOptions = EngineOptions()
    look: LookOptions = LookOptions()
    codec: str | None = None
    backend: str = "auto"
    seconds: float | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a session came to.

    Attributes:
        report: what was done.
        failure: of the first sink that failed, None where all is well: the session's exit status is that failure's.
    """

    report: Report
    failure: GnrVideoError | None


def run_live(options: LiveOptions, say: Callable[[str], None] = lambda text: None) -> Outcome:
    """Run until the user quits, `options.seconds` are over, Ctrl-C, or nothing shows the pictures any more.

    Args:
        say: told what the user should know, one line at a time.

    Raises:
        GnrVideoError: no camera, no sink, port in use, ...; each says what to do.
    """
    share_heaps()  # before there are threads
    options = _with_sinks(options, say)
    _check(options)
    with ExitStack() as stack:
        listener = _listen(options, stack)
        pushed = PushCamera()
        pushed.size = options.size or BROWSER_SIZE
        sound = Sound()
        voice = Voice(_microphone(options), sound, say)
        reopen = voice.opener(_opener(options))
        capture = _capture(options, pushed, reopen, say)
        stack.callback(capture.stop)
        voice.open(options.camera)
        stack.callback(voice.stop)
        sinks = _virtual_cameras(options, capture.camera, stack, say)
        session = _session(options, capture, stack, sound)
        recorder = Recorder(session, options.record, codec=options.codec, overwrite=options.overwrite)
        session.controls.on_record = recorder.toggle
        # From here on the session closes what it shows in, the recording first.
        stack.callback(recorder.stop)
        stack.callback(session.stop)
        for sink in sinks:
            session.add_sink(sink)
        tick = _preview(session) if options.preview else None
        if listener is not None:
            own = options.camera != BROWSER
            page = WebSink(
                session,
                listener,
                remote=options.allow_remote,
                token="" if options.no_token else None,
                recorder=recorder,
                camera=pushed,
                server_camera=reopen if own else None,
                stun=options.stun or "",
            )
            session.add_sink(page)
            say("open " + " or ".join(page.urls))
            if page.viewer_urls:
                say("to let others only watch: " + " or ".join(page.viewer_urls))
            if options.open_page and can_open_pages():
                open_page(page.url_once())
        if options.record is not None:
            say(f"recording to {recorder.start()}")
        session.start()
        voice.start()
        if options.virtual_microphone:
            _virtual_microphone(session, stack, say)
        with TerminalKeys(session.controls) as keys:
            if keys.active:
                say("keys: " + "; ".join(line.replace("  ", " ") for line in HELP))
            _stay(session, keys, options.seconds, tick, say)
        return _end(session, recorder, say)


def _with_sinks(options: LiveOptions, say: Callable[[str], None]) -> LiveOptions:
    """The same, with a window or the browser where nothing was asked for; a window that cannot be is said."""
    if options.preview:
        check_window()
    elif options.web is None and options.virtual_camera is None and options.record is None:
        reason = why_no_window()
        if not reason:
            return replace(options, preview=True)
        say(f"{reason}: showing in the browser")
        return replace(options, web="")
    return options


def _check(options: LiveOptions) -> None:
    """Raise GnrVideoError for what cannot be, before anything is opened or loaded."""
    if options.camera == BROWSER and options.web is None:
        raise InputError("--camera browser needs the page that the browser opens", "add --web")
    if options.no_token and options.allow_remote:
        raise OutputError("--no-token would let every machine in", "leave out --no-token or --allow-remote")
    if options.stun and not options.stun.startswith(("stun:", "stuns:")):
        raise OutputError(f"{options.stun!r} is no STUN server", "--stun stun:HOST:PORT")
    if options.virtual_microphone:
        if options.microphone == NONE:
            raise InputError("--virtual-microphone has nothing to play", "leave out --microphone none")
        check_virtual_microphone()
    if options.style is not None:
        parse_expressions(options.style)
    FaceChoice.parse(options.look.faces)
    if options.look.background.strip().lower() == "transparent":
        raise InputError(
            "live pictures are not transparent", "--background key, for programs that key green out"
        )
    if options.record is not None:
        check_recording(Path(options.record), options.overwrite)


def _listen(options: LiveOptions, stack: ExitStack) -> socket.socket | None:
    """Where the page is to be served, bound; None without one."""
    if options.web is None:
        return None
    require_packages()
    host, port = parse_address(options.web)
    listener = bind(host, port, allow_remote=options.allow_remote)
    stack.callback(listener.close)
    return listener


def _opener(options: LiveOptions) -> Callable[[], Camera]:
    return lambda: open_camera(options.camera, options.size, options.fps, backend=options.backend)


def _capture(
    options: LiveOptions, pushed: PushCamera, reopen: Callable[[], Camera], say: Callable[[str], None]
) -> Capture:
    """The camera, open."""
    if options.camera == BROWSER:
        say("camera: the browser's, once it gives its own")
        return Capture(pushed, lambda: pushed)
    if "://" in options.camera:
        say(f"connecting to {without_secrets(options.camera)}")
    camera = reopen()
    say(camera.describe())
    for notice in camera.notices:
        say(notice)
    return Capture(camera, reopen)


def _virtual_cameras(
    options: LiveOptions, camera: Camera, stack: ExitStack, say: Callable[[str], None]
) -> list[LiveSink]:
    if options.virtual_camera is None:
        return []
    from gnr_video.live.virtual_camera import VirtualCameraSink

    named = None if options.virtual_camera == "auto" else options.virtual_camera
    sink = VirtualCameraSink(camera.size, camera.fps or options.fps or 30.0, named)
    stack.callback(sink.close)
    say(f"virtual camera: {sink.device}")
    return [sink]


def _microphone(options: LiveOptions) -> str | None:
    return options.microphone or (AUTO if options.virtual_microphone else None)


def _session(options: LiveOptions, capture: Capture, stack: ExitStack, sound: Sound) -> LiveSession:
    """Network and session; slow."""
    from gnr_video.translator import Translator

    look = replace(options.look, hold=None, lookahead=0)
    translator = stack.enter_context(Translator(options.weights, engine=options.engine, look=look))
    controls = Controls(
        translator.engine,
        options.style,
        paste=look.paste,
        mirror=options.mirror,
        effects=translator.effects,
        face_model=translator.face_model,
    )
    return LiveSession(translator, capture, controls, hold=options.look.hold, sound=sound)


def _virtual_microphone(session: LiveSession, stack: ExitStack, say: Callable[[str], None]) -> None:
    microphone = VirtualMicrophone(
        session.sound.line, lambda: picture_delay(session.times.recent), session.messages.append
    )
    stack.callback(microphone.stop)
    microphone.start()
    say(f"virtual microphone: {microphone.title}")


def _preview(session: LiveSession) -> Callable[[], None]:
    window = PreviewSink(session)
    session.add_sink(window)
    return window.tick


def _end(session: LiveSession, recorder: Recorder, say: Callable[[str], None]) -> Outcome:
    """Stop, and say what came of it."""
    report = session.report()
    say(f"stopping: {session.status().line()}")
    session.stop()
    if recorder.current is not None:
        say(recorder.stopped())
    elif recorder.last is not None:
        say(f"recorded {recorder.last}")
    for text in session.messages:
        if session.failures and text != str(session.failures[0]):  # that one is how it ends
            say(text)
    report.warnings += [str(failure) for failure in session.failures]
    if report.tip:
        say(f"tip: {report.tip}")
    return Outcome(report, next(iter(session.failures), None))


def _stay(
    session: LiveSession,
    keys: TerminalKeys,
    seconds: float | None,
    tick: Callable[[], None] | None,
    say: Callable[[str], None],
) -> None:
    """Serve window and terminal until it is over."""
    due = time.perf_counter() + STATUS_SECONDS
    notice, helped = "", False

    def serve() -> None:
        nonlocal due, notice, helped
        if said := keys.poll():
            say(said)
        while session.messages:
            say(session.messages.popleft())
        status = session.status()
        if session.capture.notice != notice:
            notice = session.capture.notice
            say(notice or f"the camera is back: {status.camera}")
        if session.controls.help != helped:
            helped = session.controls.help
            if keys.active and helped:
                say("\n".join(HELP))
        if time.perf_counter() >= due:
            due += STATUS_SECONDS
            say(status.line())
        if tick is not None:
            tick()
        else:
            session.controls.quitting.wait(0.05)

    try:
        with interrupts():
            session.wait(seconds, serve)
    except KeyboardInterrupt:
        say("")
