"""Looks: style texts become codes, with an engine whose weights give them their meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engines.errors import StyleError, WeightsError
from gnr_video.styles.code import Atom, Reference, Seed, StyleCode, style_from_seed
from gnr_video.styles.color_names import rgb_of
from gnr_video.styles.grammar import COLORED, StyleExpression, parse_expression, parse_expressions
from gnr_video.styles.reference import encode_reference
from gnr_video.styles.saved import load_style

if TYPE_CHECKING:
    from engines.base import Engine

ROLES = 64
"""Draws of a seed set aside for the people in one picture; later looks of a walk come after them."""


class Look:
    """A style whose codes can be computed, again and again, with nothing read twice.

    Args:
        style: a style text or its expression, or a code of one's own.
        engine: whose weights give the codes their meaning.
        face_model: MediaPipe's model, to find the face in a reference picture.

    Raises:
        StyleError: it does not parse, a picture or file cannot be read, the weights cannot encode a style.
    """

    def __init__(
        self,
        style: str | int | StyleExpression | StyleCode,
        engine: Engine,
        *,
        face_model: Path | None = None,
    ) -> None:
        self._engine = engine
        self._face_model = face_model
        self._own = style if isinstance(style, StyleCode) else None
        self._read: dict[Atom, StyleCode] = {}
        self._recolored: dict[Atom, StyleCode] = {}
        if isinstance(style, StyleExpression):
            self.expression = style
        else:
            self.expression = StyleExpression(()) if self._own else parse_expression(str(style))
        self.code()  # what cannot be had is said now

    def code(self, draw: int = 0) -> StyleCode:
        """The style code; with `draw`, that of the same expression with its seeds so many draws on."""
        if self._own is not None:
            return self._own
        expression = self.expression.drawn(draw)
        codes = [self._colored(atom) for atom, _ in expression.terms]
        warnings = tuple(text for code in codes for text in code.warnings)
        if expression.has_z:
            return replace(codes[0], label=str(expression))
        a = self._engine.architecture
        if a.latent_dim == a.style_dim:
            raise StyleError(
                f"{expression}: these weights' z and w codes cannot be told apart, so none are mixed"
            )
        shares = np.array([share for _, share in expression.terms], np.float32)
        rows = np.concatenate([self._engine.to_w(code.array()) for code in codes])
        w = shares @ rows
        if expression.truncation != 1.0:
            mean = self._engine.style_space().mean
            w = mean + np.float32(expression.truncation) * (w - mean)
        for index, amount in expression.edits:
            directions = self._engine.style_space().directions
            if index >= len(directions):
                raise StyleError(
                    f"these weights have no direction sefa{index}",
                    f"they have sefa0 to sefa{len(directions) - 1}",
                )
            w = w + np.float32(amount) * directions[index]
        return StyleCode(tuple(w.tolist()), str(expression), warnings)

    def walk(self, draw: int) -> StyleCode:
        """The same for the further looks of a walk that begins here: without seeds, those of seed 0."""
        if self.expression.seed is not None:
            return self.code(draw)
        template = replace(self.expression, terms=((Seed(0), 1.0),))
        return Look(template, self._engine).code(draw)

    def _colored(self, atom: Atom) -> StyleCode:
        """The look with the colours that are asked for."""
        code = self._atom(atom)
        if not self.expression.colors:
            return code
        if atom not in self._recolored:
            if len(code.z) != self._engine.architecture.latent_dim:
                raise StyleError(f"{atom} is a mix or edited, so no colours can be asked of it")
            try:
                known = self._engine.style_colors()
            except WeightsError as error:
                raise StyleError(f"{self.expression}: {error.message}", error.hint) from error
            wanted = {
                place: [value / 127.5 - 1 for value in rgb_of(name)] for place, name in self.expression.colors
            }
            if len(self._recolored) >= ROLES:
                self._recolored.clear()
            self._recolored[atom] = replace(code, z=tuple(known.find(code.array(), wanted).tolist()))
        return self._recolored[atom]

    def _atom(self, atom: Atom) -> StyleCode:
        if isinstance(atom, Seed):
            return style_from_seed(atom.number, self._engine.architecture.latent_dim, atom.draw)
        if atom not in self._read:
            if isinstance(atom, Reference):
                self._read[atom] = encode_reference(atom.path, self._engine, self._face_model)
            else:
                self._read[atom] = load_style(atom.path, self._engine)
        return self._read[atom]


class Looks:
    """The styles of several people, by order of appearance.

    With fewer styles than people they are dealt again, every round with the next draw of their seeds: one
    seed gives everybody a character of their own, and the same list gives the same cast every time.

    Args:
        styles: a text with commas ("42,7"), a seed, a code, or several of these.
    """

    def __init__(
        self,
        styles: str | int | StyleCode | StyleExpression | Sequence[str | int | StyleCode | StyleExpression],
        engine: Engine,
        *,
        face_model: Path | None = None,
    ) -> None:
        each: Sequence[str | int | StyleCode | StyleExpression]
        each = styles if isinstance(styles, Sequence) and not isinstance(styles, str) else [styles]
        parsed: list[StyleExpression | StyleCode] = []
        for style in each:
            parsed += parse_expressions(style) if isinstance(style, str | int) else [style]
        if not parsed:
            raise StyleError("an empty list of styles", "give at least one, such as 42")
        self._engine = engine
        self.looks = [Look(style, engine, face_model=face_model) for style in parsed]
        self.codes = [look.code() for look in self.looks]
        self._rows: dict[tuple[int, int], NDArray[np.float32]] = {}

    @property
    def label(self) -> str:
        return ",".join(code.label for code in self.codes)

    def name(self, track_id: int) -> str:
        """The style text of a person's look."""
        turn, index = divmod(track_id, len(self.looks))
        return self.looks[index].code(turn).label

    @property
    def warnings(self) -> list[str]:
        return [text for code in self.codes for text in code.warnings]

    @property
    def seed(self) -> int:
        """What else is random follows this number: the first seed of the first style, 0 without one."""
        return self.looks[0].expression.seed or 0

    def w(self, track_id: int = 0, step: int = 0) -> NDArray[np.float32]:
        """float32 (style_dim,), read-only: the code of a person, `step` looks into a walk."""
        key = (track_id, step)
        row = self._rows.get(key)
        if row is None:
            row = self._row(*key)
            if len(self._rows) >= 4 * ROLES:
                self._rows.clear()
            self._rows[key] = row
        return row

    def _row(self, track_id: int, step: int) -> NDArray[np.float32]:
        turn, index = divmod(track_id, len(self.looks))
        look = self.looks[index]
        code = look.walk(turn + ROLES * step) if step else look.code(turn)
        row = self._engine.to_w(code.array())[0]
        row.setflags(write=False)
        return row


