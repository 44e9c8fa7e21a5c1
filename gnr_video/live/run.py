"""Puts a live session together from the command's options: camera first, then sinks, and the network last.

What is cheap to check and may fail comes before what is slow to load.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from engines.errors import InputError, interrupts
from gnr_video.live.address import bind, parse_address
from gnr_video.live.camera import BROWSER, Camera, PushCamera, open_camera
from gnr_video.live.capture import Capture
from gnr_video.live.controls import Controls
from gnr_video.live.keys import HELP, TerminalKeys
from gnr_video.live.memory import share_heaps
from gnr_video.live.recorder import Recorder, check_recording
from gnr_video.live.session import LiveSession
from gnr_video.options import EngineOptions, LookOptions
from gnr_video.report import Report
from gnr_video.styles.grammar import parse_expressions
from gnr_video.tracking.selection import FaceChoice

STATUS_SECONDS = 10.0
BROWSER_SIZE = (1280, 720)


@dataclass(frozen=True)
class LiveOptions:
    """The options of `gnr-video live`; see its help.

    Attributes:
        virtual_camera: a device, "auto", or None for none.
        web: "HOST:PORT", "" for the default address, or None for none.
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
    record: str | None = None
    mirror: bool = False
    weights: str | None = None
    engine: EngineOptions = EngineOptions()
    look: LookOptions = LookOptions()
    codec: str | None = None
    backend: str = "auto"
    seconds: float | None = None
    overwrite: bool = False


def run_live(options: LiveOptions, say: Callable[[str], None] = lambda text: None) -> Report:
    """Run until the user quits, `options.seconds` are over, or Ctrl-C.

    Args:
        say: told what the user should know, one line at a time.

    Returns:
        What was done.

    Raises:
        GnrVideoError: no camera, no sink, port in use, ...; each says what to do.
    """
    from gnr_video.live import web as web_module

    share_heaps()  # before there are threads
    preview, web = options.preview, options.web
    if not preview and web is None and options.virtual_camera is None and options.record is None:
        from gnr_video.live.preview import why_no_window

        reason = why_no_window()
        preview, web = not reason, "" if reason else None
        if reason:
            say(f"{reason}: showing in the browser")
    elif preview:
        from gnr_video.live.preview import check_window

        check_window()
    if options.camera == BROWSER and web is None:
        raise InputError("--camera browser needs the page that the browser opens", "add --web")
    if options.style is not None:
        parse_expressions(options.style)
    look = options.look
    FaceChoice.parse(look.faces)
    with ExitStack() as stack:
        if options.record is not None:
            check_recording(Path(options.record), options.overwrite)
        listener = None
        if web is not None:
            web_module.require_packages()
            host, port = parse_address(web)
            listener = bind(host, port, allow_remote=options.allow_remote)
            stack.callback(listener.close)

        pushed = PushCamera()
        pushed.size = options.size or BROWSER_SIZE

        def open_again() -> Camera:
            return open_camera(options.camera, options.size, options.fps, backend=options.backend)

        own = options.camera != BROWSER
        camera = open_again() if own else pushed
        capture = Capture(camera, open_again if own else lambda: pushed)
        stack.callback(capture.stop)
        say(camera.describe() if own else "camera: the browser's, once it gives its own")
        for notice in camera.notices:
            say(notice)

        sink = None
        if options.virtual_camera is not None:
            from gnr_video.live.virtual_camera import VirtualCameraSink

            named = None if options.virtual_camera == "auto" else options.virtual_camera
            sink = VirtualCameraSink(camera.size, camera.fps or options.fps or 30.0, named)
            stack.callback(sink.close)
            say(f"virtual camera: {sink.device}")

        from gnr_video.translator import Translator

        translator = stack.enter_context(
            Translator(
                options.weights,
                engine=options.engine,
                look=replace(look, hold=None, lookahead=0),
            )
        )
        controls = Controls(
            translator.engine,
            options.style,
            paste=look.paste,
            mirror=options.mirror,
            effects=translator.effects,
            face_model=translator.face_model,
        )
        session = LiveSession(translator, capture, controls, hold=look.hold)
        recorder = Recorder(session, options.record, codec=options.codec, overwrite=options.overwrite)
        controls.on_record = recorder.toggle
        # From here on the session closes what it shows in, the recording first.
        stack.callback(recorder.stop)
        stack.callback(session.stop)
        if sink is not None:
            session.add_sink(sink)
        tick = None
        if preview:
            from gnr_video.live.preview import PreviewSink

            window = PreviewSink(session)
            session.add_sink(window)
            tick = window.tick
        if listener is not None:
            page = web_module.WebSink(
                session,
                listener,
                remote=options.allow_remote,
                recorder=recorder,
                camera=pushed,
                server_camera=open_again if own else None,
            )
            session.add_sink(page)
            say(f"open {page.url}")
        if options.record is not None:
            say(f"recording to {recorder.start()}")
        session.start()
        with TerminalKeys(controls) as keys:
            if keys.active:
                say("keys: " + "; ".join(line.replace("  ", " ") for line in HELP))
            _stay(session, keys, options.seconds, tick, say)
        report = session.report()
        say(f"stopping: {session.status().line()}")
        session.stop()
        recorder.stop()
        if recorder.last is not None:
            say(f"recorded {recorder.last}")
        while session.messages:
            say(session.messages.popleft())
        if report.tip:
            say(f"tip: {report.tip}")
    return report


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
        if status.notice != notice:
            notice = status.notice
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
