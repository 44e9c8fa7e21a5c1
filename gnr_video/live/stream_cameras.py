"""Cameras that are no devices: files, paced by their own times and repeated, the sample clip, network streams."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from engines.errors import InputError
from gnr_video.channels import Latest
from gnr_video.frame import Image
from gnr_video.live.camera import Camera, CameraLost, Shot
from gnr_video.live.sound.file_sound import FileSound, has_sound
from gnr_video.live.sound.hub import Feed
from gnr_video.media.image_files import read_image
from gnr_video.media.image_sources import IMAGE_RATE, image_files
from gnr_video.media.images import fitted
from gnr_video.media.open import open_source
from gnr_video.media.source import VideoSource

log = logging.getLogger(__name__)

OPEN_SECONDS = 10.0
"""How long a camera of the network may take to answer."""
LOST_SECONDS = 6.0
"""After how long without a picture it counts as lost: a line that died half-way never says so."""
SAMPLE_SIZE, SAMPLE_FPS, SAMPLE_FRAMES = (960, 540), 30.0, 300
"""Of the sample clip, which is a closed path of ten seconds."""
_WAIT_SECONDS = 0.2
_STILL_FPS = 15  # of a picture in place of a camera
_LATE_SECONDS = 0.5  # a file's clock is set anew when decoding is behind by more


class Pace:
    """When the pictures of a file are due, by their own times; a file that has ended begins anew.

    Args:
        fps: of the file; None: unknown.
    """

    def __init__(self, fps: float | None) -> None:
        self._duration = 1 / (fps or _STILL_FPS)
        self._start: float | None = None
        self._first_pts = 0.0
        self._next_start = 0.0

    def due(self, pts_seconds: float) -> float:
        """When this picture is to be shown, on `time.perf_counter`'s clock."""
        now = time.perf_counter()
        if self._start is None:
            self._start, self._first_pts = max(now, self._next_start), pts_seconds
        due = self._start + pts_seconds - self._first_pts
        if now - due > _LATE_SECONDS or due - now > 10:  # decoding is behind, or the times leap
            self._start, self._first_pts, due = now, pts_seconds, now
        self._next_start = due + self._duration
        return due

    def rewind(self) -> None:
        """The next picture is the first one again."""
        self._start = None


