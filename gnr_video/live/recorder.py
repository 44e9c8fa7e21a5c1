"""Recorder, a sink when live: pictures become a video file that is playable whenever it ends."""

from __future__ import annotations

import threading
import time
from fractions import Fraction
from pathlib import Path

from engines.errors import GnrVideoError, OutputError
from gnr_video.frame import Frame
from gnr_video.live.session import LiveSession
from gnr_video.live.sinks import ThreadedSink
from gnr_video.live.sound.line import DelayLine
from gnr_video.live.sound.track import SoundTrack
from gnr_video.media.encoders import ANIMATIONS, CONTAINERS
from gnr_video.media.open import open_sink
from gnr_video.media.sink import VideoSink
from gnr_video.media.source import SourceInfo, VideoSource

TIME_BASE = Fraction(1, 90_000)
QUEUE = 8
"""Pictures that wait for the encoder; when it is slower than the session, older ones are left out."""


class LiveInput(VideoSource):
    """What a sink wants to know of its source, for pictures that come from no file."""

    def __init__(self, size: tuple[int, int], fps: float) -> None:
        self.info = SourceInfo(
            path="",
            width=size[0],
            height=size[1],
            average_rate=Fraction(fps).limit_denominator(1001),
            time_base=TIME_BASE,
            duration_seconds=None,
            frame_count=None,
            codec="camera",
            pix_fmt="rgb24",
            container="camera",
            coded_height=size[1],
        )


class RecordSink(ThreadedSink):
    """One recording: written beside its final name in fragments, so that it can be closed at any moment.

    Args:
        path: container by extension.
        size: (width, height) of the pictures to come.
        fps: expected; times are those of the camera.
        line: the sound that belongs to the pictures; None: there is none.

    Raises:
        OutputError: the file exists, or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        fps: float,
        *,
        codec: str | None = None,
        overwrite: bool = False,
        line: DelayLine | None = None,
    ) -> None:
        check_recording(path, overwrite)
        super().__init__("recording", depth=QUEUE)
        self.path = path
        self._sink: VideoSink = open_sink(
            path,
            LiveInput(size, fps),
            codec=codec,
            overwrite=overwrite,
            live=True,
            sound=line is not None,
        )
        self._line = line
        self._sound: SoundTrack | None = None
        self._usual_seconds = 1 / fps
        self._started: float | None = None
        self._last_pts = -1

    def close(self, timeout: float = 10.0) -> None:
        """Finish the file; on a busy machine that may take longer than other sinks are given."""
        super().close(timeout)

    def deliver(self, frame: Frame) -> None:
        captured: float = frame.props["captured"]
        if self._started is None:
            self._started = captured
        pts = max(round((captured - self._started) / TIME_BASE), self._last_pts + 1)
        self._last_pts = pts
        self._sink.write(Frame(frame.image, pts, TIME_BASE, frame.index))
        if self._line is not None and self._sound is None:
            self._sound = SoundTrack(self._line, self._sink.write_sound, captured)
        if self._sound is not None:
            self._sound.advance(self._started + pts * float(TIME_BASE), time.perf_counter())

    def release(self) -> None:
        try:
            if self._sound is not None and self._started is not None and self.failure is None:
                self._sound.finish(self._started + self.seconds + self._usual_seconds)
        finally:
            self._sink.abort(keep=True)  # keeps what is there; an empty recording leaves no file

    @property
    def frames_written(self) -> int:
        return self._sink.frames_written

    @property
    def seconds(self) -> float:
        """From its first picture to its last."""
        return max(self._last_pts, 0) * float(TIME_BASE)


class Recorder:
    """Starts and stops recordings of a session, each in a file of its own."""

    def __init__(
        self,
        session: LiveSession,
        path: str | Path | None = None,
        *,
        codec: str | None = None,
        overwrite: bool = False,
    ) -> None:
        self._session = session
        self._path = None if path is None else Path(path)
        self._codec = codec
        self._overwrite = overwrite
        self._lock = threading.RLock()
        self.current: RecordSink | None = None
        self._last: Path | None = None

    @property
    def last(self) -> Path | None:
        """The file of the last recording that has ended, by itself or by failing."""
        current = self.current
        if current is not None and current.failure is not None and current.path.exists():
            return current.path
        return self._last

    @property
    def running(self) -> bool:
        """Whether pictures are being recorded: not before, not after, and not once that has failed."""
        current = self.current
        return current is not None and current.failure is None

    def start(self) -> Path:
        """Begin a recording; its name."""
        with self._lock:
            path = self._name()
            overwrite = self._overwrite and self._last is None
            fps = self._session.capture.camera.fps or 30.0
            sound = self._session.sound
            self.current = RecordSink(
                path,
                self._session.size,
                fps,
                codec=self._codec,
                overwrite=overwrite,
                line=sound.line if sound.current is not None else None,
            )
            self._session.add_sink(self.current)
        return path

    def stop(self) -> Path | None:
        """End it; the finished file, None when there was no picture to record."""
        with self._lock:
            recording, self.current = self.current, None
            if recording is None:
                return None
            self._session.remove_sink(recording)
            if not recording.frames_written or not recording.path.exists():
                return None
            self._last = recording.path
        return recording.path

    def stopped(self) -> str:
        """End it; what to tell the user of it."""
        with self._lock:
            recording = self.current
            done = self.stop()
        if done is None:
            return "nothing was recorded"
        if recording is not None and recording.failure is not None:
            return f"recorded only {recording.seconds:.1f} s, until it failed: {done}"
        return f"recorded {done}"

    def toggle(self) -> str:
        """What the record key does; returns what to tell the user."""
        with self._lock:
            if self.running:
                return self.stopped()
            self.stop()
            try:
                return f"recording to {self.start()}"
            except GnrVideoError as error:
                return str(error)

    def _name(self) -> Path:
        if self._path is None:
            return Path(time.strftime("gnr-video-%Y%m%d-%H%M%S.mp4"))
        if self._last is None:
            return self._path
        number = 2
        while (path := self._path.with_name(f"{self._path.stem}-{number}{self._path.suffix}")).exists():
            number += 1
        return path


def check_recording(path: Path, overwrite: bool) -> None:
    """Raise OutputError where a recording could not be written under this name."""
    if path.suffix.lower() not in CONTAINERS or path.suffix.lower() in ANIMATIONS:
        known = ", ".join(e for e in CONTAINERS if e not in ANIMATIONS)
        raise OutputError(f"cannot record to {path}", f"use one of {known}")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already", "give --overwrite to replace it, or another --record")
    if not path.parent.is_dir():
        raise OutputError(f"cannot record to {path}: no such folder", f"mkdir -p {path.parent}")
