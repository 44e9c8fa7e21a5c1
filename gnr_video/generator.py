"""Generators opened as `EngineOptions` ask for: weights found, loaded, calibrated, compiled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import engines
from engines.weights import load_weights
from gnr_video.checkpoints import resolve_weights
from gnr_video.compositing.compositor import HEAD_MODES
from gnr_video.options import EngineOptions
from gnr_video.tracking.alignment import head_side

if TYPE_CHECKING:
    from engines.architecture import Architecture
    from engines.base import Engine
    from engines.int8 import Calibration
    from engines.tensorrt_build import Progress


class Generator(NamedTuple):
    """An engine, and what its weights file says of itself.

    Attributes:
        name: of the weights.
        is_own: whether this project's trainer made them.
    """

    engine: Engine
    name: str
    is_own: bool


def open_generator(
    weights: str | os.PathLike[str] | None,
    options: EngineOptions,
    *,
    paste: str = "crop",
    face_model: Path | None = None,
    progress: Progress | None = None,
) -> Generator:
    """Make the engine of a weights file.

    Args:
        weights: "default" (or None), "official", a weights file, or any image-to-image ONNX file.
        paste: the mode whose crops it will be given.
        face_model: finds the faces that int8 is calibrated with.
        progress: told of an engine that is being built.

    Raises:
        WeightsError, EngineError: what was asked for cannot be had; each says what to do.
    """
    path = resolve_weights(weights)
    if path.suffix.lower() == ".onnx":
        model = engines.create_image_model(
            path,
            options.onnx,
            engine=options.engine,
            device=options.device,
            precision=options.precision,
            threads=options.threads,
        )
        return Generator(model, path.name, False)
    loaded = load_weights(path)
    side = crop_side(paste, loaded.architecture)
    made = engines.create(
        loaded,
        engine=options.engine,
        device=options.device,
        precision=options.precision,
        threads=options.threads,
        calibration=calibration(options, face_model),
        progress=progress,
        side=side,
    )
    from engines.failover import with_failover

    made = with_failover(made, loaded, threads=options.threads, side=side)
    return Generator(made, loaded.metadata.get("name", "unnamed"), "recipe" in loaded.metadata)


def calibration(options: EngineOptions, face_model: Path | None = None) -> Calibration | None:
    """The faces that int8 is calibrated with; None for other precisions."""
    if options.precision != "int8":
        return None
    from gnr_video.samples.calibration import calibration_faces

    return calibration_faces(options.calibrate, face_model)


def crop_side(paste: str, generator: Engine | Architecture) -> int:
    """Side of the crops that a paste mode has translated, pixels: of faces, or of whole heads where those fit."""
    head = head_side(generator.size)
    return head if paste in HEAD_MODES and generator.fits(head) else generator.size
