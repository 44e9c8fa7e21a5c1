"""Finder: everything that says where the faces of one video are, put together."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnr_video.frame import Alignment, Face, FaceLayer, Frame, Layered
from gnr_video.tracking.boxes import iou
from gnr_video.tracking.scene_cut import SceneCut
from gnr_video.tracking.selection import ALL_FACES, Cast, FaceChoice
from gnr_video.tracking.smoothing import Aligner
from gnr_video.tracking.tracker import NEW_IOU, FaceTracker

if TYPE_CHECKING:
    from gnr_video.timing import StageTimes


class Finder:
    """Where the faces of one video are, frame by frame: tracker, identities, cuts and smoothing.

    Args:
        face_model: MediaPipe's, see `gnr_video.tracking.model_files`.
        faces: who is translated.
        lookahead: frames that smoothing may look ahead; 0: none, as when live.

    To be closed; a context manager that does it.
    """

    def __init__(
        self, face_model: Path | None = None, faces: FaceChoice = ALL_FACES, lookahead: int = 0
    ) -> None:
        self.tracker = FaceTracker(face_model, max_faces=faces.max_faces)
        self._most = faces.max_faces if not faces.single else 1
        self.aligner, self.cuts, self.cast = Aligner(lookahead), SceneCut(), Cast(faces)

    def track(self, frames: Iterable[Frame], times: StageTimes) -> Generator[Layered, None, None]:
        """Find the faces, choose, smooth their alignment. As many frames come out, `lookahead` frames later."""
        waiting: deque[Frame] = deque()
        known: deque[list[Face]] = deque(maxlen=max(self.aligner.lookahead, 1))  # in the frames before

        def layered(alignments: list[Alignment]) -> Layered:
            frame = waiting.popleft()
            roles = [self.cast.role(a.track_id) for a in alignments]
            return Layered(frame, [FaceLayer(a, r, frame.pts_seconds) for a, r in zip(alignments, roles)])

        for frame in frames:
            frame.note("finder", self.state)
            with times.stage("track"):
                was_flat = self.cuts.is_flat
                cut = self.cuts.is_cut(frame.image)
                if cut:
                    self.tracker.reset()
                    self.cast.reset()
                # Nobody is in a frame of one colour, and whoever is in the next was not seen to come.
                is_flat = self.cuts.is_flat
                found = [] if is_flat else self.tracker.track(frame.image, frame.pts_seconds)
                faces = self.cast.choose(found, frame.pts_seconds)
                breaks = cut or was_flat or is_flat
                pending = [] if breaks else list(waiting)[len(waiting) - self.aligner.pending :]
                before = self._traced(faces, pending, known)
            waiting.append(frame)
            known.append(faces)
            with times.stage("align"):
                ready = self.aligner.push(frame.pts_seconds, faces, cut=breaks, before=before)
            for alignments in ready:
                yield layered(alignments)
        for alignments in self.aligner.flush():
            yield layered(alignments)

    def _traced(
        self, faces: Sequence[Face], pending: Sequence[Frame], known: Sequence[Sequence[Face]]
    ) -> dict[int, list[Face]]:
        """New faces in the pending frames, the newest first: a detector is late, above all for small and dark ones."""
        traced: dict[int, list[Face]] = {}
        before = {face.track_id for face in known[-1]} if known else set()
        for face in faces:
            if face.track_id in before or not pending:
                continue
            # Not where as many are as are wanted, nor over somebody else's.
            free = list(
                takewhile(lambda pair: len(pair[1]) < self._most, zip(reversed(pending), reversed(known)))
            )
            seen = self.tracker.trace_back(face, ((frame.image, frame.pts_seconds) for frame, _ in free))
            traced[face.track_id] = [
                one
                for one, _ in takewhile(
                    lambda pair: all(iou(pair[0].box, other.box) < NEW_IOU for other in pair[1]),
                    zip(seen, (others for _, others in free)),
                )
            ]
        return traced

    def state(self) -> dict[str, Any]:
        """Who is where, for `restore`."""
        parts = {"tracker": self.tracker, "cuts": self.cuts, "cast": self.cast, "aligner": self.aligner}
        return {name: part.state() for name, part in parts.items()}  # type: ignore[attr-defined]

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from where another finder was before the next frame."""
        self.tracker.restore(state["tracker"])
        self.cuts.restore(state["cuts"])
        self.cast.restore(state["cast"])
        self.aligner.restore(state["aligner"])

    def reset(self) -> None:
        """The next frame is of another video."""
        self.tracker.reset()
        self.cast.reset()
        self.aligner.flush()
        self.cuts.reset()

    def close(self) -> None:
        self.tracker.close()

    def __enter__(self) -> Finder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
