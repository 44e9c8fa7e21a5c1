"""Model files and weights: which are here and whole, and how the others get there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engines.errors import GnrVideoError
from engines.installation import install_line
from gnr_video.doctor.check import Check

if TYPE_CHECKING:
    from gnr_video.tracking.model_files import ModelFile


def check_face_model() -> Iterator[Check]:
    """The face landmark model; only looked for, never fetched here."""
    from gnr_video.tracking import model_files

    yield _model_check("face model", model_files.FACE_MODEL, "FACE_MODEL")


def check_person_model() -> Iterator[Check]:
    """The person segmentation model, likewise. Videos are translated without it, so nothing here fails."""
    from gnr_video.tracking import model_files

    check = _model_check("person model", model_files.PERSON_MODEL, "PERSON_MODEL")
    if check.status != "ok":
        check = replace(check, status="warn", detail=f"{check.detail}; hair stays human without it")
    yield check


def _model_check(name: str, model: ModelFile, constant: str) -> Check:
    """Where `model_files.<constant>` is, or how it gets there."""
    from engines.files import file_sha256

    fetch = (
        f'{_python()} -c "from gnr_video.tracking.model_files import {constant} as m; print(m.resolve())"'
        f" (or set {model.variable} to a copy of {model.url})"
    )
    chosen = os.environ.get(model.variable)
    path = Path(chosen).expanduser() if chosen else model.cached
    if not path.is_file():
        if chosen:
            return Check(name, "fail", f"${model.variable} names no file: {path}", f"unset {model.variable}")
        size = f"{model.size / 1e6:.1f} MB"
        return Check(name, "warn", f"not here yet; the first run fetches it ({size})", fetch)
    if file_sha256(path) != model.sha256:
        if chosen:
            fix = f"unset {model.variable}, or point it to a copy of {model.url}"
            return Check(name, "fail", f"{path} is another file than the expected one", fix)
        return Check(name, "warn", f"{path} is damaged; the next run fetches it again", fetch)
    return Check(name, "ok", str(path))


def _python() -> str:
    """How the user most likely calls this interpreter."""
    return Path(sys.executable).name or "python"


def check_weights() -> Iterator[Check]:
    """The default weights, and the official ones where they were fetched."""
    from gnr_video.checkpoints import official_file

    yield weights_check("default weights", None)
    if official_file().is_file():
        yield weights_check("official weights", "official")


def weights_check(name: str, which: str | None) -> Check:
    """Whether weights are there and whole."""
    from engines.weights import load_weights
    from gnr_video.checkpoints import resolve_weights

    try:
        path = resolve_weights(which)
        weights = load_weights(path)
    except GnrVideoError as error:
        again = install_line("", "--force-reinstall", "--no-deps")
        fix = error.hint or f"{again}, or give a file with --weights"
        return Check(name, "fail" if which is None else "warn", error.message, fix)
    megabytes = path.stat().st_size / 1e6
    styles = "takes styles from pictures" if weights.has_style_encoder else "no style encoder"
    side = weights.architecture.size
    size = f"{side}x{side}, {weights.parameters / 1e6:.1f} M parameters, {megabytes:.0f} MB"
    return Check(name, "ok", f"{path.name}, {size}, {styles}")