def parse_style(
    text: str | int, engine: Engine | None = None, latent_dim: int = 8, *, face_model: Path | None = None
) -> StyleCode:
    """The style that a `--style` value means.

    Args:
        text: see the language above.
        engine: its weights turn the text into a code; plain seeds need none.
        latent_dim: length of the code where there is no engine.
        face_model: MediaPipe's model, to find the face in a reference picture.

    Raises:
        StyleError: it does not parse, a file cannot be read, or the weights cannot encode a style.
    """
    expression = parse_expression(text)
    if engine is not None:
        return Look(expression, engine, face_model=face_model).code()
    atom = expression.terms[0][0]
    if not (expression.is_plain and isinstance(atom, Seed)):
        raise StyleError(f"the style {str(text)!r} needs an engine: its weights give it a meaning")
    return style_from_seed(atom.number, latent_dim, atom.draw)


def style_colors(code: StyleCode, engine: Engine) -> dict[str, str]:
    """Colours that a look gives, "#c0ffee" by place; none of a mix, nor where the weights do not say."""
    import torch

    if len(code.z) != engine.architecture.latent_dim or not engine.has_style_colors:
        return {}
    row = engine.style_colors()(torch.from_numpy(code.array()[None]))[0].numpy()
    levels = np.clip(np.rint((row + 1) * 127.5), 0, 255).astype(np.uint8).reshape(-1, 3)
    return {place: f"#{rgb.tobytes().hex()}" for place, rgb in zip(COLORED, levels)}


def describe_style(code: StyleCode, engine: Engine) -> str:
    """A few lines on a look: its numbers, its colours, its place among the looks of these weights."""
    space = engine.style_space()
    z_dim = engine.architecture.latent_dim
    offset = engine.to_w(code.array())[0] - space.mean
    along = space.directions @ offset
    strongest = np.argsort(-np.abs(along))[:5]
    head = " ".join(f"{value:.3f}" for value in code.z[:8])
    colors = style_colors(code, engine)
    return "\n".join(
        (
            f"style      {code.label}",
            f"code       {len(code.z)} numbers in {'z' if len(code.z) == z_dim else 'w'} space: {head}"
            + (" ..." if len(code.z) > 8 else ""),
            f"distance   {float(np.linalg.norm(offset)) / space.spread:.2f} from the mean look, "
            f"in spreads of {space.spread:.2f}",
            *(
                [f"colours    {', '.join(f'{place} {rgb}' for place, rgb in colors.items())}"]
                if colors
                else []
            ),
            "directions " + " ".join(f"sefa{i}:{along[i]:.2f}" for i in strongest),
            f"weights    {engine.weights_hash[:12] or 'not from a file'}",
        )
    )
