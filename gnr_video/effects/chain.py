"""The chain of effects that a video goes through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gnr_video.effects import EFFECTS
from gnr_video.effects.base import Effect
from gnr_video.frame import FaceLayer, Image


class Effects:
    """The effects of one video, in the order of `EFFECTS`.

    Args:
        asked: name -> whether it is on; None or missing: by itself.
        own: whether the weights are of `gnr-video train`.
        draws: whether the network is a GNR generator.

    Raises:
        ValueError: a name that is none.
    """

    def __init__(
        self, asked: Mapping[str, bool | None] | None = None, *, own: bool = False, draws: bool = True
    ) -> None:
        asked = dict(asked or {})
        self._effects = {entry.name: entry.make() for entry in EFFECTS}
        if unknown := asked.keys() - self._effects.keys():
            raise ValueError(f"no effect {', '.join(sorted(unknown))}; there are {', '.join(self._effects)}")
        self._possible = {entry.name: draws or not entry.draws for entry in EFFECTS}
        self._on: dict[str, bool] = {}
        for entry in EFFECTS:
            wanted = asked.get(entry.name)
            wanted = entry.default if wanted is None else wanted
            self.switch(entry.name, own if wanted is None else wanted)

    def __getitem__(self, name: str) -> bool:
        """Whether an effect is on."""
        return self._on[name]

    def possible(self, name: str) -> bool:
        """Whether an effect can do anything to this network's pictures."""
        return self._possible[name]

    def switch(self, name: str, on: bool) -> None:
        """Switch an effect, from the next frame on."""
        self._on[name] = on and self.possible(name)

    @property
    def state(self) -> dict[str, bool]:
        """Name -> whether it is on."""
        return dict(self._on)

    def again(self) -> Effects:
        """The same effects for another video."""
        return Effects(self._on, draws=all(self._possible.values()))

    def known(self, stage: str) -> dict[str, Any]:
        """What the effects of a stage know of the frames before, for `restore`."""
        return {name: e.state() for name, e in self._effects.items() if self._on[name] and e.stage == stage}

    def restore(self, known: Mapping[str, Any]) -> None:
        """Go on from there."""
        for name, state in known.items():
            self._effects[name].restore(state)

    def _active(self) -> Iterator[Effect]:
        return (effect for name, effect in self._effects.items() if self._on[name])

    def before(self, faces: Sequence[FaceLayer]) -> None:
        """See `Effect.before`."""
        for effect in self._active():
            effect.before(faces)

    def drawing(self, picture: Image, before: Image | None = None, seconds: float = 0.0) -> Image:
        """See `Effect.drawing`."""
        for effect in self._active():
            picture = effect.drawing(picture, before, seconds)
        return picture

    def face(self, faces: Sequence[FaceLayer]) -> None:
        """See `Effect.face`."""
        for effect in self._active():
            effect.face(faces)

    def frame(self, image: Image, faces: Sequence[FaceLayer]) -> None:
        """See `Effect.frame`."""
        for effect in self._active():
            effect.frame(image, faces)

    def reset(self) -> None:
        """The next frame is of another video."""
        for effect in self._effects.values():
            effect.reset()
