"""Contact sheets: labelled grids of pictures, and frames of two videos before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from engines.errors import InputError, OutputError
from engines.files import write_atomically
from gnr_video.frame import Image
from gnr_video.lettering import captioned
from gnr_video.styles.code import StyleCode

if TYPE_CHECKING:
    from gnr_video.still import StillFace

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_CAP_HEIGHT = 21  # pixels of a capital letter at font scale 1
_FINER = 2  # text is drawn this much larger and averaged: OpenCV's stroke fonts are ragged when small
_STROKE = 2
_EARLY = 1e-6  # seconds by which a frame may be late and still be shown, against rounding
_LIGHT = {"background": (255, 255, 255), "text": (40, 40, 40), "empty": (238, 238, 238)}
_DARK = {"background": (24, 24, 27), "text": (228, 228, 231), "empty": (39, 39, 42)}


def contact_sheet(
    rows: Sequence[Sequence[Image]],
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str = "",
    cell: int | tuple[int, int] = 256,
    pad: int = 8,
    dark: bool = False,
) -> Image:
    """A grid of pictures with labels.

    Args:
        rows: uint8 HxWx3 RGB pictures of any size, row by row; rows may differ in length. Each picture is
            scaled to fit its cell, its aspect ratio kept.
        row_labels: one text for each row, at the left. Only ASCII can be drawn; other letters become "?".
        column_labels: one text for each column, on top.
        title: a line above everything.
        cell: side of a cell, or (width, height), pixels.
        pad: space between cells and around the sheet, pixels.
        dark: light text on a dark ground instead of dark text on white.

    Returns:
        uint8 HxWx3 RGB.

    Raises:
        ValueError: no picture, a picture that is not uint8 HxWx3, or labels that do not match the grid.
    """
    width, height = (cell, cell) if isinstance(cell, int) else cell
    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise ValueError("a contact sheet needs at least one picture")
    if row_labels is not None and len(row_labels) != len(rows):
        raise ValueError(f"{len(row_labels)} row labels for {len(rows)} rows")
    if column_labels is not None and len(column_labels) != columns:
        raise ValueError(f"{len(column_labels)} column labels for {columns} columns")
    colors = _DARK if dark else _LIGHT
    size = max(9, min(14, round(height / 14)))  # cap height of the labels
    side = 0
    if row_labels and any(row_labels):
        side = min(max(_text_width(text, size) for text in row_labels), 2 * width) + pad
    head = 2 * size + pad if title else 0
    top = 2 * size if column_labels and any(column_labels) else 0

    x0, y0 = pad + side, pad + head + top
    sheet = np.empty((y0 + len(rows) * (height + pad), x0 + columns * (width + pad), 3), np.uint8)
    sheet[:] = colors["background"]
    if title:
        _draw_text(sheet, title, pad, pad + size, round(size * 1.3), colors["text"], sheet.shape[1] - 2 * pad)
    for i, text in enumerate(column_labels or ()):
        text = _shortened(text, size, width)
        left = x0 + i * (width + pad) + (width - _text_width(text, size)) // 2
        _draw_text(sheet, text, left, y0 - size, size, colors["text"], width)
    for j, row in enumerate(rows):
        y = y0 + j * (height + pad)
        if row_labels:
            text = _shortened(row_labels[j], size, side - pad)
            left = pad + (side - pad) - _text_width(text, size)
            _draw_text(sheet, text, left, y + height // 2, size, colors["text"], side)
        for i, image in enumerate(row):
            x = x0 + i * (width + pad)
            sheet[y : y + height, x : x + width] = _fitted(image, width, height, colors["empty"])
    return sheet


def style_sheet(face: StillFace, styles: Sequence[StyleCode]) -> Image:
    """One face under many styles, the face itself first, each with its style written into the corner.

    Args:
        face: a picture's.
        styles: codes.

    Returns:
        uint8 HxWx3 RGB, about square.
    """
    # z and w codes differ in length, so w it is.
    codes = np.concatenate([face.engine.to_w(style.array()) for style in styles])
    labels = (style.label for style in styles)
    cells = [_cell(face.source, "source"), *map(_cell, face.under(codes), labels)]
    columns = math.ceil(math.sqrt(len(cells)))
    return contact_sheet([cells[i : i + columns] for i in range(0, len(cells), columns)], cell=256)


def interpolation_strip(face: StillFace, first: StyleCode, last: StyleCode, count: int = 8) -> Image:
    """One face under the styles from one to another, evenly spaced in w space, in a row.

    Args:
        face: as for `style_sheet`.
        first, last: the styles at the ends.
        count: pictures, both ends included; at least 2.

    Returns:
        uint8 HxWx3 RGB.
    """
    if count < 2:
        raise ValueError(f"an interpolation needs at least 2 pictures, got {count}")
    shares = np.linspace(0, 1, count, dtype=np.float32)[:, None]
    a, b = (face.engine.to_w(code.array()) for code in (first, last))
    labels = [first.label, *(f"{100 * t:.0f} %" for t in shares[1:-1, 0]), last.label]
    cells = map(_cell, face.under((1 - shares) * a + shares * b), labels)
    return contact_sheet([[_cell(face.source, "source"), *cells]], cell=256)


def _cell(picture: Image, text: str) -> Image:
    return captioned(
        np.asarray(cv2.resize(picture, (256, 256), interpolation=cv2.INTER_CUBIC), np.uint8), text
    )


def before_after_sheet(
    source: str | Path, result: str | Path, out_png: str | Path, count: int = 6, *, width: int = 320
) -> Path:
    """Evenly spaced frames of a video above the frames of its translation at the same times, as a PNG.

    Args:
        source: the video before.
        result: the video after.
        out_png: where the sheet is written to.
        count: number of moments.
        width: width of one frame on the sheet, pixels.

    Returns:
        `out_png`.

    Raises:
        InputError: one of the videos cannot be read.
        OutputError: the PNG cannot be written.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    seconds = min(_duration(source), _duration(result))
    times = [(i + 0.5) * seconds / count for i in range(count)]
    before, after = frames_at(source, times), frames_at(result, times)
    shape = before[0].shape
    sheet = contact_sheet(
        [before, after],
        row_labels=["before", "after"],
        column_labels=[f"{t:.1f} s" for t in times],
        cell=(width, max(1, round(width * shape[0] / shape[1]))),
    )
    return save_png(out_png, sheet)


