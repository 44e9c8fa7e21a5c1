"""What users choose, as objects that commands, the Python API and live use hand on whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engines.image_model import ImageModelOptions
    from gnr_video.styles.schedule import StylePlan
    from gnr_video.tracking.selection import FaceChoice


@dataclass(frozen=True)
class EngineOptions:
    """What runs the network, and how.

    Attributes:
        engine: "auto", or a name of `engines.ENGINES`.
        device: "auto", "cpu", "cuda", "cuda:1".
        precision: "auto", "fp32", "bf16", "fp16", "int8".
        calibrate: a clip whose faces int8 is calibrated with; None: the demo's.
        threads: CPU threads of the network; None: the runtime's choice.
        onnx: what an ONNX file does not say of itself.
    """

    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    calibrate: str | os.PathLike[str] | None = None
    threads: int | None = None
    onnx: ImageModelOptions | None = None


@dataclass(frozen=True)
class LookOptions:
    """Whose faces are drawn, how, how often, and how the drawings are put back.

    Attributes:
        paste: "head", "face", "square", "crop" or "side-by-side", see `gnr_video.compositing.compositor`. Heads are
            whole, with their hair, where `gnr_video.tracking.matte` finds its model, but for an ONNX file.
        effects: which of `gnr_video.effects.EFFECTS` are on, by name ({"tint": False}); the others are as they are by
            themselves.
        faces: who is translated: "all", "largest", "left", "right", "id:K" or a number of people.
        plan: how the style changes with time; None: not at all.
        background: what is behind people: "keep", "blur", "key", a colour or a picture, see
            `gnr_video.compositing.background`.
        grid: (rows, columns): show the first face under so many styles at once instead of the video, itself in
            the middle where there is one, else beside them.
        private: no frame shows a bare face, see `gnr_video.privacy`.
        hold: frames that a drawing of a face is shown for, 1 or more, see `gnr_video.hold`. None: 1, and live as few
            as keep up with the camera.
        lookahead: frames of a file that smoothing may look ahead (0: none, as when live); None:
            `gnr_video.tracking.smoothing.LOOKAHEAD`.
        face_model: MediaPipe's face_landmarker.task; None finds or fetches it when it is first needed.
    """

    paste: str = "head"
    effects: Mapping[str, bool | None] = field(default_factory=dict)
    faces: str | int | FaceChoice = "all"
    plan: StylePlan | None = None
    background: str = "keep"
    grid: tuple[int, int] | None = None
    private: bool = False
    hold: int | None = None
    lookahead: int | None = None
    face_model: str | os.PathLike[str] | None = None


@dataclass(frozen=True)
class OutputOptions:
    """What part of a video is translated, and how the result is written.

    Attributes:
        start, end: seconds of the source; None: all of it.
        interlaced: "deinterlace", or "keep": interlaced pictures stay as they are, and are flagged so.
        stream: which of several video streams, see `gnr_video.media.open.open_source`.
        codec, crf: of the encoder, see `gnr_video.media.open.open_sink`. Without either, an engine on an NVIDIA GPU has
            that GPU's encoder instead of libx264, where it works.
        overwrite: replace an existing file.
        resume: render long videos in segments that survive a crash (`gnr_video.segments.run.translate`).
    """

    start: float | None = None
    end: float | None = None
    interlaced: str = "deinterlace"
    stream: int | None = None
    codec: str | None = None
    crf: int | None = None
    overwrite: bool = False
    resume: bool = True
