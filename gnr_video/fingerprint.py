"""Fingerprint: what decides what a translation looks like, as one number."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

from gnr_video._version import __version__
from gnr_video.options import OutputOptions
from gnr_video.translator import Translator


def fingerprint(translator: Translator, output: OutputOptions) -> str:
    """Hash of all that decides what a translation looks like, but for its input; where it is made does not count."""
    looks = translator.looks
    deciding = {
        "version": __version__,
        "weights": translator.engine.weights_hash or translator.weights_name,
        "precision": translator.engine.precision,
        "styles": [] if looks is None else [code.array().tolist() for code in looks.codes],
        "plan": asdict(translator.plan),
        "paste": translator.compositor.mode,
        "background": translator.backdrop and translator.backdrop.describe(),
        "effects": translator.effects.state,
        "faces": str(translator.faces),
        "private": translator.private,
        "hold": translator.hold,
        "lookahead": translator.lookahead,
        "output": {
            name: value
            for name, value in asdict(replace(output, overwrite=False)).items()
            if name != "resume"
        },
    }
    return hashlib.sha256(json.dumps(deciding, sort_keys=True, default=str).encode()).hexdigest()
