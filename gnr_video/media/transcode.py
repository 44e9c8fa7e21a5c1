"""Sound and text that the output's container cannot hold, decoded and encoded anew (part of the sink)."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

SOUND: dict[str, tuple[str, ...]] = {
    "webm": ("libopus", "libvorbis"),
    "mp4": ("aac",),
    "mov": ("aac",),
    "matroska": ("libopus", "aac"),
}
TEXT: dict[str, tuple[str, ...]] = {
    "webm": ("webvtt",),
    "mp4": ("mov_text",),
    "mov": ("mov_text",),
    "matroska": ("ass",),
}
"""FFmpeg's muxer -> encoders to try, in this order."""

BITS_PER_CHANNEL = 80_000
FORMATS = {"libopus": "flt"}
"""The layout of samples that an encoder takes where that is not "fltp"."""
_LONGEST_GAP = 10.0
"""Seconds: shorter gaps become silence; a longer one, or a clock that jumps back, starts the times anew."""
_MILLISECOND = Fraction(1, 1000)
_UNTIMED_TEXT = 4000
"""Milliseconds that a last text is shown if it does not say."""


def transcode(template: Any, container: Any, muxer: str) -> AudioTranscoder | TextTranscoder | None:
    """What makes an input's stream fit for a container; None where nothing does.

    Args:
        template: the input's stream (PyAV's).
        container: the output, before its header is written; gets the new stream.
        muxer: FFmpeg's name of its format.
    """
    import av

    if template.codec_context is None:
        return None
    names = SOUND if template.type == "audio" else TEXT if template.codec_context.codec.text_sub else {}
    encoder = next((name for name in names.get(muxer, ()) if name in av.codecs_available), None)
    if encoder is None:
        return None
    if template.type == "audio":
        return AudioTranscoder(template, container, encoder)
    return TextTranscoder(template, container, encoder)


class AudioTranscoder:
    """Packets of one audio stream become packets of another, at 48 kHz, mono or stereo, in time with the first.

    Samples are put where their times say: gaps of up to ten seconds become silence and overlaps are cut, so
    that sound and picture stay together. Held are some tens of milliseconds.

    Args:
        template, container: see `transcode`.
        encoder: of `SOUND`.

    Attributes:
        stream: the output's stream.
        mixed: the input has more channels than stereo.
        damaged: packets that could not be decoded so far; they become silence.
    """

    RATE = 48_000

    def __init__(self, template: Any, container: Any, encoder: str) -> None:
        self._decoder = template.codec_context
        self._layout = "mono" if self._decoder.channels == 1 else "stereo"
        self.mixed = self._decoder.channels > 2
        self.stream = container.add_stream(encoder, rate=self.RATE, layout=self._layout)
        self._format = FORMATS.get(encoder, "fltp")
        self.stream.codec_context.format = self._format
        self.stream.bit_rate = BITS_PER_CHANNEL * (1 if self._layout == "mono" else 2)
        self._resampler: Any = None
        self._end: float | None = None
        self._unit = Fraction(1, self.RATE)
        self._kind: tuple[Any, ...] = ()
        self.damaged = 0

    def push(self, packet: Any) -> Iterator[Any]:
        """Take a packet in; the encoded packets that are ready come out, in order."""
        import av

        try:
            frames = self._decoder.decode(packet)
        except (av.FFmpegError, ValueError):
            self.damaged += 1
            return
        for frame in frames:
            yield from self._encode(frame)

    def flush(self) -> Iterator[Any]:
        """The packets that are still held; nothing may be pushed after it."""
        import av

        try:
            frames = self._decoder.decode(None)
        except (av.FFmpegError, ValueError):
            frames = []
        for frame in frames:
            yield from self._encode(frame)
        yield from self._drain()
        if self._end is not None:
            yield from self.stream.encode(None)

    def _encode(self, frame: Any) -> Iterator[Any]:
        import av

        at = self._end if frame.pts is None else float(frame.pts * frame.time_base)
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if at is None:
            return  # nothing says when it is heard
        if frame.pts is None:
            frame.time_base = self._unit
            frame.pts = round(at / self._unit)
        self._unit = frame.time_base
        if kind != self._kind or self._end is None or not -1.0 < at - self._end < _LONGEST_GAP:
            yield from self._drain()
            self._kind = kind
            self._resampler = av.AudioResampler(
                self._format, self._layout, self.RATE, options={"async": "1", "min_hard_comp": "0.02"}
            )
        self._end = at + frame.samples / frame.sample_rate
        for resampled in self._resampler.resample(frame):
            yield from self.stream.encode(resampled)

    def _drain(self) -> Iterator[Any]:
        if self._resampler is not None:
            for resampled in self._resampler.resample(None):
                yield from self.stream.encode(resampled)
            self._resampler = None


