"""Which source reads an input and which sink writes an output; what outputs are called."""

from __future__ import annotations

import os
import re
import stat
import sys
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname, urlopen

from engines.errors import InputError, OutputError
from gnr_video.media.container_sink import ContainerSink
from gnr_video.media.container_source import ContainerSource, Reading
from gnr_video.media.encoders import ALIASES, CONTAINERS, default_codec
from gnr_video.media.encoders import holds_alpha as encoder_holds_alpha
from gnr_video.media.formats import (
    AVIF,
    GIF,
    GIF_DELAY,
    IMAGE_OUTPUTS,
    IMAGE_SUFFIXES,
    JXL,
    WEBP,
    Head,
    ImageFormat,
    by_suffix,
    kept_suffix,
    sniff,
    sniff_file,
)
from gnr_video.media.image_files import ffmpeg_reads_jxl
from gnr_video.media.image_sinks import NUMBER_PATTERN, ImageSequenceSink, StillSink, holds_alpha
from gnr_video.media.image_sources import AnimationSource, ImageFolderSource, StillSource
from gnr_video.media.sink import VideoSink, shortened
from gnr_video.media.source import VideoSource

_DOWNLOAD_TIMEOUT = 60.0  # seconds
_LONGEST_NAME = 255  # bytes

STANDARD_INPUT = ("-", "pipe:", "pipe:0")
TRANSLATED = "_anime"
"""What is added to the name of an input, for its translation beside it."""


def open_source(
    path: str | os.PathLike[str],
    *,
    start: float | None = None,
    end: float | None = None,
    keep_fields: bool = False,
    stream: int | None = None,
) -> VideoSource:
    """Open anything that holds pictures.

    Args:
        path: a file, a URL, "-" or "pipe:0" for standard input, an image, or a folder of images (in natural
            order, at 25 frames per second).
        start: seconds to leave out at the beginning. The first frame kept then gets pts 0, and audio and
            subtitles move with it.
        end: seconds, in the input's own time, at which to stop; a frame that begins there is left out.
        keep_fields: leave interlaced pictures as they are; else they are deinterlaced.
        stream: which of several video streams, counted from 0; None: the default one, of variants the best.

    Returns:
        The source, with its first frame already decoded.

    Raises:
        InputError: missing, empty, not a video, truncated beyond use, without a video stream or a frame.
    """
    text = os.fspath(path)
    part = Reading(start, end, keep_fields, stream)
    if (start is not None and start < 0) or (end is not None and end <= (start or 0.0)):
        raise InputError(
            f"the part from {start or 0:g} s to {'the end' if end is None else f'{end:g} s'} is empty",
            "give --start and --end in seconds, with 0 <= start < end",
        )
    if text in STANDARD_INPUT:
        return _open_stream(text, _standard_input(), part)
    if is_url(text):
        return _open_url(text, part)
    return _open_local(text, part)


def _open_local(text: str, part: Reading) -> VideoSource:
    """What is on this machine: a file, a named pipe, a folder."""
    file = local_path(text)
    if not os.path.exists(file):  # unlike pathlib's, it answers whatever the name
        raise InputError(f"no such file: {text}", _similar(file))
    if file.is_dir():
        return ImageFolderSource(file, start=part.start, end=part.end)
    try:
        head = Head(file.open("rb", buffering=0), str(file))
        if not head.peek(1):
            raise InputError(f"{text} is empty (0 bytes)", "copy or download it again")
    except OSError as error:
        raise InputError(f"cannot read {text}: {error.strerror}", "check the file's permissions") from None
    if not file.is_file():
        return _open_stream(text, head, part)
    try:
        picture = _open_picture(text, head, part)
    finally:
        head.close()
    if picture is not None:
        return picture
    try:
        # Without a protocol FFmpeg takes the part before a colon in a file's name for one.
        return ContainerSource(text, f"file:{file}", part)
    except InputError as error:
        if file.suffix.lower() in IMAGE_SUFFIXES:
            raise InputError(f"{text} is not an image, or is damaged", error.hint) from None
        raise


