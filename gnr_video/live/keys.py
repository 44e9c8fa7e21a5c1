"""Keys: presses in the window, the terminal and the browser become commands of the controls."""

from __future__ import annotations

from typing import Any

from gnr_video.effects import EFFECTS
from gnr_video.live.controls import Controls

KEYS = {
    "n": ("next", "next style"),
    "p": ("previous", "previous style"),
    "s": ("save", "save the style"),
    "b": ("blend", "blend to the next style"),
    "c": ("compare", "after / both / before"),
    "g": ("grid", "grid of styles"),
    "m": ("mirror", "mirror"),
    **{effect.key: (effect.name, f"{effect.name} on / off") for effect in EFFECTS},
    "r": ("record", "record / stop"),
    "h": ("help", "these keys"),
    "q": ("quit", "quit"),
}
"""Key -> (command, what it does)."""

HELP = ["0-9 Enter  a seed", *(f"{key}  {text}" for key, (_, text) in KEYS.items())]


class Keys:
    """Key presses to commands: letters act at once, digits make up a seed until Enter."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls
        self.typed = ""

    def press(self, key: str) -> str:
        """Take one key ("n", "7", "\\r", "\\x08", "\\x1b"); returns what the command said."""
        if key.isascii() and key.isdigit():
            self.typed = (self.typed + key)[:18]
            return ""
        if key in ("\r", "\n"):
            typed, self.typed = self.typed, ""
            return self._controls.run("style", typed) if typed else ""
        if key in ("\x08", "\x7f"):
            self.typed = self.typed[:-1]
            return ""
        self.typed = ""
        command = KEYS.get(key.lower())
        return self._controls.run(command[0]) if command else ""


class TerminalKeys:
    """Key presses from the terminal that started the program, without Enter; none where it is no terminal.

    A context manager: the terminal is put back as it was.
    """

    def __init__(self, controls: Controls) -> None:
        self._keys = Keys(controls)
        self._before: Any = None

    @property
    def active(self) -> bool:
        """Whether keys can be pressed."""
        import sys

        on_windows = sys.platform == "win32" and sys.stdin is not None and sys.stdin.isatty()
        return on_windows or self._before is not None

    def poll(self) -> str:
        """Act on the keys pressed since; returns what the last one said. Never waits."""
        said = ""
        for key in self._pressed():
            said = self._keys.press(key) or said
        return said

    def __enter__(self) -> TerminalKeys:
        import sys

        if sys.platform == "win32" or sys.stdin is None or not sys.stdin.isatty():
            return self
        try:
            import os
            import termios
            import tty

            if os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp():
                return self  # in the background, touching the terminal would stop the process
            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        except (ImportError, OSError, ValueError):
            pass  # no terminal after all
        return self

    def __exit__(self, *_: object) -> None:
        import sys

        if sys.platform != "win32" and self._before is not None:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)
            self._before = None

    def _pressed(self) -> list[str]:
        import os
        import sys

        if sys.platform == "win32":
            import msvcrt

            keys = []
            while self.active and msvcrt.kbhit():
                keys.append(msvcrt.getwch())
            return keys
        if self._before is None:
            return []
        import select

        if not select.select([sys.stdin], [], [], 0)[0]:
            return []
        try:
            return list(os.read(sys.stdin.fileno(), 64).decode(errors="ignore"))
        except OSError:
            return []
