"""Saved looks: `.style.json` files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engines.errors import OutputError, StyleError
from gnr_video.styles.code import SAVED, StyleCode

if TYPE_CHECKING:
    from engines.base import Engine

FORMAT = "gnr-video-style-1"


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
