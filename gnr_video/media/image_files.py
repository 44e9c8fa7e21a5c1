"""Picture files: read upright, in sRGB, with their transparency apart, and written."""

from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import InputError, OutputError
from gnr_video.frame import Alpha, Image
from gnr_video.media.color import has_alpha
from gnr_video.media.formats import (
    EXR,
    HDR,
    HEIF,
    JPEG,
    JXL,
    Head,
    ImageFormat,
    by_suffix,
    sniff,
)
from gnr_video.media.transparency import hide, on_white

if TYPE_CHECKING:
    from PIL import Image as PilImage

log = logging.getLogger(__name__)

MAX_PIXELS = 1 << 29
"""Of a picture; phones make 2e8. Pillow's own limit, meant for servers, is below that."""

_QUALITY = 95
_OPENCV = (EXR, HDR)
_OPENCV_WRITES = {"PNG", "JPEG", "WEBP", "BMP"}
_opening = threading.Lock()

# TIFF tags: what cameras' raw files, which are TIFFs, have in their first picture.
_NEW_SUBFILE_TYPE, _PHOTOMETRIC, _DNG_VERSION = 254, 262, 50706
_ORIENTATION, _TURNED = 274, (5, 6, 7, 8)
_REDUCED, _RAW_PHOTOMETRICS = 1, (32803, 34892)


class Picture(NamedTuple):
    """A picture as it is read.

    Attributes:
        image: uint8 HxWx3 RGB, upright, sRGB; white where nothing of it shows.
        alpha: uint8 HxW, 0 transparent; None: all of it shows.
        notes: what the user should know, one line each.
    """

    image: Image
    alpha: Alpha | None = None
    notes: tuple[str, ...] = ()


def read_image(file: str | os.PathLike[str]) -> Image:
    """A picture file as uint8 HxWx3 RGB, upright (EXIF orientation applied), sRGB, transparency laid on white.

    Raises:
        InputError: it is no picture, damaged or cut off, or of a kind that cannot be read here.
    """
    picture = read_picture(file)
    return on_white(picture.image, picture.alpha)


def read_picture(file: str | os.PathLike[str], data: bytes | None = None) -> Picture:
    """The picture of a file, whatever its name says.

    Args:
        file: its name.
        data: what is in it, where it is read already.

    Raises:
        InputError: as `read_image`.
    """
    if data is None:
        try:
            data = Path(file).read_bytes()
        except OSError as error:
            raise InputError(
                f"cannot read {file}: {error.strerror}", "check the file's name and permissions"
            ) from None
    kind = sniff(Head(io.BytesIO(data), os.fspath(file))).format
    if kind is None:
        raise _no_image(file)
    if kind in _OPENCV:
        return _read_opencv(file, data)
    if kind is JXL and not _pillow_reads_jxl() and ffmpeg_reads_jxl():
        return read_by_ffmpeg(file, data)
    with opened(file, data, kind) as picture:
        try:
            return to_picture(picture)
        # Pillow's plugins raise many kinds on damaged data, SyntaxError and struct.error among them.
        except Exception as error:
            raise _no_image(file, str(error)) from error


@contextmanager
def opened(file: str | os.PathLike[str], data: bytes, kind: ImageFormat) -> Iterator[PilImage.Image]:
    """Pillow's picture of data, not yet decoded.

    Raises:
        InputError: it is damaged, or of a kind that cannot be read here.
    """
    from PIL import Image as Pil

    _load_readers(kind, file)
    formats = [kind.name, "MPO"] if kind is JPEG else [kind.name]
    try:
        with _opening:  # its limit is everybody's
            limit, Pil.MAX_IMAGE_PIXELS = Pil.MAX_IMAGE_PIXELS, MAX_PIXELS // 2
            try:
                picture = Pil.open(io.BytesIO(data), formats=formats)
            finally:
                Pil.MAX_IMAGE_PIXELS = limit
        if picture.width * picture.height > MAX_PIXELS:
            raise InputError(f"{file} is too large: {picture.width}x{picture.height}", "make it smaller")
        if kind.name == "TIFF":
            _refuse_raw(file, picture)
    except InputError:
        raise
    except Exception as error:
        raise _no_image(file, "" if isinstance(error, Pil.UnidentifiedImageError) else str(error)) from error
    with picture:
        yield picture


def to_picture(image: PilImage.Image) -> Picture:
    """What Pillow has opened, decoded; of several pictures the one it stands at."""
    from PIL import ImageOps

    notes = []
    if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        notes.append(f"it has {getattr(image, 'n_frames', 1)} pages: the first is used")
    image.load()
    profile = image.info.get("icc_profile")
    if _is_turned_by_exif(image):
        image = ImageOps.exif_transpose(image)
    alpha: Alpha | None = None
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or (
        "transparency" in image.info and not _is_deep(image)
    ):
        image = image.convert("RGBA")
        alpha = np.array(image.getchannel("A"), np.uint8)
        image = image.convert("RGB")
    if profile:
        image = _to_srgb(image, profile)
    return Picture(*hide(_to_rgb(image), alpha), tuple(notes))


def picture_size(file: Path) -> tuple[int, int] | None:
    """(width, height) of a picture, upright, by its header; None where only decoding it would tell."""
    try:
        data = file.read_bytes()
        kind = sniff(Head(io.BytesIO(data), str(file))).format
        if kind is None or kind in _OPENCV:
            return None
        with opened(file, data, kind) as picture:
            is_turned = _is_turned_by_exif(picture) and picture.getexif().get(_ORIENTATION, 1) in _TURNED
            return (picture.height, picture.width) if is_turned else (picture.width, picture.height)
    except (InputError, OSError):
        return None


