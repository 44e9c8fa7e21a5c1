"""Style codes, and the small language that names them: the look that the content of every frame is given.

    42                   a seed                       42#3              the seed's third further draw
    ref:anime.png        the look of a picture        my.style.json     a saved look
    42*0.7+7*0.3         a mix, in w space            42~0.7            truncation towards the mean look
    42+sefa3:2.5         an edit along a factorised direction of the weights
    42+hair:pink         the nearest look with hair of that colour; so do eyes and skin, and #c0ffee

Shares of a mix are scaled to sum to 1. Colours are given to each look before the mix, truncation comes after it, sefa
edits after both. Names with `+`, `~`, `*` or `,` in odd places can be quoted: ref:"a+b".
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engines.errors import FaceModelError, OutputError, StyleError, WeightsError
from engines.weights import PLACES
from gnr_video.frame import Image
from gnr_video.styles.color_names import NAMES, rgb_of

if TYPE_CHECKING:
    from engines.base import Engine

REFERENCE = "ref:"
SAVED = ".style.json"
FORMAT = "gnr-video-style-1"
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}

DEFAULT_SEED = 42
ROLES = 64
"""Draws of a seed set aside for the people in one picture; later looks of a walk come after them."""

REFERENCE_SHARE = 0.75
"""Side of the run-time's crop in sides of a training picture (median of selfie2anime's anime faces)."""


# Codes


@dataclass(frozen=True)
class StyleCode:
    """One look.

    Attributes:
        z: the style code, float32 values: `latent_dim` of them (or `style_dim`, for a code in w space).
        label: the style text that gives it ("42", "ref:girl.png", "42*0.7+7*0.3").
        warnings: what its owner should know of it, one line each.
    """

    z: tuple[float, ...]
    label: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        values = np.asarray(self.z, dtype=np.float32)
        if values.ndim != 1 or not values.size or not np.isfinite(values).all():
            raise StyleError(f"a style code is a row of finite numbers, got {self.z!r}"[:200])
        object.__setattr__(self, "z", tuple(values.tolist()))

    def array(self) -> NDArray[np.float32]:
        """float32 (len(z),), what an engine's `set_style` takes."""
        return np.array(self.z, dtype=np.float32)

    def __repr__(self) -> str:
        head = ", ".join(f"{value:.3f}" for value in self.z[:8])
        return f"StyleCode({self.label!r}, z=({head}{', ...' if len(self.z) > 8 else ''}))"


def style_from_seed(seed: int, latent_dim: int = 8, draw: int = 0) -> StyleCode:
    """The style code a seed stands for: z ~ N(0, 1), as the official notebook draws it.

    `torch.manual_seed(seed); torch.randn(1, latent_dim)`, with a CPU generator of its own: the same code on
    every machine and engine. Further draws have generators of their own, seeded by both numbers.

    Raises:
        StyleError: the seed does not fit in 64 bits.
    """
    import torch

    generator = torch.Generator("cpu")
    try:
        generator.manual_seed(seed)
    except (RuntimeError, OverflowError, ValueError) as error:
        raise StyleError(f"seed {seed} does not fit in 64 bits") from error
    if draw:
        mixed = np.random.SeedSequence((seed % 2**64, draw)).generate_state(1, np.uint64)
        generator.manual_seed(int(mixed[0] >> np.uint64(1)))
    z = torch.randn(1, latent_dim, generator=generator)
    return StyleCode(tuple(z[0].tolist()), str(Seed(seed, draw)))


# The language


@dataclass(frozen=True)
class Seed:
    """A look by number, and which draw of that number."""

    number: int
    draw: int = 0

    def __str__(self) -> str:
        return f"{self.number}#{self.draw}" if self.draw else str(self.number)


@dataclass(frozen=True)
class Reference:
    """A look read off an anime picture."""

    path: Path

    def __str__(self) -> str:
        return f"{REFERENCE}{self.path.name}"


@dataclass(frozen=True)
class Saved:
    """A look from a file."""

    path: Path

    def __str__(self) -> str:
        return self.path.name


Atom = Seed | Reference | Saved


