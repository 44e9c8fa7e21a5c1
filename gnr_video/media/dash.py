"""DASH manifests (ISO/IEC 23009-1) become HLS playlists, which every build of FFmpeg reads
(part of the container source).

Not every build reads DASH: those that PyAV comes with do not. What is in the segments is the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname, urlopen
from xml.etree import ElementTree

from engines.errors import InputError

_TIMEOUT = 20.0  # seconds
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?")
_PLACE = re.compile(r"\$(RepresentationID|Number|Time|Bandwidth|)(?:%0(\d+)d)?\$")
_MOST_SEGMENTS = 100_000
_KINDS = ("video", "audio")


@dataclass
class _Track:
    """A representation: what its playlist says."""

    kind: str
    group: int
    bandwidth: int
    width: int
    height: int
    lines: list[str] = field(default_factory=list)


def is_manifest(url: str) -> bool:
    """Whether a name or an address is that of a DASH manifest."""
    return Path(urlsplit(url).path).suffix.lower() == ".mpd"


def write_playlists(path: str, url: str, folder: Path) -> Path | None:
    """Write a manifest as playlists.

    Args:
        path: of the manifest, for messages.
        url: its address, or "file:" and its path.
        folder: where the playlists go.

    Returns:
        The master playlist. None: it is no manifest, or of a live stream, which a list of segments cannot hold.

    Raises:
        InputError: it cannot be read, or is copy-protected.
    """
    base = Path(url.removeprefix("file:")).resolve().as_uri() if url.startswith("file:") else url
    try:
        with urlopen(base, timeout=_TIMEOUT) as answer:
            base, root = answer.geturl(), ElementTree.fromstring(answer.read())
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read {path}: {error}", "check the name, the permissions, or the network"
        ) from None
    except ElementTree.ParseError:
        return None
    if _name(root) != "MPD" or root.get("type") == "dynamic":
        return None
    if any(_name(one) == "ContentProtection" for one in root.iter()):
        raise InputError(f"{path} is copy-protected", "use a video that is not")
    try:
        tracks = _tracks(root, base)
    except (ValueError, KeyError, ArithmeticError) as error:
        raise InputError(f"{path} is damaged: {error!r}", "download the video another way") from None
    for line in (line for track in tracks for line in track.lines):
        # As with playlists, what comes over the network reads no files.
        if line.startswith(("file:", '#EXT-X-MAP:URI="file:')) and not base.startswith("file:"):
            raise InputError(f"{path} names a file of this machine", "download the video first")
    for number, track in enumerate(tracks):
        lines = [
            "#EXTM3U",
            "#EXT-X-VERSION:7",
            "#EXT-X-TARGETDURATION:3600",
            *track.lines,
            "#EXT-X-ENDLIST",
            "",
        ]
        (folder / f"{number}.m3u8").write_text("\n".join(lines), "utf-8")
    master = folder / "master.m3u8"
    master.write_text("\n".join(["#EXTM3U", *_variants(tracks), ""]), "utf-8")
    return master


def _variants(tracks: list[_Track]) -> Iterator[str]:
    """The lines of the master playlist: every picture, with the best sound of each group."""
    best: dict[int, int] = {}
    for number, track in enumerate(tracks):
        if track.kind == "audio":
            known = best.get(track.group)
            if known is None or tracks[known].bandwidth < track.bandwidth:
                best[track.group] = number
    for index, number in enumerate(best.values()):
        default = "NO" if index else "YES"
        yield f'#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="sound",NAME="{index}",DEFAULT={default},URI="{number}.m3u8"'
    for number, track in enumerate(tracks):
        if track.kind == "video":
            size = f",RESOLUTION={track.width}x{track.height}" if track.width and track.height else ""
            sound = ',AUDIO="sound"' if best else ""
            yield f"#EXT-X-STREAM-INF:BANDWIDTH={track.bandwidth or 1}{size}{sound}"
            yield f"{number}.m3u8"


def _tracks(root: ElementTree.Element, base: str) -> list[_Track]:
    """All representations of picture and sound; those of later periods go on from those of the first."""
    found: dict[tuple[str, int, int], _Track] = {}
    base = _base(root, base)
    periods = _children(root, "Period")
    for period in periods:
        lasts = _seconds(period.get("duration")) or _seconds(root.get("mediaPresentationDuration"))
        within = _base(period, base)
        counts = dict.fromkeys(_KINDS, 0)
        for group in _children(period, "AdaptationSet"):
            for number, one in enumerate(_children(group, "Representation")):
                kind = _kind(group, one)
                if kind not in counts:
                    break
                key = (kind, counts[kind], number)
                width, height = (int(one.get(side) or group.get(side) or 0) for side in ("width", "height"))
                track = found.setdefault(
                    key, _Track(kind, counts[kind], int(one.get("bandwidth") or 0), width, height)
                )
                if track.lines:
                    track.lines.append("#EXT-X-DISCONTINUITY")
                address = _base(one, _base(group, within))
                track.lines += _segments([period, group, one], address, lasts)
            else:
                counts[kind] += 1
    return list(found.values())


def _segments(levels: list[ElementTree.Element], base: str, lasts: float) -> Iterator[str]:
    """The lines of a playlist for a representation in one period; `levels`: from the period down to it."""
    one = levels[-1]
    for how in ("SegmentTemplate", "SegmentList"):
        nodes = [node for level in levels for node in _children(level, how)]
        if not nodes:
            continue
        says = {key: value for node in nodes for key, value in node.attrib.items()}
        inner = {_name(child): child for node in nodes for child in node}
        if how == "SegmentList":
            yield from _listed(nodes[-1], inner, says, base)
        else:
            yield from _by_template(one, inner, says, base, lasts)
        return
    yield f"#EXTINF:{lasts or 1:.6f},"
    yield _address(base, "")


def _listed(
    node: ElementTree.Element, inner: dict[str, ElementTree.Element], says: dict[str, str], base: str
) -> Iterator[str]:
    if (first := inner.get("Initialization")) is not None:
        yield f'#EXT-X-MAP:URI="{_address(base, first.get("sourceURL", ""))}"'
    length = int(says.get("duration") or 0) / int(says.get("timescale") or 1)
    for segment in _children(node, "SegmentURL"):
        yield f"#EXTINF:{length or 1:.6f},"
        yield _address(base, segment.get("media", ""))


def _by_template(
    one: ElementTree.Element,
    inner: dict[str, ElementTree.Element],
    says: dict[str, str],
    base: str,
    lasts: float,
) -> Iterator[str]:
    values: dict[str, str | int] = {
        "RepresentationID": one.get("id", ""),
        "Bandwidth": int(one.get("bandwidth") or 0),
        "": "$",
    }
    if "initialization" in says:
        yield f'#EXT-X-MAP:URI="{_address(base, _filled(says["initialization"], values))}"'
    scale = int(says.get("timescale") or 1)
    times = _times(inner.get("SegmentTimeline"), int(says.get("duration") or 0), round(lasts * scale))
    for number, (time, length) in enumerate(times, int(says.get("startNumber") or 1)):
        yield f"#EXTINF:{length / scale:.6f},"
        yield _address(base, _filled(says.get("media", ""), values | {"Number": number, "Time": time}))


def _times(timeline: ElementTree.Element | None, length: int, end: int) -> list[tuple[int, int]]:
    """(time, duration) of each segment, in the manifest's units; `end`: of the period."""
    if timeline is None:
        count = min(math.ceil(end / length) if length else 1, _MOST_SEGMENTS)
        return [(number * length, length or end) for number in range(count)]
    times: list[tuple[int, int]] = []
    at = 0
    entries = _children(timeline, "S")
    for entry, after in zip(entries, [*entries[1:], None]):
        at = int(entry.get("t") or at)
        length, more = int(entry.get("d") or 0), int(entry.get("r") or 0)
        if more < 0 and length:  # as many as fit
            until = int(after.get("t") or end) if after is not None else end
            more = math.ceil((until - at) / length) - 1
        for _ in range(min(more + 1, _MOST_SEGMENTS - len(times))):
            times.append((at, length))
            at += length
    return times


