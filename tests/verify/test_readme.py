"""README.txt of the test vectors: it alone must be enough for a program in another language."""

import json
import re

from minis5.verify.flags import FLAGS
from minis5.verify.operations import OPERATIONS
from minis5.verify.readme import readme
from minis5.verify.vectors import COLUMNS, SMALL, Vectors

# Columns that say how a case was made; what the call needs is in its other columns and inputs.
MADE_OF = {"ends", "numbers", "distribution"}
SIZES = set("TBPHNAK")
ALL = {name: operation.about for name, operation in OPERATIONS.items()}


def words(text):
    return set(re.findall(r"[A-Za-z_]\w*", text))


def test_it_has_every_flag_and_every_text_in_short_lines():
    text = readme(1, 0, True, ALL)
    assert all(f"    {flag} " in text and about in text for flag, about in FLAGS.items())
    assert all(f"\n{name}\n    {about.rstrip()}\n" in text for name, about in ALL.items())
    assert max(map(len, text.splitlines())) <= 100
    assert "the small set" in text and "the small set" not in readme(1, 0, False, ALL)
    assert all(re.search(rf"^    {column} ", text, re.MULTILINE) for column in COLUMNS)


def test_every_input_output_and_option_is_named_in_its_operation_s_text():
    """But for one with a prefix (start_NAME), and the gradient of an argument (d_value, dB)."""
    there = Vectors(SMALL)
    for name in there.operations:
        text = words(ALL[name]) | (words(ALL["ssm"]) if name == "ssm_vjp" else set())
        params = {"w", "b", "s"} | text  # Adam's params have any names
        for case in there.cases(name):
            for key in {*case.inputs, *case.expected, *case.options} - MADE_OF - SIZES:
                prefix, _, rest = key.partition("_")
                named = prefix in ("start", "grads", "params") and f"{prefix}_NAME" in text
                assert key in text or (named and rest in params), (name, key)


def test_the_readme_that_ships_is_today_s():
    shipped = Vectors(SMALL)
    schema = json.loads(json.dumps(ALL))
    assert {name: shipped.about(name) for name in shipped.operations} == schema
