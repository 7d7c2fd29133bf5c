"""The values of the last observations of truncated episodes, without asking the GPU.

Such a value depends on an observation and on the state of the episode that has ended. The next step
overwrites both. To look whether an episode was truncated would mean to wait in every step. So each
step copies both, of all environments, by one launch. After a block of steps the values of all
copies are computed at once. Only those of truncated episodes are read (rollout.py).

What it costs, in levels that may be truncated: a launch a step; once a block, the launches of a
step without the policy; and as many multiply-adds as acting, but in products with many more rows.
To compute the values in every step would cost these launches each time.

Leaves out: levels that are never truncated, which need nothing of this.
Its kernels are no operations: they copy. Source: minis5's own. Specification:
`Collector._last_values` in minis5/rl/rollout.py.
Tests: the kernels by themselves: tests/test_kernels.py; tests/rl/test_whole_graphs.py.
"""

import math

import numpy as np

from minis5.arrays import as_array
from minis5_cuda.launch import blocks, cuda, kernel, launch

BLOCK = 128  # threads
MOST_BLOCKS = 1024
MEMORY = 256 << 20  # bytes of the copies: with a large state, a block has fewer steps


@kernel
def copy_kernel(row, state, previous_action, obs, copies):
    """Copy a step to row ``row`` of ``copies``; a thread walks in steps of all threads."""
    states, actions, observations = copies
    first, step = cuda.grid(1), cuda.gridsize(1)
    size = states.shape[2]
    for i in range(first, state.size, step):
        states[i // size, row, i % size] = state[i]
    for i in range(first, previous_action.size, step):
        actions[row, i] = previous_action[i]
    width = obs.shape[1]
    for i in range(first, obs.size, step):
        observations[row, i] = obs[i // width, i % width]


@kernel
def store_kernel(t, values, rows):
    """Write values (n, B) to the n rows of ``rows`` (T, B) that end before row t[0]."""
    i = cuda.grid(1)
    if i < values.size:
        n, B = values.shape
        rows[t[0] - n + i // B, i % B] = values[i // B, i % B]


def copy(row, step, copies):
    """Copy a step to row ``row`` of ``copies``.

    step: the state (layers, B, W), the previous actions (B, A), the observations (B, n), which may
    have any strides. copies: (layers, rows, B·W), (rows, B·A), (rows, B·n).
    """
    state, previous_action, obs = step
    grid = max(1, min(blocks(max(state.size, obs.size), BLOCK), MOST_BLOCKS))
    arguments = state.ravel(), previous_action.ravel(), obs, copies
    launch(copy_kernel, grid, BLOCK, row, *arguments)


def store(t, values, rows):
    """Write values (n, B) to the n rows of ``rows`` (T, B) that end before row t[0]."""
    launch(store_kernel, blocks(values.size, BLOCK), BLOCK, t, values, rows)


def steps_of(agent, envs, most):
    """Return how many steps, at most ``most``, a block has: their copies fit MEMORY."""
    width = agent.distribution.encoded_size * envs.num_envs
    numbers = math.prod(agent.initial_state(envs.num_envs).shape) + width
    bytes_each = numbers * np.dtype(agent.dtype).itemsize + as_array(envs.world.final_obs).nbytes
    return max(1, min(most, MEMORY // bytes_each))


class LastValues:
    """The values of all last observations of a block of steps.

    Parameters
    ----------
    agent : ActorCritic
    envs : minis5_cuda.envs.CudaVectorEnv
    steps : int
        Most steps of a block.
    """

    def __init__(self, agent, envs, steps):
        self.agent, self.envs = agent, envs
        xp, B = agent.xp, envs.num_envs
        self.obs, (layers, _, width) = as_array(envs.world.final_obs), agent.initial_state(B).shape
        self.states = xp.zeros((layers, steps, B * width), agent.dtype)
        self.actions = xp.zeros((steps, B * agent.distribution.encoded_size), agent.dtype)
        self.observations = xp.zeros((steps, self.obs.size), self.obs.dtype)
        self.reset = xp.zeros(steps * B, bool)  # a last observation begins no episode

    def copy(self, row, state, previous_action):
        """Copy what the values of the block's step number ``row`` depend on.

        state, previous_action: as they are after the step.
        """
        step = state, previous_action, self.obs
        copy(row, step, (self.states, self.actions, self.observations))

    def write(self, t, n, stepper, rows):
        """Write the values of the n steps before step t[0] to their rows of ``rows`` (T, B)."""
        rows_each, (layers, _, size) = n * self.envs.num_envs, self.states.shape
        state = self.states[:, :n].reshape(layers, rows_each, size // self.envs.num_envs)
        actions = self.actions[:n].reshape(rows_each, self.agent.distribution.encoded_size)
        seen = self.envs.observations(self.observations[:n].reshape(rows_each, self.obs.shape[1]))
        reset = self.reset[:rows_each]
        x = self.agent.encode(seen, actions, reset)
        values = stepper.value(stepper.features(x, reset, state)[0]).reshape(n, -1)
        store(t, values, rows)
