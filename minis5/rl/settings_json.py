"""Settings from JSON: each value is checked against the annotation of its field.

Leaves out: ranges, which the settings' own classes check. Tests: tests/rl/test_settings_json.py.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

MOST = 2**63  # an integer of 64 bits is below


def from_fields(kind: type, values: Any) -> Any:
    """Build the dataclass `kind` from JSON values, whose lists become tuples.

    A field that was added later takes its default, which leaves an agent as it was before.

    Raises
    ------
    ValueError
        This minis5 does not have a field, or a value is missing or wrong.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{kind.__name__}: expected an object, got {short(values)}")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    none = dataclasses.MISSING
    missing = [
        name
        for name, field in fields.items()
        if name not in values and field.default is none and field.default_factory is none
    ]
    if missing:
        raise ValueError(f"{kind.__name__}: missing fields {', '.join(missing)}")
    if odd := sorted(set(values) - set(fields)):
        close = difflib.get_close_matches(odd[0], fields, 1, 0.75)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(
            f"{kind.__name__}: unknown fields {', '.join(odd)[:200]}{hint}, "
            "made by a newer version of minis5; upgrade minis5"
        )
    hints = typing.get_type_hints(kind)
    return kind(**{name: fit(name, value, hints[name]) for name, value in values.items()})


def fit(name: str, value: Any, hint: Any) -> Any:
    """Return a JSON value as the type that a field's annotation names.

    Raises
    ------
    ValueError
        It is of another type, or a number that is NaN or too large.
    """
    if isinstance(hint, types.UnionType):
        if value is None and types.NoneType in typing.get_args(hint):
            return None
        hint = next(kind for kind in typing.get_args(hint) if kind is not types.NoneType)
    origin, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise _wrong(name, "a list", value)
        return origin(fit(name, item, parts[0]) for item in value) if parts else origin(value)
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(name, "an object", value)
        return {key: fit(f"{name}.{key}", item, parts[1]) for key, item in value.items()}
    if hint is bool or hint is str:
        if not isinstance(value, hint):
            raise _wrong(name, "true or false" if hint is bool else "a text", value)
    elif hint is int:
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= MOST:
            raise _wrong(name, "an integer of 64 bits", value)
    elif hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or (isinstance(value, float) and math.isnan(value)) or abs(value) >= 1e300:
            if value not in (math.inf, -math.inf):  # the class says whether it takes these
                raise _wrong(name, "a number", value)
    return value


def _wrong(name, wanted, value):
    return ValueError(f"{name}: expected {wanted}, got {short(value)}")


def short(value: Any) -> str:
    """Return a value as text, cut short if it is long."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**40 else "a huge integer"
    return text if len(text) <= 60 else f"{text[:60]}…"
