"""What can be changed while a live session runs, the same from the window, the terminal and the browser.

`Controls` holds the state and carries out commands by name; `keys` turns key presses into them.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from engines.errors import GnrVideoError, InputError, OutputError, StyleError
from gnr_video.compositing.compositor import MODES
from gnr_video.effects.chain import Effects
from gnr_video.live.styles import LiveStyles
from gnr_video.styles.code import DEFAULT_SEED, SAVED
from gnr_video.styles.grammar import parse_color
from gnr_video.styles.looks import Looks
from gnr_video.styles.saved import save_style

if TYPE_CHECKING:
    from engines.base import Engine

VIEWS = ("after", "both", "before", "grid")

GRID = (3, 3)
"""Rows and columns of the grid: the face in the middle, a style in each other cell."""
MESSAGE_SECONDS = 4.0


class Controls:
    """The state of a live session and the commands that change it; any thread may call it.

    Args:
        engine: parses styles and mixes them; one that takes no styles leaves those commands without effect.
        style: the first styles; None: seed 42.
        paste: paste mode.
        mirror: whether pictures are shown mirrored.
        effects: those of the session's translator: which are on, and which can be.
        folder: where `save` puts styles.
        face_model: MediaPipe's model.

    Attributes:
        styles: what the pipeline asks for style codes; None for an engine that takes none.
        paste, mirror, view: see `gnr_video.compositing.compositor.MODES` and `VIEWS`.
        effects: name -> whether it is on, of `gnr_video.effects.chain.EFFECTS`.
        help: whether the keys are shown.
        frozen: whether the picture stands still.
        covered: whether nothing of the camera's picture is shown.
        quitting: set by `quit`.
        on_record: called by `record`; returns what to tell the user. None: there is no recorder.
    """

    def __init__(
        self,
        engine: Engine,
        style: int | str | None = None,
        *,
        paste: str = "head",
        mirror: bool = False,
        effects: Effects | None = None,
        folder: str | Path = ".",
        face_model: Path | None = None,
    ) -> None:
        self._engine = engine
        self.styles: LiveStyles | None = None
        if engine.takes_styles or style is not None:
            self._check_styles()
            self.styles = LiveStyles(DEFAULT_SEED if style is None else style, engine, face_model=face_model)
        self._folder = Path(folder)
        self._message, self._message_until = "", 0.0
        self._said = 0
        self.paste = paste
        self.mirror = mirror
        self._effects = effects or Effects(draws=engine.takes_styles)
        self.effects = self._effects.state
        self.view = "after"
        self._grid: list[Looks] = []
        self.help = self.frozen = self.covered = False
        self.quitting = threading.Event()
        self.on_record: Callable[[], str] | None = None
        self._commands: dict[str, Callable[[Any], str | None]] = {
            "next": lambda _: self._step(1),
            "previous": lambda _: self._step(-1),
            "style": self._set_style,
            "colour": self._set_color,
            "other": self._set_other,
            "mix": self._set_mix,
            "blend": self._blend,
            "save": lambda _: self._save(),
            "recall": self._recall,
            "paste": self._set_paste,
            "view": self._set_view,
            "compare": lambda _: self._set_view(VIEWS[(VIEWS.index(self.view) + 1) % 3]),
            "grid": lambda _: self._set_view("after" if self.view == "grid" else "grid"),
            "mirror": self._set_mirror,
            "freeze": self._set_frozen,
            "cover": self._set_covered,
            "record": lambda _: self._record(),
            "help": lambda _: self._toggle_help(),
            "quit": lambda _: self.quitting.set(),
        } | {name: partial(self._set_effect, name) for name in self.effects}

    def run(self, command: str, value: Any = None) -> str:
        """Carry out a command; what it says is also the `message` for some seconds.

        Args:
            command: next, previous, style TEXT, colour PLACE:COLOUR, other TEXT, mix 0..1, blend [TEXT], save,
                recall 0..9, paste MODE, view VIEW, compare, grid, mirror [BOOL], freeze [BOOL], cover [BOOL], record,
                help, quit, and EFFECT [BOOL].

        Returns:
            What happened, or why it did not; "" when there is nothing to say. Never raises for what users do.
        """
        try:
            return self.carry_out(command, value)
        except GnrVideoError as error:
            # A style's hint points at a place in the text, which needs a line of its own.
            text = error.message if isinstance(error, StyleError) else str(error)
        self.say(text)
        return text

    def carry_out(self, command: str, value: Any = None) -> str:
        """As `run`, but raises GnrVideoError for what cannot be done."""
        if command not in self._commands:
            raise InputError(f"there is no command {command!r}", f"one of {', '.join(self._commands)}")
        text = self._commands[command](value) or ""
        if text:
            self.say(text)
        return text

    def say(self, text: str, *, stays: bool = False) -> None:
        """Show a line for some seconds, or until another takes its place."""
        self._message, self._said = text, self._said + 1
        self._message_until = math.inf if stays else time.perf_counter() + MESSAGE_SECONDS

    @property
    def message(self) -> str:
        return self._message if time.perf_counter() < self._message_until else ""

    @property
    def notice(self) -> str:
        """Why the picture does not move, "" where it does."""
        if self.covered:
            return "covered: x shows the picture again"
        return "still: space goes on" if self.frozen else ""

    @property
    def style_label(self) -> str:
        """What is on show, for people: "42", "42 to 43: 30 %"."""
        styles = self.styles
        if styles is None:
            return "none"
        other, mix = styles.other, styles.mix
        if other is None or styles.other is None:
            return styles.looks.label
        return f"{styles.looks.label} to {other.label}: {100 * mix:.0f} %"

    def grid_styles(self) -> list[Looks]:
        """The styles of the grid: the one on show and the seeds after it."""
        styles = self._check_styles()
        looks = styles.looks
        if not self._grid or self._grid[0] is not looks:  # asked for with every picture
            self._grid = [looks, *(styles.following(i) for i in range(1, math.prod(GRID) - 1))]
        return self._grid

    def hand_to(self, effects: Effects) -> None:
        """Switch effects as they are on show."""
        for name, on in self.effects.items():
            effects.switch(name, on)

    def state(self) -> dict[str, Any]:
        """All of it, for the browser: the last message stays in it, "said" says whether that is a new one."""
        styles = self.styles
        mix = styles.mix if styles else 0.0
        return {
            "style": styles.looks.label if styles else "",
            "other": styles.other.label if styles and styles.other else "",
            "mix": round(mix, 3),
            "colours": styles.colors() if styles else {},
            "paste": self.paste,
            "view": self.view,
            "mirror": self.mirror,
            "frozen": self.frozen,
            "covered": self.covered,
            "effects": dict(self.effects),
            "message": self._message,
            "said": self._said,
            "stays": math.isinf(self._message_until),
        }

    # -- commands

    def _check_styles(self) -> LiveStyles:
        if not self._engine.takes_styles:
            raise StyleError("these weights translate in one look only: they take no style")
        return cast(LiveStyles, self.styles)

    def _show(self, looks: Looks) -> str:
        self._check_styles().show(looks)
        return " ".join([f"style {looks.label}", *looks.warnings])

    def _step(self, by: int) -> str:
        return self._show(self._check_styles().following(by))

    def _set_style(self, value: Any) -> str:
        return self._show(self._check_styles().parse(value))

    def _set_color(self, value: Any) -> str:
        return self._show(self._check_styles().colored(*parse_color(str(value))))

    def _set_other(self, value: Any) -> None:
        styles = self._check_styles()
        other = styles.parse(value) if str(value or "").strip() else None
        styles.show(styles.looks, other, styles.mix if other else 0.0)

    def _set_mix(self, value: Any) -> None:
        styles = self._check_styles()
        try:
            mix = float(value)
        except (TypeError, ValueError):
            mix = -1.0
        if not 0.0 <= mix <= 1.0:
            raise InputError(f"the mix is a number from 0 to 1, got {value!r}")
        styles.show(styles.looks, styles.other or styles.following(), mix)

    def _blend(self, value: Any = None) -> str:
        styles = self._check_styles()
        before, after = styles.blend(None if value is None else styles.parse(value))
        return f"from style {before} to {after}"

    def _save(self) -> str:
        code = self._check_styles().code()
        name = re.sub(r"[^\w.-]+", "_", code.label.removesuffix(SAVED)).strip("_")[:60] or "style"
        path, number = self._folder / f"{name}{SAVED}", 2
        while path.exists():
            path, number = self._folder / f"{name}-{number}{SAVED}", number + 1
        save_style(path, code, self._engine)
        saved = self._saved()
        key = f", key {(saved.index(path) + 1) % 10}" if path in saved else ""
        return f"style {code.label} is saved: --style {path}{key}"

    def _saved(self) -> list[Path]:
        """Those of the number keys 1 to 9 and 0: the styles in the folder, in the order in which they were saved."""
        saved = [(path.stat().st_mtime_ns, path) for path in self._folder.glob(f"*{SAVED}")]
        return [path for _, path in sorted(saved)[:10]]

    def _recall(self, value: Any) -> str:
        styles, saved, key = self._check_styles(), self._saved(), str(value)
        if not (key.isascii() and key.isdigit() and len(key) == 1):
            raise InputError(f"a saved style has a key from 0 to 9, not {key!r}")
        number = (int(key) - 1) % 10
        if number >= len(saved):
            raise InputError(f"no style is saved for key {key}", "s saves the one on show")
        return self._show(styles.saved(saved[number]))

    def _set_paste(self, value: Any) -> str:
        if value not in MODES:
            raise InputError(f"there is no paste mode {value!r}", f"one of {', '.join(MODES)}")
        self.paste = value
        return f"paste: {value}"

    def _set_view(self, value: Any) -> str:
        if value not in VIEWS:
            raise InputError(f"there is no view {value!r}", f"one of {', '.join(VIEWS)}")
        if value == "grid":
            self._check_styles()
        self.view = value
        return {"after": "translated", "both": "before and after", "before": "the camera's picture"}.get(
            value, "grid of styles"
        )

    def _set_mirror(self, value: Any = None) -> str:
        self.mirror = not self.mirror if value is None else bool(value)
        return "mirrored" if self.mirror else "not mirrored"

    def _set_frozen(self, value: Any = None) -> str:
        self.frozen = not self.frozen if value is None else bool(value)
        return "still" if self.frozen else "moving"

    def _set_covered(self, value: Any = None) -> str:
        self.covered = not self.covered if value is None else bool(value)
        return "covered" if self.covered else "shown"

    def _set_effect(self, name: str, value: Any = None) -> str:
        if not self._effects.possible(name):
            raise InputError(f"{name} is for GNR's drawings; these weights are another network's")
        self.effects[name] = not self.effects[name] if value is None else bool(value)
        return f"{name} is {'on' if self.effects[name] else 'off'}"

    def _record(self) -> str:
        if self.on_record is None:
            raise OutputError("this session cannot record")
        return self.on_record()

    def _toggle_help(self) -> None:
        self.help = not self.help
