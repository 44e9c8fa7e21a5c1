"""The user's browser: whether there is one to open the page in, and opening it."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from collections.abc import Mapping


def can_open_pages(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> bool:
    """Whether a browser that is opened here is one that the user sees."""
    if environment.get("SSH_CONNECTION") or environment.get("CI"):
        return False
    if platform in ("win32", "darwin"):
        return True
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def open_page(url: str) -> None:
    """Open an address in the user's browser, without waiting for it; where there is none, nothing happens."""
    # Some browsers' launchers return when they are closed.
    threading.Thread(target=webbrowser.open, args=(url,), name="browser of the user", daemon=True).start()
