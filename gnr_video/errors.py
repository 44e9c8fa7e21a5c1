"""The project's exceptions, under the run-time's name (they are defined beside the engines)."""

from engines.errors import (
    EngineError,
    FaceModelError,
    GnrVideoError,
    InputError,
    ModelFileError,
    OutputError,
    StyleError,
    WeightsError,
)

__all__ = [
    "EngineError",
    "FaceModelError",
    "GnrVideoError",
    "InputError",
    "ModelFileError",
    "OutputError",
    "StyleError",
    "WeightsError",
]
