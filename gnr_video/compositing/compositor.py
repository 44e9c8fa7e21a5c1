"""Compositor stage: puts translated face crops back into the frame under a soft mask.

The mask is made once, in crop space, and is warped together with the crop as its fourth channel, so a frame
costs one resize, one warp and one 8-bit blend, all inside the region of interest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import cv2
import numpy as np

from gnr_video.compositing.masks import face_mask, head_mask, square_mask, whole_head_mask
from gnr_video.frame import Alignment, FaceLayer, Image
from gnr_video.media.images import resized
from gnr_video.tracking.alignment import bust_head, nearest_part
from gnr_video.tracking.face_mesh import Mask

MODES = ("head", "face", "square", "crop", "side-by-side")
HEAD_MODES = ("head", "side-by-side")
"""Those that paste whole heads, where there are busts."""

# Side the crop is resampled to before it is warped. A bilinear warp of a crop oversampled twice is as sharp
# at every sub-pixel phase as a bicubic warp of the crop itself, in a third of the time.
_OVERSAMPLED = 512
GREY = 127

Surroundings: TypeAlias = Callable[[Image, Sequence[FaceLayer]], None]


class Compositor:
    """Pastes translated crops into frames.

    Modes:
        head: soft shape that keeps to the head (default). With busts it takes in all the hair; else as much hair as is
            in the face's crop.
        face: landmark oval, feathered; hair stays human.
        square: the crop with a feathered edge.
        crop: the translated crop alone, size x size. A fading face dissolves to its source crop where that is
            given. While there is no face the last picture stays; before the first face it is grey.
        side-by-side: the source on the left, the `head` result on the right.

    Args:
        mode: one of the above.
        size: side of the output of mode `crop`, pixels.

    Attributes:
        mode: may be changed between frames.

    Raises:
        ValueError: a mode that does not exist, or a size below 16.
    """

    def __init__(self, mode: str = "head", *, size: int = 256) -> None:
        if mode not in MODES:
            raise ValueError(f"unknown paste mode {mode!r}, expected one of {', '.join(MODES)}")
        if size < 16:
            raise ValueError(f"size must be at least 16, got {size}")
        self.mode = mode
        self.size = size
        self.captions: Sequence[str] = ()
        self._last: Image | None = None

    def output_size(self, frame_size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) of the result for frames of (width, height) `frame_size`."""
        width, height = frame_size
        if self.mode == "crop":
            return self.size, self.size
        return (2 * width, height) if self.mode == "side-by-side" else (width, height)

    def whole_frame(self, image: Image) -> Image | None:
        """The part of a result that shows the whole frame, a view; None where only faces are shown."""
        if self.mode not in MODES or self.mode == "crop":
            return None
        return image[:, image.shape[1] // 2 :] if self.mode == "side-by-side" else image

    def source_part(self, image: Image) -> Image | None:
        """The part of a result that shows the whole frame as it was, a view; None where there is none."""
        return image[:, : image.shape[1] // 2] if self.mode == "side-by-side" else None

    def reset(self) -> None:
        """Forget the frames before: the picture that mode `crop` holds."""
        self._last = None

    def state(self) -> Image | None:
        """The picture that mode `crop` holds, for `restore`."""
        return self._last

    def restore(self, state: Image | None) -> None:
        """Hold it on."""
        self._last = state

    def compose(
        self, image: Image, faces: Sequence[FaceLayer], around: Surroundings = lambda image, faces: None
    ) -> Image:
        """Paste the faces into one frame.

        Args:
            image: uint8 HxWx3 RGB, left as it is.
            faces: with drawings (uint8 SxSx3, any S), and busts where those are of whole heads. Larger faces cover
                smaller ones where they overlap; mode `crop` shows the lowest track id. Their masks are filled in.
            around: changes the frame around whole heads, in place, before they are pasted: `Effects.frame`.

        Returns:
            uint8 RGB of `output_size`; a new array. Pixels outside of masks and busts equal the input's.

        Raises:
            ValueError: a drawing or a source crop that is not uint8 SxSx3.
        """
        for face in faces:
            check_crop(face.drawing)
        if self.mode == "crop":
            return self._crop_only(faces)
        height, width = image.shape[:2]
        if self.mode == "side-by-side":
            out = np.empty((height, 2 * width, 3), np.uint8)
            out[:, :width] = image
            target = out[:, width:]
            target[...] = image
        else:
            target = out = image.copy()
        for face in faces:
            face.mask = self._mask(face)
        if faces and self.mode in HEAD_MODES and all(face.bust is not None for face in faces):
            around(target, faces)
        pasted: list[Alignment] = []
        # Far faces first, and those that are not seen before all others.
        for face in sorted(faces, key=lambda f: (not f.held, f.alignment.scale, f.alignment.track_id)):
            assert face.mask is not None and face.drawing is not None
            mask = face.mask
            if face.bust is not None:
                mask = nearest_part(mask, face.alignment, pasted)
            if face.least is not None:
                mask = np.asarray(cv2.max(mask, face.least), np.uint8)
            paste(target, face.alignment, face.drawing, mask)
            pasted.append(face.alignment)
        return out

    def _mask(self, face: FaceLayer) -> Mask:
        assert face.drawing is not None
        size, landmarks = face.drawing.shape[0], face.alignment.landmarks
        if face.bust is not None and self.mode in HEAD_MODES:
            matte = face.bust.matte[bust_head(face.bust.matte.shape[0])]
            return whole_head_mask(np.asarray(cv2.resize(matte, (size, size)), np.uint8))
        if self.mode == "face":
            return face_mask(landmarks, size)
        return square_mask(size) if self.mode == "square" else head_mask(landmarks, size)

    def _crop_only(self, faces: Sequence[FaceLayer]) -> Image:
        if faces:
            face = min(faces, key=lambda one: one.alignment.track_id)
            assert face.drawing is not None
            shown = resized(face.drawing, self.size)
            if face.crop is not None:
                check_crop(face.crop)
                shown = dissolved(shown, resized(face.crop, self.size), face.alignment.opacity)
            self._last = shown.copy()
        if self._last is None:
            return np.full((self.size, self.size, 3), GREY, np.uint8)
        return self._last.copy()


def dissolved(picture: Image, source: Image, opacity: float) -> Image:
    """The picture, or what a fading one has become: a mix with its source."""
    opacity = max(opacity, 0.0)
    if opacity >= 1:
        return picture
    return np.asarray(cv2.addWeighted(picture, opacity, source, 1.0 - opacity, 0.0), np.uint8)


def paste(image: Image, alignment: Alignment, crop: Image, mask: Mask) -> None:
    """Blend one crop into `image`, in place.

    Args:
        image: uint8 HxWx3; may be a view.
        alignment: where the crop lies. Its opacity scales the mask.
        crop: uint8 SxSx3.
        mask: uint8 SxS, zero on its border.
    """
    opacity = min(max(alignment.opacity, 0.0), 1.0)
    side = 256.0 * alignment.scale
    region = _region(alignment, mask, image.shape[1], image.shape[0])
    if opacity == 0.0 or region is None:
        return
    left, top, right, bottom = region
    layer = cv2.cvtColor(crop, cv2.COLOR_RGB2RGBA)
    cv2.insertChannel(mask, layer, 3)
    if side >= crop.shape[0]:
        working, how = _OVERSAMPLED, cv2.INTER_CUBIC
    else:
        # The frame has fewer pixels than the crop: average them, or the face flickers as it moves.
        working, how = max(math.ceil(side), 1), cv2.INTER_AREA
    layer = cv2.resize(layer, (working, working), interpolation=how)
    matrix = alignment.crop_to_frame(working)
    matrix[:, 2] -= (left, top)
    layer = cv2.warpAffine(layer, matrix, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    alpha = cv2.extractChannel(layer, 3)
    if opacity < 1.0:
        alpha = cv2.convertScaleAbs(alpha, alpha=opacity)
    alpha = cv2.merge([alpha, alpha, alpha])
    below = image[top:bottom, left:right]
    above = cv2.multiply(cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB), alpha, scale=1 / 255)
    image[top:bottom, left:right] = cv2.add(above, cv2.multiply(below, cv2.bitwise_not(alpha), scale=1 / 255))


def _region(alignment: Alignment, mask: Mask, width: int, height: int) -> tuple[int, int, int, int] | None:
    """(left, top, right, bottom) of the mask's bounding box in the frame; None where it lies outside."""
    x, y, w, h = cv2.boundingRect(mask)
    if w == 0 or h == 0:
        return None
    matrix = alignment.crop_to_frame(mask.shape[0])
    corners = np.array([[x - 1, x + w, x + w, x - 1], [y - 1, y - 1, y + h, y + h], [1, 1, 1, 1]], np.float64)
    points = matrix @ corners
    low, high = np.floor(points.min(axis=1)) - 1, np.ceil(points.max(axis=1)) + 2
    left, top = max(int(low[0]), 0), max(int(low[1]), 0)
    right, bottom = min(int(high[0]), width), min(int(high[1]), height)
    return (left, top, right, bottom) if left < right and top < bottom else None


def check_crop(crop: Image | None) -> None:
    if crop is None:
        raise ValueError("a face without a drawing")
    if crop.dtype != np.uint8 or crop.ndim != 3 or crop.shape[2] != 3 or crop.shape[0] != crop.shape[1]:
        raise ValueError(f"a crop must be uint8 SxSx3, got {crop.dtype} {crop.shape}")
