"""Preparing a data set: faces as the pipeline will cut them out, drawn heads in the proportions of faces.

The generator only ever sees aligned crops (`gnr_video.align`), so that is what it should be trained on; and the
less the two domains differ in where eyes, mouth and chin lie, the less of the training goes into moving them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import InputError, OutputError
from engines.files import write_atomically
from train.data import ANIME_FRAMING, decode, fit, list_images, require_pillow

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
    """One picture: where it is, where it goes, and whether it is drawn."""

    source: Path
    target: Path
    drawn: bool


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
        face_model: MediaPipe's face model, see `gnr_video.model_files`.
        advance: called after every picture, with the name of its folder.

    Raises:
        FaceModelError: see `gnr_video.tracker.FaceTracker`.
        OutputError: a picture cannot be written.
    """
    require_pillow()
    for made in {job.target.parent for job in jobs}:
        try:
            made.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make {made}: {error.strerror or error}", "choose another folder"
            ) from error
    done, lock = Prepared(), threading.Lock()
    with _Cutter(size, face_model) as cutter, ThreadPoolExecutor(2) as pool:

        def work(job: Job) -> None:
            folder, reason = job.target.parent.name, None
            if not job.target.exists():
                try:
                    _write(job.target, cutter.cut(decode(job.source), drawn=job.drawn))
                except InputError as error:
                    reason = f"{job.source}: {error.message}"
            with lock:
                if reason is None:
                    done.written[folder] = done.written.get(folder, 0) + 1
                else:
                    done.skipped.append(reason)
                advance(folder)

        try:
            for _ in pool.map(work, jobs):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    done.skipped.sort()
    return done


def plan(data: Path, out: Path, faces: Sequence[Path] = ()) -> list[Job]:
    """What there is to do.

    Args:
        data: folder with trainA and trainB, testA and testB if there are any.
        out: the same folders are made here, and one for each of `faces`, of the same name.
        faces: more folders of faces.

    Raises:
        InputError: a folder is missing or empty, two have one name, or `out` is where they are.
    """
    for name in ("trainA", "trainB"):
        if not (data / name).is_dir():
            raise InputError(f"{data} has no folder {name}", "it holds trainA, trainB, testA and testB")
    folders = [(data / name, name in DRAWINGS) for name in (*FACES, *DRAWINGS) if (data / name).is_dir()]
    folders += [(folder, False) for folder in faces]
    names = [folder.resolve().name for folder, _ in folders]
    if len(set(names)) < len(names):
        raise InputError(f"two folders have the same name: {', '.join(sorted(names))}", "rename one")
    jobs: list[Job] = []
    for (folder, drawn), name in zip(folders, names, strict=True):
        if (out / name).resolve() == folder.resolve():
            raise InputError(f"{folder} would be written over", "choose another folder for the result")
        taken: set[str] = set()
        for source in list_images([folder]):
            stem = "_".join(source.relative_to(folder).with_suffix("").parts)
            if stem in taken:  # girl.jpg beside girl.png
                stem += f"_{source.suffix[1:]}"
            taken.add(stem)
            jobs.append(Job(source, out / name / f"{stem}.png", drawn))
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

    def cut(self, picture: NDArray[np.uint8], *, drawn: bool) -> NDArray[np.uint8]:
        """uint8 HxWx3 -> SxSx3.

        Raises:
            InputError: there is no face in a photograph.
        """
        from gnr_video.align import crop_face, fit_alignment
        from gnr_video.tracker import FaceTracker

        if drawn:
            return fit(picture, self._size, ANIME_FRAMING)
        if not hasattr(self._local, "tracker"):
            self._local.tracker = FaceTracker(self._model)
            self._trackers.append(self._local.tracker)
        tracker = self._local.tracker
        tracker.reset()
        found = tracker.track(picture, 0.0)
        if not found:
            raise InputError("no face was found")
        return crop_face(picture, fit_alignment(found[0]), self._size)


def _write(target: Path, picture: NDArray[np.uint8]) -> None:
    import cv2

    _, data = cv2.imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]))
    write_atomically(target, data.tobytes())
