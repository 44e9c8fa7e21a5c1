"""Style codes: the look that the content of every frame is given, kept for a whole video."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engines.errors import StyleError, WeightsError
from gnr_video.frame import Image

if TYPE_CHECKING:
    from engines.base import Engine

REFERENCE = "ref:"
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


@dataclass(frozen=True)
class StyleCode:
    """One look.

    Attributes:
        z: the style code, float32 values: `latent_dim` of them (or `style_dim`, for a code in w space).
        label: how the user named it ("42", "ref:girl.png").
    """

    z: tuple[float, ...]
    label: str = ""

    def __post_init__(self) -> None:
        values = np.asarray(self.z, dtype=np.float32)
        if values.ndim != 1 or not values.size or not np.isfinite(values).all():
            raise StyleError(f"a style code is a row of finite numbers, got {self.z!r}"[:200])
        object.__setattr__(self, "z", tuple(values.tolist()))

    def array(self) -> NDArray[np.float32]:
        """float32 (len(z),), what an engine's `set_style` takes."""
        return np.array(self.z, dtype=np.float32)

    def __repr__(self) -> str:
        head = ", ".join(f"{value:.3f}" for value in self.z[:8])
        return f"StyleCode({self.label!r}, z=({head}{', ...' if len(self.z) > 8 else ''}))"


def style_from_seed(seed: int, latent_dim: int = 8) -> StyleCode:
    """The style code a seed stands for: z ~ N(0, 1), as the official notebook draws it.

    `torch.manual_seed(seed); torch.randn(1, latent_dim)`, with a CPU generator of its own: the same code on
    every machine and engine.

    Raises:
        StyleError: the seed does not fit in 64 bits.
    """
    import torch

    generator = torch.Generator("cpu")
    try:
        generator.manual_seed(seed)
    except (RuntimeError, OverflowError, ValueError) as error:
        raise StyleError(f"seed {seed} does not fit in 64 bits") from error
    z = torch.randn(1, latent_dim, generator=generator)
    return StyleCode(tuple(z[0].tolist()), str(seed))


def read_reference(path: Path, size: int) -> Image:
    """An anime picture as the style encoder wants it: uint8 (size, size, 3) RGB, the centre square resized.

    Raises:
        StyleError: missing or not a picture.
    """
    import cv2

    if not path.is_file():
        raise StyleError(f"no style reference at {path}", "--style takes a seed, or ref:PICTURE")
    # Not cv2.imread: it cannot open names outside the code page on Windows, and prints instead of raising.
    picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) if path.stat().st_size else None
    if picture is None:
        raise StyleError(f"{path} is not a picture that OpenCV can read")
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = picture[top : top + side, left : left + side, ::-1]
    how = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return np.ascontiguousarray(cv2.resize(square, (size, size), interpolation=how), dtype=np.uint8)


def parse_style(text: str | int, engine: Engine | None = None, latent_dim: int = 8) -> StyleCode:
    """The style that a `--style` value means.

    Args:
        text: an integer seed, or "ref:PATH" (or a picture's path) of an anime face to take the style from.
        engine: encodes references, and tells the length of the code; seeds need none.
        latent_dim: length of the code where there is no engine.

    Raises:
        StyleError: it does not parse, the picture cannot be read, or the weights cannot encode a style.
    """
    text = str(text).strip()
    if engine is not None:
        latent_dim = engine.architecture.latent_dim
    if re.fullmatch(r"[+-]?\d+", text):
        return style_from_seed(int(text), latent_dim)
    if text.startswith(REFERENCE) or Path(text).suffix.lower() in PICTURES:
        path = Path(text.removeprefix(REFERENCE)).expanduser()
        if engine is None:
            raise StyleError(f"the style {text!r} needs an engine to encode the picture")
        picture = read_reference(path, engine.size)
        try:
            z = engine.encode_style(picture)
        except WeightsError as error:
            raise StyleError(f"no style can be read off {path.name}: {error.message}", error.hint) from error
        return StyleCode(tuple(z.tolist()), f"{REFERENCE}{path.name}")
    raise StyleError(
        f"the style {text!r} is neither a seed nor a picture", "try --style 42 or --style ref:anime.png"
    )
