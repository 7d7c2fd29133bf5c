"""Count what the host does in an iteration on a GPU: graphs that it launches, and waits.

Nothing is computed: kernels and recorded work are only counted, because their number depends on
sizes alone. So an iteration has no figures, and its episodes do not end.

tests/test_launch_counts.py runs it, in a process with the simulator.
"""

import warnings
from unittest import mock

import launch_counts
import simulated_cupy
from minis5_cuda import graphs
from minis5_cuda.rl import ppo as passes

from minis5 import PPO, ActorCritic, make_vec
from minis5.run import presets

CASES = {  # preset: core, level. RepeatPrevious is never truncated
    "paper": [("s5", "RepeatPreviousHard"), ("s5", "PositionOnlyCartPoleHard")],
    "laptop": [
        ("s5", "RepeatPreviousHard"),  # all steps by one launch, which is no graph
        ("gru", "RepeatPreviousHard"),
        ("gru", "PositionOnlyCartPoleHard"),
        ("gru", "PositionOnlyPendulumHard"),
    ],
}


def iteration(preset, level, core):
    """Return whether rewards are normalised; of the second iteration, graphs launched and waits."""
    called = []

    def call(graph):
        called.append(graph)
        if graph.wanted and graph.result is None:
            graph.result = graph.function()
        return graph.result

    config, learning, _ = presets.resolve(level, preset, core, {})
    envs = make_vec(level, learning.num_envs, device="cuda")
    spaces = envs.single_observation_space, envs.single_action_space
    ppo = PPO(ActorCritic(*spaces, config, device="cuda"), envs, learning)
    with (
        mock.patch.object(graphs.Graph, "__call__", call),
        mock.patch.object(passes, "check_norm"),
        warnings.catch_warnings(action="ignore", category=RuntimeWarning),  # means of no figures
    ):
        ppo.iteration()
        called.clear()
        before = simulated_cupy.waits
        ppo.iteration()
    return learning.normalize_rewards, len(called), simulated_cupy.waits - before


def show(preset):
    """Print the lines of a preset in the table of cuda/README.md."""
    launch_counts.install(launch_counts.Counts())
    for core, level in CASES[preset]:
        normalised, *numbers = iteration(preset, level, core)
        cells = preset, core, level, "yes" if normalised else "no", *numbers
        print(f"| {' | '.join(map(str, cells))} |")