class TextTranscoder:
    """Packets of a subtitle stream become packets of another format, with the same times.

    In mp4 and mov a text lasts until the next begins. There texts that overlap are made a row of texts, each with all
    the lines that are to be seen at once; a text is held until it is known which those are.

    Args:
        template, container: see `transcode`.
        encoder: of `TEXT`.

    Attributes:
        stream, damaged: see `AudioTranscoder`.
    """

    def __init__(self, template: Any, container: Any, encoder: str) -> None:
        self._decoder = template.codec_context
        self._decoder.open(strict=False)
        self.stream = container.add_stream(encoder)
        self.stream.codec_context.subtitle_header = self._decoder.subtitle_header
        self.stream.codec_context.time_base = _MILLISECOND
        self._row = TextRow() if encoder == "mov_text" else None
        self.damaged = 0

    def push(self, packet: Any) -> Iterator[Any]:
        """Take a packet in; the encoded packets that are ready come out, in order."""
        import av

        try:
            texts = self._decoder.decode2(packet)
            if texts is None:
                return
            if self._row is None:
                yield _timed(self.stream.codec_context.encode_subtitle(texts), packet)
                return
            lines = [text.ass for text in texts if text.type == b"ass"]
        except (av.FFmpegError, ValueError):
            self.damaged += 1
            return
        if packet.pts is not None and lines:
            start = round(packet.pts * packet.time_base / _MILLISECOND)
            lasts = round((packet.duration or 0) * packet.time_base / _MILLISECOND)
            for text in self._row.add(start, lasts, lines):
                yield from self._encode(*text)

    def flush(self) -> Iterator[Any]:
        """The packets that are still held; nothing may be pushed after it."""
        for text in self._row.flush() if self._row is not None else ():
            yield from self._encode(*text)

    def _encode(self, start: int, end: int, line: bytes) -> Iterator[Any]:
        import av
        from av.subtitles.subtitle import SubtitleSet

        try:
            packet = self.stream.codec_context.encode_subtitle(SubtitleSet.create(line, 0, end - start))
        except (av.FFmpegError, ValueError):
            self.damaged += 1
            return
        packet.pts = packet.dts = start
        packet.duration, packet.time_base = end - start, _MILLISECOND
        yield packet


class TextRow:
    """Texts that may overlap, as a row of texts that do not."""

    def __init__(self) -> None:
        self._shown: list[tuple[int | None, bytes]] = []
        self._at = 0

    def add(self, start: int, lasts: int, lines: list[bytes]) -> Iterator[tuple[int, int, bytes]]:
        """Take lines in, in the order of their starts; what is shown before them comes out.

        Args:
            start, lasts: milliseconds; 0: until the next.
            lines: of ASS, as FFmpeg has them: eight fields and the text.

        Returns:
            (start, end, line) of each text.
        """
        start = max(start, self._at)
        yield from self._until(start)
        self._shown = [(end, line) for end, line in self._shown if end is not None]
        self._shown += [(start + lasts if lasts else None, line) for line in lines]

    def flush(self) -> Iterator[tuple[int, int, bytes]]:
        """What is still to be shown."""
        self._shown = [(end or self._at + _UNTIMED_TEXT, line) for end, line in self._shown]
        yield from self._until(max((end for end, _ in self._shown if end), default=self._at))

    def _until(self, stop: int) -> Iterator[tuple[int, int, bytes]]:
        for end in sorted({min(end, stop) for end, _ in self._shown if end} | {stop}):
            if self._shown and end > self._at:
                yield self._at, end, _together([line for _, line in self._shown])
            self._at = max(self._at, end)
            self._shown = [text for text in self._shown if text[0] is None or text[0] > end]


def _together(lines: list[bytes]) -> bytes:
    """Lines of ASS as one: below each other, each in its own style where it sets one."""
    texts = [line.split(b",", 8)[-1] for line in lines]
    return lines[0][: len(lines[0]) - len(texts[0])] + b"\\N{\\r}".join(texts)


def _timed(made: Any, packet: Any) -> Any:
    made.pts, made.dts = packet.pts, packet.dts
    made.duration, made.time_base = packet.duration, packet.time_base
    return made
