"""What ranks do on GPUs in tests/gpu/test_nccl.py, so that a spawned process can import it."""

import os
import signal
import time

import numpy as np

from minis5 import PPO, ActorCritic, AgentConfig, PPOConfig, S5Config, make_vec
from minis5.arrays import to_host

CONFIG = PPOConfig(num_envs=64, unroll=32, epochs=2, minibatches=4)
SHAPE = AgentConfig((16,), (16,), core_config=S5Config(n_layers=1, ssm_size=16))


def trained(comm):
    """Return every rank's weights, and its rows without times."""
    from minis5_cuda.rl.comm import NCCLComm

    with NCCLComm(comm) as ranks:
        share = CONFIG.num_envs // comm.size
        first = comm.rank * share
        envs = make_vec("RepeatPreviousEasy", share, 1, first_index=first, device="cuda")
        spaces = envs.single_observation_space, envs.single_action_space
        agent = ActorCritic(*spaces, SHAPE, seed=2, device="cuda")
        ppo = PPO(agent, envs, CONFIG, seed=1, comm=ranks)
        rows = [ppo.iteration() for _ in range(3)]
        times = "seconds", "steps_per_second"
        rows = [{name: row[name] for name in row if name not in times} for row in rows]
        return comm.gather((to_host(agent.parameter_vector), rows))


def add(comm):
    """Return the sums of vectors of many sizes, and what they should be."""
    import cupy
    from minis5_cuda.rl.comm import NCCLComm

    with NCCLComm(comm) as ranks, cupy.cuda.Stream() as stream:
        found = []
        for size in (1, 7, 1000, 1_000_003):
            parts = [np.random.default_rng(r).standard_normal(size) for r in range(comm.size)]
            total = ranks.allreduce(cupy.asarray(parts[comm.rank]))
            ranks.wait(stream)
            found.append((to_host(total), sum(parts)))
        return comm.gather(found)


def killed(comm, moment):
    """Rank 1 is killed after seven sums; the file ``moment`` says when."""
    import cupy
    from minis5_cuda.rl.comm import NCCLComm

    with NCCLComm(comm) as ranks, cupy.cuda.Stream() as stream:
        for i in range(1000):
            if comm.rank == 1 and i == 7:
                moment.write_text(str(time.time()))
                os.kill(os.getpid(), signal.SIGKILL)
            ranks.allreduce(cupy.ones(1000))
            ranks.wait(stream)
