"""Keys: presses in the window, the terminal and the browser become commands of the controls."""

from __future__ import annotations

import re
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
    " ": ("freeze", "still / moving"),
    "x": ("cover", "cover / show"),
    **{effect.key: (effect.name, f"{effect.name} on / off") for effect in EFFECTS},
    "r": ("record", "record / stop"),
    "h": ("help", "these keys"),
    "q": ("quit", "quit"),
}
"""Key -> (command, what it does)."""

SEED = "."
"""Begins a seed."""
HELP = [
    "1-9, 0  a saved style",
    f"{SEED} 42 Enter  a seed",
    *(f"{'space' if key == ' ' else key}  {text}" for key, (_, text) in KEYS.items()),
]


class Keys:
    """Key presses to commands: they act at once, but for those of a seed, from its point until Enter.

    Attributes:
        typed: the seed so far, with its point; "" where none is typed.
    """

    def __init__(self, controls: Controls) -> None:
        self._controls = controls
        self.typed = ""

    def press(self, key: str) -> str:
        """Take one key ("n", "7", ".", "\\r", "\\x08", "\\x1b"); returns what the command said."""
        if key == SEED:
            self.typed = SEED
            return ""
        if key.isascii() and key.isdigit():
            if not self.typed:
                return self._controls.run("recall", key)
            self.typed = (self.typed + key)[:19]
            return ""
        if key in ("\r", "\n"):
            typed, self.typed = self.typed.removeprefix(SEED), ""
            return self._controls.run("style", typed) if typed else ""
        if key in ("\x08", "\x7f"):
            self.typed = self.typed[:-1]
            return ""
        self.typed = ""
        command = KEYS.get(key.lower())
        return self._controls.run(command[0]) if command else ""


_SEQUENCE = re.compile(r"\x1b(?:\[\[.|\[[0-?]*[ -/]*[@-Z\\-~]|O[ -~]|[^\[O\x1b])")
"""What a terminal sends for a function or an arrow key, or for a key with Alt (ECMA-48, 5.4; xterm, Linux)."""
_BEGUN = re.compile(r"\x1b(?:\[\[?[0-?]*[ -/]*|O)?$")
"""One of those that has not come whole, or the Escape key."""


def split_keys(text: str) -> tuple[list[str], str]:
    """What a terminal sent, as keys.

    Returns:
        (keys; function and arrow keys are none of ours and are left out, the end: a sequence that has only begun).
    """
    text = _SEQUENCE.sub("", text)
    begun = _BEGUN.search(text)
    at = begun.start() if begun else len(text)
    return list(text[:at]), text[at:]


def window_key(code: int) -> str:
    """The key of a code of `cv2.waitKeyEx`, "" where it is none of ours: GTK, Qt, Win32 and Cocoa differ.

    Their low 16 bits are the letter; of arrows and function keys they are above 0x7f (GTK, Cocoa) or 0 (Win32), or
    bit 24 is set (Qt). GTK has Ctrl and Alt in bits 18 and 19.
    """
    if code < 0 or code & 0x010C0000:
        return ""
    letter = code & 0xFFFF
    return chr(letter) if 0 < letter < 0x80 else ""


class TerminalKeys:
    """Key presses from the terminal that started the program, without Enter; none where it is no terminal.

    A context manager: the terminal is put back as it was.
    """

    def __init__(self, controls: Controls) -> None:
        self._keys = Keys(controls)
        self._before: Any = None
        self._begun = ""

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
                key = msvcrt.getwch()
                if key in ("\x00", "\xe0") and msvcrt.kbhit():
                    msvcrt.getwch()  # the second half of a function or arrow key
                else:
                    keys.append(key)
            return keys
        if self._before is None:
            return []
        import select

        if not select.select([sys.stdin], [], [], 0)[0]:
            # What has begun and does not go on was the Escape key.
            begun, self._begun = self._begun, ""
            return ["\x1b"] if begun else []
        try:
            text = os.read(sys.stdin.fileno(), 64).decode(errors="ignore")
        except OSError:
            return []
        keys, self._begun = split_keys(self._begun + text)
        return keys
