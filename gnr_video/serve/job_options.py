"""What can be chosen for a job: one declaration of each choice, and the option objects that are made of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import GnrVideoError, InputError, OutputError, StyleError
from gnr_video.compositing.compositor import MODES as PASTE_MODES
from gnr_video.effects import EFFECTS
from gnr_video.media.encoders import ALIASES, CONTAINERS
from gnr_video.media.formats import IMAGE_OUTPUTS
from gnr_video.media.open import anime_name, check_alpha, picture_format
from gnr_video.options import LookOptions, OutputOptions
from gnr_video.serve.schema import Schema
from gnr_video.styles.code import Reference, Saved, StyleCode
from gnr_video.styles.color_names import rgb_of
from gnr_video.styles.grammar import StyleExpression, parse_expressions, parse_keys
from gnr_video.styles.schedule import MODES as STYLE_MODES
from gnr_video.styles.schedule import StylePlan
from gnr_video.tracking.selection import FaceChoice
from gnr_video.web.handed import check_picture

KINDS = tuple(dict.fromkeys(suffix.lstrip(".") for suffix in (*CONTAINERS, *IMAGE_OUTPUTS)))
"""What a result may be."""
_LONGEST = 100_000.0
_BACKDROPS = ("keep", "blur", "key", "transparent")
_STYLE = {"type": "string", "minLength": 1, "maxLength": 1000}
_SECONDS = {"type": "number", "minimum": 0, "maximum": _LONGEST}

DECLARED: Mapping[str, Schema] = {
    "style": {
        **_STYLE,
        "type": ["string", "integer"],
        "minimum": -(1 << 63),
        "maximum": (1 << 63) - 1,
        "description": "As of the command's --style; with commas, one for each person.",
    },
    "faces": {
        "type": "string",
        "maxLength": 10,
        "description": "all, largest, left, right, a number, or id:K.",
    },
    "paste": {"type": "string", "enum": list(PASTE_MODES), "description": "How drawings are put back."},
    "effects": {
        "type": "object",
        "properties": {one.name: {"type": "boolean", "description": one.help} for one in EFFECTS},
        "additionalProperties": False,
        "description": "Effects that are to be on or off; the others are as by themselves.",
    },
    "private": {"type": "boolean", "description": "Never show a bare face: what is not drawn is covered."},
    "background": {
        "type": "string",
        "minLength": 1,
        "maxLength": 1000,
        "description": "keep, blur, key, transparent, a colour, or the path of a picture in an allowed folder.",
    },
    "grid": {
        "type": "string",
        "pattern": "^([1-9]|1[0-6])x([1-9]|1[0-6])$",
        "description": "Rows and columns: many styles of one face at once.",
    },
    "hold": {"type": "integer", "minimum": 1, "maximum": 12, "description": "Draw for every N-th frame."},
    "lookahead": {
        "type": "integer",
        "minimum": 0,
        "maximum": 120,
        "description": "Frames that smoothing sees ahead.",
    },
    "styles": {**_STYLE, "description": "Styles and when they begin: 0=42,5s=7."},
    "mode": {"type": "string", "enum": list(STYLE_MODES), "description": "How the style changes with time."},
    "transition": {**_SECONDS, "description": "From style to style, seconds."},
    "every": {
        "type": "number",
        "minimum": 0.01,
        "maximum": _LONGEST,
        "description": "From look to look of a blend, seconds.",
    },
    "bpm": {"type": "number", "minimum": 1, "maximum": 1000, "description": "A tempo instead of the beats."},
    "amount": {
        "type": "number",
        "minimum": -100,
        "maximum": 100,
        "description": "Greatest edit of mode sefa.",
    },
    "start": {**_SECONDS, "description": "Leave out what is before, seconds."},
    "end": {**_SECONDS, "description": "Leave out what is after, seconds."},
    "stream": {
        "type": "integer",
        "minimum": 0,
        "maximum": 1000,
        "description": "Which of several video streams, from 0.",
    },
    "interlaced": {"type": "string", "enum": ["deinterlace", "keep"]},
    "codec": {"type": "string", "enum": sorted(ALIASES), "description": "The encoder."},
    "crf": {"type": "integer", "minimum": 0, "maximum": 63, "description": "Its quality, lower is better."},
    "output": {
        "type": "string",
        "enum": list(KINDS),
        "description": "Kind of the result; mp4 for videos, pictures stay pictures.",
    },
}
OPTIONS: Schema = {
    "type": "object",
    "properties": DECLARED,
    "additionalProperties": False,
    "description": "The options of `gnr-video translate`. What is left out is as there.",
}
_OF_LOOK = ("faces", "paste", "effects", "private", "background", "hold", "lookahead")
_OF_PLAN = {
    "styles": "keys",
    "mode": "mode",
    "transition": "transition",
    "every": "every",
    "bpm": "bpm",
    "amount": "amount",
}
_OF_OUTPUT = ("start", "end", "stream", "interlaced", "codec", "crf")
_WHOLE = ("hold", "lookahead", "stream", "crf")
"""JSON has no whole numbers: 2.0 is one, too."""


@dataclass(frozen=True)
class JobOptions:
    """Of one job, as the translator takes them.

    Attributes:
        style: None: the translator's own.
        kind: of the result; None: of its own.
    """

    style: str | StyleCode | None
    look: LookOptions
    output: OutputOptions
    kind: str | None

    def target(self, source: Path, folder: Path) -> Path:
        """Where the result goes: `folder`, under the name that the command would give it."""
        name = anime_name(source, picture_format(str(source)))
        return folder / (name.name if self.kind is None else name.with_suffix(f".{self.kind}").name)


def job_options(values: Mapping[str, Any], allowed: Sequence[Path]) -> JobOptions:
    """The options that `values` mean.

    Args:
        values: of the form of `OPTIONS`.
        allowed: folders whose files styles and backgrounds may name.

    Raises:
        GnrVideoError: one does not parse, they exclude each other, or a file is outside of the folders.
    """
    values = {
        name: int(value) if name in _WHOLE or (isinstance(value, float) and name == "style") else value
        for name, value in values.items()
    }
    style = None if "style" not in values else str(values["style"])
    _check_files([parse_expressions(style)] if style else [], allowed)
    if keys := values.get("styles"):
        _check_files([[expression for _, expression in parse_keys(keys)]], allowed)
    if "faces" in values:
        FaceChoice.parse(values["faces"])
    if "background" in values:
        values["background"] = _background(values["background"], allowed)
    plan = StylePlan(**{field: values[name] for name, field in _OF_PLAN.items() if name in values})
    look = LookOptions(
        **{name: values[name] for name in _OF_LOOK if name in values},
        plan=plan,
        grid=_grid(values.get("grid")),
    )
    if look.grid and (look.hold or 1) > 1:
        raise InputError("a grid is drawn for every frame", "leave hold out, or the grid")
    # Where a program ended between a result and its note, the result is there already.
    output = OutputOptions(**{name: values[name] for name in _OF_OUTPUT if name in values}, overwrite=True)
    if output.end is not None and output.end <= (output.start or 0.0):
        raise InputError("the part from start to end is empty", "0 <= start < end, in seconds")
    kind = values.get("output")
    if look.background == "transparent" and kind is not None:
        try:
            check_alpha(f"result.{kind}", output.codec)
        except OutputError as error:  # of what was asked for, not of the disk
            raise InputError(error.message, error.hint) from None
    return JobOptions(style, look, output, kind)


def allowed_file(text: str, allowed: Sequence[Path]) -> Path:
    """The file that a path means, all links followed, if it lies in one of the folders.

    Raises:
        NotAllowed: it does not, or there is none; which of both is not said.
    """
    refusal = NotAllowed(
        f"{text!r} is no file in a folder that this service may read",
        "give the full path of one below a folder of --allow",
    )
    if not os.path.isabs(text):
        raise refusal
    try:
        path = Path(os.path.realpath(text, strict=True))
        if (
            path.is_file()
            and os.access(path, os.R_OK)
            and any(path.is_relative_to(folder) for folder in allowed)
        ):
            return path
    except (OSError, ValueError):  # none, a circle of links, or a name that no file can have
        pass
    raise refusal


class NotAllowed(GnrVideoError):
    """A file of this machine that is none of the asking program's business."""


def _check_files(looks: Iterable[Iterable[StyleExpression]], allowed: Sequence[Path]) -> None:
    """Raise for styles that read a file which they may not read."""
    for expressions in looks:
        for expression in expressions:
            for atom, _ in expression.terms:
                if isinstance(atom, Reference | Saved):
                    file = allowed_file(str(atom.path), allowed)
                    if isinstance(atom, Reference):
                        check_picture(file)


def _background(text: str, allowed: Sequence[Path]) -> str:
    """The same, so that no file is meant which is not allowed: a colour by its numbers."""
    word = text.strip().lower()
    if word in _BACKDROPS:
        return word
    if os.path.isabs(text):
        file = allowed_file(text, allowed)
        check_picture(file)
        return str(file)
    try:
        return f"#{bytes(rgb_of(word)).hex()}"
    except StyleError as error:
        raise InputError(
            f"{text!r} is no background",
            "keep, blur, key (green), transparent, a colour (white, #00ff00), or the full path of a picture",
        ) from error


def _grid(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    rows, _, columns = text.partition("x")
    return int(rows), int(columns)
