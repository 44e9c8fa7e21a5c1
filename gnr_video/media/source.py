"""VideoSource, the contract of whatever frames are read from, and what is known of it before they are read."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from gnr_video.frame import Frame
from gnr_video.media.color import ColorTags

if TYPE_CHECKING:
    import av

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceInfo:
    """What is known of an input before its frames are read.

    Attributes:
        path: as the user gave it.
        width, height: pixels, upright.
        average_rate: frames per second, None where the input does not say.
        time_base: seconds per unit of `Frame.pts`.
        duration_seconds: of the part that will be read, None where unknown.
        frame_count: an estimate of the frames that will be read, for a progress bar; None where unknown.
        codec, pix_fmt, container: FFmpeg's names ("h264", "yuv420p", "mov,mp4,m4a,3gp,3g2,mj2").
        color: the colour tags as the input has them.
        coded_height: rows as coded, before rotation; untagged colours are guessed by it.
        rotation: degrees the pictures were turned clockwise to be upright: 0, 90, 180, 270.
        sample_aspect_ratio: of an upright pixel as stored, width over height.
        stored: (width, height) where pixels are stored that are not square; frames come in square ones.
        has_alpha: whether frames may have transparency.
        fields: "top" or "bottom", the first field of interlaced frames that are left so; "" of whole ones.
        has_audio: whether there is an audio stream.
        is_still: a single picture.
        is_mixed: pictures of several sizes, which have nothing to do with each other.
        metadata: title and so on, as the container has them.
        warnings: what the user should know; grows while the input is read.
    """

    path: str
    width: int
    height: int
    average_rate: Fraction | None
    time_base: Fraction
    duration_seconds: float | None
    frame_count: int | None
    codec: str
    pix_fmt: str
    container: str
    color: ColorTags = field(default_factory=ColorTags)
    coded_height: int = 0
    rotation: int = 0
    sample_aspect_ratio: Fraction = Fraction(1)
    stored: tuple[int, int] | None = None
    has_alpha: bool = False
    fields: str = ""
    has_audio: bool = False
    is_still: bool = False
    is_mixed: bool = False
    metadata: dict[str, str] = field(default_factory=dict, compare=False)
    warnings: list[str] = field(default_factory=list, compare=False)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, upright."""
        return self.width, self.height

    def describe(self) -> str:
        """One line for people: "clip.mp4: h264 1280x720, 29.97 fps, 9.4 s, about 282 frames, audio"."""
        parts = [f"{self.codec} {self.width}x{self.height}"]
        if not self.is_still:
            if self.average_rate:
                parts.append(f"{float(self.average_rate):.4g} fps")
            if self.duration_seconds is not None:
                parts.append(f"{self.duration_seconds:.1f} s")
            if self.frame_count is not None:
                parts.append(f"about {self.frame_count} frames")
            parts.append("audio" if self.has_audio else "no audio")
        if self.stored:
            parts.append(f"stored as {self.stored[0]}x{self.stored[1]}")
        if self.has_alpha:
            parts.append("transparent")
        if self.rotation:
            parts.append(f"turned by {self.rotation} degrees")
        return f"{Path(self.path).name or self.path}: {', '.join(parts)}"


class StreamPacket(NamedTuple):
    """A packet to be copied and the index of the input stream that it is from."""

    stream: int
    packet: av.Packet[Any]


class Opening(NamedTuple):
    """Where an input's clock stands: the time of its first frame, what is taken off the input's own times; seconds."""

    first: Fraction
    clock: Fraction


class Cover(NamedTuple):
    """A cover picture: the input's stream (PyAV's) and its only packet."""

    template: Any
    packet: av.Packet[Any]


class PacketQueue:
    """Packets on their way from the source's thread to the sink's.

    It holds what lies between two pictures in the file, so that it stays as short as the file is interleaved.
    """

    def __init__(self, streams: Collection[int]) -> None:
        self.streams = frozenset(streams)
        self._packets: deque[StreamPacket] = deque()

    def put(self, item: StreamPacket) -> None:
        self._packets.append(item)

    def drain(self) -> Iterator[StreamPacket]:
        """Everything that has arrived so far, in order."""
        while True:
            try:
                yield self._packets.popleft()
            except IndexError:
                return

    def __len__(self) -> int:
        return len(self._packets)


class VideoSource:
    """An opened input: a context manager, and an iterable of `Frame` that can be gone through once.

    Frames come in presentation order, one for each that the decoder gives, with its pts. `Frame.props` holds
    "duration" (in time base units, 0 where unknown).

    Attributes:
        info: see `SourceInfo`.
    """

    info: SourceInfo

    @property
    def warnings(self) -> list[str]:
        """What the user should know; grows while frames are read. The same list as `info.warnings`."""
        return self.info.warnings

    def streams_to_copy(self) -> list[Any]:
        """The input's audio, subtitle and attachment streams (PyAV's), templates for the sink's."""
        return []

    def names(self) -> list[str]:
        """Names of the files that the frames are from, where each is from one."""
        return []

    def covers(self) -> list[Cover]:
        """Pictures that stand for the whole, as players show them."""
        return []

    def chapters(self) -> list[dict[str, Any]]:
        """Chapters on the clock of the frames, as PyAV has them."""
        return []

    def data_tracks(self) -> list[str]:
        """Names of tracks that are neither picture, sound nor text, and are not read."""
        return []

    def timecode(self) -> str:
        """The timecode of the first frame, "01:00:00:00"; "" where there is none."""
        return ""

    def opening(self) -> Opening | None:
        """Where its clock stands: with that, it can be read again from the middle. None where it cannot."""
        return None

    def attach(self, streams: Collection[int]) -> PacketQueue:
        """Ask for the packets of these streams (by index); they arrive as frames are read.

        Call it before the first frame is taken; packets nobody asked for are thrown away.
        """
        return PacketQueue(streams)

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the input. Safe to call twice."""

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
            log.warning("%s", text)
