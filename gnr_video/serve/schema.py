"""The part of JSON Schema (2020-12) that the service's declarations use, and the check of values against it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from engines.errors import InputError

Schema = Mapping[str, Any]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int, float),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}
_CHECKED = {
    *("type", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern"),
    *("properties", "required", "additionalProperties", "items"),
}
_SAID = {"description", "default", "format"}
"""Of a schema: what is checked, and what is only told."""


class Malformed(InputError):
    """A value that is not of its declared form."""


def check(value: Any, schema: Schema, name: str = "the body") -> None:
    """Find out whether a value is of a form.

    Args:
        value: as `json.loads` gives it.
        name: of the value, for messages.

    Raises:
        Malformed: it is not; the message says where.
        ValueError: the schema uses what is not known here.
    """
    if unknown := schema.keys() - _CHECKED - _SAID:
        raise ValueError(f"not a part of JSON Schema that is checked here: {', '.join(sorted(unknown))}")
    types = schema.get("type", ())
    types = (types,) if isinstance(types, str) else types
    if types and not any(_is(value, kind) for kind in types):
        raise Malformed(f"{name} must be {' or '.join(types)}, not {_shown(value)}")
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        known = ", ".join(json.dumps(one) for one in schema["enum"])
        raise Malformed(f"{name} must be one of {known}, not {_shown(value)}")
    if isinstance(value, str):
        _check_text(value, schema, name)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_number(value, schema, name)
    elif isinstance(value, dict):
        _check_object(value, schema, name)
    elif isinstance(value, list):
        for index, one in enumerate(value):
            check(one, schema.get("items", {}), f"{name}[{index}]")


def parse(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        Malformed: it is none, or nested without measure.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"that is no JSON: {error}") from None


def read_text(text: str, schema: Schema, name: str) -> Any:
    """The value that a text in an address means: a number where one is declared, else itself.

    Raises:
        Malformed: it is not of its declared form.
    """
    value: Any = text
    if schema.get("type") == "integer" and re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII):
        value = int(text)
    check(value, schema, name)
    return value


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _is(value: Any, kind: str) -> bool:
    if kind == "boolean" or isinstance(value, bool):
        return kind == "boolean" and isinstance(value, bool)
    if kind in ("integer", "number") and isinstance(value, float):
        return math.isfinite(value) and (kind == "number" or value.is_integer())
    return isinstance(value, _TYPES[kind])


def _same(value: Any, other: Any) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _check_text(value: str, schema: Schema, name: str) -> None:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf):
        raise Malformed(
            f"{name} must have {schema.get('minLength', 0)} to {schema.get('maxLength', 'any')} letters, "
            f"not {len(value)}"
        )
    if "pattern" in schema and not re.search(schema["pattern"], value, re.ASCII):
        raise Malformed(f"{name} must match {schema['pattern']}, {_shown(value)} does not")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Malformed(f"{name} holds half of a letter (a lone surrogate)") from None


def _check_number(value: float, schema: Schema, name: str) -> None:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and value < low:
        raise Malformed(f"{name} must be at least {low}, not {value}")
    if high is not None and value > high:
        raise Malformed(f"{name} must be at most {high}, not {value}")


def _check_object(value: dict[str, Any], schema: Schema, name: str) -> None:
    properties = schema.get("properties", {})
    for key in schema.get("required", ()):
        if key not in value:
            raise Malformed(f"{name} lacks {key!r}")
    for key, one in value.items():
        if key in properties:
            check(one, properties[key], key)
        elif schema.get("additionalProperties", True) is False:
            known = ", ".join(properties)
            raise Malformed(f"{name} has no {_shown(key)}", f"there are {known}")


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:60]}..."
