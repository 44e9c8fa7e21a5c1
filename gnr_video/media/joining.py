"""Joining files that one encoder has written: their packets are copied, one file's after the other's, beside the sound
and all else of the input."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from engines.errors import OutputError
from gnr_video.media.container_source import ContainerSource
from gnr_video.media.copied_streams import CopiedStreams
from gnr_video.media.encoders import CONTAINERS
from gnr_video.media.muxing import OWN_METADATA, add_covers, add_metadata, muxer_options
from gnr_video.media.sink import temporary_name, writing


class Piece(NamedTuple):
    """A file of pictures that need none of another file, and the pts of its packets in the order of decoding."""

    path: Path
    pts: Sequence[int]


def decoding_order(path: Path) -> tuple[int, ...]:
    """The pts of a file's pictures in the order in which they are decoded, in units of its stream."""
    with _opened(path) as (container, stream):
        return tuple(packet.pts for packet in container.demux(stream) if packet.pts is not None)


def join(pieces: Sequence[Piece], source: ContainerSource, target: Path) -> list[str]:
    """Write one file with the pictures of all pieces, and with what a sink would have copied from the input.

    Args:
        pieces: in the order of their times, which are on the clock of the source's frames.
        source: just opened, over all that the pieces are of.
        target: container by extension, that of the pieces; replaced if it exists.

    Returns:
        What the user should know.

    Raises:
        OutputError: the disk is full, the file cannot be written, the pieces do not fit together.
    """
    warnings: list[str] = []
    temporary = temporary_name(target)
    try:
        with writing(target), _opened(pieces[0].path) as (_, pictures):
            with _Whole(temporary, target.suffix.lower(), pictures, source, warnings) as whole:
                for packet in joined_packets(pieces):
                    whole.write(packet)
                whole.finish()
            os.replace(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return warnings


class _Whole:
    """The file that is written. A context manager that closes it."""

    def __init__(
        self, path: Path, suffix: str, pictures: Any, source: ContainerSource, warnings: list[str]
    ) -> None:
        import av

        muxer, info = CONTAINERS[suffix], source.info
        options = muxer_options(muxer, info.time_base, source, False)
        self._container: Any = av.open(f"file:{path}", "w", format=muxer, container_options=options)
        self._stream = self._container.add_stream_from_template(pictures, opaque=True)
        self._stream.time_base = info.time_base
        self._stream.codec_context.codec_tag = pictures.codec_context.codec_tag
        for key, value in pictures.metadata.items():
            if key not in OWN_METADATA:
                self._stream.metadata[key] = value
        warn = warnings.append
        self._copied = CopiedStreams(source, self._container, muxer, suffix, warn)
        covers = add_covers(self._container, source, muxer, suffix, warn)
        rate = info.average_rate or Fraction(25)
        add_metadata(self._container, self._stream, source, muxer, rate, suffix, warn)
        self._container.start_encoding()
        for packet in covers:
            self._container.mux(packet)
        self._skimmed = source.skim()
        self._read_to: Fraction | None = None

    def __enter__(self) -> _Whole:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        import av

        with suppress(*(() if kind is None else (av.FFmpegError, OSError, ValueError))):
            self._container.close()

    def write(self, packet: Any) -> None:
        """Write a packet of pictures, and what lies before it in the input."""
        import av

        at = packet.dts * packet.time_base
        while self._read_to is None or self._read_to < at:
            self._read_to = next(self._skimmed, None)
            if self._read_to is None:
                break
        self._copied.write()
        packet.stream = self._stream
        try:
            self._container.mux(packet)
        except (av.FFmpegError, ValueError) as error:
            if not self._copied.explains(error):
                raise

    def finish(self) -> None:
        """Write what follows after the last picture."""
        for _ in self._skimmed:
            self._copied.write()
        self._copied.finish()


def joined_packets(pieces: Sequence[Piece]) -> Iterator[Any]:
    """The packets of all pieces, in order, with decoding times as an encoder of the whole would have given them.

    Raises:
        OutputError: the pieces are not of one encoder with one setting.
    """
    shown = sorted(time for piece in pieces for time in piece.pts)
    delay = min(max((_delay(piece.pts) for piece in pieces), default=0), len(shown) - 1)
    like: tuple[Any, ...] | None = None
    number = 0
    for piece in pieces:
        with _opened(piece.path) as (container, stream):
            kind = stream.time_base, stream.codec_context.name, stream.codec_context.extradata
            like = like or kind
            if kind != like:
                raise OutputError(
                    f"{piece.path} is not of the same encoder as those before it",
                    f"remove {piece.path.parent}, or give --no-resume",
                )
            for packet in container.demux(stream):
                if packet.pts is None:
                    continue
                # The time at which it is decoded is that of the picture that is shown so many before it.
                early = shown[delay] - shown[0]
                packet.dts = shown[number - delay] if number >= delay else shown[number] - early
                number += 1
                yield packet


def _delay(pts: Sequence[int]) -> int:
    """By how many pictures decoding must be ahead of showing."""
    shown = sorted(pts)
    return max((number - bisect_left(shown, time) for number, time in enumerate(pts)), default=0)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    import av

    with av.open(f"file:{path}") as container:
        yield container, container.streams.video[0]