def _open_url(url: str, part: Reading) -> VideoSource:
    source = ContainerSource(url, url, part)
    if not source.info.is_still or not url.lower().startswith(("http://", "https://")):
        return source
    # FFmpeg reads one tile of some pictures, and no colour profiles.
    source.close()
    try:
        with urlopen(url, timeout=_DOWNLOAD_TIMEOUT) as answer:  # nothing but http and https
            return StillSource(url, answer.read())
    except OSError as error:
        raise InputError(f"cannot read {url}: {error}", "check the address and the network") from None


def is_url(text: str) -> bool:
    """Whether an input is another machine's, or FFmpeg's to find."""
    return bool(re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", text)) and not text.startswith("file://")


def comes_once(text: str) -> bool:
    """Whether an input can be read only once, or is far away."""
    try:
        return text in STANDARD_INPUT or is_url(text) or stat.S_ISFIFO(os.stat(local_path(text)).st_mode)
    except (OSError, ValueError):
        return False


def local_path(text: str) -> Path:
    """The file that a name or a file:// URL means."""
    if not text.startswith("file://"):
        return Path(text)
    return Path(url2pathname(urlsplit(text).path))


@lru_cache(maxsize=1)
def _standard_input() -> Head:
    """Standard input, which comes once: whoever looks at it first sees what all others see."""
    if sys.stdin is not None and sys.stdin.isatty():
        raise InputError(
            "standard input is a terminal, not a video", "pipe one in: cat clip.mp4 | gnr-video -"
        )
    # Not sys.stdin.buffer: its lock, held by a thread that waits, breaks the end of the process.
    return Head(open(0, "rb", buffering=0, closefd=False), "standard input")


def _open_stream(text: str, head: Head, part: Reading) -> VideoSource:
    picture = _open_picture(text, head, part)
    return ContainerSource(text, head, part) if picture is None else picture


def _open_picture(text: str, head: Head, part: Reading) -> VideoSource | None:
    """A picture by its content; None where FFmpeg has to say what it is."""
    kind, moves = sniff(head)
    if kind is JXL and moves and not ffmpeg_reads_jxl():
        raise InputError(
            f"{text} is an animated JPEG XL, which cannot be read here", "convert it to WebP or to a video"
        )
    # FFmpeg tells the pictures of a GIF apart by their delays.
    is_untimed = kind is GIF and GIF_DELAY not in head.peek(0)
    if moves and kind is not None and (kind in (WEBP, AVIF) or is_untimed):
        return AnimationSource(text, head.read(), kind, start=part.start, end=part.end)
    return None if kind is None or moves else StillSource(text, head.read())


def anime_name(path: Path, kind: ImageFormat | None = None) -> Path:
    """What the translation of a file is called, beside it: clip.mov -> clip_anime.mp4.

    Args:
        path: the file.
        kind: the format of a picture, which stays one: photo.tif -> photo_anime.tif, photo.jpg -> photo_anime.png.
    """
    ending = f"{TRANSLATED}{'.mp4' if kind is None else kept_suffix(path, kind)}"
    return path.with_name(f"{shortened(path.stem, _longest_name(path.parent) - len(ending))}{ending}")


def _longest_name(folder: Path) -> int:
    """Bytes of a name in a folder."""
    if sys.platform == "win32":
        return _LONGEST_NAME
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError):  # no such folder
        return _LONGEST_NAME


def picture_format(text: str) -> ImageFormat | None:
    """The format of an input that is a single picture, None where it is none.

    What comes over the network, or is not there, is known by its name only.
    """
    try:
        if text in STANDARD_INPUT:
            sniffed = sniff(_standard_input())
        elif is_url(text) or not os.path.isfile(local_path(text)):
            named = by_suffix(Path(urlsplit(text).path if is_url(text) else text))
            return None if named is GIF else named
        else:
            sniffed = sniff_file(local_path(text))
    except OSError:
        return None
    return None if sniffed.moves else sniffed.format


def _similar(file: Path) -> str:
    """A hint for a missing file: another name beside it that resembles it."""
    import difflib

    try:
        names = [f.name for f in file.parent.iterdir()]
    except OSError:
        return f"the folder {file.parent} does not exist"
    close = difflib.get_close_matches(file.name, names, 1)
    return (
        f"did you mean {file.parent / close[0]}?" if close else "check the name, and quote names with spaces"
    )


