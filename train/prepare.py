"""Preparing a data set: faces as the pipeline will cut them out, drawn heads in the proportions of faces.

The generator only ever sees aligned crops (`gnr_video.tracking.alignment`), so that is what it should be trained on;
and the less the two domains differ in where eyes, mouth and chin lie, the less of the training goes into moving them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import InputError, OutputError
from engines.files import write_atomically
from gnr_video.media.image_files import read_image
from train.data import ANIME_FRAMING, DRAWN_HEADS, fit, list_images

if TYPE_CHECKING:
    from gnr_video.frame import Alignment

WHOLE = 0.75
"""Least share of a head's crop that has to lie in the picture."""
FACES, DRAWINGS = ("trainA", "testA"), ("trainB", "testB")


@dataclass
class Prepared:
    """What became of the pictures.

    Attributes:
        written: pictures in each folder of the result, those of an earlier run included.
        skipped: "file: reason" of those that do not decode or show no face.
    """

    written: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """One picture: where it is, where its face goes and, if it is wanted, its whole head, and whether it is drawn."""

    source: Path
    target: Path
    head: Path | None = None
    drawn: bool = False


def prepare(
    jobs: Sequence[Job],
    *,
    size: int = 256,
    face_model: str | Path | None = None,
    advance: Callable[[str], None] = lambda folder: None,
) -> Prepared:
    """Write the pictures as PNG files. What an earlier run has written stays.

    Args:
        jobs: from `plan`.
        size: side of the results, pixels.
        face_model: MediaPipe's face model, see `gnr_video.tracking.model_files`.
        advance: called after every picture, with the name of its folder.

    Raises:
        FaceModelError: see `gnr_video.tracking.tracker.FaceTracker`.
        OutputError: a picture cannot be written.
    """
    for made in {target.parent for job in jobs for target in (job.target, job.head) if target}:
        try:
            made.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make {made}: {error.strerror or error}", "choose another folder"
            ) from error
    done, lock = Prepared(), threading.Lock()
    with _Cutter(size, face_model) as cutter, ThreadPoolExecutor(2) as pool:

        def work(job: Job) -> None:
            reason, targets = None, [target for target in (job.target, job.head) if target]
            try:
                if not all(target.exists() for target in targets):
                    face, head = cutter.cut(read_image(job.source), job)
                    _write(job.target, face)
                    if job.head and head is None:
                        reason = f"{job.source}: the head is not all in the picture"
                    elif job.head and head is not None:
                        _write(job.head, head)
            except InputError as error:
                reason = error.message
            with lock:
                for target in targets:
                    folder = target.parent.name
                    done.written[folder] = done.written.get(folder, 0) + target.exists()
                if reason:
                    done.skipped.append(reason)
                advance(job.target.parent.name)

        try:
            for _ in pool.map(work, jobs):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    done.skipped.sort()
    return done


def plan(data: Path, out: Path, faces: Sequence[Path] = (), *, heads: bool = False) -> list[Job]:
    """What there is to do.

    Args:
        data: folder with trainA and trainB, testA and testB if there are any.
        out: the same folders are made here, and one for each of `faces`, of the same name.
        faces: more folders of faces.
        heads: cut out the whole heads of those faces as well, into NAME-heads, and of the drawings, into
            trainB-heads; the faces' pictures have to show more than the face, which selfie2anime's do not.

    Raises:
        InputError: a folder is missing or empty, two have one name, or `out` is where they are.
    """
    for name in ("trainA", "trainB"):
        if not (data / name).is_dir():
            raise InputError(f"{data} has no folder {name}", "it holds trainA, trainB, testA and testB")
    folders = [data / name for name in (*FACES, *DRAWINGS) if (data / name).is_dir()] + list(faces)
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise InputError(f"two folders have the same name: {', '.join(sorted(names))}", "rename one")
    jobs: list[Job] = []
    with_heads = {DRAWN_HEADS.removesuffix("-heads"), *names[len(names) - len(faces) :]} if heads else set()
    for folder, name in zip(folders, names, strict=True):
        if (out / name).resolve() == folder.resolve():
            raise InputError(f"{folder} would be written over", "choose another folder for the result")
        taken: set[str] = set()
        for source in list_images([folder]):
            stem = "_".join(source.relative_to(folder).with_suffix("").parts)
            if stem in taken:  # girl.jpg beside girl.png
                stem += f"_{source.suffix[1:]}"
            taken.add(stem)
            is_drawn = folder.parent == data and name in DRAWINGS
            head = out / f"{name}-heads" / f"{stem}.png" if name in with_heads else None
            jobs.append(Job(source, out / name / f"{stem}.png", head, is_drawn))
    return jobs


class _Cutter:
    """Aligned crops of single pictures; a tracker for every thread, for MediaPipe's graphs have a memory."""

    def __init__(self, size: int, face_model: str | Path | None) -> None:
        self._size, self._model = size, face_model
        self._local = threading.local()
        self._trackers: list[Any] = []

    def __enter__(self) -> _Cutter:
        return self

    def __exit__(self, *_: object) -> None:
        for tracker in self._trackers:
            tracker.close()

    def cut(self, picture: NDArray[np.uint8], job: Job) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """uint8 HxWx3 -> the face, SxSx3, and if the job wants it and the picture holds it, the head, larger.

        Raises:
            InputError: there is no face in a photograph.
        """
        from gnr_video.tracking.alignment import crop_face, fit_alignment, head_side, widened
        from gnr_video.tracking.tracker import FaceTracker

        if job.drawn:
            return fit(picture, self._size, ANIME_FRAMING), fit(picture, self._size, ANIME_FRAMING, head=True)
        if not hasattr(self._local, "tracker"):
            self._local.tracker = FaceTracker(self._model)
            self._trackers.append(self._local.tracker)
        tracker = self._local.tracker
        tracker.reset()
        found = tracker.track(picture, 0.0)
        if not found:
            raise InputError(f"{job.source}: no face was found")
        alignment = fit_alignment(found[0])
        face = crop_face(picture, alignment, self._size)
        alignment = widened(alignment)
        if job.head is None or _share_inside(alignment, picture) < WHOLE:
            return face, None
        return face, crop_face(picture, alignment, head_side(self._size))


def _share_inside(alignment: Alignment, picture: NDArray[np.uint8]) -> float:
    """How much of the crop the picture holds; the rest would be mirrored."""
    down, across = np.mgrid[:16, :16].reshape(2, -1)
    x, y = alignment.crop_to_frame(16) @ np.stack([across, down, np.ones_like(down)])
    height, width = picture.shape[:2]
    return float(((x >= 0) & (x < width) & (y >= 0) & (y < height)).mean())


def _write(target: Path, picture: NDArray[np.uint8]) -> None:
    import cv2

    _, data = cv2.imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]))
    write_atomically(target, data.tobytes())
