"""Packets of a video stream become pictures whose times increase (part of the container source)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from engines.errors import InputError
from gnr_video.media.stream_facts import frame_rate, unit_of

_UNTIMED = 32  # pictures that may wait for the first that has a time
_CAPTIONS = b"GA94\x03"  # how ATSC's A/53 begins them in what H.264, HEVC and MPEG-2 leave to users


class PictureDecoder:
    """Decodes a video stream; what is damaged is left out, and said.

    Args:
        path: the input, for messages.
        stream: the video stream (PyAV's).
        is_avi: whether it is from an AVI.
        warn: called with what the user should know.

    Attributes:
        name: of the decoder, as FFmpeg has it.
        errors: packets that could not be decoded so far.
        has_captions: whether pictures carry closed captions, as far as the packets up to the first say.
    """

    def __init__(self, path: str, stream: Any, *, is_avi: bool, warn: Callable[[str], None]) -> None:
        self._path, self._stream, self._is_avi, self._warn = path, stream, is_avi, warn
        self._time_base = unit_of(stream)
        self._context = _context(stream)
        self._last_pts: int | None = None
        self._untimed: list[Any] = []
        self.errors = 0
        self.has_captions = False

    @property
    def name(self) -> str:
        return str(self._context.name)

    def restart(self) -> None:
        """Forget the times of what was decoded: other packets follow."""
        self._last_pts, self._untimed = None, []

    def decode(self, packet: Any) -> Iterator[Any]:
        """Take a packet in, None after the last; pictures that are ready come out, each with a pts.

        The first may come without times, and get theirs from the first that has one.

        Raises:
            InputError: the packet is encrypted, as those of films with copy protection are.
        """
        if packet is not None and packet.has_sidedata("encryption_info"):
            raise InputError(f"{self._path} is encrypted (DRM)", "give a copy without copy protection")
        if packet is not None and self._last_pts is None:
            # Not off pictures' side data, of which PyAV frees some twice.
            self.has_captions |= _CAPTIONS in bytes(packet)
        for picture in self._pictures(packet):
            self._untimed.append(picture)
            pts = picture.pts if picture.pts is not None else picture.dts
            if self._last_pts is None and pts is None and len(self._untimed) < _UNTIMED:
                continue
            if self._last_pts is None and pts is not None:
                self._last_pts = pts - len(self._untimed) * self._step(picture)
            yield from self._timed()
        if packet is None:
            yield from self._timed()

    def _timed(self) -> Iterator[Any]:
        waiting, self._untimed = self._untimed, []
        for picture in waiting:
            self._set_pts(picture)
            yield picture

    def _pictures(self, packet: Any) -> list[Any]:
        """Pictures with the times that they come with."""
        import av

        try:
            pictures: list[Any] = self._context.decode(packet)
        except av.error.EOFError:
            return []
        except (av.FFmpegError, ValueError) as error:
            self.errors += 1
            reason = getattr(error, "strerror", None) or str(error)
            self._warn(f"{self._path} is damaged ({reason}): what can be decoded is used")
            return []
        if self._is_avi:
            # It holds no display times; FFmpeg's guesses of them are wrong where pictures are coded out of order.
            for picture in pictures:
                picture.pts = picture.dts
        return pictures

    def _set_pts(self, picture: Any) -> None:
        pts = picture.pts if picture.pts is not None else picture.dts
        if self._last_pts is not None and (pts is None or pts <= self._last_pts):
            pts = self._last_pts + self._step(picture)
        picture.pts = self._last_pts = 0 if pts is None else pts

    def _step(self, picture: Any) -> int:
        """How long a picture is shown, as far as the input says, in units of its time base."""
        rate = frame_rate(self._stream)
        step = int(getattr(picture, "duration", 0) or 0)
        return max(1, step or (round(1 / (rate * self._time_base)) if rate else 1))


def _context(stream: Any) -> Any:
    """What decodes a stream: the stream's own, or one that knows the transparency of VP8 and VP9."""
    import av

    context = stream.codec_context
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(context.name)
    is_transparent = "1" in (stream.metadata.get("alpha_mode"), stream.metadata.get("ALPHA_MODE"))
    if name is None or not is_transparent:
        return context
    try:
        return av.CodecContext.create(name, "r")
    except (av.FFmpegError, ValueError):
        return context
