"""What travels down the pipeline: a frame with its time, a face found in it, the crop's alignment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""uint8 HxWx3, RGB."""

Alpha = NDArray[np.uint8]
"""uint8 HxW, 0 transparent, 255 opaque."""

Points = NDArray[np.float32]
"""float32 Nx2 or Nx3, pixels."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One upright picture of a video and the time it is shown.

    Attributes:
        image: uint8 HxWx3 RGB, upright (rotation side data already applied), C-contiguous.
        pts: presentation time in units of `time_base`, never rewritten by the pipeline.
        time_base: seconds per pts unit.
        index: number of the frame in the stream, from 0.
        props: what the source wants the sink to see again (its "duration", in `time_base` units; its "name"), and
            "states", see `note`.
        alpha: uint8 HxW where there is transparency; what is hidden by it is white in `image`.
    """

    image: Image
    pts: int
    time_base: Fraction
    index: int
    props: dict[str, Any] = field(default_factory=dict)
    alpha: Alpha | None = None

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise ValueError(f"image must be uint8 HxWx3, got {self.image.dtype} {self.image.shape}")
        if self.alpha is not None and self.alpha.shape != self.image.shape[:2]:
            raise ValueError(f"alpha must be {self.image.shape[:2]}, got {self.alpha.shape}")

    @property
    def pts_seconds(self) -> float:
        return float(self.pts * self.time_base)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]

    def note(self, stage: str, state: Callable[[], Any]) -> None:
        """Write down what a stage was like before this frame, if its `props` have a dict "states" for that.

        A run that begins with this frame and these states (`pipeline.run`) goes on as the one that wrote them.
        """
        if (states := self.props.get("states")) is not None:
            states[stage] = state()

    def __repr__(self) -> str:
        return f"Frame(index={self.index}, pts_seconds={self.pts_seconds:.3f}, shape={self.image.shape})"


@dataclass(frozen=True, eq=False)
class Face:
    """A tracked face in one frame.

    Attributes:
        track_id: the same number for the same person through the video, from 0.
        landmarks: float32 478x3 MediaPipe landmarks; x, y in pixels of the frame, z in the same scale.
        presence: 0..1, how sure the tracker is.
    """

    track_id: int
    landmarks: Points
    presence: float = 1.0

    def __post_init__(self) -> None:
        if self.landmarks.ndim != 2 or self.landmarks.shape[0] < 468 or self.landmarks.shape[1] != 3:
            raise ValueError(f"landmarks must be 478x3, got {self.landmarks.shape}")

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of the landmarks, pixels."""
        low, high = self.landmarks[:, :2].min(0), self.landmarks[:, :2].max(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def __repr__(self) -> str:
        left, top, right, bottom = self.box
        return f"Face(track_id={self.track_id}, box=({left:.0f}, {top:.0f}, {right:.0f}, {bottom:.0f}))"


@dataclass(frozen=True)
class Alignment:
    """Where the 256x256 crop of a face lies in the frame, and how strongly it is shown.

    A similarity transform: a crop point p (pixels of the 256 crop) lies in the frame at
    ``center + scale * R(angle) @ (p - 128)``.

    Attributes:
        track_id: the face's identity.
        center_x, center_y: the crop's centre in frame pixels.
        scale: frame pixels per crop pixel.
        angle: roll in radians, clockwise on the screen (y points down).
        opacity: 0..1; below 1 while a lost face fades out.
        landmarks: float32 Nx2, the face's landmarks in crop pixels (for the `face` mask), or None.
    """

    track_id: int
    center_x: float
    center_y: float
    scale: float
    angle: float
    opacity: float = 1.0
    landmarks: Points | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not (self.scale > 0 and np.isfinite([self.center_x, self.center_y, self.scale, self.angle]).all()):
            raise ValueError(f"alignment must be finite with scale > 0, got {self!r}")

    def crop_to_frame(self, size: int = 256) -> NDArray[np.float64]:
        """2x3 affine matrix from pixels of a size x size crop to frame pixels (pixel centres at integers)."""
        # A size x size crop is the 256 crop resampled with aligned corners of pixel *areas*.
        zoom = 256.0 / size
        a, b = self.scale * np.cos(self.angle), self.scale * np.sin(self.angle)
        offset = (0.5 * zoom - 0.5) - 128.0
        return np.array(
            [
                [a * zoom, -b * zoom, self.center_x + a * offset - b * offset],
                [b * zoom, a * zoom, self.center_y + b * offset + a * offset],
            ]
        )


@dataclass(frozen=True, eq=False)
class Bust:
    """Head and shoulders of a person.

    Attributes:
        alignment: of the crop in the frame, with the face's landmarks.
        picture: uint8 SxSx3 RGB. It and the matte may be those of a frame shortly before, where the crop lay then.
        matte: uint8 SxS, 255 = person.
        seconds: the time of that frame.
    """

    alignment: Alignment
    picture: Image
    matte: NDArray[np.uint8]
    seconds: float


@dataclass(eq=False)
class FaceLayer:
    """One face of a frame on its way: each stage fills in its part.

    Attributes:
        alignment: where the crop lies in the frame; that of a whole head where there is a bust.
        role: the number that its style goes by.
        seconds: the time of the frame.
        chosen: whether it is to be drawn (`--faces`).
        held: it is not seen in this frame: what is shown is its last drawing, this bright, 0..1. 0: it is seen.
        crop: uint8 SxSx3 RGB, cut out of the frame.
        shown: uint8 SxSx3, what the network is shown: the crop, or what effects made of it.
        bust: head and shoulders, where whole heads are pasted.
        drawing: uint8 SxSx3, what the network made of it, and effects of that.
        mask: uint8 SxS, what of the drawing is pasted.
        least: uint8 SxS, what of it is pasted whatever the mask says.
    """

    alignment: Alignment
    role: int = 0
    seconds: float = 0.0
    chosen: bool = True
    held: float = 0.0
    crop: Image | None = None
    shown: Image | None = None
    bust: Bust | None = None
    drawing: Image | None = None
    mask: NDArray[np.uint8] | None = None
    least: NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class Cover:
    """A head that is covered, because its face must not be seen and there is no drawing of it.

    Attributes:
        alignment: where the crop of its face lies, or would lie.
        why: of `gnr_video.privacy.REASONS`; "" where a drawing is hidden in a view of what was there.
        colors: RGB of hair and skin, as the person was drawn last; None: nobody knows.
    """

    alignment: Alignment
    why: str
    colors: tuple[tuple[int, int, int], tuple[int, int, int]] | None = None


@dataclass(frozen=True, eq=False)
class Layered:
    """A frame and what is drawn in it.

    Attributes:
        faces: its faces. Under a grid there is a layer for each drawing of the first one.
        scene: "cut" where it begins a new scene, "flat" where it is all of one colour.
        covers: heads that are covered.
        blurred: why all of it is blurred, of `gnr_video.privacy.REASONS`; "": it is not.
    """

    frame: Frame
    faces: list[FaceLayer] = field(default_factory=list)
    scene: str = ""
    covers: list[Cover] = field(default_factory=list)
    blurred: str = ""
