"""Which inputs a run has, and where the translation of each goes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.errors import InputError
from gnr_video.media.formats import IMAGE_SUFFIXES
from gnr_video.media.open import TRANSLATED, anime_name, picture_format

VIDEO_EXTENSIONS = frozenset(
    [
        ".3gp",
        ".asf",
        ".avi",
        ".dv",
        ".flv",
        ".gif",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".mxf",
        ".ogv",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
    ]
)
"""What is taken out of folders; a file that is named itself may have any name."""


@dataclass(frozen=True)
class Job:
    """One input and where its translation goes."""

    source: Path
    target: Path


def holds_videos(folder: Path) -> bool:
    """Whether a folder is one of videos, each an input; any other is a folder of pictures, one input."""
    return any(one.suffix.lower() in VIDEO_EXTENSIONS for one in _files(folder, recursive=False))


def read_list(file: Path) -> list[str]:
    """The inputs that a text file names, one a line, relative to the file; empty lines and # lines are none.

    Raises:
        InputError: it cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"cannot read the list {file}: {error}", "give a text file, one input a line"
        ) from None
    return [str(file.parent / line.strip()) for line in lines if line.strip() and not line.startswith("#")]


def plan(inputs: Sequence[str], out: Path | None, *, recursive: bool = False) -> list[Job]:
    """The jobs of some inputs, in their order, those of a folder by name.

    Args:
        inputs: files, and folders of videos and pictures.
        out: folder of the translations: an input's name, within a folder its path. None: beside the input, as
            `anime_name` has it.
        recursive: folders within folders too.

    Raises:
        InputError: an input that does not exist, or no input at all.
    """
    found: dict[Path, Path] = {}  # source -> its place in `out`
    for text in inputs:
        path = Path(text)
        if os.path.isdir(path):
            for file in _files(path, recursive):
                is_ours = (
                    file.stem.endswith(TRANSLATED)
                    if out is None
                    else out != path and file.is_relative_to(out)
                )
                if file.suffix.lower() in VIDEO_EXTENSIONS | IMAGE_SUFFIXES and not is_ours:
                    found.setdefault(file, file.relative_to(path))
        elif os.path.exists(path):
            found.setdefault(path, Path(path.name))
        else:
            raise InputError(f"no such file: {text}", "check the name, and quote names with spaces")
    if not found:
        raise InputError(
            "there are no videos and no pictures in there", "--recursive looks into folders within"
        )
    places = []
    for source, place in found.items():
        beside = anime_name(source, picture_format(str(source)))
        places.append(beside if out is None else out / place.with_suffix(beside.suffix))
    jobs = [Job(source, target) for source, target in zip(found, _apart(found, places), strict=True)]
    for job in jobs:
        if job.target in found:
            raise InputError(f"the translation of {job.source} would replace an input", "choose another -o")
    return jobs


def _files(folder: Path, recursive: bool) -> list[Path]:
    """Files of a folder by name, without hidden ones and what is in hidden folders."""
    found = []
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(one for one in folders if recursive and not one.startswith("."))
        found += [Path(base, name) for name in sorted(names) if not name.startswith(".")]
    return found


def _apart(sources: Iterable[Path], targets: Sequence[Path]) -> list[Path]:
    """The targets, those of the same name with their source's whole name and, if need be, a number."""
    count = Counter(os.path.normcase(target) for target in targets)
    taken: set[str] = set()
    apart = []
    for source, target in zip(sources, targets, strict=True):
        if count[os.path.normcase(target)] > 1:
            target = target.with_name(f"{source.name}{target.suffix}")
        name, number = target, 2
        while os.path.normcase(name) in taken:
            name = target.with_name(f"{target.stem}-{number}{target.suffix}")
            number += 1
        taken.add(os.path.normcase(name))
        apart.append(name)
    return apart
