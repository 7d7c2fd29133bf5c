"""The part "rollout" of gpu_bench.py: the laptop's network acts in thousands of environments.

The same rollouts by one launch (minis5_cuda/rl/persistent.py) and step by step, in turn, until the
host has the returns of the episodes; then whole iterations, with the laptop's passes. The two must
agree on the first step's features.

Tests: tests/test_gpu_bench.py, in the simulator.
"""

import os
from functools import partial
from unittest import mock

import numpy as np
from gpu_scan import in_turn, wall_ms

from minis5.arrays import to_host
from minis5.envs.registry import make_vec
from minis5.rl.agent import ActorCritic
from minis5.rl.ppo import PPO
from minis5.run import presets
from minis5.run.bench import row

LEVELS = "RepeatPreviousEasy", "PositionOnlyPendulumEasy"  # never truncated; always
SIZES = {"num_envs": 4096, "unroll": 128}
QUICK = {"num_envs": 8, "unroll": 2, "encoder": (4,), "heads": (3,), "n_layers": 1, "ssm_size": 4}
QUICK |= {"epochs": 1, "minibatches": 2}
AIM = 5_000_000  # steps/s of whole iterations
WAYS = {"one launch": "1", "step by step": "0"}  # value of MINIS5_PERSISTENT


def trainer(level, way, quick):
    """Return PPO with the laptop's preset, whose rollouts go that way."""
    agent_config, config, _ = presets.resolve(level, "laptop", "s5", QUICK if quick else SIZES)
    envs = make_vec(level, config.num_envs, device="cuda")
    spaces = envs.single_observation_space, envs.single_action_space
    with mock.patch.dict(os.environ, MINIS5_PERSISTENT=WAYS[way]):
        ppo = PPO(ActorCritic(*spaces, agent_config, device="cuda"), envs, config)
    assert (ppo.collector.persistent is not None) == (way == "one launch"), "rollout: the wrong way"
    return ppo


def collect(ppo):
    """Collect a rollout on the trainer's stream; return it once the host has the episodes."""
    with ppo.passes.stream:
        rollout, ended = ppo.collector.collect(ppo.config.unroll, np.random.default_rng(0))
        len(ended)  # waits
    return rollout


def bench_rollout(repeats, quick):
    """Time rollouts both ways, and iterations of PPO with rollouts by one launch."""
    rows = []
    for level in LEVELS:
        ppos = {way: trainer(level, way, quick) for way in WAYS}
        for ppo in ppos.values():
            collect(ppo)
        first, second = (to_host(ppo.collector.features)[0] for ppo in ppos.values())
        np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4, err_msg="rollout")
        ms = in_turn({way: partial(collect, ppo) for way, ppo in ppos.items()}, repeats, wall_ms)
        config = ppos["one launch"].config
        steps, size = config.num_envs * config.unroll, f"{config.num_envs} x {config.unroll} steps"
        for way, times in ms.items():
            speeds = [1e3 * steps / time for time in times]
            rows.append(row(f"rollout of {level}, {size}, {way}", speeds, "steps/s", None))
        lines = [ppos["one launch"].iteration() for _ in range(2 + repeats)]
        assert np.isfinite([line["loss"] for line in lines]).all(), "rollout: loss is not finite"
        what = f"train {level}, laptop, {size}, epochs {config.epochs}"
        speeds = [line["steps_per_second"] for line in lines[2:]]
        rows.append(row(what, speeds, "steps/s", None if quick else AIM))
    return [{"part": "rollout", **line} for line in rows]
