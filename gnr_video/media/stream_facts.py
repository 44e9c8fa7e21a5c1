"""What a container says of itself and its streams (part of the container source)."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from gnr_video.media.clock import Clock
from gnr_video.media.formats import HEIF_BRANDS

if TYPE_CHECKING:
    from av.container import InputContainer

_LONGEST_PIXEL = 4
_HIGHEST_RATE = 1000
_NEARLY_SQUARE = Fraction(1, 100)


def unit_of(stream: Any) -> Fraction:
    """Seconds per unit of a stream's times."""
    return Fraction(stream.time_base or Fraction(1, 90000))


def square_size(size: tuple[int, int], aspect: Fraction) -> tuple[int, int]:
    """(width, height) in square pixels of a picture of oblong ones: as wide or as high as it takes to lose none."""
    width, height = size
    if abs(aspect - 1) < _NEARLY_SQUARE:
        return size
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))


def pixel_aspect(stream: Any) -> Fraction:
    """Of a pixel as coded, width over height; one that nobody can mean is square."""
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    return aspect if 1 / _LONGEST_PIXEL <= aspect <= _LONGEST_PIXEL else Fraction(1)


def frame_rate(stream: Any) -> Fraction | None:
    """Frames per second; what no camera makes is a time base that passes for a rate."""
    rates = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    return next((rate for rate in rates if rate and rate <= _HIGHEST_RATE), None)


def length(
    container: InputContainer, stream: Any, start: float | None, end: float | None
) -> tuple[Fraction | None, int | None]:
    """Seconds and frames of the part that will be read, None where unknown; the frames are an estimate."""
    duration: Fraction | None = None
    if stream.duration:
        duration = stream.duration * unit_of(stream)
    elif container.duration:
        duration = Fraction(container.duration, 1_000_000)
    rate = frame_rate(stream)
    count = stream.frames or (round(duration * rate) if duration and rate else None)
    if duration is not None and (start is not None or end is not None):
        part = min(duration, Fraction(end)) if end is not None else duration
        part = max(Fraction(0), part - Fraction(start or 0))
        count = max(1, round(count * part / duration)) if count else None
        duration = part
    return duration, count


def may_be_still(container: InputContainer) -> bool:
    """Whether FFmpeg reads this as pictures, of which there may be one."""
    name = container.format.name
    brand = container.metadata.get("major_brand", "")
    return name == "image2" or name.endswith("_pipe") or brand.encode() in HEIF_BRANDS


def chapters_of(
    container: InputContainer, clock: Clock, shift: Fraction, end: Fraction | None
) -> list[dict[str, Any]]:
    """Chapters of the part that is read, on the clock of its frames.

    Args:
        container: the input.
        clock: that its packets are moved onto.
        shift: seconds of that clock at which the part begins.
        end: at which it ends; None: with the input.
    """
    part = []
    last = None if end is None else end - shift
    for chapter in container.chapters():
        unit = chapter["time_base"] or Fraction(1, 1000)
        start, stop = (max(clock.moved(chapter[key] * unit) - shift, Fraction(0)) for key in ("start", "end"))
        stop = stop if last is None else min(stop, last)
        if start < stop:
            ticks = {"start": round(start * 1000), "end": round(stop * 1000)}
            part.append({**chapter, **ticks, "time_base": Fraction(1, 1000)})
    return part


def data_tracks_of(container: InputContainer) -> list[str]:
    """Names of tracks that are neither picture, sound nor text."""
    # Chapters and timecodes stand in such tracks too.
    has_chapters = bool(container.chapters())
    return [
        s.metadata.get("handler_name", "").strip() or s.name or "unknown"
        for s in container.streams.data
        if "timecode" not in s.metadata and not (has_chapters and s.name == "bin_data")
    ]


def timecode_of(container: InputContainer, stream: Any) -> str:
    """The timecode of a video stream's first frame; "" where there is none."""
    holders = [container, stream, *container.streams.data]
    # Matroska writes its keys in capitals.
    entries = [entry for holder in holders for entry in holder.metadata.items()]
    return next((value for key, value in entries if key.lower() == "timecode"), "")