def _is_turned_by_exif(image: PilImage.Image) -> bool:
    """Whether it is for EXIF to say how a picture is turned: JPEG XL's is upright, unless it holds a JPEG as it was."""
    return image.format != JXL.name or bool(getattr(image, "jpeg", False))


def write_picture(file: Path, image: Image, alpha: Alpha | None, target: Path) -> bytes:
    """A picture in the format that a name says.

    Args:
        file: the name.
        image: uint8 HxWx3 RGB.
        alpha: uint8 HxW where there is transparency; laid on white where the format has none.
        target: for messages.

    Raises:
        OutputError: it cannot be encoded.
    """
    kind = by_suffix(file)
    if kind is None or not kind.writes:
        raise OutputError(f"cannot encode {target}", "write a .png instead")
    if not kind.alpha:
        image, alpha = on_white(image, alpha), None
    if kind.name in _OPENCV_WRITES:
        options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY] if kind is JPEG else []
        pixels = np.ascontiguousarray(image[..., ::-1])
        if alpha is not None:
            pixels = np.dstack([pixels, alpha])
        suffix = ".jpg" if kind is JPEG else kind.suffixes[0]
        done, data = cv2.imencode(suffix, pixels, options)
        if not done:
            raise OutputError(f"cannot encode {target}", "write a .png instead")
        return data.tobytes()
    from PIL import Image as Pil

    out = io.BytesIO()
    settings: dict[str, Any] = {"compression": "tiff_lzw"} if kind.name == "TIFF" else {"quality": _QUALITY}
    try:
        _load_readers(kind, target)
        Pil.fromarray(image if alpha is None else np.dstack([image, alpha])).save(out, kind.name, **settings)
    except (OSError, ValueError, KeyError, RuntimeError, InputError) as error:
        raise OutputError(f"cannot encode {target}: {error}", "write a .png instead") from error
    return out.getvalue()


@lru_cache(maxsize=1)
def _load_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


@lru_cache(maxsize=1)
def _pillow_reads_jxl() -> bool:
    from PIL import Image as Pil

    with suppress(ImportError):
        import pillow_jxl  # noqa: F401
    return JXL.name in Pil.OPEN


def ffmpeg_reads_jxl() -> bool:
    import av

    return "libjxl" in av.codecs_available


def _load_readers(kind: ImageFormat, file: str | os.PathLike[str]) -> None:
    if kind is HEIF:
        _load_heif()
    elif kind is JXL and not _pillow_reads_jxl():
        raise InputError(
            f"{file} is a JPEG XL picture, which cannot be read here",
            "pip install pillow-jxl-plugin, or convert it to PNG",
        )


def read_by_ffmpeg(file: str | os.PathLike[str], data: bytes) -> Picture:
    """A picture of a kind that Pillow cannot read, its colours taken for sRGB.

    Raises:
        InputError: it is damaged.
    """
    import av
    from PIL import Image as Pil

    try:
        with av.open(io.BytesIO(data), "r") as container:
            frame = next(container.decode(video=0))
    except (av.FFmpegError, StopIteration, IndexError) as error:
        raise _no_image(file, str(error)) from error
    return to_picture(Pil.fromarray(frame.to_ndarray(format="rgba" if has_alpha(frame) else "rgb24")))


def _read_opencv(file: str | os.PathLike[str], data: bytes) -> Picture:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise _no_image(file)
    return Picture(np.ascontiguousarray(pixels[..., ::-1], np.uint8))


def _no_image(file: str | os.PathLike[str], reason: str = "") -> InputError:
    return InputError(
        f"{file} is not an image, or is damaged" + (f" ({' '.join(reason.split())})" if reason else ""),
        "open it in a viewer to see, or convert it to PNG",
    )


def _refuse_raw(file: str | os.PathLike[str], picture: Any) -> None:
    tags = picture.tag_v2
    if (
        _DNG_VERSION in tags
        or tags.get(_NEW_SUBFILE_TYPE, 0) & _REDUCED
        or tags.get(_PHOTOMETRIC) in _RAW_PHOTOMETRICS
    ):
        raise InputError(f"{file} is a camera's raw file", "develop it first, or take the camera's JPEG")


def _to_srgb(image: PilImage.Image, profile: bytes) -> PilImage.Image:
    """The colours of a profile as sRGB's; the picture as it is where the profile is none that fits."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if ImageCms.getProfileDescription(source).strip().startswith("sRGB"):
            return image
        image = image.convert({"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space, image.mode))
        made = ImageCms.profileToProfile(image, source, _srgb(), outputMode="RGB")
        return image if made is None else made
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        log.debug("the colour profile is not used: %s", error)
        return image


@lru_cache(maxsize=1)
def _srgb() -> Any:
    from PIL import ImageCms

    return ImageCms.createProfile("sRGB")


def _is_deep(image: PilImage.Image) -> bool:
    """Grey of more than 8 bits."""
    return image.mode.startswith("I;16") or image.mode in ("I", "F")


def _to_rgb(image: PilImage.Image) -> Image:
    if _is_deep(image):
        # Pillow clips these to 255 when asked for RGB, so reduce them here.
        samples: NDArray[Any] = np.asarray(image).astype(np.float64)
        if image.mode == "F":
            samples = samples * (255.0 if samples.max(initial=0.0) <= 1.0 else 1.0)
        elif image.mode != "I" or samples.max(initial=0.0) > 255:
            samples = samples / 257.0
        grey = np.clip(np.rint(samples), 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.array(image.convert("RGB"), np.uint8)
