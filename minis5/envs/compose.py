"""Environments made of others: the same scalar functions, around the parts' own.

The source of a composition's functions is written once, with placeholders for the parts' functions.
`bind` copies them with other globals, because Numba caches no closures over compiled functions on
disk. Parts share one state: a part's integers and floats are the first ones of the whole's,
including the generator row, so that its functions run on the whole's rows as they are. What a
composition adds comes after them. Parameters are nested: a composition's hold those of its parts.

Tests: tests/envs/test_meta.py, test_mixture.py and test_batch_loops.py.
"""

import zlib
from types import FunctionType

from numba import njit


def bind(function, **names):
    """Return a copy of `function` with `names` instead of its module's placeholders."""
    return FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__)


def compiled(function, **names):
    """Bind and compile, without Numba's runtime; minis5/envs/batch_loops.py says why."""
    return njit(nogil=True, _nrt=False)(bind(function, **names))


def files(env):
    """Return the source files of an environment and of its parts."""
    return env.files if isinstance(env, Composed) else (env.__file__,)


class Composed:
    """An environment made of others.

    It has all that an environment's module has (minis5/envs/task.py) but LEVELS and configure.

    Parameters
    ----------
    kind : str
        Its name begins with it; the rest of the name is a digest of the parts'.
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