class FileCamera(Camera):
    """A video, a picture or a folder of pictures, repeated, with the sound of a video.

    Pictures count as captured when they are due, not when they are decoded: sound is, too.
    """

    def __init__(self, path: str, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self._path = path
        self._close: Callable[[], None]
        self._source: VideoSource | None = None
        self._feed: Feed | None = None
        self._sound: FileSound | None = None
        self._frames = self._open()
        self.name = Path(path).name
        self._pace = Pace(self.fps)
        self._check_size(size)

    def _open(self) -> Iterator[tuple[float, Image]]:
        """Its pictures and their times."""
        if Path(self._path).is_dir():
            folder = PictureFolder(Path(self._path))
            self._close, self.size, self.fps = lambda: None, folder.size, float(IMAGE_RATE)
            return iter(folder)
        source = self._source = open_source(self._path)
        if self._feed is not None and has_sound(source):
            self._sound = FileSound(source, self._feed)
        self._close, self.size = source.close, source.info.size
        self.fps = float(source.info.average_rate) if source.info.average_rate else None
        return ((frame.pts_seconds, frame.image) for frame in source)

    def read(self, stop: threading.Event) -> Shot | None:
        found = next(self._frames, None)
        if found is None:
            if self._sound is not None:
                self._sound.finish()
            self._close()
            self._frames = self._open()
            self._pace.rewind()
            return None
        seconds, image = found
        due = self._pace.due(seconds)
        if self._sound is not None:
            self._sound.follow(seconds, due)
        if stop.wait(max(0.0, due - time.perf_counter())):
            return None
        return Shot(image, due)

    def listen(self, feed: Feed) -> bool:
        if self._source is None or not has_sound(self._source):
            return False
        self._feed, self._sound = feed, FileSound(self._source, feed)
        return True

    def close(self) -> None:
        self._close()


class SampleCamera(Camera):
    """The demo's portrait under its moving camera, for those who have neither camera nor video at hand.

    Raises:
        InputError: scikit-image, which holds the portrait, is not installed.
    """

    def __init__(self, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.name, self.size, self.fps = "sample clip", size or SAMPLE_SIZE, SAMPLE_FPS
        self._pace = Pace(self.fps)
        self._index = 0
        self._frames = self._begin()
        self._first: Image | None = next(self._frames)

    def _begin(self) -> Iterator[Image]:
        from gnr_video.samples.portrait import demo_frames

        return demo_frames(SAMPLE_FRAMES, self.size)

    def read(self, stop: threading.Event) -> Shot | None:
        image, self._first = self._first, None
        if image is None and (image := next(self._frames, None)) is None:
            self._frames = self._begin()
            image = next(self._frames)
        due = self._pace.due(self._index / SAMPLE_FPS)
        self._index += 1
        if stop.wait(max(0.0, due - time.perf_counter())):
            return None
        return Shot(image, time.perf_counter())

    def close(self) -> None:
        """Nothing is open."""


class PictureFolder:
    """The pictures of a folder in natural order, fitted into the size of the first; damaged ones are left out.

    As a file, a folder of several sizes is refused; a camera has to go on.
    """

    def __init__(self, folder: Path) -> None:
        with open_source(folder) as source:  # says what is wrong with it
            self.size = source.info.size
        self._files = image_files(folder)

    def __iter__(self) -> Iterator[tuple[float, Image]]:
        for index, file in enumerate(self._files):
            try:
                image = read_image(file)
            except InputError as error:
                log.debug("%s", error)
                continue
            yield index / float(IMAGE_RATE), fitted(image, self.size)


class NetworkCamera(Camera):
    """A stream of the network, read on a thread of its own: what never says that it has ended is found out by time.

    Args:
        url: rtsp, http, ...; one with a length is a file, repeated and paced.

    Raises:
        InputError: it does not answer, or is no video.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self.name = without_secrets(url)
        self._url = url
        self._slot: Latest[Shot] = Latest()
        self._opened = threading.Event()
        self._stop = threading.Event()
        self._error: InputError | None = None
        self._last = 0.0
        self._thread = threading.Thread(target=self._work, name="gnr-video stream", daemon=True)
        self._thread.start()
        if not self._opened.wait(OPEN_SECONDS):
            self._stop.set()
            raise InputError(
                f"{self.name} has not answered for {OPEN_SECONDS:.0f} s",
                "is the address right, and the camera switched on and in this network?",
            )
        if self._error is not None:
            raise self._error
        self._last = time.perf_counter()

    def read(self, stop: threading.Event) -> Shot | None:
        shot = self._slot.get(_WAIT_SECONDS)
        now = time.perf_counter()
        if shot is not None:
            self._last = now
        elif self._slot.closed:
            raise CameraLost(self._error.message if self._error else f"{self.name} has ended")
        elif now - self._last > LOST_SECONDS:
            raise CameraLost(f"{self.name} has given no picture for {LOST_SECONDS:.0f} s")
        return shot

    def close(self) -> None:
        # A thread that is stuck in the network ends with the time-out of its reads, and closes then.
        self._stop.set()
        self._thread.join(_WAIT_SECONDS)

    def _work(self) -> None:
        try:
            while not self._stop.is_set() and self._play():
                pass
        except InputError as error:
            self._error = error
        except Exception as error:  # for whoever waits for a picture
            log.debug("%s failed", self.name, exc_info=True)
            self._error = InputError(f"{self.name} has failed: {error}")
        finally:
            self._opened.set()
            self._slot.close()

    def _play(self) -> bool:
        """Read it to its end; whether it is a file, to be played again."""
        with open_source(self._url) as source:
            info = source.info
            self.size = info.size
            self.fps = float(info.average_rate) if info.average_rate else None
            pace = None if info.duration_seconds is None else Pace(self.fps)
            self._opened.set()
            for frame in source:
                wait = 0.0 if pace is None else pace.due(frame.pts_seconds) - time.perf_counter()
                if self._stop.wait(max(0.0, wait)):
                    return False
                self._slot.put(Shot(frame.image, time.perf_counter()))
            return pace is not None


def without_secrets(url: str) -> str:
    """A URL to be shown: without user, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
