"""GIF's palettes: FFmpeg's palettegen and paletteuse over some seconds of pictures."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray


class PaletteGraph:
    """RGB pictures to 256 colours with FFmpeg's palettegen and paletteuse, one palette for some seconds.

    A palette for each picture would flicker and keep the encoder from leaving out what stands still; one for
    the whole video would need all of it in memory.
    """

    MEMORY = 64 << 20
    """Bytes of pictures that wait for their palette."""

    def __init__(self, size: tuple[int, int], time_base: Fraction, transparent: bool = False) -> None:
        self._size, self._time_base, self._format = size, time_base, "rgba" if transparent else "rgb24"
        self._window = max(1, min(100, self.MEMORY // (size[0] * size[1] * 3)))
        self._waiting = 0
        self._graph: Any = None

    def push(self, image: NDArray[np.uint8], pts: int) -> list[Any]:
        """Take a picture in (HxWx3, or HxWx4 if transparent); pictures that are ready come back, in order."""
        import av

        if self._graph is None:
            self._graph = self._build()
        # A copy, because the graph keeps the picture.
        picture = av.VideoFrame.from_ndarray(image, self._format)
        picture.pts, picture.time_base = pts, self._time_base
        self._graph.push(picture)
        self._waiting += 1
        return self.flush() if self._waiting >= self._window else []

    def flush(self) -> list[Any]:
        """The pictures that still wait."""
        import av

        ready: list[Any] = []
        if self._waiting:
            self._graph.push(None)
            with suppress(av.error.BlockingIOError, av.error.EOFError):
                while True:
                    picture = self._graph.pull()
                    picture.pict_type = 0
                    ready.append(picture)
        self._graph, self._waiting = None, 0
        return ready

    def _build(self) -> Any:
        import av
        from av.filter import Graph

        graph = Graph()
        width, height = self._size
        rgb = av.VideoFormat(self._format, width, height)
        source = graph.add_buffer(width=width, height=height, format=rgb, time_base=self._time_base)
        split = graph.add("split")
        palette = graph.add("palettegen", "reserve_transparent=1")
        # Ordered dither stays in place from frame to frame, where error diffusion would crawl.
        use = graph.add("paletteuse", "dither=bayer:bayer_scale=4:diff_mode=rectangle")
        end = graph.add("buffersink")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(palette, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(end)
        graph.configure()
        return graph