def open_sink(
    path: str | os.PathLike[str],
    source: VideoSource,
    *,
    size: tuple[int, int] | None = None,
    codec: str | None = None,
    crf: int | None = None,
    overwrite: bool = False,
    threads: int | None = None,
    live: bool = False,
    sound: bool = False,
) -> VideoSink:
    """Open an output; the container is chosen by extension.

    Args:
        path: .mp4, .m4v, .mov, .mkv, .webm, .gif; .png, .jpg, .webp, .bmp for a still input; an image
            sequence when the name holds a pattern such as %05d, ends in "/", or is a folder that exists.
        source: where the frames, the audio and the colour tags come from. Not yet iterated.
        size: (width, height) of the frames to come; the source's when None. Encoders of 4:2:0 need even
            sizes: an odd one gets its last column or row repeated.
        codec: FFmpeg's name of an encoder, or h264, h265, vp9, av1; None: H.264 (VP9 in webm). One that does
            not work here is replaced by libx264, with a warning.
        crf: quality, lower is better; None: 18 for H.264.
        overwrite: whether an existing output may be replaced.
        threads: encoder threads; None: all cores but one, 0: as many as the encoder likes.
        live: mp4 and mov are written in fragments, and the encoder holds nothing back: the file can be closed
            at any moment at once, and is playable even if the process is killed. It is kept when writing fails.
        sound: whether sound comes too, through `VideoSink.write_sound`; its first sample is of pts 0.

    Times: pts and time base are kept exactly in mp4, m4v and mov, also a first pts that is not zero. mkv and
    webm count in milliseconds and know no negative times (audio that begins before zero moves everything
    later by the same amount); gif counts in hundredths and begins at zero.

    Raises:
        OutputError: exists without `overwrite`, is the input, unknown extension, not writable, no encoder.
    """
    text = os.fspath(path)
    target = Path(text)
    suffix = target.suffix.lower()
    size = size or source.info.size
    if (
        text.endswith(("/", os.sep))
        or os.path.isdir(target)
        or (NUMBER_PATTERN.search(target.name) and suffix in IMAGE_OUTPUTS)
    ):
        if codec is not None:
            raise OutputError("an image sequence has no encoder", "leave --codec out")
        return ImageSequenceSink(target, source, size, overwrite=overwrite)
    _check_output(text, source, overwrite)
    if suffix in IMAGE_OUTPUTS and (source.info.is_still or suffix not in CONTAINERS):
        if not source.info.is_still:
            raise OutputError(
                f"{text} is one image, but the input is a video",
                f"use a pattern such as {target.stem}-%05d{suffix}, or a folder",
            )
        return StillSink(target)
    return ContainerSink(target, source, size, codec=codec, crf=crf, threads=threads, live=live, sound=sound)


def _check_output(text: str, source: VideoSource, overwrite: bool) -> None:
    """Refuse a name that no single file of the output can have."""
    target = Path(text)
    suffix = target.suffix.lower()
    if suffix not in CONTAINERS and suffix not in IMAGE_OUTPUTS:
        known = ", ".join([*CONTAINERS, *IMAGE_OUTPUTS])
        raise OutputError(
            f"cannot tell the format of {text!r} from its extension {suffix!r}",
            f"use one of {known}, or a folder for an image sequence",
        )
    given = local_path(source.info.path)
    if os.path.exists(target) and os.path.exists(given) and target.samefile(given):
        raise OutputError(f"the output {text} is the input itself", "choose another name for the output")
    if os.path.exists(target) and not overwrite:
        raise OutputError(f"{text} exists already", "give --overwrite to replace it")
    if source.info.is_mixed:
        raise OutputError(
            f"the images of {source.info.path} have several sizes: they make no video",
            f"write them into a folder: -o {target.stem}/, or make all of them the same size",
        )


def check_alpha(path: str | os.PathLike[str], codec: str | None) -> None:
    """Refuse outputs that hold no transparency.

    Raises:
        OutputError: it is one of those.
    """
    text = os.fspath(path)
    suffix = Path(text).suffix.lower()
    if text.endswith(("/", os.sep)) or os.path.isdir(text) or holds_alpha(Path(text)):
        return
    if suffix in CONTAINERS and encoder_holds_alpha(
        ALIASES.get(codec or "", codec) or default_codec(suffix, True), suffix
    ):
        return
    raise OutputError(
        f"{text} cannot be transparent", "use .webm, .mov, .gif, .png, .apng, .webp, or frames/%05d.png"
    )
