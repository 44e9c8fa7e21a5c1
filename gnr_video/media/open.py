"""Which source reads an input and which sink writes an output; what outputs are called."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from engines.errors import InputError, OutputError
from gnr_video.media.container_sink import ContainerSink
from gnr_video.media.container_source import ContainerSource
from gnr_video.media.encoders import CONTAINERS
from gnr_video.media.image_sinks import NUMBER_PATTERN, ImageSequenceSink, StillSink
from gnr_video.media.image_sources import ImageFolderSource, StillSource
from gnr_video.media.images import IMAGE_EXTENSIONS, IMAGE_OUTPUTS
from gnr_video.media.sink import VideoSink
from gnr_video.media.source import VideoSource

STILLS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


def open_source(
    path: str | os.PathLike[str], *, start: float | None = None, end: float | None = None
) -> VideoSource:
    """Open anything that holds pictures.

    Args:
        path: a file, a URL, "-" or "pipe:0" for standard input, an image, or a folder of images (in natural
            order, at 25 frames per second).
        start: seconds to leave out at the beginning. The first frame kept then gets pts 0, and audio and
            subtitles move with it.
        end: seconds, in the input's own time, at which to stop; a frame that begins there is left out.

    Returns:
        The source, with its first frame already decoded.

    Raises:
        InputError: missing, empty, not a video, truncated beyond use, without a video stream or a frame.
    """
    text = os.fspath(path)
    if (start is not None and start < 0) or (end is not None and end <= (start or 0.0)):
        raise InputError(
            f"the part from {start or 0:g} s to {'the end' if end is None else f'{end:g} s'} is empty",
            "give --start and --end in seconds, with 0 <= start < end",
        )
    if text in ("-", "pipe:", "pipe:0"):
        if sys.stdin is not None and sys.stdin.isatty():
            raise InputError(
                "standard input is a terminal, not a video", "pipe one in: cat clip.mp4 | gnr-video -"
            )
        return ContainerSource(text, "pipe:0", start=start, end=end)
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", text) and not text.startswith("file://"):
        return ContainerSource(text, text, start=start, end=end)
    file = Path(text.removeprefix("file://"))
    if not file.exists():
        raise InputError(f"no such file: {text}", _similar(file))
    if file.is_dir():
        return ImageFolderSource(file, start=start, end=end)
    if file.is_file():
        try:
            with file.open("rb") as stream:
                empty = not stream.read(1)
        except OSError as error:
            raise InputError(
                f"cannot read {text}: {error.strerror}", "check the file's permissions"
            ) from None
        if empty:
            raise InputError(f"{text} is empty (0 bytes)", "copy or download it again")
    if file.suffix.lower() in IMAGE_EXTENSIONS:
        return StillSource(file)
    # Without a protocol FFmpeg takes the part before a colon in a file's name for one.
    return ContainerSource(text, f"file:{file}", start=start, end=end)


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
        or target.is_dir()
        or (NUMBER_PATTERN.search(target.name) and suffix in IMAGE_OUTPUTS)
    ):
        if codec is not None:
            raise OutputError("an image sequence has no encoder", "leave --codec out")
        return ImageSequenceSink(target, source, size, overwrite=overwrite)
    if suffix not in CONTAINERS and suffix not in IMAGE_OUTPUTS:
        known = ", ".join([*CONTAINERS, *IMAGE_OUTPUTS])
        raise OutputError(
            f"cannot tell the format of {text!r} from its extension {suffix!r}",
            f"use one of {known}, or a folder for an image sequence",
        )
    if target.exists() and Path(source.info.path).exists() and target.samefile(source.info.path):
        raise OutputError(f"the output {text} is the input itself", "choose another name for the output")
    if target.exists() and not overwrite:
        raise OutputError(f"{text} exists already", "give --overwrite to replace it")
    if suffix in IMAGE_OUTPUTS:
        if not source.info.is_still:
            raise OutputError(
                f"{text} is one image, but the input is a video",
                f"use a pattern such as {target.stem}-%05d{suffix}, or a folder",
            )
        return StillSink(target)
    return ContainerSink(target, source, size, codec=codec, crf=crf, threads=threads, live=live)


def anime_name(path: Path) -> Path:
    """What the translation of a file is called, beside it: clip.mov -> clip_anime.mp4; images keep being images."""
    return path.with_name(f"{path.stem}_anime{'.png' if path.suffix.lower() in STILLS else '.mp4'}")
