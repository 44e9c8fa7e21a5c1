"""The small language that names styles, taken apart: the look that the content of every frame is given.

    42                   a seed                       42#3              the seed's third further draw
    ref:anime.png        the look of a picture        my.style.json     a saved look
    42*0.7+7*0.3         a mix, in w space            42~0.7            truncation towards the mean look
    42+sefa3:2.5         an edit along a factorised direction of the weights
    42+hair:pink         the nearest look with hair of that colour; so do eyes and skin, and #c0ffee

Shares of a mix are scaled to sum to 1. Colours are given to each look before the mix, truncation comes after it, sefa
edits after both. Names with `+`, `~`, `*` or `,` in odd places can be quoted: ref:"a+b".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from engines.errors import StyleError
from engines.weights import PLACES
from gnr_video.media.formats import IMAGE_SUFFIXES
from gnr_video.styles.code import DEFAULT_SEED, REFERENCE, SAVED, Atom, Reference, Saved, Seed
from gnr_video.styles.color_names import NAMES, rgb_of


@dataclass(frozen=True)
class StyleExpression:
    """A style text, taken apart.

    Attributes:
        terms: looks and their shares, which sum to 1.
        truncation: 1 leaves the mix, 0 is the mean look.
        edits: (direction, amount) pairs.
        colors: (place, what was written) pairs.
    """

    terms: tuple[tuple[Atom, float], ...]
    truncation: float = 1.0
    edits: tuple[tuple[int, float], ...] = ()
    colors: tuple[tuple[str, str], ...] = ()

    @property
    def has_z(self) -> bool:
        """Whether its code is one of z space: it is neither mixed nor changed in w space."""
        return len(self.terms) == 1 and self.truncation == 1.0 and not self.edits

    @property
    def is_plain(self) -> bool:
        """Whether it is a look by itself, neither mixed nor changed."""
        return self.has_z and not self.colors

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

    def colored(self, place: str, name: str) -> StyleExpression:
        """The same with another colour of a place."""
        return replace(self, colors=tuple({**dict(self.colors), place: name}.items()))

    def __str__(self) -> str:
        if len(self.terms) == 1:
            text = str(self.terms[0][0])
        else:
            text = "+".join(f"{atom}*{share:.4g}" for atom, share in self.terms)
        if self.truncation != 1.0:
            text += f"~{self.truncation:g}"
        text += "".join(f"+{place}:{name}" for place, name in self.colors)
        return text + "".join(f"+sefa{index}:{amount:g}" for index, amount in self.edits)


_END = r"(?=\s*(?:[*~+,]|$))"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_EXTENSIONS = "|".join(re.escape(s) for s in (*sorted(IMAGE_SUFFIXES, key=len, reverse=True), SAVED, ".json"))
_SEED = re.compile(rf"([+-]?\d+)(?:#(\d+))?{_END}")
_QUOTED = re.compile(r"\"([^\"]+)\"|'([^']+)'")
_PATH = re.compile(rf"[^,].*?(?:{_EXTENSIONS}){_END}", re.IGNORECASE)
_WORD = re.compile(r"[^*~+,\s][^*~+,]*")
COLORED = PLACES[:3]
"""Places whose colours can be asked for."""
_PLACE = rf"({'|'.join(COLORED)})\s*:\s*"
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
        if not prefixed and path.suffix.lower() not in IMAGE_SUFFIXES:
            self.at = start
            raise self.fail(_ATOM)
        return Reference(path)

    def color(self) -> str:
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
        colors: dict[str, str] = {}
        terms: list[tuple[Atom, float]] = []
        edits: list[tuple[int, float]] = []
        truncation: float | None = None
        while True:
            if place := self.take(rf"\+\s*{_PLACE}" if terms else _PLACE):
                if place[1] in colors:
                    raise self.fail(f"one colour only for the {place[1]}")
                colors[place[1]] = self.color()
                terms = terms or [(Seed(DEFAULT_SEED), 1.0)]
            elif terms and (edit := self.take(r"\+\s*sefa(\d*)")):
                if not edit[1]:
                    raise self.fail("the number of a direction (sefa0 is the strongest)")
                if not self.take(":"):
                    raise self.fail("':' and an amount")
                edits.append((int(edit[1]), self.number("':'")))
            elif terms and truncation is None and self.take("~"):
                truncation = self.number("'~'")
            elif not terms or (truncation is None and not edits and not colors and self.take(r"\+")):
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
        return StyleExpression(tuple(terms), truncation, tuple(edits), tuple(colors.items()))

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


def parse_color(text: str) -> tuple[str, str]:
    """Place and colour of "hair:pink".

    Raises:
        StyleError: it does not parse.
    """
    scanner = _Scanner(text)
    place = scanner.take(_PLACE)
    if place is None:
        raise scanner.fail(f"a place and its colour ({', '.join(f'{place}:' for place in COLORED)})")
    found = place[1], scanner.color()
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
