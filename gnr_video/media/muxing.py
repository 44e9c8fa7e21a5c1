"""What a container holds besides pictures, sound and text: options, tags, chapters, covers, the timecode
(part of the container sink)."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from engines.errors import OutputError
from gnr_video.media.encoders import ALIASES, CONTAINERS, default_codec

if TYPE_CHECKING:
    from gnr_video.media.source import VideoSource

OWN_METADATA = {"major_brand", "minor_version", "compatible_brands", "encoder", "ENCODER", "DURATION"}
"""What a muxer writes by itself, or what described the input's container only."""

_HIGHEST_TIMECODE = 255  # frames a second: a byte in the file


def check_container(codec: str, extension: str) -> None:
    """Refuse what cannot be asked for, such as H.264 in webm."""
    import av

    codec = ALIASES.get(codec, codec)
    if codec not in av.codecs_available:
        return  # choose_encoder says so better
    try:
        av.open(io.BytesIO(), "w", format=CONTAINERS[extension]).add_stream(codec, rate=25)
    except ValueError:
        raise OutputError(
            f"{extension} cannot hold {codec}",
            f"leave --codec out for {default_codec(extension)}, or write an mkv",
        ) from None
    except av.FFmpegError:
        return


def muxer_options(muxer: str, time_base: Fraction, source: VideoSource, live: bool) -> dict[str, str]:
    written = {"flush_packets": "1"} if live else {}  # to the disk, not to a buffer
    if muxer not in ("mp4", "mov"):
        return written
    if live:
        return written | {"movflags": "+frag_keyframe+empty_moov+default_base_moof"}
    # Edit lists, which hold a first pts that is not zero, count in this unit; by default milliseconds.
    scale = time_base.denominator
    for template in source.streams_to_copy():
        if template.time_base is not None:
            together = math.lcm(scale, Fraction(template.time_base).denominator)
            scale = together if together < 2**31 else scale
    # Keys of phones (place, make) are no part of mp4's own; written, they take the place of those.
    keys = "+use_metadata_tags" if any(key.startswith("com.") for key in source.info.metadata) else ""
    return {"movflags": f"+faststart{keys}", "movie_timescale": str(scale)}


def add_covers(
    container: Any, source: VideoSource, muxer: str, suffix: str, warn: Callable[[str], None]
) -> list[Any]:
    """Add an input's cover pictures to a container before its header is written; `suffix` is for messages.

    Returns:
        Packets to be written after the header.
    """
    packets = []
    for number, (template, packet) in enumerate(source.covers()):
        kind = template.codec_context.name
        if muxer == "matroska":
            mime = f"image/{'jpeg' if kind == 'mjpeg' else kind}"
            container.add_attachment(f"cover{number or ''}.{mime[6:]}", mime, bytes(packet))
        elif muxer == "mp4":
            stream = container.add_stream_from_template(template)
            stream.disposition = template.disposition
            packet.stream, packet.pts, packet.dts = stream, 0, 0
            packets.append(packet)
        else:
            warn(f"the cover picture is left out: {suffix} cannot hold it")
    return packets


def add_metadata(
    container: Any,
    video: Any,
    source: VideoSource,
    muxer: str,
    rate: Fraction,
    suffix: str,
    warn: Callable[[str], None],
) -> None:
    """Add an input's tags, chapters and timecode to a container before its header is written.

    Args:
        container: the output (PyAV's).
        video: its video stream.
        source: the input.
        muxer: FFmpeg's name of the output's format.
        rate: frames per second, by which timecodes count.
        suffix: that the output's name ends in, for messages.
        warn: called with what is left out.
    """
    for key, value in source.info.metadata.items():
        if key not in OWN_METADATA and key.lower() != "timecode":
            container.metadata[key] = value
    tracks = source.data_tracks()
    if tracks:
        warn(f"data tracks are left out: {', '.join(dict.fromkeys(tracks))}")
    chapters = source.chapters()
    if chapters and muxer in ("mp4", "mov", "matroska", "webm"):
        container.set_chapters(chapters)
    elif chapters:
        warn(f"chapters are left out: {suffix} cannot hold them")
    timecode = source.timecode()
    if timecode and muxer in ("mp4", "mov", "matroska") and _is_timecode(timecode, rate):
        video.metadata["timecode"] = timecode
    elif timecode:
        warn(f"the timecode {timecode} is left out: {suffix} cannot hold it at this frame rate")


def _is_timecode(text: str, rate: Fraction) -> bool:
    """Whether FFmpeg's muxers can count a timecode at so many frames a second."""
    found = re.fullmatch(r"\d\d:\d\d:\d\d([:;.])\d\d+", text)
    if found is None or not 1 <= round(rate) <= _HIGHEST_TIMECODE:
        return False
    return found[1] == ":" or (rate * 1001) % 30000 == 0
