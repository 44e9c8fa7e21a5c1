"""What every engine promises: uint8 face crops in, uint8 anime faces out, under a style that can change.

An engine owns a generator in executable form. The style path (mapping network, per-layer style vectors,
style encoder) is the same float32 torch code for all of them, so that a style code gives the same character
whatever executes the convolutions; a subclass brings only `_encode` and `_decode`.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineError, StyleError

if TYPE_CHECKING:
    import torch

    from engines.architecture import Architecture
    from engines.style_colors import StyleColors
    from engines.style_space import StyleSpace
    from engines.weights import Weights

log = logging.getLogger(__name__)

Crops = NDArray[np.uint8]
"""uint8 (N, S, S, 3) RGB; S is the engine's `size`, or any other side that fits (`Engine.fits`)."""

Styles = NDArray[np.float32]
"""float32 (N, latent_dim) style codes z, or (N, style_dim) codes w; a single row may come without N."""


@dataclass(frozen=True)
class Fallback:
    """Whether something slower than first choice runs: false when not; printing it says why."""

    reason: str = ""

    def __bool__(self) -> bool:
        return bool(self.reason)

    def __str__(self) -> str:
        return self.reason or "no fallback"

    def plus(self, *reasons: str) -> Fallback:
        """With further reasons behind it; empty ones and those that it has are left out."""
        found = [self.reason] if self.reason else []
        for reason in reasons:
            if reason and reason not in "; ".join(found):
                found.append(reason)
        return Fallback("; ".join(found))


