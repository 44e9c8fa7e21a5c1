"""What can be changed while a live session runs, the same from the window, the terminal and the browser.

`Controls` holds the state and carries out commands by name; `Keys` turns key presses into them.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.errors import GnrVideoError, InputError, OutputError
from gnr_video.compositor import MODES
from gnr_video.files import write_atomically
from gnr_video.style import StyleCode, parse_style

if TYPE_CHECKING:
    from engines.base import Engine, Styles

VIEWS = ("after", "both", "before", "grid")
BLEND_SECONDS = 2.0
GRID_STYLES = 8
MESSAGE_SECONDS = 4.0

KEYS = {
    "n": ("next", "next style"),
    "p": ("previous", "previous style"),
    "s": ("save", "save the style"),
    "b": ("blend", "blend to the next style"),
    "c": ("compare", "after / both / before"),
    "g": ("grid", "grid of styles"),
    "m": ("mirror", "mirror"),
    "r": ("record", "record / stop"),
    "h": ("help", "these keys"),
    "q": ("quit", "quit"),
}
"""Key -> (command, what it does)."""

HELP = ["0-9 Enter  a seed", *(f"{key}  {text}" for key, (_, text) in KEYS.items())]


@dataclass(frozen=True)
class Look:
    """Which style is on show.

    Attributes:
        style: the style.
        other: the one it is mixed with, None for none.
        mix: 0 = `style` alone, 1 = `other` alone.
        blend_start: when (perf_counter) a blend from `style` to `other` began, None when the mix stands still.
    """

    style: StyleCode
    other: StyleCode | None = None
    mix: float = 0.0
    blend_start: float | None = None


class Controls:
    """The state of a live session and the commands that change it; any thread may call it.

    Args:
        engine: parses styles and mixes them.
        style: the first style, as `parse_style` reads it.
        paste: paste mode.
        mirror: whether pictures are shown mirrored.
        save_to: the file that `save` adds styles to.

    Attributes:
        paste, mirror, view: see `gnr_video.compositor.MODES` and `VIEWS`.
        help: whether the keys are shown.
        quitting: set by `quit`.
        on_record: called by `record`; returns what to tell the user. None: there is no recorder.
    """

    def __init__(
        self,
        engine: Engine,
        style: int | str | StyleCode = 42,
        *,
        paste: str = "head",
        mirror: bool = False,
        save_to: str | Path = "styles.json",
    ) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._w: dict[StyleCode, Styles] = {}
        self._look = Look(self._parse(style))
        self._save_to = Path(save_to)
        self._message, self._message_time = "", 0.0
        self.paste = paste
        self.mirror = mirror
        self.view = "after"
        self.help = False
        self.quitting = threading.Event()
        self.on_record: Callable[[], str] | None = None
        self._commands: dict[str, Callable[[Any], str | None]] = {
            "next": lambda _: self._step(1),
            "previous": lambda _: self._step(-1),
            "style": self._set_style,
            "other": self._set_other,
            "mix": self._set_mix,
            "blend": self._blend,
            "save": lambda _: self._save(),
            "paste": self._set_paste,
            "view": self._set_view,
            "compare": lambda _: self._set_view(VIEWS[(VIEWS.index(self.view) + 1) % 3]),
            "grid": lambda _: self._set_view("after" if self.view == "grid" else "grid"),
            "mirror": self._set_mirror,
            "record": lambda _: self._record(),
            "help": lambda _: self._toggle_help(),
            "quit": lambda _: self.quitting.set(),
        }

    def run(self, command: str, value: Any = None) -> str:
        """Carry out a command; what it says is also the `message` for some seconds.

        Args:
            command: next, previous, style TEXT, other TEXT, mix 0..1, blend [TEXT], save, paste MODE, view VIEW,
                compare, grid, mirror [BOOL], record, help, quit.

        Returns:
            What happened, or why it did not; "" when there is nothing to say. Never raises for what users do.
        """
        try:
            if command not in self._commands:
                raise InputError(f"there is no command {command!r}", f"one of {', '.join(self._commands)}")
            text = self._commands[command](value) or ""
        except GnrVideoError as error:
            text = str(error)
        if text:
            self.say(text)
        return text

    def say(self, text: str) -> None:
        """Show a line for some seconds."""
        self._message, self._message_time = text, time.perf_counter()

    @property
    def message(self) -> str:
        return self._message if time.perf_counter() - self._message_time < MESSAGE_SECONDS else ""

    @property
    def look(self) -> Look:
        """The style on show; a blend that has come to its end is over."""
        with self._lock:
            look = self._look
            if look.blend_start is not None and look.other is not None:
                mix = (time.perf_counter() - look.blend_start) / BLEND_SECONDS
                look = Look(look.other) if mix >= 1.0 else replace(look, mix=max(mix, 0.0))
                if mix >= 1.0:
                    self._look = look
            return look

    def codes(self) -> Styles:
        """What an engine's `translate` takes for the style on show: float32 (1, style_dim), in w space."""
        look = self.look
        w = self._to_w(look.style)
        if look.other is not None and look.mix > 0.0:
            w = w + np.float32(look.mix) * (self._to_w(look.other) - w)
        return w

    def grid_styles(self) -> list[StyleCode]:
        """The styles of the grid: the one on show and the seeds after it."""
        style = self.look.style
        return [style, *(self._parse(seed_of(style) + i) for i in range(1, GRID_STYLES))]

    def grid_codes(self) -> Styles:
        """float32 (GRID_STYLES, style_dim)."""
        return np.concatenate([self._to_w(style) for style in self.grid_styles()])

    def state(self) -> dict[str, Any]:
        """All of it, for the browser."""
        look = self.look
        return {
            "style": look.style.label,
            "other": look.other.label if look.other else "",
            "mix": round(look.mix, 3),
            "paste": self.paste,
            "view": self.view,
            "mirror": self.mirror,
            "message": self.message,
        }

    # -- commands

    def _parse(self, text: int | str | StyleCode) -> StyleCode:
        return text if isinstance(text, StyleCode) else parse_style(text, self._engine)

    def _to_w(self, style: StyleCode) -> Styles:
        if style not in self._w:
            if len(self._w) > 64:
                self._w.clear()
            self._w[style] = self._engine.to_w(style.array())
        return self._w[style]

    def _show(self, look: Look) -> None:
        with self._lock:
            self._look = look

    def _step(self, by: int) -> str:
        return self._set_style(seed_of(self.look.style) + by)

    def _set_style(self, value: Any) -> str:
        style = self._parse(value)
        self._show(Look(style))
        return f"style {style.label}"

    def _set_other(self, value: Any) -> None:
        look = self.look
        other = self._parse(value) if str(value or "").strip() else None
        self._show(replace(look, other=other, mix=look.mix if other else 0.0, blend_start=None))

    def _set_mix(self, value: Any) -> None:
        try:
            mix = float(value)
        except (TypeError, ValueError):
            mix = -1.0
        if not 0.0 <= mix <= 1.0:
            raise InputError(f"the mix is a number from 0 to 1, got {value!r}")
        look = self.look
        other = look.other or self._parse(seed_of(look.style) + 1)
        self._show(Look(look.style, other, mix))

    def _blend(self, value: Any = None) -> str:
        look = self.look
        if look.blend_start is not None and look.other is not None:
            look = Look(look.other)  # the blend before this one ends at once
        if value is not None:
            other, mix = self._parse(value), 0.0
        else:
            other, mix = look.other or self._parse(seed_of(look.style) + 1), look.mix
        self._show(Look(look.style, other, mix, time.perf_counter() - mix * BLEND_SECONDS))
        return f"from style {look.style.label} to {other.label}"

    def _save(self) -> str:
        """Add the style on show to a JSON file: {label: code}."""
        look = self.look
        label = look.style.label
        values = look.style.array()
        if look.other is not None and look.mix > 0.0:
            label = f"{label} {100 * look.mix:.0f} % {look.other.label}"
            values = self.codes()[0]
        try:
            saved = json.loads(self._save_to.read_text(encoding="utf-8")) if self._save_to.exists() else {}
            saved[label] = values.tolist()
        except (OSError, ValueError, TypeError) as error:
            raise OutputError(f"cannot add to {self._save_to}: {error}", "move that file away") from None
        write_atomically(self._save_to, (json.dumps(saved, indent=1) + "\n").encode())
        return f"style {label} is saved in {self._save_to}"

    def _set_paste(self, value: Any) -> str:
        if value not in MODES:
            raise InputError(f"there is no paste mode {value!r}", f"one of {', '.join(MODES)}")
        self.paste = value
        return f"paste: {value}"

    def _set_view(self, value: Any) -> str:
        if value not in VIEWS:
            raise InputError(f"there is no view {value!r}", f"one of {', '.join(VIEWS)}")
        self.view = value
        return {"after": "translated", "both": "before and after", "before": "the camera's picture"}.get(
            value, "grid of styles"
        )

    def _set_mirror(self, value: Any = None) -> str:
        self.mirror = not self.mirror if value is None else bool(value)
        return "mirrored" if self.mirror else "not mirrored"

    def _record(self) -> str:
        if self.on_record is None:
            raise OutputError("this session cannot record")
        return self.on_record()

    def _toggle_help(self) -> None:
        self.help = not self.help


def seed_of(style: StyleCode) -> int:
    """The seed a style stands for; -1 for one that is no seed, so that the next one is seed 0."""
    try:
        return int(style.label)
    except ValueError:
        return -1


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
        return self._before is not None

    def poll(self) -> str:
        """Act on the keys pressed since; returns what the last one said. Never waits."""
        said = ""
        for key in self._pressed():
            said = self._keys.press(key) or said
        return said

    def __enter__(self) -> TerminalKeys:
        import sys

        try:
            if sys.stdin is None or not sys.stdin.isatty():
                return self
            import termios
            import tty

            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        except (ImportError, OSError, ValueError):
            pass  # Windows, or no terminal after all
        return self

    def __exit__(self, *_: object) -> None:
        import sys

        if self._before is not None:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)
            self._before = None

    def _pressed(self) -> list[str]:
        import os
        import sys

        if sys.platform == "win32":
            import msvcrt

            keys = []
            while sys.stdin is not None and sys.stdin.isatty() and msvcrt.kbhit():
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
