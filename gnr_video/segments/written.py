"""States of stages as JSON: numbers, texts, arrays, and the few classes that say where faces are; nothing else."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from gnr_video.effects.dark_hair import HairColors
from gnr_video.effects.light import Light
from gnr_video.effects.tint import TintColors
from gnr_video.frame import Alignment, Bust, Face
from gnr_video.privacy import KnownHead
from gnr_video.tracking.boxes import Track
from gnr_video.tracking.heads import HeadPlace
from gnr_video.tracking.identities import Identities
from gnr_video.tracking.kalman import Step
from gnr_video.tracking.likeness import Likeness
from gnr_video.tracking.search import Rounds, Search
from gnr_video.tracking.unfound import UnfoundHead

CLASSES: dict[str, type] = {
    one.__name__: one
    for one in (
        Alignment,
        Bust,
        Face,
        HairColors,
        HeadPlace,
        Identities,
        KnownHead,
        Light,
        Likeness,
        Rounds,
        Search,
        Step,
        TintColors,
        Track,
        UnfoundHead,
    )
}


def to_json(value: Any) -> Any:
    """What `json.dumps` takes; `from_json` makes an equal value of it.

    Raises:
        TypeError: of another class.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value)
        return {"array": b64encode(array.tobytes()).decode(), "type": array.dtype.str, "shape": array.shape}
    if isinstance(value, list):
        return [to_json(one) for one in value]
    if isinstance(value, tuple):
        return {"tuple": [to_json(one) for one in value]}
    if isinstance(value, dict):
        return {"dict": [[to_json(key), to_json(one)] for key, one in value.items()]}
    if is_dataclass(value) and CLASSES.get(type(value).__name__) is type(value):
        held = {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
        return {"class": type(value).__name__, "fields": held}
    raise TypeError(f"no state has a {type(value).__name__}")


def from_json(value: Any) -> Any:
    """The value that `to_json` was given.

    Raises:
        ValueError, KeyError, TypeError: it was not made by `to_json`.
    """
    if isinstance(value, list):
        return [from_json(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        array = np.frombuffer(b64decode(value["array"]), np.dtype(value["type"]))
        return array.reshape(value["shape"]).copy()
    if "tuple" in value:
        return tuple(from_json(one) for one in value["tuple"])
    if "dict" in value:
        return {from_json(key): from_json(one) for key, one in value["dict"]}
    made = CLASSES[value["class"]]
    return made(**{key: from_json(one) for key, one in value["fields"].items()})