def frames_at(path: str | Path, times: Sequence[float]) -> list[Image]:
    """The upright frames that a video shows at the given times. Reads it up to the last of them.

    Args:
        path: anything that `gnr_video.media.open.open_source` reads.
        times: seconds since the first frame, ascending. A time after the end gives the last frame.

    Returns:
        One uint8 HxWx3 RGB picture for each time.

    Raises:
        InputError: it cannot be read or holds no picture.
    """
    from gnr_video.media.open import open_source

    shown: list[Image] = []
    with open_source(path) as source:
        first = last = None
        for frame in source:
            first = first or frame
            seconds = frame.pts_seconds - first.pts_seconds
            # The frame before stays on the screen until this one's time.
            while last is not None and len(shown) < len(times) and times[len(shown)] < seconds - _EARLY:
                shown.append(last.image)
            last = frame
            if len(shown) == len(times):
                break
    if last is None:
        raise InputError(f"{path} holds no frame", "check that the file is complete")
    return shown + [last.image] * (len(times) - len(shown))


def save_png(path: str | Path, image: Image) -> Path:
    """Write a uint8 HxWx3 RGB picture as PNG, under a temporary name first.

    Raises:
        OutputError: the file cannot be written.
    """
    ok, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not ok:
        raise OutputError(f"cannot encode a {image.shape} picture as PNG")
    write_atomically(path, data.tobytes())
    return Path(path)


def _duration(path: str | Path) -> float:
    """Seconds from the first frame to the end; counted where the container does not say."""
    from gnr_video.media.open import open_source

    with open_source(path) as source:
        if source.info.duration_seconds is not None:
            return source.info.duration_seconds
        times = [frame.pts_seconds for frame in source]
        return times[-1] - times[0] if times else 0.0


def _fitted(image: Image, width: int, height: int, empty: tuple[int, int, int]) -> Image:
    """The picture scaled into a width x height cell, centred."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"a picture must be uint8 HxWx3, got {image.dtype} {image.shape}")
    zoom = min(width / image.shape[1], height / image.shape[0])
    w, h = max(1, round(image.shape[1] * zoom)), max(1, round(image.shape[0] * zoom))
    if (w, h) != (image.shape[1], image.shape[0]):
        how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(image, (w, h), interpolation=how), np.uint8)
    if (w, h) == (width, height):
        return image
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = empty
    x, y = (width - w) // 2, (height - h) // 2
    canvas[y : y + h, x : x + w] = image
    return canvas


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _text_width(text: str, size: int) -> int:
    """Width in pixels of a text whose capitals are `size` pixels high."""
    (width, _), _ = cv2.getTextSize(_ascii(text), _FONT, _FINER * size / _FONT_CAP_HEIGHT, _STROKE)
    return -(-(width + 2 * _STROKE) // _FINER)


def _shortened(text: str, size: int, width: int) -> str:
    """The text, cut with "..." where it is wider than `width`."""
    if _text_width(text, size) <= width:
        return text
    while text and _text_width(text + "...", size) > width:
        text = text[:-1]
    return text.rstrip() + "..." if text else ""


def _draw_text(
    sheet: Image, text: str, x: int, middle: int, size: int, color: tuple[int, int, int], width: int
) -> None:
    """Write one line, its capitals centred on the row `middle`, not wider than `width`."""
    text = _ascii(_shortened(text, size, width))
    if not text:
        return
    rows, columns = 3 * size, _text_width(text, size)
    big = np.zeros((_FINER * rows, _FINER * columns), np.uint8)
    scale = _FINER * size / _FONT_CAP_HEIGHT
    cv2.putText(big, text, (_STROKE, 2 * _FINER * size), _FONT, scale, 255, _STROKE, cv2.LINE_AA)
    alpha = cv2.resize(big, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0
    top = middle - round(1.5 * size)
    y0, y1 = max(top, 0), min(top + rows, sheet.shape[0])
    x0, x1 = max(x, 0), min(x + columns, sheet.shape[1])
    if y0 >= y1 or x0 >= x1:
        return
    weight = alpha[y0 - top : y1 - top, x0 - x : x1 - x, None]
    region = sheet[y0:y1, x0:x1]
    region[:] = np.round(region + weight * (np.array(color, np.float32) - region))
