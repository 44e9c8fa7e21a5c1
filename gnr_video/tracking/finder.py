"""Finder: everything that says where the faces of one video are, put together."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnr_video.frame import Alignment, Face, FaceLayer, Frame, Image, Layered
from gnr_video.tracking.boxes import iou, shifted
from gnr_video.tracking.likeness import Likeness
from gnr_video.tracking.scene_cut import SceneCut
from gnr_video.tracking.selection import ALL_FACES, MAX_FACES, Cast, FaceChoice
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
        private: all faces come out, also those that are not chosen, as they are: none fades. New ones are followed
            backwards into frames in which only their likeness is.

    To be closed; a context manager that does it.
    """

    def __init__(
        self,
        face_model: Path | None = None,
        faces: FaceChoice = ALL_FACES,
        lookahead: int = 0,
        *,
        private: bool = False,
    ) -> None:
        self._private = private
        most = MAX_FACES if private else faces.max_faces
        self.tracker = FaceTracker(face_model, max_faces=most)
        self._most = 1 if faces.single and not private else most
        self.aligner, self.cuts, self.cast = Aligner(lookahead, fades=not private), SceneCut(), Cast(faces)
        self._unchosen: set[int] = set()

    def track(self, frames: Iterable[Frame], times: StageTimes) -> Generator[Layered, None, None]:
        """Find the faces, choose, smooth their alignment. As many frames come out, `lookahead` frames later."""
        waiting: deque[tuple[Frame, str]] = deque()
        known: deque[list[Face]] = deque(maxlen=max(self.aligner.lookahead, 1))  # in the frames before

        def layered(alignments: list[Alignment]) -> Layered:
            frame, scene = waiting.popleft()
            faces = [
                FaceLayer(
                    alignment,
                    self.cast.role(alignment.track_id),
                    frame.pts_seconds,
                    chosen=alignment.track_id not in self._unchosen,
                )
                for alignment in alignments
            ]
            return Layered(frame, faces, scene)

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
                faces = self._chosen(found, frame.pts_seconds)
                breaks = cut or was_flat or is_flat
                waited = [] if breaks else list(waiting)[len(waiting) - self.aligner.pending :]
                before = self._traced(frame.image, faces, [one for one, _ in waited], known)
            waiting.append((frame, "cut" if cut else "flat" if is_flat else ""))
            known.append(faces)
            with times.stage("align"):
                ready = self.aligner.push(frame.pts_seconds, faces, cut=breaks, before=before)
            for alignments in ready:
                yield layered(alignments)
        for alignments in self.aligner.flush():
            yield layered(alignments)

    def _chosen(self, found: Sequence[Face], seconds: float) -> list[Face]:
        """Those of the faces of the next frame that are followed: the chosen ones, or all."""
        chosen = self.cast.choose(found, seconds)
        if not self._private:
            return chosen
        if self.cast.choice.kind == "count":
            chosen = chosen[: self.cast.choice.number]
        present = {face.track_id for face in found}
        self._unchosen = self._unchosen - present | present - {face.track_id for face in chosen}
        return list(found)

    def _traced(
        self,
        image: Image,
        faces: Sequence[Face],
        pending: Sequence[Frame],
        known: Sequence[Sequence[Face]],
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
            if self._private:
                pictures = [image, *(frame.image for frame, _ in free)]
                seen += _alike(([face, *seen])[-1], pictures[len(seen) :])
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
        states = {name: part.state() for name, part in parts.items()}  # type: ignore[attr-defined]
        return {**states, "unchosen": sorted(self._unchosen)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from where another finder was before the next frame."""
        self.tracker.restore(state["tracker"])
        self.cuts.restore(state["cuts"])
        self.cast.restore(state["cast"])
        self.aligner.restore(state["aligner"])
        self._unchosen = set(state["unchosen"])

    def reset(self) -> None:
        """The next frame is of another video."""
        self.tracker.reset()
        self.cast.reset()
        self._unchosen.clear()
        self.aligner.flush()
        self.cuts.reset()

    def close(self) -> None:
        self.tracker.close()

    def __enter__(self) -> Finder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _alike(face: Face, pictures: Sequence[Image]) -> list[Face]:
    """A face of the first of some pictures in the others, the newest first, as long as its likeness is there."""
    left, top, right, bottom = face.box
    x, y, found = (left + right) / 2, (top + bottom) / 2, []
    likeness = Likeness.of(pictures[0], x, y, max(right - left, bottom - top))
    for image in pictures[1:]:
        match = likeness.find(image, x, y)
        if not match.is_like:
            break
        face = Face(face.track_id, shifted(face.landmarks, match.x - x, match.y - y))
        x, y = match.x, match.y
        found.append(face)
    return found
