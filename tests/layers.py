"""Faces as the stages hand them on, for tests of what comes after the network."""

from __future__ import annotations

from collections.abc import Sequence

from gnr_video.frame import Alignment, Bust, FaceLayer, Image


def layers(
    faces: Sequence[tuple[Alignment, Image]],
    crops: Sequence[Image | None] | None = None,
    busts: Sequence[Bust | None] = (),
) -> list[FaceLayer]:
    """Alignments and their drawings, with source crops and busts in the same order where they are given."""
    crops = crops or [None] * len(faces)
    busts = busts or [None] * len(faces)
    return [
        FaceLayer(alignment, crop=crop, bust=bust, drawing=drawing)
        for (alignment, drawing), crop, bust in zip(faces, crops, busts, strict=True)
    ]
