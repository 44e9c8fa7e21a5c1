"""Where the project keeps what it fetched or built, on each platform (used by every stage that caches)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE_VARIABLE = "GNR_VIDEO_CACHE"
FOLDER = "gnr-video"


def cache_dir() -> Path:
    """The user's cache folder of this project; it may not exist yet.

    `$GNR_VIDEO_CACHE` itself where set; else the folder `gnr-video` in `$XDG_CACHE_HOME`, or in the
    platform's own place: `~/.cache` (Linux), `~/Library/Caches` (macOS), `%LOCALAPPDATA%` (Windows).
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    # The XDG specification: a relative path is invalid and is to be ignored.
    if (xdg := os.environ.get("XDG_CACHE_HOME")) and Path(xdg).is_absolute():
        return Path(xdg) / FOLDER
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / FOLDER
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / FOLDER
    return Path.home() / ".cache" / FOLDER
