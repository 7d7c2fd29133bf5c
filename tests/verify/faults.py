"""The catalogue of faults: wrong implementations, each one edit away from a right one.

The right ones are the functions of textbook.py and textbook_ppo.py, and the collector of
tests/other_cores.py. A file of
catalogue/ has the faults of an operation, each in four lines:

    scan: resets are ignored                   the function, or function/helper if the edit is there
    fails: reset; cause: resets are ignored    a flag of which a case must fail; words of its cause
    - forget, 0                                text that occurs once there
    + False, 0                                 and what is there instead

More entries of the second line: ``passes``, flags whose cases may not fail (those of a case are all
among them); ``only``, the dtypes in which the fault shows; ``found in``, well-known code that had
it; ``set: whole``, the small set of cases does not show it. Some faults have no cause: the kit
knows none that gives the same numbers.

Wrong environments are in tests/other_envs.py, wrong memory cores and more wrong collectors of
experience in tests/other_cores.py.
"""

import inspect
from pathlib import Path
from typing import NamedTuple

import other_cores
import textbook
import textbook_ppo

HERE = Path(__file__).parent
MODULES = (textbook, textbook_ppo, other_cores)
OPERATION = {  # right function: operation of the kit
    "scan": "scan",
    "scan_in_chunks": "scan",
    "scan_in_parallel": "scan",
    "scan_vjp": "scan_vjp",
    "gae": "gae",
    "ssm": "ssm",
    "ppo_loss": "ppo_loss",
    "adam": "adam",
    "collect": "replay",
}


class Fault(NamedTuple):
    """One edit of a right implementation."""

    of: str  # the function, or function/helper
    name: str  # what is wrong
    old: str
    new: str
    fails: str
    cause: str = ""
    passes: tuple[str, ...] = ()
    only: tuple[str, ...] = ("float32", "float64")
    found_in: str = ""
    set: str = "small"

    @property
    def operation(self) -> str:
        """The kit's operation."""
        return OPERATION[self.of.partition("/")[0]]


def parse(text):
    """Yield the faults of a file of catalogue/."""
    for block in text.strip().split("\n\n"):
        first, second, old, new = (line for line in block.splitlines() if line[0] != "#")
        assert old.startswith("- ") and new.startswith("+ "), block
        of, name = first.split(": ", 1)
        entries = dict(entry.split(": ", 1) for entry in second.split("; "))
        entries = {key.replace(" ", "_"): value for key, value in entries.items()}
        for key in ("passes", "only"):
            if key in entries:
                entries[key] = tuple(entries[key].split())
        yield Fault(of, name, old[2:], new[2:], **entries)


def build(of, old="", new=""):
    """Return a right function after one edit; without one, as it is."""
    name, _, helper = of.partition("/")
    module = next(module for module in MODULES if hasattr(module, name))
    whole, source = inspect.getsource(module), inspect.getsource(getattr(module, helper or name))
    assert not old or source.count(old) == 1, f"{old!r} is there {source.count(old)} times in {of}"
    scope = {}
    edited = whole.replace(source, source.replace(old, new) if old else source)
    exec(compile(edited, of, "exec"), scope)
    return scope[name]


FAULTS = tuple(
    fault
    for path in sorted(HERE.glob("catalogue/*.txt"))
    for fault in parse(path.read_text("utf-8"))
)
