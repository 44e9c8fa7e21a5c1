"""Picture effects: what is done to a face between the camera and the picture that is shown, one effect a file.

`EFFECTS` declares each once. The command line's options, live keys, the page's buttons, the report's rows and the table
of docs/effects.md are made from it. Only what is used is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gnr_video.effects.base import Effect


@dataclass(frozen=True)
class Entry:
    """How an effect is offered to people.

    Attributes:
        name: its option is ``--name`` and ``--no-name``, its live command the name.
        key: pressed in live sessions.
        help: one sentence.
        made_by: "module:Class", a subclass of `gnr_video.effects.base.Effect`.
        default: whether it is on by itself; None: with weights that `gnr-video train` made.
        draws: whether it needs drawings of a GNR generator, and does nothing to other networks' pictures.
    """

    name: str
    key: str
    help: str
    made_by: str
    default: bool | None = True
    draws: bool = True

    def make(self) -> Effect:
        """The effect, for one video."""
        module, _, name = self.made_by.partition(":")
        effect: Effect = getattr(import_module(module), name)()
        return effect

    @property
    def by_itself(self) -> str:
        """When it is on, for people."""
        return {True: "on", False: "off", None: "on with weights that gnr-video trained"}[self.default]


EFFECTS: tuple[Entry, ...] = (
    Entry(
        "dark-hair",
        "d",
        "Light hair is darkened in what the network sees, so that it is drawn in one piece.",
        "gnr_video.effects.dark_hair:DarkHair",
    ),
    Entry(
        "ink",
        "i",
        "The drawing's lines are made even and crisp.",
        "gnr_video.effects.ink:Ink",
        default=None,
    ),
    Entry(
        "steady",
        "y",
        "A drawing follows the one before it slowly where little changes, so that it does not flicker.",
        "gnr_video.effects.steady:Steady",
    ),
    Entry(
        "expression",
        "e",
        "Mouths and eyelids are drawn from the face's landmarks: speech, smiles, blinks.",
        "gnr_video.effects.expression:Expression",
        default=None,
    ),
    Entry(
        "light",
        "l",
        "Drawings take on the scene's light: its brightness and colour, and shade in soft steps.",
        "gnr_video.effects.light:LightEffect",
        default=None,
    ),
    Entry(
        "tint",
        "t",
        "Around whole heads, neck and long hair take on the drawing's colours.",
        "gnr_video.effects.tint:Tint",
        draws=False,
    ),
)
"""In the order in which they work."""


def table() -> str:
    """`EFFECTS` as a table in Markdown."""
    rows = ["| option | live key | by itself | what it does |", "|---|---|---|---|"]
    rows += [f"| `--{e.name}`, `--no-{e.name}` | {e.key} | {e.by_itself} | {e.help} |" for e in EFFECTS]
    return "\n".join(rows) + "\n"
