"""The face of a clip as a run of steady crops, cut as a translation cuts them: what moving metrics look at."""

from __future__ import annotations

import os
from pathlib import Path

from engines.errors import InputError
from gnr_video.frame import Image
from gnr_video.tracking.alignment import crop_face


def face_run(
    clip: str | os.PathLike[str],
    size: int = 256,
    *,
    frames: int = 60,
    face_model: Path | None = None,
    search_frames: int = 300,
) -> list[Image]:
    """Crops of one face in neighbouring frames.

    Args:
        clip: anything `gnr_video.media.open.open_source` reads.
        size: side of the crops.
        frames: most crops that are wanted.
        search_frames: frames that are looked at until so long a run is found; the longest one counts.

    Returns:
        2 to `frames` crops, uint8 size x size x 3 RGB.

    Raises:
        InputError: the clip cannot be read, or shows no face in two neighbouring frames.
    """
    from gnr_video.media.open import open_source
    from gnr_video.timing import StageTimes
    from gnr_video.tracking.finder import Finder
    from gnr_video.tracking.smoothing import LOOKAHEAD

    best: list[Image] = []
    run: list[Image] = []
    person = None
    with open_source(clip) as source, Finder(face_model, lookahead=LOOKAHEAD) as finder:
        for number, item in enumerate(finder.track(source, StageTimes())):
            # A face that fades after it was lost stands still: no part of a run.
            seen = [face.alignment for face in item.faces if face.alignment.opacity == 1]
            same = [a for a in seen if a.track_id == person]
            if not same:
                best, run = max(best, run, key=len), []
            if seen:
                alignment = (same or seen)[0]
                person = alignment.track_id
                run.append(crop_face(item.frame.image, alignment, size))
            if len(run) >= frames or number >= search_frames:
                break
    best = max(best, run, key=len)
    if len(best) < 2:
        raise InputError(
            f"no face was followed in {clip}", "give a clip that shows one in two frames and more"
        )
    return best
