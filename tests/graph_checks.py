"""Whether rollouts and passes as a few graphs are those of a host that asks (stepwise.py).

tests/rl/test_whole_graphs.py calls these functions in Numba's simulator, where a graph has three
steps or minibatches (simulator.py); tests/gpu/test_training.py calls them on a GPU.
"""

import dataclasses
import os

import numpy as np
from device_checks import CONFIG, agent_config, assert_close, strict_graphs

from minis5 import PPO, ActorCritic, make_vec
from minis5.arrays import to_host
from minis5.rl.loss import STATS


def trainers(env_id, core, changes, options=None):
    """Return a trainer that asks the GPU, and one that does not."""
    from stepwise import StepwiseCollector, StepwisePasses

    os.environ["MINIS5_PERSISTENT"] = "0"
    strict_graphs()
    config, made = dataclasses.replace(CONFIG, **changes), []
    for asks in (True, False):
        envs = make_vec(env_id, config.num_envs, seed=3, device="cuda", **(options or {}))
        spaces = envs.single_observation_space, envs.single_action_space
        agent = ActorCritic(*spaces, agent_config(core), seed=1, device="cuda")
        agent.parameter_vector *= 1.3  # the policy's last layer is almost zero at first
        made.append(ppo := PPO(agent, envs, config, seed=5))
        if asks:
            ppo.passes, ppo.collector = StepwisePasses(ppo), StepwiseCollector(agent, envs, 5)
    return made


def targets(core):
    """target_kl ends the passes after the first, or does not because it is just reached.

    Bits are equal. The learning rate is annealed. Four minibatches are two graphs.
    """
    changes = {"unroll": 4, "epochs": 2, "minibatches": 2, "anneal_lr": True}
    asking, _ = trainers("RepeatPreviousEasy", core, changes)
    asking.iteration()
    kl = np.mean(np.array(asking.passes.rows)[:2, STATS.index("kl")])
    assert kl > 0
    for target, minibatches in ((kl / 2, 2), (kl, 4)):
        both = trainers("RepeatPreviousEasy", core, {**changes, "target_kl": target})
        rows, steps = [], []
        for ppo in both:
            rows.append([])
            for row in ppo.iterations(2 * 4 * 4):
                rows[-1].append(row)
                steps.append(int(to_host(ppo.adam.moments.steps)[0]))
        assert steps[0] == minibatches and steps[:2] == steps[2:]
        assert rows[0][1]["lr"] == rows[0][0]["lr"] / 2
        for expected, got in zip(*rows, strict=True):
            for name in set(expected) - {"seconds", "steps_per_second"}:
                np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
        same_bits(*(ppo.state_dict() | {"θ": ppo.agent.parameter_vector} for ppo in both))


def same_bits(wanted, got, leave_out=("seconds",)):
    """Compare two dicts of arrays."""
    assert set(wanted) == set(got)
    for name in set(wanted) - set(leave_out):
        if wanted[name] is not None:
            np.testing.assert_array_equal(to_host(got[name]), to_host(wanted[name]), err_msg=name)


def truncations(env_id, core, least, **options):
    """Episodes are truncated in the middle of graphs and at their ends, over two rollouts.

    Equal bits; but values of last observations to rounding, because they come from products of more
    rows.
    """
    both = trainers(env_id, core, {"unroll": 7, "num_envs": 3, "minibatches": 1}, options)
    found, last = 0, ("next_values",)
    for n in range(2):
        results = []
        for ppo in both:
            with ppo.passes.stream:
                results.append(ppo.collector.collect(7, np.random.default_rng(n)))
        (wanted, ended), (got, ended_too) = results
        assert list(ended_too) == list(ended) and ended
        same_bits(wanted._asdict(), got._asdict(), last)
        assert_close(got.next_values, wanted.next_values, 1e-12)
        same_bits(*(ppo.collector.state_dict() for ppo in both))
        found += int(to_host(wanted.done & ~wanted.terminated).sum())
    assert found >= least, found


def small_memory():
    """With little memory for copies, a graph has fewer steps, and at least one."""
    from minis5_cuda.rl import last_values

    envs = make_vec("PositionOnlyPendulumEasy", 2, device="cuda")
    spaces = envs.single_observation_space, envs.single_action_space
    agent = ActorCritic(*spaces, agent_config("gru"), device="cuda")
    each = 2 * ((agent.initial_state(1).size + 1) * 8 + 2 * 4)  # state, action; observation
    for memory, steps in ((each * 64, 64), (each * 5 + 1, 5), (each - 1, 1)):
        last_values.MEMORY = memory
        assert last_values.steps_of(agent, envs, 64) == steps