@dataclass(frozen=True)
class StyleExpression:
    """A style text, taken apart.

    Attributes:
        terms: looks and their shares, which sum to 1.
        truncation: 1 leaves the mix, 0 is the mean look.
        edits: (direction, amount) pairs.
        colours: (place, what was written) pairs.
    """

    terms: tuple[tuple[Atom, float], ...]
    truncation: float = 1.0
    edits: tuple[tuple[int, float], ...] = ()
    colours: tuple[tuple[str, str], ...] = ()

    @property
    def has_z(self) -> bool:
        """Whether its code is one of z space: it is neither mixed nor changed in w space."""
        return len(self.terms) == 1 and self.truncation == 1.0 and not self.edits

    @property
    def is_plain(self) -> bool:
        """Whether it is a look by itself, neither mixed nor changed."""
        return self.has_z and not self.colours

    @property
    def seed(self) -> int | None:
        """The first seed in it."""
        return next((atom.number for atom, _ in self.terms if isinstance(atom, Seed)), None)

    def drawn(self, draw: int) -> StyleExpression:
        """The same with every seed `draw` draws on; pictures and files stay."""
        terms = tuple(
            (replace(atom, draw=atom.draw + draw) if isinstance(atom, Seed) else atom, share)
            for atom, share in self.terms
        )
        return replace(self, terms=terms)

    def coloured(self, place: str, name: str) -> StyleExpression:
        """The same with another colour of a place."""
        return replace(self, colours=tuple({**dict(self.colours), place: name}.items()))

    def __str__(self) -> str:
        if len(self.terms) == 1:
            text = str(self.terms[0][0])
        else:
            text = "+".join(f"{atom}*{share:.4g}" for atom, share in self.terms)
        if self.truncation != 1.0:
            text += f"~{self.truncation:g}"
        text += "".join(f"+{place}:{name}" for place, name in self.colours)
        return text + "".join(f"+sefa{index}:{amount:g}" for index, amount in self.edits)


_END = r"(?=\s*(?:[*~+,]|$))"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_EXTENSIONS = "|".join(re.escape(s) for s in (*sorted(PICTURES), SAVED, ".json"))
_SEED = re.compile(rf"([+-]?\d+)(?:#(\d+))?{_END}")
_QUOTED = re.compile(r"\"([^\"]+)\"|'([^']+)'")
_PATH = re.compile(rf"[^,].*?(?:{_EXTENSIONS}){_END}", re.IGNORECASE)
_WORD = re.compile(r"[^*~+,\s][^*~+,]*")
ASKED = PLACES[:3]
"""Places whose colours can be asked for."""
_PLACE = rf"({'|'.join(ASKED)})\s*:\s*"
_COLOUR = re.compile(r"#?\w+")
_TIME = re.compile(rf"(?:(\d+):)?({_NUMBER})\s*(ms|s|min|m)?\s*")
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0}
_ATOM = "a seed (42), a picture (ref:anime.png), a saved look (my.style.json) or a colour (hair:pink)"


