"""A job as clients see it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from gnr_video.serve.store import AT_WORK, Record
from gnr_video.serve.worker import Progress, differences

_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".mkv": "video/x-matroska",
    ".webm": "video/webm",
    ".gif": "image/gif",
    ".png": "image/png",
    ".apng": "image/apng",
    ".webp": "image/webp",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".avif": "image/avif",
    ".heic": "image/heic",
}


def media_type(name: str) -> str:
    """Of a file by its name, the same on every system."""
    return _TYPES.get(PurePath(name).suffix.lower(), "application/octet-stream")


def shown(job: Record, progress: Progress | None, maker: Mapping[str, str]) -> dict[str, Any]:
    """A job, of the form of `description.JOB`.

    Args:
        progress: of the job, while it is at work.
        maker: who translates now.
    """
    name = job.outcome.get("result")
    progress = progress if job.state in AT_WORK else None
    return {
        "id": job.id,
        "number": job.number,
        "state": job.state,
        "name": job.name,
        "options": job.options,
        "created": _time(job.created),
        "started": _time(job.started),
        "ended": _time(job.ended),
        "frames": progress.frames if progress else job.outcome.get("frames", 0),
        "frames_expected": progress.expected if progress else None,
        "seconds_left": progress.seconds_left if progress else None,
        "message": job.outcome.get("message", ""),
        "warnings": job.outcome.get("warnings", []),
        "notices": differences(job.asked_of, job.made_by or maker),
        "asked_of": job.asked_of,
        "made_by": job.made_by,
        "result": {"name": name, "bytes": job.bytes, "type": media_type(name)} if name else None,
    }


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
