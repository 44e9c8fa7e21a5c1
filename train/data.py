"""Training images: folders of pictures, decoded once and kept as one uint8 tensor per domain.

First stage of training. Domain A holds faces, domain B anime heads. Every file is decoded, turned upright,
cropped to its central square, brought to the framing of the training set and reduced to the training size;
from then on a batch is an index into memory (or into the GPU's memory).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engines.errors import GnrVideoError, InputError
from gnr_video.media.formats import IMAGE_SUFFIXES
from gnr_video.media.image_files import read_image
from gnr_video.tracking.alignment import head_margins, head_side

log = logging.getLogger(__name__)

_FORMAT = 2  # part of the cache key: raise it when decoding changes
_NAMED = 8  # skipped files named in one warning


@dataclass(frozen=True)
class Framing:
    """How the faces of a folder are brought to the framing of the training set: a zoom, a shift, a stretch.

    A point p of the square image (in units of a 256-pixel image) goes to ``c + scale * (p - c) + (dx, dy)``
    with c the centre. What lies below the line y = `below` is then stretched downwards. What comes in from
    outside repeats the border.

    Attributes:
        scale: enlargement about the centre; 1 keeps the size.
        dx, dy: shift to the right and downwards, in pixels of a 256-pixel image whatever the real size.
        stretch: vertical enlargement below the line, reached smoothly over 12 pixels around it.
        below: the line, in pixels of the 256-pixel result.
    """

    scale: float = 1.0
    dx: float = 0.0
    dy: float = 0.0
    stretch: float = 1.0
    below: float = 0.0

    def __post_init__(self) -> None:
        values = [self.scale, self.dx, self.dy, self.stretch, self.below]
        if not (self.scale > 0 and self.stretch > 0 and np.isfinite(values).all()):
            raise ValueError(f"framing must be finite with scale and stretch > 0, got {self!r}")

    def matrix(self, size: int) -> NDArray[np.float64]:
        """2x3 affine from pixels of the original to pixels of the result (pixel centres at integers)."""
        centre, unit = (size - 1) / 2, size / 256
        return np.array(
            [
                [self.scale, 0.0, (1 - self.scale) * centre + self.dx * unit],
                [0.0, self.scale, (1 - self.scale) * centre + self.dy * unit],
            ]
        )

    def stretched_from(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where rows of the result lie before the stretch, both in pixels of a 256-pixel image."""
        source = np.linspace(-256, 512, 6145)
        growth = 1 + (self.stretch - 1) * np.clip((source - self.below) / 12 + 0.5, 0, 1)
        result = np.concatenate([[0], np.cumsum((growth[1:] + growth[:-1]) / 2 * np.diff(source))])
        result += source[0]  # unmoved above the line
        return np.interp(y, result, source)


DRAWN_HEADS = "trainB-heads"
"""Where `train.prepare` puts the whole heads of drawings."""
FFHQ_FRAMING = Framing(scale=1.18, dy=-30.0)
"""FFHQ and StyleGAN faces (eyes at y = 123 of 256, 61 px apart) to selfie2anime's (y = 92, 72 px apart)."""
ANIME_FRAMING = Framing(scale=1.28, dy=-8.1, stretch=1.17, below=113.5)
"""selfie2anime's drawn heads (means: eyes at y = 107 of 256, 67 px apart, mouth 156, chin 182) to nearly the
proportions of the crops the pipeline cuts out of frames (eyes 91 and 75 px apart, mouth 169, chin 220): eyes go to 93
and 86 px apart, as large as they are drawn, the mouth to 163, the chin to 202."""


