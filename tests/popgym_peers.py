"""POPGym's classes by name, and our games in lockstep with them; skipped without popgym."""

import pytest

from minis5.verify import lockstep as verify


def peer_class(name):
    """Return POPGym's class of that name; skip the test if popgym is not installed."""
    module = pytest.importorskip("popgym.envs")
    return next(cls for cls in module.ALL if cls.__name__ == name)


def lockstep(name, start, *arguments, **options):
    """Play our `name` side by side with POPGym's; see minis5/verify/lockstep.py."""
    return verify.lockstep(peer_class(name)(), name, start, *arguments, **options)
