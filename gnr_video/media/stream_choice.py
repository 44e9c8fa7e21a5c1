"""Which of an input's streams are read: the video, and what goes along with it (part of the container source)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engines.errors import InputError
from gnr_video.media.programmes import Programme

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
    path: str,
    container: InputContainer,
    programmes: Sequence[Programme],
    wanted: int | None,
    warn: Callable[[str], None],
) -> Streams:
    """Choose what is read; FFmpeg is told to leave out all else.

    Args:
        path: the input, for messages.
        container: just opened.
        programmes: of a transport stream.
        wanted: which video stream, counted from 0; None: the default one, of variants of the same thing the best, of
            programmes that of the first.
        warn: called with what the user should know.

    Raises:
        InputError: there is none that can be decoded, or none of that number.
    """
    import av

    videos = _video_streams(path, container)
    video = _choose(path, container, videos, programmes, wanted)
    if wanted is None:
        _say(path, videos, video, programmes, warn)
    copied = {s.index: s for s in _companions(container, video, programmes)}
    covers = {s.index: s for s in container.streams.video if _is_cover(s)}
    read = {video.index, *copied, *covers}
    for stream in container.streams:
        if stream.index not in read:
            stream.discard = av.stream.Discard.all
    return Streams(video, copied, covers)


def _choose(
    path: str,
    container: InputContainer,
    streams: list[Any],
    programmes: Sequence[Programme],
    wanted: int | None,
) -> Any:
    if wanted is not None:
        if not 0 <= wanted < len(streams):
            raise InputError(f"{path} has no video stream {wanted}", f"it has {_named(streams, programmes)}")
        return streams[wanted]
    # What is scrambled has no size.
    readable = [s for s in streams if s.width] or streams
    for programme in programmes:
        if own := [s for s in readable if s.id in programme.pids]:
            return max(own, key=_size)
    default = [s for s in readable if s.disposition & _DEFAULT] or readable
    return max(default, key=_size) if _is_of_variants(container) else default[0]


def _size(stream: Any) -> tuple[int, int]:
    return stream.width * stream.height, _bit_rate(stream)


def _named(streams: list[Any], programmes: Sequence[Programme]) -> str:
    """Video streams by number: "0: 64x48, 1: 128x96"."""
    names = []
    for number, stream in enumerate(streams):
        programme = _programme_of(stream, programmes) if len(programmes) > 1 else None
        names.append(
            f"{number}: {stream.width}x{stream.height}"
            + (f" of programme {programme.number}" if programme is not None else "")
        )
    return ", ".join(names)


def _say(
    path: str, streams: list[Any], video: Any, programmes: Sequence[Programme], warn: Callable[[str], None]
) -> None:
    """Say that there was a choice."""
    if len(streams) > 1:
        warn(
            f"{path} has {len(streams)} video streams ({_named(streams, programmes)}): "
            f"{streams.index(video)} is used, --stream takes another"
        )
    elif len(programmes) > 1 and (own := _programme_of(video, programmes)) is not None:
        numbers = ", ".join(str(programme.number) for programme in programmes)
        warn(
            f"{path} has {len(programmes)} programmes ({numbers}): {own.number}, which has pictures, is used"
        )


def _programme_of(stream: Any, programmes: Sequence[Programme]) -> Programme | None:
    return next((programme for programme in programmes if stream.id in programme.pids), None)


def _is_of_variants(container: InputContainer) -> bool:
    """Whether video streams are sizes of the same thing, or programmes, each with its own sound."""
    names = set(container.format.name.split(","))
    return bool(names & _OF_VARIANTS) and len(container.streams.video) > 1


def _companions(container: InputContainer, video: Any, programmes: Sequence[Programme]) -> list[Any]:
    """The sound, text and attachments that belong to the video stream."""
    streams = [s for s in container.streams if s.type in ("audio", "subtitle", "attachment")]
    if programmes:
        own = _programme_of(video, programmes)
        # What no table names is nobody else's.
        return [s for s in streams if _programme_of(s, programmes) in (None, own)]
    if not _is_of_variants(container):
        return streams
    best = container.streams.best
    return [s for s in (best("audio", video), best("subtitle", video)) if s is not None]


def _is_cover(stream: Any) -> bool:
    return (
        stream.type == "video" and bool(stream.disposition & _ATTACHED) and stream.codec_context is not None
    )


def _bit_rate(stream: Any) -> int:
    said = stream.metadata.get("variant_bitrate", "")
    return int(said) if said.isdecimal() else (stream.codec_context.bit_rate or 0)


def _video_streams(path: str, container: InputContainer) -> list[Any]:
    """The video streams that are no cover pictures and can be decoded."""
    streams = [s for s in container.streams.video if not s.disposition & _ATTACHED]
    # FFmpeg renders plain text as pictures through its "tty" demuxer.
    if not streams or container.format.name == "tty":
        kinds = sorted({"a cover picture" if _is_cover(s) else s.type for s in container.streams})
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
