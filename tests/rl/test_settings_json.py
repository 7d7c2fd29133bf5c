"""Settings from JSON: the annotation of a field says what is accepted."""

import math
import re
from dataclasses import dataclass
from typing import Any

import pytest

from minis5.rl.settings_json import from_fields, short


@dataclass(frozen=True)
class Settings:
    whole: int
    real: float
    flag: bool = False
    name: str = "x"
    widths: tuple[int, ...] = ()
    words: list[str] | None = None
    table: dict[str, int] | None = None
    free: Any = None


def test_values_of_each_kind():
    values = {"whole": 3, "real": 2, "flag": True, "widths": [1, 2], "words": ["a"]}
    values |= {"table": {"a": 1}, "free": [1, "b"]}
    built = from_fields(Settings, values)
    assert built == Settings(3, 2, True, "x", (1, 2), ["a"], {"a": 1}, [1, "b"])
    assert from_fields(Settings, {"whole": 1, "real": math.inf, "words": None}).words is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"whole": "many"}, "whole: expected an integer of 64 bits, got 'many'"),
        ({"whole": True}, "whole: expected an integer"),
        ({"whole": 1.0}, "whole: expected an integer"),
        ({"whole": 2**63}, "whole: expected an integer of 64 bits, got 9223372036854775808"),
        ({"whole": 10**5000}, "whole: expected an integer of 64 bits, got a huge integer"),
        ({"whole": None}, "whole: expected an integer of 64 bits, got None"),
        ({"real": math.nan}, "real: expected a number, got nan"),
        ({"real": 10**400}, "real: expected a number, got a huge integer"),
        ({"real": "1"}, "real: expected a number, got '1'"),
        ({"real": [1.0]}, "real: expected a number"),
        ({"flag": 1}, "flag: expected true or false, got 1"),
        ({"name": None}, "name: expected a text, got None"),
        ({"widths": 3}, "widths: expected a list, got 3"),
        ({"widths": [1, "2"]}, "widths: expected an integer"),
        ({"words": [1]}, "words: expected a text"),
        ({"table": []}, "table: expected an object, got []"),
        ({"table": {"a": "b"}}, "table.a: expected an integer"),
        ({"hue": 1}, "Settings: unknown fields hue, made by a newer version of minis5; upgrade"),
    ],
)
def test_values_of_another_kind(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        from_fields(Settings, {"whole": 1, "real": 1.0, **change})


def test_no_object_and_missing_fields():
    with pytest.raises(ValueError, match="Settings: expected an object, got 3"):
        from_fields(Settings, 3)
    with pytest.raises(ValueError, match="Settings: missing fields real"):
        from_fields(Settings, {"whole": 1})


def test_long_values_are_cut_short():
    assert short("a" * 58) == "'" + "a" * 58 + "'"  # 60 characters
    assert short("a" * 59) == "'" + "a" * 59 + "…"
    assert short(10**39) == str(10**39) and short(-(10**40)) == "a huge integer"
