"""LiveSession: the pipeline between a camera and the sinks of live use, and the clock on every picture.

It is the pipeline of files (`gnr_video.pipeline`) with two differences: a picture enters only when one of a few
permits is free, so that at most `IN_FLIGHT` are on their way and delay cannot build up; and every sink takes
the newest picture on a thread of its own, so that no sink holds up the others.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from fractions import Fraction
from types import TracebackType
from typing import Any

import numpy as np

from engines.errors import GnrVideoError
from gnr_video import pipeline
from gnr_video.channels import Cancelled, Threaded
from gnr_video.frame import Frame, Image, Layered
from gnr_video.hold import DrawingsAhead
from gnr_video.live.camera import Shot
from gnr_video.live.capture import Capture
from gnr_video.live.controls import Controls
from gnr_video.live.memory import give_back, share_heaps
from gnr_video.live.sinks import LiveSink
from gnr_video.live.sound import Sound
from gnr_video.live.status import FACELESS_SECONDS, WINDOW, LiveTimes, Rate, Status, limit_of, percentiles_ms
from gnr_video.live.views import Views
from gnr_video.pipeline import Counts
from gnr_video.report import Report, covered_line
from gnr_video.tracking.alignment import face_part
from gnr_video.translator import Translator

log = logging.getLogger(__name__)

IN_FLIGHT, QUICK_IN_FLIGHT = 2, 3
"""Pictures between capture and sinks: one in the tracker while another is in the network; where the camera is quick,
one more, which is pasted and shown."""
QUICK_FPS = 45.0
"""Of a quick camera: the delay of three pictures in flight is then below that of two from a usual one."""

TIME_BASE = Fraction(1, 1_000_000)
STILL_SECONDS = 0.2
"""How often the last picture is shown again while the camera is gone."""
FIRST_PICTURE_SECONDS = 10.0
"""How long a session that ends by itself waits for its first picture, before its time counts."""
TIDY_SECONDS = 20.0
"""How often freed memory is given back."""
MAX_HOLD = 3
"""Frames that a drawing is shown for at most, unless the user wants more: animation is drawn on threes at most."""
USUAL_FPS = 30.0
"""Of cameras that do not say."""


class LiveSession:
    """Runs from `start` to `stop`; a context manager that does both.

    Args:
        translator: weights, engine, paste mode. Its style is that of `controls`.
        capture: not started; the session starts and stops it.
        controls: what can be changed.
        size: (width, height) of what the sinks get; None: the camera's.
        hold: frames that a drawing of a face is shown for (`gnr_video.hold`); None: as few as keep up with the
            camera, `MAX_HOLD` at most.
        sound: what is heard with the pictures; None: nothing yet.

    Attributes:
        size: as given; pictures of another size are fitted into it.
        times: of every stage; "wait" is from the capture to the pipeline, "to NAME" from the capture to a sink.
        counts: what came through.
        failure: what ended the pipeline before its time; raised by `wait`.
        failures: of sinks, in the order of their ends.
        crop: the newest source crop of a face (uint8 SxSx3), for style sheets.
    """

    def __init__(
        self,
        translator: Translator,
        capture: Capture,
        controls: Controls,
        *,
        size: tuple[int, int] | None = None,
        hold: int | None = None,
        sound: Sound | None = None,
    ) -> None:
        self.translator = translator
        self.capture = capture
        self.controls = controls
        self.size = size or capture.camera.size
        self.hold = hold
        self._views = Views(translator, controls, self.size)
        self.sound = sound or Sound()
        self.times = LiveTimes()
        self.counts = Counts()
        self.failure: BaseException | None = None
        self.crop: Image | None = None
        self.failures: list[GnrVideoError] = []
        self.messages: deque[str] = deque(maxlen=100)
        self._sinks: list[LiveSink] = []
        self._failed: set[LiveSink] = set()
        self._sinks_lock = threading.Lock()
        quick = (capture.camera.fps or USUAL_FPS) >= QUICK_FPS
        self._permits = threading.Semaphore(QUICK_IN_FLIGHT if quick else IN_FLIGHT)
        self._stopping = threading.Event()
        self._shown = Rate()
        self._face_at = -math.inf
        self._latencies: deque[float] = deque(maxlen=WINDOW)
        self._stages: list[Threaded[Any]] = []
        self._drawings = DrawingsAhead(translator.engine, translator.effects, self.times)
        self._thread = threading.Thread(target=self._present, name="gnr-video present", daemon=True)
        self._started = self._tidied = self._seconds = 0.0

    def add_sink(self, sink: LiveSink) -> None:
        """Show pictures in `sink` from now on; it is closed by `remove_sink` or `stop`."""

        def latency(seconds: float) -> None:
            self.times.add(f"to {sink.name}", seconds)
            self._latencies.append(seconds)

        sink.latency = latency
        with self._sinks_lock:
            self._sinks.append(sink)

    def remove_sink(self, sink: LiveSink) -> None:
        with self._sinks_lock:
            if sink in self._sinks:
                self._sinks.remove(sink)
        sink.close()
        self._note_failure(sink)

    @property
    def sinks(self) -> list[LiveSink]:
        with self._sinks_lock:
            return list(self._sinks)

    # -- running

    def start(self) -> None:
        """Start all threads; returns at once."""
        from gnr_video.tracking.finder import Finder

        share_heaps()
        private = self.translator.private
        self._finder = Finder(self.translator.face_model, self.translator.faces, private=private)
        self._look = self.translator.open_look(any_paste=True, live=True)
        size = self.translator.crop_side
        styles = self.controls.styles
        codes = None if styles is None else styles.codes_at(0.0, [0])
        self.translator.engine.translate(np.full((1, size, size, 3), 127, np.uint8), codes)  # compiled now
        tracked = pipeline.track(self._frames(), self._finder, self._look, self.times)
        self._stages = [Threaded(tracked, "track")]
        self._stages.append(Threaded(self._translate(self._stages[0]), "translate"))
        self._started = self._tidied = time.perf_counter()
        self.capture.start()
        self._thread.start()

    def wait(self, seconds: float | None = None, tick: Callable[[], None] | None = None) -> None:
        """Stay until something ends the session: `quit`, `stop` on another thread, a failure, or the time.

        Args:
            seconds: at most so long from the first picture on, which a slow machine takes a while for; None: no limit.
            tick: called again and again on this thread (a window must be served on the main thread).

        Raises:
            Whatever the pipeline failed with.
        """
        counts_from = math.inf if seconds is None else time.perf_counter() + FIRST_PICTURE_SECONDS
        while not (self._stopping.is_set() or self.controls.quitting.is_set()):
            now = time.perf_counter()
            if self.counts.frames:
                counts_from = min(counts_from, now)
            if seconds is not None and now >= counts_from + seconds:
                break
            if tick is not None:
                tick()
            else:
                self.controls.quitting.wait(0.05)
            self._watch_sinks()
            if self._failed and all(sink.failure for sink in self.sinks):
                break  # nothing shows the pictures any more
            if time.perf_counter() - self._tidied > TIDY_SECONDS:
                give_back()
                self._tidied = time.perf_counter()
        failure = self.failure or self.capture.failure
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """End all threads, close sinks and camera; takes well below a second. May be called twice."""
        if self._started and not self._seconds:
            self._seconds = time.perf_counter() - self._started
        self._stopping.set()
        self.capture.latest.close()
        for stage in self._stages:
            stage.cancel()
        # Files first: whatever else hangs, a recording is whole.
        for sink in sorted(self.sinks, key=lambda sink: sink.name != "recording"):
            sink.close()
        self._watch_sinks()
        with self._sinks_lock:
            self._sinks.clear()
        self.capture.stop()
        if self._thread.ident is not None:
            self._thread.join(0.5)
        for stage in reversed(self._stages):
            stage.close(0.5)
        if self._started:
            self._started = 0.0
            if any(stage.alive for stage in self._stages):  # a slow machine is within the network still
                threading.Thread(target=self._let_go, name="gnr-video end", daemon=True).start()
            else:
                self._let_go()

    def _let_go(self) -> None:
        """Close what the stages used, once none of them does: not under its user."""
        for stage in reversed(self._stages):
            stage.close()
        self._finder.close()
        self._drawings.close(0.5)
        self._look.close()

    def __enter__(self) -> LiveSession:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def status(self) -> Status:
        """How it is doing just now."""
        fps, given = self._shown(), self.capture.rate()
        return Status(
            fps,
            fps / self._drawings.hold,
            *percentiles_ms(list(self._latencies)),
            self.capture.latest.dropped,
            limit_of(fps, given, self.times.recent),
            self.controls.notice or self.capture.notice,
            self.capture.camera.describe(),
            given,
            time.perf_counter() - self._face_at < FACELESS_SECONDS,
            covered_line(dict(self.counts.covered)),
        )

    def report(self) -> Report:
        """What the session did, with the time of every stage."""
        engine = self.translator.engine
        return Report(
            source=self.capture.camera.name,
            target=", ".join(sink.name for sink in self.sinks),
            frames=self.counts.frames,
            faces=self.counts.faces,
            frames_without_face=self.counts.frames_without_face,
            covered=dict(self.counts.covered),
            seconds=self._seconds or time.perf_counter() - self._started,
            stages=self.times.summary(),
            engine=f"{engine.name} {engine.precision} on {engine.device}",
            weights=self.translator.weights_name,
            style=self.controls.style_label,
            fallbacks=[str(engine.fallback)] if engine.fallback else [],
            settings={
                "size": f"{self.size[0]}x{self.size[1]}",
                "hold": self.hold or "auto",
                "private": self.translator.private,
                "camera_frames": self.capture.frames,
                "dropped": self.capture.latest.dropped,
                "reconnects": self.capture.reconnects,
            },
        )

    # -- the stages, each on its own thread

    def _frames(self) -> Generator[Frame, None, None]:
        """Pictures as the pipeline has room for them; the last one again while the camera is gone."""
        last: Shot | None = None
        index = 0
        while not self._stopping.is_set():
            if not self._permits.acquire(timeout=0.2):
                continue
            shot = self.capture.latest.get(STILL_SECONDS)
            if shot is None:
                if self.capture.latest.closed or last is None or not self.capture.may_repeat(last):
                    self._permits.release()
                    if self.capture.latest.closed:
                        return
                    continue
                shot = Shot(last.image, time.perf_counter())
            last = shot
            self.times.add("wait", max(0.0, time.perf_counter() - shot.captured))
            pts, props = round(shot.captured / TIME_BASE), {"captured": shot.captured, "source": shot.image}
            yield Frame(shot.image, pts, TIME_BASE, index, props)
            index += 1

    def _translate(self, items: Iterable[Layered]) -> Generator[Layered, None, None]:
        """Cut and draw under the styles of the moment; for the grid, one face under several."""
        waiting: deque[Layered] = deque(maxlen=1)
        cut = pipeline.cut(_each(waiting), self._look, self.times)
        drawn = pipeline.draw(cut, self._look, self._drawings, self.times, styles=self.controls.styles)
        for item in items:
            if item.faces:
                self._face_at = time.perf_counter()
            self._drawings.hold = self.hold or self._enough()
            prepared, crop = self._views.prepared(item, self.times)
            self.crop = self.crop if crop is None else crop
            waiting.append(prepared)
            done = next(drawn)
            if done.faces and done.faces[0].crop is not None:
                self.crop = face_part(done.faces[0].crop, self.translator.engine.size)
            yield done

    def _enough(self) -> int:
        """How many frames a drawing has to be shown for, to keep up with the camera."""
        recent = self.times.recent
        seconds = sum(recent.get(stage, 0.0) for stage in ("crop", "matte", "network"))
        frames = seconds * (self.capture.camera.fps or USUAL_FPS)
        # Once there is a thread for it, the network is slower: not back and forth.
        is_enough = frames <= (1.0 if self._drawings.hold == 1 else 0.8)
        return 1 if is_enough else min(max(math.ceil(frames), 2), MAX_HOLD)

    def _present(self) -> None:
        """Compose, and hand the pictures to the sinks."""
        try:
            compositor = self.translator.compositor
            for item in pipeline.compose(self._stages[-1], self._look, self.times):
                self.counts.add(item)
                frame = item.frame
                picture, why = self._views.shown(item)
                if why:
                    self.counts.cover(why)
                frame = Frame(picture, frame.pts, frame.time_base, frame.index, frame.props)
                self._shown.count()
                for sink in self.sinks:
                    if sink.failure is None:
                        sink.show(frame)
                self._permits.release()
                compositor.mode = self.controls.paste
                for effects in (self.translator.effects, self._views.effects):
                    self.controls.hand_to(effects)
        except Cancelled:
            pass
        except BaseException as error:
            if not self._stopping.is_set():
                self.failure = error
                log.debug("the pipeline failed", exc_info=True)
        finally:
            self._stopping.set()

    def _watch_sinks(self) -> None:
        for sink in self.sinks:
            self._note_failure(sink)

    def _note_failure(self, sink: LiveSink) -> None:
        if sink.failure is not None and sink not in self._failed:
            self._failed.add(sink)
            self.failures.append(sink.failure)
            self.controls.say(str(sink.failure), stays=True)
            self.messages.append(str(sink.failure))


def _each(waiting: deque[Layered]) -> Iterator[Layered]:
    """What is put into `waiting`, one for each that is asked for."""
    while waiting:
        yield waiting.popleft()
