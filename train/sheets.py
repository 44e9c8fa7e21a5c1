"""Sample sheets: a grid of images as one picture, to look at while the training runs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engines.errors import OutputError

_PAPER = 255
_INK = (32, 32, 32)


def to_image(image: torch.Tensor) -> NDArray[np.uint8]:
    """One tensor (3, H, W), uint8 or floating point in -1..1, as uint8 HxWx3 RGB; NaN and infinity black."""
    if image.dim() != 3 or image.shape[0] != 3:
        raise ValueError(f"an image must be (3, H, W), got {tuple(image.shape)}")
    image = image.detach()
    if image.is_floating_point():
        scaled = (image.float().nan_to_num(nan=-1.0, posinf=-1.0, neginf=-1.0) + 1) * 127.5
        image = scaled.round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())


def sample_sheet(
    rows: Sequence[Sequence[torch.Tensor] | torch.Tensor], labels: Sequence[str] = (), *, gap: int = 2
) -> NDArray[np.uint8]:
    """Lay images out in a grid: one row per input, the input first, then one column per style.

    Args:
        rows: each a sequence of images (3, H, W) or a tensor (K, 3, H, W); uint8 or floating point in -1..1.
            Smaller images are enlarged to the largest, shorter rows stay blank at the end.
        labels: printed above the columns, in order; none for no header.
        gap: pixels between images.

    Returns:
        uint8 HxWx3 RGB.
    """
    import cv2

    cells = [[to_image(image) for image in row] for row in rows]
    columns = max((len(row) for row in cells), default=0)
    if columns == 0:
        raise ValueError("a sample sheet needs at least one image")
    height = max(cell.shape[0] for row in cells for cell in row)
    width = max(cell.shape[1] for row in cells for cell in row)
    header = 18 if labels else 0
    sheet = np.full(
        (header + len(cells) * (height + gap) + gap, columns * (width + gap) + gap, 3), _PAPER, np.uint8
    )
    for r, row in enumerate(cells):
        for c, cell in enumerate(row):
            if cell.shape[:2] != (height, width):
                cell = cv2.resize(cell, (width, height), interpolation=cv2.INTER_NEAREST)  # type: ignore[assignment]
            top, left = header + gap + r * (height + gap), gap + c * (width + gap)
            sheet[top : top + height, left : left + width] = cell
    for c, label in enumerate(labels[:columns]):
        left = gap + c * (width + gap)
        # Drawn on a strip of its own, so that a long label cannot run into its neighbour.
        strip = np.full((header, width, 3), _PAPER, np.uint8)
        cv2.putText(strip, label, (2, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA)
        sheet[:header, left : left + width] = strip
    return sheet


def save_png(image: NDArray[np.uint8], path: Path) -> None:
    """Write a uint8 HxWx3 RGB image as PNG; the name appears only when the file is complete.

    Raises:
        OutputError: the file cannot be written.
    """
    import cv2

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be uint8 HxWx3, got {image.dtype} {image.shape}")
    path = Path(path)
    encoded, data = cv2.imencode(".png", np.ascontiguousarray(image[:, :, ::-1]))
    if not encoded:
        raise OutputError(f"cannot encode {path} as PNG")
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".png", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(data.tobytes())
        temporary.chmod(0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {path}: {error}", "choose another folder or free some space"
        ) from error
