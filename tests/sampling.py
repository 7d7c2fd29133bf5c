"""Long lists of cases whose outcome no version of Python or NumPy changes.

Every Python runs a sample of them, and one Python runs all: the others are marked slow (setup.cfg).
"""

import pytest


def sampled(cases, every=10, *, unpack=False):
    """Return ``cases`` for ``parametrize``; all but every ``every``-th one are marked slow.

    With ``unpack``, a case is a tuple of the values of several parameters.
    """
    return [
        pytest.param(
            *(case if unpack else (case,)), marks=[pytest.mark.slow] * (number % every > 0)
        )
        for number, case in enumerate(cases)
    ]
