"""Which of an input's streams are read: the video, and what goes along with it (part of the container source)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engines.errors import InputError

if TYPE_CHECKING:
    from av.container import InputContainer

_DEFAULT, _ATTACHED = 0x0001, 0x0400  # AV_DISPOSITION_*
_OF_VARIANTS = {"hls", "dash", "mpegts"}


@dataclass(frozen=True)
class Streams:
    """The streams (PyAV's) of a container that are read.

    Attributes:
        video: whose pictures are the frames.
        copied: index -> sound, text and attachments that belong to it.
        covers: index -> cover pictures.
    """

    video: Any
    copied: dict[int, Any]
    covers: dict[int, Any]

    @property
    def timed(self) -> list[Any]:
        """Those whose packets have times."""
        return [self.video, *(s for s in self.copied.values() if s.type != "attachment")]


def choose_streams(
    path: str, container: InputContainer, wanted: int | None, warn: Callable[[str], None]
) -> Streams:
    """Choose what is read; FFmpeg is told to leave out all else.

    Args:
        path: the input, for messages.
        container: just opened.
        wanted: which video stream, counted from 0; None: the default one, of variants of the same thing the best.
        warn: called with what the user should know.

    Raises:
        InputError: there is none that can be decoded, or none of that number.
    """
    import av

    video = _choose(path, container, wanted, warn)
    copied = {s.index: s for s in _companions(container, video)}
    covers = {s.index: s for s in container.streams.video if _is_cover(s)}
    read = {video.index, *copied, *covers}
    for stream in container.streams:
        if stream.index not in read:
            stream.discard = av.stream.Discard.all
    return Streams(video, copied, covers)


def _choose(path: str, container: InputContainer, wanted: int | None, warn: Callable[[str], None]) -> Any:
    streams = _video_streams(path, container)
    names = ", ".join(f"{number}: {s.width}x{s.height}" for number, s in enumerate(streams))
    if wanted is not None:
        if not 0 <= wanted < len(streams):
            raise InputError(f"{path} has no video stream {wanted}", f"it has {names}")
        return streams[wanted]
    default = [s for s in streams if s.disposition & _DEFAULT] or streams
    if _is_of_variants(container):
        chosen = max(default, key=lambda s: (s.width * s.height, _bit_rate(s)))
    else:
        chosen = default[0]
    if len(streams) > 1:
        warn(
            f"{path} has {len(streams)} video streams ({names}): "
            f"{streams.index(chosen)} is used, --stream takes another"
        )
    return chosen


def _is_of_variants(container: InputContainer) -> bool:
    """Whether video streams are sizes of the same thing, or programmes, each with its own sound."""
    names = set(container.format.name.split(","))
    return bool(names & _OF_VARIANTS) and len(container.streams.video) > 1


def _companions(container: InputContainer, video: Any) -> list[Any]:
    """The sound, text and attachments that belong to the video stream."""
    streams = [s for s in container.streams if s.type in ("audio", "subtitle", "attachment")]
    if not _is_of_variants(container):
        return streams
    best = container.streams.best
    return [s for s in (best("audio", video), best("subtitle", video)) if s is not None]


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & _ATTACHED) and stream.codec_context is not None


def _bit_rate(stream: Any) -> int:
    said = stream.metadata.get("variant_bitrate", "")
    return int(said) if said.isdecimal() else (stream.codec_context.bit_rate or 0)


def _video_streams(path: str, container: InputContainer) -> list[Any]:
    """The video streams that are no cover pictures and can be decoded."""
    streams = [s for s in container.streams.video if not s.disposition & _ATTACHED]
    # FFmpeg renders plain text as pictures through its "tty" demuxer.
    if not streams or container.format.name == "tty":
        kinds = sorted({s.type for s in container.streams})
        found = (
            f"only {' and '.join(kinds)}"
            if kinds and container.format.name != "tty"
            else "nothing of the kind"
        )
        raise InputError(f"{path} has no video stream, {found}", "give a file that has pictures in it")
    streams = [s for s in streams if s.codec_context is not None]
    if not streams:
        raise InputError(
            f"{path}: this FFmpeg build has no decoder for its video", "convert it to H.264 first"
        )
    return streams