def _filled(template: str, values: dict[str, str | int]) -> str:
    return _PLACE.sub(lambda place: str(values[place[1]]).zfill(int(place[2] or 0)), template)


def _address(base: str, relative: str) -> str:
    """What FFmpeg opens."""
    address = urljoin(base, relative)
    if urlsplit(address).scheme not in ("file", "http", "https") or re.search(r'["\s]', address):
        raise InputError(f"a DASH manifest names {address!r}, which is not read", "download the video first")
    return f"file:{url2pathname(urlsplit(address).path)}" if address.startswith("file:") else address


def _base(node: ElementTree.Element, base: str) -> str:
    found = _children(node, "BaseURL")
    return urljoin(base, (found[0].text or "").strip()) if found else base


def _kind(*nodes: ElementTree.Element) -> str:
    says = [node.get("contentType") or node.get("mimeType") or "" for node in nodes]
    return next((text for text in says if text), "").partition("/")[0]


def _seconds(duration: str | None) -> float:
    """Of "PT1H2M3.5S"; 0 where it says nothing."""
    found = _DURATION.fullmatch(duration or "")
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0.0,) * 4
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _children(node: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [child for child in node if _name(child) == name]


def _name(node: ElementTree.Element) -> str:
    """Without its namespace."""
    return str(node.tag).rpartition("}")[2]
