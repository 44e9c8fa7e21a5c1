"""How often a face is drawn: for every frame, or for some of them, as animation is drawn on twos and threes.

Between two drawings the last one goes where the face goes. Alignment takes the motion of head and camera out of the
crops, so what waits for the next drawing is little more than the eyes' gaze.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from gnr_video.frame import Image

if TYPE_CHECKING:
    from engines.base import Crops, Engine, Styles
    from gnr_video.effects.chain import Effects
    from gnr_video.timing import StageTimes

Drawn: TypeAlias = dict[int, Image]
"""Translations by track id."""


class Drawings:
    """The newest drawing of each face.

    Args:
        engine: draws.
        effects: on new drawings.
        times: takes how long that takes, as "network".
        hold: frames that a drawing is shown for, 1 or more; may be changed at any time.
    """

    def __init__(self, engine: Engine, effects: Effects, times: StageTimes, hold: int = 1) -> None:
        self.hold = hold
        self._engine = engine
        self._effects = effects
        self._times = times
        self._newest: Drawn = {}
        self._drawn_at = 0.0
        self._shown = 0

    def of(
        self, crops: Sequence[Image], ids: Sequence[int], codes: Styles | None, seconds: float
    ) -> list[Image]:
        """What is shown of the faces of a frame.

        Args:
            crops: uint8 SxSx3 RGB, one for each face.
            ids: whose they are. If one of them has no drawing yet, all are drawn.
            codes: a style for each; None: the engine's own.
            seconds: the time of the frame.

        Returns:
            uint8 SxSx3 RGB, in the order of `crops`.
        """
        if self._shown >= self.hold or not self._has(crops, ids):
            self._newest, self._shown = self._draw(crops, ids, codes, seconds), 0
        self._shown += 1
        return [self._newest[one] for one in ids]

    def state(self) -> tuple[Drawn, float, int]:
        """The newest drawings, of when, and for how many frames they have been shown, for `restore`."""
        return dict(self._newest), self._drawn_at, self._shown

    def restore(self, state: tuple[Drawn, float, int]) -> None:
        """Go on from there."""
        self._newest, self._drawn_at, self._shown = state

    def _has(self, crops: Sequence[Image], ids: Sequence[int]) -> bool:
        """Whether there is a drawing of each; whole heads are larger than faces."""
        return all(
            one in self._newest and self._newest[one].shape == crop.shape for one, crop in zip(ids, crops)
        )

    def _draw(
        self, crops: Sequence[Image], ids: Sequence[int], codes: Styles | None, seconds: float
    ) -> Drawn:
        before, since = self._newest, seconds - self._drawn_at
        self._drawn_at = seconds
        with self._times.stage("network"):
            drawn = zip(ids, _in_style(self._engine, np.stack(crops), codes))
            return {one: self._effects.drawing(new, before.get(one), since) for one, new in drawn}

    def reset(self) -> None:
        """The next frame is of another video."""
        self._newest = {}


class DrawingsAhead(Drawings):
    """Drawings made on a thread of their own while those before are shown, for a network slower than the camera.

    Where `hold` is more than 1, what is shown is the newest that is finished; a drawing is begun every `hold` frames,
    and waited for when the next is due. To be closed.
    """

    def __init__(self, engine: Engine, effects: Effects, times: StageTimes, hold: int = 1) -> None:
        super().__init__(engine, effects, times, hold)
        self._pending: Future[Drawn] | None = None
        self._begun: SimpleQueue[
            tuple[Future[Drawn], Sequence[Image], Sequence[int], Styles | None, float] | None
        ]
        self._begun = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="gnr-video draw", daemon=True)

    def of(
        self, crops: Sequence[Image], ids: Sequence[int], codes: Styles | None, seconds: float
    ) -> list[Image]:
        is_due = self._shown >= self.hold
        if self._pending is not None and (is_due or self._pending.done() or not self._has(crops, ids)):
            self._newest = self._pending.result()
            self._pending = None
        if is_due and self.hold > 1 and self._has(crops, ids):
            if self._thread.ident is None:
                self._thread.start()
            self._pending = Future()
            self._begun.put((self._pending, crops, ids, codes, seconds))
            self._shown = 0
        return super().of(crops, ids, codes, seconds)

    def _work(self) -> None:
        while (begun := self._begun.get()) is not None:
            future, crops, ids, codes, seconds = begun
            try:
                future.set_result(self._draw(crops, ids, codes, seconds))
            except BaseException as error:  # for the thread that waits
                future.set_exception(error)

    def close(self, timeout: float | None = None) -> None:
        """End the thread, waiting at most `timeout` seconds. May be called twice."""
        self._begun.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout)


def _in_style(engine: Engine, crops: Crops, codes: Styles | None) -> Crops:
    """Translate, each in its style; the engine's own style is quicker, being folded into its weights."""
    if codes is None:  # an engine that takes no styles has none of its own either
        return engine.translate(crops)
    own = engine.style
    is_own = own is not None and all(np.array_equal(code, own) for code in codes)
    return engine.translate(crops, None if is_own else codes)
