"""Interlaced pictures become whole ones (part of the container source): FFmpeg's bwdif, where pictures are flagged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any

import numpy as np


def deinterlaced(
    pictures: Iterable[Any], time_base: Fraction, on_first: Callable[[], None] = lambda: None
) -> Iterator[Any]:
    """One picture for each, at the same time; from the first interlaced one on each comes when the next is there.

    Args:
        pictures: decoded ones (PyAV's) with pts.
        time_base: of their pts.
        on_first: called at the first interlaced one.
    """
    graph: Any = None
    kind: tuple[Any, ...] = ()
    for picture in pictures:
        if graph is None and not picture.interlaced_frame:
            yield picture
            continue
        if graph is None:
            on_first()
        this = (picture.format.name, picture.width, picture.height)
        if this != kind:
            yield from _pulled(graph, time_base, is_last=True)
            graph, kind = _graph(picture, time_base), this
        picture.time_base = time_base
        graph.push(picture)
        yield from _pulled(graph, time_base)
    yield from _pulled(graph, time_base, is_last=True)


def first_field(picture: Any) -> str:
    """Which field of an interlaced picture is shown first, "top" or "bottom"; "" of a whole one."""
    if not picture.interlaced_frame:
        return ""
    # PyAV does not tell; this filter moves pictures whose bottom field comes first by a line, and no others.
    picture = picture.reformat(format="yuv444p")  # it takes no 4:2:0
    graph = _graph(picture, Fraction(1, 25), "fieldorder", "order=tff")
    graph.push(picture)
    is_same = np.array_equal(graph.pull().to_ndarray(), picture.to_ndarray())
    return "top" if is_same else "bottom"


class FieldFlags:
    """Puts the order of fields onto pictures for an encoder.

    Args:
        first: "top" or "bottom".
        time_base: of the pictures' pts.
    """

    def __init__(self, first: str, time_base: Fraction) -> None:
        self._mode, self._time_base = f"mode={first[0]}ff", time_base
        self._graph: Any = None

    def put(self, picture: Any) -> Any:
        """The picture, flagged; all must be of one size and format."""
        if self._graph is None:
            self._graph = _graph(picture, self._time_base, "setfield", self._mode)
        self._graph.push(picture)
        return self._graph.pull()


def _graph(
    picture: Any,
    time_base: Fraction,
    name: str = "bwdif",
    options: str = "mode=send_frame:parity=auto:deint=interlaced",
) -> Any:
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=time_base
    )
    filter_ = graph.add(name, options)
    end = graph.add("buffersink")
    source.link_to(filter_)
    filter_.link_to(end)
    graph.configure()
    return graph


def _pulled(graph: Any, time_base: Fraction, is_last: bool = False) -> Iterator[Any]:
    """What is ready, on the clock of the input: the filter counts in half units."""
    import av

    if graph is None:
        return
    if is_last:
        graph.push(None)
    with suppress(av.error.BlockingIOError, av.error.EOFError):
        while True:
            picture = graph.pull()
            unit = picture.time_base
            picture.pts = round(picture.pts * unit / time_base)
            picture.duration = round((picture.duration or 0) * unit / time_base)
            picture.time_base = time_base
            yield picture
