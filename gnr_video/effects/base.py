"""The contract of picture effects: what one does to a face on its way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnr_video.frame import FaceLayer, Image


class Effect:
    """One effect on one video. A subclass overrides the hooks that it needs, and has an entry in `effects.EFFECTS`.

    Each hook is called on one thread; hooks of one effect may be called on different ones.

    Attributes:
        stage: of the pipeline, "cut" or "compose": the one whose hook changes what `state` gives.
    """

    stage = "compose"

    def before(self, faces: Sequence[FaceLayer]) -> None:
        """Change what the network is shown (`FaceLayer.shown`) of whole heads, which have busts."""

    def drawing(self, picture: Image, before: Image | None, seconds: float) -> Image:
        """What becomes of a new drawing.

        Args:
            picture: uint8 SxSx3.
            before: what was shown of the same face until now; None: it is new, or one of a grid.
            seconds: since that was drawn. What settles does so by these, never by frames.

        Returns:
            uint8 SxSx3; the picture itself where there is nothing to do.
        """
        return picture

    def face(self, faces: Sequence[FaceLayer]) -> None:
        """Change the drawings as they are shown in one frame; a drawing that is held comes again."""

    def frame(self, image: Image, faces: Sequence[FaceLayer]) -> None:
        """Change a frame around whole heads before they are pasted, and what is pasted of them.

        Args:
            image: uint8 HxWx3 RGB, changed in place; may be a view.
            faces: with drawings, busts and masks.
        """

    def state(self) -> Any:
        """What it knows of the frames before, in numbers, texts, arrays and classes of
        `gnr_video.segments.written`, for `restore`."""
        return None

    def restore(self, state: Any) -> None:
        """Go on from there."""

    def reset(self) -> None:
        """The next frame is of another video."""
