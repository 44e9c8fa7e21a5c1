"""Colours by name, as drawings have them: for what is asked of a style, such as `hair:pink`."""

from __future__ import annotations

import re

from engines.errors import StyleError

NAMES = {
    "amber": (200, 140, 50),
    "auburn": (140, 60, 42),
    "black": (38, 35, 44),
    "blond": (241, 216, 150),
    "blue": (66, 98, 190),
    "brown": (108, 70, 50),
    "crimson": (165, 25, 55),
    "dark": (132, 88, 64),
    "fair": (253, 229, 214),
    "gold": (226, 182, 82),
    "green": (78, 150, 90),
    "grey": (140, 140, 146),
    "lilac": (200, 176, 226),
    "lime": (180, 216, 110),
    "navy": (42, 46, 92),
    "orange": (235, 140, 70),
    "pale": (252, 242, 238),
    "pink": (242, 160, 186),
    "purple": (130, 80, 170),
    "red": (190, 48, 50),
    "silver": (202, 206, 216),
    "sky": (140, 192, 236),
    "tan": (226, 182, 148),
    "teal": (50, 140, 142),
    "turquoise": (92, 206, 200),
    "white": (242, 242, 247),
    "yellow": (245, 221, 92),
}
"""sRGB, 0..255. The muted middle of what the name covers in drawings, not the pure colour of the web."""

SPELLINGS = {"blonde": "blond", "gray": "grey"}
_HEXADECIMAL = re.compile(r"#?([0-9a-f]{6})")


def rgb_of(text: str) -> tuple[int, int, int]:
    """sRGB, 0..255, of a name or of six hexadecimal digits, in capitals or not.

    Raises:
        StyleError: it is neither.
    """
    text = text.lower()
    if match := _HEXADECIMAL.fullmatch(text):
        red, green, blue = bytes.fromhex(match[1])
        return red, green, blue
    try:
        return NAMES[SPELLINGS.get(text, text)]
    except KeyError as error:
        raise StyleError(f"no colour is called {text!r}", f"one of {', '.join(NAMES)}, or #c0ffee") from error
