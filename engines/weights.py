"""The project's weights file: safetensors, with architecture, provenance and licence in its metadata.

Tensors carry the official names. `encoder.*` (without a style head), `mapping.*` and the decoder are those
of G_A2B (face to anime); the encoder that reads a style off an anime picture is G_B2A's and stands under
`style_encoder.*` (its stem and its style head), when the file has one. What colours a style gives stands under
`colours.*` (`engines.style_colors`), when that was learned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from engines.architecture import Architecture, Shape, check_tensors, decoder_tensors, encoder_tensors
from engines.errors import WeightsError

if TYPE_CHECKING:
    import torch

FORMAT = "gnr-video-1"
STYLE_ENCODER = "style_encoder."
COLORS = "colours."
COLORS_WIDTH = 128
PLACES = ("skin", "hair", "eyes", "sides")
"""Whose colours `engines.style_colors` knows: cheeks, hair above the forehead, irises, hair beside the face."""


@dataclass(frozen=True, eq=False)
class Weights:
    """A generator ready to be run: tensors on the CPU, float32, under the official names.

    Attributes:
        architecture: what the tensors make up.
        tensors: name -> float32 CPU tensor.
        metadata: what the file says of itself: "name", "provenance", "licence", "step" and so on.
        sha256: hash of the file's bytes (of the tensors, where there is no file), hexadecimal.
    """

    architecture: Architecture
    tensors: Mapping[str, torch.Tensor] = field(repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""

    @property
    def has_style_encoder(self) -> bool:
        """Whether a style can be encoded from an anime picture."""
        return _has(self.tensors, STYLE_ENCODER)

    @property
    def has_colors(self) -> bool:
        """Whether colours can be asked of a style."""
        return _has(self.tensors, COLORS)

    @property
    def parameters(self) -> int:
        return sum(t.numel() for name, t in self.tensors.items() if not name.endswith(".kernel"))


def weights_hash(weights: Weights) -> str:
    """`weights.sha256`, or, where it is empty, the hash of the tensors' names and values."""
    if weights.sha256:
        return weights.sha256
    found = hashlib.sha256(weights.architecture.to_json().encode())
    for name, tensor in sorted(weights.tensors.items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def inference_tensors(a: Architecture, *, style_encoder: bool, colors: bool = False) -> dict[str, Shape]:
    """Names and shapes of the tensors in a weights file (FIR kernels are constants and not stored)."""
    t = decoder_tensors(a) | encoder_tensors(a, style_head=False)
    if style_encoder:
        t |= {
            name: shape
            for name, shape in encoder_tensors(a, prefix=STYLE_ENCODER).items()
            if not name.startswith(f"{STYLE_ENCODER}content.")
        }
    if colors:
        widths = (a.latent_dim, COLORS_WIDTH, COLORS_WIDTH, 3 * len(PLACES))
        for i, (n_in, n_out) in enumerate(pairwise(widths)):
            t |= {f"{COLORS}{2 * i}.weight": (n_out, n_in), f"{COLORS}{2 * i}.bias": (n_out,)}
    return {name: shape for name, shape in t.items() if not name.endswith(".kernel")}


def stored_tensors(a: Architecture, tensors: Mapping[str, object]) -> dict[str, Shape]:
    """`inference_tensors` with the optional parts that `tensors` have."""
    return inference_tensors(a, style_encoder=_has(tensors, STYLE_ENCODER), colors=_has(tensors, COLORS))


def _has(tensors: Mapping[str, object], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in tensors)


def save_weights(
    path: str | Path,
    architecture: Architecture,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    half: bool = True,
) -> None:
    """Write a weights file beside its final name and rename it.

    Args:
        path: where to, usually ``*.safetensors``.
        architecture: what the tensors make up.
        tensors: at least those of `inference_tensors`; others are left out.
        metadata: text values to store ("name", "provenance", "licence", ...).
        half: store float16 (half the size; about 1e-3 relative), else float32.

    Raises:
        WeightsError: tensors missing or of another shape.
    """
    import torch
    from safetensors.torch import save_file

    path = Path(path)
    expected = stored_tensors(architecture, tensors)
    check_tensors(expected, {name: tuple(t.shape) for name, t in tensors.items()})
    dtype = torch.float16 if half else torch.float32
    kept = {name: tensors[name].detach().to("cpu", dtype).contiguous() for name in expected}
    bad = [name for name, t in kept.items() if not torch.isfinite(t).all()]
    if bad:
        raise WeightsError(f"{len(bad)} tensors hold values that are not finite, for example {bad[0]}")
    meta = {**(metadata or {}), "format": FORMAT, "architecture": architecture.to_json()}
    partial = path.with_name(f".{path.name}.part")
    try:
        save_file(kept, str(partial), metadata=meta)
        partial.chmod(0o644)  # the library makes it private
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_weights(path: str | Path) -> Weights:
    """Read a weights file.

    Raises:
        WeightsError: missing, damaged, not in this project's format, or tensors that do not fit.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no weights file at {path}", "`gnr-video weights --help` lists how to get some")
    if path.suffix.lower() == ".onnx":
        raise WeightsError(
            f"{path} is an ONNX file: it can translate, but has no styles, and is no generator to take apart",
            f"gnr-video clip.mp4 --weights {path.name}",
        )
    data_hash = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        with safe_open(str(path), framework="pt") as handle:
            metadata = dict(handle.metadata() or {})
            tensors = {name: handle.get_tensor(name).float() for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is not a readable safetensors file: {error}",
            "import an official checkpoint with `gnr-video weights import CHECKPOINT.pt -o FILE.safetensors`",
        ) from error
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path} is not a gnr-video weights file (format {metadata.get('format')!r}, expected {FORMAT!r})",
            "import an official checkpoint with `gnr-video weights import`",
        )
    try:
        architecture = Architecture.from_json(metadata["architecture"])
    except (KeyError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: its architecture cannot be read: {error}") from error
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise WeightsError(
            f"{path}: {len(broken)} tensors hold values that are not finite, for example {broken[0]}",
            "the training that wrote it has diverged: use an earlier file",
        )
    check_tensors(stored_tensors(architecture, tensors), {n: tuple(t.shape) for n, t in tensors.items()})
    return Weights(architecture, tensors, metadata, data_hash)
