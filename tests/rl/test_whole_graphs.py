"""Rollouts and passes as a few graphs, in the simulator, against a host that asks the GPU."""

import graph_checks
import pytest
from sampling import sampled
from simulator import simulated

TRUNCATED = [  # level, core, truncations at least, options
    ("PositionOnlyCartPoleEasy", "norms", 9, {"max_steps": 4}),
    ("PositionOnlyPendulumEasy", "lstm", 42, {"max_steps": 1}),  # in every step
    ("MultiarmedBanditEasy", "none", 18, {"episode_length": 2}),  # no state; a number is observed
    ("PositionOnlyCartPoleEasy", "attention", 9, {"max_steps": 4}),
]


@pytest.mark.parametrize("core", sampled(["none", "plain"]))
def test_target_kl_without_the_host(core):
    simulated(graph_checks.__file__, f"targets({core!r})")


@pytest.mark.parametrize(("level", "core", "least", "options"), sampled(TRUNCATED, unpack=True))
def test_values_of_truncated_episodes_without_the_host(level, core, least, options):
    simulated(graph_checks.__file__, f"truncations({level!r}, {core!r}, {least}, **{options})")


def test_copies_have_a_bound():
    simulated(graph_checks.__file__, "small_memory()")
