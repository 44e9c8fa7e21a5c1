"""Files that strangers hand over: named safely, and looked at before anything of them is decoded."""

from __future__ import annotations

from pathlib import Path

from engines.errors import InputError
from gnr_video.media.dash import is_manifest
from gnr_video.media.formats import HDR, sniff_file
from gnr_video.media.image_files import picture_size as decoder_size
from gnr_video.media.open import open_source
from gnr_video.web.measure import picture_size

NAME_LENGTH = 50
"""Letters that are kept of a file's name: disks take 255 bytes, and a letter may have four."""
MAX_PIXELS = 64_000_000
"""Of a picture: translating one takes about ten bytes of memory a pixel."""
LISTS = {"concat", "dash", "hls", "imf", "sdp"}
"""FFmpeg's names of containers that are lists of other files: those of this machine are no stranger's business."""


def safe_name(name: str) -> str:
    """A file's name as any disk takes it, without folders; "video" where nothing of it is left."""
    name = "".join(letter for letter in name.replace("\\", "/") if letter.isprintable())
    return Path(name).name.lstrip(".")[-NAME_LENGTH:] or "video"


def check_picture(file: Path) -> None:
    """Raise InputError for a picture of too many pixels, by its header: a small file can hold more than memory does."""
    kind = sniff_file(file).format
    if kind is None:
        return
    with file.open("rb") as stream:
        size = picture_size(stream.read(1 << 20)) or decoder_size(file)
    if size is not None:
        _check_size(file, size)
    elif kind is HDR:
        raise InputError(f"{file.name} does not say how large it is", "convert it to PNG")


def check_video(file: Path) -> None:
    """Raise InputError for what is not to be translated at all: too many pixels, a list of other files, no video."""
    check_picture(file)
    is_list = InputError(f"{file.name} is a list of other files", "hand over the video itself")
    if is_manifest(f"file:{file}"):  # to open it is to fetch what it names
        raise is_list
    with open_source(file) as source:
        if source.info.container in LISTS:
            raise is_list
        _check_size(file, source.info.size)


def _check_size(file: Path, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise InputError(
            f"{file.name} is {size[0]}x{size[1]}", f"{MAX_PIXELS / 1e6:.0f} million pixels are the most"
        )
