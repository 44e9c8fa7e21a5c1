"""gnr-video: a face in a video becomes an anime face, live or from a file (GANs N' Roses)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gnr_video._version import __version__

if TYPE_CHECKING:
    from engines.errors import GnrVideoError
    from gnr_video.frame import Alignment, Face, Frame
    from gnr_video.options import EngineOptions, LookOptions, OutputOptions
    from gnr_video.report import Report
    from gnr_video.styles.code import StyleCode
    from gnr_video.translator import Translator

__all__ = [
    "Alignment",
    "EngineOptions",
    "Face",
    "Frame",
    "GnrVideoError",
    "LookOptions",
    "OutputOptions",
    "Report",
    "StyleCode",
    "Translator",
    "__version__",
]

_HOME = {
    "Alignment": "gnr_video.frame",
    "EngineOptions": "gnr_video.options",
    "Face": "gnr_video.frame",
    "Frame": "gnr_video.frame",
    "GnrVideoError": "engines.errors",
    "LookOptions": "gnr_video.options",
    "OutputOptions": "gnr_video.options",
    "Report": "gnr_video.report",
    "StyleCode": "gnr_video.styles.code",
    "Translator": "gnr_video.translator",
}


def __getattr__(name: str) -> Any:
    """Names are imported when they are first used, so that `import gnr_video` costs nothing."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