@dataclass(frozen=True, eq=False)
class ImagePool:
    """The images of one domain, ready to be drawn from.

    Attributes:
        images: uint8 (N, 3, S, S), RGB, on any device.
    """

    images: torch.Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        if self.images.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
            raise ValueError(f"images must be uint8 (N, 3, S, S), got {self.images.dtype} {shape}")
        if shape[0] == 0:
            raise ValueError("an image pool needs at least one image")

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def __repr__(self) -> str:
        return f"ImagePool(images={len(self)}, size={self.size}, device={self.images.device})"

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return int(self.images.shape[-1])

    def to(self, device: torch.device | str) -> ImagePool:
        """The same images on another device."""
        return ImagePool(self.images.to(device))

    def sample(
        self,
        batch: int,
        generator: torch.Generator | None = None,
        *,
        device: torch.device | str | None = None,
        weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Draw a batch: uint8 (batch, 3, S, S) on `device` (default: where the images are), each image as likely as its
        weight of `weights` (N,), all above 0, says; default: alike.

        The images of a batch differ from each other unless the batch is larger than the pool. `generator` is
        a CPU generator whatever the device, so that a seed draws the same images everywhere.
        """
        count = len(self)
        if weights is not None:
            index = torch.multinomial(weights, batch, replacement=batch > count, generator=generator)
        elif batch <= count:
            index = torch.randperm(count, generator=generator)[:batch]
        else:
            index = torch.randint(count, (batch,), generator=generator)
        picked = self.images.index_select(0, index.to(self.images.device, non_blocking=True))
        return picked if device is None else picked.to(device, non_blocking=True)

    def first(self, count: int) -> torch.Tensor:
        """The first images in file order, uint8 (<= count, 3, S, S): the fixed faces of a sample sheet."""
        return self.images[:count].clone()


@dataclass(frozen=True, eq=False)
class Domains:
    """A data set: faces (A) and anime heads (B), each with images kept apart from training.

    Attributes:
        train_a, train_b: trained on.
        test_a, test_b: never trained on; metrics and sample sheets.
        test_extra: images held back from the extra A folders, already reframed; None without any.
        heads: faces with what is around them, as the pipeline cuts out whole heads
            (`gnr_video.tracking.alignment.widened`), so much larger than the others; None without any.
        drawn_heads: the same for drawings.
    """

    train_a: ImagePool
    train_b: ImagePool
    test_a: ImagePool
    test_b: ImagePool
    test_extra: ImagePool | None = None
    heads: ImagePool | None = None
    drawn_heads: ImagePool | None = None


def load_dataset(
    data: Path,
    size: int,
    *,
    extra_a: Sequence[tuple[Path, Framing]] = (),
    heads: Sequence[Path] = (),
    hold_out: int = 0,
    cache: Path | None = None,
) -> Domains:
    """Load ``data/trainA``, ``trainB``, ``testA``, ``testB`` and extra folders of faces.

    Args:
        data: the data set's folder.
        size: side of the images in pixels.
        extra_a: folders added to domain A, each with the framing that its faces need.
        heads: folders of whole heads, see `Domains.heads`; without those whose name is that of an image held out.
            With them, ``data/trainB-heads`` is read too, if there is one.
        hold_out: this many images (the last by name) of every extra folder are kept from training and
            returned as `test_extra`.
        cache: folder for the decoded images, see `load_images`.

    A missing test folder is replaced by the first 16 training images, with a warning.

    Raises:
        InputError: `data`, a training folder or an extra folder is missing or holds no readable image.
    """
    data = Path(data)
    if not data.is_dir():
        raise InputError(f"no such data set folder: {data}", "it holds trainA, trainB, testA and testB")
    faces = [(path, Framing()) for path in list_images([data / "trainA"])]
    held: list[tuple[Path, Framing]] = []
    for folder, framing in extra_a:
        found = [(path, framing) for path in list_images([folder])]
        if hold_out >= len(found):
            raise InputError(
                f"{folder} holds {len(found)} images, {hold_out} of them are to be held out",
                "hold out fewer or add images",
            )
        faces += found[: len(found) - hold_out]
        held += found[len(found) - hold_out :]
    names = {path.name for path, _ in held}
    whole = [(path, Framing()) for path in list_images(heads) if path.name not in names] if heads else []
    drawn = data / DRAWN_HEADS
    whole_drawn = [(path, Framing()) for path in list_images([drawn])] if heads and drawn.is_dir() else []
    train_a = ImagePool(_load(faces, size, cache))
    train_b = ImagePool(load_images([data / "trainB"], size, cache=cache))

    def test(name: str, train: ImagePool) -> ImagePool:
        if (data / name).is_dir():
            return ImagePool(load_images([data / name], size, cache=cache))
        log.warning("%s is missing: sample sheets and metrics will use training images", data / name)
        return ImagePool(train.first(16))

    return Domains(
        train_a=train_a,
        train_b=train_b,
        test_a=test("testA", train_a),
        test_b=test("testB", train_b),
        test_extra=ImagePool(_load(held, size, cache)) if held else None,
        heads=ImagePool(_load(whole, head_side(size), cache)) if whole else None,
        drawn_heads=ImagePool(_load(whole_drawn, head_side(size), cache)) if whole_drawn else None,
    )


def load_images(
    folders: Sequence[Path],
    size: int,
    *,
    cache: Path | None = None,
    framing: Framing | Sequence[Framing] = Framing(),
) -> torch.Tensor:
    """Decode every image under `folders` into one tensor, in the order of the folders, then by name.

    Any format that Pillow or OpenCV reads. EXIF orientation is applied, transparency is laid over white,
    16-bit samples are reduced to 8, the central square is taken, reframed, and resized with area filtering.
    Files that do not decode are skipped and named in a warning.

    Args:
        folders: searched recursively; hidden files are left out.
        size: side of the result in pixels.
        cache: folder for the decoded tensor. It is stored as .npy under a name that depends on every file's
            path, size and modification time, and memory-mapped (copy on write) from then on.
        framing: one for all folders, or one per folder.

    Returns:
        uint8 (N, 3, size, size), RGB, N >= 1.

    Raises:
        InputError: a folder is missing or empty, or no file in it decodes.
    """
    framings = [framing] * len(folders) if isinstance(framing, Framing) else list(framing)
    if len(framings) != len(folders):
        raise ValueError(f"{len(folders)} folders but {len(framings)} framings")
    files = [(path, one) for folder, one in zip(folders, framings) for path in list_images([folder])]
    return _load(files, size, cache)


def list_images(folders: Sequence[Path]) -> list[Path]:
    """All image files under the folders, by name within each folder.

    Raises:
        InputError: a folder is missing or holds no image.
    """
    found: list[Path] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"no such image folder: {folder}", "a data set has trainA, trainB, testA, testB")
        here = [
            path
            for path in sorted(folder.rglob("*"))
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
        ]
        if not here:
            raise InputError(f"no images in {folder}", f"it needs files such as {folder.name}/0001.png")
        found += here
    return found


def _load(files: Sequence[tuple[Path, Framing]], size: int, cache: Path | None) -> torch.Tensor:
    if size < 1:
        raise ValueError(f"size must be positive, got {size}")
    if cache is None:
        images, skipped = _decode_all(files, size)
        _warn_skipped(skipped, len(files))
        return torch.from_numpy(images)
    target = Path(cache) / f"images-{size}-{_cache_key(files, size)}.npy"
    stored = _read_cache(target, size)
    if stored is None:
        images, skipped = _decode_all(files, size)
        stored = _write_cache(target, images, skipped) or (images, skipped)
    images, skipped = stored
    _warn_skipped(skipped, len(files))
    return torch.from_numpy(images)


def _cache_key(files: Sequence[tuple[Path, Framing]], size: int) -> str:
    digest = hashlib.sha256(f"{_FORMAT} {size}".encode())
    for path, framing in files:
        stat = path.stat()
        digest.update(f"\n{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{framing!r}".encode())
    return digest.hexdigest()[:16]


def _read_cache(target: Path, size: int) -> tuple[NDArray[np.uint8], list[str]] | None:
    try:
        skipped = json.loads(target.with_suffix(".json").read_text())["skipped"]
        # Copy on write: torch wants writable memory, the file stays as it is.
        images = np.load(target, mmap_mode="c", allow_pickle=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        log.warning("decoding the images again, %s is damaged (%s)", target, error)
        return None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (3, size, size):
        log.warning("decoding the images again, %s holds %s %s", target, images.dtype, images.shape)
        return None
    return images, [str(name) for name in skipped]


def _write_cache(
    target: Path, images: NDArray[np.uint8], skipped: list[str]
) -> tuple[NDArray[np.uint8], list[str]] | None:
    """Store and map the images; None (with a warning) where that fails, for training can go on without."""
    temporary = target.with_name(f".{target.stem}-{os.getpid()}.npy")
    sidecar = temporary.with_suffix(".json")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        np.save(temporary, images, allow_pickle=False)
        sidecar.write_text(json.dumps({"skipped": skipped}))
        os.replace(sidecar, target.with_suffix(".json"))
        os.replace(temporary, target)
    except OSError as error:
        log.warning("the decoded images are not cached: %s", error)
        return None
    finally:
        for leftover in (temporary, sidecar):
            with contextlib.suppress(OSError):
                leftover.unlink()
    return _read_cache(target, images.shape[-1])


def _decode_all(files: Sequence[tuple[Path, Framing]], size: int) -> tuple[NDArray[np.uint8], list[str]]:
    images = np.empty((len(files), 3, size, size), np.uint8)
    reasons: list[str | None] = [None] * len(files)

    def work(index: int) -> None:
        path, framing = files[index]
        try:
            images[index] = fit(read_image(path), size, framing).transpose(2, 0, 1)
        except GnrVideoError as error:
            reasons[index] = error.message

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for _ in pool.map(work, range(len(files))):
            pass
    good = [index for index, reason in enumerate(reasons) if reason is None]
    skipped = [reason for reason in reasons if reason is not None]
    if not good:
        raise InputError(
            f"none of the {len(files)} images can be read; first {skipped[0]}", "check the files"
        )
    return (images if not skipped else images[good]), skipped


def _warn_skipped(skipped: Sequence[str], total: int) -> None:
    if skipped:
        named = "; ".join(skipped[:_NAMED]) + ("; ..." if len(skipped) > _NAMED else "")
        log.warning("skipped %d of %d images that do not decode: %s", len(skipped), total, named)


@lru_cache(maxsize=2)  # one data set's side; the maps of large pictures are large
def _sources(framing: Framing, side: int, head: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where each pixel of a reframed image of that side, or of its head, is read: x and y, each (rows, columns)."""
    unit = side / 256
    left, right, top, bottom = head_margins(side) if head else (0, 0, 0, 0)
    down = np.arange(-top, side + bottom, dtype=np.float64)
    rows = framing.stretched_from((down + 0.5) / unit) * unit - 0.5
    matrix = framing.matrix(side)
    x = (np.arange(-left, side + right) - matrix[0, 2]) / framing.scale
    y = (rows - matrix[1, 2]) / framing.scale
    map_x, map_y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    return map_x, map_y


def fit(
    image: NDArray[np.uint8], size: int, framing: Framing = Framing(), *, head: bool = False
) -> NDArray[np.uint8]:
    """Central square of a uint8 HxWx3 image, reframed, resized to size x size (area filter when reducing).

    With `head` it comes with what is around it, as a face's crop lies in that of its head: S x S with S =
    `gnr_video.tracking.alignment.head_side` (size). What is not in the image is continued by its border.
    """
    import cv2

    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square: NDArray[Any] = image[top : top + side, left : left + side]
    if head or framing != Framing():
        # At the original's resolution, so that the reduction after it sees every pixel.
        square = cv2.remap(
            square,
            *_sources(framing, side, head),
            cv2.INTER_CUBIC if framing.scale >= 1 else cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    if side != size:
        filter_ = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
        target = head_side(size) if head else size
        square = cv2.resize(square, (target, target), interpolation=filter_)
    return np.ascontiguousarray(square)
