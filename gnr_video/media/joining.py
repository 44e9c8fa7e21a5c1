"""Joining files that one encoder has written: their packets are copied, one file's after the other's."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from engines.errors import OutputError


class Piece(NamedTuple):
    """A file of pictures that need none of another file, and the pts of its packets in the order of decoding."""

    path: Path
    pts: Sequence[int]


def decoding_order(path: Path) -> tuple[int, ...]:
    """The pts of a file's pictures in the order in which they are decoded, in units of its stream."""
    with _opened(path) as (container, stream):
        return tuple(packet.pts for packet in container.demux(stream) if packet.pts is not None)


@contextmanager
def pictures_of(path: Path) -> Iterator[Any]:
    """The video stream (PyAV's) of a file, a template for the whole."""
    with _opened(path) as (_, stream):
        yield stream


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