class _Scanner:
    """Reads a style text from left to right; what it cannot read it points at."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def take(self, pattern: str | re.Pattern[str]) -> re.Match[str] | None:
        """Step over blanks and a match of the pattern."""
        start = re.compile(r"\s*").match(self.text, self.at)
        match = re.compile(pattern).match(self.text, start.end() if start else self.at)
        if match:
            self.at = match.end()
        return match

    def fail(self, wanted: str) -> StyleError:
        """An error at the place reached."""
        rest = self.text[self.at :]
        self.at += len(rest) - len(rest.lstrip())
        found = f"{self.text[self.at]!r}" if self.at < len(self.text) else "the end"
        return StyleError(
            f"the style {self.text!r} does not parse at character {self.at + 1}: "
            f"{wanted} is wanted, and {found} found",
            f"{self.text}\n{' ' * self.at}^",
        )

    def number(self, after: str) -> float:
        match = self.take(_NUMBER)
        if match is None:
            raise self.fail(f"a number after {after}")
        return float(match[0])

    def seconds(self) -> float:
        match = self.take(_TIME)
        if match is None or (match[1] and match[3]):
            raise self.fail("a time (5s, 500ms, 1:30)")
        return 60.0 * int(match[1] or 0) + float(match[2]) * _SECONDS[match[3] or "s"]

    def atom(self) -> Atom:
        if match := self.take(_SEED):
            return Seed(int(match[1]), int(match[2] or 0))
        prefixed = self.take(re.escape(REFERENCE)) is not None
        start = self.at
        if match := self.take(_QUOTED):
            name = match[1] or match[2]
        elif match := (self.take(_PATH) or (self.take(_WORD) if prefixed else None)):
            name = match[0].strip()
        else:
            raise self.fail("a picture's name" if prefixed else _ATOM)
        path = Path(name).expanduser()
        if not prefixed and path.suffix.lower() == ".json":
            return Saved(path)
        if not prefixed and path.suffix.lower() not in PICTURES:
            self.at = start
            raise self.fail(_ATOM)
        return Reference(path)

    def colour(self) -> str:
        before = self.at
        match = self.take(_COLOUR)
        try:
            rgb_of(match[0] if match else "")
        except StyleError:
            self.at = before
            raise self.fail(f"a colour ({', '.join(NAMES)}, or such as #c0ffee)") from None
        return match[0].lower() if match else ""

    def expression(self) -> StyleExpression:
        start = self.at
        colours: dict[str, str] = {}
        terms: list[tuple[Atom, float]] = []
        edits: list[tuple[int, float]] = []
        truncation: float | None = None
        while True:
            if place := self.take(rf"\+\s*{_PLACE}" if terms else _PLACE):
                if place[1] in colours:
                    raise self.fail(f"one colour only for the {place[1]}")
                colours[place[1]] = self.colour()
                terms = terms or [(Seed(DEFAULT_SEED), 1.0)]
            elif terms and (edit := self.take(r"\+\s*sefa(\d*)")):
                if not edit[1]:
                    raise self.fail("the number of a direction (sefa0 is the strongest)")
                if not self.take(":"):
                    raise self.fail("':' and an amount")
                edits.append((int(edit[1]), self.number("':'")))
            elif terms and truncation is None and self.take("~"):
                truncation = self.number("'~'")
            elif not terms or (truncation is None and not edits and not colours and self.take(r"\+")):
                atom = self.atom()
                terms.append((atom, self.number("'*'") if self.take(r"\*") else 1.0))
            elif self.take(r"\+"):
                self.at -= 1
                raise self.fail(
                    "a mix before its '~' and its edits; here '+sefaN:AMOUNT', '+hair:COLOUR' or the end"
                )
            else:
                break
        total = sum(share for _, share in terms)
        if abs(total) < 1e-6:
            self.at = start
            raise self.fail("a mix whose shares do not cancel out")
        terms = [(atom, share / total) for atom, share in terms]
        truncation = 1.0 if truncation is None else truncation
        return StyleExpression(tuple(terms), truncation, tuple(edits), tuple(colours.items()))

    def end(self, wanted: str) -> None:
        if not self.take("$"):
            raise self.fail(wanted)


_AFTER_STYLE = (
    "'*' and a share, '+' and a look, sefaN:AMOUNT or hair:COLOUR, '~' and a truncation, or the end"
)


def parse_expression(text: str | int) -> StyleExpression:
    """Take a style text apart; nothing is read or computed.

    Raises:
        StyleError: it does not parse; the hint points at the place.
    """
    scanner = _Scanner(str(text))
    expression = scanner.expression()
    scanner.end(_AFTER_STYLE)
    return expression


def parse_expressions(text: str | int) -> list[StyleExpression]:
    """The same for a list with commas: the looks of several people, in order of appearance."""
    scanner = _Scanner(str(text))
    expressions = [scanner.expression()]
    while scanner.take(","):
        expressions.append(scanner.expression())
    scanner.end(_AFTER_STYLE)
    return expressions


def parse_colour(text: str) -> tuple[str, str]:
    """Place and colour of "hair:pink".

    Raises:
        StyleError: it does not parse.
    """
    scanner = _Scanner(text)
    place = scanner.take(_PLACE)
    if place is None:
        raise scanner.fail(f"a place and its colour ({', '.join(f'{place}:' for place in ASKED)})")
    found = place[1], scanner.colour()
    scanner.end("the end")
    return found


def parse_keys(text: str) -> list[tuple[float, StyleExpression]]:
    """(seconds, style) pairs of a schedule such as "0=42,5s=7,1:30=ref:a.png", by rising time.

    Raises:
        StyleError: it does not parse, or two styles begin at the same time.
    """
    scanner = _Scanner(text)
    keys: list[tuple[float, StyleExpression]] = []
    while True:
        place = scanner.at
        seconds = scanner.seconds()
        if not scanner.take("="):
            raise scanner.fail("'=' and a style")
        if seconds < 0 or any(seconds == other for other, _ in keys):
            scanner.at = place
            raise scanner.fail("another time, not below 0,")
        keys.append((seconds, scanner.expression()))
        if not scanner.take(","):
            break
    scanner.end(_AFTER_STYLE)
    return sorted(keys, key=lambda key: key[0])


def parse_seconds(text: str) -> float:
    """Seconds in "0.5", "0.5s", "500ms", "1:30".

    Raises:
        StyleError: it is no time.
    """
    scanner = _Scanner(text)
    seconds = scanner.seconds()
    scanner.end("the end of a time (5s, 500ms, 1:30)")
    return seconds


# From the language to codes


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
        self._recoloured: dict[Atom, StyleCode] = {}
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
        codes = [self._coloured(atom) for atom, _ in expression.terms]
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

    def _coloured(self, atom: Atom) -> StyleCode:
        """The look with the colours that are asked for."""
        code = self._atom(atom)
        if not self.expression.colours:
            return code
        if atom not in self._recoloured:
            if len(code.z) != self._engine.architecture.latent_dim:
                raise StyleError(f"{atom} is a mix or edited, so no colours can be asked of it")
            try:
                known = self._engine.style_colours()
            except WeightsError as error:
                raise StyleError(f"{self.expression}: {error.message}", error.hint) from error
            wanted = {
                place: [value / 127.5 - 1 for value in rgb_of(name)]
                for place, name in self.expression.colours
            }
            if len(self._recoloured) >= ROLES:
                self._recoloured.clear()
            self._recoloured[atom] = replace(code, z=tuple(known.find(code.array(), wanted).tolist()))
        return self._recoloured[atom]

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


# Pictures and files


def encode_reference(path: Path, engine: Engine, face_model: Path | None = None) -> StyleCode:
    """The style of an anime picture: its face is found and cut out as the style encoder knows faces.

    Where no face is found (MediaPipe knows about six in ten anime faces), the middle square is used.

    Raises:
        StyleError: missing, not a picture, or these weights have no style encoder.
    """
    crop, warning = read_reference(path, engine.size, face_model)
    try:
        z = engine.encode_style(crop)
    except WeightsError as error:
        raise StyleError(f"no style can be read off {path.name}: {error.message}", error.hint) from error
    warnings = (f"{path.name}: {warning}",) if warning else ()
    return StyleCode(tuple(z.tolist()), str(Reference(path)), warnings)


def read_reference(path: Path, size: int, face_model: Path | None = None) -> tuple[Image, str]:
    """An anime picture's face as the style encoder wants it: uint8 (size, size, 3) RGB, and a warning or "".

    Raises:
        StyleError: missing or not a picture.
    """
    import cv2

    if not path.is_file():
        raise StyleError(f"no style reference at {path}", "--style takes a seed, or ref:PICTURE")
    # Not cv2.imread: it cannot open names outside the code page on Windows, and prints instead of raising.
    read = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) if path.stat().st_size else None
    if read is None:
        raise StyleError(f"{path} is not a picture that OpenCV can read")
    picture = np.ascontiguousarray(read[..., ::-1], dtype=np.uint8)
    (left, top, side), warning = reference_square(picture, face_model)
    square = picture[top : top + side, left : left + side]
    how = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return np.ascontiguousarray(cv2.resize(square, (size, size), interpolation=how), dtype=np.uint8), warning


def reference_square(picture: Image, face_model: Path | None = None) -> tuple[tuple[int, int, int], str]:
    """Where the face of an anime picture is, framed as the style encoder's training pictures are.

    Returns:
        ((left, top, side) in pixels, a warning or ""). A picture that is framed so already is taken whole.
    """
    from gnr_video.tracking.alignment import CROP, fit_alignment
    from gnr_video.tracking.tracker import FaceTracker

    height, width = picture.shape[:2]
    short = min(height, width)
    whole = ((width - short) // 2, (height - short) // 2, short)
    try:
        with FaceTracker(face_model) as tracker:
            faces = tracker.track(picture, 0.0)
        alignment = fit_alignment(faces[0]) if faces else None
    except FaceModelError as error:
        return whole, f"its middle square is used, for no face was looked for: {error.message}"
    except ValueError:  # landmarks in one point
        alignment = None
    if alignment is None:
        # A picture of a face and nothing else needs no finding.
        return whole, "" if short <= 2 * CROP else "no face was found in it; its middle square is used"
    side = round(CROP * alignment.scale / REFERENCE_SHARE)
    if side >= 0.8 * short:
        return whole, ""
    left = min(max(round(alignment.center_x - side / 2), 0), width - side)
    top = min(max(round(alignment.center_y - side / 2), 0), height - side)
    return (left, top, side), ""


def save_style(path: Path, code: StyleCode, engine: Engine) -> None:
    """Write a look to a `.style.json`, with the hash of the weights that it belongs to.

    Raises:
        OutputError: another extension, or it cannot be written.
    """
    from engines.files import write_atomically

    if not path.name.endswith(SAVED):
        raise OutputError(f"{path.name} is no name for a style", f"give it the extension {SAVED}")
    space = "z" if len(code.z) == engine.architecture.latent_dim else "w"
    content = {
        "format": FORMAT,
        "label": code.label,
        "weights": engine.weights_hash,
        "space": space,
        "code": list(code.z),
    }
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def load_style(path: Path, engine: Engine) -> StyleCode:
    """Read what `save_style` wrote. The code warns when it was made with other weights.

    Raises:
        StyleError: missing, not a saved style, or of a length that these weights do not know.
    """
    if not path.is_file():
        raise StyleError(f"no saved style at {path}", "make one: gnr-video styles save 42 -o my.style.json")
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}")
        space, values, weights = content["space"], content["code"], str(content["weights"])
        code = StyleCode(tuple(float(value) for value in values), path.name)
    except (ValueError, TypeError, KeyError, StyleError, RecursionError) as error:
        raise StyleError(f"{path} is not a saved style: {type(error).__name__} {error}"[:300]) from error
    a = engine.architecture
    length = {"z": a.latent_dim, "w": a.style_dim}.get(space)
    if len(code.z) != length:
        raise StyleError(
            f"{path.name} holds {len(code.z)} numbers in {space} space; these weights need {length}",
            "it was made with other weights: give those with --weights",
        )
    if weights and engine.weights_hash and weights != engine.weights_hash:
        warning = f"{path.name} was made with other weights ({weights[:12]}): the look will be another"
        code = replace(code, warnings=(warning,))
    return code


def style_colours(code: StyleCode, engine: Engine) -> dict[str, str]:
    """Colours that a look gives, "#c0ffee" by place; none of a mix, nor where the weights do not say."""
    import torch

    if len(code.z) != engine.architecture.latent_dim or not engine.has_style_colours:
        return {}
    row = engine.style_colours()(torch.from_numpy(code.array()[None]))[0].numpy()
    levels = np.clip(np.rint((row + 1) * 127.5), 0, 255).astype(np.uint8).reshape(-1, 3)
    return {place: f"#{rgb.tobytes().hex()}" for place, rgb in zip(ASKED, levels)}


def describe_style(code: StyleCode, engine: Engine) -> str:
    """A few lines on a look: its numbers, its colours, its place among the looks of these weights."""
    space = engine.style_space()
    z_dim = engine.architecture.latent_dim
    offset = engine.to_w(code.array())[0] - space.mean
    along = space.directions @ offset
    strongest = np.argsort(-np.abs(along))[:5]
    head = " ".join(f"{value:.3f}" for value in code.z[:8])
    colours = style_colours(code, engine)
    return "\n".join(
        (
            f"style      {code.label}",
            f"code       {len(code.z)} numbers in {'z' if len(code.z) == z_dim else 'w'} space: {head}"
            + (" ..." if len(code.z) > 8 else ""),
            f"distance   {float(np.linalg.norm(offset)) / space.spread:.2f} from the mean look, "
            f"in spreads of {space.spread:.2f}",
            *(
                [f"colours    {', '.join(f'{place} {rgb}' for place, rgb in colours.items())}"]
                if colours
                else []
            ),
            "directions " + " ".join(f"sefa{i}:{along[i]:.2f}" for i in strongest),
            f"weights    {engine.weights_hash[:12] or 'not from a file'}",
        )
    )