class Engine(ABC):
    """A generator that can be run.

    May be made on one thread and used on others: calls are serialised by a lock. Calls never change their
    arguments, and arrays that are returned belong to the caller.

    Attributes:
        name: "torch", "openvino", ...
        precision: of the convolutions: "fp32", "bf16" or "fp16".
        device: "cpu", "cuda", "cuda:1", ...
        architecture: of the weights it runs.
        size: side of the crops that the weights were trained on, pixels.
        weights_hash: of the weights it runs, hexadecimal; "" if they are in no file.
        fallback: why faster engines were passed over.
        prepared_batches: numbers of crops that `warm_up` prepares for.
        takes_styles: False for a foreign model of one look (`engines.image_model`): it only translates.
    """

    name: str = ""
    prepared_batches: tuple[int, ...] = (1,)
    takes_styles: bool = True

    def __init__(self, weights: Weights, *, device: str, precision: str) -> None:
        from engines.graph import MappingNetwork, StyleVectors

        self.device = device
        self.precision = precision
        self.architecture: Architecture = weights.architecture
        self.size = weights.architecture.size
        self.weights_hash = weights.sha256
        self.fallback = Fallback()
        self._weights: Weights | None = weights
        self._mapping = MappingNetwork(weights)
        self._style_vectors = StyleVectors(weights)
        self._style_encoder: Any = None
        self._style_space: StyleSpace | None = None
        self._style_colors: StyleColors | None = None
        self._vectors: torch.Tensor | None = None
        self._style: Styles | None = None
        self._lock = threading.RLock()

    # Styles

    def to_w(self, styles: Styles) -> Styles:
        """w codes, float32 (N, style_dim), of z codes (N, latent_dim); w codes are passed through.

        The mapping network's output is the space to mix styles in. Where both lengths are equal, codes are
        taken for z.

        Raises:
            StyleError: neither length, or values that are not finite.
        """
        import torch

        a = self.architecture
        codes = np.atleast_2d(np.array(styles, dtype=np.float32))
        if codes.ndim != 2 or codes.shape[1] not in (a.latent_dim, a.style_dim):
            raise StyleError(
                f"a style code has {a.latent_dim} numbers (or {a.style_dim} in w space), "
                f"got shape {np.shape(styles)}"
            )
        if not np.isfinite(codes).all():
            raise StyleError("a style code must be finite")
        if codes.shape[1] != a.latent_dim:
            return codes
        with torch.inference_mode():
            return self._mapping(torch.from_numpy(codes)).numpy()

    def style_space(self) -> StyleSpace:
        """Mean, spread and main directions of w: computed once (some tenths of a second), then kept."""
        from engines.style_space import measure_style_space

        with self._lock:
            if self._style_space is None:
                self._style_space = measure_style_space(self._check_open(), self._mapping)
            return self._style_space

    @property
    def has_style_colors(self) -> bool:
        """Whether the weights say what colours styles give."""
        return self._check_open().has_colors

    def style_colors(self) -> StyleColors:
        """What colours styles give, and styles of wanted colours.

        Raises:
            WeightsError: these weights do not say.
        """
        from engines.style_colors import StyleColors

        with self._lock:
            if self._style_colors is None:
                self._style_colors = StyleColors.load(self._check_open())
            return self._style_colors

    def _to_vectors(self, styles: Styles) -> torch.Tensor:
        """All layers' style vectors, float32 CPU (N, V)."""
        import torch

        with torch.inference_mode():
            vectors: torch.Tensor = self._style_vectors(torch.from_numpy(self.to_w(styles)))
        return vectors

    def set_style(self, style: Styles) -> None:
        """Choose the style of all calls that bring none, for the frames to come.

        Engines may fold it into their weights, which takes some tenths of a second: for a style that changes
        with every frame, give `styles` to `translate` instead.

        Args:
            style: float32 (latent_dim,) style code z, or (style_dim,) code w.

        Raises:
            StyleError: wrong length, or values that are not finite; the style before stays.
        """
        w = self.to_w(style)
        vectors = self._to_vectors(style)
        if vectors.shape[0] != 1:
            raise StyleError(f"set_style takes one style code, got {vectors.shape[0]}")
        with self._lock:
            self._check_open()
            self._vectors = vectors
            self._style = w[0]
            self._use_style(vectors)

    @property
    def style(self) -> Styles | None:
        """The style of `set_style`, float32 (style_dim,) in w space; None before the first."""
        return self._style

    def encode_style(self, image: NDArray[np.uint8]) -> Styles:
        """Style code z, float32 (latent_dim,), of an anime face (uint8 (S, S, 3)).

        Always computed in float32 by torch on the CPU, so that every engine reads the same style.

        Raises:
            WeightsError: these weights have no style encoder.
            EngineError: the picture has another shape or type.
        """
        import torch

        from engines.graph import StyleEncoder

        picture = self._check_crops(image[None] if image.ndim == 3 else image, own_size=True)
        with self._lock, torch.inference_mode():
            weights = self._check_open()
            if self._style_encoder is None:
                self._style_encoder = StyleEncoder(weights)
            return self._style_encoder(torch.from_numpy(picture))[0].numpy()

    # Pictures

    def fits(self, side: int) -> bool:
        """Whether crops of that side can be translated, see `Architecture.fits`."""
        return self.architecture.fits(side)

    def encode(self, crops: Crops) -> Any:
        """Content codes of crops, uint8 (N, S, S, 3); only good for `decode` of the same engine.

        Raises:
            EngineError: wrong shape or type, or the device failed.
        """
        crops = self._check_crops(crops)
        with self._lock:
            self._check_open()
            return self._encode(crops)

    def decode(self, content: Any, styles: Styles | None = None) -> Crops:
        """Pictures, uint8 (N, S, S, 3), of content codes from `encode`.

        Args:
            styles: float32 (N, latent_dim) or (N, style_dim), one row for each picture (one row alone serves
                all); None: the style of `set_style`.

        Raises:
            EngineError: no style was ever set, or the device failed.
            StyleError: styles of a wrong length or number.
        """
        with self._lock:
            self._check_open()
            return self._decode(content, self._rows(styles, self._batch(content)))

    def decode_styles(self, content: Any, styles: Styles) -> Crops:
        """One content code under several styles, as one batch.

        Args:
            content: from `encode`, of one picture.
            styles: float32 (N, latent_dim) or (N, style_dim).

        Returns:
            uint8 (N, S, S, 3).

        Raises:
            EngineError: the content is of several pictures, or the device failed.
        """
        with self._lock:
            self._check_open()
            if self._batch(content) != 1:
                raise EngineError(
                    f"decode_styles takes the content of one picture, got {self._batch(content)}"
                )
            return self._decode_styles(content, self._to_vectors(styles))

    def _decode_styles(self, content: Any, vectors: torch.Tensor) -> Crops:
        """`_decode` of one content code under every row of `vectors`, as a batch where it can be repeated."""
        if isinstance(content, np.ndarray):
            return self._decode(np.repeat(content, len(vectors), 0), vectors)
        if hasattr(content, "expand"):  # a tensor
            return self._decode(content.expand(len(vectors), -1, -1, -1), vectors)
        return np.concatenate([self._decode(content, row[None]) for row in vectors])

    def translate(self, crops: Crops, styles: Styles | None = None) -> Crops:
        """`decode(encode(crops), styles)`, in one go where the engine can."""
        crops = self._check_crops(crops)
        with self._lock:
            self._check_open()
            return self._translate(crops, self._rows(styles, len(crops)))

    def warm_up(self, side: int | None = None) -> None:
        """Run a little, so that the first real frame is as fast as the others; the style stays as it is.

        Args:
            side: of the crops that will come; None: `size`.
        """
        styles = (
            None if self._vectors is not None else np.zeros((1, self.architecture.latent_dim), np.float32)
        )
        for count in self.prepared_batches:
            crops = np.full((count, side or self.size, side or self.size, 3), 127, np.uint8)
            for _ in range(2):
                self.translate(crops, styles)

    def _slower(self, reason: str) -> None:
        """Tell that it runs in a slower way than it could."""
        log.warning("%s on %s: %s", self.name, self.device, reason)
        self.fallback = self.fallback.plus(reason)

    def close(self) -> None:
        """Free the device; any later call raises EngineError. May be called twice."""
        with self._lock:
            self._weights = None
            self._vectors = None
            self._style_encoder = None
            self._release()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(device={self.device!r}, precision={self.precision!r}, size={self.size})"
        )

    # What an engine brings

    @abstractmethod
    def _encode(self, crops: Crops) -> Any:
        """Content codes of contiguous uint8 (N, S, S, 3), N >= 1. EngineError must be raised if it fails."""

    @abstractmethod
    def _decode(self, content: Any, vectors: torch.Tensor | None) -> Crops:
        """Pictures of content codes. `vectors` float32 CPU (N, V), or None: the style last given to
        `_use_style`. EngineError must be raised if it fails."""

    def _translate(self, crops: Crops, vectors: torch.Tensor | None) -> Crops:
        return self._decode(self._encode(crops), vectors)

    @abstractmethod
    def _use_style(self, vectors: torch.Tensor) -> None:
        """Make `vectors` (float32 CPU (1, V)) the style of decodes without one; quick enough for live use."""

    @abstractmethod
    def _batch(self, content: Any) -> int:
        """N of content codes. EngineError must be raised if they are not this engine's."""

    @abstractmethod
    def _release(self) -> None:
        """Drop everything held on the device."""

    # Checks

    def _check_open(self) -> Weights:
        if self._weights is None:
            raise EngineError("the engine is closed")
        return self._weights

    def _check_crops(self, crops: Crops, *, own_size: bool = False) -> Crops:
        s = self.size
        side = crops.shape[1] if crops.ndim == 4 else 0
        fits = side == s if own_size else self.fits(side)
        if crops.dtype != np.uint8 or crops.shape[1:] != (side, side, 3) or not fits or not len(crops):
            raise EngineError(f"crops must be uint8 Nx{s}x{s}x3 with N >= 1, got {crops.dtype} {crops.shape}")
        return np.require(crops, np.uint8, ["C_CONTIGUOUS", "WRITEABLE"])

    def _rows(self, styles: Styles | None, batch: int) -> torch.Tensor | None:
        if styles is None:
            if self._vectors is None:
                raise EngineError("no style: call set_style, or give one style code for each picture")
            return None
        vectors = self._to_vectors(styles)
        if vectors.shape[0] not in (1, batch):
            raise StyleError(f"got {vectors.shape[0]} style codes for {batch} pictures")
        return vectors.expand(batch, -1)
