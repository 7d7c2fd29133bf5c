"""Environments made of others: the same scalar functions, around the parts' own.

The source of a composition's functions is written once, with placeholders for what the parts bring; `bind` copies them with
other globals, as Numba caches no closures over compiled functions on disk. Parts share one state: a part's integers and
floats are the first ones of the whole's, the generator row included, so that its functions run on the whole's rows as they
are; what a composition adds lies behind. Parameters are nested: a composition's hold those of its parts.

Tested in tests/envs/test_meta.py and tests/envs/test_mixture.py.
"""

import zlib
from types import FunctionType

from numba import njit


def bind(function, **names):
    """A copy of `function` that finds `names` where `function` finds its module's placeholders."""
    return FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__)


def compiled(function, **names):
    """`bind` and compile; without Numba's runtime, as minis5/envs/batch_loops.py says why."""
    return njit(nogil=True, _nrt=False)(bind(function, **names))


def files(env):
    """The source files of an environment, those of its parts included."""
    return env.files if isinstance(env, Composed) else (env.__file__,)


class Composed:
    """An environment that stands where an environment's module does (minis5/envs/task.py), but for LEVELS and configure.

    Parameters
    ----------
    kind : str
        Begins its name; the rest tells its parts.
    parts : tuple of modules and Composed
    reset, step, observe : compiled functions
    render : function
    """

    def __init__(self, kind, parts, reset, step, observe, render):
        self.__name__ = (
            f"{kind}_{zlib.crc32(' '.join(part.__name__ for part in parts).encode()):08x}"
        )
        self.parts = parts
        self.files = tuple(dict.fromkeys(file for part in parts for file in files(part)))
        self.reset, self.step, self.observe, self.render = reset, step, observe, render
