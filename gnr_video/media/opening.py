"""How FFmpeg is asked to open an input, and what is said where it cannot (part of the container source)."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from engines.errors import InputError
from gnr_video.media.dash import is_manifest, write_playlists
from gnr_video.media.formats import Head

if TYPE_CHECKING:
    from av.container import InputContainer

_OPEN_TIMEOUT, _READ_TIMEOUT = 20.0, 60.0  # seconds, for network inputs
_ANY_SEGMENT = {
    "protocol_whitelist": "file,http,https,tcp,tls,crypto",
    "allowed_extensions": "ALL",
    "allowed_segment_extensions": "ALL",
    "extension_picky": "0",
}
"""FFmpeg's options for playlists of what a DASH manifest names."""


def open_container(path: str, url: str | Head) -> InputContainer:
    """Open an input.

    Args:
        path: as the user gave it, for messages.
        url: an address, "file:" and a path, or the beginning of a stream.

    Raises:
        InputError: FFmpeg cannot read it.
    """
    of_network = (_OPEN_TIMEOUT, _READ_TIMEOUT)
    timeout = None if isinstance(url, Head) or url.startswith("file:") else of_network
    if isinstance(url, Head) or not is_manifest(url):
        return _open(path, url, timeout, {})
    with TemporaryDirectory() as folder:
        playlist = write_playlists(path, url, Path(folder))
        if playlist is None:
            return _open(path, url, timeout, {})
        # Once it is open FFmpeg knows the segments, and does not look at a finished playlist again.
        return _open(path, f"file:{playlist}", of_network, _ANY_SEGMENT)


def _open(
    path: str, url: str | Head, timeout: tuple[float, float] | None, options: dict[str, str]
) -> InputContainer:
    import av

    what: Any = url
    try:
        return av.open(what, metadata_errors="replace", timeout=timeout, options=options)
    except (av.error.InvalidDataError, av.error.EOFError):
        message = f"{path} is not a video that FFmpeg can read, or is cut off"
        if is_manifest(path):
            message = (
                f"{path} is no DASH manifest, or one of a live stream, which this FFmpeg build cannot read"
            )
            hint = "give the address of its HLS playlist (.m3u8)"
        elif isinstance(url, Head):
            hint = (
                "an mp4 read from a pipe must be written with -movflags +faststart, or give the file itself"
            )
        elif Path(path).suffix.lower() in (".mp4", ".mov", ".m4v"):
            hint = "an interrupted recording or download lacks its index (moov): copy or download it again"
        else:
            hint = "play it in a video player to see whether it is whole"
        raise InputError(message, hint) from None
    except av.error.ProtocolNotFoundError:
        raise InputError(
            f"{path}: this FFmpeg build has no such protocol", "download the video first"
        ) from None
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"cannot open {path}: {reason}", "check the name, the permissions, or the network"
        ) from None
